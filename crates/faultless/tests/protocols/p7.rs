//! P7: the first change below a shared table copies it, or takes it back if nobody else names it.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;
type Three = X86<3, 1, 2>;

/// Two spaces that share a table with two pages, holding 1 and 1; `a` runs the first, `b` the second.
fn sharers<F: faultless::machine::Format, const CPUS: usize>() -> (World<F>, [Worker<F>; CPUS], [Space<F>; 2]) {
    let (world, mut workers) = World::<F>::new::<CPUS>(48);
    let first = workers[0].space();
    workers[0].map(&first, 0, 2, rw());
    workers[0].run(&first);
    assert!(workers[0].write(&first, 0, 0, 1) && workers[0].write(&first, 1, 0, 1));
    let second = workers[0].fork(&first);
    workers[1].run(&second);
    (world, workers, [first, second])
}

/// Both spaces store to page 0; each keeps its own.
fn both_store<F: faultless::machine::Format>() {
    let (world, [mut a, mut b], [first, second]) = sharers::<F, 2>();
    let other = second.clone();
    let running = spawn(move || {
        assert!(b.write(&other, 0, 1, 22));
        b
    });
    assert!(a.write(&first, 0, 0, 11));
    let mut b = running.join();
    assert_eq!((a.read(&first, 0, 0), a.read(&first, 0, 1)), (Some(11), Some(0)), "lost store, or isolation");
    assert_eq!((b.read(&second, 0, 0), b.read(&second, 0, 1)), (Some(1), Some(22)), "lost store, or isolation");
    world.audit([a, b], &[&first, &second], &[]);
}

scenario! {
    /// Two spaces copy the same table.
    two_spaces (3, 4)
    { both_store::<Two>() }
}

scenario! {
    /// Two spaces copy the same path of two tables.
    two_spaces_three_levels (2, 3)
    { both_store::<Three>() }
}

scenario! {
    /// One space copies through page 1, the other stores to page 0: the first must keep its page 0.
    exclusive_is_cleared (3, 4)
    catches [CopyKeepsExclusive]
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        let other = second.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 22));
            b
        });
        assert!(a.write(&first, 1, 0, 11));
        assert_eq!(a.read(&first, 0, 0), Some(1), "isolation");
        let mut b = running.join();
        assert_eq!((a.read(&first, 0, 0), a.read(&first, 1, 0)), (Some(1), Some(11)), "isolation");
        assert_eq!((b.read(&second, 0, 0), b.read(&second, 1, 0)), (Some(22), Some(1)), "isolation");
        world.audit([a, b], &[&first, &second], &[]);
    }
}

scenario! {
    /// One space copies while the other reads through the shared table.
    reader (4, 6)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        let other = second.clone();
        let running = spawn(move || {
            assert_eq!((b.read(&other, 0, 0), b.read(&other, 1, 0)), (Some(1), Some(1)));
            b
        });
        assert!(a.write(&first, 0, 0, 11));
        let b = running.join();
        world.audit([a, b], &[&first, &second], &[]);
    }
}

scenario! {
    /// Two CPUs of one space change the same shared table while the other sharer exits: copy or take back, by a count
    /// that falls meanwhile.
    same_space_and_exit (2, 3)
    {
        let (world, [mut a, mut b, mut c], [first, second]) = sharers::<Two, 3>();
        b.leave(&second);
        b.run(&first);
        let other = first.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        let leaving = spawn(move || {
            c.exit(&second);
            c
        });
        assert!(a.write(&first, 0, 0, 11));
        let (b, c) = (running.join(), leaving.join());
        assert_eq!((a.read(&first, 0, 0), a.read(&first, 0, 1)), (Some(11), Some(22)), "lost store");
        assert_eq!(a.read(&first, 1, 0), Some(1));
        world.audit([a, b, c], &[&first], &[]);
    }
}

scenario! {
    /// One space takes back or copies while the other exits.
    exit (4, 6)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        b.leave(&second);
        let leaving = spawn(move || {
            b.exit(&second);
            b
        });
        assert!(a.write(&first, 0, 0, 11));
        let b = leaving.join();
        assert_eq!((a.read(&first, 0, 0), a.read(&first, 1, 0)), (Some(11), Some(1)), "lost store");
        world.audit([a, b], &[&first], &[]);
    }
}

scenario! {
    /// The other space copies, so that its share falls away, while this one takes the table back and changes it in
    /// place: the copy must be complete by then.
    copy_against_take (3, 4)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        let other = second.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 1, 0, 22));
            assert_eq!(b.read(&other, 0, 0), Some(1), "isolation");
            b
        });
        assert!(a.write(&first, 0, 0, 11) && a.write(&first, 0, 0, 12));
        let mut b = running.join();
        assert_eq!((b.read(&second, 0, 0), b.read(&second, 1, 0)), (Some(1), Some(22)), "isolation");
        assert_eq!((a.read(&first, 0, 0), a.read(&first, 1, 0)), (Some(12), Some(1)), "isolation");
        world.audit([a, b], &[&first, &second], &[]);
    }
}

scenario! {
    /// A CPU of the space that let go of a table still walks through it by its walk cache; the last sharer changes the
    /// table in place only after that cache was flushed.
    stale_walk (2, 3)
    catches [DropBeforeFlush]
    {
        let (world, [mut a, mut b, mut c], [first, second]) = sharers::<Two, 3>();
        c.run(&first);
        assert_eq!(c.read(&first, 1, 0), Some(1)); // caches the walk to the shared table, not page 0
        let other = second.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 666));
            b
        });
        let walking = spawn(move || {
            assert!(c.peek(0, 0) != Some(666), "another space's page seen through a stale walk cache");
            c
        });
        assert!(a.write(&first, 1, 0, 2)); // copies the table
        let (b, c) = (running.join(), walking.join());
        world.audit([a, b, c], &[&first, &second], &[]);
    }
}

scenario! {
    /// munmap of a whole shared table against a store of the other sharer.
    unmap_whole (3, 5)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        let other = second.clone();
        let running = spawn(move || {
            b.unmap(&other, 0, 2);
            b.assert_gone(&other, 0);
            b
        });
        assert!(a.write(&first, 0, 0, 11));
        let mut b = running.join();
        assert_eq!((a.read(&first, 0, 0), a.read(&first, 1, 0)), (Some(11), Some(1)), "lost store");
        assert_eq!(b.read(&second, 0, 0), None);
        world.audit([a, b], &[&first, &second], &[]);
    }
}

scenario! {
    /// munmap of half of a shared table against a store of the same space to the other half.
    unmap_part (3, 4)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        b.leave(&second);
        b.run(&first);
        let other = first.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 1, 0, 7));
            b
        });
        a.unmap(&first, 0, 1);
        a.assert_gone(&first, 0);
        let b = running.join();
        assert_eq!(a.read(&first, 1, 0), Some(7), "lost store");
        assert_eq!((a.inspect(&second, 0, 0), a.inspect(&second, 1, 0)), (Some(1), Some(1)), "isolation");
        world.audit([a, b], &[&first, &second], &[]);
    }
}

scenario! {
    /// mprotect of a page below a shared table against a store to it, while the other sharer exits.
    protect_shared (2, 3)
    reaches ["stored before", "signal"]
    {
        let (world, [mut a, mut b, mut c], [first, second]) = sharers::<Two, 3>();
        b.leave(&second);
        b.run(&first);
        let other = first.clone();
        let running = spawn(move || (b.write(&other, 0, 0, 5), b));
        let leaving = spawn(move || {
            c.exit(&second);
            c
        });
        a.protect(&first, 0, 1, RO);
        a.assert_read_only(&first, 0);
        let seen = a.read(&first, 0, 0);
        let ((stored, b), c) = (running.join(), leaving.join());
        reach(if stored { "stored before" } else { "signal" });
        assert_eq!(seen, Some(if stored { 5 } else { 1 }), "stored after mprotect returned");
        assert_eq!(a.read(&first, 0, 0), seen, "stored after mprotect returned");
        a.assert_read_only(&first, 0);
        world.audit([a, b, c], &[&first], &[]);
    }
}

scenario! {
    /// A fault is in the middle of its copy of a shared table when its own space unmaps the table and the other sharer
    /// exits: the last one to let go must not release what the copier is taking references to.
    copy_against_last_drop (3, 4)
    catches [TakeWithoutLock]
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Two, 2>();
        b.leave(&second);
        let other = first.clone();
        let running = spawn(move || {
            b.unmap(&other, 0, 2);
            b.exit(&second);
            b
        });
        a.write(&first, 0, 0, 11);
        let b = running.join();
        assert_eq!(a.read(&first, 0, 0), None);
        world.audit([a, b], &[&first], &[]);
    }
}

scenario! {
    /// The same with two levels of shared tables.
    copy_against_last_drop_three_levels (2, 3)
    {
        let (world, [mut a, mut b], [first, second]) = sharers::<Three, 2>();
        b.leave(&second);
        let other = first.clone();
        let running = spawn(move || {
            b.unmap(&other, 0, 2);
            b.exit(&second);
            b
        });
        a.write(&first, 0, 0, 11);
        let b = running.join();
        assert_eq!(a.read(&first, 0, 0), None);
        world.audit([a, b], &[&first], &[]);
    }
}
