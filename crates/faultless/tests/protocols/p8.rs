//! P8: what was unlinked is freed only when every section that might still stand in it has ended.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;
type Three = X86<3, 1, 2>;

/// A space with all of its first table's pages mapped; page 1 is touched if `touched`.
fn mapped<F: faultless::machine::Format, const CPUS: usize>(touched: bool) -> (World<F>, [Worker<F>; CPUS], Space<F>) {
    let (world, mut workers) = World::<F>::new::<CPUS>(40);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert!(!touched || workers[0].write(&space, 1, 0, 1));
    (world, workers, space)
}

/// Reads page 1, which holds a 1, through the tables of a space that is going.
fn look_from_outside(worker: &mut Worker<Two>, space: &Space<Two>) {
    let seen = worker.inspect(space, 1, 0);
    assert!(seen.is_none() || seen == Some(1), "{seen:?}: contents of a frame that is somebody else's");
    reach(if seen.is_some() { "seen" } else { "gone" });
}

/// `b` touches page 0 while `a` unmaps everything, frees what it can, and at once uses the frames for a new mapping.
fn touch_against_reuse<F: faultless::machine::Format>(
    (world, [mut a, mut b], space): (World<F>, [Worker<F>; 2], Space<F>),
) {
    let other = space.clone();
    let running = spawn(move || (b.write(&other, 0, 0, 7), b));
    a.unmap(&space, 0, 2);
    a.assert_gone(&space, 0);
    reach(if a.cpu.collect() { "freed at once" } else { "kept back" });
    a.map(&space, 2, 2, rw());
    for page in [2, 3] {
        assert!(a.write(&space, page, 0, 90 + page));
    }
    for page in [2, 3] {
        assert_eq!((a.read(&space, page, 0), a.read(&space, page, 1)), (Some(90 + page), Some(0)), "corrupted");
    }
    let (stored, b) = running.join();
    reach(if stored { "stored before" } else { "signal" });
    for page in [2, 3] {
        assert_eq!((a.read(&space, page, 0), a.read(&space, page, 1)), (Some(90 + page), Some(0)), "corrupted");
    }
    a.assert_gone(&space, 0);
    world.audit([a, b], &[&space], &[]);
}

scenario! {
    /// The leaf table is freed and its frame re-used.
    table_reused (3, 4)
    reaches ["freed at once", "kept back", "signal"]
    holds_with [NeverQuiet]
    catches [NoEpoch, NoSectionFence]
    { touch_against_reuse(mapped::<Two, 2>(true)) }
}

scenario! {
    /// There was no table, and the fault may link one behind the sweep.
    stray_table (3, 4)
    reaches ["freed at once", "kept back"]
    holds_with [NeverQuiet]
    catches [NoUpperStamp]
    { touch_against_reuse(mapped::<Two, 2>(false)) }
}

scenario! {
    /// The same with a level between: the fault may link a table below one that has left.
    stray_table_three_levels (2, 3)
    holds_with [NeverQuiet]
    {
        let (world, [mut a, mut b], space) = mapped::<Three, 2>(true);
        a.map(&space, 2, 2, rw());
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 3, 0, 7), b));
        a.unmap(&space, 0, 4); // the upper table goes, with the leaf table of pages 0 and 1
        a.assert_gone(&space, 3);
        a.cpu.collect();
        let (stored, b) = running.join();
        reach(if stored { "stored before" } else { "signal" });
        a.assert_gone(&space, 3);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Areas and index nodes are freed while a fault may look at them; more than the bags hold, so retiring has to wait.
    area_freed (2, 3)
    catches [NoEpoch]
    {
        let (world, [mut a, mut b], space) = mapped::<Two, 2>(true);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.fault(&other, 1, Access::Write));
            b
        });
        for _ in 0..2 {
            a.protect(&space, 0, 1, RO);
            a.protect(&space, 0, 1, rw());
            a.cpu.collect();
        }
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// An access from outside, through the space's tables, while the page is unmapped and its frame used anew.
    remote_read (3, 5)
    reaches ["seen", "gone"]
    {
        let (world, [mut a, mut b], space) = mapped::<Two, 2>(true);
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || {
            look_from_outside(&mut b, &other);
            b
        });
        a.unmap(&space, 0, 2);
        a.cpu.collect();
        a.map(&space, 2, 2, rw());
        assert!(a.write(&space, 2, 0, 99) && a.write(&space, 3, 0, 99));
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A store from outside: it lands in the old mapping or nowhere.
    remote_store (3, 4)
    {
        let (world, [mut a, mut b], space) = mapped::<Two, 2>(true);
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || {
            b.store(&other, 1, 0, 7);
            b
        });
        a.unmap(&space, 0, 2);
        a.cpu.collect();
        a.map(&space, 2, 2, rw());
        assert!(a.write(&space, 2, 1, 99) && a.write(&space, 3, 1, 99));
        let b = running.join();
        for page in [2, 3] {
            assert_eq!((a.read(&space, page, 0), a.read(&space, page, 1)), (Some(0), Some(99)), "corrupted");
        }
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The space exits while somebody reads it from outside.
    exit_against_remote (3, 5)
    reaches ["seen", "gone"]
    {
        let (world, [mut a, mut b], space) = mapped::<Two, 2>(true);
        a.leave(&space);
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || {
            look_from_outside(&mut b, &other);
            b
        });
        a.exit(&space);
        a.cpu.collect();
        let next = a.space();
        a.map(&next, 0, 2, rw());
        assert!(a.store(&next, 0, 0, 99) && a.store(&next, 1, 0, 99));
        let b = running.join();
        world.audit([a, b], &[&next], &[]);
    }
}
