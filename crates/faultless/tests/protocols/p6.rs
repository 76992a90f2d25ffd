//! P6: fork freezes the root slots, waits for the faults of its space, flushes, shares, thaws. The child has what the
//! parent had at one moment, and neither sees a later store of the other.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;

/// A space with two pages and its CPUs.
fn parent<const CPUS: usize>() -> (World<Two>, [Worker<Two>; CPUS], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<CPUS>(40);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    (world, workers, space)
}

/// `b` stores 5 and then 6 to page 0 while `a` forks. The child shows one of the three states, for good.
fn fork_against_stores((world, [mut a, mut b], space): (World<Two>, [Worker<Two>; 2], Space<Two>), before: u64) {
    let other = space.clone();
    let running = spawn(move || {
        assert!(b.write(&other, 0, 0, 5));
        assert_eq!(b.read(&other, 0, 0), Some(5), "lost store");
        assert!(b.write(&other, 0, 0, 6));
        b
    });
    let child = a.fork(&space);
    let seen = a.inspect(&child, 0, 0);
    match seen {
        Some(5) => reach("between"),
        Some(6) => reach("after"),
        _ => reach("before"),
    }
    let b = running.join();
    assert!(seen == Some(before) || seen == Some(5) || seen == Some(6), "{seen:?}");
    assert_eq!(a.inspect(&child, 0, 0), seen, "a store of the parent reached the child");
    assert_eq!(a.read(&space, 0, 0), Some(6), "the parent lost its store");
    assert!(a.store(&child, 0, 0, 9));
    assert_eq!((a.read(&space, 0, 0), a.inspect(&child, 0, 0)), (Some(6), Some(9)), "isolation");
    world.audit([a, b], &[&space, &child], &[]);
}

scenario! {
    /// First touch in the parent; the leaf table is there.
    touch_table_present (2, 4)
    reaches ["before", "between", "after"]
    catches [NoForkGrace, NoForkFlush]
    {
        let (world, [mut a, b], space) = parent();
        assert!(a.write(&space, 1, 0, 1));
        fork_against_stores((world, [a, b], space), 0);
    }
}

scenario! {
    /// First touch in the parent; the root is empty.
    touch_root_empty (2, 4)
    reaches ["before", "between", "after"]
    catches [NoFreeze]
    { fork_against_stores(parent(), 0) }
}

scenario! {
    /// The page is there and writable: hardware stores to it until the flush.
    hardware_stores (3, 5)
    reaches ["before", "between", "after"]
    catches [NoForkFlush]
    {
        let (world, [mut a, mut b], space) = parent();
        assert!(b.write(&space, 0, 0, 1));
        assert_eq!(a.read(&space, 0, 0), Some(1));
        fork_against_stores((world, [a, b], space), 1);
    }
}

scenario! {
    /// Two sections in a row: a fork that waits for the first may see the beginning of the second instead of its end.
    two_sections (3, 4)
    catches [RelaxedSectionEnd, RelaxedSectionEnter, NoForkGrace]
    {
        let (world, [mut a, mut b], space) = parent();
        assert!(a.write(&space, 1, 0, 1));
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.fault(&other, 0, Access::Write));
            b.look_up(&other, 1);
            b
        });
        let child = a.fork(&space);
        assert!(a.store(&child, 1, 0, 9), "the child copies the leaf table");
        let b = running.join();
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 1, 0)), (Some(0), Some(9)));
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The page must be copied: another space has it too.
    cow (2, 3)
    reaches ["before", "after"]
    {
        let (world, [mut a, mut b], space) = parent();
        let holder = a.hold(&space, 0, 1);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 6));
            b
        });
        let child = a.fork(&space);
        assert!(a.store(&child, 1, 1, 9), "the child copies the leaf table");
        let seen = a.inspect(&child, 0, 1);
        reach(if seen == Some(0) { "before" } else { "after" });
        let b = running.join();
        assert!(seen == Some(0) || seen == Some(6));
        assert_eq!(a.inspect(&child, 0, 1), seen, "a store of the parent reached the child");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(6)), "lost store");
        assert_eq!(a.read(&space, 1, 1), Some(0), "a store of the child reached the parent");
        assert_eq!(a.inspect(&holder, 0, 1), Some(0), "a store reached the holder");
        world.audit([a, b], &[&space, &child, &holder], &[]);
    }
}

scenario! {
    /// The page may be reused: nobody else has it any more. The child copies the table at once.
    reuse (3, 4)
    reaches ["before", "after"]
    catches [NoForkGrace]
    {
        let (world, [mut a, mut b], space) = parent();
        let holder = a.hold(&space, 0, 1);
        a.exit(&holder);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 6));
            b
        });
        let child = a.fork(&space);
        assert!(a.store(&child, 1, 1, 9), "the child copies the leaf table");
        let seen = a.inspect(&child, 0, 1);
        reach(if seen == Some(0) { "before" } else { "after" });
        let b = running.join();
        assert!(seen == Some(0) || seen == Some(6));
        assert_eq!(a.inspect(&child, 0, 1), seen, "a store of the parent reached the child");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(6)), "lost store");
        assert_eq!(a.read(&space, 1, 1), Some(0), "a store of the child reached the parent");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The root entry says SHARED but nobody else names the table: a fault takes it back while another fork begins.
    take_exclusive (3, 4)
    reaches ["before", "after"]
    catches [ForkWithoutLock]
    {
        let (world, [mut a, mut b], space) = parent();
        assert!(a.write(&space, 0, 0, 1));
        let first = a.fork(&space);
        a.exit(&first);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 5));
            b
        });
        let child = a.fork(&space);
        let seen = a.inspect(&child, 0, 0);
        reach(if seen == Some(1) { "before" } else { "after" });
        let b = running.join();
        assert!(seen == Some(1) || seen == Some(5));
        assert_eq!(a.inspect(&child, 0, 0), seen, "a store of the parent reached the child");
        assert_eq!(a.read(&space, 0, 0), Some(5), "the parent lost its store");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// Two spaces that share a table fork at the same time.
    fork_fork (4, 6)
    {
        let (world, [mut a, mut b], space) = parent();
        b.leave(&space);
        assert!(a.write(&space, 0, 0, 1));
        let sibling = a.fork(&space);
        let other = sibling.clone();
        let running = spawn(move || {
            let nephew = b.fork(&other);
            (nephew, b)
        });
        let child = a.fork(&space);
        let (nephew, mut b) = running.join();
        assert!(a.write(&space, 0, 0, 2) && b.store(&sibling, 0, 0, 3) && b.store(&nephew, 0, 0, 4));
        assert_eq!((a.read(&space, 0, 0), a.inspect(&child, 0, 0)), (Some(2), Some(1)), "isolation");
        assert_eq!((a.inspect(&sibling, 0, 0), a.inspect(&nephew, 0, 0)), (Some(3), Some(4)), "isolation");
        world.audit([a, b], &[&space, &sibling, &child, &nephew], &[]);
    }
}

scenario! {
    /// A space forks while another that shares its tables copies them.
    unshare_in_other_space (3, 5)
    {
        let (world, [mut a, mut b], space) = parent();
        b.leave(&space);
        assert!(a.write(&space, 0, 0, 1));
        let sibling = a.fork(&space);
        b.run(&sibling);
        let other = sibling.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        let child = a.fork(&space);
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(1), Some(0)));
        let mut b = running.join();
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(1), Some(0)), "isolation");
        assert_eq!((b.read(&sibling, 0, 0), b.read(&sibling, 0, 1)), (Some(1), Some(22)), "lost store");
        world.audit([a, b], &[&space, &sibling, &child], &[]);
    }
}

scenario! {
    /// A space forks again while one of its own threads copies what the first fork shared.
    unshare_in_same_space (2, 4)
    {
        let (world, [mut a, mut b], space) = parent();
        assert!(a.write(&space, 0, 0, 1));
        let sibling = a.fork(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        let child = a.fork(&space);
        let seen = a.inspect(&child, 0, 1);
        let b = running.join();
        assert!(seen == Some(0) || seen == Some(22));
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(1), seen), "isolation");
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(1), Some(22)), "lost store");
        assert_eq!((a.inspect(&sibling, 0, 0), a.inspect(&sibling, 0, 1)), (Some(1), Some(0)), "isolation");
        world.audit([a, b], &[&space, &sibling, &child], &[]);
    }
}
