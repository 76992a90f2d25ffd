//! P15: large pages. One entry stands for a table; splitting it changes nothing, collapsing copies.

use crate::model::*;
use crate::p1::touch_against_remap;
use crate::scenario;

/// Large pages are of two pages.
type Three = X86<3, 1, 2>;

/// Two large pages' worth of memory that gets them, nothing of which was touched.
fn untouched<const CPUS: usize>() -> (World<Three>, [Worker<Three>; CPUS], Space<Three>) {
    let (world, mut workers) = World::<Three>::new::<CPUS>(48);
    let space = workers[0].space();
    workers[0].make_large();
    workers[0].map(&space, 0, 4, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    (world, workers, space)
}

/// The same with the first large page there.
fn large<const CPUS: usize>() -> (World<Three>, [Worker<Three>; CPUS], Space<Three>) {
    let (world, mut workers, space) = untouched();
    assert!(workers[0].write(&space, 0, 0, 5));
    assert_eq!(world.vm.huge_entries(), 1);
    (world, workers, space)
}

/// The same memory in small pages.
fn small<const CPUS: usize>() -> (World<Three>, [Worker<Three>; CPUS], Space<Three>) {
    let (world, mut workers) = World::<Three>::new::<CPUS>(48);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    assert!(workers[0].write(&space, 0, 0, 5));
    (world, workers, space)
}

/// Both CPUs store to the pages 0 and 1, of which nothing is there yet.
fn touch_both((world, [mut a, mut b], space): (World<Three>, [Worker<Three>; 2], Space<Three>)) {
    let other = space.clone();
    let running = spawn(move || {
        assert!(b.write(&other, 1, 1, 22));
        b
    });
    assert!(a.write(&space, 0, 0, 11));
    let b = running.join();
    assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 1)), (Some(11), Some(22)), "lost store");
    world.audit([a, b], &[&space], &[]);
}

/// `a` collapses the pages 0 and 1 while `b` does `store`, which puts 7 into word 1 of `page`.
fn collapse_against(
    (world, [mut a, mut b], space): (World<Three>, [Worker<Three>; 2], Space<Three>),
    page: u64,
    store: fn(&mut Worker<Three>, &Space<Three>) -> bool,
) {
    let other = space.clone();
    let running = spawn(move || {
        assert!(store(&mut b, &other));
        b
    });
    if a.collapse(&space, 0, 2) {
        reach("collapsed");
    }
    let b = running.join();
    assert_eq!((a.read(&space, 0, 0), a.read(&space, page, 1)), (Some(5), Some(7)), "lost store");
    world.audit([a, b], &[&space], &[]);
}

scenario! {
    /// Two CPUs store to the same untouched large page.
    touch_touch (3, 4)
    { touch_both(untouched()) }
}

scenario! {
    /// A large page comes while its area goes, and another one with other rights takes the place.
    touch_remap (2, 3)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    catches [NoDeadCheck, NoUpperStamp, AlwaysQuiet, NoShootdown]
    {
        let (world, mut workers, space) = untouched::<2>();
        assert!(workers[0].write(&space, 2, 0, 1));
        touch_against_remap((world, workers, space), 2);
    }
}

scenario! {
    /// One page of a large page goes while the other is stored to.
    unmap_part (2, 3)
    catches [NoShootdown]
    {
        let (world, [mut a, mut b], space) = large();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7), "the neighbour stays");
            b
        });
        // Cached here, large as it is.
        assert_eq!(a.read(&space, 1, 0), Some(0));
        a.unmap(&space, 1, 1);
        a.assert_gone(&space, 1);
        let b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), Some(7)), "lost store");
        assert_eq!(a.read(&space, 1, 0), None);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A part goes before any page is there: the fault of the other must not put a large page over the hole.
    unmap_part_untouched (2, 3)
    {
        let (world, [mut a, mut b], space) = untouched();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        a.unmap(&space, 1, 1);
        a.assert_gone(&space, 1);
        let b = running.join();
        a.assert_gone(&space, 1);
        assert_eq!(a.read(&space, 0, 0), Some(7));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Parent and child, each on its CPU, store to the large page that they share.
    shared_store (2, 2)
    catches [CopyKeepsExclusive]
    {
        let (world, [mut a, mut b], space) = large();
        b.leave(&space);
        let child = a.fork(&space);
        b.run(&child);
        let other = child.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        assert!(a.write(&space, 0, 0, 8) && a.write(&space, 1, 1, 9));
        let mut b = running.join();
        assert_eq!((a.read(&space, 0, 0), b.read(&child, 0, 0)), (Some(8), Some(7)), "another's store");
        assert_eq!((a.read(&space, 1, 1), b.read(&child, 1, 1)), (Some(9), Some(0)), "another's store");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// Small pages become a large one while one of them is stored to.
    collapse_store (2, 3)
    reaches ["collapsed"]
    catches [NoCollapseFlush, NoCollapseClose]
    {
        let (world, mut workers, space) = small::<2>();
        assert_eq!(workers[1].read(&space, 0, 0), Some(5));
        collapse_against((world, workers, space), 0, |b, space| b.write(space, 0, 1, 7));
    }
}

scenario! {
    /// The same with a first touch of a page beside.
    collapse_touch (2, 3)
    reaches ["collapsed"]
    catches [NoCollapseClose]
    { collapse_against(small(), 1, |b, space| b.write(space, 1, 1, 7)) }
}

scenario! {
    /// The same with a store from outside, which asks no area and no TLB.
    collapse_access (2, 3)
    reaches ["collapsed"]
    catches [NoCollapseWait]
    {
        let (world, mut workers, space) = small::<2>();
        workers[1].leave(&space);
        collapse_against((world, workers, space), 0, |b, space| b.store(space, 0, 1, 7));
    }
}

/// One large page's worth of private memory of the pool, which has `pool`.
fn pooled<const CPUS: usize>(pool: u64) -> (World<Three>, [Worker<Three>; CPUS], Space<Three>) {
    let (world, mut workers) = World::<Three>::new::<CPUS>(48);
    let space = workers[0].space();
    workers[0].make_pool(pool);
    workers[0].map_pool(&space, 0, 2);
    workers.iter_mut().for_each(|worker| worker.run(&space));
    (world, workers, space)
}

scenario! {
    /// A large page goes in part, and there is no memory for a table: nothing has changed, whatever is stored meanwhile.
    cut_without_memory (3, 4)
    catches [NoSplitEdges]
    {
        let (world, [mut a, mut b], space) = large();
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.machine().fail_after(a.id(), 0);
        assert!(space.unmap(&mut a.cpu, pages(1, 1)).is_err(), "unmapped without a table");
        a.machine().fail_after(a.id(), u64::MAX);
        let b = running.join();
        let seen = (a.read(&space, 0, 0), a.read(&space, 0, 1), a.read(&space, 1, 0));
        assert_eq!(seen, (Some(5), Some(7), Some(0)), "a failed call changed something");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A part of a large page of the pool is to go while it is stored to: refused, and nothing has changed.
    pool_cut (2, 3)
    catches [CutPool]
    {
        let (world, [mut a, mut b], space) = pooled(1);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 1, 1, 7));
            b
        });
        assert!(space.unmap(&mut a.cpu, pages(1, 1)).is_err(), "cut");
        assert!(space.protect(&mut a.cpu, pages(0, 1), RO).is_err(), "cut");
        let b = running.join();
        assert_eq!(a.read(&space, 1, 1), Some(7), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A mapping of the pool replaces one of small pages, of which a fault is under way: no leaf table is left to it.
    pool_over_small (2, 3)
    reaches ["before", "after"]
    catches [StraysStay]
    {
        let (world, [mut a, mut b]) = World::<Three>::new::<2>(48);
        let space = a.space();
        a.make_pool(1);
        a.map(&space, 0, 4, rw());
        a.run(&space);
        b.run(&space);
        assert!(a.write(&space, 2, 0, 1), "a table above the leaves");
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        a.map_pool(&space, 0, 2);
        assert!(a.write(&space, 1, 1, 9));
        let b = running.join();
        let seen = a.read(&space, 0, 0);
        reach(if seen == Some(7) { "after" } else { "before" });
        assert!(seen == Some(7) || seen == Some(0), "{seen:?}");
        assert_eq!(a.read(&space, 1, 1), Some(9), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// One CPU copies a large page that a child shows too, another stores to it, and a third, which knows the old page,
    /// must see that.
    pool_copy_seen (2, 2)
    reaches ["seen"]
    catches [LargeCopyDirect]
    {
        let (world, [mut a, mut b, mut c]) = World::<Three>::new::<3>(64);
        let space = a.space();
        a.make_pool(4);
        a.map_pool(&space, 0, 4);
        [&mut a, &mut b, &mut c].into_iter().for_each(|worker| worker.run(&space));
        assert!(a.write(&space, 0, 0, 5) && a.write(&space, 2, 0, 1));
        let child = a.fork(&space);
        assert!(a.write(&space, 2, 0, 2), "unshares the table above, and flushes for that");
        assert_eq!(c.read(&space, 0, 0), Some(5));
        let flag = Flag::new();
        let (other, raised) = (space.clone(), flag.clone());
        let storing = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            raised.raise();
            b
        });
        let other = space.clone();
        let reading = spawn(move || {
            if flag.is_raised() {
                reach("seen");
                assert_eq!(c.read(&other, 0, 0), Some(7), "a stale translation");
            }
            c
        });
        assert!(a.write(&space, 1, 1, 9));
        let (b, c) = (storing.join(), reading.join());
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 1)), (Some(7), Some(9)), "lost store");
        world.audit([a, b, c], &[&space, &child], &[]);
    }
}

scenario! {
    /// Two CPUs store to the same untouched large page, and the pool has one.
    pool_touch (2, 3)
    catches [NotBusy]
    { touch_both(pooled(1)) }
}

scenario! {
    /// Two CPUs store to a large page that a child shows too: one copies, and no CPU reads the old page after a store to
    /// the new one.
    pool_copy (2, 3)
    {
        let (world, [mut a, mut b], space) = pooled(2);
        assert!(a.write(&space, 0, 0, 5));
        let child = a.fork(&space);
        assert_eq!(b.read(&space, 0, 0), Some(5));
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 1, 1, 7));
            assert_eq!(b.read(&other, 1, 1), Some(7), "a stale translation");
            b
        });
        assert!(a.write(&space, 0, 1, 9));
        let b = running.join();
        let seen = (a.read(&space, 0, 0), a.read(&space, 0, 1), a.read(&space, 1, 1));
        assert_eq!(seen, (Some(5), Some(9), Some(7)), "lost store");
        world.audit([a, b], &[&space, &child], &[]);
    }
}
