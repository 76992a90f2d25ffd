//! SIGBUS behind the end of a file, the tail of its last page, and truncation.

use crate::Sigs;
use faultless_guest::arena::Arena;
use faultless_guest::object::Object;
use faultless_guest::probe::{Trap, adrerr};
use faultless_guest::sys::{PAGE, RW};

/// Bytes of the file: one page and a half.
const SIZE: usize = PAGE + PAGE / 2;

/// A file of a page and a half, mapped as four pages.
pub fn behind_the_file(sigs: &Sigs) {
    let report = &sigs.report;
    for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
        let object = report.need("object", Object::new(SIZE));
        report.same("pwrite", object.write(0, &[0x77; SIZE]), Ok(SIZE));
        let arena = Arena::new(45, 4);
        report.need("mmap", arena.map_as(0, 4, RW, flags, object.fd, 0));
        let tail = (SIZE..2 * PAGE).all(|offset| arena.load_byte(offset) == 0);
        report.check(tail, || "the tail of the last page is not zero".to_owned());
        let body = (0..SIZE).all(|offset| arena.load_byte(offset) == 0x77);
        report.check(body, || "the file's bytes are wrong".to_owned());
        // The tail may be written, but it is no part of the file.
        arena.store_byte(2 * PAGE - 1, 1);
        report.same("byte of the tail", arena.load_byte(2 * PAGE - 1), 1);
        report.same("pread behind the end", object.read(SIZE, &mut [0; 8]), Ok(0));
        for offset in [2 * PAGE, 2 * PAGE + 1, 3 * PAGE - 8, 3 * PAGE + 123] {
            both(sigs, arena, offset, Err(adrerr(arena.addr(offset))));
        }
        // A word across the end: the second page is at fault.
        both(sigs, arena, 2 * PAGE - 3, Err(adrerr(arena.addr(2 * PAGE))));
        report.need("ftruncate", object.resize(3 * PAGE));
        both(sigs, arena, 2 * PAGE + 1, Ok(()));
        both(sigs, arena, 3 * PAGE, Err(adrerr(arena.addr(3 * PAGE))));
        report.need("munmap", arena.unmap(0, 4));
    }
}

fn both(sigs: &Sigs, arena: Arena, offset: usize, want: Result<(), Trap>) {
    sigs.report.same("load", arena.try_load(offset).map(|_| ()), want);
    sigs.report.same("store", arena.try_store(offset, 0), want);
}

/// A file that shrinks takes its pages out of all mappings, also private copies; what is
/// left of the last page is zero, also when the file grows again.
pub fn truncate(sigs: &Sigs) {
    let report = &sigs.report;
    let object = report.need("object", Object::new(4 * PAGE));
    (0..4).for_each(|page| {
        report.need("pwrite", object.fill(page, 0x99 + page as u64));
    });
    let (shared, private) = (Arena::new(45, 4), Arena::new(46, 4));
    let flags = [libc::MAP_SHARED, libc::MAP_PRIVATE];
    for (arena, flags) in [shared, private].into_iter().zip(flags) {
        report.need("mmap", arena.map_as(0, 4, RW, flags, object.fd, 0));
        (0..4).for_each(|page| report.same("page", arena.verify(page, 0x99 + page as u64), Ok(())));
    }
    private.fill(3, 0x55);
    report.need("ftruncate", object.resize(SIZE));
    for arena in [shared, private] {
        for page in [2, 3] {
            both(sigs, arena, page * PAGE + 40, Err(adrerr(arena.addr(page * PAGE + 40))));
        }
        let tail = (SIZE..2 * PAGE).all(|offset| arena.load_byte(offset) == 0);
        report.check(tail, || "the tail after truncation is not zero".to_owned());
    }
    report.need("ftruncate", object.resize(4 * PAGE));
    for arena in [shared, private] {
        report.same("page that came back", arena.verify(2, 0), Ok(()));
        report.same("page that came back", arena.verify(3, 0), Ok(()));
        report.need("munmap", arena.unmap(0, 4));
    }
}
