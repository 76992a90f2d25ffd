//! Seeded bugs: each re-check, ordering and barrier that a protocol relies on can be removed by name in model builds.
//!
//! Called where the guard stands: `if mutant::is(Mutant::X) { ... }` is a constant `false` in shipping builds, so the
//! compiler drops it. The model suites under `tests/` switch one on and demand that the check fails.

/// One removable guard. The protocol page that needs it is named behind each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
#[allow(dead_code)] // `None` is for the suites that switch a bug off
pub enum Mutant {
    /// No bug.
    None = 0,
    /// A fault does not check that its area is still live after it loaded the entry (P1).
    NoDeadCheck,
    /// The check stands before the load (P1).
    DeadCheckFirst,
    /// A sweep leaves EMPTY leaf entries as they are (P1).
    NoStamp,
    /// A sweep leaves EMPTY upper entries as they are (P1).
    NoUpperStamp,
    /// Entries are loaded without acquire (P1).
    RelaxedEntryLoad,
    /// A sweep does not advance the generation of the PRESENT entries it narrows (P2).
    NoGenerationBump,
    /// A generation may come round with no wait (P2).
    NoWrapGuard,
    /// Copy-on-write publishes the copy writable at once (P3).
    CowDirect,
    /// A second writer makes a PENDING entry writable without a flush (P3).
    NoPendingFlush,
    /// The sweep's removed frames are released before the flush (P4).
    FreeBeforeFlush,
    /// Range operations do not shoot translations down (P4).
    NoShootdown,
    /// An area takes faults before the old pages below it are gone (P5).
    NoPending,
    /// Fork does not freeze the root slots (P6).
    NoFreeze,
    /// Fork does not wait for the sections of its space (P6).
    NoForkGrace,
    /// Fork does not shoot down the parent's writable translations (P6).
    NoForkFlush,
    /// The copier leaves W and EXCLUSIVE in the shared table (P7).
    CopyKeepsExclusive,
    /// A sharer's reference is dropped before its walk caches are flushed (P7).
    DropBeforeFlush,
    /// A sharer takes its table back without the table's lock (P7).
    TakeWithoutLock,
    /// A retired table is freed with no grace period (P8).
    NoEpoch,
    /// A reader enters its section without the store-load barrier (P8).
    NoSectionFence,
    /// A sweep skips stamps although sections are active (P1).
    AlwaysQuiet,
    /// A removed object page stays mapped if a fault looked it up before (P9).
    NoPageRecheck,
    /// Not a bug: sweeps never take the shortcut for quiet spaces, so that stamps and generations always work (P1).
    NeverQuiet,
}

#[cfg(any(loom, shuttle, feature = "mutants"))]
mod enabled {
    use super::Mutant;
    use core::sync::atomic::{AtomicU8, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Switches one seeded bug on for the whole process.
    pub fn set(mutant: Mutant) {
        ACTIVE.store(mutant as u8, Ordering::SeqCst);
    }

    /// Is this bug switched on?
    #[inline]
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u8
    }
}

#[cfg(not(any(loom, shuttle, feature = "mutants")))]
mod disabled {
    use super::Mutant;

    /// No bug is ever switched on in this build.
    #[inline(always)]
    #[must_use]
    pub const fn is(_mutant: Mutant) -> bool {
        false
    }
}

#[cfg(not(any(loom, shuttle, feature = "mutants")))]
pub use disabled::is;
#[cfg(any(loom, shuttle, feature = "mutants"))]
pub use enabled::{is, set};
