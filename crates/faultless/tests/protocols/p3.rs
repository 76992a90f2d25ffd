//! P3: copy-on-write puts the copy in read-only, flushes the old translation, and only then permits stores; no two CPUs
//! ever see different contents at one address.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;

/// A page at 0 that must be copied before it is written (contents 5, 0), for `holder` has it too.
struct Shared<const CPUS: usize> {
    world: World<Two>,
    workers: [Worker<Two>; CPUS],
    space: Space<Two>,
    holder: Space<Two>,
}

/// All CPUs but those of `idle` run the space.
fn shared<const CPUS: usize>(idle: usize) -> Shared<CPUS> {
    let (world, mut workers) = World::<Two>::new::<CPUS>(32);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers[0].run(&space);
    let holder = workers[0].hold(&space, 0, 1);
    workers[1..CPUS - idle].iter_mut().for_each(|worker| worker.run(&space));
    Shared { world, workers, space, holder }
}

scenario! {
    /// Two CPUs store to the same page: one copies, the other copies for nothing or finishes the first one's copy.
    cow_cow (3, 4)
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(0);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        assert!(a.write(&space, 0, 0, 11));
        let mut b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(11), Some(22)), "lost store");
        assert_eq!((b.read(&space, 0, 0), b.read(&space, 0, 1)), (Some(11), Some(22)), "CPUs disagree");
        assert_eq!((a.inspect(&holder, 0, 0), a.inspect(&holder, 0, 1)), (Some(5), Some(0)), "isolation");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// The other holder lets go while two CPUs store: copy or reuse, decided by a count that changes.
    cow_cow_release (2, 3)
    {
        let Shared { world, workers: [mut a, mut b, mut c], space, holder } = shared(1);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        let leaving = spawn(move || {
            c.exit(&holder);
            c
        });
        assert!(a.write(&space, 0, 0, 11));
        let (b, c) = (running.join(), leaving.join());
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(11), Some(22)), "lost store");
        world.audit([a, b, c], &[&space], &[]);
    }
}

scenario! {
    /// The other holder lets go while one CPU stores.
    cow_release (4, 6)
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(1);
        let leaving = spawn(move || {
            b.exit(&holder);
            b
        });
        assert!(a.write(&space, 0, 0, 11));
        let b = leaving.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(11), Some(0)), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A third CPU has the old page in its TLB; after it has heard of the store it must see it (CW-04).
    third_cpu (2, 3)
    reaches ["heard"]
    catches [CowDirect, NoPendingFlush, NoAloneCheck, NoShootdown]
    {
        let Shared { world, workers: [mut a, mut b, mut c], space, holder } = shared(0);
        assert_eq!(c.read(&space, 0, 0), Some(5));
        let flag = Flag::new();
        let (second, third, heard) = (space.clone(), space.clone(), flag.clone());
        let running = spawn(move || {
            assert!(b.write(&second, 0, 1, 9));
            flag.raise();
            b
        });
        let watching = spawn(move || {
            if heard.is_raised() {
                reach("heard");
                assert_eq!(c.read(&third, 0, 1), Some(9), "a stale translation of the old page outlives a store");
            }
            c
        });
        assert!(a.write(&space, 0, 0, 1));
        let (b, c) = (running.join(), watching.join());
        world.audit([a, b, c], &[&space, &holder], &[]);
    }
}

scenario! {
    /// A writer meets the copy of another CPU, PENDING, and helps: it must flush before it stores.
    pending_helper (2, 3)
    reaches ["heard"]
    catches [NoPendingFlush]
    {
        let Shared { world, workers: [mut a, mut b, mut c], space, holder } = shared(0);
        assert_eq!(c.read(&space, 0, 0), Some(5));
        let flag = Flag::new();
        let (second, heard) = (space.clone(), flag.clone());
        let running = spawn(move || {
            assert!(b.write(&second, 0, 1, 9));
            flag.raise();
            b
        });
        let watching = spawn(move || {
            if heard.is_raised() {
                reach("heard");
                assert_eq!(c.peek(0, 1).unwrap_or(9), 9, "a stale translation of the old page outlives a store");
            }
            c
        });
        assert!(a.fault(&space, 0, Access::Write));
        let (b, c) = (running.join(), watching.join());
        world.audit([a, b, c], &[&space, &holder], &[]);
    }
}

scenario! {
    /// One CPU copies believing itself alone while another starts to run the space: the local flush must not stand for
    /// a shootdown.
    alone_against_activation (5, 7)
    reaches ["heard"]
    catches [NoAloneCheck, NoActivateFence]
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(1);
        let flag = Flag::new();
        let (other, heard) = (space.clone(), flag.clone());
        let running = spawn(move || {
            b.run(&other);
            b.read(&other, 0, 1);
            if heard.is_raised() {
                reach("heard");
                assert_eq!(b.read(&other, 0, 1), Some(9), "a stale translation of the old page outlives a store");
            }
            b
        });
        assert!(a.write(&space, 0, 1, 9));
        flag.raise();
        let b = running.join();
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// The same, and the CPU that comes stores as well.
    alone_against_writer (4, 5)
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(1);
        let other = space.clone();
        let running = spawn(move || {
            b.run(&other);
            b.read(&other, 0, 0);
            assert!(b.write(&other, 0, 0, 22));
            b
        });
        assert!(a.write(&space, 0, 1, 9));
        let mut b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(22), Some(9)), "lost store");
        assert_eq!((b.read(&space, 0, 0), b.read(&space, 0, 1)), (Some(22), Some(9)), "lost store");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}

scenario! {
    /// The CPU that copied leaves the space at once; the PENDING copy is finished by one that believes itself alone.
    alone_after_leaving (3, 5)
    reaches ["heard"]
    catches [NoPendingFlush]
    {
        let Shared { world, workers: [mut a, mut b, mut c], space, holder } = shared(1);
        let flag = Flag::new();
        let (second, third, heard) = (space.clone(), space.clone(), flag.clone());
        let running = spawn(move || {
            b.fault(&second, 0, Access::Write);
            b.leave(&second);
            b
        });
        let coming = spawn(move || {
            c.run(&third);
            c.read(&third, 0, 1);
            if heard.is_raised() {
                reach("heard");
                assert_eq!(c.read(&third, 0, 1), Some(9), "a stale translation of the old page outlives a store");
            }
            c
        });
        assert!(a.write(&space, 0, 1, 9));
        flag.raise();
        let (b, c) = (running.join(), coming.join());
        world.audit([a, b, c], &[&space, &holder], &[]);
    }
}

scenario! {
    /// The source of a copy is freed, and used anew, in the middle of the copy: the copy must be thrown away.
    source_reused (4, 6)
    reaches ["before", "after", "frame reused"]
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(0);
        let other = space.clone();
        let source = a.frame(&space, 0);
        let running = spawn(move || {
            b.exit(&holder);
            b.unmap(&other, 0, 1);
            b.map(&other, 0, 1, rw());
            assert!(b.write(&other, 0, 0, 99));
            assert_eq!(b.read(&other, 0, 0), Some(99), "lost store");
            b
        });
        let stored = a.write(&space, 0, 1, 22);
        let b = running.join();
        assert_eq!(a.read(&space, 0, 0), Some(99), "contents of a frame that was somebody else's");
        let second = a.read(&space, 0, 1);
        reach(if second == Some(22) { "after" } else { "before" });
        assert!(second == Some(22) && stored || second == Some(0), "{second:?}");
        if a.frame(&space, 0) == source {
            reach("frame reused");
        }
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Hardware sets accessed and dirty while a fault advances the entry: neither may be lost, nor stop the fault.
    cow_against_reader (5, 7)
    {
        let Shared { world, workers: [mut a, mut b], space, holder } = shared(0);
        a.age(&space, 0);
        let other = space.clone();
        let running = spawn(move || {
            let first = b.read(&other, 0, 1).expect("mapped");
            let second = b.read(&other, 0, 1).expect("mapped");
            assert!((first, second) == (0, 0) || second == 9, "went back from {first} to {second}");
            b
        });
        assert!(a.write(&space, 0, 1, 9));
        let mut b = running.join();
        assert_eq!(b.read(&space, 0, 1), Some(9), "a stale translation of the old page outlives a store");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}
