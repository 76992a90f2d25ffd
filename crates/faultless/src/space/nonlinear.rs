//! remap_file_pages with entries of its own: a shared mapping shows any page of its object at any place (rows NL).
//!
//! The area stays one area and gets the flag NONLINEAR; which page belongs where is in the entries, as a page or as an
//! OFFSET. A sweep writes them, and faults bring the pages in, so a call neither reads nor waits. Areas without the flag
//! have no such entries and pay nothing.

use super::Core;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Sharing, StripeGuard};
use crate::frame::Ctx;
use crate::machine::format::Leaf;
use crate::machine::{Format, Machine};
use crate::table::{Delta, Found, Removed, Rewrite, Stop, find, load, populate, span};
use alloc::sync::Arc;

/// Why the pages of an object were not arranged anew. Nothing visible has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonlinearError {
    /// The range is not one shared mapping of an object, however it is cut (EINVAL).
    Invalid,
    /// Pages of these indexes cannot be (EOVERFLOW).
    TooFar,
    /// The mapping is sealed (EPERM).
    Sealed,
    /// No memory for areas or tables (ENOMEM).
    NoMemory,
}

/// The flags of locking.
const LOCKING: AreaFlags = AreaFlags::LOCKED.union(AreaFlags::LOCKED_ON_FAULT);

fn only_locking(flags: AreaFlags) -> AreaFlags {
    flags.without(flags.without(LOCKING))
}

impl<M: Machine> Attributes<M> {
    /// The index of the page that the offset gives to address 0, modulo 2^64.
    fn linear(&self) -> u64 {
        (self.offset >> PAGE_SHIFT).wrapping_sub(self.range.start().as_u64() >> PAGE_SHIFT)
    }

    /// Lets go what a nonlinear area shows of `pages`.
    pub(super) fn discard_nonlinear(&self, pages: (u64, u64), restamps: bool) -> Rewrite {
        Rewrite::DiscardNonlinear { linear: self.linear(), pages, restamps }
    }

    /// May both be parts of what is arranged by one call? As on Linux, whatever their offsets.
    fn is_arranged_like(&self, other: &Self) -> bool {
        let same_object = match (&self.object, &other.object) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let flags = |area: &Self| area.flags.without(AreaFlags::NONLINEAR);
        same_object
            && (self.rights, self.max_rights, self.sharing) == (other.rights, other.max_rights, other.sharing)
            && flags(self) == flags(other)
    }
}

impl<M: Machine> Core<M> {
    /// Makes `range` show the pages of its object from `index` on, and be locked as `locking` says. The pages are brought
    /// in by the next accesses.
    pub(crate) fn remap_pages(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        index: u64,
        locking: AreaFlags,
    ) -> Result<(), NonlinearError> {
        let locking = only_locking(locking);
        if range.end() > self.layout.highest {
            return Err(NonlinearError::Invalid);
        }
        let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
        let old_locking = self.check_arrangeable(range, &guard)?;
        let end = index.checked_add(range.pages()).ok_or(NonlinearError::TooFar)?;
        // An index fits an entry, and no object has bytes beyond 2^63.
        if end > 1 << M::Format::OFFSET_BITS.min(63 - PAGE_SHIFT) {
            return Err(NonlinearError::TooFar);
        }
        self.make_leaf_tables(ctx, range)?;
        let target = index.wrapping_sub(range.start().as_u64() >> PAGE_SHIFT);
        self.mark_all(ctx, range, target, (old_locking, locking), &guard)?;
        // From here on nothing fails.
        self.each_arranged(range, &guard, |area, part| {
            let place = Rewrite::Place { linear: area.linear(), target };
            let done = self.sweep_alive(ctx, part.start().as_u64(), part.end().as_u64(), place);
            debug_assert!(done.is_ok(), "the tables were made private");
            Ok(())
        })
    }

    /// Is the range one shared mapping of an object, or several that differ in their offsets alone? Returns how they are
    /// locked.
    fn check_arrangeable(&self, range: PageRange, guard: &StripeGuard<'_>) -> Result<AreaFlags, NonlinearError> {
        const NEVER: AreaFlags = AreaFlags::RAW.union(AreaFlags::HUGETLB);
        let first = self.index.find(range.start(), guard).ok_or(NonlinearError::Invalid)?;
        if first.sharing != Sharing::Shared || first.object.is_none() || first.flags.intersects(NEVER) {
            return Err(NonlinearError::Invalid);
        }
        if first.watch.is_some() {
            // A fault of an entry that names its page is not reported.
            return Err(NonlinearError::Invalid);
        }
        self.each_arranged(range, guard, |area, _| {
            if first.is_arranged_like(area) { Ok(()) } else { Err(NonlinearError::Invalid) }
        })?;
        if first.flags.contains(AreaFlags::SEALED) {
            return Err(NonlinearError::Sealed);
        }
        Ok(only_locking(first.flags))
    }

    /// Calls `each` with the areas of `range`, which has no holes, and their parts of it.
    fn each_arranged(
        &self,
        range: PageRange,
        guard: &StripeGuard<'_>,
        mut each: impl FnMut(&Area<M>, PageRange) -> Result<(), NonlinearError>,
    ) -> Result<(), NonlinearError> {
        let mut at = range.start();
        // Ends: each round passes an area.
        while at < range.end() {
            let area = self.index.find(at, guard).ok_or(NonlinearError::Invalid)?;
            let part = PageRange::new(at, range.end().min(area.range.end())).map_err(|_| NonlinearError::Invalid)?;
            at = part.end();
            each(area, part)?;
        }
        Ok(())
    }

    /// Makes the leaf tables of the range, on private paths. The stripes are locked, so they stay.
    pub(super) fn make_leaf_tables(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), NonlinearError> {
        let covered = span::<M::Format>(1);
        let (mut at, end) = (range.start().as_u64(), range.end().as_u64());
        let (mut removed, mut delta) = (Removed::new(), Delta::default());
        // Ends: each round passes a table, or follows another CPU's success on the way.
        while at < end {
            let section = ctx.enter(self.section_name());
            let made = populate(ctx, self.root, VirtAddr::new(at), &mut removed, &mut delta).map(drop);
            self.counters.post(ctx, &core::mem::take(&mut delta));
            drop(section);
            self.touch(VirtAddr::new(at));
            self.settle(ctx, &mut removed);
            match made {
                Ok(()) => at = (at & !(covered - 1)) + covered,
                Err(Stop::NoMemory) => return Err(NonlinearError::NoMemory),
                Err(Stop::Retry | Stop::Frozen) => {}
            }
        }
        Ok(())
    }

    /// Gives the areas of the range the flag, and the part in the range its locking: as it is, and as it shall be.
    fn mark_all(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        target: u64,
        (old, new): (AreaFlags, AreaFlags),
        guard: &StripeGuard<'_>,
    ) -> Result<(), NonlinearError> {
        let mut marked = range.start();
        let result = self.each_arranged(range, guard, |area, part| {
            self.mark_nonlinear(ctx, area, part, target, new, guard)?;
            marked = part.end();
            Ok(())
        });
        if let (Err(_), true, Ok(done)) = (&result, old != new, PageRange::new(range.start(), marked)) {
            // Where even that finds no memory, a part stays locked as it was to be.
            let _ = self.each_arranged(done, guard, |area, part| {
                self.mark_nonlinear(ctx, area, part, area.linear(), old, guard)
            });
        }
        result
    }

    /// Gives a whole area the flag, if it is to show other pages than its offset says: that alone changes nothing that
    /// anybody could see. Only `part` is locked otherwise, and becomes an area of its own for it.
    fn mark_nonlinear(
        &self,
        ctx: Ctx<'_, M>,
        area: &Area<M>,
        part: PageRange,
        target: u64,
        locking: AreaFlags,
        guard: &StripeGuard<'_>,
    ) -> Result<(), NonlinearError> {
        let nonlinear = if area.linear() == target { AreaFlags::NONE } else { AreaFlags::NONLINEAR };
        let marked = area.flags | nonlinear;
        let flags = marked.without(LOCKING) | locking;
        // A part that stays what it is may join what lies beside it, as a new mapping would.
        let is_whole = flags == marked && marked != area.flags;
        let attributes = if is_whole { (**area).clone() } else { area.part(part) };
        let range = attributes.range;
        let marked = Attributes { flags, ..attributes };
        let place = self.index.place(range.start().as_u64(), guard);
        let mut changes = Changes::new();
        self.prepare_replace(&mut changes, &place, range, Some(marked)).map_err(|_| NonlinearError::NoMemory)?;
        self.commit_all(ctx, &mut changes, guard, || {}).map_err(|_| NonlinearError::NoMemory)
    }

    /// The index of the object's page that belongs to `address`, mapped or not; `None` where no object is mapped.
    pub(crate) fn page_index_at(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> Option<u64> {
        let section = ctx.enter(self.section_name());
        let area = self.index.find(address, &section).filter(|area| area.object.is_some())?;
        let linear = area.page_index(address);
        if !area.flags.contains(AreaFlags::NONLINEAR) {
            return Some(linear);
        }
        let Found::Leaf { slot, .. } = find(ctx, self.root, address) else {
            return Some(linear);
        };
        let entry = load(slot);
        match M::Format::leaf(entry) {
            Leaf::Offset(index) => Some(index),
            Leaf::Page(frame, _) | Leaf::None(frame, _) if ctx.record(frame).try_get(0) => {
                let index = ctx.record(frame).words().1;
                // What the frame was when it was mapped here is still so.
                let same = M::Format::leaf(load(slot)) == M::Format::leaf(entry);
                ctx.put(frame, 1, 0);
                Some(if same { index } else { linear })
            }
            _ => Some(linear),
        }
    }
}

const _: () = assert!(PAGE_SIZE == 1 << PAGE_SHIFT, "indexes count pages");
