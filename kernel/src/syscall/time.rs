//! Clocks and sleeping.
//!
//! A sleep has an absolute deadline from its first execution on, so being woken early costs it nothing.
//! Clocks cannot be set (`EPERM`).

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::{Full, Plain};
use super::call::Call;
use crate::arch::CpuLocal;
use crate::clock::{self, SECOND};
use crate::errno::{Errno, SysResult};
use crate::process::table;
use crate::sched::{Interrupt, Outcome, Restart, RestartKind};
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_clock_gettime, Plain(clock_gettime)),
    (linux::__NR_clock_getres, Plain(clock_getres)),
    (linux::__NR_clock_settime, Plain(clock_settime)),
    (linux::__NR_adjtimex, Plain(|call| adjust(call, 0))),
    (linux::__NR_clock_adjtime, Plain(clock_adjtime)),
    (linux::__NR_clock_nanosleep, Full(clock_nanosleep)),
    (linux::__NR_nanosleep, Full(nanosleep)),
    (linux::__NR_gettimeofday, Plain(gettimeofday)),
    (linux::__NR_settimeofday, Plain(|_| Err(Errno::EPERM))),
    (linux::__NR_time, Plain(time)),
];

/// Nanoseconds in a clock tick of the interfaces that count those.
pub(super) const TICK: u64 = SECOND / 100;

/// Reads a `struct timespec` as nanoseconds.
///
/// # Errors
///
/// `EFAULT`; `EINVAL` if it is negative or has too many nanoseconds.
pub(super) fn read_timespec(cpu: &mut CpuLocal, from: u64) -> Result<u64, Errno> {
    let bytes: [u8; 16] = uaccess::read(cpu, from)?;
    let (seconds, nanos) = (uaccess::word(&bytes, 0), uaccess::word(&bytes, 8));
    if seconds.cast_signed() < 0 || nanos >= SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(SECOND).saturating_add(nanos))
}

/// A `struct timespec`.
pub(super) fn timespec(ns: u64) -> Layout {
    Layout::new().u64(ns / SECOND).u64(ns % SECOND)
}

/// What the clock with this number says.
fn read_clock(call: &Call<'_>, id: i32) -> Result<u64, Errno> {
    let Ok(positive) = u32::try_from(id) else {
        return read_cpu_clock(call, id);
    };
    match positive {
        linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_TAI => Ok(clock::realtime()),
        linux::CLOCK_REALTIME_ALARM => Ok(clock::realtime()),
        linux::CLOCK_MONOTONIC
        | linux::CLOCK_MONOTONIC_RAW
        | linux::CLOCK_MONOTONIC_COARSE
        | linux::CLOCK_BOOTTIME
        | linux::CLOCK_BOOTTIME_ALARM => Ok(clock::monotonic()),
        linux::CLOCK_PROCESS_CPUTIME_ID => {
            let usage = call.process().total_usage();
            Ok(usage.user + usage.system)
        }
        linux::CLOCK_THREAD_CPUTIME_ID => {
            let usage = call.thread.usage.totals();
            Ok(usage.user + usage.system)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The CPU time clock of a process or thread, whose id is part of the number.
fn read_cpu_clock(call: &Call<'_>, id: i32) -> Result<u64, Errno> {
    const PER_THREAD: i32 = 4;
    const KIND: i32 = 3;
    const VIRTUAL: i32 = 1;
    let owner = !(id >> 3);
    let usage = if id & PER_THREAD != 0 {
        let thread = if owner == 0 { Some(call.thread.clone()) } else { table::find_thread(owner) };
        let same = thread.filter(|thread| Arc::ptr_eq(&thread.process, call.process()));
        same.ok_or(Errno::EINVAL)?.usage.totals()
    } else {
        let process = if owner == 0 { Some(call.process().clone()) } else { table::find(owner) };
        process.ok_or(Errno::EINVAL)?.total_usage()
    };
    match id & KIND {
        VIRTUAL => Ok(usage.user),
        KIND => Err(Errno::EINVAL),
        _ => Ok(usage.user + usage.system),
    }
}

fn clock_gettime(call: &mut Call<'_>) -> SysResult {
    let now = read_clock(call, call.int(0))?;
    let to = call.word(1);
    timespec(now).write(call.cpu, to)?;
    Ok(0)
}

/// Only the time of day could be set at all, and nobody may.
fn clock_settime(call: &mut Call<'_>) -> SysResult {
    if call.uint(0) != linux::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    let from = call.word(1);
    read_timespec(call.cpu, from)?;
    Err(Errno::EPERM)
}

fn clock_adjtime(call: &mut Call<'_>) -> SysResult {
    if call.uint(0) != linux::CLOCK_REALTIME {
        read_clock(call, call.int(0))?;
        return Err(Errno::EOPNOTSUPP);
    }
    adjust(call, 1)
}

/// Tells that the clock is not synchronised with anything, which nobody may change. Argument
/// `pointer` points to a `struct timex`.
fn adjust(call: &mut Call<'_>, pointer: usize) -> SysResult {
    const UNSYNCHRONISED: u32 = 0x40;
    const TIME_ERROR: i64 = 5;
    const LARGEST_ERROR: u64 = 16_000_000;
    let at = call.word(pointer);
    if uaccess::read_u32(call.cpu, at)? != 0 {
        return Err(Errno::EPERM);
    }
    let now = clock::realtime();
    Layout::new()
        .u64(0)
        .zeroes(2 * 8)
        .u64(LARGEST_ERROR)
        .u64(LARGEST_ERROR)
        .u32(UNSYNCHRONISED)
        .zeroes(4 + 8)
        .u64(1)
        .u64(32_768_000)
        .u64(now / SECOND)
        .u64(now % SECOND / 1000)
        .u64(10_000)
        .zeroes(208 - 96)
        .write(call.cpu, at)?;
    Ok(TIME_ERROR)
}

fn clock_getres(call: &mut Call<'_>) -> SysResult {
    read_clock(call, call.int(0))?;
    let to = call.word(1);
    if to != 0 {
        timespec(1).write(call.cpu, to)?;
    }
    Ok(0)
}

fn gettimeofday(call: &mut Call<'_>) -> SysResult {
    let (time_to, zone_to) = (call.word(0), call.word(1));
    if time_to != 0 {
        let now = clock::realtime();
        Layout::new().u64(now / SECOND).u64(now % SECOND / 1000).write(call.cpu, time_to)?;
    }
    if zone_to != 0 {
        uaccess::write(call.cpu, zone_to, &[0; 8])?;
    }
    Ok(0)
}

fn time(call: &mut Call<'_>) -> SysResult {
    let now = clock::realtime() / SECOND;
    let to = call.word(0);
    if to != 0 {
        uaccess::write(call.cpu, to, &now.to_le_bytes())?;
    }
    Ok(now.cast_signed())
}

fn nanosleep(call: &mut Call<'_>) -> Outcome {
    let (request, remaining) = (call.word(0), call.word(1));
    let begin = |call: &mut Call<'_>| {
        let length = read_timespec(call.cpu, request)?;
        Ok(clock::monotonic().saturating_add(length))
    };
    sleep(call, begin, remaining)
}

fn clock_nanosleep(call: &mut Call<'_>) -> Outcome {
    let (id, flags) = (call.int(0), call.uint(1));
    let (request, remaining) = (call.word(2), call.word(3));
    let is_absolute = flags & linux::TIMER_ABSTIME != 0;
    let begin = |call: &mut Call<'_>| {
        let offset = match u32::try_from(id).map_err(|_| Errno::EINVAL)? {
            linux::CLOCK_REALTIME | linux::CLOCK_TAI => clock::realtime_offset(),
            linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME => 0,
            // CPU time clocks and alarms do not wake anybody here; the others never do.
            id => {
                read_clock(call, id.cast_signed())?;
                return Err(Errno::EOPNOTSUPP);
            }
        };
        let time = read_timespec(call.cpu, request)?;
        let start = if is_absolute { 0 } else { clock::monotonic() };
        let offset = if is_absolute { offset } else { 0 };
        Ok(start.saturating_add(time.saturating_sub(offset)))
    };
    sleep(call, begin, if is_absolute { 0 } else { remaining })
}

/// Sleeps until the time that `begin` computes at the first execution.
fn sleep(call: &mut Call<'_>, begin: impl FnOnce(&mut Call<'_>) -> Result<u64, Errno>, remaining: u64) -> Outcome {
    let deadline = match call.restart().deadline {
        Some(deadline) => deadline,
        None => match begin(call) {
            Ok(deadline) => deadline,
            Err(errno) => return errno.into(),
        },
    };
    if clock::monotonic() >= deadline {
        return Outcome::Done(0);
    }
    let restart = call.restart();
    restart.deadline = Some(deadline);
    restart.interrupt = Interrupt::Fails;
    restart.kind = RestartKind::Sleep(remaining);
    Outcome::Block
}

/// A signal handler ends a sleep: tells the program how much of it is left.
pub fn sleep_interrupted(cpu: &mut CpuLocal, restart: &Restart) {
    let (RestartKind::Sleep(remaining), Some(deadline)) = (&restart.kind, restart.deadline) else {
        return;
    };
    if *remaining != 0 {
        let left = deadline.saturating_sub(clock::monotonic());
        // The call is about to fail in any case; a bad address adds nothing to that.
        let _ = timespec(left).write(cpu, *remaining);
    }
}
