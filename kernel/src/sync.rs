//! The kernel's one lock: a spin lock that keeps serving TLB shootdowns while it waits.
//!
//! Called by everything that shares data between CPUs. Interrupts are off in the kernel
//! (the idle loop and the shootdown wait aside, and neither holds a lock), so a lock needs no
//! interrupt state. A waiter whose interrupts are off would otherwise never acknowledge the
//! shootdown that the holder may be waiting for: [`relax`] does it here.
//!
//! Absent on purpose: sleeping locks. Nothing waits inside the kernel but spin locks;
//! whatever has to wait longer returns [`Outcome::Block`](crate::sched::Outcome).
//!
//! Lock order, outermost first: file system (see `fs`), process tree, signals, wait queues
//! and futex buckets, timers, run queues, heap, console.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;

/// Data behind a spin lock.
pub struct Lock<T> {
    held: AtomicBool,
    data: UnsafeCell<T>,
}

// SAFETY: the guard is the only way to the data and only one guard exists at a time, so the
// lock moves exclusive access between CPUs: that needs `T: Send` and no more.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Proof that this CPU holds the lock.
pub struct Guard<'l, T> {
    lock: &'l Lock<T>,
}

impl<T> Lock<T> {
    /// A lock nobody holds.
    pub const fn new(data: T) -> Lock<T> {
        Lock { held: AtomicBool::new(false), data: UnsafeCell::new(data) }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        self.lock_contended()
    }

    /// Takes the lock if it is free right now.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire pairs with the Release in `Guard::drop`.
        self.held
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            // Lazily: a guard made in vain would release somebody else's lock when dropped.
            .then(|| Guard { lock: self })
    }

    /// The data, reached through exclusive access to the lock itself.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[cold]
    fn lock_contended(&self) -> Guard<'_, T> {
        let mut spin = Spin::new();
        loop {
            while self.held.load(Ordering::Relaxed) {
                spin.relax();
            }
            if let Some(guard) = self.try_lock() {
                return guard;
            }
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so no other reference to the data exists.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the lock, so no other reference to the data exists.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // Pairs with the Acquire in `Lock::try_lock`.
        self.lock.held.store(false, Ordering::Release);
    }
}

/// One wait of a spin loop: busy at first, halting later.
///
/// A CPU of an emulator is a thread of a host that may have fewer CPUs. Whoever spins there takes
/// the time that the one waited for needs, and `pause` is worse: under multi-threaded emulation it
/// takes the emulator's big lock. So a wait is busy only as long as a holder that runs takes to
/// finish; then it halts for a moment, again and again. Under single-threaded emulation a busy wait
/// holds up everybody for a time slice, which the halt ends, too.
pub struct Spin {
    rounds: u32,
}

impl Spin {
    const BUSY_ROUNDS: u32 = 256;

    /// The start of a wait.
    pub const fn new() -> Spin {
        Spin { rounds: 0 }
    }

    /// One round: serves the shootdowns that other CPUs ask of this one.
    pub fn relax(&mut self) {
        arch::tlb::serve();
        self.rounds += 1;
        if self.rounds > Self::BUSY_ROUNDS {
            arch::nap();
        }
    }

    /// Whether the next round still is a busy one.
    pub fn is_busy(&self) -> bool {
        self.rounds <= Self::BUSY_ROUNDS
    }
}
