//! Large pages of the pool (hugetlb): promised, made, copied, given back, and never cut (HT-01, HT-02, HT-04, GU-10).

use super::machine::TestMachine;
use super::{BASE, Bench, RW, at, get, range};
use crate::sync::plain::Ordering::Relaxed;
use crate::{
    Access, AccessError, AdviseError, AreaFlags, Backing, ClearRefs, Destination, FaultError, ForkError, HugePool,
    MapError, MapRequest, NonlinearError, Object, ObjectError, PAGE_SIZE, PageKind, Placement, Populate, ProtectError,
    RemapError, RemapRequest, Rights, Sharing, Space, UnmapError,
};
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

const LARGE: u64 = 512;
const BYTES: u64 = LARGE * PAGE_SIZE;
/// Frames enough for several large pages wherever they are aligned.
const FRAMES: u64 = 12 * LARGE;

type Memory = Arc<Object<TestMachine>>;

/// A bench with so many pages in the pool.
fn bench(pool: u64) -> Bench {
    let mut bench = Bench::new(FRAMES);
    let counts = bench.vm.set_huge_pool(&mut bench.cpu, pool);
    assert_eq!(counts, HugePool { total: pool, free: pool, ..HugePool::default() });
    bench
}

fn memory(bench: &Bench, pages: u64) -> Memory {
    bench.vm.new_huge_memory(pages * BYTES, "/anon_hugepage (deleted)").unwrap()
}

fn request(object: &Memory, page: u64, pages: u64, sharing: Sharing) -> MapRequest<TestMachine> {
    let backing = Backing::Object { object: Arc::clone(object), offset: 0 };
    MapRequest { sharing, backing, ..MapRequest::anonymous(pages * BYTES).fixed(at(page)) }
}

/// Maps so many large pages of private memory.
fn map(bench: &mut Bench, page: u64, pages: u64) {
    let object = memory(bench, pages);
    let request = request(&object, page, pages, Sharing::Private);
    bench.space.map(&mut bench.cpu, request).unwrap();
}

fn map_shared(bench: &mut Bench, object: &Memory, page: u64, pages: u64) {
    let request = request(object, page, pages, Sharing::Shared);
    bench.space.map(&mut bench.cpu, request).unwrap();
}

/// Total, free, reserved, surplus.
fn pool(bench: &Bench) -> [u64; 4] {
    let HugePool { total, free, reserved, surplus } = bench.vm.huge_pool();
    [total, free, reserved, surplus]
}

fn audit(bench: &mut Bench, others: &[&Space<TestMachine>], objects: &[&Memory]) {
    let spaces: Vec<_> = std::iter::once(&bench.space).chain(others.iter().copied()).collect();
    bench.vm.audit(&mut bench.cpu, &spaces, objects).unwrap_or_else(|error| panic!("{error}"));
}

/// Everything goes, and the pool has all its pages and no promises.
fn finish(mut bench: Bench, others: &[&Space<TestMachine>], objects: Vec<Memory>) {
    audit(&mut bench, others, &objects.iter().collect::<Vec<_>>());
    bench.space.deactivate(&mut bench.cpu);
    others.iter().chain([&&bench.space]).for_each(|space| space.exit(&mut bench.cpu));
    drop(objects);
    assert!(bench.cpu.collect());
    let [total, free, reserved, surplus] = pool(&bench);
    assert_eq!((free, reserved, surplus), (total, 0, 0), "something of the pool is lost");
    bench.vm.set_huge_pool(&mut bench.cpu, 0);
    bench.vm.audit(&mut bench.cpu, &[], &[]).unwrap_or_else(|error| panic!("{error}"));
    drop(bench.cpu);
    let stats = bench.vm.stats();
    assert_eq!(stats.free_frames, stats.total_frames - 1, "all but the zero frame are free again");
    assert_eq!(stats.get("fault_table_locks") + stats.get("fault_space_locks"), 0, "F-01");
    assert_eq!(stats.get("huge_splits"), 0);
}

#[test]
fn the_pool_takes_frames_and_gives_them_back() {
    let mut bench = bench(3);
    assert_eq!(bench.vm.census().pooled, 3 * LARGE);
    bench.vm.set_huge_pool(&mut bench.cpu, 1);
    assert_eq!((pool(&bench), bench.vm.census().pooled), ([1, 1, 0, 0], LARGE));
    let most = bench.vm.set_huge_pool(&mut bench.cpu, 100);
    assert!((10..12).contains(&most.total), "as many as there are frames in a row: {most:?}");
    audit(&mut bench, &[], &[]);
    finish(bench, &[], Vec::new());
}

#[test]
fn private_memory_is_promised_then_made_then_given_back() {
    let mut bench = bench(4);
    map(&mut bench, 0, 3);
    assert_eq!(pool(&bench), [4, 4, 3, 0]);
    bench.put(7, 1);
    bench.put(LARGE + 1, 2);
    assert_eq!(pool(&bench), [4, 2, 1, 0]);
    let usage = bench.space.usage();
    assert_eq!((usage.huge, usage.anon, usage.resident()), (2 * LARGE, 0, 0), "HT-02: no resident memory");
    assert_eq!([6, 7, LARGE, LARGE + 1].map(|page| bench.byte(page)), [0, 1, 0, 2]);
    assert_eq!((bench.stat("fault_hugetlb"), bench.vm.huge_entries()), (2, 2));
    audit(&mut bench, &[], &[]);
    bench.space.unmap(&mut bench.cpu, range(0, LARGE)).unwrap();
    assert_eq!(pool(&bench), [4, 3, 1, 0]);
    bench.space.unmap(&mut bench.cpu, range(2 * LARGE, LARGE)).unwrap();
    assert_eq!((pool(&bench), bench.space.usage().huge), ([4, 3, 0, 0], LARGE));
    finish(bench, &[], Vec::new());
}

#[test]
fn a_read_of_private_memory_makes_it_writable_too() {
    let mut bench = bench(1);
    map(&mut bench, 0, 1);
    assert_eq!(bench.byte(3), 0);
    bench.put(3, 1);
    assert_eq!((bench.stat("slow_huge_widen"), bench.stat("fault_hugetlb")), (0, 1));
    bench.touch(4);
    assert_eq!(bench.stat("fault_spurious"), 1, "HT-01");
    finish(bench, &[], Vec::new());
}

#[test]
fn more_than_there_is_is_not_promised() {
    let mut bench = bench(2);
    let object = memory(&bench, 3);
    let private = request(&object, 0, 3, Sharing::Private);
    let shared = MapRequest { sharing: Sharing::Shared, ..private.clone() };
    for request in [private.clone(), shared.clone()] {
        assert_eq!(bench.space.map(&mut bench.cpu, request), Err(MapError::NoMemory));
        assert_eq!((pool(&bench), bench.space.extent().areas), ([2, 2, 0, 0], 0));
    }
    // Without a promise the third page cannot be had; that changes nothing.
    let unpromised = MapRequest { flags: AreaFlags::NO_RESERVE, ..private };
    bench.space.map(&mut bench.cpu, unpromised).unwrap();
    bench.put(0, 1);
    bench.put(LARGE, 2);
    assert_eq!(bench.space.fault(&mut bench.cpu, at(2 * LARGE), Access::Read), Err(FaultError::Bus));
    let failed = bench.space.write(&mut bench.cpu, at(2 * LARGE), &[1]);
    assert_eq!(failed, Err(AccessError { done: 0, fault: FaultError::Bus }));
    assert_eq!([0, LARGE].map(|page| bench.byte(page)), [1, 2]);
    finish(bench, &[], vec![object]);
}

#[test]
fn a_promise_is_kept_for_its_owner() {
    let mut bench = bench(1);
    map(&mut bench, 0, 1);
    let object = memory(&bench, 1);
    let unpromised = MapRequest { flags: AreaFlags::NO_RESERVE, ..request(&object, 4 * LARGE, 1, Sharing::Private) };
    bench.space.map(&mut bench.cpu, unpromised).unwrap();
    assert_eq!(bench.space.fault(&mut bench.cpu, at(4 * LARGE), Access::Read), Err(FaultError::Bus));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(child.fault(&mut bench.cpu, at(0), Access::Read), Err(FaultError::Bus), "a child has no promise");
    bench.put(0, 1);
    finish(bench, &[&child], vec![object]);
}

#[test]
fn shared_memory_is_one_for_all() {
    let mut bench = bench(3);
    let object = memory(&bench, 2);
    map_shared(&mut bench, &object, 0, 2);
    assert_eq!(pool(&bench), [3, 3, 2, 0]);
    map_shared(&mut bench, &object, 4 * LARGE, 2);
    assert_eq!(pool(&bench), [3, 3, 2, 0], "the same pages");
    bench.put(3, 1);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    child.write(&mut bench.cpu, at(4 * LARGE + 4), &[2]).unwrap();
    child.write(&mut bench.cpu, at(LARGE), &[3]).unwrap();
    assert_eq!([3, 4, LARGE].map(|page| bench.byte(page)), [1, 2, 3]);
    assert_eq!((pool(&bench), bench.stat("slow_huge_copy")), ([3, 1, 0, 0], 0));
    let mut bytes = [0; 1];
    object.read(&mut bench.cpu, BYTES, &mut bytes).unwrap();
    assert_eq!((bytes, object.resident_pages(), object.is_resident(BYTES)), ([3], 2 * LARGE, true));
    object.write(&mut bench.cpu, 2 * BYTES - 1, &[9]).unwrap();
    assert_eq!(object.write(&mut bench.cpu, 2 * BYTES, &[9]), Err(ObjectError::TooBig));
    audit(&mut bench, &[&child], &[&object]);
    bench.space.unmap(&mut bench.cpu, range(0, 2 * LARGE)).unwrap();
    assert_eq!(pool(&bench), [3, 1, 0, 0], "the object has them");
    finish(bench, &[&child], vec![object]);
}

#[test]
fn what_a_shared_mapping_was_promised_stays_with_the_object() {
    let mut bench = bench(3);
    let object = memory(&bench, 3);
    map_shared(&mut bench, &object, 0, 3);
    bench.put(LARGE, 1);
    bench.space.unmap(&mut bench.cpu, range(0, 3 * LARGE)).unwrap();
    assert_eq!(pool(&bench), [3, 2, 2, 0]);
    object.resize(&mut bench.cpu, 2 * BYTES).unwrap();
    assert_eq!(pool(&bench), [3, 2, 1, 0]);
    object.punch_hole(&mut bench.cpu, 0, 2 * BYTES).unwrap();
    assert_eq!(pool(&bench), [3, 3, 0, 0]);
    let promised = bench.vm.new_promised_huge_memory(&mut bench.cpu, 2 * BYTES, "shm").unwrap();
    assert_eq!(pool(&bench), [3, 3, 2, 0]);
    assert!(bench.vm.new_promised_huge_memory(&mut bench.cpu, 2 * BYTES, "shm").is_err());
    finish(bench, &[], vec![object, promised]);
}

#[test]
fn a_store_after_fork_copies_and_the_last_one_does_not() {
    let mut bench = bench(4);
    map(&mut bench, 0, 2);
    bench.put(0, 1);
    bench.put(LARGE + 5, 2);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(child.usage().huge, 2 * LARGE);
    child.write(&mut bench.cpu, at(1), &[7]).unwrap();
    assert_eq!((bench.stat("slow_huge_copy"), pool(&bench)), (1, [4, 1, 0, 0]));
    assert_eq!([0, 1].map(|page| bench.byte(page)), [1, 0]);
    assert_eq!([0, 1, LARGE + 5].map(|page| get(&child, &mut bench.cpu, page)), [1, 7, 2]);
    bench.put(1, 8);
    assert_eq!(bench.stat("slow_huge_copy"), 1, "alone by now");
    assert_eq!(get(&child, &mut bench.cpu, 1), 7);
    audit(&mut bench, &[&child], &[]);
    child.exit(&mut bench.cpu);
    bench.put(LARGE + 5, 3);
    assert_eq!((bench.stat("slow_huge_copy"), pool(&bench)), (1, [4, 2, 0, 0]));
    finish(bench, &[], Vec::new());
}

#[test]
fn a_copy_that_cannot_be_made_changes_nothing() {
    let mut bench = bench(1);
    map(&mut bench, 0, 1);
    bench.put(0, 1);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(child.fault(&mut bench.cpu, at(0), Access::Write), Err(FaultError::Bus));
    assert_eq!((get(&child, &mut bench.cpu, 0), bench.stat("slow_huge_copy")), (1, 0));
    audit(&mut bench, &[&child], &[]);
    bench.vm.set_huge_pool(&mut bench.cpu, 2);
    child.write(&mut bench.cpu, at(0), &[2]).unwrap();
    assert_eq!(bench.byte(0), 1);
    finish(bench, &[&child], Vec::new());
}

#[test]
fn private_mappings_of_an_object_copy_its_pages() {
    let mut bench = bench(4);
    let object = memory(&bench, 2);
    map_shared(&mut bench, &object, 0, 2);
    (0..2).for_each(|page| bench.put(page * LARGE, page as u8 + 1));
    let private = request(&object, 4 * LARGE, 2, Sharing::Private);
    bench.space.map(&mut bench.cpu, private).unwrap();
    assert_eq!(pool(&bench), [4, 2, 2, 0]);
    assert_eq!(bench.byte(4 * LARGE), 1);
    assert_eq!(pool(&bench), [4, 2, 2, 0], "the object's page, read-only");
    bench.put(4 * LARGE + 1, 7);
    assert_eq!((pool(&bench), bench.stat("slow_huge_copy")), ([4, 1, 1, 0], 1));
    bench.put(5 * LARGE + 1, 8);
    assert_eq!((pool(&bench), bench.stat("slow_huge_copy")), ([4, 0, 0, 0], 1), "copied at once");
    assert_eq!([4 * LARGE, 4 * LARGE + 1, 5 * LARGE, 5 * LARGE + 1].map(|page| bench.byte(page)), [1, 7, 2, 8]);
    assert_eq!([1, LARGE + 1].map(|page| bench.byte(page)), [0, 0]);
    object.punch_hole(&mut bench.cpu, 0, BYTES).unwrap();
    assert_eq!([0, 4 * LARGE + 1, 5 * LARGE + 1].map(|page| bench.byte(page)), [0, 0, 8], "a hole takes copies along");
    object.resize(&mut bench.cpu, BYTES).unwrap();
    for page in [LARGE, 5 * LARGE + 1] {
        assert_eq!(bench.space.fault(&mut bench.cpu, at(page), Access::Read), Err(FaultError::Bus), "HT-01");
    }
    finish(bench, &[], vec![object]);
}

#[test]
fn no_operation_cuts_a_large_page() {
    let mut bench = bench(3);
    map(&mut bench, 0, 3);
    (0..3).for_each(|page| bench.put(page * LARGE, page as u8 + 1));
    let (space, cpu) = (&bench.space, &mut bench.cpu);
    for part in [range(1, 1), range(0, LARGE + 1), range(LARGE - 1, LARGE + 1)] {
        assert_eq!(space.unmap(cpu, part), Err(UnmapError::Invalid));
        assert_eq!(space.protect(cpu, part, Rights::READ), Err(ProtectError::Unaligned(part.start())));
        let small = MapRequest::anonymous(part.len()).fixed(part.start());
        assert_eq!(space.map(cpu, small), Err(MapError::Invalid));
        let flags = space.set_flags(cpu, part, AreaFlags::NO_DUMP, AreaFlags::NONE, |_| true);
        assert_eq!(flags, Err(AdviseError::Refused(part.start())));
    }
    // What changes nothing needs no cut.
    assert_eq!(space.protect(cpu, range(1, 1), RW()), Ok(()));
    assert_eq!(space.discard(cpu, range(1, LARGE), false), Err(AdviseError::Refused(at(1))));
    assert_eq!(space.free_lazily(cpu, range(0, LARGE)), Err(AdviseError::Refused(at(0))));
    assert!(space.collapse(cpu, range(0, LARGE)).is_err());
    assert_eq!(space.remap_pages(cpu, range(0, LARGE), 0, AreaFlags::NONE), Err(NonlinearError::Invalid));
    let invalid = |old_len, new_len, to: Option<u64>, keep| {
        let destination = to.map_or(Destination::Anywhere, |page| Destination::Fixed(at(page)));
        RemapRequest { addr: at(0), old_len, new_len, destination, keep }
    };
    for request in [
        invalid(BYTES, 2 * BYTES, None, false),
        invalid(BYTES, BYTES, Some(8 * LARGE + 1), false),
        invalid(BYTES, BYTES, Some(8 * LARGE), true),
        invalid(0, BYTES, Some(8 * LARGE), false),
        invalid(BYTES - PAGE_SIZE, BYTES - PAGE_SIZE, Some(8 * LARGE), false),
    ] {
        assert_eq!(space.remap(cpu, request), Err(RemapError::Invalid), "{request:?}");
    }
    assert_eq!([0, LARGE, 2 * LARGE].map(|page| bench.byte(page)), [1, 2, 3]);
    assert_eq!(bench.space.extent().areas, 1);
    finish(bench, &[], Vec::new());
}

#[test]
fn places_line_up_with_large_pages() {
    let mut bench = bench(2);
    let object = memory(&bench, 1);
    let base = request(&object, 0, 1, Sharing::Shared);
    let anywhere = MapRequest { placement: Placement::Anywhere, ..base.clone() };
    let first = bench.space.map(&mut bench.cpu, anywhere.clone()).unwrap();
    let second = bench.space.map(&mut bench.cpu, anywhere).unwrap();
    assert!(first.as_u64().is_multiple_of(BYTES) && second.as_u64() == first.as_u64() - BYTES);
    let hint = MapRequest { placement: Placement::Hint, addr: at(1), len: 1, ..base.clone() };
    assert_eq!(bench.space.map(&mut bench.cpu, hint), Ok(at(LARGE)));
    assert_eq!(bench.space.extent().pages, 3 * LARGE, "rounded up");
    for placement in [Placement::Fixed, Placement::FixedNoReplace] {
        let request = MapRequest { addr: at(1), placement, ..base.clone() };
        assert_eq!(bench.space.map(&mut bench.cpu, request), Err(MapError::Invalid));
    }
    let backing = Backing::Object { object: Arc::clone(&object), offset: PAGE_SIZE };
    assert_eq!(bench.space.map(&mut bench.cpu, MapRequest { backing, ..base.clone() }), Err(MapError::Invalid));
    drop(base);
    finish(bench, &[], vec![object]);
}

#[test]
fn rights_change_as_one() {
    let mut bench = bench(2);
    let object = memory(&bench, 1);
    map(&mut bench, 0, 1);
    map_shared(&mut bench, &object, LARGE, 1);
    (0..2).for_each(|page| bench.put(page * LARGE, 1));
    for rights in [Rights::READ, Rights::NONE, Rights::READ | Rights::EXECUTE, RW()] {
        bench.space.protect(&mut bench.cpu, range(0, 2 * LARGE), rights).unwrap();
        for page in [7, LARGE + 7] {
            for (access, right) in
                [(Access::Read, Rights::READ), (Access::Write, Rights::WRITE), (Access::Execute, Rights::EXECUTE)]
            {
                let done = bench.space.fault(&mut bench.cpu, at(page), access).is_ok();
                assert_eq!(done, rights.contains(right), "{rights:?} {access:?} {page}");
            }
        }
        let mut byte = [0];
        bench.space.read_forced(&mut bench.cpu, at(0), &mut byte).unwrap();
        assert_eq!(byte, [1]);
    }
    (0..2).for_each(|page| bench.put(page * LARGE, 2));
    finish(bench, &[], vec![object]);
}

#[test]
fn a_smaller_pool_goes_as_it_is_freed() {
    let mut bench = bench(4);
    map(&mut bench, 0, 3);
    bench.put(0, 1);
    bench.vm.set_huge_pool(&mut bench.cpu, 0);
    assert_eq!(pool(&bench), [3, 2, 2, 3], "one was free and not promised");
    bench.put(LARGE, 1);
    bench.space.unmap(&mut bench.cpu, range(0, LARGE)).unwrap();
    assert_eq!(pool(&bench), [2, 1, 1, 2]);
    audit(&mut bench, &[], &[]);
    bench.vm.set_huge_pool(&mut bench.cpu, 1);
    assert_eq!(pool(&bench), [2, 1, 1, 1]);
    bench.vm.set_huge_pool(&mut bench.cpu, 3);
    assert_eq!(pool(&bench), [3, 2, 1, 0]);
    finish(bench, &[], Vec::new());
}

/// HT: what the pool has too much goes with the promise that kept it, too.
#[test]
fn a_smaller_pool_goes_as_promises_do() {
    let mut bench = bench(4);
    map(&mut bench, 0, 3);
    bench.vm.set_huge_pool(&mut bench.cpu, 0);
    assert_eq!(pool(&bench), [3, 3, 3, 3]);
    bench.space.unmap(&mut bench.cpu, range(0, LARGE)).unwrap();
    assert_eq!(pool(&bench), [2, 2, 2, 2], "munmap");
    bench.space.unmap(&mut bench.cpu, range(LARGE, 2 * LARGE)).unwrap();
    assert_eq!(pool(&bench), [0; 4]);
    bench.vm.set_huge_pool(&mut bench.cpu, 3);
    let object = memory(&bench, 3);
    map_shared(&mut bench, &object, 0, 3);
    bench.vm.set_huge_pool(&mut bench.cpu, 0);
    object.punch_hole(&mut bench.cpu, 2 * BYTES, BYTES).unwrap();
    assert_eq!(pool(&bench), [2, 2, 2, 2], "a hole");
    object.resize(&mut bench.cpu, BYTES).unwrap();
    assert_eq!(pool(&bench), [1, 1, 1, 1], "a cut");
    finish(bench, &[], vec![object]);
}

/// HT: a fault that took a promise and lost its page's place to munmap has nothing to give it back to.
#[test]
fn a_promise_that_was_forgotten_is_not_restored() {
    let mut bench = bench(2);
    map(&mut bench, 0, 2);
    let (owner, first) = (bench.space.core.id, at(0).as_u64() / BYTES);
    let memory = Arc::clone(&bench.space.core.memory);
    let taken = [0, 1].map(|page| bench.cpu.ctx_in(&memory).take_large(Some((owner, first + page))).unwrap());
    assert_eq!(pool(&bench), [2, 0, 0, 0]);
    bench.space.unmap(&mut bench.cpu, range(0, LARGE)).unwrap();
    let [gone, kept] = taken;
    let ctx = bench.cpu.ctx_in(&memory);
    let published = ctx.publish_large(gone, 0, 1);
    ctx.withdraw_large(published, (owner, first), true);
    ctx.give_large(kept);
    assert_eq!(pool(&bench), [2, 2, 1, 0], "what is mapped still is promised");
    finish(bench, &[], Vec::new());
}

#[test]
fn what_is_discarded_is_promised_again() {
    let mut bench = bench(3);
    map(&mut bench, 0, 2);
    (0..2).for_each(|page| bench.put(page * LARGE, 1));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.space.discard(&mut bench.cpu, range(0, LARGE + 3), false).unwrap();
    assert_eq!(pool(&bench), [3, 1, 1, 0], "a part stays");
    assert_eq!([0, LARGE].map(|page| bench.byte(page)), [0, 1]);
    child.discard(&mut bench.cpu, range(0, LARGE), false).unwrap();
    assert_eq!(pool(&bench), [3, 1, 0, 0], "the child was promised nothing");
    bench.space.discard(&mut bench.cpu, range(0, LARGE - 1), false).unwrap();
    assert_eq!(pool(&bench), [3, 1, 0, 0]);
    bench.space.populate(&mut bench.cpu, range(0, 2 * LARGE), Populate::Write).unwrap();
    finish(bench, &[&child], Vec::new());
}

#[test]
fn pins_stand_on_the_whole_page() {
    let mut bench = bench(3);
    let object = memory(&bench, 1);
    map(&mut bench, 0, 1);
    map_shared(&mut bench, &object, LARGE, 1);
    bench.put(5, 1);
    let pins = bench.space.pin(&mut bench.cpu, range(5, 2), Access::Write).unwrap();
    let shared = bench.space.pin(&mut bench.cpu, range(LARGE + 9, 1), Access::Write).unwrap();
    assert_eq!(pins.frames()[1].as_u64(), pins.frames()[0].as_u64() + 1, "frame = first + index");
    // The child gets its own copy at once, and the parent keeps the page (GU-05).
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(pool(&bench), [3, 0, 0, 0]);
    bench.put(5, 2);
    assert_eq!((get(&child, &mut bench.cpu, 5), bench.stat("slow_huge_copy")), (1, 0));
    assert!(matches!(bench.space.fork(&mut bench.cpu), Err(ForkError::NoMemory)), "none left to copy to");
    bench.space.unmap(&mut bench.cpu, range(0, 2 * LARGE)).unwrap();
    child.exit(&mut bench.cpu);
    assert_eq!(pool(&bench), [3, 1, 0, 0], "the pins keep one, the object the other");
    drop((pins, shared));
    assert_eq!(pool(&bench), [3, 2, 0, 0]);
    finish(bench, &[], vec![object]);
}

#[test]
fn a_move_takes_pages_and_promises_along() {
    let mut bench = bench(2);
    map(&mut bench, 0, 2);
    bench.put(3, 1);
    let request = RemapRequest {
        addr: at(0),
        old_len: 2 * BYTES,
        new_len: 2 * BYTES,
        destination: Destination::Fixed(at(7 * LARGE)),
        keep: false,
    };
    bench.space.remap(&mut bench.cpu, request).unwrap();
    assert_eq!(pool(&bench), [2, 1, 1, 0]);
    assert_eq!(bench.byte(7 * LARGE + 3), 1);
    bench.put(8 * LARGE, 2);
    assert_eq!(pool(&bench), [2, 0, 0, 0]);
    let back = RemapRequest { addr: at(7 * LARGE), destination: Destination::Fixed(at(0)), ..request };
    bench.space.remap(&mut bench.cpu, back).unwrap();
    assert_eq!([3, LARGE].map(|page| bench.byte(page)), [1, 2]);
    let shrink = RemapRequest { new_len: BYTES, destination: Destination::InPlace, ..request };
    bench.space.remap(&mut bench.cpu, shrink).unwrap();
    assert_eq!(pool(&bench), [2, 1, 0, 0]);
    finish(bench, &[], Vec::new());
}

#[test]
fn small_and_large_replace_each_other() {
    let mut bench = bench(2);
    bench.map(0, 2 * LARGE);
    (0..2).for_each(|page| bench.put(page * LARGE, 1));
    map(&mut bench, 0, 1);
    bench.put(7, 2);
    assert_eq!([0, 7, LARGE].map(|page| bench.byte(page)), [0, 2, 1]);
    assert_eq!(bench.space.usage().anon, 1);
    map(&mut bench, 0, 1);
    assert_eq!((bench.byte(7), pool(&bench)), (0, [2, 1, 0, 0]));
    bench.map(0, LARGE);
    bench.put(7, 3);
    assert_eq!((pool(&bench), bench.byte(7)), ([2, 2, 0, 0], 3));
    finish(bench, &[], Vec::new());
}

#[test]
fn debuggers_store_to_what_is_read_only() {
    let mut bench = bench(3);
    let object = memory(&bench, 1);
    map_shared(&mut bench, &object, 0, 1);
    bench.put(0, 1);
    let private = MapRequest { rights: Rights::READ, ..request(&object, LARGE, 1, Sharing::Private) };
    bench.space.map(&mut bench.cpu, private).unwrap();
    assert_eq!(bench.byte(LARGE), 1);
    bench.space.write_forced(&mut bench.cpu, at(LARGE), &[2]).unwrap();
    bench.space.write_forced(&mut bench.cpu, at(LARGE + 1), &[3]).unwrap();
    assert_eq!([0, LARGE, LARGE + 1].map(|page| bench.byte(page)), [1, 2, 3]);
    assert_eq!(bench.space.fault(&mut bench.cpu, at(LARGE), Access::Write), Err(FaultError::Denied));
    let mut writable = true;
    bench.space.pages(&mut bench.cpu, range(LARGE, 1), |page| writable = page.writable);
    assert!(!writable);
    finish(bench, &[], vec![object]);
}

#[test]
fn views_tell_them_apart() {
    let mut bench = bench(3);
    let object = memory(&bench, 1);
    map(&mut bench, 0, 1);
    map_shared(&mut bench, &object, LARGE, 1);
    map_shared(&mut bench, &object, 2 * LARGE, 1);
    [0, LARGE, 2 * LARGE].into_iter().for_each(|page| bench.put(page, 1));
    let mut kinds = Vec::new();
    bench.space.pages(&mut bench.cpu, range(0, 3 * LARGE), |page| {
        if page.addr.as_u64().is_multiple_of(BYTES) {
            kinds.push((page.kind, page.pooled, page.mappings, page.is_shared()));
        }
    });
    let (anon, shmem) = ((PageKind::Anon, true, 1, false), (PageKind::Shmem, true, 2, true));
    assert_eq!(kinds, [anon, shmem, shmem]);
    let sums = bench.space.footprint(&mut bench.cpu, range(0, 3 * LARGE));
    assert_eq!((sums.private_hugetlb, sums.shared_hugetlb, sums.resident), (LARGE, 2 * LARGE, 0));
    bench.space.clear_refs(&mut bench.cpu, ClearRefs::SoftDirty).unwrap();
    bench.put(1, 2);
    bench.put(LARGE + 1, 2);
    let mut soft = Vec::new();
    bench.space.pages(&mut bench.cpu, range(0, 3 * LARGE), |page| {
        if (page.addr.as_u64() - BASE).is_multiple_of(BYTES) {
            soft.push(page.soft_dirty);
        }
    });
    assert_eq!(soft, [true, true, false]);
    finish(bench, &[], vec![object]);
}

#[test]
fn a_failed_allocation_leaves_the_pool_as_it_was() {
    for nth in 1..10 {
        let mut bench = bench(2);
        map(&mut bench, 0, 2);
        bench.put(0, 1);
        let child = bench.space.fork(&mut bench.cpu).unwrap();
        bench.vm.machine().fail_after.store(nth, Relaxed);
        let stored = child.write(&mut bench.cpu, at(LARGE + 3), &[1]);
        let unmapped = child.unmap(&mut bench.cpu, range(0, LARGE));
        bench.vm.machine().fail_after.store(0, Relaxed);
        // The second page is promised to the parent.
        assert!(stored.is_err());
        audit(&mut bench, &[&child], &[]);
        let succeeded = unmapped.is_ok();
        child.unmap(&mut bench.cpu, range(0, LARGE)).unwrap();
        bench.put(LARGE, 1);
        finish(bench, &[&child], Vec::new());
        if succeeded && nth > 4 {
            return;
        }
    }
    panic!("it never succeeded");
}

#[test]
fn two_sizes_in_one_table_of_level_one() {
    // HT-03: freeing the tables of a range with both.
    let mut bench = bench(2);
    map(&mut bench, LARGE, 1);
    bench.map(0, LARGE);
    bench.map(2 * LARGE, LARGE);
    [5, LARGE + 5, 2 * LARGE + 5].into_iter().for_each(|page| bench.put(page, 1));
    bench.space.unmap(&mut bench.cpu, range(1, 2 * LARGE + 2)).unwrap();
    assert_eq!((bench.byte(2 * LARGE + 5), pool(&bench)), (1, [2, 2, 0, 0]));
    bench.space.unmap(&mut bench.cpu, range(0, 3 * LARGE)).unwrap();
    assert_eq!(bench.space.usage().tables, 0);
    finish(bench, &[], Vec::new());
}

#[test]
fn what_was_shared_goes_with_munmap() {
    let mut bench = bench(6);
    map(&mut bench, 0, 2);
    bench.put(3, 1);
    bench.put(LARGE + 9, 2);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    child.write(&mut bench.cpu, at(3), &[3]).unwrap();
    child.write(&mut bench.cpu, at(LARGE + 9), &[4]).unwrap();
    child.exit(&mut bench.cpu);
    assert_eq!(pool(&bench), [6, 4, 0, 0]);
    bench.put(3, 5);
    bench.space.unmap(&mut bench.cpu, range(0, 16 * LARGE)).unwrap();
    assert_eq!(pool(&bench), [6, 6, 0, 0]);
    finish(bench, &[], Vec::new());
}

#[test]
fn what_an_area_is_no_caller_sets() {
    let mut bench = bench(1);
    map(&mut bench, 0, 1);
    let whole = range(0, LARGE);
    let all = AreaFlags::RAW | AreaFlags::HUGETLB | AreaFlags::NONLINEAR;
    bench.space.set_flags(&mut bench.cpu, whole, AreaFlags::NONE, all, |_| true).unwrap();
    bench.put(0, 1);
    assert_eq!(bench.space.usage().huge, LARGE);
    bench.space.set_default_flags(all);
    bench.map(LARGE, 1);
    bench.space.set_flags(&mut bench.cpu, range(LARGE, 1), all, AreaFlags::NONE, |_| true).unwrap();
    bench.put(LARGE, 2);
    assert_eq!(bench.byte(LARGE), 2);
    finish(bench, &[], Vec::new());
}
