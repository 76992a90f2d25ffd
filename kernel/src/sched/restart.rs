//! What a blocked system call remembers until it is executed again.
//!
//! Written by the system call, cleared by the run loop when the call ends. It lives in
//! [`UserContext`](crate::arch::UserContext), so whoever executes the call has it exclusively.

use alloc::sync::Arc;

use super::timers::TimerId;
use crate::fs::{Caused, OpenFile};
use crate::futex::Waiter;
use crate::process::Process;
use crate::signal::SigSet;

/// State of a system call across its executions.
///
/// All of it is as in `Restart::default()` when a call is executed for the first time.
#[derive(Default)]
pub struct Restart {
    /// True from the second execution on.
    pub again: bool,
    /// Wake the thread at this time (`clock::monotonic`, ns) at the latest. Set it at the first
    /// execution, compare with the clock at each one: it is absolute, so it does not drift.
    pub deadline: Option<u64>,
    /// Bytes (or items) already moved; what an interrupted call returns if it is not zero.
    pub progress: usize,
    /// Signal mask to restore when the call ends (`sigsuspend`, `ppoll`, `pselect`). If a handler
    /// runs first, it is the mask that the handler's return restores.
    pub saved_mask: Option<SigSet>,
    /// What a signal handler does to this call.
    pub interrupt: Interrupt,
    /// State of the calls that need more than the above.
    pub kind: RestartKind,
    /// The timer behind `deadline` while the thread is parked.
    pub(super) timer: Option<TimerId>,
}

/// What becomes of a blocked call when a signal handler is about to run.
///
/// If `progress` is not zero, the call returns it, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interrupt {
    /// `EINTR`, or executed anew after the handler if that has `SA_RESTART`: read, write, wait...
    #[default]
    Restartable,
    /// Goes on waiting; only the end of the process interrupts it: `vfork`, `execve`.
    KillOnly,
    /// Always `EINTR`: poll, select, epoll, sigsuspend, anything with a time-out, sleeps.
    Fails,
}

/// Extra state of particular calls.
#[derive(Default)]
pub enum RestartKind {
    /// None.
    #[default]
    None,
    /// `vfork`: waits until this child has executed a program or is gone.
    Vfork(Arc<Process>),
    /// `futex`: the registered waiter, which knows whether it was woken.
    Futex(Arc<Waiter>),
    /// `open` of a FIFO: the open file, which the other end may be waiting for.
    Open(Arc<OpenFile>),
    /// Any call, done: waits until the events that it has caused are read (`userfaultfd`).
    Caused(Caused),
    /// `nanosleep`: where in user memory the time left goes if a handler ends the sleep; 0 for nowhere.
    Sleep(u64),
}

impl Restart {
    /// The call will not be executed again: takes back what it has registered.
    pub fn abandon(&mut self) {
        if let RestartKind::Futex(waiter) = &self.kind {
            waiter.withdraw();
        }
        *self = Restart::default();
    }
}
