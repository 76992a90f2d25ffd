//! munmap: replace the areas by what sticks out, sweep, flush, release.

use super::Core;
use super::map::stripe_parts;
use crate::addr::PageRange;
use crate::area::{Changes, Index, Place, RangeEvent, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::NoMemory;
use crate::table::Rewrite;

/// Why nothing was unmapped. A failed call has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapError {
    /// The range passes the end of the space, or would cut a large page of the pool (EINVAL).
    Invalid,
    /// No memory for the parts of a split area, or for the copy of a shared table (ENOMEM).
    NoMemory,
    /// A part is sealed (EPERM).
    Sealed,
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
        if let Some(unmapped) = self.unmap_single(ctx, range, guard) {
            return unmapped.map_err(|NoMemory| UnmapError::NoMemory);
        }
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let mut changes = Changes::new();
        let window = self.prepare_unmap(range, guard, &mut changes).map_err(|_| UnmapError::NoMemory)?;
        if changes.is_empty() {
            return Ok(());
        }
        if self.breaks_seal(&changes, guard) {
            return Err(UnmapError::Sealed);
        }
        if self.cuts_large(low, high, guard) {
            return Err(UnmapError::Invalid);
        }
        let rewrite = Rewrite::Remove { window };
        self.prepare_tables(ctx, low, high, rewrite).map_err(|_| UnmapError::NoMemory)?;
        let watchers = self.watchers_of(range, guard).map_err(|NoMemory| UnmapError::NoMemory)?;
        self.commit_all(ctx, &mut changes, guard, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
            self.forget_large(ctx, low, high);
        })
        .map_err(|NoMemory| UnmapError::NoMemory)?;
        watchers.tell(RangeEvent::Unmapped(range));
        Ok(())
    }

    /// Prepares the changes, and returns the gap that will be around `range`, as far as its stripes reach: tables that
    /// lie wholly in it are freed (ZP-08), and none but the root serves two stripes.
    pub(super) fn prepare_unmap(
        &self,
        range: PageRange,
        guard: &StripeGuard<'_>,
        changes: &mut Changes<M>,
    ) -> Result<(u64, u64), NoMemory> {
        let mut window = (range.start().as_u64(), range.end().as_u64());
        for part in stripe_parts::<M>(range) {
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            let place = self.index.place(low, guard);
            let gap = self.gap_around(&place, part);
            if part.start() == range.start() {
                window.0 = gap.0;
            }
            if part.end() == range.end() {
                window.1 = gap.1;
            }
            if !place.is_free(high) {
                self.prepare_replace(changes, &place, part, None)?;
            }
        }
        Ok(window)
    }

    /// The gap that will be around `range` when nothing is mapped there, as far as its stripe reaches. The place is that of
    /// its start.
    #[inline]
    pub(super) fn gap_around(&self, place: &Place<'_, M>, range: PageRange) -> (u64, u64) {
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let (floor, ceiling) = Index::<M>::bounds(Index::<M>::stripe_of(low));
        let below = place.below().map_or(floor, |area| area.range.end().as_u64().min(low));
        let above = place.above(high).map_or(ceiling, |area| area.range.start().as_u64().max(high));
        (below, above)
    }
}
