//! madvise and its relatives on one CPU: what is read afterwards, what is counted, what fails (MA-02, MA-03, GU-02).

use super::{BASE, Bench, RW, at, get, range};
use crate::{
    Access, AdviseError, AreaFlags, Backing, MapRequest, PAGE_SIZE, PageInfo, PageKind, Populate, Rights, Sharing,
};
use std::sync::Arc;
use std::vec::Vec;

fn pages(bench: &mut Bench, first: u64, count: u64) -> Vec<PageInfo> {
    let mut seen = Vec::new();
    bench.space.pages(&mut bench.cpu, range(first, count), |page| seen.push(page));
    seen
}

#[test]
fn discarded_private_memory_reads_as_zeroes() {
    let mut bench = Bench::new(64);
    bench.map(0, 4);
    (0..4).for_each(|page| bench.put(page, 7));
    let flushes = bench.stat("flush_local");
    assert_eq!(bench.space.discard(&mut bench.cpu, range(1, 2), false), Ok(()));
    assert_eq!(bench.stat("flush_local"), flushes + 1);
    assert_eq!(bench.space.usage().anon, 2);
    assert_eq!((0..4).map(|page| bench.byte(page)).collect::<Vec<_>>(), [7, 0, 0, 7]);
    bench.put(1, 9);
    assert_eq!(bench.byte(1), 9);
    bench.finish(&[]);
}

#[test]
fn discard_gives_up_whole_shared_tables_without_a_copy() {
    let mut bench = Bench::new(128);
    // Two whole leaf tables and a page on each side.
    bench.map(511, 1026);
    for page in [511, 512, 700, 1024, 1535, 1536] {
        bench.put(page, 3);
    }
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let copies = bench.stat("unshared_by_copy");
    assert_eq!(bench.space.discard(&mut bench.cpu, range(512, 1024), false), Ok(()));
    // The tables above were copied to reach the leaves; the leaves were not.
    assert!(bench.stat("unshared_by_copy") - copies <= 2);
    assert_eq!(bench.space.usage().anon, 2);
    assert_eq!(child.usage().anon, 6);
    assert_eq!([511, 700, 1535, 1536].map(|page| bench.byte(page)), [3, 0, 0, 3]);
    assert_eq!([511, 700, 1535].map(|page| get(&child, &mut bench.cpu, page)), [3; 3]);
    bench.finish(&[&child]);
}

#[test]
fn discarded_shared_memory_keeps_its_contents() {
    let mut bench = Bench::new(64);
    let request = MapRequest { sharing: Sharing::Shared, ..MapRequest::anonymous(2 * PAGE_SIZE).fixed(at(0)) };
    bench.space.map(&mut bench.cpu, request).unwrap();
    bench.put(0, 5);
    assert_eq!(bench.space.discard(&mut bench.cpu, range(0, 2), false), Ok(()));
    assert_eq!(bench.space.usage().shmem, 0);
    assert_eq!(bench.byte(0), 5);
    bench.space.unmap(&mut bench.cpu, range(0, 2)).unwrap();
    bench.finish(&[]);
}

#[test]
fn discarded_private_copies_read_as_the_file_again() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_memory(PAGE_SIZE, "m").unwrap();
    object.write(&mut bench.cpu, 0, &[1]).unwrap();
    let backing = Backing::Object { object: Arc::clone(&object), offset: 0 };
    bench.space.map(&mut bench.cpu, MapRequest { backing, ..MapRequest::anonymous(PAGE_SIZE).fixed(at(0)) }).unwrap();
    bench.put(0, 2);
    object.write(&mut bench.cpu, 0, &[3]).unwrap();
    assert_eq!(bench.byte(0), 2);
    assert_eq!(bench.space.discard(&mut bench.cpu, range(0, 1), false), Ok(()));
    assert_eq!(bench.byte(0), 3);
    bench.space.unmap(&mut bench.cpu, range(0, 1)).unwrap();
    drop(object);
    bench.finish(&[]);
}

#[test]
fn holes_are_passed_over_and_locked_areas_refuse() {
    let mut bench = Bench::new(64);
    bench.map(0, 1);
    bench.map(2, 2);
    [0, 2, 3].into_iter().for_each(|page| bench.put(page, 1));
    let locked = AreaFlags::LOCKED;
    bench.space.set_flags(&mut bench.cpu, range(3, 1), locked, AreaFlags::NONE, |_| true).unwrap();
    assert_eq!(bench.space.discard(&mut bench.cpu, range(0, 3), false), Err(AdviseError::Unmapped));
    assert_eq!([0, 2, 3].map(|page| bench.byte(page)), [0, 0, 1]);
    bench.put(2, 1);
    assert_eq!(bench.space.discard(&mut bench.cpu, range(2, 2), false), Err(AdviseError::Refused(at(3))));
    assert_eq!([2, 3].map(|page| bench.byte(page)), [0, 1]);
    assert_eq!(bench.space.discard(&mut bench.cpu, range(2, 2), true), Ok(()));
    assert_eq!(bench.byte(3), 0);
    assert_eq!(bench.space.free_lazily(&mut bench.cpu, range(3, 1)), Err(AdviseError::Refused(at(3))));
    assert_eq!(bench.space.discard(&mut bench.cpu, range(9, 1), false), Err(AdviseError::Unmapped));
    bench.finish(&[]);
}

#[test]
fn lazily_freed_pages_are_clean_until_the_next_store() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.put(0, 4);
    bench.put(1, 4);
    assert_eq!(bench.space.free_lazily(&mut bench.cpu, range(0, 2)), Ok(()));
    assert!(pages(&mut bench, 0, 2).iter().all(|page| !page.dirty && page.writable));
    bench.put(1, 5);
    assert_eq!([0, 1].map(|page| bench.byte(page)), [4, 5]);
    let dirty = |bench: &mut Bench| pages(bench, 0, 2).iter().map(|page| page.dirty).collect::<Vec<_>>();
    assert_eq!(dirty(&mut bench), [false, true]);
    // To ask for the page to be stored to is as good as a store, and takes no fault.
    let faults = bench.stat("faults");
    bench.space.populate(&mut bench.cpu, range(0, 1), Populate::Read).unwrap();
    assert_eq!(dirty(&mut bench), [false, true]);
    bench.space.populate(&mut bench.cpu, range(0, 1), Populate::Write).unwrap();
    assert_eq!((dirty(&mut bench), bench.stat("faults")), ([true, true].to_vec(), faults));
    // Nor do rights matter: the memory may have none.
    bench.space.protect(&mut bench.cpu, range(0, 1), Rights::NONE).unwrap();
    assert_eq!(bench.space.free_lazily(&mut bench.cpu, range(0, 2)), Ok(()));
    assert_eq!(dirty(&mut bench), [false, false]);
    bench.space.protect(&mut bench.cpu, range(0, 1), Rights::READ | Rights::WRITE).unwrap();
    bench.put(0, 6);
    assert_eq!(dirty(&mut bench), [true, false]);
    bench.finish(&[]);
}

#[test]
fn populate_touches_as_the_area_says() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.map(2, 2);
    bench.space.protect(&mut bench.cpu, range(2, 2), Rights::READ).unwrap();
    bench.space.populate(&mut bench.cpu, range(0, 4), Populate::AsMapped).unwrap();
    let kinds: Vec<_> = pages(&mut bench, 0, 4).iter().map(|page| page.kind).collect();
    assert_eq!(kinds, [PageKind::Anon, PageKind::Anon, PageKind::Zero, PageKind::Zero]);
    let faults = bench.stat("faults");
    bench.space.populate(&mut bench.cpu, range(0, 4), Populate::Read).unwrap();
    assert_eq!(bench.stat("faults"), faults, "what is there is left alone");
    let error = bench.space.populate(&mut bench.cpu, range(1, 2), Populate::Write).unwrap_err();
    assert_eq!((error.at, error.fault), (at(2), crate::FaultError::Denied));
    let error = bench.space.populate(&mut bench.cpu, range(3, 2), Populate::Read).unwrap_err();
    assert_eq!((error.at, error.fault), (at(4), crate::FaultError::Unmapped));
    bench.finish(&[]);
}

#[test]
fn parts_of_a_page_sum_up_over_all_spaces() {
    let mut bench = Bench::new(128);
    bench.map(0, 3);
    (0..3).for_each(|page| bench.put(page, 1));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let grandchild = child.fork(&mut bench.cpu).unwrap();
    child.write(&mut bench.cpu, at(1), &[2]).unwrap();
    let mut sum = 0.0;
    for space in [&bench.space, &child, &grandchild] {
        space.pages(&mut bench.cpu, range(0, 3), |page| {
            sum += 1.0 / (f64::from(page.mappings) * page.path_shares as f64);
        });
    }
    assert!((sum - 4.0).abs() < 1e-9, "three pages and a copy, not {sum}");
    bench.finish(&[&child, &grandchild]);
}

#[test]
fn looking_changes_nothing() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    bench.touch(0);
    let (faults, tables) = (bench.stat("faults"), bench.stat("tables_allocated"));
    assert_eq!(pages(&mut bench, 0, 1 << 28).len(), 1);
    assert_eq!((bench.stat("faults"), bench.stat("tables_allocated")), (faults, tables));
    bench.finish(&[]);
}

#[test]
fn flags_split_and_merge_areas() {
    let mut bench = Bench::new(64);
    bench.map(0, 4);
    let starts = |bench: &mut Bench| {
        let mut starts = Vec::new();
        bench.space.areas(&mut bench.cpu, |area| starts.push((area.range.start().as_u64() - BASE) / PAGE_SIZE));
        starts
    };
    let flag = AreaFlags::NO_DUMP;
    bench.space.set_flags(&mut bench.cpu, range(1, 2), flag, AreaFlags::NONE, |_| true).unwrap();
    assert_eq!(starts(&mut bench), [0, 1, 3]);
    bench.space.set_flags(&mut bench.cpu, range(0, 4), AreaFlags::NONE, flag, |_| true).unwrap();
    assert_eq!(starts(&mut bench), [0]);
    let refused = bench.space.set_flags(&mut bench.cpu, range(0, 1), flag, AreaFlags::NONE, |_| false);
    assert_eq!(refused, Err(AdviseError::Refused(at(0))));
    assert!(RW().allow(Access::Write));
    bench.finish(&[]);
}

#[test]
fn a_child_gets_neither_withheld_areas_nor_wiped_contents() {
    let mut bench = Bench::new(128);
    bench.map(0, 3);
    (0..3).for_each(|page| bench.put(page, 6));
    let none = AreaFlags::NONE;
    bench.space.set_flags(&mut bench.cpu, range(0, 1), AreaFlags::NO_FORK, none, |_| true).unwrap();
    bench.space.set_flags(&mut bench.cpu, range(1, 1), AreaFlags::WIPE_ON_FORK, none, |_| true).unwrap();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(child.usage().anon, 1);
    assert!(child.read(&mut bench.cpu, at(0), &mut [0]).is_err());
    assert_eq!([1, 2].map(|page| get(&child, &mut bench.cpu, page)), [0, 6]);
    assert_eq!([0, 1, 2].map(|page| bench.byte(page)), [6; 3]);
    // The flags stay with the areas that the child got.
    child.write(&mut bench.cpu, at(1), &[8]).unwrap();
    let grandchild = child.fork(&mut bench.cpu).unwrap();
    assert_eq!(get(&grandchild, &mut bench.cpu, 1), 0);
    bench.finish(&[&child, &grandchild]);
}
