//! What Linux answers where a large page would be cut, or is asked for in a way that makes no sense.

use super::{HUGE, Huge, LARGE};
use faultless_guest::sys::{ANON, Errno, RO, RW};

const EINVAL: faultless_guest::sys::Result = Err(Errno(libc::EINVAL));

pub fn refusals(huge: &Huge) {
    huge.map(3, HUGE);
    huge.memory.fill(7, 0xb07);
    cuts(huge);
    advice(huge);
    sizes(huge);
    huge.verify("untouched by all that", huge.memory, 7, 0xb07);
    huge.changed("untouched by all that", 1, 2);
}

fn cuts(huge: &Huge) {
    let (report, memory) = (&huge.report, huge.memory);
    for (first, pages) in [(1, 1), (0, 1), (0, LARGE + 1), (LARGE - 1, LARGE + 1)] {
        report.same("munmap", memory.unmap(first, pages), EINVAL);
        report.same("mprotect", memory.protect(first, pages, RO), EINVAL);
        report.same("mmap over it", memory.map_as(first, pages, RW, ANON, -1, 0), EINVAL);
    }
    report.same("mprotect to the same", memory.protect(0, 1, RW), Ok(0));
    let (may_move, fixed) = (libc::MREMAP_MAYMOVE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    report.same("growth", huge.remap([0, LARGE, 2 * LARGE, 0], may_move), EINVAL);
    report.same("move of a part", huge.remap([1, LARGE, LARGE, 0], fixed), EINVAL);
    report.same("move to no such place", huge.remap([0, LARGE, LARGE, 1], fixed), EINVAL);
    report.same("second mapping", huge.remap([0, 0, LARGE, 0], may_move), EINVAL);
    report.same("keep", huge.remap([0, LARGE, LARGE, 0], may_move | libc::MREMAP_DONTUNMAP), EINVAL);
}

fn advice(huge: &Huge) {
    /// MADV_COLD, MADV_PAGEOUT and MADV_COLLAPSE.
    const LATE: [i32; 3] = [20, 21, 25];
    let report = &huge.report;
    for advice in [libc::MADV_FREE, libc::MADV_WIPEONFORK].into_iter().chain(LATE) {
        report.same("advice", huge.advise(0, LARGE, advice), EINVAL);
    }
    report.same("remove from private memory", huge.advise(0, LARGE, libc::MADV_REMOVE), Err(Errno(libc::EACCES)));
    report.same("discard a part", huge.advise(1, LARGE, libc::MADV_DONTNEED), EINVAL);
    report.same("discard less than a page", huge.advise(0, 1, libc::MADV_DONTNEED), Ok(0));
    report.same("a flag for a part", huge.advise(0, LARGE + 1, libc::MADV_DONTDUMP), EINVAL);
    report.same("a flag", huge.advise(LARGE, LARGE, libc::MADV_DONTDUMP), Ok(0));
    report.same("no flag", huge.advise(LARGE, LARGE, libc::MADV_DODUMP), Ok(0));
}

fn sizes(huge: &Huge) {
    let (report, other) = (&huge.report, huge.other);
    let map = |first, pages, flags, from| other.map_as(first, pages, RW, flags, -1, from);
    report.same("a page of 1 GiB", map(0, LARGE, HUGE | 30 << libc::MAP_HUGE_SHIFT, 0), Err(Errno(libc::ENOMEM)));
    report.same("a page of 16 MiB", map(0, LARGE, HUGE | 24 << libc::MAP_HUGE_SHIFT, 0), EINVAL);
    report.same("no such place", map(1, LARGE, HUGE, 0), EINVAL);
    report.same("no length", map(0, 0, HUGE, 0), EINVAL);
    report.same("a growing one", map(0, LARGE, HUGE | libc::MAP_GROWSDOWN, 0), EINVAL);
    report.same("an odd offset", map(0, LARGE, HUGE, 1), EINVAL);
    report.same("rounded up", map(0, 1, HUGE, 0), Ok(other.page_addr(0)));
    report.same("munmap of what was asked for", other.unmap(0, 1), EINVAL);
    report.same("munmap of all", other.unmap(0, LARGE), Ok(0));
}
