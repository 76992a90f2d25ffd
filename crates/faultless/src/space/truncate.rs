//! Truncation, as each space that maps the object sees it: the pages beyond the new end leave (TR-01, TR-02).
//!
//! Called by `engine` for each space in turn, twice: to prepare, and after the object's size was set. Faults that look
//! the page up later see the size, faults that did before fail on the stamps and generations of the sweep (P9).

use super::Core;
use crate::addr::{PAGE_SHIFT, PageRange, VirtAddr};
use crate::area::{Area, Index};
use crate::frame::Ctx;
use crate::machine::{Format, Machine};
use crate::object::Object;
use crate::table::Rewrite;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A part cannot be unmapped because a shared table cannot be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

fn discard(low: u64, high: u64) -> Rewrite {
    Rewrite::Discard { range: (low, high), restamps: true }
}

impl<M: Machine> Core<M> {
    /// Makes private, before anything is changed, the shared tables that [`Core::unmap_beyond`] would have to copy.
    pub(crate) fn prepare_beyond(&self, ctx: Ctx<'_, M>, object: &Arc<Object<M>>, first: u64) -> Result<(), NoMemory> {
        self.parts_beyond(ctx, object, first).into_iter().try_for_each(|part| {
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            let _guard = self.lock(ctx, low, high);
            // Since the areas were listed the space may have been taken down, and its tables with it.
            if self.has_exited() {
                return Ok(());
            }
            self.prepare_tables(ctx, low, high, discard(low, high)).map_err(|_| NoMemory)
        })
    }

    /// Unmaps what shows pages of `object` from page `first` on; private copies go too. Fails only where a fork has
    /// shared a table anew since [`Core::prepare_beyond`].
    pub(crate) fn unmap_beyond(&self, ctx: Ctx<'_, M>, object: &Arc<Object<M>>, first: u64) -> Result<(), NoMemory> {
        for stripe in 0..M::Format::STRIPES {
            let (low, high) = Index::<M>::bounds(stripe);
            // Also where the index shows nothing: an operation that took an area of the object out holds the lock until
            // its sweep and flush are done (ZP-07).
            let guard = self.lock(ctx, low, high);
            let mut parts = Vec::new();
            self.index.each(low, high, &guard, &mut |area| {
                parts.extend(part_beyond(area, object, first));
                true
            });
            for range in parts {
                let (low, high) = (range.start().as_u64(), range.end().as_u64());
                self.sweep_alive(ctx, low, high, discard(low, high)).map_err(|_| NoMemory)?;
            }
        }
        Ok(())
    }

    fn parts_beyond(&self, ctx: Ctx<'_, M>, object: &Arc<Object<M>>, first: u64) -> Vec<PageRange> {
        let mut parts = Vec::new();
        let section = ctx.enter(self.section_name());
        self.index.each(0, self.layout.highest.as_u64(), &section, &mut |area| {
            parts.extend(part_beyond(area, object, first));
            true
        });
        drop(section);
        parts
    }
}

/// The part of an area that shows pages of `object` from page `first` on.
fn part_beyond<M: Machine>(area: &Area<M>, object: &Arc<Object<M>>, first: u64) -> Option<PageRange> {
    let same = area.object.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, object));
    let skip = first.saturating_sub(area.offset >> PAGE_SHIFT).checked_mul(1 << PAGE_SHIFT)?;
    let start = area.range.start().checked_add(skip)?;
    if !same || start >= area.range.end() {
        return None;
    }
    PageRange::new(VirtAddr::new(start.as_u64()), area.range.end()).ok()
}
