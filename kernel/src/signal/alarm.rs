//! `alarm` and `setitimer(ITIMER_REAL)`: SIGALRM at a time, once or again and again.
//!
//! Absent on purpose: ITIMER_VIRTUAL and ITIMER_PROF (EINVAL); nothing samples CPU time by ticks.

use alloc::sync::Arc;

use crate::arch::user::{copy_in, copy_out};
use crate::arch::{CpuLocal, UserContext};
use crate::clock::{self, SECOND};
use crate::errno::{Errno, SysResult};
use crate::process::Process;
use crate::sched::{self, Outcome, Thread, Timer, TimerId};

const REAL: i32 = 0;
const MICROSECOND: u64 = 1000;

/// The interval timer of a process.
#[derive(Default)]
pub struct Alarm {
    timer: Option<TimerId>,
    /// When it goes off next.
    deadline: u64,
    /// Time between rings, ns; 0 for one ring only.
    interval: u64,
}

impl Alarm {
    /// Takes the timer back.
    pub fn stop(&mut self) {
        if let Some(timer) = self.timer.take() {
            sched::cancel(timer);
        }
        self.interval = 0;
    }

    /// Time left and interval, ns.
    fn state(&self) -> (u64, u64) {
        let left = match self.timer {
            // A running timer never says zero: that would mean stopped.
            Some(_) => self.deadline.saturating_sub(clock::monotonic()).max(MICROSECOND),
            None => 0,
        };
        (left, self.interval)
    }

    fn start(&mut self, process: &Arc<Process>, wait: u64, interval: u64) {
        self.stop();
        if wait == 0 {
            return;
        }
        self.interval = interval;
        self.deadline = clock::monotonic().saturating_add(wait);
        self.timer = Some(sched::schedule(self.deadline, Timer::Alarm(Arc::downgrade(process))));
    }

    /// It went off: sets it again if it has an interval, skipping rings that are over already.
    pub(super) fn rearm(&mut self, process: &Arc<Process>) {
        self.timer = None;
        if self.interval == 0 {
            return;
        }
        let late = clock::monotonic().saturating_sub(self.deadline);
        self.deadline += self.interval * (late / self.interval + 1);
        self.timer = Some(sched::schedule(self.deadline, Timer::Alarm(Arc::downgrade(process))));
    }
}

/// `alarm(seconds)`.
pub fn sys_alarm(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let seconds = u64::from(context.args()[0] as u32);
    let process = &thread.process;
    let mut alarm = process.alarm.lock();
    let (left, _) = alarm.state();
    alarm.start(process, seconds * SECOND, 0);
    Outcome::Done(left.div_ceil(SECOND).cast_signed())
}

/// `setitimer(which, new, old)`.
pub fn sys_setitimer(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [which, new, old, ..] = context.args();
    set(thread, cpu, which as i32, new, old).into()
}

fn set(thread: &Thread, cpu: &mut CpuLocal, which: i32, new: u64, old: u64) -> SysResult {
    if which != REAL {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; 32];
    if new != 0 {
        copy_in(cpu, new, &mut bytes)?;
    }
    let word = |n: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[n * 8 + i]));
    let time = |seconds: u64, micros: u64| {
        let valid = micros < 1_000_000 && seconds.cast_signed() >= 0;
        let ns = seconds.saturating_mul(SECOND).saturating_add(micros * MICROSECOND);
        valid.then_some(ns).ok_or(Errno::EINVAL)
    };
    let interval = time(word(0), word(1))?;
    let wait = time(word(2), word(3))?;
    let process = &thread.process;
    let before = {
        let mut alarm = process.alarm.lock();
        let before = alarm.state();
        alarm.start(process, wait, interval);
        before
    };
    if old != 0 {
        write_state(cpu, old, before)?;
    }
    Ok(0)
}

/// `getitimer(which, value)`.
pub fn sys_getitimer(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [which, at, ..] = context.args();
    if which as i32 != REAL {
        return Errno::EINVAL.into();
    }
    let state = thread.process.alarm.lock().state();
    write_state(cpu, at, state).map(|()| 0).into()
}

fn write_state(cpu: &mut CpuLocal, at: u64, (left, interval): (u64, u64)) -> Result<(), Errno> {
    let words = [interval / SECOND, interval % SECOND / MICROSECOND, left / SECOND, left % SECOND / MICROSECOND];
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    copy_out(cpu, at, &bytes)?;
    Ok(())
}
