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
    /// Fork gives the child its share of a table without the table's lock (P6).
    ForkWithoutLock,
    /// A CPU that starts to run a space walks its tables without a fence after it has set its bit (P4).
    NoActivateFence,
    /// A flush of this CPU alone is taken for a flush of all without a look at who runs the space (P3).
    NoAloneCheck,
    /// A sweep writes entries by plain stores, over what the MMU set meanwhile (P4).
    SweepByStore,
    /// An install is published without release (P1).
    RelaxedInstall,
    /// A new version of the area tree is published without release (P5).
    RelaxedPublish,
    /// An area is split by two stores into its leaf, not by one of a new leaf (P5).
    TwoStores,
    /// A dropped reference does not carry what was done before it (P7).
    RelaxedDrop,
    /// The end of a section does not carry what was done inside (P8).
    RelaxedSectionEnd,
    /// The beginning of a section does not carry what the one before did (P8).
    RelaxedSectionEnter,
    /// A collapse copies before the old translations are flushed (P15).
    NoCollapseFlush,
    /// A collapse lets faults of its area go on (P15).
    NoCollapseClose,
    /// A collapse copies while accesses from outside may be on their way (P15).
    NoCollapseWait,
    /// A store from outside sets the dirty bit before it stores only, where a clean may take it away again (P10).
    MarkOnlyBefore,
    /// What is cleaned is not flushed, so that the MMU may store without setting the dirty bit (P10).
    CleanWithoutFlush,
    /// A move does not keep the faults of the old place waiting (P11).
    MoveWithoutClose,
    /// A move does not wait for the faults of the old place that are under way (P11).
    MoveWithoutWait,
    /// The new place takes faults before the pages are there (P11).
    MoveOpensEarly,
    /// The pages are at the new place before the old translations are flushed (P11).
    MoveBeforeFlush,
    /// A hole unmaps the pages before they have left the object (P12).
    PunchLate,
    /// A page that is being punched out comes back as zeroes while others still have the old one mapped (P12).
    PunchStaysOpen,
    /// What is taken out of an object leaves the slots of absent pages as they were (P12).
    AbsentKeepsValue,
    /// A cut through a page that was punched out has it read again (P12).
    CutForgetsHole,
    /// A page is pinned without a look at whether it is still mapped (P12).
    PinWithoutRecheck,
    /// A page is pinned that others have too (P12).
    PinShared,
    /// A pin is noted after its section has ended, when a fork may have passed (P12).
    PinAfterSection,
    /// A fork shares pinned pages like all others (P12).
    ForkForgetsPins,
    /// A fork that could not copy a pinned page thaws the parent while the child still has its shares (P12).
    ThawBeforeExit,
    /// Clearing the soft-dirty bits does not wait for stores from outside that are under way (P14).
    NoClearWait,
    /// Clearing the soft-dirty bits does not look again for pages that were pinned meanwhile (P14).
    NoPinnedPass,
    /// The last pin goes without carrying what was stored while it stood (P14).
    RelaxedUnpin,
    /// A sweep leaves OFFSET entries as they are though their page leaves the object (P9).
    OffsetStays,
    /// A fault that was reported waits without another look (P13).
    WaitWithoutLook,
    /// Whoever ends a watch, or takes a watched range away, wakes nobody (P13).
    UnwatchWithoutWake,
    /// A watch begins without a wait for the faults that do not know it (P13).
    WatchWithoutWait,
    /// A page is put in by a call without a look at whether its area still lives (P13).
    FillWithoutLook,
    /// What an entry says that a sweep has emptied is shown from outside as what its area would have (P10).
    ShowDead,
    /// A page is put in where another one is being punched out (P13).
    PutInClosed,
    /// An entry that leaves keeps to itself that its page was stored to (P17).
    DirtyNotMoved,
    /// A fault that makes a page writable does not note it as dirty (P17).
    NoDirtyMark,
    /// A page is taken for clean after its entries were write-protected, not before (P17).
    ClaimAfterClean,
    /// A page is written before the translations that permit stores are flushed (P17).
    WriteBeforeFlush,
    /// A page is written while stores from outside may be on their way (P17).
    NoWriteWait,
    /// A page becomes writable by a permission that was given before it was cleaned (P17).
    OldPermission,
    /// A pager is asked for a page, and its answer used, while the page is being written (P17).
    AskWhileWritten,
    /// A page becomes writable by a permission for the page that was there before (P17).
    PermitOtherPage,
    /// A write-back returns while somebody else still writes one of its pages (P17).
    NoWriteAwait,
    /// A shared table is cleaned without its lock (P17).
    CleanUnlocked,
    /// A truncation returns while a page that it cut off is being written (P17).
    CutDuringWrite,
    /// A range operation cuts a large page of the pool (P15).
    CutPool,
    /// An area of the pool opens without a look for tables that faults of dead areas have left, and may leave (P15).
    StraysStay,
    /// Two who make one large page of the pool take one each (P15).
    NotBusy,
    /// The copy of a large page of the pool is writable before the old translations are flushed (P15).
    LargeCopyDirect,
    /// A range operation begins although large pages reach over its ends (P15).
    NoSplitEdges,
    /// A hole that could not be swept everywhere opens all the same (P12).
    PunchOpensTorn,
    /// Not a bug: sweeps never take the shortcut for quiet spaces, so that stamps and generations always work (P1).
    NeverQuiet,
}

#[cfg(any(loom, shuttle, feature = "mutants"))]
mod enabled {
    use super::Mutant;
    use core::sync::atomic::{AtomicU64, Ordering};

    const WORDS: usize = 2;
    const _: () = assert!((Mutant::NeverQuiet as usize) < 64 * WORDS, "a bit for each mutant, the last one too");

    /// One bit per mutant.
    static ACTIVE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

    /// The word of a mutant, and its bit there. `None` has no bit.
    fn place(mutant: Mutant) -> (&'static AtomicU64, u64) {
        let number = mutant as usize;
        (&ACTIVE[number / 64], if mutant as u8 == 0 { 0 } else { 1 << (number % 64) })
    }

    /// Switches one seeded bug on for the whole process, and all others off.
    pub fn set(mutant: Mutant) {
        ACTIVE.iter().for_each(|word| word.store(0, Ordering::SeqCst));
        add(mutant);
    }

    /// Switches one more on.
    pub fn add(mutant: Mutant) {
        let (word, bit) = place(mutant);
        word.fetch_or(bit, Ordering::SeqCst);
    }

    /// Is this bug switched on?
    #[inline]
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        let (word, bit) = place(mutant);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// The ordering of a site, relaxed if its mutant is on.
    #[inline]
    pub(crate) fn weaken(mutant: Mutant, ordering: Ordering) -> Ordering {
        if is(mutant) { Ordering::Relaxed } else { ordering }
    }
}

#[cfg(not(any(loom, shuttle, feature = "mutants")))]
mod disabled {
    use super::Mutant;
    use core::sync::atomic::Ordering;

    /// No bug is ever switched on in this build.
    #[inline(always)]
    #[must_use]
    pub const fn is(_mutant: Mutant) -> bool {
        false
    }

    /// The ordering of a site.
    #[inline(always)]
    pub(crate) const fn weaken(_mutant: Mutant, ordering: Ordering) -> Ordering {
        ordering
    }
}

#[cfg(not(any(loom, shuttle, feature = "mutants")))]
pub use disabled::is;
#[cfg(not(any(loom, shuttle, feature = "mutants")))]
pub(crate) use disabled::weaken;
#[cfg(any(loom, shuttle, feature = "mutants"))]
pub(crate) use enabled::weaken;
#[cfg(any(loom, shuttle, feature = "mutants"))]
pub use enabled::{add, is, set};
