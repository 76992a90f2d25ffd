//! P5: the index of areas changes by one store at a time; an address that is always mapped is always found, whatever
//! changes beside it or about its own area.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;
type Four = X86<2, 2, 2>;

scenario! {
    /// MAP_FIXED over memory in use: faults see the old mapping or the new one, never a hole; what is stored to the new
    /// one stays; what was stored to the old one is gone.
    map_fixed (3, 4)
    reaches ["old", "new"]
    holds_with [NeverQuiet]
    catches [NoPending, NoDeadCheck, AlwaysQuiet, NoStamp, RelaxedPublish]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(32);
        let space = a.space();
        let object = a.object(1, 100);
        a.map(&space, 0, 2, rw());
        a.run(&space);
        b.run(&space);
        assert!(a.write(&space, 1, 0, 1));
        let other = space.clone();
        let running = spawn(move || {
            let first = b.read(&other, 0, 0).expect("a hole during MAP_FIXED");
            assert!(b.write(&other, 0, 1, 7), "a hole during MAP_FIXED");
            let last = b.read(&other, 0, 1).expect("a hole during MAP_FIXED");
            (first, last, b)
        });
        a.map_object(&space, 0, 1, rw(), Sharing::Private, &object, 0);
        let (first, last, b) = running.join();
        if first == 100 {
            reach("new");
            assert_eq!((last, a.read(&space, 0, 1)), (7, Some(7)), "a store to the new mapping is lost");
        } else {
            reach("old");
        }
        assert_eq!(a.read(&space, 0, 0), Some(100), "an old page under the new mapping");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// The page was there before: the old page must go, and not be found under the new area.
    map_fixed_present (3, 4)
    holds_with [NeverQuiet]
    catches [NoShootdown, FreeBeforeFlush]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(32);
        let space = a.space();
        let object = a.object(1, 100);
        a.map(&space, 0, 2, rw());
        a.run(&space);
        b.run(&space);
        assert!(a.write(&space, 0, 0, 1));
        let other = space.clone();
        let running = spawn(move || {
            let first = b.read(&other, 0, 0).expect("a hole during MAP_FIXED");
            assert!(b.write(&other, 0, 1, 7), "a hole during MAP_FIXED");
            (first, b)
        });
        a.map_object(&space, 0, 1, rw(), Sharing::Private, &object, 0);
        let (first, b) = running.join();
        let last = a.read(&space, 0, 1);
        assert!(first == 1 || first == 100 && last == Some(7), "a store to the new mapping is lost");
        assert_eq!(a.read(&space, 0, 0), Some(100), "an old page under the new mapping");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// A page that is mapped all the time, in a tree of several nodes, while its neighbours are split off and merged.
    always_mapped (3, 4)
    catches [RelaxedPublish]
    {
        let (world, [mut a, mut b]) = World::<Four>::new::<2>(40);
        let space = a.space();
        for first in [0, 6, 9, 12] {
            a.map(&space, first, 2, rw());
        }
        a.map(&space, 2, 3, rw());
        a.run(&space);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 3, 0, 7), "an address that is always mapped was not found");
            assert_eq!(b.read(&other, 3, 0), Some(7), "lost store");
            b
        });
        a.protect(&space, 2, 1, RO);
        a.unmap(&space, 4, 1);
        a.protect(&space, 2, 1, rw());
        let b = running.join();
        assert_eq!(a.read(&space, 3, 0), Some(7), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// An area dies between the lookup and the verdict: the verdict of a dead area is none (hole 14).
    verdict_of_the_dead (4, 6)
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(32);
        let space = a.space();
        a.map(&space, 0, 1, RO);
        a.run(&space);
        b.run(&space);
        let flag = Flag::new();
        let (other, heard) = (space.clone(), flag.clone());
        let running = spawn(move || {
            let permitted = heard.is_raised();
            let stored = b.write(&other, 0, 0, 7);
            assert!(stored || !permitted, "a store was refused after mprotect had permitted it");
            (stored, b)
        });
        a.protect(&space, 0, 1, rw());
        flag.raise();
        let (stored, b) = running.join();
        assert_eq!(a.read(&space, 0, 0), Some(if stored { 7 } else { 0 }));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// An area stays as it is while its neighbours in the same leaf are replaced, trimmed, removed and inserted in place.
    beside_a_change_in_place (3, 4)
    {
        let (world, [mut a, mut b]) = World::<Four>::new::<2>(40);
        let space = a.space();
        for (first, pages) in [(0, 2), (3, 1), (5, 2)] {
            a.map(&space, first, pages, rw());
        }
        a.run(&space);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 3, 0, 7), "an address that is always mapped was not found");
            assert_eq!(b.read(&other, 3, 0), Some(7), "lost store");
            b
        });
        a.unmap(&space, 0, 1); // trimmed
        a.protect(&space, 5, 2, RO); // replaced
        a.unmap(&space, 1, 1); // removed
        a.map(&space, 1, 1, RO); // inserted where one was removed
        let b = running.join();
        assert_eq!(a.read(&space, 3, 0), Some(7), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// An area is replaced by another of the same range, by one that is larger, by one that is smaller: a page that all
    /// of them show is found in one of them.
    replaced_in_place (3, 4)
    catches [RelaxedPublish]
    {
        let (world, [mut a, mut b]) = World::<Four>::new::<2>(40);
        let space = a.space();
        a.map(&space, 2, 2, rw());
        a.run(&space);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.read(&other, 3, 0).is_some(), "neither the old area nor the new one was found");
            b
        });
        a.protect(&space, 2, 2, RO);
        a.map(&space, 1, 1, RO); // merges: grows downwards
        a.unmap(&space, 1, 1); // trimmed
        let b = running.join();
        assert_eq!(a.read(&space, 3, 0), Some(0));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// An area is split: both parts are found all the time, as the whole or as parts, though there is room in the leaf.
    split_and_merged (3, 4)
    catches [TwoStores, RelaxedPublish]
    {
        let (world, [mut a, mut b]) = World::<Four>::new::<2>(40);
        let space = a.space();
        a.map(&space, 1, 3, rw());
        a.run(&space);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.read(&other, 1, 0).is_some(), "the first part was not found");
            assert!(b.read(&other, 3, 0).is_some(), "the last part was not found");
            b
        });
        a.protect(&space, 1, 1, RO);
        a.protect(&space, 1, 1, rw());
        let b = running.join();
        assert_eq!(a.read(&space, 1, 0), Some(0));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// What was mapped before a fault began is found by it, though it was put into a leaf that is in use; and what was
    /// unmapped is not.
    inserted_in_place (3, 4)
    reaches ["inserted", "removed", "early"]
    {
        let (world, [mut a, mut b]) = World::<Four>::new::<2>(40);
        let space = a.space();
        a.map(&space, 3, 1, rw());
        a.map(&space, 6, 1, RO);
        a.run(&space);
        b.run(&space);
        let (inserted, removed) = (Flag::new(), Flag::new());
        let (other, has_come, has_gone) = (space.clone(), inserted.clone(), removed.clone());
        let running = spawn(move || {
            if has_gone.is_raised() {
                reach("removed");
                assert!(b.read(&other, 6, 0).is_none(), "an area was found after munmap had returned");
            } else if has_come.is_raised() {
                reach("inserted");
                assert!(b.read(&other, 1, 0).is_some(), "an area was not found though mmap had returned");
            } else {
                reach("early");
                b.read(&other, 1, 0);
            }
            b
        });
        a.map(&space, 1, 1, RO);
        inserted.raise();
        a.unmap(&space, 6, 1);
        removed.raise();
        let b = running.join();
        a.assert_gone(&space, 6);
        world.audit([a, b], &[&space], &[]);
    }
}
