//! Holes in objects: what is read, what is counted, what a file gives back (MA-01, MA-04, MA-05, TR-02).

use super::{Bench, at, get, range};
use crate::{Backing, MapRequest, Object, PAGE_SIZE, PageWriter, Pager, PagerError, Sharing};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::vec::Vec;

/// A file of which every byte of page n is n + 1, and which counts what is read.
struct Numbered(AtomicU64);

impl Pager for Numbered {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        self.0.fetch_add(1, Relaxed);
        page.write(0, &[index as u8 + 1; PAGE_SIZE as usize]);
        Ok(())
    }
}

type Memory = Arc<Object<super::TestMachine>>;

fn map(bench: &mut Bench, page: u64, object: &Memory, sharing: Sharing) {
    let backing = Backing::Object { object: Arc::clone(object), offset: 0 };
    let request = MapRequest { sharing, backing, ..MapRequest::anonymous(4 * PAGE_SIZE).fixed(at(page)) };
    bench.space.map(&mut bench.cpu, request).unwrap();
}

fn bytes(bench: &mut Bench, page: u64) -> Vec<u8> {
    (0..4).map(|n| bench.byte(page + n)).collect()
}

fn bytes_of<const N: usize>(bench: &mut Bench, object: &Memory, offset: u64) -> [u8; N] {
    let mut bytes = [1; N];
    assert_eq!(object.read(&mut bench.cpu, offset, &mut bytes), Ok(N));
    bytes
}

#[test]
fn a_hole_is_seen_by_all_mappings_but_not_by_copies() {
    let mut bench = Bench::new(128);
    let object = bench.vm.new_memory(4 * PAGE_SIZE, "m").unwrap();
    map(&mut bench, 0, &object, Sharing::Shared);
    map(&mut bench, 10, &object, Sharing::Private);
    (0..4).for_each(|page| bench.put(page, page as u8 + 1));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.put(11, 99);
    assert_eq!(bytes(&mut bench, 10), [1, 99, 3, 4]);
    object.punch_hole(&mut bench.cpu, PAGE_SIZE, 2 * PAGE_SIZE).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| object.is_resident(page * PAGE_SIZE)), [true, false, false, true]);
    assert_eq!(bytes(&mut bench, 0), [1, 0, 0, 4]);
    assert_eq!(bytes(&mut bench, 10), [1, 99, 0, 4]);
    assert_eq!([0, 1, 2, 11].map(|page| get(&child, &mut bench.cpu, page)), [1, 0, 0, 0]);
    bench.space.unmap(&mut bench.cpu, range(0, 20)).unwrap();
    child.unmap(&mut bench.cpu, range(0, 20)).unwrap();
    drop(object);
    bench.finish(&[&child]);
}

#[test]
fn the_edges_of_a_hole_are_zeroed_in_place() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_memory(3 * PAGE_SIZE, "m").unwrap();
    object.write(&mut bench.cpu, 0, &[7; 3 * PAGE_SIZE as usize]).unwrap();
    object.punch_hole(&mut bench.cpu, 100, 2 * PAGE_SIZE).unwrap();
    let mut all = [0; 3 * PAGE_SIZE as usize];
    object.read(&mut bench.cpu, 0, &mut all).unwrap();
    assert!(all.iter().enumerate().all(|(n, byte)| *byte == if (100..100 + 8192).contains(&n) { 0 } else { 7 }));
    // Inside one page, and up to the end.
    object.punch_hole(&mut bench.cpu, 10, 5).unwrap();
    object.punch_hole(&mut bench.cpu, 3 * PAGE_SIZE - 8, 1 << 40).unwrap();
    object.read(&mut bench.cpu, 0, &mut all).unwrap();
    assert_eq!((all[9], all[10], all[14], all[15], all[99]), (7, 0, 0, 7, 7));
    assert_eq!((all[3 * 4096 - 9], all[3 * 4096 - 8], object.size()), (7, 0, 3 * PAGE_SIZE));
    drop(object);
    bench.finish(&[]);
}

#[test]
fn a_hole_in_a_file_is_not_read_again() {
    let mut bench = Bench::new(64);
    let pager = Arc::new(Numbered(AtomicU64::new(0)));
    let object = bench.vm.new_file(4 * PAGE_SIZE, Arc::clone(&pager) as Arc<dyn Pager>, "f").unwrap();
    map(&mut bench, 0, &object, Sharing::Private);
    assert_eq!(bench.byte(0), 1);
    object.punch_hole(&mut bench.cpu, 0, 2 * PAGE_SIZE).unwrap();
    assert_eq!(bytes(&mut bench, 0), [0, 0, 3, 4]);
    assert_eq!(pager.0.load(Relaxed), 3);
    // A cut through the hole leaves what is before it zeroes: the pager still has the bytes.
    object.punch_hole(&mut bench.cpu, 2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    object.resize(&mut bench.cpu, 2 * PAGE_SIZE + 100).unwrap();
    assert_eq!(bytes_of(&mut bench, &object, 2 * PAGE_SIZE), [0; 100]);
    // What is cut off and grows again is no hole's business.
    object.resize(&mut bench.cpu, PAGE_SIZE).unwrap();
    object.resize(&mut bench.cpu, 4 * PAGE_SIZE).unwrap();
    assert_eq!(bytes(&mut bench, 0), [0; 4]);
    assert_eq!(pager.0.load(Relaxed), 3);
    bench.space.unmap(&mut bench.cpu, range(0, 20)).unwrap();
    drop(object);
    bench.finish(&[]);
}
