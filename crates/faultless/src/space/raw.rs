//! Frames that the embedder maps by number: device memory, or pages of its own (rows PF).
//!
//! An area with [`Backing::Frames`](crate::Backing) starts empty. [`Core::insert_frames`] fills it with frames that are
//! neither counted nor freed, and need no record; [`Core::insert_page`] with a counted page of the embedder's. Which is
//! which is written in the entry (SPECIAL), so no walker has to guess from the number (PF-02).
//!
//! Called by `engine`, for drivers: `examples/driver.rs` is one on 40 lines of machine, `kernel/src/fs/frames.rs` one that
//! real programs map. Mapping and filling are two operations; a fault in between finds a hole, and so does one that looks
//! for what was never filled.

use super::Core;
use crate::addr::{FrameId, PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing};
use crate::frame::{Ctx, Kind, Memory};
use crate::machine::format::{Leaf, PageBits, Raw};
use crate::machine::{Format, Machine, RawFrames};
use crate::sync::Ordering;
use crate::table::{Delta, Removed, Stop, load, populate};
use alloc::sync::Arc;
use core::fmt;

/// A frame of the embedder's own, counted like the page of a file while it is mapped.
pub struct Page<M: Machine> {
    memory: Arc<Memory<M>>,
    frame: FrameId,
}

/// Why frames were not mapped. Frames before the address were (PF-04); nothing that was there has been replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// No area with [`Backing::Frames`](crate::Backing) covers the address (EFAULT).
    Unmapped(VirtAddr),
    /// The range is empty, or is only a part of a private area that may be written (EINVAL).
    Invalid,
    /// Something is mapped at the address (EBUSY).
    Exists(VirtAddr),
    /// No frame for a table (ENOMEM).
    NoMemory(VirtAddr),
}

impl<M: Machine> Page<M> {
    /// A page of zeroes.
    pub(crate) fn new(ctx: Ctx<'_, M>, memory: &Arc<Memory<M>>) -> Option<Self> {
        let frame = ctx.alloc_zeroed(Kind::File)?;
        ctx.record(frame.id()).init_state(false, false);
        Some(Self { memory: Arc::clone(memory), frame: ctx.publish(frame, 1, 0) })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> FrameId {
        self.frame
    }

    /// The memory it belongs to.
    pub(crate) fn memory(&self) -> &Memory<M> {
        &self.memory
    }
}

impl<M: Machine> fmt::Debug for Page<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({:?})", self.frame)
    }
}

impl<M: Machine> Drop for Page<M> {
    fn drop(&mut self) {
        if self.memory.record(self.frame).drop_counts(1, 0) {
            self.memory.free_without_cpu(self.frame);
        }
    }
}

impl<M: Machine> Core<M> {
    /// Maps frames from `at` on, with the rights of their area.
    pub(crate) fn insert_frames(&self, ctx: Ctx<'_, M>, at: VirtAddr, frames: RawFrames) -> Result<(), InsertError> {
        let len = frames.count().checked_mul(PAGE_SIZE).ok_or(InsertError::Invalid)?;
        let range = PageRange::with_len(at, len).map_err(|_| InsertError::Invalid)?;
        if range.end() > self.layout.highest {
            return Err(InsertError::Unmapped(at));
        }
        let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
        let mut at = range.start();
        // The whole range is looked at before anything is mapped.
        while at < range.end() {
            let area = self.index.find(at, &guard).filter(|area| area.flags.contains(AreaFlags::RAW));
            let area = area.ok_or(InsertError::Unmapped(at))?;
            let is_copied = area.sharing == Sharing::Private && area.max_rights.contains(Rights::WRITE);
            if is_copied && area.range.intersect(range) != Some(area.range) {
                return Err(InsertError::Invalid);
            }
            at = area.range.end();
        }
        let mut at = range.start();
        while at < range.end() {
            let area = self.index.find(at, &guard).ok_or(InsertError::Unmapped(at))?;
            let frame = FrameId::new(frames.base().as_u64() + (at.as_u64() - range.start().as_u64()) / PAGE_SIZE);
            let entry = M::Format::page(frame, PageBits { special: true, ..bits_of(area) }, 0);
            self.install(ctx, at, entry, None)?;
            at = VirtAddr::new(at.as_u64() + PAGE_SIZE);
        }
        Ok(())
    }

    /// Maps a page of the embedder's at `at`, with the rights of its area (PF-05).
    pub(crate) fn insert_page(&self, ctx: Ctx<'_, M>, at: VirtAddr, page: &Page<M>) -> Result<(), InsertError> {
        let at = at.align_down();
        let guard = self.lock(ctx, at.as_u64(), at.as_u64() + PAGE_SIZE);
        let area = self.index.find(at, &guard).filter(|area| area.flags.contains(AreaFlags::RAW));
        let area = area.ok_or(InsertError::Unmapped(at))?;
        // A private mapping shows the page until it is stored to.
        let entry = M::Format::page(page.frame, bits_of(area), 0);
        ctx.record(page.frame).add_counts(1, 1);
        self.install(ctx, at, entry, Some(page.frame)).inspect_err(|_| ctx.put(page.frame, 1, 1))
    }

    /// Puts an entry where nothing is. The stripe is locked, so no area of the range leaves meanwhile.
    fn install(&self, ctx: Ctx<'_, M>, at: VirtAddr, entry: Raw, counted: Option<FrameId>) -> Result<(), InsertError> {
        // Ends: it is repeated only for another CPU's success on the way.
        loop {
            let (mut removed, mut delta) = (Removed::new(), Delta::default());
            let section = ctx.enter(self.section_name());
            let done = match populate(ctx, self.root, at, &mut removed, &mut delta) {
                Ok(slot) => {
                    let empty = load(slot);
                    let new = M::Format::with_generation(entry, M::Format::generation(empty));
                    // Release publishes the page's contents and record.
                    let taken = M::Format::leaf(empty) != Leaf::Empty
                        || slot.compare_exchange(empty, new, Ordering::AcqRel, Ordering::Relaxed).is_err();
                    if taken { Err(InsertError::Exists(at)) } else { Ok(()) }
                }
                Err(Stop::NoMemory) => Err(InsertError::NoMemory(at)),
                Err(Stop::Retry | Stop::Frozen) => {
                    self.counters.post(ctx, &delta);
                    drop(section);
                    self.settle(ctx, &mut removed);
                    continue;
                }
            };
            if let (Ok(()), Some(frame)) = (done, counted) {
                delta.page(ctx.record(frame).kind(), 1);
            }
            self.counters.post(ctx, &delta);
            drop(section);
            self.touch(at);
            self.settle(ctx, &mut removed);
            return done;
        }
    }
}

/// The bits of an inserted page. In a private mapping it is write-protected: a store copies it.
fn bits_of<M: Machine>(area: &Area<M>) -> PageBits {
    let write = area.sharing == Sharing::Shared && area.rights.contains(Rights::WRITE);
    PageBits { write, execute: area.rights.contains(Rights::EXECUTE), dirty: write, ..PageBits::default() }
}
