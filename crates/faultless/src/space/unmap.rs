//! munmap: replace the areas by what sticks out, sweep, flush, release.

use super::Core;
use super::map::stripe_parts;
use crate::addr::PageRange;
use crate::area::{Changes, Index, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::NoMemory;
use crate::table::Rewrite;

/// Why nothing was unmapped. A failed call has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapError {
    /// The range passes the end of the space (EINVAL).
    Invalid,
    /// No memory for the parts of a split area, or for the copy of a shared table (ENOMEM).
    NoMemory,
}

impl<M: Machine> Core<M> {
    /// Unmaps `range`; holes in it are fine.
    pub(crate) fn unmap(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), UnmapError> {
        if range.end() > self.layout.highest {
            return Err(UnmapError::Invalid);
        }
        let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
        self.unmap_locked(ctx, range, &guard)
    }

    /// The same with the stripes locked.
    pub(super) fn unmap_locked(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        guard: &StripeGuard<'_>,
    ) -> Result<(), UnmapError> {
        if self.is_free(range, guard) {
            return Ok(());
        }
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let rewrite = Rewrite::Remove { window: self.window(range, guard) };
        let mut changes = Changes::new();
        self.prepare_unmap(range, guard, &mut changes).map_err(|_| UnmapError::NoMemory)?;
        self.prepare_tables(ctx, low, high, rewrite).map_err(|_| UnmapError::NoMemory)?;
        self.commit_all(ctx, &mut changes, guard, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
        });
        Ok(())
    }

    pub(super) fn prepare_unmap(
        &self,
        range: PageRange,
        guard: &StripeGuard<'_>,
        changes: &mut Changes<M>,
    ) -> Result<(), NoMemory> {
        for part in stripe_parts::<M>(range) {
            if !self.is_free(part, guard) {
                self.prepare_replace(changes, part, None, guard)?;
            }
        }
        Ok(())
    }

    /// The gap that will be around `range` once it is unmapped, as far as the locked stripes reach: tables that lie
    /// wholly in it are freed (ZP-08).
    pub(super) fn window(&self, range: PageRange, guard: &StripeGuard<'_>) -> (u64, u64) {
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let stripes = guard.stripes();
        let (floor, _) = Index::<M>::bounds(*stripes.start());
        let (_, ceiling) = Index::<M>::bounds(*stripes.end());
        let below = self.index.previous(low, guard).map_or(floor, |area| area.range.end().as_u64().min(low));
        let above = self.index.next(high, guard).map_or(ceiling, |area| area.range.start().as_u64().max(high));
        (below, above)
    }
}
