//! Threads that work in step.
//!
//! Called by `storm` and `stale`. Absent on purpose: thread pools; a phase starts its
//! threads and joins them, which also tries thread creation.

use crate::sys;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Lets `threads` threads run `work(number)` and joins them.
///
/// # Panics
///
/// If the kernel cannot start a thread.
pub fn crew(threads: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for number in 0..threads {
            let work = &work;
            let builder = thread::Builder::new().stack_size(256 << 10);
            builder.spawn_scoped(scope, move || work(number)).expect("a thread");
        }
    });
}

/// Number of CPUs this process may use.
#[must_use]
pub fn cpus() -> usize {
    let mut mask = [0_u64; 16];
    let args = [0, size_of_val(&mask), mask.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: `mask` has room for what the call writes.
    let known = unsafe { sys::call(libc::SYS_sched_getaffinity, args) };
    let count = mask.iter().map(|word| word.count_ones() as usize).sum::<usize>();
    if known.is_ok() && count > 0 { count } else { 1 }
}

/// A barrier that spins, so that threads leave it at nearly the same time.
#[derive(Debug)]
pub struct Gate {
    threads: usize,
    arrived: AtomicUsize, // (A) pairs with itself
    round: AtomicUsize,   // (A) pairs with itself
}

impl Gate {
    /// A barrier for `threads` threads.
    #[must_use]
    pub const fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Waits until all threads are here.
    pub fn wait(&self) {
        // Pairs with the store to `round` below: what was done before the barrier is seen.
        let round = self.round.load(Ordering::Acquire);
        // Pairs with itself: the last one sees what all others did.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            // Pairs with the loads of `round`.
            self.round.store(round + 1, Ordering::Release);
            return;
        }
        let mut turns = 0;
        // Ends when the last thread arrives. Pairs with the store to `round`.
        while self.round.load(Ordering::Acquire) == round {
            pause(&mut turns);
        }
    }
}

/// One turn of a spin loop: a few pauses, then the CPU is given away, because there may
/// be more threads than CPUs.
pub fn pause(turns: &mut u32) {
    *turns += 1;
    if turns.is_multiple_of(64) {
        sys::sched_yield();
    } else {
        core::hint::spin_loop();
    }
}
