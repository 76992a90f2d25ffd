//! mremap on one CPU: growing, shrinking, moving by entries and by whole tables, and what failures leave behind (ZP-10).

use super::{BASE, Bench, at, get, range};
use crate::sync::plain::Ordering::Relaxed;
use crate::{Backing, Destination, MapRequest, PAGE_SIZE, RemapError, RemapRequest, Rights, Sharing, VirtAddr};
use std::sync::Arc;
use std::vec::Vec;

const KEEP: bool = true;

fn request(page: u64, old: u64, new: u64, destination: Destination) -> RemapRequest {
    let (old_len, new_len) = (old * PAGE_SIZE, new * PAGE_SIZE);
    RemapRequest { addr: at(page), old_len, new_len, destination, keep: false }
}

fn remap(bench: &mut Bench, request: RemapRequest) -> Result<VirtAddr, RemapError> {
    bench.space.remap(&mut bench.cpu, request)
}

fn areas(bench: &mut Bench) -> Vec<(u64, u64)> {
    let mut areas = Vec::new();
    bench.space.areas(&mut bench.cpu, |area| {
        areas.push(((area.range.start().as_u64() - BASE) / PAGE_SIZE, area.range.len() / PAGE_SIZE));
    });
    areas
}

fn fill(bench: &mut Bench, first: u64, count: u64) {
    (0..count).for_each(|page| bench.put(first + page, page as u8 + 1));
}

fn bytes(bench: &mut Bench, first: u64, count: u64) -> Vec<u8> {
    (0..count).map(|page| bench.byte(first + page)).collect()
}

#[test]
fn grows_where_there_is_room() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.map(5, 1);
    fill(&mut bench, 0, 2);
    assert_eq!(remap(&mut bench, request(0, 2, 4, Destination::InPlace)), Ok(at(0)));
    assert_eq!(areas(&mut bench), [(0, 4), (5, 1)]);
    assert_eq!(remap(&mut bench, request(0, 4, 6, Destination::InPlace)), Err(RemapError::NoMemory));
    // Only from its end on.
    assert_eq!(remap(&mut bench, request(0, 2, 3, Destination::InPlace)), Err(RemapError::NoMemory));
    assert_eq!(remap(&mut bench, request(0, 5, 6, Destination::InPlace)), Err(RemapError::Unmapped));
    assert_eq!(bytes(&mut bench, 0, 4), [1, 2, 0, 0]);
    bench.finish(&[]);
}

#[test]
fn shrinks_and_unmaps_the_tail() {
    let mut bench = Bench::new(64);
    bench.map(0, 4);
    fill(&mut bench, 0, 4);
    assert_eq!(remap(&mut bench, request(0, 4, 1, Destination::InPlace)), Ok(at(0)));
    assert_eq!(areas(&mut bench), [(0, 1)]);
    assert_eq!(bench.space.usage().anon, 1);
    bench.finish(&[]);
}

#[test]
fn moves_pages_entry_by_entry() {
    let mut bench = Bench::new(64);
    bench.map(0, 8);
    fill(&mut bench, 0, 8);
    // The middle, to a place with other alignment, longer than before.
    assert_eq!(remap(&mut bench, request(2, 4, 6, Destination::Fixed(at(1001)))), Ok(at(1001)));
    assert_eq!(areas(&mut bench), [(0, 2), (6, 2), (1001, 6)]);
    assert_eq!(bytes(&mut bench, 1001, 6), [3, 4, 5, 6, 0, 0]);
    assert_eq!(bytes(&mut bench, 6, 2), [7, 8]);
    assert!(bench.space.read(&mut bench.cpu, at(2), &mut [0]).is_err());
    assert_eq!(bench.stat("cow_copies"), 0);
    bench.put(1001, 9);
    assert_eq!(bench.byte(1001), 9);
    bench.finish(&[]);
}

#[test]
fn moves_whole_tables_where_both_places_line_up() {
    let mut bench = Bench::new(256);
    bench.map(512, 1025);
    [512, 700, 1024, 1535, 1536].into_iter().for_each(|page| bench.put(page, (page / 8) as u8));
    let swept = bench.stat("entries_swept");
    assert_eq!(remap(&mut bench, request(512, 1025, 1025, Destination::Fixed(at(512 * 9)))), Ok(at(512 * 9)));
    assert_eq!(bench.stat("entries_swept") - swept, 1, "two tables went whole");
    let moved = [512u64, 700, 1024, 1535, 1536].map(|page| (page, bench.byte(page + 512 * 8)));
    assert_eq!(moved.map(|(page, byte)| byte == (page / 8) as u8), [true; 5]);
    assert_eq!(bench.space.usage().anon, 5);
    bench.finish(&[]);
}

#[test]
fn moves_what_is_shared_with_a_child() {
    let mut bench = Bench::new(256);
    bench.map(512, 513);
    fill(&mut bench, 512, 3);
    bench.put(1024, 9);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(remap(&mut bench, request(512, 513, 513, Destination::Fixed(at(4096)))), Ok(at(4096)));
    assert_eq!(bytes(&mut bench, 4096, 3), [1, 2, 3]);
    assert_eq!(bench.byte(4096 + 512), 9);
    assert_eq!([512, 513, 1024].map(|page| get(&child, &mut bench.cpu, page)), [1, 2, 9]);
    bench.put(4096, 7);
    child.write(&mut bench.cpu, at(512), &[8]).unwrap();
    assert_eq!((bench.byte(4096), get(&child, &mut bench.cpu, 512)), (7, 8));
    bench.finish(&[&child]);
}

#[test]
fn a_table_left_by_a_failure_makes_room_also_where_a_child_shares_it() {
    let mut bench = Bench::new(256);
    bench.map(512, 1024);
    [512, 1024].into_iter().for_each(|page| bench.put(page, 7));
    // Entry by entry to two tables, of which the second cannot be had; the first stays where no area is.
    bench.vm.machine().fail_after.store(2, Relaxed);
    assert_eq!(remap(&mut bench, request(512, 1024, 1024, Destination::Fixed(at(4097)))), Err(RemapError::NoMemory));
    bench.vm.machine().fail_after.store(0, Relaxed);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(remap(&mut bench, request(512, 1024, 1024, Destination::Fixed(at(4096)))), Ok(at(4096)));
    assert_eq!((bench.byte(4096), bench.byte(4608)), (7, 7));
    child.map(&mut bench.cpu, MapRequest::anonymous(PAGE_SIZE).fixed(at(4096))).unwrap();
    child.write(&mut bench.cpu, at(4096), &[8]).unwrap();
    assert_eq!((bench.byte(4096), get(&child, &mut bench.cpu, 4096)), (7, 8));
    bench.finish(&[&child]);
}

#[test]
fn finds_room_and_merges_there() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.map(2, 1);
    bench.space.protect(&mut bench.cpu, range(2, 1), Rights::READ).unwrap();
    fill(&mut bench, 0, 2);
    let new = remap(&mut bench, request(0, 2, 3, Destination::Anywhere)).unwrap();
    let mut byte = [0];
    bench.space.read(&mut bench.cpu, new, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    let top = bench.space.layout().mmap_top;
    assert_eq!(new.as_u64(), top.as_u64() - 3 * PAGE_SIZE);
    bench.finish(&[]);
}

#[test]
fn keeps_the_old_mapping_without_its_pages() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    fill(&mut bench, 0, 2);
    let kept = RemapRequest { keep: KEEP, ..request(0, 2, 2, Destination::Fixed(at(9))) };
    assert_eq!(remap(&mut bench, kept), Ok(at(9)));
    assert_eq!(bytes(&mut bench, 9, 2), [1, 2]);
    assert_eq!(bytes(&mut bench, 0, 2), [0, 0]);
    let bad = RemapRequest { keep: KEEP, ..request(0, 2, 1, Destination::Fixed(at(20))) };
    assert_eq!(remap(&mut bench, bad), Err(RemapError::Invalid));
    bench.finish(&[]);
}

#[test]
fn shows_shared_memory_a_second_time() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_memory(4 * PAGE_SIZE, "m").unwrap();
    let backing = Backing::Object { object: Arc::clone(&object), offset: PAGE_SIZE };
    let shared = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(2 * PAGE_SIZE).fixed(at(0)) };
    bench.space.map(&mut bench.cpu, shared).unwrap();
    bench.put(1, 5);
    assert_eq!(remap(&mut bench, request(1, 0, 2, Destination::Fixed(at(8)))), Ok(at(8)));
    assert_eq!((bench.byte(8), bench.byte(1)), (5, 5));
    bench.put(8, 6);
    assert_eq!(bench.byte(1), 6);
    // Moved shared memory shows the same pages.
    assert_eq!(remap(&mut bench, request(0, 2, 2, Destination::Fixed(at(20)))), Ok(at(20)));
    assert_eq!(bench.byte(21), 6);
    bench.map(30, 1);
    assert_eq!(remap(&mut bench, request(30, 0, 1, Destination::Anywhere)), Err(RemapError::Invalid));
    bench.space.unmap(&mut bench.cpu, range(0, 64)).unwrap();
    drop(object);
    bench.finish(&[]);
}

#[test]
fn bad_requests_change_nothing() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.map(2, 2);
    bench.space.protect(&mut bench.cpu, range(2, 2), Rights::READ).unwrap();
    let before = areas(&mut bench);
    for (bad, error) in [
        (request(0, 2, 0, Destination::Anywhere), RemapError::Invalid),
        (request(0, 3, 5, Destination::Anywhere), RemapError::Unmapped),
        (request(8, 1, (1 << 35) - 1, Destination::InPlace), RemapError::Unmapped),
        (request(8, 1, 2, Destination::Anywhere), RemapError::Unmapped),
        (request(0, 2, 2, Destination::Fixed(at(1))), RemapError::Invalid),
        (request(0, 2, 2, Destination::Fixed(VirtAddr::new(PAGE_SIZE))), RemapError::Invalid),
        (request(0, 2, 1 << 40, Destination::Anywhere), RemapError::NoMemory),
        (request(0, 2, 3, Destination::InPlace), RemapError::NoMemory),
    ] {
        assert_eq!(remap(&mut bench, bad), Err(error), "{bad:?}");
        assert_eq!(areas(&mut bench), before);
    }
    bench.finish(&[]);
}
