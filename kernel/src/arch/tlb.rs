//! TLB shootdown: what one CPU asks of others, and how it learns that they have done it.
//!
//! Each CPU has a mailbox with the one flush it has outstanding, and a word of requests with one
//! bit per CPU whose mailbox it has to read. A requester does not return before all targets have
//! counted down, so a mailbox is never overwritten early and no request is lost or merged.
//!
//! | step | requester (CPU r) | target (CPU t) |
//! |---|---|---|
//! | 1 | `mail[r]` = flush, `remaining` = n | |
//! | 2 | `requests[t]` \|= r (Release) and interrupt | |
//! | 3 | | takes `requests[t]` (Acquire), reads `mail[r]`, flushes |
//! | 4 | | `remaining[r]` -= 1 (Release) |
//! | 5 | sees `remaining` = 0 (Acquire) | |
//!
//! Every spin loop of the kernel serves requests ([`serve`]), so two requesters, or a requester
//! and somebody who waits for its lock with interrupts off, do not block each other.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use faultless::{CpuSet, Flush, FrameId, PageRange, Scope};

use super::local::{self, Padded};
use super::{MAX_CPUS, apic, cpu, idt::vector};
use crate::sync::Spin;

struct Mailbox {
    /// Written by the owner while `remaining` is 0, read by targets while it is not.
    flush: UnsafeCell<Option<Request>>,
    /// Targets that have not flushed yet.
    remaining: AtomicU32,
    /// The owner halts; whoever counts down to zero wakes it.
    asleep: AtomicBool,
}

#[derive(Clone, Copy)]
struct Request {
    root: FrameId,
    /// None: everything.
    pages: Option<PageRange>,
}

// SAFETY: `flush` is written only by its owner while nobody is asked to read it (`remaining` is
// 0), and read only between a request (Release/Acquire on `REQUESTS`) and its count-down
// (Release/Acquire on `remaining`).
unsafe impl Sync for Mailbox {}

static MAIL: [Padded<Mailbox>; MAX_CPUS] = [const {
    Padded(Mailbox { flush: UnsafeCell::new(None), remaining: AtomicU32::new(0), asleep: AtomicBool::new(false) })
}; MAX_CPUS];

/// Who wants something of each CPU.
static REQUESTS: [Padded<AtomicU64>; MAX_CPUS] = [const { Padded(AtomicU64::new(0)) }; MAX_CPUS];

/// Root frame that each CPU has loaded, for those who must know that it is gone.
static LOADED: [Padded<AtomicU64>; MAX_CPUS] = [const { Padded(AtomicU64::new(0)) }; MAX_CPUS];

/// Shootdowns asked for, and CPUs interrupted for them.
static SENT: AtomicU64 = AtomicU64::new(0);
static TARGETS: AtomicU64 = AtomicU64::new(0);

/// Shootdowns since boot, and interrupts sent for them.
pub fn counts() -> (u64, u64) {
    (SENT.load(Ordering::Relaxed), TARGETS.load(Ordering::Relaxed))
}

/// Notes that this CPU has loaded `root`.
pub fn note_loaded(root: FrameId) {
    // Release pairs with the Acquire in `is_loaded`: the old root is no longer in use here.
    LOADED[local::index()].0.store(root.as_u64(), Ordering::Release);
}

/// Whether a CPU other than this one has `root` loaded.
pub fn is_loaded_elsewhere(root: FrameId) -> bool {
    let me = local::index();
    // Acquire pairs with the Release in `note_loaded`.
    (0..MAX_CPUS).any(|i| i != me && LOADED[i].0.load(Ordering::Acquire) == root.as_u64())
}

/// Flushes this CPU.
pub fn flush_local(flush: &Flush) {
    let pages = match &flush.scope {
        Scope::Pages(range) => Some(*range),
        Scope::All => None,
    };
    perform(Request { root: flush.root, pages });
}

/// Flushes `targets` and returns when all have done it.
pub fn flush_remote(targets: &CpuSet, flush: &Flush) {
    let me = local::index();
    let mailbox = &MAIL[me].0;
    let pages = match &flush.scope {
        Scope::Pages(range) => Some(*range),
        Scope::All => None,
    };
    let count = targets.iter().count() as u32;
    debug_assert_eq!(mailbox.remaining.load(Ordering::Relaxed), 0);
    // SAFETY: `remaining` is 0, so no CPU reads the mailbox; only its owner writes it.
    unsafe { *mailbox.flush.get() = Some(Request { root: flush.root, pages }) };
    mailbox.remaining.store(count, Ordering::Relaxed);
    SENT.fetch_add(1, Ordering::Relaxed);
    TARGETS.fetch_add(u64::from(count), Ordering::Relaxed);
    for target in targets.iter() {
        let target = target.as_usize();
        // Release publishes the mailbox; pairs with the Acquire in `serve`.
        REQUESTS[target].0.fetch_or(1 << me, Ordering::Release);
        apic::send(target, vector::SHOOTDOWN);
    }
    wait(mailbox);
}

/// Waits until all targets have counted down: busy first, halted later (why: see `sync::Spin`).
fn wait(mailbox: &Mailbox) {
    let mut spin = Spin::new();
    // Acquire pairs with the Release in `serve`: the targets' flushes are done.
    while mailbox.remaining.load(Ordering::Acquire) != 0 {
        if spin.is_busy() {
            spin.relax();
            continue;
        }
        serve();
        // SeqCst on both sides of `asleep` and `remaining`: either this CPU sees zero, or the last
        // target sees it asleep.
        mailbox.asleep.store(true, Ordering::SeqCst);
        if mailbox.remaining.load(Ordering::SeqCst) != 0 {
            cpu::wait_for_interrupt();
        }
        mailbox.asleep.store(false, Ordering::SeqCst);
    }
}

/// Does what other CPUs ask of this one. Called at the interrupt and in every spin loop.
#[inline]
pub fn serve() {
    let requests = &REQUESTS[local::index()].0;
    if requests.load(Ordering::Relaxed) != 0 {
        // Acquire pairs with the Release in `flush_remote`.
        serve_each(requests.swap(0, Ordering::Acquire));
    }
}

#[cold]
fn serve_each(mut requesters: u64) {
    while requesters != 0 {
        let requester = requesters.trailing_zeros() as usize;
        requesters &= requesters - 1;
        let mailbox = &MAIL[requester].0;
        // SAFETY: our bit was set, so the owner leaves the mailbox alone until we count down.
        if let Some(request) = unsafe { *mailbox.flush.get() } {
            perform(request);
        }
        // SeqCst, as `wait` explains; it includes the Release that reports the flush.
        if mailbox.remaining.fetch_sub(1, Ordering::SeqCst) == 1 && mailbox.asleep.load(Ordering::SeqCst) {
            apic::send(requester, vector::KICK);
        }
    }
}

/// Flushes if this CPU uses the space at all: without address-space numbers, another root in CR3
/// means that nothing of this one is cached.
fn perform(request: Request) {
    if cpu::root() >> 12 != request.root.as_u64() {
        return;
    }
    match request.pages {
        Some(range) => {
            let mut page = range.start().as_u64();
            while page < range.end().as_u64() {
                cpu::invalidate_page(page);
                page += faultless::PAGE_SIZE;
            }
        }
        // SAFETY: the root in use, loaded again.
        None => unsafe { cpu::set_root(cpu::root()) },
    }
}
