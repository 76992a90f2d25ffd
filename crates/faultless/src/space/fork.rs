//! Fork: the child shares the parent's tables from the root down. Protocol P6.
//!
//! The cost does not depend on what is mapped: the areas are copied, and the root slots of the stripes that hold areas
//! change hands. What became shared by this fork is write-protected at the root, so the CPUs of the parent are flushed
//! once; a fork that finds everything shared already (SH-02) neither waits nor flushes.

use super::extent::Growth;
use super::settle::NoTables;
use super::tell::Heirs;
use super::{Core, Registry};
use crate::area::{AreaFlags, Attributes, Index, StripeGuard};
use crate::frame::Ctx;
use crate::machine::{Machine, Scope};
use crate::sync::{Event, NoMemory, Ordering, mutant};
use crate::table::{self, Rewrite};
use crate::tlb::shootdown;
use crate::{PAGE_SIZE, PageRange};
use alloc::sync::Arc;
use alloc::vec::Vec;

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
        let cloned = if self.has_exited() { Err(ForkError::Exited) } else { self.clone_areas(ctx, &mut child, &guard) };
        let withheld = match cloned {
            Ok(withheld) => withheld,
            Err(error) => {
                drop(guard);
                table::teardown(ctx, root);
                return Err(error);
            }
        };
        let child = Arc::new(child);
        // R10: truncation must know the child before its tables can be changed on their own.
        registry.insert(ctx, &child);
        let pins_kept = self.share_tables(ctx, &child, registry, &guard);
        drop(guard);
        if pins_kept.and_then(|()| child.withhold(ctx, &withheld)).is_err() {
            child.exit(ctx, registry);
            return Err(ForkError::NoMemory);
        }
        ctx.count(Event::Forks);
        Ok(child)
    }

    /// Copies areas and what else the child starts with. Returns the ranges whose pages it must not get.
    fn clone_areas(
        &self,
        ctx: Ctx<'_, M>,
        child: &mut Core<M>,
        guard: &StripeGuard<'_>,
    ) -> Result<Vec<PageRange>, ForkError> {
        let (mut withheld, mut growth, mut cloned) = (Vec::new(), Growth::default(), 0);
        let (commit, mut heirs) = (ctx.memory.commit(), Heirs::new());
        let inherited = child.index.clone_from(&self.index, guard, |area| {
            if area.flags.intersects(AreaFlags::NO_FORK | AreaFlags::WIPE_ON_FORK) {
                withheld.try_reserve(1).map_err(|_| NoMemory)?;
                withheld.push(area.range);
            }
            if area.flags.contains(AreaFlags::NO_FORK) {
                return Ok(None);
            }
            let lost = AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT | AreaFlags::HUGETLB_RESERVED;
            let flags = area.flags.without(lost);
            if flags.contains(AreaFlags::ACCOUNTED) && !commit.allows_one(area.range.len() / PAGE_SIZE) {
                return Err(NoMemory);
            }
            let watch = heirs.of(area)?;
            let attributes = Attributes { flags, watch, ..(**area).clone() };
            growth.add(&attributes);
            attributes.note_object(1);
            cloned += 1;
            Ok(Some(attributes))
        });
        let promised = || commit.promise_sum(Some(ctx.cpu.index()), growth.promised(), || self.account.extent().pages);
        if inherited.and_then(|()| promised()).is_err() {
            self.take_back(guard, cloned);
            return Err(ForkError::NoMemory);
        }
        child.account.inherit(ctx, &growth, &self.account);
        let (start, now) = self.brk_range();
        child.stack_limit.store(self.stack_limit.load(Ordering::Relaxed), Ordering::Relaxed);
        child.set_brk(start);
        child.brk.store(now.as_u64(), Ordering::Relaxed);
        child.watched.store(heirs.any(), Ordering::Relaxed);
        child.has_shared.store(true, Ordering::Relaxed);
        self.has_shared.store(true, Ordering::Relaxed);
        Ok(withheld)
    }

    /// Tells the objects of the first `cloned` areas that the child does not come.
    #[cold]
    fn take_back(&self, guard: &StripeGuard<'_>, mut cloned: usize) {
        self.index.each(0, self.layout.highest.as_u64(), guard, &mut |area| {
            if !area.flags.contains(AreaFlags::NO_FORK) && cloned > 0 {
                area.note_object(-1);
                cloned -= 1;
            }
            cloned > 0
        });
    }

    /// Takes pages out of a child that nobody runs yet.
    fn withhold(&self, ctx: Ctx<'_, M>, ranges: &[PageRange]) -> Result<(), NoTables> {
        ranges.iter().try_for_each(|range| {
            let (low, high) = (range.start().as_u64(), range.end().as_u64());
            let _guard = self.lock(ctx, low, high);
            self.sweep_alive(ctx, low, high, Rewrite::Discard { range: (low, high), restamps: false, copies: true })
        })
    }

    /// Freezes the root slots, waits for the faults under way, flushes, shares, counts, thaws.
    fn share_tables(
        &self,
        ctx: Ctx<'_, M>,
        child: &Self,
        registry: &Registry<M>,
        guard: &StripeGuard<'_>,
    ) -> Result<(), NoTables> {
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
        let pins_kept = self.copy_pinned(ctx, child);
        if pins_kept.is_err() && !mutant::is(mutant::Mutant::ThawBeforeExit) {
            // Before the thaw: a fault of the parent would find the pinned page's table shared, and copy the page away.
            child.exit(ctx, registry);
        }
        let stamp = ctx.cpu.stamp();
        for slots in used() {
            table::unfreeze(ctx, self.root, slots, stamp);
        }
        pins_kept
    }
}
