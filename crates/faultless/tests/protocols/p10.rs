//! P10: pages are discarded, and noted as free to be taken, while faults and stores go on in areas that stay: what was
//! there before is not seen again, and a store that comes later is neither lost nor unnoticed.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;
/// Three bits: no wrap guard has anybody wait.
type Wide = X86<2, 1, 3>;
/// One bit: each narrowing meets the wrap guard.
type OneBit = X86<2, 1, 1>;

/// Pages 0 (contents 5, 0) and 1 (contents 1, 0), known to both CPUs' MMUs.
fn mapped() -> (World<Two>, [Worker<Two>; 2], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert!(workers[0].write(&space, 0, 0, 5) && workers[0].write(&space, 1, 0, 1));
    for worker in &mut workers {
        assert_eq!((worker.read(&space, 0, 0), worker.write(&space, 0, 1, 0)), (Some(5), true));
    }
    (world, workers, space)
}

/// A private mapping of an object's page, which begins with 33 and is mapped.
fn of_object<F: faultless::machine::Format>() -> (World<F>, [Worker<F>; 2], Space<F>, Backed<F>) {
    let (world, mut workers) = World::<F>::new::<2>(40);
    let object = workers[0].object(1, 33);
    let space = workers[0].space();
    workers[0].map_object(&space, 0, 1, rw(), Sharing::Private, &object, 0);
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert_eq!(workers[0].read(&space, 0, 0), Some(33));
    (world, workers, space, object)
}

scenario! {
    /// The other CPU stores through its TLB: the store is in the old page, and gone with it, or in the new one.
    store (3, 5)
    reaches ["before", "after"]
    catches [NoShootdown, FreeBeforeFlush]
    {
        let (world, [mut a, mut b], space) = mapped();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 1);
        assert_eq!(a.read(&space, 0, 0), Some(0), "a discarded page");
        let seen = a.read(&space, 0, 1);
        let b = running.join();
        let last = a.read(&space, 0, 1);
        assert!(last == Some(7) || last == Some(0) && seen == last, "lost store: {seen:?}, then {last:?}");
        reach(if last == Some(7) { "after" } else { "before" });
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The store has to copy: the discard meets the page, the copy that waits for a flush, or the copy made writable.
    cow (3, 4)
    reaches ["before", "after"]
    catches [SweepByStore]
    {
        let (world, [mut a, mut b], space) = mapped();
        let holder = a.hold(&space, 0, 1);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 1);
        assert_eq!(a.read(&space, 0, 0), Some(0), "a discarded page, or a copy of it");
        let b = running.join();
        let last = a.read(&space, 0, 1);
        reach(if last == Some(7) { "after" } else { "before" });
        assert!(last == Some(7) || last == Some(0), "{last:?}");
        assert_eq!((a.read(&space, 0, 0), a.inspect(&holder, 0, 0)), (Some(0), Some(5)));
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// A store begins to copy an object's page; it is discarded, changed, and mapped anew by the very same frame: the old
    /// copy must not come in.
    copy_of_object (3, 4)
    reaches ["copied before", "new"]
    catches [NoGenerationBump, AlwaysQuiet]
    {
        let (world, [mut a, mut b], space, object) = of_object::<Two>();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 1);
        a.write_object(&object, 0, 0, 44);
        let seen = a.read(&space, 0, 0);
        let b = running.join();
        reach(if seen == Some(44) { "new" } else { "copied before" });
        assert!(seen == Some(33) || seen == Some(44), "{seen:?}");
        assert_eq!(a.read(&space, 0, 0), seen, "went back");
        let stored = a.read(&space, 0, 1);
        assert!(stored == Some(7) || stored == Some(0) && seen == Some(44), "lost store: {stored:?}");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// The same with one bit of generation and two discards: it comes round, but not within one section.
    generation_comes_round (2, 3)
    reaches ["new"]
    catches [NoWrapGuard]
    {
        let (world, [mut a, mut b], space, object) = of_object::<OneBit>();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 1);
        a.read(&space, 0, 0);
        a.discard(&space, 0, 1);
        a.write_object(&object, 0, 0, 44);
        let seen = a.read(&space, 0, 0);
        let b = running.join();
        if seen == Some(44) {
            reach("new");
        }
        assert_eq!(a.read(&space, 0, 0), seen, "went back");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// First touch: what a fault found EMPTY may be filled although it was discarded meanwhile, for zeroes are zeroes.
    touch (4, 5)
    {
        let (world, [mut a, mut b], space) = mapped();
        a.discard(&space, 0, 1);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 2);
        let seen = a.read(&space, 0, 1);
        let b = running.join();
        let last = a.read(&space, 0, 1);
        assert!(last == Some(7) || last == Some(0) && seen == last, "lost store: {seen:?}, then {last:?}");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(0), Some(0)));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A whole table that a child shares is given up while a fault copies it: one of the two comes first.
    shared_table (2, 4)
    reaches ["before", "after"]
    {
        let (world, [mut a, mut b], space) = mapped();
        let child = a.fork(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.discard(&space, 0, 2);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(0), Some(0)), "discarded pages");
        let b = running.join();
        let last = a.read(&space, 0, 1);
        reach(if last == Some(7) { "after" } else { "before" });
        assert!(last == Some(7) || last == Some(0), "{last:?}");
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(5), Some(0)), "isolation");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The child of a fork has what was there before, or nothing.
    fork (3, 4)
    reaches ["before", "after"]
    {
        let (world, [mut a, mut b], space) = mapped();
        let other = space.clone();
        let running = spawn(move || (b.fork(&other), b));
        a.discard(&space, 0, 1);
        assert_eq!(a.read(&space, 0, 0), Some(0), "a discarded page");
        let (child, b) = running.join();
        let seen = a.inspect(&child, 0, 0);
        reach(if seen == Some(5) { "before" } else { "after" });
        assert!(seen == Some(5) || seen == Some(0), "{seen:?}");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The page is noted as free while the other CPU stores to it: a store that comes later is seen.
    free (4, 6)
    reaches ["after"]
    catches [CleanWithoutFlush, NoShootdown]
    {
        let (world, [mut a, mut b], space) = mapped();
        let flag = Flag::new();
        let (other, heard) = (space.clone(), flag.clone());
        let running = spawn(move || {
            let is_later = heard.is_raised();
            assert!(b.write(&other, 0, 1, 7));
            (is_later, b)
        });
        a.free_lazily(&space, 0, 1);
        flag.raise();
        let (is_later, b) = running.join();
        if is_later {
            reach("after");
            assert!(a.entry(&space, 0).is_some_and(|entry| entry.dirty), "a store to free memory that nobody notices");
        }
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The same with a store from outside, which sets the dirty bit itself.
    free_and_remote_store (4, 6)
    reaches ["after"]
    catches [MarkOnlyBefore]
    {
        let (world, [mut a, mut b], space) = mapped();
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.store(&other, 0, 1, 7));
            b
        });
        a.free_lazily(&space, 0, 1);
        let seen = a.read(&space, 0, 1);
        let b = running.join();
        if seen == Some(0) {
            reach("after");
            assert!(a.entry(&space, 0).is_some_and(|entry| entry.dirty), "a store to free memory that nobody notices");
        }
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A store copies the page meanwhile: the copy is made whole, and dirty.
    free_and_cow (3, 4)
    {
        let (world, [mut a, mut b], space) = mapped();
        let holder = a.hold(&space, 0, 1);
        let flag = Flag::new();
        let (other, heard) = (space.clone(), flag.clone());
        let running = spawn(move || {
            let is_later = heard.is_raised();
            assert!(b.write(&other, 0, 1, 7));
            (is_later, b)
        });
        a.free_lazily(&space, 0, 1);
        flag.raise();
        let (is_later, b) = running.join();
        assert!(!is_later || a.entry(&space, 0).is_some_and(|entry| entry.dirty), "a store that nobody notices");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)));
        assert_eq!((a.inspect(&holder, 0, 0), a.inspect(&holder, 0, 1)), (Some(5), Some(0)), "isolation");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// A debugger looks at a page without rights while it is unmapped: there is what was stored, or nothing.
    look_and_unmap (3, 5)
    reaches ["before", "gone"]
    catches [ShowDead]
    {
        let (world, mut workers) = World::<Wide>::new::<2>(40);
        let space = workers[0].space();
        workers[0].map(&space, 0, 2, rw());
        workers.iter_mut().for_each(|worker| worker.run(&space));
        let [mut a, mut b] = workers;
        assert!(a.write(&space, 0, 0, 5) && a.write(&space, 1, 0, 6));
        a.protect(&space, 0, 1, Rights::NONE);
        let other = space.clone();
        let running = spawn(move || (b.read_forced(&other, 0), b));
        a.unmap(&space, 0, 1);
        let (seen, b) = running.join();
        reach(if seen.is_some() { "before" } else { "gone" });
        assert!(seen == Some(5) || seen.is_none(), "{seen:?}");
        world.audit([a, b], &[&space], &[]);
    }
}
