//! P2: a commit on a present page is one compare-exchange, and the generation tells it from an equal value of another
//! time. Copy-on-write and reuse against range operations, with generations of one and two bits.

use crate::model::*;
use crate::scenario;

type TwoBits = X86<2, 1, 2>;
type OneBit = X86<2, 1, 1>;

/// A space with a private mapping of an object at page 0, read but not written, and anonymous memory at page 1.
struct PrivateFile<F: faultless::machine::Format> {
    world: World<F>,
    space: Space<F>,
    object: Backed<F>,
}

fn private_file<F: faultless::machine::Format>() -> (PrivateFile<F>, [Worker<F>; 2]) {
    let (world, [mut a, mut b]) = World::new::<2>(32);
    let space = a.space();
    let object = a.object(1, 33);
    a.map_object(&space, 0, 1, rw(), Sharing::Private, &object, 0);
    a.map(&space, 1, 1, rw());
    a.run(&space);
    b.run(&space);
    assert!(a.write(&space, 1, 0, 1));
    assert_eq!(a.read(&space, 0, 0), Some(33));
    (PrivateFile { world, space, object }, [a, b])
}

/// A write fault of `b` against: unmap, write(2) to the object, map again, then `toggles` times mprotect to no effect.
/// The object's frame is mapped again at the same place with the same bits: only the generation has changed.
fn cow_against_remap<F: faultless::machine::Format>(rights: Rights, toggles: usize) {
    let (PrivateFile { world, space, object }, [mut a, mut b]) = private_file::<F>();
    let other = space.clone();
    let running = spawn(move || (b.fault(&other, 0, Access::Write), b));
    a.unmap(&space, 0, 1);
    a.assert_gone(&space, 0);
    a.write_object(&object, 0, 0, 55);
    a.map_object(&space, 0, 1, rights, Sharing::Private, &object, 0);
    assert_eq!(a.read(&space, 0, 0), Some(55), "mapped after write(2), shows older data");
    for _ in 0..toggles {
        // A right is taken and given back: the entry of the read-only page keeps all its bits but the generation.
        a.protect(&space, 0, 1, rw());
        a.protect(&space, 0, 1, RO);
    }
    let (resolved, b) = running.join();
    reach(if resolved { "resolved" } else { "signal" });
    assert_eq!(a.read(&space, 0, 0), Some(55), "mapped after write(2), shows older data");
    world.audit([a, b], &[&space], &[&object]);
}

scenario! {
    /// The same frame comes back at the same entry with the same bits.
    cow_remap (4, 6)
    reaches ["resolved"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoGenerationBump, NoDeadCheck, DeadCheckFirst, AlwaysQuiet, NoSectionFence]
    { cow_against_remap::<TwoBits>(rw(), 0) }
}

scenario! {
    /// One bit: the generation comes round with each second operation.
    cow_remap_one_bit (4, 6)
    reaches ["resolved"]
    holds_with [NeverQuiet]
    catches [NoGenerationBump]
    { cow_against_remap::<OneBit>(rw(), 0) }
}

scenario! {
    /// Unmap and one narrowing: one bit has come round.
    cow_wrap_1 (3, 4)
    reaches ["resolved", "signal"]
    holds_with [NeverQuiet]
    catches [NoWrapGuard]
    { cow_against_remap::<OneBit>(RO, 1) }
}

scenario! {
    /// Unmap and three narrowings: two bits have come round.
    cow_wrap_3 (2, 3)
    reaches ["resolved", "signal"]
    holds_with [NeverQuiet]
    catches [NoWrapGuard]
    { cow_against_remap::<TwoBits>(RO, 3) }
}

/// Does the other space that holds the page stay, so that a write must copy, or has it left, so that it may reuse?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Stays,
    Left,
}

/// A write fault on a write-protected page against mprotect to read-only, and `toggles` times back and forth.
fn write_against_protect<F: faultless::machine::Format>(holder: Holder, toggles: usize) {
    let (world, [mut a, mut b]) = World::<F>::new::<2>(32);
    let space = a.space();
    a.map(&space, 0, 2, rw());
    a.run(&space);
    let child = a.hold(&space, 0, 1);
    if holder == Holder::Left {
        a.exit(&child);
    }
    b.run(&space);
    let other = space.clone();
    let running = spawn(move || (b.write(&other, 0, 1, 22), b));
    a.protect(&space, 0, 1, RO);
    for _ in 0..toggles {
        a.protect(&space, 0, 1, rw());
        a.protect(&space, 0, 1, RO);
    }
    a.assert_read_only(&space, 0);
    let seen = a.read(&space, 0, 1);
    let (stored, b) = running.join();
    reach(if stored { "stored before" } else { "signal" });
    assert_eq!(seen, Some(if stored { 22 } else { 0 }), "stored after mprotect returned");
    assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(5), seen), "stored after mprotect returned");
    a.assert_read_only(&space, 0);
    if holder == Holder::Stays {
        assert_eq!(a.inspect(&child, 0, 1), Some(0), "a store reached the other space");
        world.audit([a, b], &[&space, &child], &[]);
    } else {
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Copy against mprotect(RO): the entry is read-only already, only the generation changes.
    cow_protect (4, 5)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [AlwaysQuiet, NoShootdown]
    { write_against_protect::<TwoBits>(Holder::Stays, 0) }
}

scenario! {
    /// Reuse in place against mprotect(RO).
    reuse_protect (4, 6)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoGenerationBump, NoDeadCheck, DeadCheckFirst, AlwaysQuiet]
    { write_against_protect::<TwoBits>(Holder::Left, 0) }
}

scenario! {
    /// Copy against RO, RW, RO with two bits.
    cow_toggle (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoGenerationBump, NoDeadCheck]
    { write_against_protect::<TwoBits>(Holder::Stays, 1) }
}

scenario! {
    /// Copy against RO, RW, RO with one bit.
    cow_toggle_one_bit (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    catches [NoGenerationBump]
    { write_against_protect::<OneBit>(Holder::Stays, 1) }
}

scenario! {
    /// Reuse against RO, RW, RO with one bit: the wrap guard has to wait.
    reuse_toggle_one_bit (3, 4)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    catches [NoWrapGuard, NoGenerationBump]
    { write_against_protect::<OneBit>(Holder::Left, 1) }
}

scenario! {
    /// Copy against munmap and a new read-only mapping: the reference of the flush round.
    cow_unmap (3, 5)
    holds_with [NeverQuiet]
    and holds_bare
    catches [NoDeadCheck, NoShootdown, FreeBeforeFlush]
    {
        let (world, [mut a, mut b]) = World::<TwoBits>::new::<2>(32);
        let space = a.space();
        a.map(&space, 0, 2, rw());
        a.run(&space);
        let holder = a.hold(&space, 0, 1);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            b.write(&other, 0, 1, 22);
            b
        });
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        a.map(&space, 0, 1, RO);
        assert_eq!(a.read(&space, 0, 0), Some(0), "the new mapping shows the old page");
        let b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(0), Some(0)), "the new mapping was written");
        assert_eq!((a.inspect(&holder, 0, 0), a.inspect(&holder, 0, 1)), (Some(5), Some(0)), "isolation");
        world.audit([a, b], &[&space, &holder], &[]);
    }
}
