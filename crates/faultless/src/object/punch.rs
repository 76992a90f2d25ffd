//! Holes: a part of an object becomes zeroes and gives its pages back (fallocate PUNCH_HOLE, MADV_REMOVE).
//!
//! Called by `engine`, which also has every mapping of the part swept.

use super::{Object, ObjectError, PageState, split, zero};
use crate::addr::PAGE_SIZE;
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{Ordering, hole_value};

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

    /// Takes the pages out of the cache. The slots get new values, so that a page that was being read does not come in.
    pub(crate) fn punch(&self, ctx: Ctx<'_, M>, pages: (u64, u64)) {
        if self.large {
            let stamp = self.cuts.fetch_add(1, Ordering::Relaxed);
            return self.drop_large(ctx, self.cache_range(pages), stamp);
        }
        if pages.0 < pages.1 {
            let hole = hole_value(self.cuts.fetch_add(1, Ordering::Relaxed));
            self.pages.take(pages.0, pages.1 - 1, hole, |frame| ctx.put(frame, 1, 0));
        }
    }

    /// Zeroes the bytes of `offset..end` that lie in pages of which something stays.
    pub(crate) fn zero_edges(
        &self,
        ctx: Ctx<'_, M>,
        offset: u64,
        end: u64,
        whole: (u64, u64),
    ) -> Result<(), ObjectError> {
        if self.large {
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
                    ctx.put(frame, 1, 0);
                    return Ok(());
                }
                PageState::Absent if self.must_read(index) => {
                    self.bring_in(ctx, index)?;
                }
                PageState::Absent | PageState::PastEnd => return Ok(()),
            }
        }
    }
}
