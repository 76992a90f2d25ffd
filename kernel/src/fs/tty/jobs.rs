//! Job control: who may use the terminal.
//!
//! Called by the terminal's reads, writes and ioctls. A background process is sent SIGTTIN or SIGTTOU,
//! which stop it; its call then fails with `EINTR` here, and the system call turns that into
//! another execution after the signal has been dealt with.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::super::device::device_number;
use super::Tty;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::process::{Process, table};
use crate::sched::Thread;
use crate::signal::{self, SigInfo, number};

/// What a background process may do although it is in the background.
enum Background {
    /// Go on: the signal would not stop it, and the operation is harmless.
    Proceed,
    /// Nothing.
    Refuse,
}

impl Tty {
    /// Whether this is the controlling terminal of `process`.
    pub fn controls(&self, process: &Process) -> bool {
        let session = self.state.lock().session;
        session != 0 && session == process.session()
    }

    /// Device number and foreground group of the controlling terminal of `process`; 0 and -1 if it has
    /// none.
    pub fn of_process(&self, process: &Process) -> (u64, i32) {
        if self.controls(process) { (device_number(5, 1), self.state.lock().foreground) } else { (0, -1) }
    }

    /// Refuses reads from the background.
    pub(super) fn check_read(&self, cpu: &CpuLocal) -> Result<(), Errno> {
        self.check(cpu.current(), number::SIGTTIN, Background::Refuse)
    }

    /// Refuses writes from the background if the terminal is set so.
    pub(super) fn check_write(&self, cpu: &CpuLocal) -> Result<(), Errno> {
        if !self.state.lock().discipline.termios().has_local(linux::TOSTOP) {
            return Ok(());
        }
        self.check(cpu.current(), number::SIGTTOU, Background::Proceed)
    }

    /// Refuses changes from the background.
    pub(super) fn check_change(&self, cpu: &CpuLocal) -> Result<(), Errno> {
        self.check(cpu.current(), number::SIGTTOU, Background::Proceed)
    }

    fn check(&self, thread: &Arc<Thread>, signal: i32, held_back: Background) -> Result<(), Errno> {
        let process = &thread.process;
        let foreground = self.state.lock().foreground;
        if !self.controls(process) || foreground == 0 || process.group() == foreground {
            return Ok(());
        }
        let ignored = process.signals.lock().action(signal).handler == 1;
        if ignored || thread.blocked().contains(signal) {
            return match held_back {
                Background::Proceed => Ok(()),
                Background::Refuse => Err(Errno::EIO),
            };
        }
        if is_orphaned(process.group(), process.session()) {
            return Err(Errno::EIO);
        }
        signal::send_group(process.group(), SigInfo::kernel(signal));
        Err(Errno::EINTR)
    }

    /// `TIOCGPGRP`.
    pub(super) fn foreground(&self, process: &Process) -> Result<i32, Errno> {
        if !self.controls(process) {
            return Err(Errno::ENOTTY);
        }
        Ok(self.state.lock().foreground)
    }

    /// `TIOCSPGRP`.
    pub(super) fn set_foreground(&self, cpu: &CpuLocal, group: i32) -> Result<(), Errno> {
        let process = &cpu.current().process;
        if !self.controls(process) {
            return Err(Errno::ENOTTY);
        }
        self.check_change(cpu)?;
        if group < 0 {
            return Err(Errno::EINVAL);
        }
        if !table::any_in_group(group, |_| true) {
            return Err(Errno::ESRCH);
        }
        if !table::any_in_group(group, |member| member.session() == process.session()) {
            return Err(Errno::EPERM);
        }
        self.state.lock().foreground = group;
        Ok(())
    }

    /// `TIOCSCTTY`: the terminal becomes that of the caller's session.
    pub(super) fn take_control(&self, process: &Process) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.session == process.session() {
            return Ok(());
        }
        let leads = process.session() == process.pid;
        let is_free = state.session == 0 || table::find(state.session).is_none();
        if !leads || !is_free {
            return Err(Errno::EPERM);
        }
        state.session = process.session();
        state.foreground = process.group();
        Ok(())
    }

    /// A session leader without a terminal opens this one: it becomes its own if it is free.
    pub fn offer_control(&self, process: &Process) {
        if process.session() == process.pid {
            // A refusal only means that it stays somebody else's.
            let _ = self.take_control(process);
        }
    }

    /// `TIOCNOTTY`: the session has no terminal any more.
    pub(super) fn give_up_control(&self, process: &Process) -> Result<(), Errno> {
        if !self.controls(process) {
            return Err(Errno::ENOTTY);
        }
        if process.session() != process.pid {
            // Only the leader's terminal is a property of the session here.
            return Err(Errno::EPERM);
        }
        let foreground = {
            let mut state = self.state.lock();
            state.session = 0;
            core::mem::take(&mut state.foreground)
        };
        signal::send_group(foreground, SigInfo::kernel(number::SIGHUP));
        signal::send_group(foreground, SigInfo::kernel(number::SIGCONT));
        Ok(())
    }
}

/// Whether no member of the group has a parent in the session but outside of the group: nobody could
/// continue it if it stopped.
fn is_orphaned(group: i32, session: i32) -> bool {
    let has_guide = |member: &Process| {
        let parent = member.family.lock().parent.upgrade();
        parent.is_some_and(|p| p.group() != group && p.session() == session)
    };
    !table::any_in_group(group, has_guide)
}
