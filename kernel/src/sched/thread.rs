//! A thread: what the scheduler, signals and system calls know of it.
//!
//! Letters: (I) fixed at creation, (A) atomic alone, (L) behind its lock, (C) touched only by the
//! CPU on which the thread is current (or by the one that takes it off a run queue).

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::arch::UserContext;
use crate::process::{Process, Usage};
use crate::signal::{SigSet, ThreadSignals};
use crate::sync::Lock;

/// A thread of a user process.
pub struct Thread {
    /// (I) Thread id; equal to the process id for the first thread.
    pub tid: i32,
    /// (I) The process it belongs to.
    pub process: Arc<Process>,
    /// (A) Wait number and [`ThreadState`], see `pack`.
    state: AtomicU64,
    /// (A) Something has to be looked at before the thread goes back to user mode.
    attention: AtomicBool,
    /// (A) The CPU it runs on or ran on last.
    pub cpu: AtomicU32,
    /// (A) CPUs it may run on, one bit each.
    pub affinity: AtomicU64,
    /// (A) Blocked signals; written by the thread itself only.
    blocked: AtomicU64,
    /// (A) Signals that `sigtimedwait` waits for although they are blocked.
    awaited: AtomicU64,
    /// (L) Signals sent to this thread, and its alternate stack.
    pub signals: Lock<ThreadSignals>,
    /// (A) `set_tid_address`: cleared and woken when the thread ends; 0 if none.
    pub clear_child_tid: AtomicU64,
    /// (A) `set_robust_list`: address of the head; 0 if none.
    pub robust_list: AtomicU64,
    /// (A) CPU time consumed.
    pub usage: Usage,
    /// (L) The name that `prctl(PR_SET_NAME)` sets, zero padded.
    pub name: Lock<[u8; 16]>,
    /// (C) User registers while the thread is not in user mode.
    context: UnsafeCell<UserContext>,
}

// SAFETY: `context` is the only field that is not `Sync` by itself. The scheduler makes a thread
// current on at most one CPU at a time, hands it over through a run queue's lock, and only the
// run loop of that CPU calls `context_mut`.
unsafe impl Sync for Thread {}
// SAFETY: nothing in a thread is bound to the CPU that created it.
unsafe impl Send for Thread {}

/// Where a thread is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum ThreadState {
    /// Current on a CPU or in a run queue.
    Running = 0,
    /// Running, and woken since it last looked: it must not park.
    Notified = 1,
    /// Off all queues until something wakes it.
    Parked = 2,
    /// Gone; it will not run again.
    Dead = 3,
}

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

fn pack(wait: u64, state: ThreadState) -> u64 {
    wait << STATE_BITS | state as u64
}

fn unpack(word: u64) -> (u64, ThreadState) {
    let state = match word & STATE_MASK {
        0 => ThreadState::Running,
        1 => ThreadState::Notified,
        2 => ThreadState::Parked,
        _ => ThreadState::Dead,
    };
    (word >> STATE_BITS, state)
}

/// What a wake-up did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The thread was parked; the caller must enqueue it.
    Enqueue,
    /// The thread runs and will look again before it parks.
    Noted,
    /// It waits for something else by now, or is gone.
    Stale,
}

impl Thread {
    /// A thread that is not on any queue yet.
    pub fn new(tid: i32, process: Arc<Process>, context: UserContext, blocked: SigSet) -> Arc<Thread> {
        Arc::new(Thread {
            tid,
            process,
            state: AtomicU64::new(pack(0, ThreadState::Running)),
            attention: AtomicBool::new(false),
            cpu: AtomicU32::new(0),
            affinity: AtomicU64::new(u64::MAX),
            blocked: AtomicU64::new(blocked.bits()),
            awaited: AtomicU64::new(0),
            signals: Lock::new(ThreadSignals::default()),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            usage: Usage::default(),
            name: Lock::new([0; 16]),
            context: UnsafeCell::new(context),
        })
    }

    /// Its state at this moment, for /proc.
    pub fn state(&self) -> ThreadState {
        unpack(self.state.load(Ordering::Relaxed)).1
    }

    /// The signals it blocks.
    pub fn blocked(&self) -> SigSet {
        SigSet::from_bits(self.blocked.load(Ordering::Relaxed))
    }

    /// Replaces the mask. Only the thread itself may do this.
    pub fn set_blocked(&self, mask: SigSet) {
        self.blocked.store(mask.blockable().bits(), Ordering::Relaxed);
        // What the old mask held back may be deliverable now.
        self.note_attention();
    }

    /// The signals that `sigtimedwait` waits for.
    pub fn awaited(&self) -> SigSet {
        SigSet::from_bits(self.awaited.load(Ordering::SeqCst))
    }

    /// Sets `awaited`, before the thread looks at what is pending. SeqCst pairs with the sender,
    /// which adds the signal first and looks at `awaited` afterwards.
    pub fn set_awaited(&self, set: SigSet) {
        self.awaited.store(set.bits(), Ordering::SeqCst);
    }

    /// Makes the run loop look at signals and kills before it goes back to user mode.
    pub fn note_attention(&self) {
        // Pairs with the Acquire in `take_attention`: what is to be seen was written before.
        self.attention.store(true, Ordering::Release);
    }

    /// True once after each `note_attention`.
    pub(crate) fn take_attention(&self) -> bool {
        // The load alone is the common case and keeps the line shared.
        self.attention.load(Ordering::Relaxed)
            // Acquire pairs with the Release in `note_attention`.
            && self.attention.swap(false, Ordering::Acquire)
    }

    /// Whether `take_attention` would say yes.
    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed)
    }

    /// Number of the wait that a registration made now belongs to.
    pub(super) fn current_wait(&self) -> u64 {
        unpack(self.state.load(Ordering::Relaxed)).0
    }

    /// Called by the run loop before a system call is executed: wake-ups up to now are consumed,
    /// because the call is about to look at all conditions anyway.
    pub(super) fn begin_call(&self) {
        let word = self.state.load(Ordering::Relaxed);
        let (wait, state) = unpack(word);
        if state == ThreadState::Notified {
            // AcqRel pairs with the CAS in `note_wake`: the event is visible to the call.
            self.state.swap(pack(wait + 1, ThreadState::Running), Ordering::AcqRel);
        }
    }

    /// Parks the thread unless it was woken since `begin_call`. Says whether it is parked now; if
    /// it is, another CPU may already be running it.
    pub(super) fn park(&self) -> bool {
        let word = self.state.load(Ordering::Relaxed);
        let (wait, state) = unpack(word);
        state == ThreadState::Running
            // Release pairs with the Acquire in `note_wake`: the waker's CPU finds the context.
            && self
                .state
                .compare_exchange(
                    word,
                    pack(wait, ThreadState::Parked),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Marks the thread as gone.
    pub(super) fn set_dead(&self) {
        self.state.store(pack(0, ThreadState::Dead), Ordering::Release);
    }

    /// Ends the wait `wait` (any wait if `None`).
    pub(super) fn note_wake(&self, wait: Option<u64>) -> Woken {
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let (number, state) = unpack(word);
            if wait.is_some_and(|w| w != number) {
                return Woken::Stale;
            }
            let (next, result) = match state {
                ThreadState::Running => (pack(number, ThreadState::Notified), Woken::Noted),
                ThreadState::Notified => return Woken::Noted,
                ThreadState::Parked => (pack(number + 1, ThreadState::Running), Woken::Enqueue),
                ThreadState::Dead => return Woken::Stale,
            };
            // AcqRel pairs with `park` (context) and `begin_call` (the event).
            match self.state.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return result,
                // Ends: each failure is another party's progress, and states only cycle
                // through the owner's own system calls.
                Err(seen) => word = seen,
            }
        }
    }

    /// The user registers.
    ///
    /// # Safety
    ///
    /// The thread must be current on this CPU (or known to no other CPU yet), and no other
    /// reference to its context may be alive.
    #[expect(clippy::mut_from_ref, reason = "exclusive by the scheduler's ownership, see above")]
    pub(crate) unsafe fn context_mut(&self) -> &mut UserContext {
        // SAFETY: exclusive by the caller's promise.
        unsafe { &mut *self.context.get() }
    }
}
