//! Where `table` meets `tlb`: sweeps are driven to their end, and what they removed is flushed, then released (R8, P4).

use super::Core;
use crate::frame::{Ctx, Retired};
use crate::machine::{Machine, Scope};
use crate::sync::{Event, Ordering, mutant};
use crate::table::{Progress, Removed, Rewrite, Sweep, Unlinked, is_private, note_stored, settle_drop, span};
use crate::tlb::{Receipt, shootdown};
use crate::{PageRange, VirtAddr};
use core::mem;

/// No frame for the copy of a shared table, or for the table of a large page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoTables;

impl<M: Machine> Core<M> {
    /// Flushes what `removed` says and releases it. Outside sections, without table locks.
    pub(super) fn settle(&self, ctx: Ctx<'_, M>, removed: &mut Removed) {
        if !removed.needs_flush() {
            debug_assert!(
                removed.frames.is_empty() && removed.blocks.is_empty() && removed.tables.is_empty(),
                "removed, but no address noted"
            );
            return;
        }
        if mutant::is(mutant::Mutant::FreeBeforeFlush) {
            removed.frames.drain(..).for_each(|frame| ctx.put(frame, 1, 1));
        }
        let (low, high) = removed.span();
        let scope = PageRange::new(VirtAddr::new(low), VirtAddr::new(high)).map_or(Scope::All, Scope::of);
        let receipt = shootdown(ctx, &self.mask, self.root, scope);
        release(ctx, removed, receipt);
    }

    /// Sweeps `low..high` to the end. The index is changed, the replaced areas are dead, the stripes are locked.
    ///
    /// # Errors
    ///
    /// [`NoTables`] never, if [`Core::prepare_tables`] succeeded before.
    pub(super) fn sweep(&self, ctx: Ctx<'_, M>, low: u64, high: u64, rewrite: Rewrite) -> Result<(), NoTables> {
        let quiet = !ctx.has_other_sections(self.section_name()) && !mutant::is(mutant::Mutant::NeverQuiet)
            || mutant::is(mutant::Mutant::AlwaysQuiet);
        self.drive(ctx, low, high, rewrite, quiet)
    }

    /// The same where the areas stay alive (truncation). Never quiet: a fault that begins during the sweep works on
    /// entries that the sweep has yet to reach, and no death tells it to give up.
    ///
    /// # Errors
    ///
    /// [`NoTables`] if a shared table could not be copied; what lies below is swept.
    pub(super) fn sweep_alive(&self, ctx: Ctx<'_, M>, low: u64, high: u64, rewrite: Rewrite) -> Result<(), NoTables> {
        self.drive(ctx, low, high, rewrite, mutant::is(mutant::Mutant::AlwaysQuiet))
    }

    pub(super) fn drive(
        &self,
        ctx: Ctx<'_, M>,
        low: u64,
        high: u64,
        rewrite: Rewrite,
        quiet: bool,
    ) -> Result<(), NoTables> {
        let mut removed = Removed::new();
        let mut sweep = Sweep::new(ctx, self.root, rewrite, quiet, &mut removed);
        // Relaxed: a fault that left a stray is over (its section's end was seen), or the sweep is not quiet.
        sweep.strays = self.strays.load(Ordering::Relaxed);
        let mut at = low;
        // Ends: each round resumes where the last one stopped, and a round that stops has removed something.
        loop {
            let progress = self.round(ctx, &mut sweep, |sweep| sweep.run(at, high));
            self.pass_guard(ctx, &mut sweep);
            if sweep.strays {
                self.note_strays();
            }
            match progress {
                Progress::Done => return Ok(()),
                Progress::Resume(address) => at = address,
                Progress::NoMemory(_) => return Err(NoTables),
            }
        }
    }

    /// One stay in a section: sweeps, posts the counters, leaves, settles.
    pub(super) fn round<T>(
        &self,
        ctx: Ctx<'_, M>,
        sweep: &mut Sweep<'_, M>,
        part: impl FnOnce(&mut Sweep<'_, M>) -> T,
    ) -> T {
        let section = ctx.enter(self.section_name());
        let result = part(sweep);
        drop(section);
        self.counters.post(ctx, &mem::take(&mut sweep.delta));
        self.settle(ctx, sweep.removed);
        // After the flush: a store through an old translation is in the page before that says so.
        for frame in sweep.stored.drain(..) {
            note_stored(ctx, frame);
            ctx.put(frame, 1, 1);
        }
        result
    }

    /// The generation wrap guard (C4): one wait for all entries that asked, then back to each. An entry that changed
    /// during the wait asks anew; that ends because only a fault's success changes it.
    fn pass_guard(&self, ctx: Ctx<'_, M>, sweep: &mut Sweep<'_, M>) {
        while !sweep.guarded.is_empty() {
            let asked = mem::take(&mut sweep.guarded);
            ctx.count(Event::WrapWaits);
            ctx.wait_for_sections(self.section_name());
            self.round(ctx, sweep, |sweep| {
                for (address, seen) in asked {
                    if !sweep.revisit(address, seen) {
                        // Asks again: pushes the entry's present value.
                        let _ = sweep.run(address, address + crate::PAGE_SIZE);
                    }
                }
            });
        }
    }

    /// Makes private, before anything is changed, every shared table that an operation on `low..high` will have to
    /// copy. Afterwards the operation cannot run out of memory; if this fails, nothing visible has happened.
    pub(super) fn prepare_tables(
        &self,
        ctx: Ctx<'_, M>,
        low: u64,
        high: u64,
        rewrite: Rewrite,
    ) -> Result<(), NoTables> {
        let moves_huge = ctx.memory.huge_ever() != 0 && rewrite.moves();
        self.split_edges(ctx, low, high)?;
        // Relaxed: set under the stripe locks.
        let has_shared = self.has_shared.load(Ordering::Relaxed);
        if !(has_shared || moves_huge) || self.has_private_path(ctx, low, high) {
            return Ok(());
        }
        let mut removed = Removed::new();
        let mut sweep = Sweep::new(ctx, self.root, rewrite, true, &mut removed);
        sweep.only_unshare = true;
        let mut at = low;
        // Ends: as `sweep`.
        loop {
            match self.round(ctx, &mut sweep, |sweep| sweep.run(at, high)) {
                Progress::Done => return Ok(()),
                Progress::Resume(address) => at = address,
                Progress::NoMemory(_) => return Err(NoTables),
            }
        }
    }
}

impl<M: Machine> Core<M> {
    /// Does the range lie below one table entry, and is no table shared on the way there?
    fn has_private_path(&self, ctx: Ctx<'_, M>, low: u64, high: u64) -> bool {
        let covered = span::<M::Format>(1);
        if low / covered != (high - 1) / covered {
            return false;
        }
        let _section = ctx.enter(self.section_name());
        is_private(ctx, self.root, VirtAddr::new(low))
    }
}

/// Releases what was removed; the receipt proves that no CPU can reach it.
fn release<M: Machine>(ctx: Ctx<'_, M>, removed: &mut Removed, _receipt: Receipt) {
    removed.frames.drain(..).for_each(|frame| ctx.put(frame, 1, 1));
    removed.blocks.drain(..).for_each(|first| ctx.put_block(first));
    for table in removed.tables.drain(..) {
        match table {
            Unlinked::Shared(table, level) => settle_drop(ctx, table, level),
            Unlinked::Private(table) => {
                let last = ctx.record(table).drop_share();
                debug_assert!(last, "a private table has one parent entry");
                ctx.retire(Retired::Table(table));
            }
        }
    }
    removed.flushed();
}
