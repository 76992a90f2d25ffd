//! Fork: what is shared, when it is copied, what it costs.

use super::{Bench, RW, at, get, range};
use crate::sync::plain::Ordering::Relaxed;
use crate::{Access, MapRequest, PAGE_SIZE, Rights, Sharing};

#[test]
fn fork_costs_the_same_whatever_is_touched() {
    // FK-01, SH-13: table look-ups and allocations of a fork do not grow.
    let cost = |pages: u64| {
        let mut b = Bench::new(20_000);
        b.map(0, 16_384);
        (0..pages).for_each(|page| b.touch(page));
        let (walks, tables) = (b.vm.machine().walks.load(Relaxed), b.stat("tables_allocated"));
        let child = b.space.fork(&mut b.cpu).unwrap();
        let cost = (b.vm.machine().walks.load(Relaxed) - walks, b.stat("tables_allocated") - tables);
        assert_eq!(child.usage().anon, pages, "the child has what the parent has (SH-12)");
        b.finish(&[&child]);
        cost
    };
    assert_eq!(cost(1), cost(16_384));
}

#[test]
fn both_sides_keep_their_own() {
    // FK-02, FK-06, CW-01: whatever the order of writes.
    for child_first in [true, false] {
        let mut b = Bench::new(64);
        b.map(0, 4);
        (0..4).for_each(|page| b.put(page, 1));
        let child = b.space.fork(&mut b.cpu).unwrap();
        if child_first {
            child.write(&mut b.cpu, at(1), &[2]).unwrap();
            b.put(1, 3);
        } else {
            b.put(1, 3);
            child.write(&mut b.cpu, at(1), &[2]).unwrap();
        }
        b.put(2, 4);
        assert_eq!([0, 1, 2, 3].map(|page| b.byte(page)), [1, 3, 4, 1]);
        assert_eq!([0, 1, 2, 3].map(|page| get(&child, &mut b.cpu, page)), [1, 2, 1, 1]);
        b.finish(&[&child]);
    }
}

#[test]
fn the_first_fork_flushes_once_and_later_ones_do_not() {
    // SH-01, SH-02.
    let mut b = Bench::new(64);
    b.map(0, 4);
    b.put(0, 1);
    let flushes = |b: &Bench| b.vm.machine().flushes.load(Relaxed);
    let before = flushes(&b);
    let first = b.space.fork(&mut b.cpu).unwrap();
    assert_eq!(flushes(&b), before + 1);
    let second = b.space.fork(&mut b.cpu).unwrap();
    assert_eq!(flushes(&b), before + 1, "all was shared already");
    b.finish(&[&first, &second]);
}

#[test]
fn one_write_copies_one_path_and_one_page() {
    // SH-03, SH-11, CW-05: the page that only one side still has is reused, not copied.
    let mut b = Bench::new(64);
    b.map(0, 4);
    (0..4).for_each(|page| b.put(page, 1));
    let child = b.space.fork(&mut b.cpu).unwrap();
    b.put(0, 2);
    assert_eq!((b.stat("slow_unshare_copy"), b.stat("fault_cow")), (3, 1));
    b.put(1, 2);
    assert_eq!((b.stat("slow_unshare_copy"), b.stat("fault_cow")), (3, 2), "the path is private now");
    child.exit(&mut b.cpu);
    b.put(2, 2);
    assert_eq!((b.stat("fault_reuse"), b.stat("fault_cow")), (1, 2), "the child is gone: nothing to copy");
    b.finish(&[]);
}

#[test]
fn the_last_sharer_takes_the_tables_back() {
    // SH-04: no allocation, no copy, no count changes.
    let mut b = Bench::new(64);
    b.map(0, 4);
    (0..4).for_each(|page| b.put(page, 1));
    let child = b.space.fork(&mut b.cpu).unwrap();
    child.exit(&mut b.cpu);
    let tables = b.stat("tables_allocated");
    b.put(0, 2);
    assert_eq!((b.stat("slow_unshare_take"), b.stat("slow_unshare_copy")), (1, 0), "only the root's entry was marked");
    assert_eq!(b.stat("tables_allocated"), tables);
    assert_eq!((b.stat("fault_cow"), b.stat("fault_reuse")), (0, 0), "the page was never made read-only");
    b.finish(&[]);
}

#[test]
fn reading_shared_memory_unshares_nothing() {
    let mut b = Bench::new(64);
    b.map(0, 4);
    (0..4).for_each(|page| b.put(page, 1));
    let child = b.space.fork(&mut b.cpu).unwrap();
    (0..4).for_each(|page| assert_eq!(get(&child, &mut b.cpu, page), 1));
    assert_eq!(child.fault(&mut b.cpu, at(1), Access::Read).map(|_| b.stat("fault_spurious")), Ok(1));
    assert_eq!(b.stat("slow_unshare_copy"), 0);
    b.finish(&[&child]);
}

#[test]
fn shared_mappings_stay_shared_across_fork() {
    // FK-02: a store through a shared mapping copies tables, never the page.
    let mut b = Bench::new(64);
    let mut request = MapRequest::anonymous(2 * PAGE_SIZE).fixed(at(0));
    request.sharing = Sharing::Shared;
    b.space.map(&mut b.cpu, request).unwrap();
    b.put(0, 1);
    let child = b.space.fork(&mut b.cpu).unwrap();
    child.write(&mut b.cpu, at(0), &[2]).unwrap();
    assert_eq!(b.byte(0), 2);
    b.put(1, 3); // first touched after the fork
    assert_eq!(get(&child, &mut b.cpu, 1), 3);
    assert_eq!((b.stat("fault_cow"), b.space.usage().shmem, child.usage().shmem), (0, 2, 2));
    b.space.unmap(&mut b.cpu, range(0, 2)).unwrap();
    child.unmap(&mut b.cpu, range(0, 2)).unwrap();
    b.finish(&[&child]);
}

#[test]
fn range_operations_on_one_side_do_not_reach_the_other() {
    // SH-11, ZP-01: across several leaf tables, whole and in part.
    let mut b = Bench::new(8192);
    b.map(0, 2000);
    (0..2000).for_each(|page| b.put(page, 1));
    let child = b.space.fork(&mut b.cpu).unwrap();
    child.unmap(&mut b.cpu, range(300, 1500)).unwrap();
    assert_eq!(child.usage().anon, 500);
    b.space.protect(&mut b.cpu, range(0, 600), Rights::READ).unwrap();
    child.write(&mut b.cpu, at(10), &[5]).unwrap();
    assert_eq!((b.byte(10), b.byte(1000)), (1, 1));
    assert_eq!(b.space.usage().anon, 2000);
    b.space.protect(&mut b.cpu, range(0, 600), RW()).unwrap();
    b.put(10, 6);
    assert_eq!(get(&child, &mut b.cpu, 10), 5);
    b.finish(&[&child]);
}

#[test]
fn a_whole_shared_table_is_dropped_not_copied() {
    // SH-11: unmapping everything below a shared entry drops the share.
    let mut b = Bench::new(2048);
    b.map(0, 1024);
    (0..1024).for_each(|page| b.touch(page));
    let child = b.space.fork(&mut b.cpu).unwrap();
    child.unmap(&mut b.cpu, range(0, 1024)).unwrap();
    assert_eq!(b.stat("slow_unshare_copy"), 0);
    assert_eq!((child.usage().anon, child.usage().tables), (0, 0));
    assert_eq!(b.space.usage().anon, 1024);
    b.finish(&[&child]);
}

#[test]
fn generations_of_forks_count_exactly() {
    // SH-05..SH-07, SH-12, AC-02, AC-06: a line of ten, each changes a page and loses another; they exit in any order.
    let mut b = Bench::new(4096);
    b.map(0, 64);
    (0..64).for_each(|page| b.put(page, 0));
    let mut line = std::vec::Vec::new();
    for depth in 0..10u64 {
        let parent = line.last().unwrap_or(&b.space);
        let child = parent.fork(&mut b.cpu).unwrap();
        child.write(&mut b.cpu, at(depth), &[depth as u8 + 1]).unwrap();
        child.unmap(&mut b.cpu, range(63 - depth, 1)).unwrap();
        line.push(child);
    }
    let all: std::vec::Vec<_> = std::iter::once(&b.space).chain(&line).collect();
    b.vm.audit(&mut b.cpu, &all, &[]).unwrap_or_else(|error| panic!("{error}"));
    for (depth, space) in line.iter().enumerate() {
        assert_eq!(space.usage().anon, 63 - depth as u64);
        for page in 0..10 {
            let expected = if page <= depth { page as u8 + 1 } else { 0 };
            assert_eq!(get(space, &mut b.cpu, page as u64), expected);
        }
    }
    for depth in [4, 9, 0, 7] {
        line[depth].exit(&mut b.cpu);
    }
    let rest: std::vec::Vec<_> =
        line.iter().enumerate().filter(|(depth, _)| ![4, 9, 0, 7].contains(depth)).map(|(_, space)| space).collect();
    b.finish(&rest);
}

#[test]
fn a_dropped_space_is_taken_down_by_the_next_operation() {
    let mut b = Bench::new(64);
    b.map(0, 4);
    b.put(0, 1);
    drop(b.space.fork(&mut b.cpu).unwrap());
    b.cpu.collect();
    b.finish(&[]);
}
