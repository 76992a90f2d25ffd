//! Reading and writing a space from outside: debuggers, `process_vm_readv`, the embedder's system calls.
//!
//! Each page is translated and copied inside one section, as a CPU's own access would be: a fork waits for it, and a
//! page that leaves meanwhile is held by a reference (CW-02, GU-01).

use super::{Core, FaultError};
use crate::addr::{Access, FrameId, PAGE_SIZE, VirtAddr};
use crate::area::{AreaFlags, Sharing};
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::object::{ObjectError, PageState};
use crate::sync::{Ordering, mutant, spin_hint};
use crate::table::{Found, Look, find, look, user_end};
use alloc::sync::Arc;

/// Why an access stopped. The bytes before it have been transferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError {
    /// Bytes transferred.
    pub done: usize,
    /// What a CPU would have got.
    pub fault: FaultError,
}

/// How a space is accessed.
#[derive(Clone, Copy)]
struct How {
    access: Access,
    forced: bool,
    absent: Absent,
}

/// What is done about a page that is not there as the access wants it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// A fault, as a CPU would take.
    Fault,
    /// What a fault would map is read, and nothing is mapped.
    Show,
    /// The access ends there.
    Stop,
}

const READ: How = How { access: Access::Read, forced: false, absent: Absent::Fault };
const WRITE: How = How { access: Access::Write, forced: false, absent: Absent::Fault };

/// What is mapped in an area without rights.
#[derive(Clone, Copy)]
enum Held {
    /// A frame, with a reference unless it is that of zeroes.
    Frame(FrameId),
    /// Nothing yet: the page of this index belongs there (NL-01).
    Offset(u64),
    /// Nothing yet.
    Nothing,
    /// What was there is lost (UFFDIO_POISON).
    Lost,
}

/// How one page's copy went.
pub(super) enum Step {
    Done,
    Fault,
    /// No space has anything there, nothing of ours is there, or the space has been taken down.
    Gone,
}

impl<M: Machine> Core<M> {
    /// Copies out of the space.
    pub(crate) fn read(&self, ctx: Ctx<'_, M>, address: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        let len = into.len();
        self.access(ctx, address, len, READ, |frame, offset, from, to| {
            ctx.machine().read(frame, offset, &mut into[from..to]);
        })
    }

    /// Copies out of the space as a debugger does: also what an area without rights would show.
    pub(crate) fn read_forced(&self, ctx: Ctx<'_, M>, address: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        let len = into.len();
        self.access(ctx, address, len, How { forced: true, ..READ }, |frame, offset, from, to| {
            ctx.machine().read(frame, offset, &mut into[from..to]);
        })
    }

    /// Copies out of the space what reads would show, and maps nothing for it (GU-03).
    pub(crate) fn read_shown(&self, ctx: Ctx<'_, M>, address: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        let (len, how) = (into.len(), How { absent: Absent::Show, ..READ });
        self.access(ctx, address, len, how, |frame, offset, from, to| {
            ctx.machine().read(frame, offset, &mut into[from..to]);
        })
    }

    /// Copies out of the space what is mapped, and stops where nothing is (GU-09).
    pub(crate) fn read_present(&self, ctx: Ctx<'_, M>, address: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        let (len, how) = (into.len(), How { absent: Absent::Stop, ..READ });
        self.access(ctx, address, len, how, |frame, offset, from, to| {
            ctx.machine().read(frame, offset, &mut into[from..to]);
        })
    }

    /// Copies into the space.
    pub(crate) fn write(&self, ctx: Ctx<'_, M>, address: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        self.access(ctx, address, from.len(), WRITE, |frame, offset, start, end| {
            ctx.machine().write(frame, offset, &from[start..end]);
        })
    }

    /// Copies into the space as a debugger does: private memory need have no rights, and gets none by it (GU-06).
    pub(crate) fn write_forced(&self, ctx: Ctx<'_, M>, address: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        self.access(ctx, address, from.len(), How { forced: true, ..WRITE }, |frame, offset, start, end| {
            ctx.machine().write(frame, offset, &from[start..end]);
        })
    }

    fn access(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        len: usize,
        how: How,
        mut copy: impl FnMut(FrameId, usize, usize, usize),
    ) -> Result<(), AccessError> {
        let mut done = 0;
        while done < len {
            let at = address.checked_add(done as u64).ok_or(AccessError { done, fault: FaultError::Unmapped })?;
            let end = len.min(done + PAGE_SIZE as usize - at.page_offset());
            match self.access_page(ctx, at, how, |frame| copy(frame, at.page_offset(), done, end)) {
                Step::Done => done = end,
                // The fault is repeated only if somebody took the page away in between.
                Step::Fault if how.absent == Absent::Stop => {
                    return Err(AccessError { done, fault: FaultError::Unmapped });
                }
                Step::Fault if how.forced && how.access == Access::Read || how.absent == Absent::Show => {
                    let seen = self.read_hidden(ctx, at, how.absent, |frame| copy(frame, at.page_offset(), done, end));
                    match seen.map_err(|fault| AccessError { done, fault })? {
                        Step::Done => done = end,
                        _ => self.fault(ctx, at, how.access).map(drop).map_err(|fault| AccessError { done, fault })?,
                    }
                }
                Step::Fault if how.forced => {
                    let stored = self.write_hidden(ctx, at, |frame| copy(frame, at.page_offset(), done, end));
                    match stored.map_err(|fault| AccessError { done, fault })? {
                        Step::Done => done = end,
                        _ => match self.make_own(ctx, at) {
                            Ok(_) => {}
                            Err(FaultError::Denied) if self.is_hidden(ctx, at) => {} // a stack has grown down to here
                            Err(fault) => return Err(AccessError { done, fault }),
                        },
                    }
                }
                Step::Fault => {
                    self.fault(ctx, at, how.access).map_err(|fault| AccessError { done, fault })?;
                }
                Step::Gone => return Err(AccessError { done, fault: FaultError::Unmapped }),
            }
        }
        Ok(())
    }

    /// Is there private memory without rights?
    fn is_hidden(&self, ctx: Ctx<'_, M>, at: VirtAddr) -> bool {
        let section = ctx.enter(self.section_name());
        let area = self.index.find(at, &section);
        area.is_some_and(|area| area.rights.is_none() && area.sharing == Sharing::Private)
    }

    /// Copies within one page if its entry permits, marking it as the MMU would.
    fn access_page(&self, ctx: Ctx<'_, M>, at: VirtAddr, how: How, copy: impl FnOnce(FrameId)) -> Step {
        // No area is asked for, and the walk knows no end of user space: beyond it are the embedder's tables.
        if at.as_u64() >= user_end::<M::Format>() {
            return Step::Gone;
        }
        let _section = ctx.enter(self.section_name());
        // Exit frees the root after the sections that were active then; whoever enters later sees this.
        if self.has_exited() {
            return Step::Gone;
        }
        let Some(Look { slot, entry, leaf, shared, large }) = look(ctx, self.root, at) else {
            return Step::Fault;
        };
        let Leaf::Page(frame, bits) = M::Format::leaf(leaf) else {
            return Step::Fault;
        };
        // The very frame that is written is this space's own, by the entry that is read again below.
        let own = bits.write || how.forced && bits.exclusive && !bits.pending && M::Format::is_soft(leaf);
        if how.access == Access::Write && (shared || !own) {
            return Step::Fault;
        }
        if bits.special && frame != ctx.memory.zero_frame() {
            return Step::Gone; // device memory is not ours to read
        }
        let holder = if large { ctx.memory.holder(frame) } else { frame };
        if !bits.special && !ctx.record(holder).try_get(0) {
            return Step::Fault;
        }
        let step = if self.still_maps(ctx, at, slot, entry) && mark::<M>(slot, entry, how.access) {
            copy(frame);
            if how.access == Access::Write {
                self.mark_again(ctx, at, frame);
            }
            Step::Done
        } else {
            Step::Fault
        };
        if !bits.special {
            ctx.put(holder, 1, 0);
        }
        step
    }

    /// Copies out of one page of an area what is mapped there, else what a fault would map. `Fault` where there is no
    /// area, or one whose rights have a fault tell more.
    #[cold]
    fn read_hidden(
        &self,
        ctx: Ctx<'_, M>,
        at: VirtAddr,
        absent: Absent,
        copy: impl FnOnce(FrameId),
    ) -> Result<Step, FaultError> {
        // Ends: each round but the last has brought a page in, or follows another CPU's success.
        loop {
            let section = ctx.enter(self.section_name());
            let Some(area) =
                self.index.find(at, &section).filter(|area| area.rights.is_none() != (absent == Absent::Show))
            else {
                return Ok(Step::Fault);
            };
            if area.flags.contains(AreaFlags::RAW) {
                return Err(FaultError::Denied);
            }
            // An entry without a page is the area's only while that lives: a sweep that has emptied it comes after its
            // death, and would have us show a page that was never there.
            let is_stale = |mapped: &Held| !matches!(mapped, Held::Frame(_)) && area.is_dead();
            let mapped = self.hold_mapped(ctx, at);
            let Some(mapped) = mapped.filter(|held| !is_stale(held) || mutant::is(mutant::Mutant::ShowDead)) else {
                drop(section);
                ctx.relax();
                spin_hint();
                continue;
            };
            let index = if let Held::Offset(index) = mapped { index } else { area.page_index(at) };
            let object = area.object.as_ref().map(|object| (Arc::clone(object), index));
            let shown = match (mapped, &object) {
                (Held::Frame(frame), _) => PageState::Resident(frame),
                (Held::Lost, _) => return Err(FaultError::Bus),
                (_, Some((object, index))) => object.any_page(ctx, *index),
                (_, None) => PageState::Resident(ctx.memory.zero_frame()),
            };
            match shown {
                PageState::Resident(frame) => {
                    copy(frame);
                    if frame != ctx.memory.zero_frame() {
                        ctx.put(ctx.memory.holder(frame), 1, 0);
                    }
                    return Ok(Step::Done);
                }
                PageState::PastEnd => return Err(FaultError::Bus),
                PageState::Absent | PageState::Closed => {}
            }
            drop(section);
            let Some((object, index)) = object else { continue };
            object.bring_in(ctx, index).map_err(|error| match error {
                ObjectError::OutOfMemory => FaultError::OutOfMemory,
                _ => FaultError::Bus,
            })?;
        }
    }

    /// What is mapped at `at`, whatever its rights; `None` if that cannot be said now. Inside a section.
    fn hold_mapped(&self, ctx: Ctx<'_, M>, at: VirtAddr) -> Option<Held> {
        if matches!(find(ctx, self.root, at), Found::Missing) {
            return Some(Held::Nothing);
        }
        let Look { slot, entry, leaf, .. } = look(ctx, self.root, at)?;
        let (frame, bits) = match M::Format::leaf(leaf) {
            Leaf::Page(frame, bits) | Leaf::None(frame, bits) => (frame, bits),
            Leaf::Empty => return Some(Held::Nothing),
            Leaf::Offset(index) => return Some(Held::Offset(index)),
            Leaf::Lost => return Some(Held::Lost),
            Leaf::Poison => return None,
        };
        if bits.special {
            return Some(Held::Frame(frame));
        }
        let holder = ctx.memory.holder(frame);
        if !ctx.record(holder).try_get(0) {
            return None;
        }
        // As `still_maps`: a shared table that this space has left keeps its entries.
        if look(ctx, self.root, at).is_some_and(|now| core::ptr::eq(slot, now.slot) && now.entry == entry) {
            return Some(Held::Frame(frame));
        }
        ctx.put(holder, 1, 0);
        None
    }

    /// After the reference was taken: does the space still reach the frame the same way? The whole path is checked,
    /// for a shared table that this space has left keeps its entries.
    pub(super) fn still_maps(&self, ctx: Ctx<'_, M>, at: VirtAddr, slot: &AtomicEntry, entry: Raw) -> bool {
        look(ctx, self.root, at)
            .is_some_and(|now| core::ptr::eq(slot, now.slot) && M::Format::same_but_touched(now.entry, entry))
    }

    /// After a store: a clean (MADV_FREE) between the mark and the store took the dirty bit away, and the store came
    /// after it (P10). If the page has left meanwhile, the store left with it.
    fn mark_again(&self, ctx: Ctx<'_, M>, at: VirtAddr, frame: FrameId) {
        // Ends: each round but the last follows another CPU's successful change of the entry.
        while let Some(Look { slot, entry, leaf, .. }) = look(ctx, self.root, at)
            && matches!(M::Format::leaf(leaf), Leaf::Page(there, _) if there == frame)
            && !mutant::is(mutant::Mutant::MarkOnlyBefore)
        {
            // An RMW also where no bit changes. Release: a clean that comes later has the store before it.
            let touched = M::Format::touched(entry, true);
            if slot.compare_exchange(entry, touched, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
}

/// Sets the accessed and, for a store, the dirty bit. False if the entry changed otherwise.
pub(super) fn mark<M: Machine>(slot: &AtomicEntry, entry: Raw, access: Access) -> bool {
    let mut now = entry;
    // Ends: the MMU sets at most two bits.
    loop {
        let touched = M::Format::touched(now, access == Access::Write);
        if touched == now {
            return true;
        }
        // AcqRel: the store that follows belongs to this version of the entry.
        match slot.compare_exchange(now, touched, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(other) if M::Format::same_but_touched(other, now) => now = other,
            Err(_) => return false,
        }
    }
}
