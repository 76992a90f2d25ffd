//! Which CPUs may cache translations of a space, and how they are made to forget them. Protocol P4.
//!
//! Called by `space` and `engine`. A [`Receipt`] proves that every CPU that could hold an old translation has let it
//! go; only with it may removed frames be re-used. Absent on purpose: page tables. This room does not know what was
//! removed.

use crate::addr::{CpuId, CpuSet, FrameId, PageRange, VirtAddr};
use crate::frame::Ctx;
use crate::machine::{Flush, Machine, Scope};
use crate::sync::{AtomicU64, Event, Ordering, fence, mutant};
use alloc::boxed::Box;

/// The CPUs that run a space.
///
/// A CPU sets its bit before it loads the space's root and clears it after it has loaded another one.
pub(crate) struct Mask {
    words: Box<[AtomicU64]>, // (A) each CPU changes its own bit
}

/// Proof of a completed flush.
#[must_use = "a receipt is what removed frames wait for"]
pub(crate) struct Receipt(());

impl Mask {
    /// Nobody, on a machine of `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { words: (0..cpus.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// `cpu` is about to load the root.
    pub(crate) fn insert(&self, cpu: CpuId) {
        self.words[cpu.as_usize() / 64].fetch_or(1 << (cpu.as_usize() % 64), Ordering::AcqRel);
        // Pairs with the fence in `members`: either the flusher sees the bit, or this CPU's walks see its changes.
        if !mutant::is(mutant::Mutant::NoActivateFence) {
            fence(Ordering::SeqCst);
        }
    }

    /// `cpu` has loaded another root and holds no translation any more.
    pub(crate) fn remove(&self, cpu: CpuId) {
        // Release: a flusher that no longer sees the bit is after the switch.
        self.words[cpu.as_usize() / 64].fetch_and(!(1 << (cpu.as_usize() % 64)), Ordering::Release);
    }

    /// The CPUs that run the space now, this one in or out.
    fn members(&self) -> CpuSet {
        // Pairs with the fence in `insert`.
        fence(Ordering::SeqCst);
        let mut set = CpuSet::new();
        for (index, word) in self.words.iter().enumerate() {
            // Acquire pairs with the Release in `remove`.
            set.insert_word(index, word.load(Ordering::Acquire));
        }
        set
    }

    /// Does no CPU other than `me` run the space? The changes made so far are visible to all that start to later.
    pub(crate) fn is_only(&self, me: CpuId) -> bool {
        // Pairs with the fence in `insert`.
        fence(Ordering::SeqCst);
        self.words.iter().enumerate().all(|(index, word)| {
            let mine = if index == me.as_usize() / 64 { 1 << (me.as_usize() % 64) } else { 0 };
            // Acquire pairs with the Release in `remove`.
            word.load(Ordering::Acquire) & !mine == 0
        })
    }

    /// Does no CPU run the space?
    pub(crate) fn is_empty(&self) -> bool {
        self.members().is_empty()
    }
}

/// Makes every CPU that runs the space forget the translations of `scope`. Outside sections, without table locks.
pub(crate) fn shootdown<M: Machine>(ctx: Ctx<'_, M>, mask: &Mask, root: FrameId, scope: Scope) -> Receipt {
    if mutant::is(mutant::Mutant::NoShootdown) {
        return Receipt(());
    }
    let mut targets = mask.members();
    let flush = Flush { root, scope };
    let me = ctx.cpu.id();
    if targets.contains(me) {
        targets.remove(me);
        ctx.count(Event::FlushLocal);
        ctx.machine().flush_local(me, &flush);
    }
    if !targets.is_empty() {
        ctx.count(Event::FlushRemote);
        ctx.machine().flush_remote(me, &targets, &flush);
    }
    Receipt(())
}

/// Flushes one page on this CPU if no other runs the space; `None` (nothing done) if others do.
///
/// Never waits, so it may be called inside a section. The caller's entry change precedes the look at the mask: a CPU
/// that appears in it later walks the changed tables.
pub(crate) fn flush_if_alone<M: Machine>(
    ctx: Ctx<'_, M>,
    mask: &Mask,
    root: FrameId,
    address: VirtAddr,
) -> Option<Receipt> {
    let me = ctx.cpu.id();
    if !mask.is_only(me) && !mutant::is(mutant::Mutant::NoAloneCheck) {
        return None;
    }
    ctx.count(Event::FlushLocal);
    ctx.machine().flush_local(me, &Flush { root, scope: Scope::Pages(PageRange::page(address)) });
    Some(Receipt(()))
}
