//! Queues of threads that wait for an event.
//!
//! Called by whatever can block: pipes, terminals, wait4, ... A queue holds no condition of its
//! own; the woken thread executes its system call again and looks for itself. Wake-ups may
//! therefore be spurious, but none is lost (order of steps in [`super`]).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Thread, queue};
use crate::sync::Lock;

/// Threads waiting for one event source.
pub struct WaitQueue {
    waiters: Lock<Vec<Entry>>,
}

/// A thread and the number of the wait it registered for; older numbers are stale.
struct Entry {
    thread: Arc<Thread>,
    wait: u64,
}

impl WaitQueue {
    /// A queue nobody waits on.
    pub const fn new() -> WaitQueue {
        WaitQueue { waiters: Lock::new(Vec::new()) }
    }

    /// Registers the running `thread`: the next wake-up of this queue ends its wait.
    ///
    /// Registering twice is the same as once. The registration lasts until the thread is
    /// woken by anything; there is no need to take it back.
    pub fn register(&self, thread: &Arc<Thread>) {
        let wait = thread.current_wait();
        let mut waiters = self.waiters.lock();
        match waiters.iter_mut().find(|e| Arc::ptr_eq(&e.thread, thread)) {
            Some(entry) => entry.wait = wait,
            None => waiters.push(Entry { thread: thread.clone(), wait }),
        }
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        let woken = core::mem::take(&mut *self.waiters.lock());
        for entry in woken {
            queue::wake_wait(&entry.thread, entry.wait);
        }
    }
}

impl Default for WaitQueue {
    fn default() -> WaitQueue {
        WaitQueue::new()
    }
}
