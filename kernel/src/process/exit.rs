//! The end of threads and processes.
//!
//! A thread ends on the CPU it runs on: it clears and wakes what user code asked for, leaves the
//! memory, and leaves the process; the last one makes the process a zombie. Other threads are
//! told to end by the process' `ending` and their attention flag, and do it themselves on their
//! next way to user mode. Orphans are reaped by the kernel.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use faultless::VirtAddr;

use super::{Process, UsageTotals, table};
use crate::arch::{CpuLocal, UserContext};
use crate::sched::{self, Outcome, Thread, end_system_stretch, end_user_stretch};
use crate::signal::{self, Detail, SigInfo, number};
use crate::{futex, machine, start};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By `exit`, with this code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl ExitStatus {
    /// In the encoding of `wait4`.
    pub fn wait_status(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => i32::from(code) << 8,
            ExitStatus::Killed(signal) => signal,
        }
    }
}

/// `exit(code)`: ends this thread.
pub fn sys_exit(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let code = context.args()[0] as u8;
    leave_process(thread, cpu, context, Some(code));
    Outcome::Exit
}

/// `exit_group(code)`: ends the process.
pub fn sys_exit_group(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let code = context.args()[0] as u8;
    kill_group(&thread.process, ExitStatus::Exited(code));
    end_thread(thread, cpu, context);
    Outcome::Exit
}

fn set_reason(process: &Process, status: ExitStatus) {
    let mut ending = process.ending.lock();
    if ending.reason.is_none() {
        ending.reason = Some(status);
    }
}

/// Tells all threads of a process to end. The first reason given is the one that counts.
pub fn kill_group(process: &Arc<Process>, status: ExitStatus) {
    set_reason(process, status);
    for thread in process.threads.lock().iter() {
        thread.note_attention();
        sched::kick(thread);
    }
}

/// Does what the end of a use of memory owes to user code: `CLONE_CHILD_CLEARTID` and the robust
/// list. The memory is still loaded. Called at exit and at `execve`.
pub(super) fn leave_memory_behind(thread: &Arc<Thread>, cpu: &mut CpuLocal) {
    let memory = thread.process.memory();
    let robust = thread.robust_list.swap(0, Ordering::Relaxed);
    if robust != 0 {
        futex::release_robust_list(cpu, &memory, thread.tid, robust);
    }
    let clear = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    if clear != 0 {
        // A bad address is the program's own affair.
        if memory.space().write(&mut cpu.vm, VirtAddr::new(clear), &[0; 4]).is_ok() {
            futex::wake_address(cpu, &memory, clear);
        }
    }
}

/// Ends the calling thread. It must not go back to user mode.
pub(crate) fn end_thread(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) {
    leave_process(thread, cpu, context, None);
}

/// As [`end_thread`]; `code` becomes that of the process if this turns out to be the last thread and
/// nobody has given a reason before.
fn leave_process(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext, code: Option<u8>) {
    context.restart.abandon();
    leave_memory_behind(thread, cpu);
    let process = thread.process.clone();
    end_system_stretch(cpu, thread);
    end_user_stretch(cpu, thread);
    note_peak(&process);
    let memory = process.memory();
    machine::switch_memory(cpu, None);
    memory.leave(cpu);
    drop(memory);
    table::remove_thread(thread.tid);
    let is_last = {
        let mut threads = process.threads.lock();
        // Under the lock, so that the sum over threads and the process is never short of it.
        process.usage.add(thread.usage.totals());
        threads.retain(|t| t.tid != thread.tid);
        // Under the lock as well: of two threads that exit at once, one is the last.
        if let (true, Some(code)) = (threads.is_empty(), code) {
            set_reason(&process, ExitStatus::Exited(code));
        }
        threads.is_empty()
    };
    process.thread_exits.wake_all();
    if is_last {
        end_process(&process, cpu);
    }
}

impl Process {
    /// Gives up its file table and working directory.
    pub(super) fn close_files(&self, cpu: &mut CpuLocal) {
        let files = self.files.lock().take();
        let fs = self.fs.lock().take();
        if let Some(files) = files.and_then(Arc::into_inner) {
            files.close_all(cpu);
        }
        drop(fs);
    }
}

fn note_peak(process: &Process) {
    let memory = process.memory();
    let peak = memory.space().usage().peak;
    process.usage.peak.fetch_max(peak, Ordering::Relaxed);
}

/// The last thread is gone.
fn end_process(process: &Arc<Process>, cpu: &mut CpuLocal) {
    process.alarm.lock().stop();
    process.close_files(cpu);
    orphan_children(process, cpu);
    process.release_parent();
    set_reason(process, ExitStatus::Exited(0));
    process.ending.lock().zombie = true;
    process.ended.wake_all();
    if process.pid == 1 {
        start::first_process_ended(process, cpu);
        return;
    }
    notify_parent(process, cpu);
}

/// Children outlive their parent without one; those that are zombies already are reaped.
fn orphan_children(process: &Process, cpu: &mut CpuLocal) {
    for child in table::orphan(process) {
        // A child that ends right now sees that it has no parent, or is seen as a zombie here, or
        // both: reaping twice is harmless.
        if child.is_zombie() {
            reap_by_kernel(&child, cpu);
        }
    }
}

/// Tells the parent, or reaps the process if nobody will ask for it.
fn notify_parent(process: &Arc<Process>, cpu: &mut CpuLocal) {
    let parent = process.family.lock().parent.upgrade();
    let Some(parent) = parent else {
        reap_by_kernel(process, cpu);
        return;
    };
    let exit_signal = process.exit_signal.load(Ordering::Relaxed);
    // Only children that send SIGCHLD go unasked when that is ignored.
    if exit_signal == number::SIGCHLD && signal::reaps_children_automatically(&parent) {
        detach(&parent, process);
        reap_by_kernel(process, cpu);
    } else if exit_signal != 0 {
        signal::send_process(&parent, child_info(process, exit_signal));
    }
    parent.child_events.wake_all();
}

fn reap_by_kernel(process: &Arc<Process>, cpu: &mut CpuLocal) {
    if table::remove(process.pid) == 0 {
        start::last_process_removed(cpu);
    }
}

/// Takes a zombie out of its parent and the table. The usage goes to the parent.
pub(super) fn reap(parent: &Process, child: &Arc<Process>, cpu: &mut CpuLocal) -> UsageTotals {
    let totals = child.usage.totals() + child.children_usage.totals();
    parent.children_usage.add(totals);
    detach(parent, child);
    // Another thread that waits may have lost its last child.
    parent.child_events.wake_all();
    reap_by_kernel(child, cpu);
    totals
}

fn detach(parent: &Process, child: &Arc<Process>) {
    parent.family.lock().children.retain(|c| c.pid != child.pid);
}

/// What SIGCHLD says about the end of `process`.
fn child_info(process: &Process, signal: i32) -> SigInfo {
    const EXITED: i32 = 1;
    const KILLED: i32 = 2;
    const NS_PER_TICK: u64 = 10_000_000;
    let (code, status) = match process.ending.lock().reason {
        Some(ExitStatus::Killed(signal)) => (KILLED, signal),
        Some(ExitStatus::Exited(code)) => (EXITED, i32::from(code)),
        None => (EXITED, 0),
    };
    let usage = process.usage.totals();
    SigInfo {
        signal,
        code,
        detail: Detail::Child {
            pid: process.pid,
            status,
            user: (usage.user / NS_PER_TICK).cast_signed(),
            system: (usage.system / NS_PER_TICK).cast_signed(),
        },
    }
}

/// Tells the parent that `process` stopped or went on.
pub(crate) fn notify_of_job_control(process: &Arc<Process>, stopped_by: Option<i32>) {
    const STOPPED: i32 = 5;
    const CONTINUED: i32 = 6;
    let parent = process.family.lock().parent.upgrade();
    let Some(parent) = parent else { return };
    let (code, status) = match stopped_by {
        Some(signal) => (STOPPED, signal),
        None => (CONTINUED, number::SIGCONT),
    };
    if signal::wants_stop_signals(&parent) {
        let detail = Detail::Child { pid: process.pid, status, user: 0, system: 0 };
        signal::send_process(&parent, SigInfo { signal: number::SIGCHLD, code, detail });
    }
    parent.child_events.wake_all();
}
