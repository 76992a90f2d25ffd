//! Signals: who has which pending, what they do, and how a handler is entered and left.
//!
//! Called by system calls (`calls`), the run loop (`deliver`), faults and the terminal (`send`).
//!
//! Absent on purpose: queues of more than one instance for standard signals (as in Linux), core
//! dumps, and `ptrace`.

mod alarm;
mod calls;
mod deliver;
mod frame;
mod send;
mod set;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use linux_raw_sys::general as linux;

use crate::heap;
use crate::sync::Lock;

pub use alarm::{Alarm, sys_alarm, sys_getitimer, sys_setitimer};
pub use calls::{
    TKILL, sys_kill, sys_pause, sys_rt_sigaction, sys_rt_sigpending, sys_rt_sigprocmask, sys_rt_sigqueueinfo,
    sys_rt_sigreturn, sys_rt_sigsuspend, sys_rt_sigtimedwait, sys_sigaltstack, sys_tgkill, sys_tkill,
};
pub use deliver::{Verdict, before_user, is_interrupted};
pub use send::{
    exception, page_fault, queue_process, raise, reaps_children_automatically, ring, send_group, send_process,
    send_thread, wants_stop_signals,
};
pub use set::{DefaultAction, SigSet, default_of, is_signal, number};

/// A signal and what `siginfo_t` says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigInfo {
    /// The signal number.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// The part that depends on the code.
    pub detail: Detail,
}

/// The union inside `siginfo_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing more.
    None,
    /// Sent by a process: its id, user 0.
    Sender {
        /// The sender.
        pid: i32,
        /// `sigqueue`'s value.
        value: u64,
    },
    /// A fault at this address.
    Address(u64),
    /// A child changed state.
    Child {
        /// The child.
        pid: i32,
        /// Exit status or signal number.
        status: i32,
        /// User time in clock ticks.
        user: i64,
        /// System time in clock ticks.
        system: i64,
    },
}

impl SigInfo {
    /// From the kernel itself (`SI_KERNEL`): the terminal, SIGPIPE.
    pub fn kernel(signal: i32) -> SigInfo {
        SigInfo { signal, code: linux::SI_KERNEL as i32, detail: Detail::None }
    }

    /// From `kill` by process `pid`.
    pub fn user(signal: i32, pid: i32) -> SigInfo {
        SigInfo { signal, code: linux::SI_USER as i32, detail: Detail::Sender { pid, value: 0 } }
    }
}

/// What a process wants done about one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Action {
    /// `SIG_DFL` (0), `SIG_IGN` (1) or the address of the handler.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// `sa_restorer`.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

/// One action per signal; index 0 is signal 1. Their lock is taken inside that of `ProcessSignals`.
pub struct Actions(Lock<[Action; 64]>);

impl Actions {
    /// These.
    pub fn new(actions: [Action; 64]) -> Arc<Actions> {
        Arc::new(Actions(Lock::new(actions)))
    }

    /// All of them now.
    pub fn all(&self) -> [Action; 64] {
        *self.0.lock()
    }

    /// Replaces one.
    pub fn set(&self, signal: i32, action: Action) {
        self.0.lock()[signal as usize - 1] = action;
    }
}

/// Signals that were sent and not delivered yet.
#[derive(Default)]
pub struct Pending {
    set: SigSet,
    /// What is known about them; of a signal in `set` there may be nothing if there was no room.
    infos: VecDeque<SigInfo>,
}

/// Elements of all queues in [`Pending`]s: what `RLIMIT_SIGPENDING` limits, for there is one user.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// How many signals are queued, in all processes.
pub fn queued() -> usize {
    QUEUED.load(Ordering::Relaxed)
}

/// There is no room in the queue for a signal whose sender wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl Drop for Pending {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.infos.len(), Ordering::Relaxed);
    }
}

/// Signal state of a process.
pub struct ProcessSignals {
    /// What is done about each signal. Shared by the threads, and by processes made with `CLONE_SIGHAND`.
    pub actions: Arc<Actions>,
    /// Sent to the process as a whole.
    pub pending: Pending,
}

/// Signal state of a thread.
#[derive(Default)]
pub struct ThreadSignals {
    /// Sent to this thread.
    pub pending: Pending,
    /// `sigaltstack`: base, size and flags; size 0 if there is none.
    pub alternate: AlternateStack,
}

/// The stack that `SA_ONSTACK` handlers run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AlternateStack {
    /// Lowest address.
    pub base: u64,
    /// Bytes; 0 if disabled.
    pub size: u64,
    /// `SS_AUTODISARM` or 0.
    pub flags: u32,
}

impl Default for ProcessSignals {
    fn default() -> ProcessSignals {
        ProcessSignals { actions: Actions::new([Action::default(); 64]), pending: Pending::default() }
    }
}

impl ProcessSignals {
    /// The action for `signal`.
    pub fn action(&self, signal: i32) -> Action {
        self.actions.0.lock()[signal as usize - 1]
    }

    /// Whether sending `signal` now would have no effect at all.
    pub fn ignores(&self, signal: i32) -> bool {
        match self.action(signal).handler {
            0 => default_of(signal) == DefaultAction::Ignore,
            handler => handler == 1,
        }
    }

    /// The actions after `execve`: handlers are gone, "ignore" stays.
    pub fn for_exec(&mut self) {
        // Those of others that shared them stay as they are.
        self.actions = Actions::new(self.actions.all().map(|action| {
            let handler = if action.handler == 1 { 1 } else { 0 };
            Action { handler, ..Action::default() }
        }));
    }
}

impl Pending {
    /// The signals in it.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal. A standard signal that is pending already is not added again.
    ///
    /// Up to `limit` signals are queued, and standard ones that the kernel or `kill` sends beyond that.
    /// If there is no room, what is known about a signal is lost, but not the signal.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if that would deceive somebody: of real-time signals each one sent is delivered.
    pub fn add(&mut self, info: SigInfo, limit: u64) -> Result<(), Overflow> {
        let standard = info.signal < 32;
        if standard && self.set.contains(info.signal) {
            return Ok(());
        }
        let limit = if standard && info.code >= 0 { u64::MAX } else { limit };
        let queued = self.queue(info, limit);
        if !queued && !standard && info.code != linux::SI_USER as i32 {
            return Err(Overflow);
        }
        self.set = self.set.with(SigSet::of(info.signal));
        Ok(())
    }

    fn queue(&mut self, info: SigInfo, limit: u64) -> bool {
        // A fault's address is worth the reserve: there is one a thread.
        let affordable = matches!(info.detail, Detail::Address(_)) || !heap::is_low();
        let before = QUEUED.fetch_add(1, Ordering::Relaxed) as u64;
        let fits = before < limit && affordable && self.infos.try_reserve(1).is_ok();
        if fits {
            self.infos.push_back(info);
        } else {
            QUEUED.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    /// Takes the first signal that is in `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.set.and(wanted).first()?;
        let index = self.infos.iter().position(|i| i.signal == signal);
        let info = index.and_then(|index| self.infos.remove(index));
        if info.is_some() {
            QUEUED.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.infos.iter().any(|i| i.signal == signal) {
            self.set = self.set.without(SigSet::of(signal));
        }
        info.or(Some(SigInfo::user(signal, 0)))
    }

    /// Forgets all signals that are in `unwanted`.
    pub fn discard(&mut self, unwanted: SigSet) {
        self.set = self.set.without(unwanted);
        let before = self.infos.len();
        self.infos.retain(|i| !unwanted.contains(i.signal));
        QUEUED.fetch_sub(before - self.infos.len(), Ordering::Relaxed);
    }
}
