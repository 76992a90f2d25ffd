//! Holes: a part of an object becomes zeroes and gives its pages back (fallocate PUNCH_HOLE, MADV_REMOVE).
//!
//! Called by `engine`, which also has every mapping of the part swept.

use super::{Object, ObjectError, PageState, split, wait_for_punch, zero};
use crate::addr::PAGE_SIZE;
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{Opened, Ordering, hole_value, mutant, spin_hint};

/// Pages that are being punched out.
#[must_use = "whoever wants one waits until it is a hole"]
pub(crate) struct Closed {
    pages: (u64, u64),
    stamp: u64,
}

impl<M: Machine> Object<M> {
    /// The whole pages of `offset..end`, the last one excluded. Where the object ends does not matter, as on Linux's
    /// tmpfs: bytes behind the end may have been stored through a mapping.
    pub(crate) fn whole_pages(&self, offset: u64, end: u64) -> (u64, u64) {
        let unit = if self.large { Self::large_size() } else { PAGE_SIZE };
        (offset.div_ceil(unit) * (unit / PAGE_SIZE), end / unit * (unit / PAGE_SIZE))
    }

    /// Makes what a hole of these pages needs: a file must be told of each page not to read it again.
    pub(crate) fn prepare_punch(&self, pages: (u64, u64)) -> Result<(), ObjectError> {
        if self.pager.is_none() {
            return Ok(());
        }
        let end = pages.1.min(self.readable().div_ceil(PAGE_SIZE));
        (pages.0..end).try_for_each(|index| match self.pages.get_or_make(index) {
            Ok(_) => Ok(()),
            Err(_) => Err(ObjectError::OutOfMemory),
        })
    }

    /// Closes the slots of the pages, of which there are some: nobody finds a page there, a page that was being read does
    /// not come in, and none comes in until [`Object::end_punch`] or [`Object::undo_punch`]. Somebody else may still have
    /// the old one mapped, and would not see what is stored to a new one (P12).
    pub(crate) fn begin_punch(&self, ctx: Ctx<'_, M>, pages: (u64, u64)) -> Closed {
        let stamp = self.cuts.fetch_add(1, Ordering::Relaxed);
        let pages = self.cache_range(pages);
        if mutant::is(mutant::Mutant::PunchStaysOpen) {
            self.pages.take(pages.0, pages.1 - 1, hole_value(stamp), |frame| self.let_go(ctx, frame));
        } else {
            self.pages.close(pages.0, pages.1 - 1, stamp, || {
                ctx.relax();
                spin_hint();
            });
        }
        Closed { pages, stamp }
    }

    /// What was punched out reads as zeroes from now on. Nobody has it mapped any more.
    pub(crate) fn end_punch(&self, ctx: Ctx<'_, M>, closed: &Closed) {
        let (pages, stamp) = (closed.pages, closed.stamp);
        self.forget_large(ctx, pages);
        self.pages.open(pages.0, pages.1 - 1, stamp, Opened::Hole(stamp), |frame| self.let_go(ctx, frame));
    }

    /// The pages come back, for somebody still has them mapped. Nobody has seen others in the meantime.
    pub(crate) fn undo_punch(&self, closed: &Closed) {
        let (pages, stamp) = (closed.pages, closed.stamp);
        self.pages.open(pages.0, pages.1 - 1, stamp, Opened::Back(stamp), |_| ());
    }

    /// Zeroes the bytes of `offset..end` that lie in pages of which something stays.
    pub(crate) fn zero_edges(
        &self,
        ctx: Ctx<'_, M>,
        offset: u64,
        end: u64,
        whole: (u64, u64),
    ) -> Result<(), ObjectError> {
        if self.is_large() {
            let cut = |page: u64| (page * PAGE_SIZE).clamp(offset, end);
            let (low, high) = if whole.0 < whole.1 { (cut(whole.0), cut(whole.1)) } else { (end, end) };
            self.zero_large(ctx, offset, low);
            self.zero_large(ctx, high, end);
            return Ok(());
        }
        let ((first, start), (last, stop)) = (split(offset), split(end));
        if first == last && !(whole.0..whole.1).contains(&first) {
            return self.zero_part(ctx, first, start, stop);
        }
        if start != 0 {
            self.zero_part(ctx, first, start, PAGE_SIZE as usize)?;
        }
        if stop != 0 && last >= whole.1 {
            self.zero_part(ctx, last, 0, stop)?;
        }
        Ok(())
    }

    fn zero_part(&self, ctx: Ctx<'_, M>, index: u64, start: usize, end: usize) -> Result<(), ObjectError> {
        // Ends: a page that was brought in leaves again only by another operation's success.
        loop {
            match self.page(ctx, index, 0) {
                PageState::Resident(frame) => {
                    zero(ctx, frame, start, end);
                    self.note_written(ctx, frame);
                    ctx.put(frame, 1, 0);
                    return Ok(());
                }
                PageState::Absent if self.must_read(index) => {
                    self.bring_in(ctx, index)?;
                }
                PageState::Closed => wait_for_punch(ctx),
                PageState::Absent | PageState::PastEnd => return Ok(()),
            }
        }
    }
}
