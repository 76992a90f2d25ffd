//! Fork: the child shares the parent's tables from the root down. Protocol P6.
//!
//! The cost does not depend on what is mapped: the areas are copied, and the root slots of the stripes that hold areas
//! change hands. What became shared by this fork is write-protected at the root, so the CPUs of the parent are flushed
//! once; a fork that finds everything shared already (SH-02) neither waits nor flushes.

use super::{Core, Registry};
use crate::area::{Index, StripeGuard};
use crate::frame::Ctx;
use crate::machine::{Machine, Scope};
use crate::sync::{Event, Ordering, mutant};
use crate::table;
use crate::tlb::shootdown;
use alloc::sync::Arc;

/// Why there is no child. The parent is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkError {
    /// No frame for the root, or no heap for the areas (ENOMEM).
    NoMemory,
    /// The space has been taken down.
    Exited,
}

impl<M: Machine> Core<M> {
    /// Makes a child that sees what this space sees now.
    pub(crate) fn fork(&self, ctx: Ctx<'_, M>, registry: &Registry<M>) -> Result<Arc<Core<M>>, ForkError> {
        let root = table::alloc_root(ctx).ok_or(ForkError::NoMemory)?;
        let mut child = Core::new(Arc::clone(&self.memory), registry.next_id(), root, self.layout);
        let guard = self.index.lock_all(ctx.cpu.held(), move || ctx.relax());
        let cloned = if self.has_exited() { Err(ForkError::Exited) } else { self.clone_areas(&mut child, &guard) };
        if let Err(error) = cloned {
            drop(guard);
            table::teardown(ctx, root);
            return Err(error);
        }
        let child = Arc::new(child);
        // R10: truncation must know the child before its tables can be changed on their own.
        registry.insert(ctx, &child);
        self.share_tables(ctx, &child, &guard);
        ctx.count(Event::Forks);
        Ok(child)
    }

    fn clone_areas(&self, child: &mut Core<M>, guard: &StripeGuard<'_>) -> Result<(), ForkError> {
        child.index.clone_from(&self.index, guard).map_err(|_| ForkError::NoMemory)?;
        let (start, now) = self.brk_range();
        child.stack_limit.store(self.stack_limit.load(Ordering::Relaxed), Ordering::Relaxed);
        child.set_brk(start);
        child.brk.store(now.as_u64(), Ordering::Relaxed);
        child.has_shared.store(true, Ordering::Relaxed);
        self.has_shared.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Freezes the root slots, waits for the faults under way, flushes, shares, counts, thaws.
    fn share_tables(&self, ctx: Ctx<'_, M>, child: &Self, guard: &StripeGuard<'_>) {
        // An unused stripe has no table to share, and no live area for a fault to commit a page under. But a fault of a
        // dead area may be under way, and the tables it links are counted: then every stripe is frozen.
        let late = ctx.has_other_sections(self.section_name());
        let used: u64 = guard.stripes().filter(|stripe| late || self.is_used(*stripe)).map(|stripe| 1 << stripe).sum();
        let used = || (0..64).filter(|stripe| used >> stripe & 1 == 1).map(Index::<M>::slots);
        let mut became_shared = false;
        for slots in used() {
            became_shared |= table::freeze(ctx, self.root, slots);
        }
        if became_shared {
            if !mutant::is(mutant::Mutant::NoForkGrace) && ctx.wait_for_sections(self.section_name()) {
                ctx.count(Event::ForkWaits);
            }
            if !mutant::is(mutant::Mutant::NoForkFlush) {
                let _flushed = shootdown(ctx, &self.mask, self.root, Scope::All);
            }
        }
        for slots in used() {
            table::link_child(ctx, self.root, child.root, slots);
        }
        child.touched.store(self.touched.load(Ordering::Relaxed), Ordering::Relaxed);
        child.strays.store(self.strays.load(Ordering::Relaxed), Ordering::Relaxed);
        // Before the thaw: from then on faults change the parent's counters and tables.
        child.counters.inherit(ctx, &self.counters);
        let stamp = ctx.cpu.stamp();
        for slots in used() {
            table::unfreeze(ctx, self.root, slots, stamp);
        }
    }
}
