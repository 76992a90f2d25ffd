//! Changes of one slot of the index: what most calls of mmap, munmap and mprotect come to.
//!
//! Called by `map`, `unmap` and `protect` with the stripe's lock held, before they prepare anything. One area goes and one
//! comes, or only one of both, by one store (P5), and there is nothing to keep track of meanwhile. Absent on purpose:
//! whatever needs more (several areas, stripes or nodes, seals, the pool of large pages): `None` then, and nothing has
//! happened.

use super::Core;
use super::extent::{Admission, Growth};
use crate::addr::{PageRange, Rights};
use crate::area::{Area, Attributes, Index, Place, StripeGuard};
use crate::frame::{Ctx, Retired};
use crate::machine::Machine;
use crate::sync::{NoMemory, try_box};
use crate::table::Rewrite;

/// What one store changes.
struct Single<'r, M: Machine> {
    slot: usize,
    old: Option<&'r Area<M>>,
    new: Option<Attributes<M>>,
}

impl<M: Machine> Core<M> {
    /// Maps `range`, in which nothing is, if one slot can tell.
    #[inline]
    pub(super) fn map_single(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        attributes: &Attributes<M>,
        guard: &StripeGuard<'_>,
    ) -> Option<Result<(), NoMemory>> {
        if !is_in_one_stripe::<M>(range) {
            return None;
        }
        let place = self.index.place(range.start().as_u64(), guard);
        if !place.is_free(range.end().as_u64()) {
            return None;
        }
        let offset = if attributes.object.is_some() { attributes.offset } else { range.start().as_u64() };
        let (object, watch) = (attributes.object.clone(), attributes.watch.clone());
        let mut new = Attributes { range, offset, object, watch, ..*attributes };
        let above = place.first().filter(|area| area.range.start() == range.end() && new.continues_as(area));
        let below = place.below_in_leaf()?.filter(|(_, area)| area.range.end() == range.start());
        let below = below.filter(|(_, area)| area.continues_as(&new));
        let single = match (below, above) {
            (None, Some(area)) => {
                new.extend_up(area);
                Single { slot: place.slot(), old: Some(area), new: Some(new) }
            }
            (Some((slot, area)), None) => {
                new.extend_down(area);
                Single { slot, old: Some(area), new: Some(new) }
            }
            (None, None) => Single { slot: place.vacancy()?, old: None, new: Some(new) },
            (Some(_), Some(_)) => return None,
        };
        Some(self.commit_single(ctx, &place, single, Admission::Fresh, guard, || {}))
    }

    /// Unmaps `range`, if that is an area or one end of it.
    #[inline]
    pub(super) fn unmap_single(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        guard: &StripeGuard<'_>,
    ) -> Option<Result<(), NoMemory>> {
        if self.has_sealed() || self.memory.uses_pool() || !is_in_one_stripe::<M>(range) {
            return None;
        }
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let place = self.index.place(low, guard);
        let area =
            place.first().filter(|area| area.range.start() <= range.start() && range.end() <= area.range.end())?;
        if area.watch.is_some() {
            return None; // its watcher is told
        }
        let (before, behind) = (area.range.start() < range.start(), range.end() < area.range.end());
        let left = match (before, behind) {
            (true, true) => return None,
            (true, false) => PageRange::new(area.range.start(), range.start()).ok(),
            (false, true) => PageRange::new(range.end(), area.range.end()).ok(),
            (false, false) if place.may_remove() => None,
            (false, false) => return None,
        };
        let single = Single { slot: place.slot(), old: Some(area), new: left.map(|left| area.part(left)) };
        let rewrite = Rewrite::Remove { window: self.gap_around(&place, range) };
        if self.prepare_tables(ctx, low, high, rewrite).is_err() {
            return Some(Err(NoMemory));
        }
        Some(self.commit_single(ctx, &place, single, Admission::Checked, guard, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
        }))
    }

    /// Gives an area other rights that it does not share with a neighbour, or says why not.
    #[inline]
    pub(super) fn protect_single(
        &self,
        ctx: Ctx<'_, M>,
        place: &Place<'_, M>,
        area: &Area<M>,
        rights: Rights,
        rewrite: Rewrite,
        guard: &StripeGuard<'_>,
    ) -> Option<Result<(), NoMemory>> {
        let range = area.range;
        let new = Attributes { rights, flags: area.flags_with(rights), ..area.part(range) };
        let merges_above = |above: &Area<M>| above.range.start() == range.end() && new.continues_as(above);
        let merges_below = |below: &Area<M>| below.range.end() == range.start() && below.continues_as(&new);
        if place.below().is_some_and(merges_below) || place.above(range.end().as_u64()).is_some_and(merges_above) {
            return None;
        }
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        if self.prepare_tables(ctx, low, high, rewrite).is_err() {
            return Some(Err(NoMemory));
        }
        let single = Single { slot: place.slot(), old: Some(area), new: Some(new) };
        Some(self.commit_single(ctx, place, single, Admission::Checked, guard, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
        }))
    }

    /// Publishes the change, runs `sweep`, then retires the area that was replaced: [`Core::commit_as`] for one slot.
    #[inline(always)]
    fn commit_single(
        &self,
        ctx: Ctx<'_, M>,
        place: &Place<'_, M>,
        Single { slot, old, new }: Single<'_, M>,
        admission: Admission,
        guard: &StripeGuard<'_>,
        sweep: impl FnOnce(),
    ) -> Result<(), NoMemory> {
        let new = match new {
            Some(attributes) => Some(try_box(Area::new(attributes)).map_err(|_| NoMemory)?),
            None => None,
        };
        let growth = Growth::of_swap(new.as_deref(), old);
        self.admit(ctx, &growth, admission)?;
        if growth.has_objects() {
            new.iter().for_each(|area| area.note_object(1));
            old.into_iter().for_each(|area| area.note_object(-1));
        }
        let garbage = place.put(slot, new);
        old.into_iter().for_each(Area::kill);
        sweep();
        if let Some(old) = old.filter(|_| growth.has_watched()) {
            self.wake_unwatched(old, guard);
        }
        if let Some(garbage) = garbage {
            ctx.retire(Retired::Heap(garbage));
        }
        Ok(())
    }
}

/// Does the range lie in one stripe?
#[inline]
fn is_in_one_stripe<M: Machine>(range: PageRange) -> bool {
    Index::<M>::stripe_of(range.start().as_u64()) == Index::<M>::stripe_of(range.end().as_u64() - 1)
}
