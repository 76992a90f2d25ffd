//! `eventfd`: a counter that can be waited for.
//!
//! Called by open files.

use super::poll::Readiness;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::sched::WaitQueue;
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};

/// The counter behind an `eventfd`.
pub struct EventCounter {
    count: Lock<u64>,
    mode: EventMode,
    /// Woken at each change.
    changed: WaitQueue,
}

/// What a read takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventMode {
    /// All of it.
    Counter,
    /// One (`EFD_SEMAPHORE`).
    Semaphore,
}

/// Largest value.
const MAX: u64 = u64::MAX - 1;
const SIZE: usize = 8;

impl EventCounter {
    /// A counter that starts at `count`.
    pub fn new(count: u32, mode: EventMode) -> EventCounter {
        EventCounter { count: Lock::new(u64::from(count)), mode, changed: WaitQueue::new() }
    }

    /// Takes from the counter.
    ///
    /// # Errors
    ///
    /// `EINVAL` if 8 bytes do not fit, `EAGAIN` at zero, `EFAULT`.
    pub fn read(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        if to.room() < SIZE {
            return Err(Errno::EINVAL);
        }
        let taken = {
            let mut count = self.count.lock();
            let taken = match self.mode {
                EventMode::Counter => *count,
                EventMode::Semaphore => 1.min(*count),
            };
            if taken == 0 {
                return Err(Errno::EAGAIN);
            }
            *count -= taken;
            taken
        };
        self.changed.wake_all();
        if to.put(cpu, &taken.to_le_bytes()) < SIZE {
            return Err(Errno::EFAULT);
        }
        Ok(SIZE)
    }

    /// Adds to the counter.
    ///
    /// # Errors
    ///
    /// `EINVAL` for fewer than 8 bytes or all ones, `EAGAIN` if it would overflow, `EFAULT`.
    pub fn write(&self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        if from.left() < SIZE {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; SIZE];
        if from.take(cpu, &mut bytes) < SIZE {
            return Err(Errno::EFAULT);
        }
        let more = u64::from_le_bytes(bytes);
        if more == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            if more > MAX - *count {
                return Err(Errno::EAGAIN);
            }
            *count += more;
        }
        self.changed.wake_all();
        Ok(SIZE)
    }

    /// What `poll` says.
    pub fn readiness(&self) -> Readiness {
        let count = *self.count.lock();
        let readable = if count > 0 { Readiness::IN } else { Readiness::NONE };
        let writable = if count < MAX { Readiness::OUT } else { Readiness::NONE };
        readable.with(writable)
    }

    /// Where a thread waits for a change.
    pub fn queue(&self) -> &WaitQueue {
        &self.changed
    }
}
