//! Things to do at a time: wake a thread, ring a process' alarm.
//!
//! Each CPU keeps the timers that were set on it and has its own APIC go off for the earliest.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Thread, queue};
use crate::arch::local::{self, Padded};
use crate::arch::{MAX_CPUS, apic};
use crate::process::Process;
use crate::sync::Lock;
use crate::{clock, khugepaged, signal};

/// What happens when the time has come.
pub enum Timer {
    /// The thread's wait with this number ends.
    Wake(Arc<Thread>, u64),
    /// `ITIMER_REAL` of the process.
    Alarm(Weak<Process>),
    /// Memory is looked at for pages to collapse.
    Collapse,
}

/// Names a timer that was scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    cpu: usize,
    deadline: u64,
    serial: u64,
}

struct Timers {
    /// By deadline and serial number.
    due: Lock<BTreeMap<(u64, u64), Timer>>,
    /// What the APIC of this CPU is set to; `u64::MAX` if it is stopped.
    armed: AtomicU64,
}

static TIMERS: [Padded<Timers>; MAX_CPUS] =
    [const { Padded(Timers { due: Lock::new(BTreeMap::new()), armed: AtomicU64::new(u64::MAX) }) }; MAX_CPUS];

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Sets a timer on this CPU.
pub fn schedule(deadline: u64, timer: Timer) -> TimerId {
    let cpu = local::index();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let timers = &TIMERS[cpu].0;
    timers.due.lock().insert((deadline, serial), timer);
    if deadline < timers.armed.load(Ordering::Relaxed) {
        timers.armed.store(deadline, Ordering::Relaxed);
        clock::arm(deadline);
    }
    TimerId { cpu, deadline, serial }
}

/// Takes a timer back. Nothing happens if it went off already.
pub fn cancel(id: TimerId) {
    let removed = TIMERS[id.cpu].0.due.lock().remove(&(id.deadline, id.serial));
    // The timer is dropped here, after the lock.
    drop(removed);
}

/// Does what is due on this CPU.
pub(super) fn expire(me: usize) {
    let now = clock::monotonic();
    loop {
        let timer = {
            let mut due = TIMERS[me].0.due.lock();
            match due.first_key_value() {
                Some((&(deadline, _), _)) if deadline <= now => due.pop_first(),
                _ => return,
            }
        };
        match timer {
            Some((_, Timer::Wake(thread, wait))) => {
                queue::wake_wait(&thread, wait);
            }
            Some((_, Timer::Alarm(process))) => signal::ring(&process),
            Some((_, Timer::Collapse)) => khugepaged::note_due(),
            None => return,
        }
    }
}

/// Sets this CPU's APIC for its earliest timer or for `limit`, whichever is first; with neither,
/// stops it.
pub(super) fn arm(me: usize, limit: Option<u64>) {
    let timers = &TIMERS[me].0;
    let first = timers.due.lock().first_key_value().map(|(&(deadline, _), _)| deadline);
    let target = match (first, limit) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b).unwrap_or(u64::MAX),
    };
    timers.armed.store(target, Ordering::Relaxed);
    if target == u64::MAX {
        apic::stop_timer();
    } else {
        clock::arm(target);
    }
}
