//! Objects of large pages (hugetlb): the cache is indexed by large page, and its pages come from the pool.
//!
//! Called by `space::large_fault` for mappings, and by the file-like calls of [`Object`]. A page is made in the section of
//! the fault that wants it: nothing is read. Absent on purpose: bytes behind the last large page, as sizes are of whole
//! ones.

use super::{Object, ObjectError, PageState};
use crate::addr::{FrameId, PAGE_SHIFT, PAGE_SIZE};
use crate::frame::{Ctx, Memory, NoLarge};
use crate::machine::{Format, Machine};
use crate::sync::{Ordering, absent_value, fence, frame_in, is_closed, slot_value, spin_hint};
use alloc::sync::Arc;

/// Why a large page was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotMade {
    /// See [`NoLarge`].
    Pool(NoLarge),
    /// No heap for the index.
    NoHeap,
}

impl<M: Machine> Object<M> {
    /// Memory of large pages, `size` bytes rounded up to whole ones.
    pub(crate) fn of_large_pages(memory: Arc<Memory<M>>, id: u64, size: u64, label: &str) -> Self {
        let size = size.next_multiple_of(Self::large_size());
        let mut object = Self::make_parts(memory, id, size, None, label, 0);
        object.large = true;
        object
    }

    /// Bytes of a large page.
    pub(crate) const fn large_size() -> u64 {
        PAGE_SIZE << M::Format::INDEX_BITS
    }

    /// Is it made of large pages (hugetlb)?
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// Looks a large page up for a mapping: takes a reference and `mappings` mappings of its first frame.
    pub(crate) fn large_page(&self, ctx: Ctx<'_, M>, index: u64, mappings: u32) -> PageState {
        if index >= self.size() / Self::large_size() {
            return PageState::PastEnd;
        }
        self.cached(ctx, index, mappings)
    }

    /// Is the large page in the cache?
    pub(crate) fn has_large(&self, index: u64) -> bool {
        // Acquire: as in `cached`.
        self.pages.get(index).is_some_and(|slot| frame_in(slot.load(Ordering::Acquire)).is_some())
    }

    /// Makes the large page of zeroes if it is absent. As `bring_in`: the absent slot is looked at before the size, which
    /// the caller looks at again.
    pub(crate) fn make_large(&self, ctx: Ctx<'_, M>, index: u64) -> Result<(), NotMade> {
        let slot = self.pages.get_or_make(index).map_err(|_| NotMade::NoHeap)?;
        let key = (self.id, index);
        let large = match ctx.take_large(Some(key)) {
            Ok(large) => large,
            // Who has made it meanwhile may have got the last one.
            Err(_) if self.has_large(index) => return Ok(()),
            Err(error) => return Err(NotMade::Pool(error)),
        };
        // Acquire pairs with the AcqRel of the truncation that wrote the value. After the index was made busy: nobody else
        // makes the page now.
        let absent = slot.load(Ordering::Acquire);
        // Pairs with the fence in `set_size`, as in `bring_in`.
        fence(Ordering::SeqCst);
        if is_closed(absent) {
            ctx.give_large(large);
            return Err(NotMade::Pool(NoLarge::Busy)); // it is being punched out
        }
        if frame_in(absent).is_some() || index >= self.size() / Self::large_size() {
            ctx.give_large(large);
            ctx.end_large(key); // nor is it promised any more
            return Ok(());
        }
        large.frames::<M>().for_each(|frame| ctx.machine().zero(frame));
        let first = ctx.publish_large(large, self.id, 0);
        // Release publishes the contents and the record.
        if slot.compare_exchange(absent, slot_value(first), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            ctx.put(first, 1, 0); // cut off meanwhile
        }
        ctx.end_large(key);
        Ok(())
    }

    /// The same for who can wait and has no section: reading and writing as a file, making room.
    pub(super) fn make_large_or_wait(&self, ctx: Ctx<'_, M>, index: u64) -> Result<(), ObjectError> {
        // Ends: who makes the page is in a section, which does not wait.
        loop {
            match self.make_large(ctx, index) {
                Ok(()) => return Ok(()),
                Err(NotMade::Pool(NoLarge::Busy)) => {
                    ctx.relax();
                    spin_hint();
                }
                Err(_) => return Err(ObjectError::OutOfMemory),
            }
        }
    }

    /// Looks up the page of 4096 bytes of index `index`, whatever the pages are: the reference is that of
    /// [`Memory::holder`].
    pub(crate) fn any_page(&self, ctx: Ctx<'_, M>, index: u64) -> PageState {
        if !self.large {
            return self.page(ctx, index, 0);
        }
        match self.large_page(ctx, index >> M::Format::INDEX_BITS, 0) {
            PageState::Resident(first) => PageState::Resident(self.part(first, index)),
            other => other,
        }
    }

    fn part(&self, first: FrameId, index: u64) -> FrameId {
        FrameId::new(first.as_u64() + (index & ((1 << M::Format::INDEX_BITS) - 1)))
    }

    /// The frame of a page that was looked up without the size.
    pub(super) fn any_cached(&self, ctx: Ctx<'_, M>, index: u64) -> PageState {
        if !self.large {
            return self.cached(ctx, index, 0);
        }
        match self.cached(ctx, index >> M::Format::INDEX_BITS, 0) {
            PageState::Resident(first) => PageState::Resident(self.part(first, index)),
            other => other,
        }
    }

    /// The indices of the cache for those of pages of 4096 bytes.
    pub(super) fn cache_range(&self, (first, end): (u64, u64)) -> (u64, u64) {
        if self.large { (first >> M::Format::INDEX_BITS, end >> M::Format::INDEX_BITS) } else { (first, end) }
    }

    /// Takes large pages out of the cache, and forgets what was promised of them.
    pub(super) fn drop_large(&self, ctx: Ctx<'_, M>, (first, end): (u64, u64), stamp: u64) {
        if first < end {
            self.pages.take(first, end - 1, absent_value(stamp), |frame| ctx.put(frame, 1, 0));
            self.forget_large(ctx, (first, end));
        }
    }

    /// Forgets what was promised of the object, if it is one of large pages.
    pub(super) fn forget_large(&self, ctx: Ctx<'_, M>, range: (u64, u64)) {
        if self.large {
            ctx.memory.forget_promises(ctx.cpu.held(), || ctx.relax(), self.id, range);
        }
    }

    /// Promises the large pages of `low..high` that it has not got, or none. Says what was added.
    pub(crate) fn promise_large(
        &self,
        ctx: Ctx<'_, M>,
        range: (u64, u64),
    ) -> Result<alloc::vec::Vec<crate::frame::Key>, crate::sync::NoMemory> {
        ctx.promise_missing(self.id, range, |index| self.has_large(index))
    }

    /// Zeroes the bytes of `offset..end`, as far as there are pages.
    pub(super) fn zero_large(&self, ctx: Ctx<'_, M>, mut offset: u64, end: u64) {
        while offset < end {
            let (index, start) = super::split(offset);
            let stop = end.min((index + 1) << PAGE_SHIFT);
            if let PageState::Resident(frame) = self.any_page(ctx, index) {
                super::zero(ctx, frame, start, start + (stop - offset) as usize);
                ctx.put(ctx.memory.holder(frame), 1, 0);
            }
            offset = stop;
        }
    }
}
