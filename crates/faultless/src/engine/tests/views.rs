//! The accounting views: soft-dirty and accessed bits with shared tables, and sums that add up (AC-02, AC-04, GU-02).

use super::{Bench, RW, at, get, range};
use crate::{
    Access, AreaFlags, Backing, ClearRefs, Cpu, Destination, Footprint, HugePages, MapRequest, PAGE_SIZE, PageInfo,
    RemapRequest, Rights, Sharing, Space,
};
use std::vec::Vec;

type S = Space<super::TestMachine>;
type C = Cpu<super::TestMachine>;

fn pages(space: &S, cpu: &mut C, first: u64, count: u64) -> Vec<PageInfo> {
    let mut found = Vec::new();
    space.pages(cpu, range(first, count), |page| found.push(page));
    found
}

/// The pages that pagemap would call soft-dirty, from `BASE` on.
fn soft(space: &S, cpu: &mut C, count: u64) -> Vec<u64> {
    (0..count).filter(|page| is_soft(space, cpu, *page)).collect()
}

fn is_soft(space: &S, cpu: &mut C, page: u64) -> bool {
    let area = space.area_at(cpu, at(page)).is_some_and(|area| area.flags.contains(AreaFlags::SOFT_DIRTY));
    area || pages(space, cpu, page, 1).iter().any(|page| page.soft_dirty)
}

fn clear(space: &S, cpu: &mut C) {
    space.clear_refs(cpu, ClearRefs::SoftDirty).unwrap();
    // What may be stored to without a fault is soft-dirty.
    assert!(pages(space, cpu, 0, 1 << 20).iter().all(|page| page.soft_dirty || !page.writable));
}

#[test]
fn a_new_mapping_is_soft_dirty_until_that_is_cleared() {
    let mut bench = Bench::new(256);
    bench.map(0, 4);
    bench.put(1, 7);
    let Bench { space, cpu, .. } = &mut bench;
    assert_eq!(soft(space, cpu, 5), [0, 1, 2, 3]);
    clear(space, cpu);
    assert_eq!(soft(space, cpu, 5), []);
    // A load is no store; nor does it stop the page of zeroes from being replaced by a store that is seen.
    space.fault(cpu, at(0), Access::Read).unwrap();
    assert_eq!((soft(space, cpu, 5), get(space, cpu, 1)), (Vec::new(), 7));
    space.fault(cpu, at(0), Access::Write).unwrap();
    space.write(cpu, at(1), &[8]).unwrap();
    assert_eq!(soft(space, cpu, 5), [0, 1]);
    clear(space, cpu);
    assert_eq!(soft(space, cpu, 5), []);
    let faults = space.usage().minor;
    space.fault(cpu, at(1), Access::Write).unwrap();
    assert_eq!((soft(space, cpu, 5), space.usage().minor), (std::vec![1], faults + 1));
    bench.finish(&[]);
}

#[test]
fn mprotect_opens_no_way_around_the_bits() {
    let mut bench = Bench::new(256);
    bench.map(0, 2);
    bench.put(0, 1);
    let Bench { space, cpu, .. } = &mut bench;
    for rights in [Rights::READ, Rights::NONE] {
        clear(space, cpu);
        space.protect(cpu, range(0, 2), rights).unwrap();
        space.protect(cpu, range(0, 2), RW()).unwrap();
        assert!(pages(space, cpu, 0, 2).iter().all(|page| !page.writable), "{rights:?}");
        assert_eq!(soft(space, cpu, 2), []);
        space.write(cpu, at(0), &[2]).unwrap();
        assert_eq!(soft(space, cpu, 2), [0]);
        // What is soft-dirty already gets its permission back at once.
        space.protect(cpu, range(0, 2), rights).unwrap();
        assert_eq!(soft(space, cpu, 2), [0], "{rights:?}");
        space.protect(cpu, range(0, 2), RW()).unwrap();
        assert!(pages(space, cpu, 0, 1)[0].writable);
    }
    bench.finish(&[]);
}

#[test]
fn what_is_new_at_an_address_is_soft_dirty() {
    let mut bench = Bench::new(256);
    bench.map(0, 4);
    (0..4).for_each(|page| bench.put(page, 1));
    let Bench { space, cpu, .. } = &mut bench;
    clear(space, cpu);
    // Mapped anew, merged with its neighbours: Linux calls the whole soft-dirty.
    space.unmap(cpu, range(1, 1)).unwrap();
    space.map(cpu, MapRequest::anonymous(PAGE_SIZE).fixed(at(1))).unwrap();
    assert_eq!(soft(space, cpu, 4), [0, 1, 2, 3]);
    let mut areas = 0;
    space.areas(cpu, |_| areas += 1);
    assert_eq!(areas, 1, "soft-dirty keeps no areas apart");
    clear(space, cpu);
    // Moved: pages and what surrounds them.
    let request = RemapRequest {
        addr: at(2),
        old_len: 2 * PAGE_SIZE,
        new_len: 3 * PAGE_SIZE,
        destination: Destination::Fixed(at(10)),
        keep: false,
    };
    space.remap(cpu, request).unwrap();
    assert_eq!(soft(space, cpu, 14), [10, 11, 12]);
    bench.finish(&[]);
}

#[test]
fn clearing_many_areas_merges_none_and_leaves_none_out() {
    let mut bench = Bench::new(512);
    bench.map(0, 9);
    (0..9).for_each(|page| bench.put(page, 1));
    let Bench { space, cpu, .. } = &mut bench;
    [1, 4, 7].into_iter().for_each(|page| space.protect(cpu, range(page, 1), Rights::READ).unwrap());
    let mut before = Vec::new();
    space.areas(cpu, |area| before.push((area.range, area.rights)));
    clear(space, cpu);
    let mut after = Vec::new();
    space.areas(cpu, |area| after.push((area.range, area.rights)));
    assert_eq!((soft(space, cpu, 9), before), (Vec::new(), after));
    bench.finish(&[]);
}

#[test]
fn each_sharer_of_a_table_has_its_own_bits() {
    let mut bench = Bench::new(512);
    bench.map(0, 600);
    [0, 1, 599].into_iter().for_each(|page| bench.put(page, 1));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let Bench { space, cpu, .. } = &mut bench;
    clear(space, cpu);
    assert_eq!(soft(space, cpu, 600), []);
    assert_eq!(soft(&child, cpu, 600).len(), 600, "the child's is a mapping of its own");
    clear(&child, cpu);
    space.write(cpu, at(0), &[2]).unwrap();
    child.write(cpu, at(599), &[3]).unwrap();
    assert_eq!((soft(space, cpu, 600), soft(&child, cpu, 600)), (std::vec![0], std::vec![599]));
    // A fork hands the bits on.
    let grandchild = child.fork(cpu).unwrap();
    assert_eq!(soft(&grandchild, cpu, 600), [599]);
    bench.finish(&[&child, &grandchild]);
}

#[test]
fn a_large_page_is_watched_as_a_whole_until_it_is_stored_to() {
    const LARGE: u64 = 512;
    let mut bench = Bench::new(8 * LARGE);
    bench.vm.set_huge_pages(&mut bench.cpu, HugePages::Always);
    bench.map(0, 2 * LARGE);
    bench.put(3, 1);
    bench.put(LARGE + 4, 2);
    assert_eq!(bench.vm.huge_entries(), 2);
    let Bench { vm, space, cpu, .. } = &mut bench;
    clear(space, cpu);
    assert_eq!((soft(space, cpu, 2 * LARGE), vm.huge_entries()), (Vec::new(), 2));
    assert_eq!((get(space, cpu, 3), get(space, cpu, LARGE + 4)), (1, 2));
    space.write(cpu, at(5), &[9]).unwrap();
    assert_eq!((soft(space, cpu, 2 * LARGE), vm.huge_entries()), (std::vec![5], 1));
    // A child, whose large page is shared, and the parent, each by itself.
    let child = space.fork(cpu).unwrap();
    clear(&child, cpu);
    child.write(cpu, at(LARGE + 7), &[3]).unwrap();
    assert_eq!((soft(&child, cpu, 2 * LARGE), soft(space, cpu, 2 * LARGE)), (std::vec![LARGE + 7], std::vec![5]));
    let used = |space: &S, cpu: &mut C| pages(space, cpu, LARGE, LARGE).iter().filter(|page| page.accessed).count();
    assert_eq!(used(space, cpu), 512, "one bit for all");
    space.clear_refs(cpu, ClearRefs::Accessed).unwrap();
    assert_eq!(used(space, cpu), 0);
    bench.finish(&[&child]);
}

#[test]
fn shared_memory_is_watched_too() {
    let mut bench = Bench::new(256);
    let object = bench.vm.new_memory(4 * PAGE_SIZE, "test").unwrap();
    let backing = Backing::Object { object: object.clone(), offset: 0 };
    let request = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(4 * PAGE_SIZE) };
    let Bench { space, cpu, .. } = &mut bench;
    space.map(cpu, request.fixed(at(0))).unwrap();
    space.fault(cpu, at(0), Access::Read).unwrap();
    assert!(pages(space, cpu, 0, 1)[0].writable, "new: a store is no news");
    clear(space, cpu);
    space.fault(cpu, at(1), Access::Read).unwrap();
    assert!(pages(space, cpu, 0, 2).iter().all(|page| !page.writable && !page.soft_dirty));
    space.write(cpu, at(1), &[1]).unwrap();
    assert_eq!(soft(space, cpu, 4), [1]);
    space.unmap(cpu, range(0, 4)).unwrap();
    drop(object);
    bench.finish(&[]);
}

#[test]
fn stores_that_the_mmu_does_not_do_are_seen() {
    let mut bench = Bench::new(256);
    bench.map(0, 4);
    (0..4).for_each(|page| bench.put(page, 1));
    let Bench { space, cpu, .. } = &mut bench;
    let pins = space.pin(cpu, range(2, 1), Access::Write).unwrap();
    clear(space, cpu);
    assert_eq!(soft(space, cpu, 4), [2], "its holder may store to it at any time");
    space.protect(cpu, range(0, 4), Rights::READ).unwrap();
    space.write_forced(cpu, at(0), &[5]).unwrap();
    assert_eq!((soft(space, cpu, 4), get(space, cpu, 0)), (std::vec![0, 2], 5));
    assert!(pages(space, cpu, 0, 4).iter().all(|page| !page.writable), "GU-06");
    drop(pins);
    clear(space, cpu);
    assert_eq!(soft(space, cpu, 4), []);
    bench.finish(&[]);
}

#[test]
fn accessed_bits_are_cleared_by_kind_and_each_sharer_has_its_own() {
    let mut bench = Bench::new(256);
    bench.map(0, 2);
    let object = bench.vm.new_memory(2 * PAGE_SIZE, "test").unwrap();
    let backing = Backing::Object { object, offset: 0 };
    let request = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(2 * PAGE_SIZE) };
    let Bench { space, cpu, .. } = &mut bench;
    space.map(cpu, request.fixed(at(4))).unwrap();
    [0, 4].into_iter().for_each(|page| space.write(cpu, at(page), &[1]).unwrap());
    let used = |space: &S, cpu: &mut C| {
        pages(space, cpu, 0, 8).iter().filter(|page| page.accessed).map(|page| page.addr).collect::<Vec<_>>()
    };
    let child = space.fork(cpu).unwrap();
    space.clear_refs(cpu, ClearRefs::AccessedAnon).unwrap();
    assert_eq!(used(space, cpu), [at(4)]);
    space.clear_refs(cpu, ClearRefs::AccessedFile).unwrap();
    assert_eq!(used(space, cpu), []);
    assert_eq!((used(&child, cpu).len(), soft(space, cpu, 6).len()), (2, 4));
    assert_eq!(get(space, cpu, 0), 1);
    assert_eq!(used(space, cpu), [at(0)]);
    child.clear_refs(cpu, ClearRefs::Accessed).unwrap();
    assert_eq!((used(&child, cpu), used(space, cpu)), (Vec::new(), std::vec![at(0)]));
    [&*space, &child].into_iter().for_each(|space| space.unmap(cpu, range(4, 2)).unwrap());
    bench.finish(&[&child]);
}

/// The footprint of each space, and their sum.
fn sums(spaces: &[&S], cpu: &mut C) -> (Vec<Footprint>, Footprint) {
    let each: Vec<_> = spaces.iter().map(|space| space.footprint(cpu, range(0, 1 << 20))).collect();
    let mut sum = Footprint::default();
    each.iter().for_each(|footprint| sum += *footprint);
    (each, sum)
}

#[test]
fn shares_sum_up_to_the_pages_whoever_shares_what() {
    const WHOLE: u64 = PAGE_SIZE << Footprint::FRACTION_BITS;
    let mut bench = Bench::new(512);
    bench.map(0, 600);
    [0, 1, 2, 599].into_iter().for_each(|page| bench.put(page, 1));
    let Bench { space, cpu, .. } = &mut bench;
    space.fault(cpu, at(9), Access::Read).unwrap();
    assert_eq!(
        sums(&[space], cpu).1,
        Footprint {
            resident: 4,
            anonymous: 4,
            private_dirty: 4,
            referenced: 4,
            anon_share: 4 * WHOLE,
            dirty_share: 4 * WHOLE,
            ..Footprint::default()
        }
    );
    let child = space.fork(cpu).unwrap();
    let (each, sum) = sums(&[space, &child], cpu);
    assert_eq!(each[0], each[1]);
    assert_eq!((sum.share(), sum.shared_dirty, sum.private_dirty), (4 * WHOLE, 8, 0));
    // The child makes a page its own: 5 pages now, one private to each side.
    child.write(cpu, at(0), &[2]).unwrap();
    let (each, sum) = sums(&[space, &child], cpu);
    assert_eq!((sum.share(), each[0].share()), (5 * WHOLE, WHOLE + 3 * WHOLE / 2));
    assert!(each.iter().all(|one| (one.private_dirty, one.shared_dirty) == (1, 3)), "{each:?}");
    let grandchild = child.fork(cpu).unwrap();
    space.write(cpu, at(599), &[2]).unwrap();
    let (each, sum) = sums(&[space, &child, &grandchild], cpu);
    assert_eq!((sum.share(), each[0].private_dirty), (6 * WHOLE, 2), "{each:?}");
    space.free_lazily(cpu, range(599, 1)).unwrap();
    let lazy = sums(&[space], cpu).1;
    assert_eq!((lazy.lazy_free, lazy.private_clean, lazy.private_dirty), (1, 1, 1));
    bench.finish(&[&child, &grandchild]);
}

#[test]
fn a_debugger_reads_what_an_area_without_rights_would_show() {
    let mut bench = Bench::new(256);
    bench.map(0, 3);
    [0, 1].into_iter().for_each(|page| bench.put(page, 7));
    let object = bench.vm.new_memory(PAGE_SIZE, "test").unwrap();
    let Bench { space, cpu, .. } = &mut bench;
    object.write(cpu, 0, &[9]).unwrap();
    let backing = Backing::Object { object, offset: 0 };
    let request = MapRequest { rights: Rights::NONE, backing, ..MapRequest::anonymous(2 * PAGE_SIZE) };
    space.map(cpu, request.fixed(at(4))).unwrap();
    space.protect(cpu, range(1, 2), Rights::NONE).unwrap();
    let before = (pages(space, cpu, 0, 8), space.usage());
    let mut byte = [1];
    for (page, expected) in [(0, Ok(7)), (1, Ok(7)), (2, Ok(0)), (3, Err(())), (4, Ok(9)), (5, Err(()))] {
        let seen = space.read_forced(cpu, at(page), &mut byte).map(|()| byte[0]).map_err(drop);
        assert_eq!(seen, expected, "page {page}");
        assert!(page == 0 || space.read(cpu, at(page), &mut byte).is_err());
    }
    assert_eq!((pages(space, cpu, 0, 8), space.usage()), before);
    space.unmap(cpu, range(4, 2)).unwrap();
    bench.finish(&[]);
}

#[test]
fn a_debugger_stores_to_memory_without_rights() {
    let mut bench = Bench::new(512);
    bench.map(0, 3);
    [0, 1].into_iter().for_each(|page| bench.put(page, 7));
    let object = bench.vm.new_memory(PAGE_SIZE, "test").unwrap();
    let Bench { space, cpu, .. } = &mut bench;
    object.write(cpu, 0, &[9]).unwrap();
    let backing = Backing::Object { object: object.clone(), offset: 0 };
    let request = MapRequest { rights: Rights::NONE, backing, ..MapRequest::anonymous(2 * PAGE_SIZE) };
    space.map(cpu, request.clone().fixed(at(4))).unwrap();
    let shared = MapRequest { sharing: Sharing::Shared, len: PAGE_SIZE, ..request };
    space.map(cpu, shared.fixed(at(8))).unwrap();
    space.fault(cpu, at(2), Access::Read).unwrap();
    space.protect(cpu, range(0, 3), Rights::NONE).unwrap();
    clear(space, cpu);
    let child = space.fork(cpu).unwrap();
    for (page, expected) in [(0, true), (1, true), (2, true), (3, false), (4, true), (5, false), (8, false)] {
        assert_eq!(space.write_forced(cpu, at(page), &[3]).is_ok(), expected, "page {page}");
        assert_eq!(space.write_forced(cpu, at(page), &[4]).is_ok(), expected, "page {page}, its own by now");
    }
    assert_eq!(soft(space, cpu, 10), [0, 1, 2, 4]);
    let mut byte = [0];
    for (page, here, there) in [(0, 4, 7), (1, 4, 7), (2, 4, 0), (4, 4, 9)] {
        for (space, expected) in [(&*space, here), (&child, there)] {
            assert!(space.read(cpu, at(page), &mut byte).is_err(), "still hidden");
            space.read_forced(cpu, at(page), &mut byte).unwrap();
            assert_eq!(byte[0], expected, "page {page}");
        }
    }
    space.protect(cpu, range(0, 3), RW()).unwrap();
    assert_eq!((get(space, cpu, 0), get(space, cpu, 2), space.usage().anon), (4, 4, 4));
    [&*space, &child].into_iter().for_each(|space| space.unmap(cpu, range(4, 5)).unwrap());
    drop(object);
    bench.finish(&[&child]);
}

#[test]
fn every_frame_is_counted_as_what_it_is() {
    let mut bench = Bench::new(256);
    bench.map(0, 4);
    (0..3).for_each(|page| bench.touch(page));
    let object = bench.vm.new_memory(2 * PAGE_SIZE, "test").unwrap();
    let Bench { vm, space, cpu, .. } = &mut bench;
    object.write(cpu, 0, &[1; 5000]).unwrap();
    let backing = Backing::Object { object: object.clone(), offset: 0 };
    let request = MapRequest { backing, ..MapRequest::anonymous(PAGE_SIZE) };
    space.map(cpu, request.fixed(at(8))).unwrap();
    space.fault(cpu, at(8), Access::Read).unwrap();
    let census = vm.census();
    assert_eq!((census.anon, census.shmem, census.mapped, census.tables), (3, 2, 1, 4), "{census:?}");
    assert_eq!(census.free + 3 + 2 + 4 + 1, vm.stats().total_frames);
    space.unmap(cpu, range(8, 1)).unwrap();
    drop(object);
    bench.finish(&[]);
}

#[test]
fn the_mark_of_resident_pages_starts_anew() {
    let mut bench = Bench::new(256);
    bench.map(0, 8);
    (0..8).for_each(|page| bench.touch(page));
    bench.space.unmap(&mut bench.cpu, range(0, 6)).unwrap();
    assert_eq!((bench.space.usage().peak, bench.space.usage().resident()), (8, 2));
    bench.space.reset_peak();
    assert_eq!(bench.space.usage().peak, 2);
    bench.finish(&[]);
}

/// Random numbers of a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A space and the pages that were stored to since somebody asked, by what the test did.
struct Watched {
    space: S,
    stored: std::collections::BTreeSet<u64>,
}

impl Watched {
    /// One operation of its own.
    fn act(&mut self, cpu: &mut C, random: &mut Random) {
        let (first, count) = (random.below(20), 1 + random.below(6));
        let part = range(first, count);
        let gone = first..first + count;
        match random.below(12) {
            0..=4 if self.space.write(cpu, at(first), &[1]).is_ok() => drop(self.stored.insert(first)),
            5 if self.space.write_forced(cpu, at(first), &[1]).is_ok() => drop(self.stored.insert(first)),
            6 => drop(self.space.fault(cpu, at(first), Access::Read)),
            7 => {
                let rights = [Rights::NONE, Rights::READ, RW(), RW()][random.below(4) as usize];
                let _ = self.space.protect(cpu, part, rights);
            }
            8 => {
                self.space.map(cpu, MapRequest::anonymous(count * PAGE_SIZE).fixed(at(first))).unwrap();
                self.stored.retain(|page| !gone.contains(page));
            }
            9 => {
                let _ = self.space.discard(cpu, part, false);
                self.stored.retain(|page| !gone.contains(page));
            }
            10 => {
                clear(&self.space, cpu);
                self.stored.clear();
                assert_eq!(soft(&self.space, cpu, 30), [], "nobody has stored since");
            }
            _ => {}
        }
    }

    fn check(&self, cpu: &mut C) {
        let soft = soft(&self.space, cpu, 30);
        assert!(self.stored.iter().all(|page| soft.contains(page)), "{:?} stored, {soft:?} told", self.stored);
        assert!(pages(&self.space, cpu, 0, 30).iter().all(|page| page.soft_dirty || !page.writable));
    }
}

/// Over all spaces, the shares sum up to the pages: each frame is there once.
fn check_shares(family: &[Watched], cpu: &mut C) {
    let mut parts = std::collections::BTreeMap::new();
    for watched in family {
        for page in pages(&watched.space, cpu, 0, 30).iter().filter(|page| page.mappings > 0) {
            let share = 1.0 / (page.path_shares as f64 * f64::from(page.mappings));
            *parts.entry(page.frame).or_insert(0.0) += share;
            assert_eq!(page.is_shared(), share < 1.0);
        }
    }
    assert!(parts.values().all(|sum: &f64| (sum - 1.0).abs() < 1e-9), "{parts:?}");
}

#[test]
fn whatever_a_family_does_stores_are_told_and_shares_sum_up() {
    for seed in 1..=6_u64 {
        // Shown if it fails; there is nothing else to repeat.
        std::println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bench = Bench::new(2048);
        bench.map(0, 24);
        let first =
            core::mem::replace(&mut bench.space, bench.vm.new_space(&mut bench.cpu, crate::Layout::linux()).unwrap());
        let mut family = std::vec![Watched { space: first, stored: Default::default() }];
        for _ in 0..400 {
            let who = random.below(family.len() as u64) as usize;
            match random.below(24) {
                0 if family.len() < 6 => {
                    let space = family[who].space.fork(&mut bench.cpu).unwrap();
                    let stored = family[who].stored.clone();
                    family.push(Watched { space, stored });
                }
                1 if who > 0 => family.swap_remove(who).space.exit(&mut bench.cpu),
                _ => family[who].act(&mut bench.cpu, &mut random),
            }
            family.iter().for_each(|watched| watched.check(&mut bench.cpu));
            check_shares(&family, &mut bench.cpu);
        }
        family[0].space.deactivate(&mut bench.cpu);
        let others: Vec<&S> = family.iter().map(|watched| &watched.space).collect();
        bench.finish(&others);
    }
}

#[test]
fn a_dump_of_untouched_memory_touches_nothing() {
    // GU-03: neither pages nor tables, however much it is.
    let mut bench = Bench::new(256);
    bench.map(0, 1 << 18);
    bench.put(5, 9);
    let object = bench.vm.new_memory(2 * PAGE_SIZE, "m").unwrap();
    object.write(&mut bench.cpu, 0, &[3]).unwrap();
    let backing = Backing::Object { object: std::sync::Arc::clone(&object), offset: 0 };
    let request = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(2 * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, request.fixed(at(1 << 19))).unwrap();
    let before = bench.space.usage();
    let Bench { space, cpu, .. } = &mut bench;
    let mut shown = |page| {
        let mut byte = [1];
        space.read_shown(cpu, at(page), &mut byte).map(|()| byte[0]).map_err(|error| error.fault)
    };
    assert_eq!([5, 6, 100_000, 1 << 19].map(&mut shown), [Ok(9), Ok(0), Ok(0), Ok(3)]);
    assert_eq!(shown(1 << 20), Err(crate::FaultError::Unmapped));
    assert_eq!(bench.space.usage(), before);
    let objects = [&object];
    bench.vm.audit(&mut bench.cpu, &[&bench.space], &objects).unwrap();
    bench.space.unmap(&mut bench.cpu, range(1 << 19, 2)).unwrap();
    drop(object);
    bench.finish(&[]);
}

#[test]
fn who_must_not_wait_reads_what_is_there() {
    // GU-09: across a border too.
    let mut bench = Bench::new(64);
    bench.map(0, 4);
    bench.put(0, 1);
    bench.put(1, 2);
    let Bench { space, cpu, .. } = &mut bench;
    let mut bytes = [0; 2];
    let border = crate::VirtAddr::new(at(1).as_u64() - 1);
    space.read_present(cpu, border, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 2]);
    let error = space.read_present(cpu, crate::VirtAddr::new(at(2).as_u64() - 1), &mut bytes).unwrap_err();
    assert_eq!((error.done, error.fault), (1, crate::FaultError::Unmapped));
    assert_eq!(bench.space.usage().resident(), 2);
    bench.finish(&[]);
}
