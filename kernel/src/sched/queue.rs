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
    let allowed = allowed_cpus(&thread);
    let target = choose_cpu(&thread, allowed);
    push(target, thread);
    // Orders the push before the look at IDLE; pairs with the fence in `announce_idle`.
    fence(Ordering::SeqCst);
    let idle = IDLE.load(Ordering::Relaxed) & allowed;
    let bit = 1 << target;
    // If the target got busy meanwhile, or another CPU idle, that one comes and takes the thread.
    let woken = if idle & bit != 0 { bit } else { idle & idle.wrapping_neg() };
    if woken != 0 && woken != 1 << local::index() {
        IDLE.fetch_and(!woken, Ordering::Relaxed);
        apic::send(woken.trailing_zeros() as usize, vector::KICK);
    }
}

fn push(target: usize, thread: Arc<Thread>) {
    let queue = &QUEUES[target].0;
    let mut ready = queue.ready.lock();
    ready.push_back(thread);
    queue.length.store(ready.len(), Ordering::Relaxed);
}

/// The CPUs that the thread may run on, one bit each; not empty.
fn allowed_cpus(thread: &Thread) -> u64 {
    // The first thread is queued before any CPU runs the scheduler.
    let online = match online_mask() {
        0 => 1 << local::index(),
        mask => mask,
    };
    match thread.affinity.load(Ordering::Relaxed) & online {
        0 => online,
        mask => mask,
    }
}

/// The CPU it ran on if that is idle, any idle one, or the one it ran on.
fn choose_cpu(thread: &Thread, allowed: u64) -> usize {
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

/// The next thread for this CPU: from its own queue, else from another.
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

/// A thread from any other queue. All are asked: what the longest holds may be bound elsewhere.
fn steal(me: usize) -> Option<Arc<Thread>> {
    let others = online_mask() & !(1 << me);
    // Those after this CPU first, so that not all idle CPUs ask the same one.
    let mut after = (others >> me) << me;
    let mut before = others & !after;
    while after | before != 0 {
        let part = if after != 0 { &mut after } else { &mut before };
        let victim = part.trailing_zeros() as usize;
        *part &= *part - 1;
        if let Some(thread) = take_from(victim, me) {
            return Some(thread);
        }
    }
    None
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
