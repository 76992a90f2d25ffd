//! Stores of a debugger to private memory without rights (PROT_NONE): the page becomes the space's own and stays hidden
//! (GU-06).
//!
//! Called by `access`. A fault cannot help, for it would show the page. So the page is made here, under the stripe's lock:
//! faults of such an area are all denied, and whatever else changes its entries takes that lock. No TLB holds a
//! translation of a hidden page, so there is nothing to flush but what a table that was shared leaves behind.

use super::access::Step;
use super::{Core, FaultError};
use crate::addr::{FrameId, PAGE_SIZE, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing};
use crate::frame::{Ctx, Frame, Kind};
use crate::machine::format::{Leaf, PageBits, Raw};
use crate::machine::{Format, Machine};
use crate::object::{Object, ObjectError, PageState};
use crate::sync::{Ordering, spin_hint};
use crate::table::{Delta, Found, Removed, find, load};

/// Why the page is not there yet.
enum Lack {
    /// The object's page has to be brought in first, or is just being punched out.
    Page,
    /// Never.
    Fault(FaultError),
}

impl<M: Machine> Core<M> {
    /// Makes the page at `at` the space's own and copies into it. `Fault` if the area has rights; then a fault does more.
    #[cold]
    pub(super) fn write_hidden(
        &self,
        ctx: Ctx<'_, M>,
        at: VirtAddr,
        copy: impl FnOnce(FrameId),
    ) -> Result<Step, FaultError> {
        // Ends: each round but the last has brought a page in, or waits for a hole to be punched.
        loop {
            let guard = self.lock(ctx, at.as_u64(), at.as_u64() + 1);
            let Some(area) = self.index.find(at, &guard).filter(|area| area.rights.is_none()) else {
                return Ok(Step::Fault);
            };
            if area.sharing == Sharing::Shared || area.flags.intersects(AreaFlags::RAW | AreaFlags::HUGETLB) {
                return Err(FaultError::Denied);
            }
            self.make_path(ctx, at).map_err(|_| FaultError::OutOfMemory)?;
            let (mut removed, mut delta) = (Removed::new(), Delta::default());
            let section = ctx.enter(self.section_name());
            let own = self.own_hidden(ctx, at, area, &mut removed, &mut delta);
            self.counters.post(ctx, &delta);
            let lack = match own {
                Ok(frame) => {
                    // Inside the section: whoever clears the soft-dirty bits waits for it (P14).
                    copy(frame);
                    drop(section);
                    self.settle(ctx, &mut removed);
                    return Ok(Step::Done);
                }
                Err(lack) => lack,
            };
            drop(section);
            let object = area.object.clone().map(|object| (object, area.page_index(at)));
            // A pager is asked with nothing held.
            drop(guard);
            match (lack, object) {
                (Lack::Fault(fault), _) => return Err(fault),
                (Lack::Page, Some((object, index))) => {
                    bring_in(ctx, &object, index)?;
                    // It may be about to be punched out: then that ends first.
                    ctx.relax();
                    spin_hint();
                }
                (Lack::Page, None) => return Err(FaultError::Unmapped),
            }
        }
    }

    /// The frame of the page at `at`, made exclusive, dirty and soft-dirty. Inside a section, on a private path.
    fn own_hidden(
        &self,
        ctx: Ctx<'_, M>,
        at: VirtAddr,
        area: &Area<M>,
        removed: &mut Removed,
        delta: &mut Delta,
    ) -> Result<FrameId, Lack> {
        // Ends: a compare-exchange fails only for a late fault of an area that is dead by now.
        loop {
            let Found::Leaf { slot, shared: false, .. } = find(ctx, self.root, at) else {
                return Err(Lack::Fault(FaultError::Unmapped)); // taken down meanwhile
            };
            let entry = load(slot);
            let old = match M::Format::leaf(entry) {
                Leaf::Page(frame, bits) | Leaf::None(frame, bits) => Some((frame, bits)),
                _ => None,
            };
            let own = old.filter(|(_, bits)| bits.exclusive && !bits.pending).map(|(frame, _)| frame);
            let new = match own {
                Some(_) => M::Format::with_soft(M::Format::touched(entry, true)),
                None => self.hidden_copy(ctx, at, area, entry)?,
            };
            // Release publishes the copy, as an install by a fault does.
            if slot.compare_exchange(entry, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                if own.is_none() {
                    frame_of::<M>(new).into_iter().for_each(|frame| ctx.put(frame, 1, 1));
                }
                continue;
            }
            if own.is_none() {
                delta.page(Kind::Anon, 1);
                if let Some((frame, _)) = old.filter(|(_, bits)| !bits.special) {
                    delta.page(ctx.record(frame).kind(), -1);
                    removed.frames.push(frame);
                    removed.note(at.align_down().as_u64(), PAGE_SIZE);
                }
            }
            return frame_of::<M>(new).ok_or(Lack::Fault(FaultError::Unmapped));
        }
    }

    /// A hidden entry for a frame of our own with what the page shows.
    fn hidden_copy(&self, ctx: Ctx<'_, M>, at: VirtAddr, area: &Area<M>, entry: Raw) -> Result<Raw, Lack> {
        let frame = ctx.alloc(Kind::Anon).ok_or(Lack::Fault(FaultError::OutOfMemory))?;
        if let Err(lack) = fill(ctx, at, area, entry, &frame) {
            ctx.free(frame);
            return Err(lack);
        }
        let frame = ctx.publish(frame, 1, 1);
        let bits = PageBits { exclusive: true, dirty: true, ..PageBits::default() };
        let generation = M::Format::generation(entry);
        let page = M::Format::with_soft(M::Format::page(frame, bits, generation));
        Ok(M::Format::page_to_none(page, generation))
    }
}

fn bring_in<M: Machine>(ctx: Ctx<'_, M>, object: &Object<M>, index: u64) -> Result<(), FaultError> {
    object.bring_in(ctx, index).map(drop).map_err(|error| match error {
        ObjectError::OutOfMemory => FaultError::OutOfMemory,
        _ => FaultError::Bus,
    })
}

fn frame_of<M: Machine>(entry: Raw) -> Option<FrameId> {
    match M::Format::leaf(entry) {
        Leaf::Page(frame, _) | Leaf::None(frame, _) => Some(frame),
        _ => None,
    }
}

/// Fills a frame with what the page of `entry` shows.
fn fill<M: Machine>(ctx: Ctx<'_, M>, at: VirtAddr, area: &Area<M>, entry: Raw, into: &Frame) -> Result<(), Lack> {
    match (frame_of::<M>(entry), &area.object) {
        // The entry holds a reference, and nobody takes it out under the stripe's lock.
        (Some(frame), _) if frame != ctx.memory.zero_frame() => ctx.machine().copy(frame, into.id()),
        (None, Some(object)) => match object.page(ctx, area.page_index(at), 0) {
            PageState::Resident(frame) => {
                ctx.machine().copy(frame, into.id());
                ctx.put(frame, 1, 0);
            }
            PageState::PastEnd => return Err(Lack::Fault(FaultError::Bus)),
            PageState::Absent | PageState::Closed => return Err(Lack::Page),
        },
        _ => ctx.machine().zero(into.id()),
    }
    Ok(())
}
