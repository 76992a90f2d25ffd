//! P1: a first touch is one compare-exchange. Against another one, and against range operations that end meanwhile.

use crate::model::*;
use crate::scenario;
use faultless::machine::Format;

type Two = X86<2, 1, 2>;

/// Two pages of the same leaf table, of which only page 1 has been touched, so that the table is there.
fn with_table<const CPUS: usize>() -> (World<Two>, [Worker<Two>; CPUS], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<CPUS>(32);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert!(workers[0].write(&space, 1, 0, 1));
    (world, workers, space)
}

/// The same without the table: nothing was ever touched.
fn untouched<const CPUS: usize>() -> (World<Two>, [Worker<Two>; CPUS], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<CPUS>(32);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    (world, workers, space)
}

/// `b` stores to page 0 while `a` unmaps `count` pages from 0 on and maps them again, read-only. The store lands in the
/// old mapping or nowhere.
pub fn touch_against_remap<F: Format>(
    (world, [mut a, mut b], space): (World<F>, [Worker<F>; 2], Space<F>),
    count: u64,
) {
    let other = space.clone();
    let running = spawn(move || (b.write(&other, 0, 0, 7), b));
    a.unmap(&space, 0, count);
    a.assert_gone(&space, 0);
    a.map(&space, 0, count, RO);
    assert_eq!(a.read(&space, 0, 0), Some(0), "the new mapping shows the old page");
    let (stored, b) = running.join();
    reach(if stored { "stored before" } else { "signal" });
    assert_eq!(a.read(&space, 0, 0), Some(0), "the read-only mapping was written");
    a.assert_read_only(&space, 0);
    world.audit([a, b], &[&space], &[]);
}

scenario! {
    /// Two CPUs store to the same untouched page: one install wins, no store is lost.
    touch_touch (4, 6)
    catches [RelaxedInstall]
    {
        let (world, [mut a, mut b], space) = untouched();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        assert!(a.write(&space, 0, 0, 11));
        let b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(11), Some(22)), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A reader maps the zero frame while a writer maps a page.
    read_touch (4, 6)
    {
        let (world, [mut a, mut b], space) = untouched();
        let other = space.clone();
        let running = spawn(move || {
            let seen = b.read(&other, 0, 0).expect("mapped");
            assert!(seen == 0 || seen == 11);
            b
        });
        assert!(a.write(&space, 0, 0, 11));
        let mut b = running.join();
        assert_eq!((a.read(&space, 0, 0), b.read(&space, 0, 0)), (Some(11), Some(11)), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The leaf table exists and stays.
    remap_table_kept (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, DeadCheckFirst, NoStamp, AlwaysQuiet, NoSectionFence, RelaxedEntryLoad, NoShootdown]
    { touch_against_remap(with_table(), 1) }
}

scenario! {
    /// There is no leaf table: the sweep meets an empty upper entry.
    remap_table_absent (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, DeadCheckFirst, NoUpperStamp, AlwaysQuiet]
    { touch_against_remap(untouched(), 2) }
}

scenario! {
    /// The leaf table goes with the mapping.
    remap_table_freed (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, NoStamp, AlwaysQuiet]
    { touch_against_remap(with_table(), 2) }
}

scenario! {
    /// Two faults of the same dead area, one of which may run long after the other.
    two_stale_faults (2, 3)
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, NoStamp, AlwaysQuiet]
    {
        let (world, [mut a, mut b, mut c], space) = with_table();
        let (first, second) = (space.clone(), space.clone());
        let running = spawn(move || {
            b.fault(&first, 0, Access::Write);
            b
        });
        let third = spawn(move || {
            c.fault(&second, 0, Access::Write);
            c
        });
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        let (b, c) = (running.join(), third.join());
        a.assert_gone(&space, 0);
        world.audit([a, b, c], &[&space], &[]);
    }
}

scenario! {
    /// First touch against mprotect to read-only.
    touch_protect (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, DeadCheckFirst, NoStamp, AlwaysQuiet, NoShootdown]
    {
        let (world, [mut a, mut b], space) = with_table();
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 0, 0, 7), b));
        a.protect(&space, 0, 1, RO);
        a.assert_read_only(&space, 0);
        let seen = a.read(&space, 0, 0);
        let (stored, b) = running.join();
        reach(if stored { "stored before" } else { "signal" });
        assert_eq!(seen, Some(if stored { 7 } else { 0 }), "stored after mprotect returned");
        assert_eq!(a.read(&space, 0, 0), seen, "stored after mprotect returned");
        a.assert_read_only(&space, 0);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// First touch against mprotect to no access, and back.
    touch_protect_none (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, NoStamp, AlwaysQuiet, NoShootdown]
    {
        let (world, [mut a, mut b], space) = with_table();
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 0, 0, 7), b));
        a.protect(&space, 0, 1, Rights::NONE);
        a.assert_gone(&space, 0);
        assert_eq!(a.read(&space, 0, 0), None);
        let (stored, b) = running.join();
        reach(if stored { "stored before" } else { "signal" });
        a.assert_gone(&space, 0);
        a.protect(&space, 0, 1, RO);
        assert_eq!(a.read(&space, 0, 0), Some(if stored { 7 } else { 0 }), "the page is not the same");
        a.assert_read_only(&space, 0);
        world.audit([a, b], &[&space], &[]);
    }
}
