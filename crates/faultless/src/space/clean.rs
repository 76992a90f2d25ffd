//! Write-protecting what shows pages of an object, before they are written back: the next store faults. Protocol P17.
//!
//! Called by `engine` for each space in turn. What the entries knew of stores goes to the pages, after the flush. Absent
//! on purpose: which pages are written, and writing.

use super::{Core, Zap};
use crate::addr::{FrameId, PAGE_SIZE, PageRange, VirtAddr};
use crate::area::Sharing;
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::mutant;
use crate::table::{Removed, clean, note_stored, scan, stores_of};
use alloc::vec::Vec;
use core::convert::Infallible;

impl<M: Machine> Core<M> {
    /// Write-protects what shows the part, and flushes. When it returns, all that was stored to the pages through this
    /// space is in them, and the next store faults. Returns how many pages were dirty by their entries alone.
    pub(crate) fn clean(&self, ctx: Ctx<'_, M>, zap: &Zap<'_, M>) -> u64 {
        let mut found = 0;
        // As for a truncation, and for the same reasons: an operation that took an entry out has flushed it and passed on
        // what it said when we get the lock, and a mapping that moves does not slip past us (P11).
        let Ok(()) = self.each_stripe(
            ctx,
            // A private mapping has no page of the object that it may store to.
            |area| zap.part_of(area).filter(|_| area.sharing == Sharing::Shared).map(|(part, _)| part),
            |parts| {
                if !parts.is_empty() {
                    found += self.clean_parts(ctx, zap, parts);
                }
                Ok::<(), Infallible>(())
            },
        );
        self.await_exit(ctx);
        found
    }

    fn clean_parts(&self, ctx: Ctx<'_, M>, zap: &Zap<'_, M>, parts: &[PageRange]) -> u64 {
        if !mutant::is(mutant::Mutant::OldPermission) {
            // A fault that found its permission good has done its exchange; later ones find that it is not (P17).
            ctx.wait_for_sections(self.section_name());
        }
        let (mut removed, mut found, mut stripped) = (Removed::new(), 0, false);
        let (mut addresses, mut stored) = (Vec::new(), Vec::new());
        for part in parts {
            let (mut at, end) = (part.start().as_u64(), part.end().as_u64());
            // Ends: each round passes a table.
            while at < end {
                let section = ctx.enter(self.section_name());
                let next = scan(ctx, self.root, at, end, &mut |seen| {
                    let page = stores_of::<M>(seen.entry).filter(|(frame, _)| !seen.large && zap.covers(ctx, *frame));
                    addresses.extend(page.map(|(frame, _)| (seen.address, frame)));
                });
                for (address, frame) in addresses.drain(..) {
                    if let Some(dirty) = clean(ctx, self.root, VirtAddr::new(address)) {
                        removed.note(address, PAGE_SIZE);
                        stored.extend(dirty.then_some(frame));
                        stripped = true;
                    }
                }
                drop(section);
                if mutant::is(mutant::Mutant::WriteBeforeFlush) {
                    removed.flushed();
                }
                self.settle(ctx, &mut removed);
                found += note_all(ctx, &mut stored);
                at = next.unwrap_or(end);
            }
        }
        if stripped && !mutant::is(mutant::Mutant::NoWriteWait) {
            // A store from outside marks the entry, then copies, in one section: what it marked before has been copied.
            ctx.wait_for_sections(self.section_name());
        }
        found
    }
}

/// Passes on what dirty entries said, now that they are flushed. The stripe is locked, so the pages are still mapped. A
/// page that somebody has claimed is written after its entries were cleaned: that has what was stored.
fn note_all<M: Machine>(ctx: Ctx<'_, M>, stored: &mut Vec<FrameId>) -> u64 {
    let mut found = 0;
    for frame in stored.drain(..) {
        let record = ctx.record(frame);
        if !record.is_writing() && !record.is_dirty() {
            note_stored(ctx, frame);
            found += 1;
        }
    }
    found
}

impl<M: Machine> Zap<'_, M> {
    /// Is the frame, which is mapped, one of the part's pages?
    fn covers(&self, ctx: Ctx<'_, M>, frame: FrameId) -> bool {
        let (object, index) = ctx.record(frame).words();
        object == self.object.id() && (self.pages.0..self.pages.1).contains(&index)
    }
}
