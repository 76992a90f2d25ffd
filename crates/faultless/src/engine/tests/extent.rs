//! What is mapped is counted as areas come, split, merge, move and go; limits refuse what adds (AC-04, AC-06).

use super::{Bench, at, range};
use crate::{
    AreaFlags, Destination, Limits, MapError, MapRequest, PAGE_SIZE, ProtectError, RemapError, RemapRequest, Rights,
    Sharing, UnmapError,
};

/// The counters agree with the areas.
fn agrees(bench: &mut Bench) -> (u64, u64) {
    let (mut pages, mut areas) = (0, 0);
    bench.space.areas(&mut bench.cpu, |area| {
        pages += area.range.len() / PAGE_SIZE;
        areas += 1;
    });
    let extent = bench.space.extent();
    assert_eq!((extent.pages, extent.areas), (pages, areas));
    let (mut data, mut locked) = (0, 0);
    bench.space.areas(&mut bench.cpu, |area| {
        let is_data = area.rights.contains(Rights::WRITE) && area.sharing == Sharing::Private;
        data += if is_data && !area.flags.contains(AreaFlags::GROWS_DOWN) { area.range.pages() } else { 0 };
        locked += if area.flags.contains(AreaFlags::LOCKED) { area.range.pages() } else { 0 };
    });
    assert_eq!((extent.data, extent.locked), (data, locked));
    (pages, areas)
}

fn remap(bench: &mut Bench, page: u64, old: u64, new: u64, destination: Destination) -> Result<(), RemapError> {
    let (old_len, new_len) = (old * PAGE_SIZE, new * PAGE_SIZE);
    let request = RemapRequest { addr: at(page), old_len, new_len, destination, keep: false };
    bench.space.remap(&mut bench.cpu, request).map(drop)
}

#[test]
fn counters_follow_every_operation() {
    let mut bench = Bench::new(128);
    bench.map(0, 10);
    assert_eq!(agrees(&mut bench), (10, 1));
    bench.space.protect(&mut bench.cpu, range(3, 2), Rights::READ).unwrap();
    assert_eq!(agrees(&mut bench), (10, 3));
    bench.space.unmap(&mut bench.cpu, range(1, 1)).unwrap();
    assert_eq!(agrees(&mut bench), (9, 4));
    bench.map(1, 1);
    assert_eq!(agrees(&mut bench), (10, 3));
    bench.space.set_flags(&mut bench.cpu, range(0, 1), AreaFlags::NO_FORK, AreaFlags::NONE, |_| true).unwrap();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!((child.extent().pages, child.extent().areas), (9, 3));
    remap(&mut bench, 5, 5, 8, Destination::Anywhere).unwrap();
    assert_eq!(agrees(&mut bench), (13, 4));
    remap(&mut bench, 3, 2, 1, Destination::InPlace).unwrap();
    assert_eq!(agrees(&mut bench), (12, 4));
    assert_eq!(bench.space.extent().peak, 13);
    bench.space.set_brk(at(1 << 20));
    bench.space.brk(&mut bench.cpu, at((1 << 20) + 4));
    assert_eq!(agrees(&mut bench), (16, 5));
    bench.finish(&[&child]);
}

#[test]
fn a_move_leaves_no_mark() {
    let mut bench = Bench::new(64);
    bench.map(0, 10);
    for n in 0..6 {
        let (from, to) = if n % 2 == 0 { (0, 100) } else { (100, 0) };
        remap(&mut bench, from, 10, 10, Destination::Fixed(at(to))).unwrap();
    }
    assert_eq!((bench.space.extent().pages, bench.space.extent().peak), (10, 10));
    bench.finish(&[]);
}

#[test]
fn limits_refuse_what_adds_and_nothing_else() {
    let mut bench = Bench::new(64);
    bench.map(0, 10);
    bench.space.set_limits(Limits { pages: 12, areas: 2, ..Limits::NONE });
    let request = MapRequest::anonymous(3 * PAGE_SIZE).fixed(at(50));
    assert_eq!(bench.space.map(&mut bench.cpu, request.clone()), Err(MapError::NoMemory));
    assert_eq!(remap(&mut bench, 0, 10, 13, Destination::Anywhere), Err(RemapError::NoMemory));
    // To move needs no room for both.
    remap(&mut bench, 0, 10, 10, Destination::Fixed(at(100))).unwrap();
    remap(&mut bench, 100, 10, 10, Destination::Fixed(at(0))).unwrap();
    let refused = bench.space.protect(&mut bench.cpu, range(3, 2), Rights::READ);
    assert_eq!(refused, Err(ProtectError::NoMemory(at(3))));
    bench.space.protect(&mut bench.cpu, range(8, 2), Rights::READ).unwrap();
    assert_eq!(bench.space.unmap(&mut bench.cpu, range(3, 1)), Err(UnmapError::NoMemory));
    assert_eq!(agrees(&mut bench), (10, 2));
    bench.space.unmap(&mut bench.cpu, range(7, 1)).unwrap();
    bench.space.set_limits(Limits { pages: 1, areas: 1, ..Limits::NONE });
    bench.space.unmap(&mut bench.cpu, range(6, 1)).unwrap();
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let mut cpu = bench.cpu;
    assert_eq!(child.map(&mut cpu, request), Err(MapError::NoMemory), "a child has its parent's limits");
    bench.cpu = cpu;
    bench.finish(&[&child]);
}

#[test]
fn a_new_mapping_may_make_one_area_more() {
    let mut bench = Bench::new(64);
    bench.space.set_limits(Limits { areas: 2, ..Limits::NONE });
    let page = |n| MapRequest::anonymous(PAGE_SIZE).fixed(at(n));
    for n in [0, 10, 20] {
        bench.space.map(&mut bench.cpu, page(n)).unwrap();
    }
    assert_eq!(bench.space.map(&mut bench.cpu, page(30)), Err(MapError::NoMemory));
    assert_eq!(agrees(&mut bench), (3, 3));
    bench.finish(&[]);
}

#[test]
fn a_stripe_border_makes_no_area() {
    let mut bench = Bench::new(64);
    let border = ((1_u64 << 41) - at(0).as_u64()) / PAGE_SIZE;
    bench.space.map(&mut bench.cpu, MapRequest::anonymous(4 * PAGE_SIZE).fixed(at(border - 2))).unwrap();
    assert_eq!(bench.space.extent().areas, 2);
    bench.space.set_limits(Limits { areas: 2, ..Limits::NONE });
    // One more is the second, then comes the one that only a new mapping may make.
    for n in [0, 10] {
        bench.space.map(&mut bench.cpu, MapRequest::anonymous(PAGE_SIZE).fixed(at(n))).unwrap();
    }
    let third = MapRequest::anonymous(PAGE_SIZE).fixed(at(20));
    assert_eq!(bench.space.map(&mut bench.cpu, third), Err(MapError::NoMemory));
    bench.finish(&[]);
}

#[test]
fn data_and_locked_pages_have_limits_of_their_own() {
    let mut bench = Bench::new(64);
    bench.space.set_limits(Limits { data: 4, locked: 3, ..Limits::NONE });
    let read_only = MapRequest { rights: Rights::READ, ..MapRequest::anonymous(9 * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, read_only.fixed(at(0))).unwrap();
    bench.space.protect(&mut bench.cpu, range(0, 4), Rights::READ | Rights::WRITE).unwrap();
    let refused = bench.space.protect(&mut bench.cpu, range(4, 1), Rights::READ | Rights::WRITE);
    assert_eq!(refused, Err(ProtectError::NoMemory(at(4))));
    let lock = |bench: &mut Bench, page, pages| {
        bench.space.set_flags(&mut bench.cpu, range(page, pages), AreaFlags::LOCKED, AreaFlags::NONE, |_| true)
    };
    lock(&mut bench, 0, 3).unwrap();
    assert!(lock(&mut bench, 3, 1).is_err());
    agrees(&mut bench);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!((child.extent().data, child.extent().locked), (4, 0));
    bench.space.unmap(&mut bench.cpu, range(1, 1)).unwrap();
    assert_eq!(bench.space.extent().locked, 2);
    agrees(&mut bench);
    bench.finish(&[&child]);
}
