//! Process groups and sessions, as far as a shell with jobs needs them.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Process, table};
use crate::arch::{CpuLocal, UserContext};
use crate::errno::{Errno, SysResult};
use crate::sched::{Outcome, Thread};

/// `setpgid(pid, group)`.
pub fn sys_setpgid(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [pid, group, ..] = context.args();
    set_group(&thread.process, pid as i32, group as i32).into()
}

fn set_group(caller: &Arc<Process>, pid: i32, group: i32) -> SysResult {
    if group < 0 {
        return Err(Errno::EINVAL);
    }
    let target = match pid {
        0 => caller.clone(),
        pid => table::find(pid).ok_or(Errno::ESRCH)?,
    };
    let is_self = Arc::ptr_eq(&target, caller);
    let is_child = target.family.lock().parent.upgrade().is_some_and(|p| Arc::ptr_eq(&p, caller));
    if !is_self && !is_child {
        return Err(Errno::ESRCH);
    }
    if is_child && target.has_executed.load(Ordering::Relaxed) {
        return Err(Errno::EACCES);
    }
    let leads_session = target.session() == target.pid;
    if leads_session || target.session() != caller.session() {
        return Err(Errno::EPERM);
    }
    let group = if group == 0 { target.pid } else { group };
    if table::join_group(&target, group, caller.session()) { Ok(0) } else { Err(Errno::EPERM) }
}

/// `getpgid(pid)`; `getpgrp()` is `getpgid(0)`.
pub fn sys_getpgid(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    of(thread, context.args()[0] as i32, Process::group).into()
}

/// `getsid(pid)`.
pub fn sys_getsid(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    of(thread, context.args()[0] as i32, Process::session).into()
}

fn of(thread: &Thread, pid: i32, what: impl Fn(&Process) -> i32) -> SysResult {
    let value = match pid {
        0 => what(&thread.process),
        pid => what(&*table::find(pid).ok_or(Errno::ESRCH)?),
    };
    Ok(i64::from(value))
}

/// `setsid()`.
pub fn sys_setsid(thread: &Arc<Thread>, _cpu: &mut CpuLocal, _context: &mut UserContext) -> Outcome {
    let process = &thread.process;
    if !table::lead_session(process) {
        return Errno::EPERM.into();
    }
    Outcome::Done(i64::from(process.pid))
}
