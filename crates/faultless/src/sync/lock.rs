//! Ranked spin locks. A CPU may take a lock only if it holds none of a higher rank; debug builds assert it.
//!
//! Called by `frame`, `table`, `object` and `space`. The order is the order of [`Rank`]; docs/locks.md has the table.
//! The one who spins calls the machine's `relax`, which must serve shootdowns, because the holder may be waiting for
//! this very CPU to acknowledge one. Absent on purpose: fairness (each hold is short or behind a blocking caller).

#[cfg(not(loom))]
use super::{AtomicBool, Ordering, spin_hint};
use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};

/// What a lock protects; lower ranks are taken first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Rank {
    /// A stripe of a space's area index, held for a whole range operation. Several in ascending order of address.
    Stripe = 0,
    /// The list of mappings of an object.
    Object = 1,
    /// One page table (`L` in PROTOCOL): structural work only.
    Table = 2,
    /// The pool of large pages.
    Pool = 3,
    /// The frame allocator's zone.
    Zone = 4,
}

/// The locks that one CPU holds, by rank, and whether it is inside a fault. Owned by the CPU's token.
#[derive(Default)]
pub(crate) struct Held {
    counts: [Cell<u16>; 5],
    in_fault: Cell<bool>,
    space_locks: Cell<u64>,
    table_locks: Cell<u64>,
}

impl Held {
    /// Marks the start or the end of a fault, for the counters of locks taken inside one. Returns what it was.
    #[inline]
    pub(crate) fn set_in_fault(&self, inside: bool) -> bool {
        self.in_fault.replace(inside)
    }

    /// Locks of a space and locks of a table that were taken inside faults since the last call.
    #[inline]
    pub(crate) fn taken_in_faults(&self) -> (u64, u64) {
        (self.space_locks.take(), self.table_locks.take())
    }

    #[inline]
    fn note(&self, rank: Rank) {
        debug_assert!(
            self.counts[rank as usize + 1..].iter().all(|count| count.get() == 0),
            "lock of rank {rank:?} taken while one of a higher rank is held"
        );
        let count = &self.counts[rank as usize];
        count.set(count.get() + 1);
        if self.in_fault.get() {
            match rank {
                Rank::Stripe => self.space_locks.set(self.space_locks.get() + 1),
                Rank::Table => self.table_locks.set(self.table_locks.get() + 1),
                Rank::Object | Rank::Pool | Rank::Zone => {}
            }
        }
    }

    #[inline]
    fn forget(&self, rank: Rank) {
        let count = &self.counts[rank as usize];
        count.set(count.get() - 1);
    }
}

/// A lock without data; the caller knows what it guards.
pub(crate) struct RawLock {
    #[cfg(not(loom))]
    taken: AtomicBool,
    #[cfg(loom)]
    taken: loom::sync::Mutex<()>,
}

impl RawLock {
    /// A free lock.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(not(loom))]
            taken: AtomicBool::new(false),
            #[cfg(loom)]
            taken: loom::sync::Mutex::new(()),
        }
    }

    /// Takes the lock, calling `relax` while somebody else has it.
    #[inline]
    pub(crate) fn lock<'a>(&'a self, rank: Rank, held: &'a Held, relax: impl Fn()) -> RawGuard<'a> {
        held.note(rank);
        #[cfg(loom)]
        {
            let _ = relax;
            let inner = self.taken.lock().expect("a model thread panicked with the lock held");
            RawGuard { rank, held, _inner: inner }
        }
        #[cfg(not(loom))]
        {
            // Acquire pairs with the Release in `RawGuard::drop`: what the last holder wrote is visible.
            while self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
                while self.taken.load(Ordering::Relaxed) {
                    relax();
                    spin_hint();
                }
            }
            RawGuard { rank, held, lock: self }
        }
    }
}

/// Proof that this CPU holds a [`RawLock`].
pub(crate) struct RawGuard<'a> {
    rank: Rank,
    held: &'a Held,
    #[cfg(not(loom))]
    lock: &'a RawLock,
    #[cfg(loom)]
    _inner: loom::sync::MutexGuard<'a, ()>,
}

impl Drop for RawGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.held.forget(self.rank);
        // Pairs with the Acquire in `RawLock::lock`.
        #[cfg(not(loom))]
        self.lock.taken.store(false, Ordering::Release);
    }
}

/// A lock with the data it guards.
pub(crate) struct Lock<T> {
    raw: RawLock,
    rank: Rank,
    data: UnsafeCell<T>,
}

// SAFETY: the data is reached only through the guard, one holder at a time, so sharing the lock moves T between CPUs.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: the lock owns its T.
unsafe impl<T: Send> Send for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock of `rank` around `data`.
    pub(crate) fn new(rank: Rank, data: T) -> Self {
        Self { raw: RawLock::new(), rank, data: UnsafeCell::new(data) }
    }

    /// Takes the lock, calling `relax` while somebody else has it.
    pub(crate) fn lock<'a>(&'a self, held: &'a Held, relax: impl Fn()) -> Guard<'a, T> {
        Guard { _raw: self.raw.lock(self.rank, held, relax), data: &self.data }
    }
}

/// Proof that this CPU holds a [`Lock`], and the way to its data.
pub(crate) struct Guard<'a, T> {
    _raw: RawGuard<'a>,
    data: &'a UnsafeCell<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard proves that no other CPU reaches the data, and `&self` that no `&mut` from here lives.
        unsafe { &*self.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard proves that no other CPU reaches the data, and `&mut self` that this is the only borrow.
        unsafe { &mut *self.data.get() }
    }
}
