//! madvise and its relatives: discard pages, note them as free, bring them in, change what else an area says.
//!
//! Each goes area by area, in address order, as Linux does: a hole in the range is passed over and reported at the end,
//! an area that refuses ends the operation (MA-03).

use super::{Core, FaultError};
use crate::addr::{Access, PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Sharing, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::table::Rewrite;

/// Why an operation on the areas of a range stopped, or what it passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdviseError {
    /// Parts of the range are not mapped; all that is was dealt with (ENOMEM).
    Unmapped,
    /// The area at this address does not allow it; those before it were dealt with (EINVAL).
    Refused(VirtAddr),
    /// No memory for the copy of a shared table or for the parts of a split area; what lies before the address was
    /// dealt with (EAGAIN).
    NoMemory(VirtAddr),
}

/// Why pages could not be brought in. What lies before the address was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PopulateError {
    /// Where it stopped.
    pub at: VirtAddr,
    /// What an access there would get.
    pub fault: FaultError,
}

impl<M: Machine> Core<M> {
    /// Lets the pages of `range` go: private memory reads as zeroes (or as its file) afterwards, shared memory keeps
    /// its contents in the object (MADV_DONTNEED).
    pub(crate) fn discard(&self, ctx: Ctx<'_, M>, range: PageRange, locked_too: bool) -> Result<(), AdviseError> {
        self.each_part(ctx, range, |area, part, _| {
            let locked = area.flags.contains(AreaFlags::LOCKED) && !locked_too;
            if locked || area.flags.contains(AreaFlags::RAW) {
                return Err(AdviseError::Refused(part.start()));
            }
            if area.flags.contains(AreaFlags::HUGETLB) {
                return self.discard_large(ctx, area, part);
            }
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            let no_memory = |_| AdviseError::NoMemory(part.start());
            if area.watch.is_some() {
                self.tell_removed(area, part);
                self.forget_marks(ctx, area, low, high).map_err(no_memory)?;
            }
            let rewrite = if area.flags.contains(AreaFlags::NONLINEAR) {
                area.discard_nonlinear((0, u64::MAX), false)
            } else {
                // Whole tables may go at once, unless they have marks.
                let copies = area.sharing == Sharing::Private || area.watch.is_none();
                Rewrite::Discard { range: (low, high), restamps: false, copies }
            };
            self.prepare_tables(ctx, low, high, rewrite).map_err(no_memory)?;
            self.sweep_alive(ctx, low, high, rewrite).map_err(no_memory)
        })
    }

    /// Notes the pages of `range` as free to be taken when memory runs short, until they are stored to again
    /// (MADV_FREE). Only private anonymous memory has such pages.
    pub(crate) fn free_lazily(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), AdviseError> {
        self.each_part(ctx, range, |area, part, _| {
            let is_anonymous = area.object.is_none() && !area.flags.contains(AreaFlags::RAW);
            let is_anonymous = is_anonymous && area.sharing == Sharing::Private;
            if !is_anonymous || area.flags.contains(AreaFlags::LOCKED) {
                return Err(AdviseError::Refused(part.start()));
            }
            self.tell_removed(area, part);
            self.sweep_alive(ctx, part.start().as_u64(), part.end().as_u64(), Rewrite::Clean)
                .map_err(|_| AdviseError::NoMemory(part.start()))
        })
    }

    /// Sets and clears flags of the areas of `range`, splitting and merging them as needed. `allows` says whether an
    /// area may be changed.
    pub(crate) fn set_flags(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        set: AreaFlags,
        clear: AreaFlags,
        allows: impl Fn(AreaFlags) -> bool,
    ) -> Result<(), AdviseError> {
        if set.contains(AreaFlags::HUGE) {
            ctx.memory.reckon_with_huge();
        }
        self.each_part(ctx, range, |area, part, guard| {
            if !allows(area.flags) {
                return Err(AdviseError::Refused(part.start()));
            }
            let flags = area.flags.without(clear) | set;
            if flags == area.flags {
                return Ok(());
            }
            if self.cuts_large(part.start().as_u64(), part.end().as_u64(), guard) {
                return Err(AdviseError::Refused(part.start()));
            }
            let no_memory = |_| AdviseError::NoMemory(part.start());
            self.split_edges(ctx, part.start().as_u64(), part.end().as_u64()).map_err(no_memory)?;
            if set.contains(AreaFlags::SEALED) {
                self.note_sealed();
            }
            let middle = Attributes { flags, ..area.part(part) };
            let mut changes = Changes::new();
            let place = self.index.place(part.start().as_u64(), guard);
            self.prepare_replace(&mut changes, &place, part, Some(middle))
                .map_err(|_| AdviseError::NoMemory(part.start()))?;
            // Faults of the old area would do what those of the new one do: nothing is swept.
            self.commit_all(ctx, &mut changes, guard, || {}).map_err(|_| AdviseError::NoMemory(part.start()))?;
            if area_may_lose_huge(area.flags, flags) {
                // The faults under way may still map large pages; whoever cuts the area later must not meet one that
                // it did not reckon with.
                ctx.wait_for_sections(self.section_name());
            }
            Ok(())
        })
    }

    /// Calls `each` with the areas that meet `range` and their part of it, ascending, the stripes locked.
    pub(super) fn each_part<'a>(
        &'a self,
        ctx: Ctx<'a, M>,
        range: PageRange,
        mut each: impl FnMut(&Area<M>, PageRange, &StripeGuard<'a>) -> Result<(), AdviseError>,
    ) -> Result<(), AdviseError> {
        let end = range.end().min(self.layout.highest);
        let (mut at, mut whole) = (range.start(), end == range.end());
        if at >= end {
            return Err(AdviseError::Unmapped);
        }
        let guard = self.lock(ctx, at.as_u64(), end.as_u64());
        // Ends: each round passes one area, or the last hole.
        while at < end {
            let Some(area) = self.index.next(at.as_u64(), &guard).filter(|area| area.range.start() < end) else {
                whole = false;
                break;
            };
            whole &= area.range.start() <= at;
            let part = PageRange::new(at.max(area.range.start()), end.min(area.range.end()));
            let part = part.map_err(|_| AdviseError::Unmapped)?;
            at = part.end();
            each(area, part, &guard)?;
        }
        if whole { Ok(()) } else { Err(AdviseError::Unmapped) }
    }

    /// Brings in every page of `range` that is mapped at all, as if it were read, or stored to where `write` asks for it
    /// and the area permits.
    pub(crate) fn populate(&self, ctx: Ctx<'_, M>, range: PageRange, how: Populate) -> Result<(), PopulateError> {
        let mut at = range.start();
        // Ends: each round passes at least a page.
        while at < range.end() {
            let Some((end, access)) = self.access_for(ctx, at, how) else {
                return Err(PopulateError { at, fault: FaultError::Unmapped });
            };
            let end = end.min(range.end());
            let Some(access) = access else {
                at = end;
                continue;
            };
            while at < end {
                if !self.is_adequate(ctx, at, access) {
                    self.fault(ctx, at, access).map_err(|fault| PopulateError { at, fault })?;
                }
                at = at.checked_add(PAGE_SIZE).ok_or(PopulateError { at, fault: FaultError::Unmapped })?;
            }
        }
        Ok(())
    }

    /// How the page at `at` is to be touched (`None`: not at all), and where its area ends.
    fn access_for(&self, ctx: Ctx<'_, M>, at: VirtAddr, how: Populate) -> Option<(VirtAddr, Option<Access>)> {
        let section = ctx.enter(self.section_name());
        let area = self.index.find(at, &section)?;
        let stores = area.rights.contains(Rights::WRITE) && area.sharing == Sharing::Private;
        let access = match how {
            Populate::Read => Some(Access::Read),
            Populate::Write => Some(Access::Write),
            // As Linux does: private memory that may be stored to is made one's own at once.
            Populate::AsMapped if stores => Some(Access::Write),
            Populate::AsMapped if !area.rights.is_none() => Some(Access::Read),
            Populate::AsMapped => None,
        };
        Some((area.range.end(), access))
    }
}

/// Did memory that could get large pages stop to?
fn area_may_lose_huge(before: AreaFlags, after: AreaFlags) -> bool {
    let refused = after.contains(AreaFlags::NO_HUGE) && !before.contains(AreaFlags::NO_HUGE);
    refused || before.contains(AreaFlags::HUGE) && !after.contains(AreaFlags::HUGE)
}

/// What [`Space::populate`](crate::Space::populate) does to each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// What the area's rights suggest: private memory that may be stored to is stored to, other memory read, memory
    /// without rights left alone (MAP_POPULATE, mlock).
    AsMapped,
    /// A read (MADV_POPULATE_READ).
    Read,
    /// A store (MADV_POPULATE_WRITE).
    Write,
}
