//! Sending signals: to threads, processes and groups, from system calls, the kernel and faults.

use alloc::sync::{Arc, Weak};

use faultless::FaultError;

use super::set::number::*;
use super::{Action, DefaultAction, Detail, Overflow, SigInfo, SigSet, default_of};
use crate::arch::idt::vector;
use crate::arch::{CpuLocal, UserContext};
use crate::process::{ExitStatus, Process, kill_group, notify_of_job_control, table};
use crate::sched::{self, Thread};

/// `si_code` of faults, from the manual.
mod code {
    pub const KERNEL: i32 = 0x80;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const FPE_INTDIV: i32 = 1;
    pub const FPE_FLTINV: i32 = 7;
    pub const ILL_ILLOPN: i32 = 2;
    pub const TRAP_TRACE: i32 = 2;
}

/// Index among the resource limits.
const RLIMIT_SIGPENDING: usize = 11;

const STOPS: SigSet = SigSet::of(SIGSTOP).with(SigSet::of(SIGTSTP)).with(SigSet::of(SIGTTIN)).with(SigSet::of(SIGTTOU));

/// Sends a signal to a process as a whole, from somebody who need not know if a queue is full.
pub fn send_process(process: &Arc<Process>, info: SigInfo) {
    // What happens then is what `Pending::add` says.
    let _ = queue_process(process, info);
}

/// Sends a signal to a process as a whole.
///
/// # Errors
///
/// [`Overflow`].
pub fn queue_process(process: &Arc<Process>, info: SigInfo) -> Result<(), Overflow> {
    if !prepare(process, info.signal) {
        return Ok(());
    }
    let limit = process.limit(RLIMIT_SIGPENDING);
    // Kept: a thread that comes or goes meanwhile could be the one that has to be told.
    let threads = process.threads.lock();
    {
        let mut signals = process.signals.lock();
        if signals.ignores(info.signal) && !threads.iter().any(|t| holds_back(t, info.signal)) {
            return Ok(());
        }
        signals.pending.add(info, limit)?;
    }
    // One thread that does not block it is enough; whoever comes first takes it.
    if let Some(thread) = threads.iter().find(|t| accepts(t, info.signal)) {
        thread.note_attention();
        sched::kick(thread);
    }
    Ok(())
}

/// Sends a signal to one thread.
///
/// # Errors
///
/// [`Overflow`].
pub fn send_thread(thread: &Arc<Thread>, info: SigInfo) -> Result<(), Overflow> {
    let process = &thread.process;
    if !prepare(process, info.signal) {
        return Ok(());
    }
    if process.signals.lock().ignores(info.signal) && !holds_back(thread, info.signal) {
        return Ok(());
    }
    let limit = process.limit(RLIMIT_SIGPENDING);
    thread.signals.lock().pending.add(info, limit)?;
    thread.note_attention();
    if accepts(thread, info.signal) {
        sched::kick(thread);
    }
    Ok(())
}

/// Sends a signal to all processes of a group, those included that are being forked. Returns how
/// many there are.
pub fn send_group(group: i32, info: SigInfo) -> usize {
    table::for_group(group, |process| send_process(process, info))
}

/// Sends the running thread a signal of its own making: SIGPIPE.
pub fn raise(thread: &Arc<Thread>, signal: i32) {
    // It is a standard signal, which is never refused.
    let _ = send_thread(thread, SigInfo::kernel(signal));
}

/// Does what a signal does to a process at once, handler or not. Says whether there is more to do.
fn prepare(process: &Arc<Process>, signal: i32) -> bool {
    if process.is_zombie() {
        return false;
    }
    if signal == SIGKILL {
        kill_group(process, ExitStatus::Killed(SIGKILL));
        return false;
    }
    if signal == SIGCONT {
        discard(process, STOPS);
        resume(process);
    } else if STOPS.contains(signal) {
        discard(process, SigSet::of(SIGCONT));
    }
    true
}

fn discard(process: &Process, unwanted: SigSet) {
    process.signals.lock().pending.discard(unwanted);
    for thread in process.threads.lock().iter() {
        thread.signals.lock().pending.discard(unwanted);
    }
}

/// Lets a stopped process go on.
fn resume(process: &Arc<Process>) {
    {
        let mut ending = process.ending.lock();
        if ending.stopped.take().is_none() {
            return;
        }
        ending.stop_unreported = false;
        ending.continue_unreported = true;
    }
    for thread in process.threads.lock().iter() {
        sched::wake(thread);
    }
    notify_of_job_control(process, None);
}

fn holds_back(thread: &Thread, signal: i32) -> bool {
    thread.blocked().contains(signal)
}

/// Whether the thread would take the signal now: it does not block it, or waits for it.
fn accepts(thread: &Thread, signal: i32) -> bool {
    !holds_back(thread, signal) || thread.awaited().contains(signal)
}

/// Sends a signal that the running instruction caused. It cannot be blocked or ignored: a process
/// that tries ends.
pub fn fault(thread: &Arc<Thread>, info: SigInfo) {
    let process = &thread.process;
    let signals = process.signals.lock();
    if holds_back(thread, info.signal) || signals.action(info.signal).handler == 1 {
        signals.actions.set(info.signal, Action::default());
        thread.set_blocked(thread.blocked().without(SigSet::of(info.signal)));
    }
    // As above.
    let _ = thread.signals.lock().pending.add(info, u64::MAX);
    thread.note_attention();
}

/// A page fault that faultless refused.
pub fn page_fault(_cpu: &mut CpuLocal, thread: &Arc<Thread>, address: u64, error: FaultError) {
    let (signal, code) = match error {
        FaultError::Unmapped => (SIGSEGV, code::SEGV_MAPERR),
        FaultError::Denied => (SIGSEGV, code::SEGV_ACCERR),
        // Watched: the run loop has parked the thread instead.
        FaultError::Bus | FaultError::Watched => (SIGBUS, code::BUS_ADRERR),
        FaultError::OutOfMemory => {
            // As Linux does when memory runs out: no handler could run either.
            kill_group(&thread.process, ExitStatus::Killed(SIGKILL));
            return;
        }
    };
    fault(thread, SigInfo { signal, code, detail: Detail::Address(address) });
}

/// Any other exception of user code.
pub fn exception(_cpu: &mut CpuLocal, thread: &Arc<Thread>, context: &UserContext, number: u64) {
    let (signal, code) = match number {
        vector::DIVIDE => (SIGFPE, code::FPE_INTDIV),
        vector::DEBUG => (SIGTRAP, code::TRAP_TRACE),
        vector::BREAKPOINT => (SIGTRAP, code::KERNEL),
        vector::INVALID_OPCODE => (SIGILL, code::ILL_ILLOPN),
        vector::X87 | vector::SIMD => (SIGFPE, code::FPE_FLTINV),
        vector::ALIGNMENT => (SIGBUS, code::BUS_ADRALN),
        _ => (SIGSEGV, code::KERNEL),
    };
    let detail = match code {
        code::KERNEL => Detail::None,
        _ => Detail::Address(context.rip),
    };
    fault(thread, SigInfo { signal, code, detail });
}

/// The alarm of a process goes off.
pub fn ring(process: &Weak<Process>) {
    let Some(process) = process.upgrade() else { return };
    process.alarm.lock().rearm(&process);
    send_process(&process, SigInfo::kernel(SIGALRM));
}

/// Whether the end of a child leaves no zombie: SIGCHLD is ignored, or SA_NOCLDWAIT is set.
pub fn reaps_children_automatically(process: &Process) -> bool {
    const NO_CHILD_WAIT: u64 = 2;
    let action = process.signals.lock().action(SIGCHLD);
    action.handler == 1 || action.flags & NO_CHILD_WAIT != 0
}

/// Whether the process wants SIGCHLD when a child stops.
pub fn wants_stop_signals(process: &Process) -> bool {
    const NO_CHILD_STOP: u64 = 1;
    process.signals.lock().action(SIGCHLD).flags & NO_CHILD_STOP == 0
}

/// Stops the process: the default action of `signal`.
pub(super) fn stop(process: &Arc<Process>, signal: i32) {
    {
        let mut ending = process.ending.lock();
        if ending.stopped.is_some() {
            return;
        }
        ending.stopped = Some(signal);
        ending.stop_unreported = true;
        ending.continue_unreported = false;
    }
    for thread in process.threads.lock().iter() {
        thread.note_attention();
        sched::kick(thread);
    }
    notify_of_job_control(process, Some(signal));
}

/// Whether the default action of a signal applies to it in `process`, and which.
pub(super) fn default_applies(action: Action, signal: i32) -> Option<DefaultAction> {
    (action.handler == 0).then(|| default_of(signal))
}
