//! P14: after the soft-dirty bits were cleared, whoever stores to a page is noted, whatever way the store takes.

use crate::model::*;
use crate::scenario;
use faultless::{Access, Machine, Sharing};

type Two = X86<2, 1, 2>;
type Stage = (World<Two>, [Worker<Two>; 2], Space<Two>);

/// A page that both CPUs may store to, 5 in it.
fn mapped() -> Stage {
    let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
    let space = a.space();
    a.map(&space, 0, 1, rw());
    a.run(&space);
    b.run(&space);
    assert!(a.write(&space, 0, 0, 5));
    assert!(b.read(&space, 0, 0) == Some(5) && b.write(&space, 0, 1, 1), "its TLB permits stores");
    (world, [a, b], space)
}

/// `a` clears the bits and looks at the page while `b` stores 7 there: what `a` has not seen is noted.
fn clear_against((world, [mut a, b], space): Stage, store: impl FnOnce(Worker<Two>) -> Worker<Two> + Send + 'static) {
    let running = spawn(move || store(b));
    a.clear_soft(&space);
    let seen = a.inspect(&space, 0, 0);
    let b = running.join();
    let noted = a.is_soft(&space, 0);
    assert_eq!(a.inspect(&space, 0, 0), Some(7));
    assert!(seen == Some(7) || noted, "a store after the bits were cleared is not noted");
    reach(if noted { "after" } else { "before" });
    world.audit([a, b], &[&space], &[]);
}

scenario! {
    /// A store by the MMU, through a translation that permits it.
    store (3, 5)
    reaches ["before", "after"]
    holds_with [NeverQuiet]
    catches [NoShootdown]
    {
        let stage = mapped();
        let space = stage.2.clone();
        clear_against(stage, move |mut b| {
            assert!(b.write(&space, 0, 0, 7));
            b
        });
    }
}

scenario! {
    /// A store from outside: the entry is marked first, then the bytes are copied.
    store_from_outside (3, 5)
    reaches ["before", "after"]
    catches [NoClearWait]
    {
        let stage = mapped();
        let space = stage.2.clone();
        clear_against(stage, move |mut b| {
            assert!(b.store(&space, 0, 0, 7));
            b
        });
    }
}

scenario! {
    /// A store to the frame by whoever has pinned it.
    pin (3, 4)
    reaches ["before", "after"]
    catches [NoClearWait, NoPinnedPass, RelaxedUnpin]
    {
        let stage = mapped();
        let space = stage.2.clone();
        clear_against(stage, move |mut b| {
            let pins = space.pin(&mut b.cpu, pages(0, 1), Access::Write).expect("mapped");
            b.machine().write(pins.frames()[0], 0, &7u64.to_le_bytes());
            drop(pins);
            b
        });
    }
}

scenario! {
    /// A load of shared memory, which may map the page for stores too, and a store after it.
    shared_memory (3, 5)
    reaches ["after"]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.object(1, 5);
        let space = a.space();
        a.map_object(&space, 0, 1, rw(), Sharing::Shared, &object, 0);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            b.read(&other, 0, 0);
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        a.clear_soft(&space);
        let seen = a.read_object(&object, 0);
        let b = running.join();
        let noted = a.is_soft(&space, 0);
        assert!(seen == Some(7) || noted, "a store after the bits were cleared is not noted");
        reach(if noted { "after" } else { "before" });
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// Another sharer of the table stores meanwhile: each has its own bits.
    shared_table (3, 4)
    {
        let (world, [mut a, mut b], space) = mapped();
        let child = a.fork(&space);
        b.leave(&space);
        b.run(&child);
        let other = child.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        a.clear_soft(&space);
        assert!(!a.is_soft(&space, 0));
        let b = running.join();
        assert!(a.is_soft(&child, 0) && !a.is_soft(&space, 0));
        assert_eq!((a.inspect(&space, 0, 0), a.inspect(&child, 0, 0)), (Some(5), Some(7)));
        world.audit([a, b], &[&space, &child], &[]);
    }
}
