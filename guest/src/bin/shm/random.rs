//! Random stores, file calls, forks and mappings against a record of every byte.

use crate::Shm;
use faultless_guest::arena::Arena;
use faultless_guest::object::Object;
use faultless_guest::rng::Rng;
use faultless_guest::sys::{End, PAGE};

/// What everybody should see.
struct Record {
    file: Vec<u8>,
    /// Pages of the private view that have been written to.
    copies: Vec<Option<Vec<u8>>>,
}

/// Two shared views, one private one, pread, pwrite and children, in any order.
pub fn random(shm: &Shm, object: &Object) {
    let mut rng = Rng::lane(shm.report.seed(), shm.round.get());
    let mut record = Record { file: vec![0; shm.pages * PAGE], copies: vec![None; shm.pages] };
    let views = [
        shm.map(0, object, libc::MAP_SHARED),
        shm.map(1, object, libc::MAP_SHARED),
        shm.map(2, object, libc::MAP_PRIVATE),
    ];
    for op in 0..shm.ops {
        match rng.below(20) {
            0..8 => store(shm, &mut record, views[rng.below(2)], &mut rng),
            8..12 => store_private(shm, &mut record, views[2], &mut rng),
            12..15 => write(shm, &mut record, object, &mut rng),
            15..17 => fork(shm, &mut record, views, &mut rng),
            17 => remap(shm, &mut record, object, &mut rng),
            _ => verify(shm, &record, object, views, rng.below(shm.pages)),
        }
        if op % 100 == 99 {
            (0..shm.pages).for_each(|page| verify(shm, &record, object, views, page));
        }
    }
}

fn store(shm: &Shm, record: &mut Record, view: Arena, rng: &mut Rng) {
    let offset = rng.below(shm.pages * PAGE - 8);
    let value = rng.next();
    view.store(offset, value);
    record.file[offset..][..8].copy_from_slice(&value.to_le_bytes());
}

fn store_private(shm: &Shm, record: &mut Record, view: Arena, rng: &mut Rng) {
    let (page, offset) = (rng.below(shm.pages), rng.below(PAGE / 8) * 8);
    let value = rng.next();
    view.store(page * PAGE + offset, value);
    record.private_page(page)[offset..][..8].copy_from_slice(&value.to_le_bytes());
}

fn write(shm: &Shm, record: &mut Record, object: &Object, rng: &mut Rng) {
    let offset = rng.below(shm.pages * PAGE - 1);
    let length = 1 + rng.below((shm.pages * PAGE - offset).min(3 * PAGE));
    let start = rng.next() as u8;
    let data: Vec<u8> = (0..length).map(|index| start.wrapping_add(index as u8)).collect();
    shm.report.same("pwrite", object.write(offset, &data), Ok(length));
    record.file[offset..][..length].copy_from_slice(&data);
}

/// A child stores to everything; only what it stores to shared pages remains. Its private
/// pages stay its own, and it sees the parent's as they were.
fn fork(shm: &Shm, record: &mut Record, views: [Arena; 3], rng: &mut Rng) {
    let (page, value) = (rng.below(shm.pages), rng.next());
    let own = record.private_page_or_file(page);
    let end = faultless_guest::child::run(|| {
        let seen = (0..PAGE).all(|index| views[2].load_byte(page * PAGE + index) == own[index]);
        views[0].store(page * PAGE, value);
        views[1].store(page * PAGE + 64, value);
        views[2].store(page * PAGE + 128, value);
        i32::from(!seen)
    });
    shm.report.same("child", end, End::Exit(0));
    for offset in [0, 64] {
        record.file[page * PAGE + offset..][..8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Pages of the private view that are mapped anew show the file again.
fn remap(shm: &Shm, record: &mut Record, object: &Object, rng: &mut Rng) {
    let (first, count) = rng.range(shm.pages, 8);
    let prot = faultless_guest::sys::RW;
    let done = shm.views[2].map_as(first, count, prot, libc::MAP_PRIVATE, object.fd, first);
    shm.report.need("mmap", done);
    record.copies[first..][..count].fill(None);
}

fn verify(shm: &Shm, record: &Record, object: &Object, views: [Arena; 3], page: usize) {
    let file = &record.file[page * PAGE..][..PAGE];
    let own = record.private_page_or_file(page);
    let mut read = vec![0; PAGE];
    shm.report.same("pread", object.read(page * PAGE, &mut read), Ok(PAGE));
    shm.report.check(read == file, || format!("random, page {page}: pread got other bytes"));
    for (view, want) in [(0, file), (1, file), (2, own.as_slice())] {
        for (index, byte) in want.iter().enumerate() {
            let got = views[view].load_byte(page * PAGE + index);
            if got != *byte {
                let place = format!("view {view}, page {page}, byte {index}");
                shm.report.fail(format_args!("random, {place}: got {got:#x}, want {byte:#x}"));
            }
        }
        shm.report.passed(PAGE);
    }
}

impl Record {
    /// The copy of `page` in the private view, made now if it did not exist.
    fn private_page(&mut self, page: usize) -> &mut [u8] {
        let file = &self.file[page * PAGE..][..PAGE];
        self.copies[page].get_or_insert_with(|| file.to_vec())
    }

    fn private_page_or_file(&self, page: usize) -> Vec<u8> {
        let file = &self.file[page * PAGE..][..PAGE];
        self.copies[page].clone().unwrap_or_else(|| file.to_vec())
    }
}
