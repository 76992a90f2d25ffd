//! Processes: who owns what, and the calls that create and end them.
//!
//! Called by the system call table and the run loop. A process owns its threads, file table and
//! signal actions; its memory is a [`Memory`] that `vfork` children share.
//!
//! Letters: (I) fixed at creation, (A) atomic alone, (L) behind its lock.
//!
//! Lock order: [`table`] before a process' `family`, before `threads`, before `signals`.

mod capabilities;
mod clone;
mod elf;
mod exec;
mod exit;
mod jobs;
mod limits;
mod memory;
mod stack;
pub mod table;
mod usage;
mod wait;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

pub use capabilities::Capabilities;
pub use clone::{sys_clone, sys_clone3, sys_fork, sys_vfork};
pub use exec::{ExecRequest, spawn_first, sys_execve};
pub use exit::{ExitStatus, kill_group, sys_exit, sys_exit_group};
pub(crate) use exit::{end_thread, notify_of_job_control};
pub use jobs::{sys_getpgid, sys_getsid, sys_setpgid, sys_setsid};
pub use memory::Memory;
pub use usage::{Usage, UsageTotals};
pub use wait::{sys_wait4, sys_waitid};

use crate::errno::Errno;
use crate::fs::{FileTable, FsContext};
use crate::machine;
use crate::sched::{Interrupt, Thread, WaitQueue};
use crate::signal::{Alarm, ProcessSignals, is_interrupted};
use crate::sync::Lock;

/// A process (a thread group).
pub struct Process {
    /// (I) Process id.
    pub pid: i32,
    /// (L) Parent and children.
    pub family: Lock<Family>,
    /// (A) Process group; changed under `table`'s lock.
    pub group: AtomicI32,
    /// (A) Session; changed under `table`'s lock.
    pub session: AtomicI32,
    /// (L) The address space and what is known about the program in it.
    memory: Lock<Arc<Memory>>,
    /// (L) Open files; `clone(CLONE_FILES)` shares the table.
    files: Lock<Option<Arc<FileTable>>>,
    /// (L) Working directory and umask; `clone(CLONE_FS)` shares them.
    fs: Lock<Option<Arc<FsContext>>>,
    /// (L) Live threads, the first one first.
    pub threads: Lock<Vec<Arc<Thread>>>,
    /// (L) Signal actions and signals sent to the process.
    pub signals: Lock<ProcessSignals>,
    /// (L) `setitimer(ITIMER_REAL)`.
    pub alarm: Lock<Alarm>,
    /// (L) How it ended, once it has.
    pub ending: Lock<Ending>,
    /// Woken when a child ends, stops or continues.
    pub child_events: WaitQueue,
    /// Woken when a thread ends, for `execve`.
    thread_exits: WaitQueue,
    /// Woken when it is a zombie, for who polls a descriptor of it.
    pub ended: WaitQueue,
    /// Woken when this process has left its parent's memory (`vfork`).
    pub released: WaitQueue,
    /// (A) Set with `released`: the program was executed or the process is gone.
    pub has_released: AtomicBool,
    /// (A) It has executed a program since it was forked (`setpgid` cares).
    pub has_executed: AtomicBool,
    /// (A) Id of the thread that is in `execve` and wants the others gone; 0 if none.
    executing: AtomicI32,
    /// (A) Signal sent to the parent at the end; 0 for none. `execve` makes it SIGCHLD.
    pub exit_signal: AtomicI32,
    /// (A) Consumed by threads that are gone.
    pub usage: Usage,
    /// (A) Consumed by children that were waited for.
    pub children_usage: Usage,
    /// (A) `clock::monotonic` at creation.
    pub started: AtomicU64,
    /// (A) What memory calls ask of `limits` and `capabilities`; see `limits`.
    memory_rights: limits::MemoryRights,
    /// (L) What `capset` left.
    pub capabilities: Lock<Capabilities>,
    /// (L) Resource limits, indexed by `RLIMIT_*`: soft and hard.
    pub limits: Lock<[(u64, u64); 16]>,
}

/// Relations to other processes.
#[derive(Default)]
pub struct Family {
    /// The parent; dangling for the first process and for orphans, which the kernel reaps.
    pub parent: Weak<Process>,
    /// Children, zombies included.
    pub children: Vec<Arc<Process>>,
}

/// Stages of the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Set when the group is told to end; the first reason wins.
    pub reason: Option<ExitStatus>,
    /// The last thread is gone: a zombie.
    pub zombie: bool,
    /// A zombie that a parent's `wait` has taken.
    pub reaped: bool,
    /// Stopped by this signal and not continued since.
    pub stopped: Option<i32>,
    /// The parent has not been told about the stop yet.
    pub stop_unreported: bool,
    /// Continued, and the parent has not been told yet.
    pub continue_unreported: bool,
}

impl Process {
    /// The memory it uses now.
    pub fn memory(&self) -> Arc<Memory> {
        self.memory.lock().clone()
    }

    /// Its file table.
    ///
    /// # Panics
    ///
    /// If the process has ended: ask for another process' table with `try_files`.
    pub fn files(&self) -> Arc<FileTable> {
        self.try_files().expect("a running process has a file table")
    }

    /// The file table of a process that may have ended.
    pub fn try_files(&self) -> Option<Arc<FileTable>> {
        self.files.lock().clone()
    }

    /// Its working directory and umask.
    ///
    /// # Panics
    ///
    /// If the process has ended: ask for another process' with `try_fs`.
    pub fn fs(&self) -> Arc<FsContext> {
        self.try_fs().expect("a running process has a working directory")
    }

    /// Working directory and umask of a process that may have ended.
    pub fn try_fs(&self) -> Option<Arc<FsContext>> {
        self.fs.lock().clone()
    }

    /// Whether one of its threads is in `execve` and waits for the others to end.
    pub(crate) fn is_executing(&self) -> bool {
        self.executing.load(Ordering::Relaxed) != 0
    }

    /// Whether a thread other than `tid` is in `execve`, so that `tid` has to end.
    pub(crate) fn executing_other_than(&self, tid: i32) -> bool {
        let executing = self.executing.load(Ordering::Relaxed);
        executing != 0 && executing != tid
    }

    /// Consumption of the whole process: threads that are gone and those that live.
    pub fn total_usage(&self) -> UsageTotals {
        let threads = self.threads.lock();
        threads.iter().fold(self.usage.totals(), |sum, t| sum + t.usage.totals())
    }

    /// Process id of the parent; 0 for the first process, 1 for orphans.
    pub fn parent_pid(&self) -> i32 {
        match self.family.lock().parent.upgrade() {
            Some(parent) => parent.pid,
            None => i32::from(self.pid != 1),
        }
    }

    /// Process group id.
    pub fn group(&self) -> i32 {
        self.group.load(Ordering::Relaxed)
    }

    /// Session id.
    pub fn session(&self) -> i32 {
        self.session.load(Ordering::Relaxed)
    }

    /// Whether it is a zombie.
    pub fn is_zombie(&self) -> bool {
        self.ending.lock().zombie
    }

    /// The thread that stands for the process: the first one still alive.
    pub fn first_thread(&self) -> Option<Arc<Thread>> {
        self.threads.lock().first().cloned()
    }

    /// The soft limit `RLIMIT_*` with this number.
    pub fn limit(&self, resource: usize) -> u64 {
        self.limits.lock().get(resource).map_or(u64::MAX, |l| l.0)
    }
}

/// Whether a signal, a stop or the end of its process waits for the thread.
fn signal_waits(thread: &Thread) -> bool {
    is_interrupted(thread, Interrupt::Restartable)
}

/// The strings of the first program.
///
/// # Errors
///
/// `ENOMEM`.
pub fn strings(list: &[Vec<u8>]) -> Result<stack::Strings, Errno> {
    let mut strings = stack::Strings::default();
    for text in list {
        strings.push(text).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(strings)
}

/// How far a stack grows unless a limit says otherwise.
pub(crate) const DEFAULT_STACK_LIMIT: u64 = 8 << 20;

/// Limits of a fresh process, soft and hard, by `RLIMIT_*`.
fn default_limits() -> [(u64, u64); 16] {
    const STACK: usize = 3;
    const CORE: usize = 4;
    const FILES: usize = 7;
    const LOCKED: usize = 8;
    const SIGNALS: usize = 11;
    let mut limits = [(u64::MAX, u64::MAX); 16];
    limits[STACK] = (DEFAULT_STACK_LIMIT, u64::MAX);
    limits[CORE] = (0, u64::MAX);
    limits[FILES] = (1024, 4096);
    limits[LOCKED] = (8 << 20, 8 << 20);
    // Linux derives both from the memory in the same way: half as many as it admits threads.
    let signals = (machine::vm().stats().total_frames / 64).max(1024);
    limits[SIGNALS] = (signals, signals);
    limits
}
