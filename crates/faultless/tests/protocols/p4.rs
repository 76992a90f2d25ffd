//! P4: a frame that was unmapped is used anew only after every CPU that could reach it has forgotten it.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;

/// Page 0 holds 7 in its first word, page 1 is untouched, and both CPUs run the space.
fn mapped(idle: usize) -> (World<Two>, [Worker<Two>; 2], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(24);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers[..2 - idle].iter_mut().for_each(|worker| worker.run(&space));
    assert!(workers[0].write(&space, 0, 0, 7));
    (world, workers, space)
}

scenario! {
    /// A CPU reads through its TLB while the page is unmapped and its frame used for another page.
    unmap_against_reader (5, 8)
    reaches ["frame reused"]
    catches [FreeBeforeFlush, NoShootdown]
    {
        let (world, [mut a, mut b], space) = mapped(0);
        assert_eq!(b.read(&space, 0, 0), Some(7));
        let running = spawn(move || {
            for _ in 0..2 {
                assert!(b.peek(0, 0).is_none_or(|seen| seen == 7), "the frame is somebody else's");
            }
            b
        });
        let frame = a.frame(&space, 0);
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        assert!(a.write(&space, 1, 0, 99));
        if a.frame(&space, 1) == frame {
            reach("frame reused");
        }
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A CPU starts to run the space while a page is unmapped: it is shot down, or its walks see the change.
    unmap_against_activation (5, 8)
    reaches ["frame reused"]
    catches [NoActivateFence, FreeBeforeFlush, NoShootdown]
    {
        let (world, [mut a, mut b], space) = mapped(1);
        let other = space.clone();
        let running = spawn(move || {
            b.run(&other);
            for _ in 0..2 {
                assert!(b.peek(0, 0).is_none_or(|seen| seen == 7), "the frame is somebody else's");
            }
            b
        });
        let frame = a.frame(&space, 0);
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        assert!(a.write(&space, 1, 0, 99));
        if a.frame(&space, 1) == frame {
            reach("frame reused");
        }
        let b = running.join();
        a.assert_gone(&space, 0);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A CPU leaves the space while a page is unmapped: it needs no shootdown, for it has forgotten everything.
    unmap_against_leaving (5, 8)
    catches [FreeBeforeFlush]
    {
        let (world, [mut a, mut b], space) = mapped(0);
        assert_eq!(b.read(&space, 0, 0), Some(7));
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.peek(0, 0).is_none_or(|seen| seen == 7), "the frame is somebody else's");
            b.leave(&other);
            b
        });
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        assert!(a.write(&space, 1, 0, 99));
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Hardware stores to a clean page while mprotect takes the right: the dirty bit goes with the store.
    store_against_protect (6, 9)
    reaches ["stored before", "signal"]
    catches [SweepByStore, NoShootdown]
    {
        let (world, [mut a, mut b], space) = mapped(0);
        a.age(&space, 0);
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 0, 0, 9), b));
        a.protect(&space, 0, 1, RO);
        a.assert_read_only(&space, 0);
        let seen = a.read(&space, 0, 0);
        let (stored, b) = running.join();
        reach(if stored { "stored before" } else { "signal" });
        assert_eq!(seen, Some(if stored { 9 } else { 7 }), "stored after mprotect returned");
        assert_eq!(a.read(&space, 0, 0), seen, "stored after mprotect returned");
        assert_eq!(a.entry(&space, 0).expect("mapped").dirty, stored, "the dirty bit is lost");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Hardware stores to a clean page while another CPU's mprotect adds rights around it.
    store_against_widening (6, 9)
    catches [SweepByStore]
    {
        let (world, [mut a, b], space) = mapped(0);
        a.age(&space, 0);
        let running = spawn(move || (b.poke(0, 0, 9), b));
        a.protect(&space, 0, 1, Rights::ALL);
        let (stored, b) = running.join();
        if stored {
            assert_eq!(a.read(&space, 0, 0), Some(9), "lost store");
            assert!(a.entry(&space, 0).expect("mapped").dirty, "the dirty bit is lost");
        }
        world.audit([a, b], &[&space], &[]);
    }
}
