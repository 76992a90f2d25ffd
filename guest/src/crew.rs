//! Threads that work in step.
//!
//! Called by `storm` and `stale`. Absent on purpose: thread pools; a phase starts its
//! threads and joins them, which also tries thread creation.

use crate::sys;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// As [`crew`], each thread on a CPU of its own as far as there are enough.
///
/// # Panics
///
/// If the kernel cannot start a thread.
pub fn pinned_crew(threads: usize, work: impl Fn(usize) + Sync) {
    crew(threads, |number| {
        pin(number);
        work(number);
    });
}

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
    allowed().len()
}

/// Keeps the calling thread on the `number`th CPU it may use, counted round and round, so
/// that threads really run at the same time. A kernel that refuses changes nothing.
pub fn pin(number: usize) {
    let allowed = allowed();
    let cpu = allowed[number % allowed.len()];
    let mut mask = [0_u64; 16];
    mask[cpu / 64] = 1 << (cpu % 64);
    let args = [0, size_of_val(&mask), mask.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel only reads the mask.
    let _ = unsafe { sys::call(libc::SYS_sched_setaffinity, args) };
}

/// Numbers of the CPUs that the calling thread may use; CPU 0 if the kernel does not say.
fn allowed() -> Vec<usize> {
    let mut mask = [0_u64; 16];
    let args = [0, size_of_val(&mask), mask.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: `mask` has room for what the call writes.
    let known = unsafe { sys::call(libc::SYS_sched_getaffinity, args) };
    if known.is_err() || mask == [0; 16] {
        return vec![0];
    }
    (0..1024).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// A barrier. Threads that come soon enough spin, so that they leave it at nearly the
/// same time; the others sleep, because there may be more threads than CPUs.
#[derive(Debug)]
pub struct Gate {
    threads: u32,
    arrived: AtomicU32,  // (A) pairs with itself
    round: AtomicU32,    // (A) pairs with itself
    sleepers: AtomicU32, // (A) raised before a thread sleeps on `round`
}

impl Gate {
    /// A barrier for `threads` threads.
    #[must_use]
    pub const fn new(threads: usize) -> Self {
        let [arrived, round, sleepers] = [const { AtomicU32::new(0) }; 3];
        Self { threads: threads as u32, arrived, round, sleepers }
    }

    /// Waits until all threads are here.
    pub fn wait(&self) {
        // Pairs with the store to `round` below: what was done before the barrier is seen.
        let round = self.round.load(Ordering::Acquire);
        // Pairs with itself: the last one sees what all others did.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            // SeqCst as all of `sleepers`: either the sleeper sees the round, or we see it.
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                sys::futex_wake(&self.round);
            }
            return;
        }
        for _ in 0..300 {
            // Pairs with the store to `round`.
            if self.round.load(Ordering::Acquire) != round {
                return;
            }
            burn();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Ends when the last thread arrives. Pairs with the store to `round`.
        while self.round.load(Ordering::Acquire) == round {
            sys::futex_wait(&self.round, round);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One turn of a spin loop: a short delay, and now and then the CPU is given away, because
/// there may be more threads than CPUs.
pub fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    if turns.is_multiple_of(64) {
        sys::sched_yield();
    } else {
        burn();
    }
}

/// A few dozen instructions. Not the instruction `pause`: an emulator may take it as a
/// reason to leave its loop.
fn burn() {
    // SAFETY: counts down a register.
    unsafe { asm!("2: dec {0:e}", "jnz 2b", inout(reg) 16 => _, options(nostack)) };
}
