//! P12: what is punched out of an object is zeroes for everybody, whatever was on its way in; a pinned page stays the one
//! that its space has mapped, whoever forks.

use crate::model::*;
use crate::scenario;
use faultless::{Backing, InsertError, MapRequest, PAGE_SIZE, PageWriter, Pager, PagerError, VirtAddr};
use std::sync::Arc;

type Two = X86<2, 1, 2>;

/// An object of two pages, each beginning with 33, mapped at 0; both CPUs run the space.
fn shown(sharing: Sharing) -> (World<Two>, [Worker<Two>; 2], Space<Two>, Backed<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let object = workers[0].object(2, 33);
    let space = workers[0].space();
    workers[0].map_object(&space, 0, 2, rw(), sharing, &object, 0);
    workers.iter_mut().for_each(|worker| worker.run(&space));
    (world, workers, space, object)
}

/// `b` reads page 0 while `a` punches it out.
fn read_against_punch((world, [mut a, mut b], space, object): (World<Two>, [Worker<Two>; 2], Space<Two>, Backed<Two>)) {
    let other = space.clone();
    let running = spawn(move || (b.read(&other, 0, 0), b));
    a.punch(&object, 0);
    assert_eq!(a.read(&space, 0, 0), Some(0), "a hole");
    let (seen, mut b) = running.join();
    reach(if seen == Some(33) { "before" } else { "after" });
    assert!(seen == Some(33) || seen == Some(0), "{seen:?}");
    assert_eq!((a.read(&space, 0, 0), b.read(&space, 0, 0)), (Some(0), Some(0)), "a hole");
    assert!(a.write(&space, 0, 0, 5));
    assert_eq!((b.read(&space, 0, 0), a.read_object(&object, 0)), (Some(5), Some(5)), "not the object's page");
    world.audit([a, b], &[&space], &[&object]);
}

scenario! {
    /// The table is there: page 1 was read.
    punch (3, 5)
    reaches ["before", "after"]
    holds_with [NeverQuiet]
    catches [AlwaysQuiet, NoStamp, PunchLate]
    {
        let (world, [mut a, b], space, object) = shown(Sharing::Shared);
        assert_eq!(a.read(&space, 1, 0), Some(33));
        read_against_punch((world, [a, b], space, object));
    }
}

scenario! {
    /// Both CPUs have the page in their TLBs.
    punch_cached (3, 5)
    reaches ["before", "after"]
    catches [NoShootdown]
    {
        let (world, [mut a, mut b], space, object) = shown(Sharing::Shared);
        assert_eq!((a.read(&space, 0, 0), b.read(&space, 0, 0)), (Some(33), Some(33)));
        read_against_punch((world, [a, b], space, object));
    }
}

scenario! {
    /// No table yet.
    punch_table_absent (2, 4)
    reaches ["before", "after"]
    catches [NoUpperStamp]
    { read_against_punch(shown(Sharing::Shared)) }
}

scenario! {
    /// A private mapping of the page, to which a store copies it: the copy was made before the hole, or of the hole.
    punch_and_cow (3, 4)
    reaches ["before", "after"]
    catches [NoGenerationBump]
    {
        let (world, [mut a, mut b], space, object) = shown(Sharing::Private);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(33), Some(33)));
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.punch(&object, 0);
        let seen = a.read(&space, 0, 0);
        let b = running.join();
        reach(if seen == Some(33) { "before" } else { "after" });
        assert!(seen == Some(33) || seen == Some(0), "{seen:?}");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (seen, Some(7)), "went back, or lost a store");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// Two spaces show the page: what is stored to the new one through one of them is seen through the other at once.
    punch_two_spaces (3, 4)
    reaches ["new"]
    catches [PunchStaysOpen]
    {
        let (world, [mut a, mut b], space, object) = shown(Sharing::Shared);
        let second = a.space();
        a.map_object(&second, 0, 2, rw(), Sharing::Shared, &object, 0);
        assert_eq!((a.read(&space, 0, 0), a.inspect(&second, 0, 0)), (Some(33), Some(33)));
        let (one, two) = (space.clone(), second.clone());
        let running = spawn(move || {
            let seen = b.read(&one, 0, 0);
            if seen == Some(0) {
                reach("new");
                assert_eq!(b.inspect(&two, 0, 0), Some(0), "two pages for one of the object");
            }
            b
        });
        a.punch(&object, 0);
        let b = running.join();
        world.audit([a, b], &[&space, &second], &[&object]);
    }
}

scenario! {
    /// A fork shares the second space's table between the punch's look at it and its sweep, and there is no frame for a
    /// copy: the punch fails, and the old page is the object's again everywhere.
    punch_fails (2, 3)
    reaches ["done", "failed"]
    catches [PunchOpensTorn]
    {
        let (world, [mut a, mut b], space, object) = shown(Sharing::Shared);
        let second = a.space();
        a.map_object(&second, 0, 2, rw(), Sharing::Shared, &object, 0);
        assert_eq!((a.read(&space, 0, 0), a.inspect(&second, 0, 0)), (Some(33), Some(33)));
        let parent = second.clone();
        let running = spawn(move || (b.fork(&parent), b));
        a.machine().fail_after(0, 0);
        let done = object.punch_hole(&mut a.cpu, 0, PAGE_SIZE).is_ok();
        a.machine().fail_after(0, u64::MAX);
        reach(if done { "done" } else { "failed" });
        let (child, b) = running.join();
        assert!(a.write(&space, 0, 1, 7));
        assert_eq!(a.read(&space, 0, 0), Some(if done { 0 } else { 33 }), "neither a hole nor as it was");
        for other in [&second, &child] {
            assert_eq!(a.inspect(other, 0, 1), Some(7), "two pages for one of the object");
        }
        world.audit([a, b], &[&space, &second, &child], &[&object]);
    }
}

scenario! {
    /// read(2) and write(2) of the page meanwhile.
    punch_and_write (3, 5)
    reaches ["before", "after"]
    {
        let (world, [mut a, mut b], space, object) = shown(Sharing::Shared);
        let written = object.clone();
        let running = spawn(move || {
            b.write_object(&written, 0, 1, 7);
            let seen = b.read_object(&written, 0);
            assert!(seen == Some(33) || seen == Some(0), "{seen:?}");
            b
        });
        a.punch(&object, 0);
        assert_eq!(a.read(&space, 0, 0), Some(0), "a hole");
        let b = running.join();
        let last = a.read(&space, 0, 1);
        reach(if last == Some(7) { "after" } else { "before" });
        assert!(last == Some(7) || last == Some(0), "{last:?}");
        assert_eq!((a.read(&space, 0, 0), a.read_object(&object, 0)), (Some(0), Some(0)), "a hole");
        world.audit([a, b], &[&space], &[&object]);
    }
}

/// A file whose backing store knows 33 for each page, for ever.
struct Store;

impl Pager for Store {
    fn fill(&self, _index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &33u64.to_le_bytes());
        Ok(())
    }
}

/// `b` reads the page of a file while `a` punches it out, and does `then`.
fn fill_against_punch(then: impl Fn(&mut Worker<Two>, &Backed<Two>)) {
    let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
    let object = a.cpu.vm().new_file(PAGE_SIZE, Arc::new(Store), "model").expect("memory");
    let read = object.clone();
    let running = spawn(move || {
        let seen = b.read_object(&read, 0);
        reach(if seen == Some(33) { "before" } else { "after" });
        b
    });
    a.punch(&object, 0);
    then(&mut a, &object);
    assert_eq!(a.read_object(&object, 0), Some(0), "punched out, and back again");
    let b = running.join();
    assert_eq!(a.read_object(&object, 0), Some(0), "punched out, and back again");
    world.audit([a, b], &[], &[&object]);
}

scenario! {
    /// The page is being read from the pager: it must not come in behind the hole.
    fill (3, 5)
    reaches ["before", "after"]
    catches [AbsentKeepsValue]
    { fill_against_punch(|_, _| {}) }
}

scenario! {
    /// The file is cut inside the hole and grows again: what is before the cut stays punched out.
    fill_and_cut (2, 4)
    reaches ["before", "after"]
    catches [CutForgetsHole]
    {
        fill_against_punch(|worker, object| {
            object.resize(&mut worker.cpu, 8).expect("memory");
            object.resize(&mut worker.cpu, PAGE_SIZE).expect("memory");
        });
    }
}

/// Pages 0 (contents 5, 0) and 1 (contents 1, 0); both CPUs run the space.
fn mapped() -> (World<Two>, [Worker<Two>; 2], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert!(workers[0].write(&space, 0, 0, 5) && workers[0].write(&space, 1, 0, 1));
    (world, workers, space)
}

/// `b` pins page 0, stores to it, and is asked whether the pinned page is the one that it sees; `a` forks meanwhile.
fn pin_against_fork(access: Access) {
    let (world, [mut a, mut b], space) = mapped();
    let other = space.clone();
    let running = spawn(move || {
        let pins = b.pin(&other, 0, access).expect("mapped");
        assert!(b.write(&other, 0, 1, 7));
        assert_eq!(pins.frames()[0], b.frame(&other, 0), "a pinned page was copied away");
        assert_eq!(b.machine().word(pins.frames()[0], 1), 7);
        drop(pins);
        b
    });
    let child = a.fork(&space);
    let seen = a.inspect(&child, 0, 1);
    let b = running.join();
    assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(5), seen), "isolation");
    assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)), "lost store");
    world.audit([a, b], &[&space, &child], &[]);
}

scenario! {
    /// A pin for stores while the space forks.
    pin_and_fork (2, 3)
    catches [PinAfterSection, ForkForgetsPins]
    { pin_against_fork(Access::Write) }
}

scenario! {
    /// A page is pinned, and a fork has no frame for the child's copy of it; a store meanwhile must not find the page
    /// shared.
    pin_and_failing_fork (3, 4)
    catches [ThawBeforeExit]
    {
        let (world, [mut a, mut b], space) = mapped();
        let pins = a.pin(&space, 0, Access::Write).expect("mapped");
        let (frame, other) = (pins.frames()[0], space.clone());
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            assert_eq!(b.frame(&other, 0), frame, "a pinned page was copied away");
            b
        });
        a.machine().fail_after(0, 2); // the root and the leaf table
        assert!(space.fork(&mut a.cpu).is_err());
        a.machine().fail_after(0, u64::MAX);
        let b = running.join();
        drop(pins);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A pin for reads while the space forks.
    read_pin_and_fork (2, 3)
    catches [PinAfterSection, ForkForgetsPins]
    { pin_against_fork(Access::Read) }
}

scenario! {
    /// A pin for reads of a page that somebody else has too, while it is stored to: the page is made the space's own
    /// first.
    pin_and_cow (3, 4)
    catches [PinShared]
    {
        let (world, [mut a, mut b], space) = mapped();
        let holder = a.hold(&space, 0, 1);
        let other = space.clone();
        let running = spawn(move || (b.pin(&other, 0, Access::Read).expect("mapped"), b));
        assert!(a.write(&space, 0, 1, 7));
        let (pins, b) = running.join();
        assert!(a.write(&space, 0, 1, 8));
        assert_eq!(pins.frames()[0], a.frame(&space, 0), "a pinned page was copied away");
        drop(pins);
        assert_eq!((a.inspect(&holder, 0, 0), a.inspect(&holder, 0, 1)), (Some(5), Some(0)), "isolation");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// The page is unmapped and its frame used anew: the pin has it as it was, or there is none.
    pin_and_unmap (3, 4)
    reaches ["pinned", "gone"]
    catches [PinWithoutRecheck]
    {
        let (world, [mut a, mut b], space) = mapped();
        a.map(&space, 2, 2, rw());
        assert!(a.write(&space, 3, 0, 1)); // the table is there, so that the next frame is a page
        let other = space.clone();
        let running = spawn(move || (b.pin(&other, 0, Access::Write), b));
        a.unmap(&space, 0, 1);
        assert!(a.write(&space, 2, 0, 99));
        let (pins, b) = running.join();
        reach(if pins.is_some() { "pinned" } else { "gone" });
        if let Some(pins) = pins {
            assert_ne!(pins.frames()[0], a.frame(&space, 2), "somebody else's page is pinned");
            assert_eq!(a.machine().word(pins.frames()[0], 0), 5, "a pinned page was freed");
        }
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The page is discarded: the pin keeps it, and the space has another one.
    pin_and_discard (3, 4)
    {
        let (world, [mut a, mut b], space) = mapped();
        let other = space.clone();
        let running = spawn(move || (b.pin(&other, 0, Access::Write).expect("mapped"), b));
        a.discard(&space, 0, 1);
        assert_eq!(a.read(&space, 0, 0), Some(0), "a discarded page");
        let (pins, b) = running.join();
        let word = a.machine().word(pins.frames()[0], 0);
        assert!(word == 5 || word == 0, "{word}");
        drop(pins);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A debugger stores to a page that may only be read, while the space forks.
    forced_store (2, 4)
    reaches ["before", "after"]
    catches [NoForkGrace]
    {
        let (world, [mut a, mut b], space) = mapped();
        a.protect(&space, 0, 2, RO);
        let other = space.clone();
        let running = spawn(move || {
            let (at, value) = (VirtAddr::new(8), 7u64.to_le_bytes());
            assert_eq!(other.write_forced(&mut b.cpu, at, &value), Ok(()));
            b
        });
        let child = a.fork(&space);
        let seen = a.inspect(&child, 0, 1);
        reach(if seen == Some(0) { "before" } else { "after" });
        let b = running.join();
        assert!(seen == Some(0) || seen == Some(7), "{seen:?}");
        assert_eq!(a.inspect(&child, 0, 1), seen, "a store to the parent reached the child");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)), "lost store");
        a.assert_read_only(&space, 0);
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The embedder puts a page into an area of frames while a fault fills the hole there.
    insert (4, 5)
    reaches ["inserted", "hole"]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let space = a.space();
        let request = MapRequest { backing: Backing::Frames, ..MapRequest::anonymous(PAGE_SIZE) };
        space.map(&mut a.cpu, request.fixed(VirtAddr::new(0))).expect("room");
        a.run(&space);
        b.run(&space);
        let vm = a.cpu.vm().clone();
        let page = vm.new_page(&mut a.cpu).expect("memory");
        page.write(&mut a.cpu, 0, &33u64.to_le_bytes());
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        let inserted = space.insert_page(&mut a.cpu, VirtAddr::new(0), &page);
        let (seen, b) = running.join();
        reach(if inserted.is_ok() { "inserted" } else { "hole" });
        assert!(inserted.is_ok() || inserted == Err(InsertError::Exists(VirtAddr::new(0))), "{inserted:?}");
        assert_eq!(seen, Some(if inserted.is_ok() { 33 } else { 0 }));
        assert_eq!(a.read(&space, 0, 0), seen);
        drop(page);
        world.audit([a, b], &[&space], &[]);
    }
}
