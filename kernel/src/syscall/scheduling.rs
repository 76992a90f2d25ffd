//! CPUs and the scheduler, as far as programs can influence them: affinity and yielding.
//!
//! There is one scheduling class and no priorities: asking for what there is succeeds, asking for
//! anything else is `EPERM`.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::process::table;
use crate::sched::{self, Thread};
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_sched_yield, Plain(sched_yield)),
    (linux::__NR_sched_getaffinity, Plain(sched_getaffinity)),
    (linux::__NR_sched_setaffinity, Plain(sched_setaffinity)),
    (linux::__NR_sched_getscheduler, Plain(|call| thread_of(call).map(|_| 0))),
    (linux::__NR_sched_getparam, Plain(sched_getparam)),
    (linux::__NR_sched_setscheduler, Plain(|call| set_policy(call, call.uint(1), 2))),
    (linux::__NR_sched_setparam, Plain(|call| set_policy(call, linux::SCHED_NORMAL, 1))),
    (linux::__NR_sched_get_priority_max, Plain(|call| priority(call, 99))),
    (linux::__NR_sched_get_priority_min, Plain(|call| priority(call, 1))),
    (linux::__NR_sched_rr_get_interval, Plain(sched_rr_get_interval)),
    (linux::__NR_getpriority, Plain(getpriority)),
    (linux::__NR_getcpu, Plain(getcpu)),
];

/// Bytes of the kernel's CPU masks.
const MASK_SIZE: usize = 8;

fn sched_yield(call: &mut Call<'_>) -> SysResult {
    sched::request_yield(call.cpu);
    Ok(0)
}

/// The thread that argument 0 names; 0 is the caller.
fn thread_of(call: &Call<'_>) -> Result<Arc<Thread>, Errno> {
    match call.int(0) {
        tid if tid < 0 => Err(Errno::EINVAL),
        tid => any_thread(call, tid),
    }
}

/// The same for calls that do not mind negative numbers.
fn any_thread(call: &Call<'_>, tid: i32) -> Result<Arc<Thread>, Errno> {
    match tid {
        0 => Ok(call.thread.clone()),
        tid => table::find_thread(tid).ok_or(Errno::ESRCH),
    }
}

fn sched_getaffinity(call: &mut Call<'_>) -> SysResult {
    let size = call.uint(1) as usize;
    if size < MASK_SIZE || !size.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let thread = any_thread(call, call.int(0))?;
    let mask = thread.affinity.load(Ordering::Relaxed) & sched::online_mask();
    let to = call.word(2);
    uaccess::write(call.cpu, to, &mask.to_le_bytes())?;
    Ok(MASK_SIZE as i64)
}

fn sched_setaffinity(call: &mut Call<'_>) -> SysResult {
    let size = (call.uint(1) as usize).min(MASK_SIZE);
    let from = call.word(2);
    let mut mask = [0; MASK_SIZE];
    crate::arch::user::copy_in(call.cpu, from, &mut mask[..size])?;
    let mask = u64::from_le_bytes(mask);
    let thread = any_thread(call, call.int(0))?;
    if mask & sched::online_mask() == 0 {
        return Err(Errno::EINVAL);
    }
    thread.affinity.store(mask, Ordering::Relaxed);
    if Arc::ptr_eq(&thread, call.thread) && mask & 1 << call.cpu.index() == 0 {
        // It moves to a CPU of the mask when it is queued again.
        sched::request_yield(call.cpu);
    }
    Ok(0)
}

fn sched_getparam(call: &mut Call<'_>) -> SysResult {
    thread_of(call)?;
    let to = call.word(1);
    uaccess::write(call.cpu, to, &[0; 4])?;
    Ok(0)
}

/// `policy` with the parameters that argument `parameters` points to.
fn set_policy(call: &mut Call<'_>, policy: u32, parameters: usize) -> SysResult {
    thread_of(call)?;
    let from = call.word(parameters);
    let priority = uaccess::read_u32(call.cpu, from)?;
    match (policy & !linux::SCHED_RESET_ON_FORK, priority) {
        (linux::SCHED_NORMAL, 0) => Ok(0),
        (linux::SCHED_NORMAL, _) => Err(Errno::EINVAL),
        (linux::SCHED_FIFO | linux::SCHED_RR, 1..=99) => Err(Errno::EPERM),
        (linux::SCHED_BATCH | linux::SCHED_IDLE, 0) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// The end of the range of priorities that is `real_time` for the real-time policies.
fn priority(call: &Call<'_>, real_time: i64) -> SysResult {
    match call.uint(0) {
        linux::SCHED_FIFO | linux::SCHED_RR => Ok(real_time),
        linux::SCHED_NORMAL | linux::SCHED_BATCH | linux::SCHED_IDLE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_rr_get_interval(call: &mut Call<'_>) -> SysResult {
    thread_of(call)?;
    let to = call.word(1);
    super::time::timespec(sched::SLICE).write(call.cpu, to)?;
    Ok(0)
}

/// Nice values are all 0; the kernel returns 20 minus the value.
fn getpriority(call: &mut Call<'_>) -> SysResult {
    const PROCESS: u32 = 0;
    const GROUP: u32 = 1;
    const USER: u32 = 2;
    let id = call.int(1);
    let exists = match call.uint(0) {
        PROCESS => id == 0 || table::find_thread(id).is_some(),
        GROUP => id == 0 || table::any_in_group(id, |_| true),
        USER => id == 0,
        _ => return Err(Errno::EINVAL),
    };
    if exists { Ok(20) } else { Err(Errno::ESRCH) }
}

fn getcpu(call: &mut Call<'_>) -> SysResult {
    let (cpu, node) = (call.word(0), call.word(1));
    if cpu != 0 {
        let index = call.cpu.index() as u32;
        Layout::new().u32(index).write(call.cpu, cpu)?;
    }
    if node != 0 {
        uaccess::write(call.cpu, node, &[0; 4])?;
    }
    Ok(0)
}
