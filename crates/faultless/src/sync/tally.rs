//! Counters with one writer: a CPU counts in its own line, readers add the lines up.
//!
//! Called by every room through `Ctx`. A count is a relaxed load and a relaxed store, no read-modify-write: the
//! exclusive `Cpu` token guarantees the single writer. Exact when nobody counts; a running reader may be a few behind.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a CPU counts.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Event { $($(#[$doc])* $name,)* }

        impl Event {
            /// All events, in order of their index.
            pub(crate) const ALL: &[Event] = &[$(Event::$name,)*];

            /// The name in reports.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Event::$name => $text,)* }
            }
        }
    };
}

events! {
    /// Faults resolved, of any kind.
    Faults = "faults",
    /// Read of untouched anonymous memory: the zero frame was mapped.
    FaultZero = "fault_zero",
    /// Write to untouched anonymous memory.
    FaultAnon = "fault_anon",
    /// Write to untouched anonymous memory that got a large page.
    FaultHuge = "fault_huge",
    /// Write that would have got a large page, had there been frames in a row.
    HugeFallbacks = "huge_fallbacks",
    /// Large pages that became tables of small ones.
    HugeSplits = "huge_splits",
    /// Tables of small pages that became large ones.
    HugeCollapses = "huge_collapses",
    /// A large page of the pool was mapped.
    FaultHugetlb = "fault_hugetlb",
    /// A page of an object was mapped.
    FaultObject = "fault_object",
    /// A write to a private file mapping copied the page at once.
    FaultEarlyCopy = "fault_early_copy",
    /// Copy-on-write that copied a page.
    FaultCow = "fault_cow",
    /// Copy-on-write of the zero frame.
    FaultCowZero = "fault_cow_zero",
    /// Copy-on-write that found the page exclusive and copied nothing.
    FaultReuse = "fault_reuse",
    /// A PENDING copy made writable by a later fault than the one that copied.
    FaultFinish = "fault_finish",
    /// A page of a shared mapping made writable.
    FaultShared = "fault_shared",
    /// Rights of a present page widened to those of its area.
    FaultWiden = "fault_widen",
    /// The entry was adequate already.
    FaultSpurious = "fault_spurious",
    /// Faults that were reported to a watcher.
    FaultsReported = "faults_reported",
    /// Faults that read from a pager.
    FaultMajor = "fault_major",
    /// Faults that ended in an error.
    FaultError = "fault_error",
    /// Attempts that had to start over because somebody else's change won.
    Retries = "fault_retries",
    /// Attempts that waited for a fork or a replacement of the mapping.
    Waits = "fault_waits",
    /// Flush rounds of copy-on-write that left the section (other CPUs run the space).
    CowFlushes = "cow_remote_flushes",
    /// Locks of a space taken inside a fault.
    FaultSpaceLocks = "fault_space_locks",
    /// Locks of a table taken inside a fault on a private path: 0 by design.
    FaultTableLocks = "fault_table_locks",
    /// Slow path: a shared table was copied for its first change after a fork (takes that table's lock).
    SlowUnshareCopy = "slow_unshare_copy",
    /// Slow path: the last sharer took a table back (takes that table's lock).
    SlowUnshareTake = "slow_unshare_take",
    /// Slow path: a stack grew (takes the lock of its stripe).
    SlowStackGrowth = "slow_stack_growth",
    /// Slow path: a per-CPU frame cache was refilled or drained (takes the allocator's lock).
    SlowFrameRefill = "slow_frame_refill",
    /// Slow path: a private large page of the pool was copied (takes the lock of its stripe, and flushes).
    SlowHugeCopy = "slow_huge_copy",
    /// Slow path: a large page of the pool was mapped, but not as it was needed (takes the lock of its stripe).
    SlowHugeWiden = "slow_huge_widen",
    /// Tables allocated.
    TablesAllocated = "tables_allocated",
    /// Tables freed.
    TablesFreed = "tables_freed",
    /// Tables that a fork shared at the root.
    TablesShared = "tables_shared_at_fork",
    /// Forks.
    Forks = "forks",
    /// Forks that had to wait for sections of their space.
    ForkWaits = "fork_section_waits",
    /// Waits of the generation wrap guard.
    WrapWaits = "wrap_guard_waits",
    /// Flushes of this CPU's own TLB.
    FlushLocal = "flush_local",
    /// Shootdowns that asked other CPUs.
    FlushRemote = "flush_remote",
    /// Entries that range operations removed or narrowed.
    EntriesSwept = "entries_swept",
}

/// One CPU's counters.
pub(crate) struct Tally {
    counts: [AtomicU64; Event::ALL.len()],
}

impl Tally {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self { counts: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts `event` `by` times; only the CPU that owns this tally may.
    #[inline]
    pub(crate) fn add(&self, event: Event, by: u64) {
        let count = &self.counts[event as usize];
        count.store(count.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// The present count.
    pub(crate) fn get(&self, event: Event) -> u64 {
        self.counts[event as usize].load(Relaxed)
    }
}

/// A signed quantity that one CPU adjusts and anybody reads.
#[derive(Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// Adjusts the quantity; only the CPU that owns this gauge may.
    #[inline]
    pub(crate) fn add(&self, by: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// The present quantity of this shard; one shard alone may be negative, only the sum has a meaning.
    #[inline]
    pub(crate) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}
