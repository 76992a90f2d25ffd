//! Futexes: threads that wait for a word of user memory to change.
//!
//! Called by the futex system call and at the end of threads. Waiters sit in buckets, found by a
//! hash of the word's [`Key`]. A waiter registers first and looks at the word afterwards, so no
//! user memory is touched under a bucket's lock; a waker changes the word first and takes waiters
//! off afterwards. One of the two therefore notices the other.
//!
//! Absent on purpose: priority inheritance (ENOSYS).

mod calls;
mod robust;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use faultless::{AreaFlags, PAGE_SIZE, Sharing, VirtAddr};

use crate::arch::CpuLocal;
use crate::process::Memory;
use crate::sched::{self, Thread};
use crate::sync::Lock;

pub use calls::sys_futex;
pub(crate) use robust::release_robust_list;

/// What makes two addresses the same futex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// A word of one address space: its identity, and the address.
    Private(usize, u64),
    /// A word of shared memory: the object, and the offset in it.
    Shared(u64, u64),
}

/// A thread that waits.
pub struct Waiter {
    thread: Arc<Thread>,
    /// Where it waits now; changed by requeueing, under the locks of both buckets.
    key: Lock<Key>,
    /// Wakers with no bit in common pass it over.
    bits: u32,
    woken: AtomicBool,
}

const BUCKETS: usize = 256;

static TABLE: [Lock<Vec<Arc<Waiter>>>; BUCKETS] = [const { Lock::new(Vec::new()) }; BUCKETS];

impl Key {
    /// The key of a word. `private` says that the caller promises not to share it.
    fn of(cpu: &mut CpuLocal, memory: &Arc<Memory>, address: u64, private: bool) -> Key {
        let own = Key::Private(Arc::as_ptr(memory) as usize, address);
        if private {
            return own;
        }
        match memory.space().area_at(&mut cpu.vm, VirtAddr::new(address)) {
            Some(area) if area.sharing == Sharing::Shared => match area.object {
                Some((object, offset)) => {
                    let mut offset = offset + (address - area.range.start().as_u64());
                    if area.flags.contains(AreaFlags::NONLINEAR)
                        && let Some(page) = memory.space().page_index_at(&mut cpu.vm, VirtAddr::new(address))
                    {
                        offset = page * PAGE_SIZE + offset % PAGE_SIZE;
                    }
                    Key::Shared(object.id(), offset)
                }
                None => own,
            },
            _ => own,
        }
    }

    fn bucket(self) -> usize {
        let (a, b) = match self {
            Key::Private(memory, address) => (memory as u64, address),
            Key::Shared(object, offset) => (object, offset),
        };
        let mixed = (a ^ b.rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize
    }
}

impl Waiter {
    /// Registers a waiter.
    fn register(thread: &Arc<Thread>, key: Key, bits: u32) -> Arc<Waiter> {
        let waiter =
            Arc::new(Waiter { thread: thread.clone(), key: Lock::new(key), bits, woken: AtomicBool::new(false) });
        TABLE[key.bucket()].lock().push(waiter.clone());
        waiter
    }

    /// Whether a waker has taken it off.
    fn is_woken(&self) -> bool {
        // Acquire pairs with the Release in `wake`: what the waker did before is visible.
        self.woken.load(Ordering::Acquire)
    }

    /// Stops waiting. Says whether that was so; if not, it has been woken.
    pub fn withdraw(&self) -> bool {
        // Ends: the key changes only when another thread requeues this waiter.
        loop {
            let key = *self.key.lock();
            let mut bucket = TABLE[key.bucket()].lock();
            if let Some(at) = bucket.iter().position(|w| core::ptr::eq(&**w, self)) {
                bucket.remove(at);
                return true;
            }
            if self.is_woken() {
                return false;
            }
        }
    }
}

/// Wakes up to `most` waiters of `key` that share a bit with `bits`. Returns how many.
fn wake(key: Key, most: usize, bits: u32) -> usize {
    let mut woken = Vec::new();
    {
        let mut bucket = TABLE[key.bucket()].lock();
        let mut n = 0;
        while n < bucket.len() && woken.len() < most {
            if *bucket[n].key.lock() == key && bucket[n].bits & bits != 0 {
                let waiter = bucket.remove(n);
                // Release pairs with the Acquire in `is_woken`.
                waiter.woken.store(true, Ordering::Release);
                woken.push(waiter);
            } else {
                n += 1;
            }
        }
    }
    for waiter in &woken {
        sched::wake(&waiter.thread);
    }
    woken.len()
}

/// Moves up to `most` waiters of `from` to `to` without waking them. Returns how many.
fn requeue(from: Key, to: Key, most: usize) -> usize {
    let mut moved = 0;
    if from == to {
        return 0;
    }
    let (first, second) = (from.bucket().min(to.bucket()), from.bucket().max(to.bucket()));
    let mut low = TABLE[first].lock();
    if first == second {
        for waiter in low.iter() {
            let mut key = waiter.key.lock();
            if moved < most && *key == from {
                *key = to;
                moved += 1;
            }
        }
        return moved;
    }
    let mut high = TABLE[second].lock();
    let (source, target) = if from.bucket() == first { (&mut *low, &mut *high) } else { (&mut *high, &mut *low) };
    let mut n = 0;
    while n < source.len() && moved < most {
        if *source[n].key.lock() == from {
            let waiter = source.remove(n);
            *waiter.key.lock() = to;
            target.push(waiter);
            moved += 1;
        } else {
            n += 1;
        }
    }
    moved
}

/// Wakes one waiter of a word, whichever way it waits: used when a thread ends.
pub fn wake_address(cpu: &mut CpuLocal, memory: &Arc<Memory>, address: u64) {
    let private = Key::of(cpu, memory, address, true);
    let shared = Key::of(cpu, memory, address, false);
    if wake(private, 1, u32::MAX) == 0 && shared != private {
        wake(shared, 1, u32::MAX);
    }
}
