//! Truncation and hole punching, as each space that maps the object sees them: pages of a part of the object leave
//! (TR-01, TR-02, MA-05).
//!
//! Called by `engine` for each space in turn, twice: to prepare, and after the object was changed. Faults that look the
//! page up later see the change, faults that did before fail on the stamps and generations of the sweep (P9).

use super::Core;
use crate::addr::{PAGE_SHIFT, PageRange, VirtAddr};
use crate::area::{Area, AreaFlags, Index, Sharing};
use crate::frame::Ctx;
use crate::machine::{Format, Machine};
use crate::object::Object;
use crate::table::Rewrite;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A part cannot be unmapped because a shared table cannot be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

/// The part of an object that leaves.
pub(crate) struct Zap<'a, M: Machine> {
    /// The object.
    pub(crate) object: &'a Arc<Object<M>>,
    /// First page, and one past the last.
    pub(crate) pages: (u64, u64),
    /// Do private copies leave too? Yes for a truncation, no for a hole.
    pub(crate) copies: bool,
}

/// A part of a space to be swept.
type Part = (PageRange, Rewrite);

impl<M: Machine> Core<M> {
    /// Makes private, before anything is changed, the shared tables that [`Core::zap`] would have to copy.
    pub(crate) fn prepare_zap(&self, ctx: Ctx<'_, M>, zap: &Zap<'_, M>) -> Result<(), NoMemory> {
        self.zapped_parts(ctx, zap).into_iter().try_for_each(|(part, rewrite)| {
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            let _guard = self.lock(ctx, low, high);
            // Since the areas were listed the space may have been taken down, and its tables with it.
            if self.has_exited() {
                return Ok(());
            }
            self.prepare_tables(ctx, low, high, rewrite).map_err(|_| NoMemory)
        })
    }

    /// Unmaps what shows the part. Fails only where a fork has shared a table anew since [`Core::prepare_zap`].
    pub(crate) fn zap(&self, ctx: Ctx<'_, M>, zap: &Zap<'_, M>) -> Result<(), NoMemory> {
        self.each_stripe(
            ctx,
            |area| zap.part_of(area),
            |parts| {
                parts.iter().try_for_each(|(range, rewrite)| {
                    let (low, high) = (range.start().as_u64(), range.end().as_u64());
                    self.sweep_alive(ctx, low, high, *rewrite).map_err(|_| NoMemory)
                })
            },
        )
    }

    /// Goes through the stripes, each locked meanwhile: `act` gets what `pick` makes of the areas of one.
    pub(super) fn each_stripe<T, E>(
        &self,
        ctx: Ctx<'_, M>,
        pick: impl Fn(&Area<M>) -> Option<T>,
        mut act: impl FnMut(&[T]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last = None;
        for stripe in 0..M::Format::STRIPES {
            let (low, high) = Index::<M>::bounds(stripe);
            // Also where the index shows nothing: an operation that took an area of the object out holds the lock until
            // its sweep and flush are done (ZP-07).
            let guard = self.lock(ctx, low, high);
            // Not before: a mapping that moves to a stripe behind us holds all stripes on its way, taken in the same
            // order, so it is through when we come to the first of them, or waits until we have passed the last (P11).
            drop(last.take());
            let mut parts = Vec::new();
            self.index.each(low, high, &guard, &mut |area| {
                parts.extend(pick(area));
                true
            });
            act(&parts)?;
            last = Some(guard);
        }
        Ok(())
    }

    fn zapped_parts(&self, ctx: Ctx<'_, M>, zap: &Zap<'_, M>) -> Vec<Part> {
        let mut parts = Vec::new();
        let section = ctx.enter(self.section_name());
        self.index.each(0, self.layout.highest.as_u64(), &section, &mut |area| {
            parts.extend(zap.part_of(area));
            true
        });
        drop(section);
        parts
    }
}

impl<M: Machine> Zap<'_, M> {
    /// The part of an area that shows pages of ours, and what happens to it.
    pub(super) fn part_of(&self, area: &Area<M>) -> Option<Part> {
        if !area.object.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, self.object)) {
            return None;
        }
        if area.flags.contains(AreaFlags::NONLINEAR) {
            // Any page of the object may be anywhere (NL-03).
            return Some((area.range, area.discard_nonlinear(self.pages, true)));
        }
        let (shown, (first, end)) = (area.offset >> PAGE_SHIFT, self.pages);
        let pages = area.range.len() >> PAGE_SHIFT;
        let (from, to) = (first.saturating_sub(shown), end.saturating_sub(shown).min(pages));
        if from >= to {
            return None;
        }
        let base = area.range.start().as_u64();
        let (low, high) = (base + (from << PAGE_SHIFT), base + (to << PAGE_SHIFT));
        let range = PageRange::new(VirtAddr::new(low), VirtAddr::new(high)).ok()?;
        // A shared mapping has no copies: whole tables may go at once, unless they have marks.
        let copies = if area.sharing == Sharing::Shared { area.watch.is_none() } else { self.copies };
        Some((range, Rewrite::Discard { range: (low, high), restamps: true, copies }))
    }
}
