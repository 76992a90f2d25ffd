//! The only room that names atomics; everything shared between CPUs is built from what is exported here.
//!
//! Called by every room. One facade over three back ends: `core` in shipping builds, `loom` (`--cfg loom`, explores
//! weak memory) and `shuttle` (`--cfg shuttle`, explores whole operations) in model builds. `Tally` and the links of
//! free lists stay `core` atomics in every build: they are statistics or guarded by a lock, and modelling them would
//! only multiply schedules.
//!
//! Absent on purpose: sequentially consistent accesses. Where a store must be ordered before a later load, the code
//! says `fence(SeqCst)`, which loom models.

mod boxed;
mod few;
mod limbo;
mod lock;
pub mod mutant;
mod radix;
mod section;
mod tally;
mod tree;

pub(crate) use boxed::{Garbage, try_box};
pub(crate) use few::Few;
pub(crate) use limbo::Limbo;
pub(crate) use lock::{Held, Lock, Rank, RawGuard, RawLock};
pub(crate) use radix::{Opened, Radix, absent_value, frame_in, hole_value, is_closed, is_hole, slot_value};
pub(crate) use section::{Section, Sections};
pub(crate) use tally::{Event, Gauge, Tally};
pub(crate) use tree::{Edit, NewItems, NoMemory, Ranged, Reader, Spot, Tree, Writer};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering, fence};

#[cfg(loom)]
loom::lazy_static! {
    static ref FENCES: AtomicU64 = AtomicU64::new(0);
}

/// A fence, and an operation that depends on all other fences: by itself a fence is no point at which loom switches
/// threads, nor does loom explore the orders of two.
#[cfg(loom)]
pub(crate) fn fence(ordering: Ordering) {
    FENCES.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(ordering);
}

/// `core`'s atomics in every build: statistics, and words that a lock or an owner guards.
pub(crate) mod plain {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
}

/// One page-table entry as the MMU sees it: 64 bits that hardware may change too.
///
/// In shipping builds this is `core::sync::atomic::AtomicU64`; in model builds the model checker's type.
pub type AtomicEntry = AtomicU64;

/// Lets the model checker run somebody else; nothing in shipping builds, where the machine's `relax` does the waiting.
#[inline]
pub(crate) fn spin_hint() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}

/// Loads a word that nobody else writes now, as this thread holds the lock for it or has published it to nobody. Not a
/// step for the model checker, which verifies the claim.
#[inline]
pub(crate) fn own_word(word: &AtomicU64) -> u64 {
    #[cfg(not(loom))]
    return word.load(Ordering::Relaxed);
    // SAFETY: no store is concurrent, by the caller's claim; loom panics if one is.
    #[cfg(loom)]
    unsafe {
        word.unsync_load()
    }
}

/// The same for a pointer.
#[inline]
pub(crate) fn own_pointer<T>(pointer: &AtomicPtr<T>) -> *mut T {
    #[cfg(not(loom))]
    return pointer.load(Ordering::Relaxed);
    // SAFETY: as `own_word`.
    #[cfg(loom)]
    unsafe {
        pointer.unsync_load()
    }
}
