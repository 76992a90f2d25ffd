//! Nonlinear mappings (NL-01, NL-02, NL-03): what is shown, what is counted, what survives.

use super::{Bench, at, get, range};
use crate::{
    AreaFlags, Backing, Destination, MapRequest, NonlinearError, Object, PAGE_SIZE, PageWriter, Pager, PagerError,
    RemapError, RemapRequest, Rights, Sharing,
};
use std::sync::Arc;
use std::vec::Vec;

type Memory = Arc<Object<super::TestMachine>>;

const PAGES: u64 = 6;

/// A mapping of an object whose page n holds the byte n + 1, at page 0 and, linear, at page 100.
fn mapped(bench: &mut Bench) -> Memory {
    let object = bench.vm.new_memory(PAGES * PAGE_SIZE, "m").unwrap();
    show(bench, &object, 0);
    show(bench, &object, 100);
    (0..PAGES).for_each(|page| bench.put(100 + page, page as u8 + 1));
    object
}

fn show(bench: &mut Bench, object: &Memory, page: u64) {
    let backing = Backing::Object { object: Arc::clone(object), offset: 0 };
    let request = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(PAGES * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, request.fixed(at(page))).unwrap();
}

fn arrange(bench: &mut Bench, page: u64, pages: u64, index: u64) {
    bench.space.remap_pages(&mut bench.cpu, range(page, pages), index, AreaFlags::NONE).unwrap();
}

fn bytes(bench: &mut Bench, page: u64) -> Vec<u8> {
    (0..PAGES).map(|n| bench.byte(page + n)).collect()
}

fn indexes(bench: &mut Bench, page: u64) -> Vec<u64> {
    (0..PAGES).map(|n| bench.space.page_index_at(&mut bench.cpu, at(page + n)).unwrap()).collect()
}

/// Counts, takes everything out, and counts again.
fn finish(mut bench: Bench, object: Memory, others: &[&crate::Space<super::TestMachine>]) {
    let Bench { vm, cpu, space } = &mut bench;
    let mut spaces: Vec<_> = others.to_vec();
    spaces.push(space);
    vm.audit(cpu, &spaces, &[&object]).unwrap_or_else(|error| panic!("{error}"));
    spaces.iter().for_each(|space| space.unmap(cpu, range(0, 1 << 12)).unwrap());
    drop(object);
    bench.finish(others);
}

#[test]
fn any_page_is_shown_anywhere() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    bench.byte(1);
    bench.byte(4);
    arrange(&mut bench, 0, 2, 4);
    arrange(&mut bench, 4, 2, 0);
    arrange(&mut bench, 2, 1, 0);
    assert_eq!(indexes(&mut bench, 0), [4, 5, 0, 3, 0, 1]);
    assert_eq!(bytes(&mut bench, 0), [5, 6, 1, 4, 1, 2]);
    assert_eq!(indexes(&mut bench, 0), [4, 5, 0, 3, 0, 1]);
    // Stores arrive in the object, wherever else the page is shown.
    bench.put(4, 77);
    assert_eq!((bench.byte(2), bench.byte(100)), (77, 77));
    // What is shown already is taken away as well, and back in order is a call like any other.
    let swept = bench.stat("entries_swept");
    arrange(&mut bench, 0, 2, 4);
    assert_eq!(bench.stat("entries_swept"), swept + 2);
    arrange(&mut bench, 0, PAGES, 0);
    assert_eq!(bytes(&mut bench, 0), [77, 2, 3, 4, 5, 6]);
    // One area all the time.
    let mut areas = Vec::new();
    bench.space.areas(&mut bench.cpu, |area| areas.push((area.range, area.flags)));
    assert_eq!(
        areas,
        [(range(0, PAGES), AreaFlags::NONLINEAR | AreaFlags::SOFT_DIRTY), (range(100, PAGES), AreaFlags::SOFT_DIRTY)]
    );
    finish(bench, object, &[]);
}

#[test]
fn a_discarded_page_leaves_its_index() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    arrange(&mut bench, 0, 3, 3);
    bytes(&mut bench, 0);
    bench.space.discard(&mut bench.cpu, range(0, PAGES), false).unwrap();
    assert_eq!(bench.space.usage().shmem, PAGES);
    assert_eq!(indexes(&mut bench, 0), [3, 4, 5, 3, 4, 5]);
    assert_eq!(bytes(&mut bench, 0), [4, 5, 6, 4, 5, 6]);
    finish(bench, object, &[]);
}

#[test]
fn truncation_and_holes_find_pages_by_their_index() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    arrange(&mut bench, 0, 3, 3);
    bytes(&mut bench, 0);
    object.punch_hole(&mut bench.cpu, 4 * PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(bytes(&mut bench, 0), [4, 0, 6, 4, 0, 6]);
    object.resize(&mut bench.cpu, 4 * PAGE_SIZE).unwrap();
    assert_eq!(indexes(&mut bench, 0), [3, 4, 5, 3, 4, 5]);
    assert_eq!((bench.byte(0), bench.byte(3)), (4, 4));
    for page in [1, 2, 4, 5] {
        assert!(bench.space.read(&mut bench.cpu, at(page), &mut [0]).is_err(), "page {page}");
    }
    object.resize(&mut bench.cpu, PAGES * PAGE_SIZE).unwrap();
    assert_eq!(bytes(&mut bench, 0), [4, 0, 0, 4, 0, 0]);
    finish(bench, object, &[]);
}

#[test]
fn children_and_moves_keep_the_order() {
    let mut bench = Bench::new(256);
    let object = mapped(&mut bench);
    arrange(&mut bench, 0, 3, 3);
    bench.byte(1);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| get(&child, &mut bench.cpu, page)), [4, 5, 6, 4]);
    // A part goes elsewhere, across tables, with the pages that are there and those that are not.
    let request = RemapRequest {
        addr: at(1),
        old_len: 3 * PAGE_SIZE,
        new_len: 3 * PAGE_SIZE,
        destination: Destination::Fixed(at(1000)),
        keep: false,
    };
    bench.space.remap(&mut bench.cpu, request).unwrap();
    assert_eq!([1000, 1001, 1002, 0, 4].map(|page| bench.byte(page)), [5, 6, 4, 4, 5]);
    // Rights come and go.
    bench.space.protect(&mut bench.cpu, range(1000, 3), Rights::NONE).unwrap();
    bench.space.discard(&mut bench.cpu, range(1000, 1), false).unwrap();
    bench.space.protect(&mut bench.cpu, range(1000, 3), super::RW()).unwrap();
    assert_eq!([1000, 1001, 1002].map(|page| bench.byte(page)), [5, 6, 4]);
    // A second showing begins in order; one that would leave its old place behind is refused.
    let again = RemapRequest { addr: at(1000), old_len: 0, destination: Destination::Fixed(at(2000)), ..request };
    bench.space.remap(&mut bench.cpu, again).unwrap();
    assert_eq!([2000, 2001, 2002].map(|page| bench.byte(page)), [2, 3, 4]);
    let keep = RemapRequest { addr: at(1000), destination: Destination::Fixed(at(3000)), keep: true, ..request };
    assert_eq!(bench.space.remap(&mut bench.cpu, keep), Err(RemapError::Invalid));
    finish(bench, object, &[&child]);
}

#[test]
fn what_cannot_be_arranged_is_refused() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    bench.map(50, 2);
    let mut arrange =
        |page, pages, index| bench.space.remap_pages(&mut bench.cpu, range(page, pages), index, AreaFlags::NONE);
    assert_eq!(arrange(50, 1, 0), Err(NonlinearError::Invalid));
    assert_eq!(arrange(4, 4, 0), Err(NonlinearError::Invalid));
    assert_eq!(arrange(0, 2, (1 << 51) - 1), Err(NonlinearError::TooFar));
    assert_eq!(arrange(0, 2, u64::MAX), Err(NonlinearError::TooFar));
    assert_eq!(arrange(0, 1, (1 << 51) - 1), Ok(()));
    assert_eq!(indexes(&mut bench, 0), [(1 << 51) - 1, 1, 2, 3, 4, 5]);
    finish(bench, object, &[]);
}

#[test]
fn without_memory_nothing_has_happened() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    bench.vm.machine().fail_after.store(1, std::sync::atomic::Ordering::Relaxed);
    let far = range(0, 2);
    // The tables are there already: only what needs one fails.
    bench.space.remap_pages(&mut bench.cpu, far, 2, AreaFlags::NONE).unwrap();
    show_far(&mut bench, &object);
    let result = bench.space.remap_pages(&mut bench.cpu, range(1 << 20, 2), 2, AreaFlags::NONE);
    bench.vm.machine().fail_after.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(result, Err(NonlinearError::NoMemory));
    assert_eq!(bench.byte(1 << 20), 1);
    bench.space.unmap(&mut bench.cpu, range(1 << 20, PAGES)).unwrap();
    finish(bench, object, &[]);
}

fn show_far(bench: &mut Bench, object: &Memory) {
    show(bench, object, 1 << 20);
}

/// A file of which every byte of page n is n + 1.
struct Numbered;

impl Pager for Numbered {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &[index as u8 + 1; PAGE_SIZE as usize]);
        Ok(())
    }
}

#[test]
fn pages_of_a_file_are_read_where_they_belong() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_file(PAGES * PAGE_SIZE, Arc::new(Numbered), "f").unwrap();
    show(&mut bench, &object, 0);
    arrange(&mut bench, 0, PAGES - 1, 1);
    assert_eq!(bytes(&mut bench, 0), [2, 3, 4, 5, 6, 6]);
    finish(bench, object, &[]);
}

#[test]
fn what_is_shown_anew_is_locked_as_asked() {
    let mut bench = Bench::new(128);
    let object = mapped(&mut bench);
    let arrange = |bench: &mut Bench, page, index, locking| {
        bench.space.remap_pages(&mut bench.cpu, range(page, 2), index, locking)
    };
    assert_eq!(arrange(&mut bench, 1, 4, AreaFlags::LOCKED), Ok(()));
    assert_eq!(indexes(&mut bench, 0), [0, 4, 5, 3, 4, 5]);
    assert_eq!((bench.space.extent().locked, bench.space.extent().areas), (2, 4));
    // Only half of it is locked: no one call arranges both.
    assert_eq!(arrange(&mut bench, 0, 0, AreaFlags::NONE), Err(NonlinearError::Invalid));
    assert_eq!(bench.space.extent().locked, 2);
    assert_eq!(arrange(&mut bench, 1, 1, AreaFlags::NONE), Ok(()));
    assert_eq!(indexes(&mut bench, 0), [0, 1, 2, 3, 4, 5]);
    assert_eq!(bench.space.extent().locked, 0);
    finish(bench, object, &[]);
}
