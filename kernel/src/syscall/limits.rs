//! Resource limits and what was consumed.
//!
//! A limit can be set if it is kept, or if it bounds something that does not exist here (core files,
//! message queues, ...). The others cannot be lowered (`EINVAL`): a limit nobody enforces is none.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use super::time::TICK;
use crate::clock;
use crate::errno::{Errno, SysResult};
use crate::fs::MAX_FILES;
use crate::process::{Capabilities, Process, table};
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_getrlimit, Plain(getrlimit)),
    (linux::__NR_setrlimit, Plain(setrlimit)),
    (linux::__NR_prlimit64, Plain(prlimit64)),
    (linux::__NR_getrusage, Plain(getrusage)),
    (linux::__NR_times, Plain(times)),
];

type Limit = (u64, u64);

fn index_of(resource: u32) -> Result<usize, Errno> {
    if resource > linux::RLIMIT_RTTIME { Err(Errno::EINVAL) } else { Ok(resource as usize) }
}

fn getrlimit(call: &mut Call<'_>) -> SysResult {
    let index = index_of(call.uint(0))?;
    let limit = call.process().limits.lock()[index];
    let to = call.word(1);
    write_limit(call, to, limit)
}

fn write_limit(call: &mut Call<'_>, to: u64, (soft, hard): Limit) -> SysResult {
    Layout::new().u64(soft).u64(hard).write(call.cpu, to)?;
    Ok(0)
}

fn setrlimit(call: &mut Call<'_>) -> SysResult {
    let index = index_of(call.uint(0))?;
    let from = call.word(1);
    let new = read_limit(call, from)?;
    let process = call.process().clone();
    set(&process, index, new)?;
    Ok(0)
}

fn read_limit(call: &mut Call<'_>, from: u64) -> Result<Limit, Errno> {
    let bytes: [u8; 16] = uaccess::read(call.cpu, from)?;
    Ok((uaccess::word(&bytes, 0), uaccess::word(&bytes, 8)))
}

/// Replaces a limit; returns the old one.
fn set(process: &Process, index: usize, new: Limit) -> Result<Limit, Errno> {
    let (soft, hard) = new;
    if soft > hard {
        return Err(Errno::EINVAL);
    }
    let mut limits = process.limits.lock();
    let old = limits[index];
    match index as u32 {
        linux::RLIMIT_NOFILE if hard > MAX_FILES => return Err(Errno::EPERM),
        linux::RLIMIT_CPU | linux::RLIMIT_RTTIME if new != old => return Err(Errno::EINVAL),
        _ => {}
    }
    let may_raise = process.capabilities.lock().effective & Capabilities::SYS_RESOURCE != 0;
    if hard > old.1 && !may_raise {
        return Err(Errno::EPERM);
    }
    limits[index] = new;
    drop(limits);
    match index as u32 {
        linux::RLIMIT_STACK => process.memory().space().set_stack_limit(soft),
        linux::RLIMIT_AS | linux::RLIMIT_DATA | linux::RLIMIT_MEMLOCK => process.apply_limits(),
        _ => {}
    }
    Ok(old)
}

fn prlimit64(call: &mut Call<'_>) -> SysResult {
    let (pid, resource, new_at, old_at) = (call.int(0), call.uint(1), call.word(2), call.word(3));
    let index = index_of(resource)?;
    let new = if new_at == 0 { None } else { Some(read_limit(call, new_at)?) };
    let process: Arc<Process> = match pid {
        0 => call.process().clone(),
        pid => table::find(pid).ok_or(Errno::ESRCH)?,
    };
    let old = match new {
        Some(new) => set(&process, index, new)?,
        None => process.limits.lock()[index],
    };
    if old_at != 0 {
        write_limit(call, old_at, old)?;
    }
    Ok(0)
}

fn getrusage(call: &mut Call<'_>) -> SysResult {
    const THREAD: i32 = linux::RUSAGE_THREAD as i32;
    let process = call.process();
    let mut totals = match call.int(0) {
        0 => process.total_usage(),
        THREAD => call.thread.usage.totals(),
        -1 => process.children_usage.totals(),
        _ => return Err(Errno::EINVAL),
    };
    if call.int(0) != -1 {
        totals.minor += call.cpu.minor_faults;
        totals.major += call.cpu.major_faults;
        totals.peak = totals.peak.max(process.memory().space().usage().peak);
    }
    let to = call.word(1);
    uaccess::write(call.cpu, to, &totals.to_rusage())?;
    Ok(0)
}

fn times(call: &mut Call<'_>) -> SysResult {
    let own = call.process().total_usage();
    let children = call.process().children_usage.totals();
    let to = call.word(0);
    if to != 0 {
        let spent = [own.user, own.system, children.user, children.system];
        let layout = spent.into_iter().fold(Layout::new(), |layout, ns| layout.u64(ns / TICK));
        layout.write(call.cpu, to)?;
    }
    Ok((clock::monotonic() / TICK).cast_signed())
}
