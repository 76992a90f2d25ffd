//! Run queues: one per CPU, with idle CPUs taking from busy ones.
//!
//! Called by whatever makes a thread runnable, and by the run loop for the next one.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use super::Thread;
use super::thread::Woken;
use crate::arch::idt::vector;
use crate::arch::local::{self, Padded};
use crate::arch::{MAX_CPUS, apic};
use crate::sync::Lock;

struct Queue {
    ready: Lock<VecDeque<Arc<Thread>>>,
    /// Length of `ready`, readable without the lock.
    length: AtomicUsize,
}

static QUEUES: [Padded<Queue>; MAX_CPUS] =
    [const { Padded(Queue { ready: Lock::new(VecDeque::new()), length: AtomicUsize::new(0) }) }; MAX_CPUS];

/// CPUs that run the scheduler, one bit each.
static ONLINE: AtomicU64 = AtomicU64::new(0);
/// CPUs that have nothing to do and are about to halt, or halted.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// CPUs that run threads, one bit each.
pub fn online_mask() -> u64 {
    ONLINE.load(Ordering::Relaxed)
}

/// This CPU runs threads from now on.
pub(super) fn set_online(index: usize) {
    ONLINE.fetch_or(1 << index, Ordering::Relaxed);
}

/// Whether a thread waits for this CPU.
pub(super) fn has_waiting(index: usize) -> bool {
    QUEUES[index].0.length.load(Ordering::Relaxed) != 0
}

/// Ends whatever the thread waits for; if it runs, makes it look again before it parks.
pub fn wake(thread: &Arc<Thread>) {
    if thread.note_wake(None) == Woken::Enqueue {
        enqueue(thread.clone());
    }
}

/// Ends the wait `wait` of the thread. Says whether the thread still was in that wait.
pub(super) fn wake_wait(thread: &Arc<Thread>, wait: u64) -> bool {
    match thread.note_wake(Some(wait)) {
        Woken::Enqueue => {
            enqueue(thread.clone());
            true
        }
        Woken::Noted => true,
        Woken::Stale => false,
    }
}

/// Makes the thread look at its attention flag soon, wherever it is: parked, queued, or in user
/// mode on some CPU. The flag must be set before.
pub fn kick(thread: &Arc<Thread>) {
    wake(thread);
    // Pairs with the fence in `switch::enter`: either the flag is seen there, or the CPU here.
    fence(Ordering::SeqCst);
    let cpu = thread.cpu.load(Ordering::Relaxed) as usize;
    if cpu != local::index() {
        apic::send(cpu, vector::KICK);
    }
}

/// Puts a thread into a queue; it must be in none and current nowhere.
pub fn enqueue(thread: Arc<Thread>) {
    let target = choose_cpu(&thread);
    push(target, thread);
    // Orders the push before the look at IDLE; pairs with the fence in `announce_idle`.
    fence(Ordering::SeqCst);
    let bit = 1 << target;
    if target != local::index() && IDLE.load(Ordering::Relaxed) & bit != 0 {
        IDLE.fetch_and(!bit, Ordering::Relaxed);
        apic::send(target, vector::KICK);
    }
}

fn push(target: usize, thread: Arc<Thread>) {
    let queue = &QUEUES[target].0;
    let mut ready = queue.ready.lock();
    ready.push_back(thread);
    queue.length.store(ready.len(), Ordering::Relaxed);
}

/// The CPU it ran on if that is idle, any idle one, or the one it ran on.
fn choose_cpu(thread: &Thread) -> usize {
    // The first thread is queued before any CPU runs the scheduler.
    let online = match online_mask() {
        0 => 1 << local::index(),
        mask => mask,
    };
    let allowed = match thread.affinity.load(Ordering::Relaxed) & online {
        0 => online,
        mask => mask,
    };
    let last = 1 << thread.cpu.load(Ordering::Relaxed);
    let idle = IDLE.load(Ordering::Relaxed) & allowed;
    let choice = if idle & last != 0 || (idle == 0 && allowed & last != 0) {
        last
    } else if idle != 0 {
        idle
    } else {
        allowed
    };
    choice.trailing_zeros() as usize
}

/// The next thread for this CPU: from its own queue, else from the longest other.
pub(super) fn next(me: usize) -> Option<Arc<Thread>> {
    take_from(me, me).or_else(|| steal(me))
}

fn take_from(index: usize, me: usize) -> Option<Arc<Thread>> {
    let queue = &QUEUES[index].0;
    if queue.length.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mut ready = queue.ready.lock();
    let place = ready.iter().position(|t| t.affinity.load(Ordering::Relaxed) & 1 << me != 0 || index == me)?;
    let thread = ready.remove(place);
    queue.length.store(ready.len(), Ordering::Relaxed);
    thread
}

fn steal(me: usize) -> Option<Arc<Thread>> {
    let longest = (0..MAX_CPUS)
        .filter(|&i| i != me && online_mask() & 1 << i != 0)
        .max_by_key(|&i| QUEUES[i].0.length.load(Ordering::Relaxed))?;
    take_from(longest, me)
}

/// Whether another CPU has a thread waiting that this one may run. May be wrong either way; a thread
/// that becomes ready later finds this CPU announced as idle.
pub(super) fn can_steal(me: usize) -> bool {
    let allows = |thread: &Arc<Thread>| thread.affinity.load(Ordering::Relaxed) & 1 << me != 0;
    (0..MAX_CPUS).filter(|&i| i != me).any(|i| {
        let queue = &QUEUES[i].0;
        queue.length.load(Ordering::Relaxed) != 0 && queue.ready.lock().iter().any(allows)
    })
}

/// Says that this CPU is about to halt. The caller looks for work once more afterwards.
pub(super) fn announce_idle(me: usize) {
    IDLE.fetch_or(1 << me, Ordering::Relaxed);
    // Pairs with the fence in `enqueue`: either the thread is seen, or this bit.
    fence(Ordering::SeqCst);
}

/// Takes `announce_idle` back.
pub(super) fn end_idle(me: usize) {
    IDLE.fetch_and(!(1 << me), Ordering::Relaxed);
}
