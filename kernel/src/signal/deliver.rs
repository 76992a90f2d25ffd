//! What happens to pending signals before a thread goes back to user mode.

use alloc::sync::Arc;

use super::send::{default_applies, stop};
use super::set::number::SIGSEGV;
use super::{Action, DefaultAction, Detail, SigInfo, SigSet, frame};
use crate::arch::{CpuLocal, UserContext};
use crate::errno::Errno;
use crate::process::{ExitStatus, end_thread, kill_group};
use crate::report;
use crate::sched::{Interrupt, Thread};
use crate::syscall;

/// What the run loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On to user mode, or once more into the blocked system call.
    Go,
    /// The process is stopped: park the thread.
    Stop,
    /// The thread has ended.
    Exit,
}

const RESETHAND: u64 = 0x8000_0000;
const NODEFER: u64 = 0x4000_0000;
const RESTART: u64 = 0x1000_0000;

/// Delivers what is pending, ends or stops the thread if that is called for.
pub fn before_user(cpu: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext) -> Verdict {
    // Ends: each round takes a signal off a finite queue, or returns.
    loop {
        if must_end(thread) {
            end_thread(thread, cpu, context);
            return Verdict::Exit;
        }
        if thread.process.ending.lock().stopped.is_some() {
            // Looked at again as soon as anything wakes the thread.
            thread.note_attention();
            return Verdict::Stop;
        }
        if context.restart.again && context.restart.interrupt == Interrupt::KillOnly {
            // `vfork` and `execve` go on; the run loop looks again when they are done.
            return Verdict::Go;
        }
        let Some(info) = take(thread) else {
            return Verdict::Go;
        };
        let action = thread.process.signals.lock().action(info.signal);
        match default_applies(action, info.signal) {
            Some(DefaultAction::Terminate) => {
                if matches!(info.detail, Detail::Address(_)) {
                    report::fault_kills(thread, context, info);
                }
                kill_group(&thread.process, ExitStatus::Killed(info.signal));
            }
            Some(DefaultAction::Stop) => stop(&thread.process, info.signal),
            Some(DefaultAction::Ignore | DefaultAction::Continue) => {}
            None if action.handler == 1 => {}
            None => enter_handler(cpu, thread, context, info, action),
        }
    }
}

fn must_end(thread: &Thread) -> bool {
    let process = &thread.process;
    process.ending.lock().reason.is_some() || process.executing_other_than(thread.tid)
}

/// Takes a signal the thread does not block: its own first.
fn take(thread: &Thread) -> Option<SigInfo> {
    let open = SigSet::from_bits(!thread.blocked().bits());
    let own = thread.signals.lock().pending.take(open);
    own.or_else(|| thread.process.signals.lock().pending.take(open))
}

/// Whether a blocked system call of this thread has to give way now.
pub fn is_interrupted(thread: &Thread, interrupt: Interrupt) -> bool {
    if must_end(thread) || thread.process.ending.lock().stopped.is_some() {
        return true;
    }
    if interrupt == Interrupt::KillOnly {
        return false;
    }
    let open = SigSet::from_bits(!thread.blocked().bits());
    let own = thread.signals.lock().pending.set();
    let shared = thread.process.signals.lock().pending.set();
    !own.with(shared).and(open).is_empty()
}

fn enter_handler(cpu: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext, info: SigInfo, action: Action) {
    let blocked = thread.blocked();
    let saved_mask = context.restart.saved_mask.unwrap_or(blocked);
    if context.restart.again {
        syscall::sleep_interrupted(cpu, &context.restart);
        finish_interrupted_call(context, action);
    }
    if frame::push(cpu, thread, context, info, action, saved_mask).is_err() {
        // The frame cannot be written: the program cannot go on, whatever handlers it has.
        kill_group(&thread.process, ExitStatus::Killed(SIGSEGV));
        return;
    }
    let mut mask = blocked.with(action.mask);
    if action.flags & NODEFER == 0 {
        mask = mask.with(SigSet::of(info.signal));
    }
    thread.set_blocked(mask);
    if action.flags & RESETHAND != 0 {
        thread.process.signals.lock().actions.set(info.signal, Action::default());
    }
}

/// Gives the blocked call the result that the program sees after the handler.
fn finish_interrupted_call(context: &mut UserContext, action: Action) {
    let progress = context.restart.progress;
    let restartable = context.restart.interrupt == Interrupt::Restartable && action.flags & RESTART != 0;
    context.restart.abandon();
    if progress > 0 {
        context.set_result(progress as i64);
    } else if restartable {
        context.rewind_syscall();
    } else {
        context.set_result(Errno::EINTR.as_return());
    }
}
