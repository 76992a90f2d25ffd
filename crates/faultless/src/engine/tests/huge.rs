//! Large pages: they come with the first store, say the same as small ones, and split where they must (HT-02, HT-03,
//! HT-04, GU-10).

use super::{BASE, Bench, RW, at, get, range};
use crate::sync::plain::Ordering::Relaxed;
use crate::{
    Access, AreaFlags, CollapseError, Destination, HugePages, MapRequest, PAGE_SIZE, PageRange, RemapRequest, Rights,
    Space, VirtAddr,
};
use std::vec::Vec;

const LARGE: u64 = 512;
/// Frames enough for several large pages wherever they are aligned.
const FRAMES: u64 = 8 * LARGE;

fn bench() -> Bench {
    let mut bench = Bench::new(FRAMES);
    bench.vm.set_huge_pages(&mut bench.cpu, HugePages::Always);
    bench
}

/// Two large pages mapped, both stored to.
fn filled() -> Bench {
    let mut bench = bench();
    bench.map(0, 2 * LARGE);
    bench.put(3, 1);
    bench.put(LARGE + 4, 2);
    assert_eq!(bench.vm.huge_entries(), 2);
    bench
}

fn large_pages(bench: &mut Bench) -> Vec<u64> {
    let mut pages = Vec::new();
    bench.space.pages(&mut bench.cpu, range(0, 4 * LARGE), |info| {
        let page = (info.addr.as_u64() - BASE) / PAGE_SIZE;
        if info.large && page.is_multiple_of(LARGE) {
            pages.push(page / LARGE);
        }
    });
    pages
}

#[test]
fn the_first_store_maps_a_large_page() {
    let mut bench = filled();
    assert_eq!((bench.stat("fault_huge"), bench.stat("fault_anon")), (2, 0));
    assert_eq!(bench.space.usage().anon, 2 * LARGE);
    assert_eq!([3, 4, LARGE + 4].map(|page| bench.byte(page)), [1, 0, 2]);
    bench.touch(100);
    assert_eq!(bench.stat("fault_spurious"), 1);
    assert_eq!(large_pages(&mut bench), [0, 1]);
    bench.finish(&[]);
}

#[test]
fn only_memory_that_may_have_them_gets_large_pages() {
    let mut bench = Bench::new(FRAMES);
    bench.map(0, 2 * LARGE);
    bench.put(0, 1);
    assert_eq!(bench.vm.huge_entries(), 0, "nobody asked");
    bench.vm.set_huge_pages(&mut bench.cpu, HugePages::Advised);
    bench.put(LARGE, 1);
    assert_eq!(bench.vm.huge_entries(), 0, "not advised");
    bench.map(2 * LARGE, LARGE);
    bench
        .space
        .set_flags(&mut bench.cpu, range(2 * LARGE, LARGE), AreaFlags::HUGE, AreaFlags::NO_HUGE, |_| true)
        .unwrap();
    bench.put(2 * LARGE, 1);
    assert_eq!(bench.vm.huge_entries(), 1);
    bench.vm.set_huge_pages(&mut bench.cpu, HugePages::Always);
    // Neither all of the large page's place, nor a read, nor where it is refused.
    bench.map(4 * LARGE, LARGE - 1);
    bench.put(4 * LARGE, 1);
    bench.map(6 * LARGE, LARGE);
    bench.byte(6 * LARGE);
    bench.put(6 * LARGE + 1, 1);
    bench.map(8 * LARGE, LARGE);
    bench
        .space
        .set_flags(&mut bench.cpu, range(8 * LARGE, LARGE), AreaFlags::NO_HUGE, AreaFlags::HUGE, |_| true)
        .unwrap();
    bench.put(8 * LARGE, 1);
    assert_eq!(bench.vm.huge_entries(), 1);
    bench.finish(&[]);
}

#[test]
fn without_frames_in_a_row_small_pages_do() {
    let mut bench = bench();
    bench.map(0, FRAMES);
    let mut touched = 0;
    while bench.space.fault(&mut bench.cpu, at(touched), Access::Write).is_ok() {
        touched += 1;
    }
    assert!(bench.stat("huge_fallbacks") > 0 && bench.stat("fault_anon") > 0);
    assert!(touched > 5 * LARGE, "{touched}");
    bench.finish(&[]);
}

#[test]
fn unmapping_a_part_splits() {
    let mut bench = filled();
    bench.space.unmap(&mut bench.cpu, range(100, 1)).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits")), (1, 1));
    assert_eq!(bench.space.usage().anon, 2 * LARGE - 1);
    assert_eq!([3, LARGE + 4].map(|page| bench.byte(page)), [1, 2]);
    assert!(bench.space.fault(&mut bench.cpu, at(100), Access::Read).is_err());
    bench.space.unmap(&mut bench.cpu, range(LARGE, LARGE)).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits")), (0, 1), "a whole one goes as it is");
    bench.finish(&[]);
}

#[test]
fn rights_of_a_whole_large_page_change_as_one() {
    let mut bench = filled();
    for rights in [Rights::READ, Rights::NONE, Rights::READ | Rights::EXECUTE, RW()] {
        bench.space.protect(&mut bench.cpu, range(0, LARGE), rights).unwrap();
        let writes = bench.space.fault(&mut bench.cpu, at(7), Access::Write).is_ok();
        assert_eq!(writes, rights.contains(Rights::WRITE), "{rights:?}");
        if rights.is_none() {
            assert!(bench.space.fault(&mut bench.cpu, at(7), Access::Read).is_err());
        } else {
            assert_eq!(bench.byte(3), 1);
        }
    }
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits")), (2, 0));
    bench.space.protect(&mut bench.cpu, range(5, 1), Rights::READ).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits")), (1, 1));
    assert!(bench.space.fault(&mut bench.cpu, at(5), Access::Write).is_err());
    bench.put(6, 9);
    bench.finish(&[]);
}

#[test]
fn flags_of_a_part_split_too() {
    let mut bench = filled();
    bench.space.set_flags(&mut bench.cpu, range(0, 7), AreaFlags::NO_FORK, AreaFlags::NONE, |_| true).unwrap();
    assert_eq!(bench.vm.huge_entries(), 1);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert!(child.fault(&mut bench.cpu, at(3), Access::Read).is_err());
    assert_eq!((get(&child, &mut bench.cpu, 7), get(&child, &mut bench.cpu, LARGE + 4)), (0, 2));
    assert_eq!(child.usage().anon, 2 * LARGE - 7);
    bench.finish(&[&child]);
}

#[test]
fn a_fork_shares_and_a_store_copies_small_pages() {
    let mut bench = filled();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.put(3, 7);
    assert_eq!((get(&child, &mut bench.cpu, 3), bench.byte(3)), (1, 7));
    child.write(&mut bench.cpu, at(LARGE + 4), &[8]).unwrap();
    assert_eq!((get(&child, &mut bench.cpu, LARGE + 4), bench.byte(LARGE + 4)), (8, 2));
    assert_eq!((child.usage().anon, bench.space.usage().anon), (2 * LARGE, 2 * LARGE));
    let spaces: Vec<&Space<_>> = std::vec![&bench.space, &child];
    bench.vm.audit(&mut bench.cpu, &spaces, &[]).unwrap();
    child.exit(&mut bench.cpu);
    // What was not copied is this space's alone again, in one piece where it was never split.
    bench.put(4, 1);
    bench.finish(&[]);
}

#[test]
fn the_last_sharer_has_its_large_pages_back() {
    let mut bench = filled();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    child.exit(&mut bench.cpu);
    bench.put(3, 7);
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits"), bench.stat("fault_cow")), (2, 0, 0));
    bench.finish(&[]);
}

#[test]
fn discarding_gives_frames_back_in_a_row() {
    let mut bench = filled();
    bench.space.discard(&mut bench.cpu, range(0, LARGE), false).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.space.usage().anon), (1, LARGE));
    assert_eq!(bench.byte(LARGE + 4), 2);
    bench.put(9, 9);
    assert_eq!((bench.vm.huge_entries(), bench.byte(3)), (2, 0));
    bench.space.discard(&mut bench.cpu, range(9, 1), false).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.byte(9), bench.byte(LARGE + 4)), (1, 0, 2));
    bench.space.free_lazily(&mut bench.cpu, range(LARGE, LARGE)).unwrap();
    assert_eq!((bench.vm.huge_entries(), bench.byte(LARGE + 4)), (1, 2));
    bench.finish(&[]);
}

fn remap(bench: &mut Bench, from: u64, pages: u64, to: u64) {
    let len = pages * PAGE_SIZE;
    let request = RemapRequest {
        addr: at(from),
        old_len: len,
        new_len: len,
        destination: Destination::Fixed(at(to)),
        keep: false,
    };
    bench.space.remap(&mut bench.cpu, request).unwrap();
}

#[test]
fn moves_whole_where_it_can() {
    let mut bench = filled();
    remap(&mut bench, 0, LARGE, 4 * LARGE);
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits"), bench.byte(4 * LARGE + 3)), (2, 0, 1));
    remap(&mut bench, 4 * LARGE, LARGE, 6 * LARGE + 1);
    assert_eq!((bench.vm.huge_entries(), bench.stat("huge_splits"), bench.byte(6 * LARGE + 4)), (1, 1, 1));
    remap(&mut bench, LARGE + 2, 4, 9 * LARGE);
    assert_eq!((bench.vm.huge_entries(), bench.byte(9 * LARGE + 2)), (0, 2));
    assert_eq!(bench.space.usage().anon, 2 * LARGE);
    bench.finish(&[]);
}

#[test]
fn a_pin_splits_and_keeps_its_frame() {
    let mut bench = filled();
    let pins = bench.space.pin(&mut bench.cpu, range(2, 2), Access::Write).unwrap();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.put(3, 5);
    let mut frame = None;
    bench.space.pages(&mut bench.cpu, range(3, 1), |info| frame = Some(info.frame));
    assert_eq!(frame, Some(pins.frames()[1]));
    assert_eq!((get(&child, &mut bench.cpu, 3), bench.vm.huge_entries()), (1, 2), "the other one, in two tables");
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, LARGE)), Err(CollapseError::Busy));
    drop(pins);
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, LARGE)), Ok(()));
    assert_eq!([2, 3].map(|page| bench.byte(page)), [0, 5]);
    bench.finish(&[&child]);
}

#[test]
fn collapsing_gathers_what_is_there() {
    let mut bench = Bench::new(FRAMES);
    bench.map(0, 2 * LARGE);
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, LARGE)), Err(CollapseError::Invalid), "no page at all");
    bench.put(3, 1);
    bench.byte(4);
    bench.put(LARGE, 2);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.put(5, 3);
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, 2 * LARGE)), Ok(()));
    assert_eq!((large_pages(&mut bench), bench.stat("huge_collapses")), (std::vec![0, 1], 2));
    assert_eq!([3, 4, 5, 6, LARGE].map(|page| bench.byte(page)), [1, 0, 3, 0, 2]);
    assert_eq!([3, 5, LARGE].map(|page| get(&child, &mut bench.cpu, page)), [1, 0, 2]);
    bench.put(6, 9);
    assert_eq!(bench.space.usage().anon, 2 * LARGE);
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, LARGE)), Ok(()), "again");
    assert_eq!(bench.space.collapse(&mut bench.cpu, range(0, 3 * LARGE)), Err(CollapseError::Unmapped));
    bench.finish(&[&child]);
}

#[test]
fn a_failed_allocation_leaves_the_large_page() {
    for nth in 1..3 {
        let mut bench = filled();
        bench.vm.machine().fail_after.store(nth, Relaxed);
        let failed = bench.space.unmap(&mut bench.cpu, range(100, LARGE)).is_err();
        bench.vm.machine().fail_after.store(0, Relaxed);
        assert!(failed, "allocation {nth}");
        assert_eq!([3, LARGE + 4].map(|page| bench.byte(page)), [1, 2]);
        bench.space.unmap(&mut bench.cpu, range(100, LARGE)).unwrap();
        assert_eq!(bench.space.usage().anon, LARGE);
        bench.finish(&[]);
    }
}

/// One of the operations that both sides of [`large_and_small_pages_show_the_same`] do.
fn step(bench: &mut Bench, child: &mut Option<Space<super::TestMachine>>, [what, page, count, byte]: [u64; 4]) -> bool {
    let part = range(page, count);
    let (space, cpu) = (&bench.space, &mut bench.cpu);
    match what {
        0 => space.map(cpu, MapRequest::anonymous(count * PAGE_SIZE).fixed(at(page))).is_ok(),
        1 => space.unmap(cpu, part).is_ok(),
        2 => space.protect(cpu, part, [Rights::NONE, Rights::READ, RW(), RW()][byte as usize % 4]).is_ok(),
        3 => space.discard(cpu, part, false).is_ok(),
        4 => space.free_lazily(cpu, part).is_ok(),
        5 => {
            let old = child.take();
            old.iter().for_each(|old| old.exit(cpu));
            *child = space.fork(cpu).ok();
            child.is_some()
        }
        6 => {
            let to = VirtAddr::new(at(5 * LARGE + page).as_u64() + (byte % 2) * PAGE_SIZE);
            let len = count * PAGE_SIZE;
            let destination = Destination::Fixed(to);
            let request = RemapRequest { addr: part.start(), old_len: len, new_len: len, destination, keep: false };
            space.remap(cpu, request).is_ok()
        }
        7 => child.as_ref().is_some_and(|child| child.write(cpu, at(page), &[byte as u8]).is_ok()),
        8 => space.set_flags(cpu, part, AreaFlags::NO_DUMP, AreaFlags::NONE, |_| true).is_ok(),
        _ => space.write(cpu, at(page), &[byte as u8]).is_ok(),
    }
}

#[test]
fn large_and_small_pages_show_the_same() {
    for seed in 1..=40u64 {
        let (mut large, mut small) = (bench(), Bench::new(FRAMES));
        let (mut large_child, mut small_child) = (None, None);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for bench in [&mut large, &mut small] {
            bench.map(0, 3 * LARGE);
        }
        for number in 0..60 {
            let whole = random(3) == 0;
            let page = if whole { random(4) * LARGE } else { random(4 * LARGE) };
            let count = if whole { LARGE * (1 + random(2)) } else { 1 + random(20) };
            let todo = [random(16), page, count, random(250)];
            let results = [step(&mut large, &mut large_child, todo), step(&mut small, &mut small_child, todo)];
            // A collapse is not to be noticed.
            let _ = large.space.collapse(&mut large.cpu, range(random(4) * LARGE, LARGE));
            assert_eq!(results[0], results[1], "seed {seed}, step {number}: {todo:?}");
        }
        let look = |space: &Space<_>, cpu: &mut crate::Cpu<_>, page| {
            let mut byte = [0];
            space.read(cpu, at(page), &mut byte).map(|()| byte[0]).map_err(|error| error.fault)
        };
        for page in 0..10 * LARGE {
            let seen = [&mut large, &mut small].map(|bench| look(&bench.space, &mut bench.cpu, page));
            assert_eq!(seen[0], seen[1], "seed {seed}, page {page}");
            if let (Some(a), Some(b)) = (&large_child, &small_child) {
                let seen = (look(a, &mut large.cpu, page), look(b, &mut small.cpu, page));
                assert_eq!(seen.0, seen.1, "seed {seed}, page {page} of the child");
            }
        }
        large.finish(&large_child.iter().collect::<Vec<_>>());
        small.finish(&small_child.iter().collect::<Vec<_>>());
    }
}

#[test]
fn ranges_that_end_inside_find_their_tables_made() {
    let mut bench = bench();
    bench.map(0, LARGE);
    // Nothing is there yet, and a fault could put a large page there before the part is gone.
    bench.space.unmap(&mut bench.cpu, range(10, 1)).unwrap();
    bench.put(0, 1);
    assert_eq!(bench.vm.huge_entries(), 0);
    let rest = PageRange::with_len(at(11), (LARGE - 11) * PAGE_SIZE).unwrap();
    bench.space.protect(&mut bench.cpu, rest, Rights::READ).unwrap();
    bench.finish(&[]);
}
