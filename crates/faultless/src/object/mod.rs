//! What stands behind a page of a mapping: memory objects (shared anonymous memory, tmpfs) and files.
//!
//! Called by `area`, `space` and embedders. An object owns a cache of pages, looked up and filled without a lock
//! (protocol P9): a slot holds a frame number and one reference; whoever wants the page takes a reference of its own
//! and reads the slot again. What was stored to the pages of a file goes back to its pager (P17); the cache of a memory
//! object *is* its contents. Absent on purpose: who maps the pages.

mod large;
mod pager;
mod punch;
mod shown;
mod writeback;

pub(crate) use large::NotMade;
pub use pager::{PageReader, PageWriter, Pager, PagerError};
pub use shown::HasWriters;
pub use writeback::{Standing, WriteErrors};

use crate::addr::{FrameId, PAGE_SHIFT, PAGE_SIZE};
use crate::frame::{Ctx, Frame, Kind, Memory};
use crate::machine::{Format, Machine};
use crate::sync::plain::AtomicI64;
use crate::sync::{
    AtomicBool, AtomicU64, NoMemory, Ordering, Radix, absent_value, fence, frame_in, hole_value, is_closed, is_hole,
    mutant, slot_value, spin_hint,
};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::marker::PhantomData;
use writeback::Writing;

/// Why an object could not be read, written or resized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// No frame for a page, or no heap for the page index.
    OutOfMemory,
    /// The pager failed.
    Io,
    /// The offset passes 2^63 - 1.
    TooBig,
}

/// The pages of a file or of shared memory.
pub struct Object<M: Machine> {
    id: u64,         // fixed
    label: Box<str>, // fixed
    size: AtomicU64, // (A) bytes
    /// Bytes that the pager still stands for: what a truncation cut off is gone, also if the object grows again.
    readable: AtomicU64, // (A) only ever falls
    /// Did the last truncation leave pages mapped that it cut off?
    torn: AtomicBool, // (A)
    /// Truncations so far: stamps for the slots that they empty.
    cuts: AtomicU64, // (A)
    pages: Radix,    // (A) lock-free
    large: bool,     // fixed: are the pages large ones of the pool, and so the indices?
    promised: u64,   // fixed: pages that count as promised for as long as it lives
    areas: AtomicI64, // (A) areas that show it
    /// Areas through which stores may ever come; below zero while there may be none.
    writers: AtomicI64, // (A)
    pager: Option<Arc<dyn Pager>>, // fixed
    writes_back: bool, // fixed: is the pager handed what was stored to?
    writing: Writing, // says itself
    memory: Arc<Memory<M>>, // fixed
    machine: PhantomData<fn() -> M>,
}

/// What a fault finds at an index of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageState {
    /// A page, referenced (and counted as mapped) for the caller.
    Resident(FrameId),
    /// Not in the cache: a memory object makes it, a file must read it.
    Absent,
    /// It is being punched out: wait, outside sections.
    Closed,
    /// Beyond the end of the object.
    PastEnd,
}

/// What became of a page that was to be put into an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PutIn {
    /// It is in.
    Done,
    /// There is one, or there was one meanwhile.
    Exists,
    /// Beyond the end.
    PastEnd,
}

impl<M: Machine> Object<M> {
    /// An object of `size` bytes.
    pub(crate) fn new(memory: Arc<Memory<M>>, id: u64, size: u64, pager: Option<Arc<dyn Pager>>, label: &str) -> Self {
        Self::make_parts(memory, id, size, pager, label, 0)
    }

    /// Memory whose size is promised for as long as it lives.
    pub(crate) fn promised(memory: Arc<Memory<M>>, id: u64, size: u64, label: &str) -> Result<Self, NoMemory> {
        let promised = size.div_ceil(PAGE_SIZE);
        memory.commit().promise(None, promised, || 0)?;
        Ok(Self::make_parts(memory, id, size, None, label, promised))
    }

    fn make_parts(
        memory: Arc<Memory<M>>,
        id: u64,
        size: u64,
        pager: Option<Arc<dyn Pager>>,
        label: &str,
        promised: u64,
    ) -> Self {
        let readable = AtomicU64::new(if pager.is_some() { size } else { 0 });
        Self {
            id,
            label: label.into(),
            size: AtomicU64::new(size),
            readable,
            torn: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            pages: Radix::new(),
            large: false,
            promised,
            areas: AtomicI64::new(0),
            writers: AtomicI64::new(0),
            writes_back: pager.as_ref().is_some_and(|pager| pager.writes_back()),
            writing: Writing::new(),
            pager,
            memory,
            machine: PhantomData,
        }
    }

    /// A number that no other object of the same `Vm` has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name given at creation.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        // Acquire pairs with the Release in `set_size`: a fault that sees the new size sees no page it should not.
        self.size.load(Ordering::Acquire)
    }

    /// The memory it lives in.
    pub(crate) fn memory(&self) -> &Memory<M> {
        &self.memory
    }

    /// How its pages are counted.
    pub(crate) fn kind(&self) -> Kind {
        if self.pager.is_some() { Kind::File } else { Kind::Memory }
    }

    /// Is it memory rather than a file with a pager?
    pub(crate) fn is_memory(&self) -> bool {
        self.pager.is_none()
    }

    /// Must an absent page be read from a pager?
    pub(crate) fn must_read(&self, index: u64) -> bool {
        index < self.readable().div_ceil(PAGE_SIZE)
    }

    fn readable(&self) -> u64 {
        // Acquire pairs with the Release in `set_size`, as in `size`.
        self.readable.load(Ordering::Acquire)
    }

    /// Does the page lie beyond the end?
    pub(crate) fn is_past_end(&self, index: u64) -> bool {
        index >= self.size().div_ceil(PAGE_SIZE)
    }

    /// Is the page in the cache?
    pub(crate) fn has_page(&self, index: u64) -> bool {
        let (index, _) = self.cache_range((index, index));
        // Acquire: as in `cached`.
        self.pages.get(index).is_some_and(|slot| frame_in(slot.load(Ordering::Acquire)).is_some())
    }

    /// Looks the page up for a mapping: takes a reference and `mappings` mappings (FL-03: re-read after the reference).
    pub(crate) fn page(&self, ctx: Ctx<'_, M>, index: u64, mappings: u32) -> PageState {
        debug_assert!(!self.large, "its pages are large ones");
        if self.is_past_end(index) {
            return PageState::PastEnd;
        }
        self.cached(ctx, index, mappings)
    }

    /// The same without a look at the size.
    fn cached(&self, ctx: Ctx<'_, M>, index: u64, mappings: u32) -> PageState {
        let Some(slot) = self.pages.get(index) else {
            return PageState::Absent;
        };
        loop {
            // Acquire pairs with the AcqRel in `insert`: the page is filled.
            let value = slot.load(Ordering::Acquire);
            let Some(frame) = frame_in(value) else {
                return if is_closed(value) { PageState::Closed } else { PageState::Absent };
            };
            if !ctx.record(frame).try_get(mappings) {
                spin_hint();
                continue; // it is leaving: the slot changes
            }
            if slot.load(Ordering::Acquire) == value || mutant::is(mutant::Mutant::NoPageRecheck) {
                return PageState::Resident(frame);
            }
            ctx.put(frame, 1, mappings);
        }
    }

    /// Brings the page into the cache: zeroed, or read by the pager. May block in the pager: outside sections, no
    /// locks held. True if the pager was asked; false also if the page is still being punched out after a moment: the
    /// caller looks again.
    ///
    /// The absent slot is looked at before the size, and the page is put in only if the slot is still the same: what a
    /// truncation cut off while the page was read does not come back.
    pub(crate) fn bring_in(&self, ctx: Ctx<'_, M>, index: u64) -> Result<bool, ObjectError> {
        if self.large {
            return self.make_large_or_wait(ctx, index >> M::Format::INDEX_BITS).map(|()| false);
        }
        let slot = self.pages.get_or_make(index).map_err(|_| ObjectError::OutOfMemory)?;
        // Acquire pairs with the AcqRel of the truncation that wrote the value: the size of then is seen below.
        let absent = slot.load(Ordering::Acquire);
        if is_closed(absent) {
            wait_for_punch(ctx);
            return Ok(false);
        }
        if frame_in(absent).is_some() {
            return Ok(false);
        }
        // Pairs with the fence in `set_size`: either the truncation finds the slot, or we see what it left to read.
        fence(Ordering::SeqCst);
        let frame = ctx.alloc_zeroed(self.kind()).ok_or(ObjectError::OutOfMemory)?;
        let pager = self.pager.as_ref().filter(|_| self.must_read(index) && !is_hole(absent));
        if let Some(pager) = pager {
            let id = frame.id();
            let mut write = |offset, bytes: &[u8]| ctx.machine().write(id, offset, bytes);
            if pager.fill(index, &mut PageWriter { write: &mut write }).is_err() {
                ctx.free(frame);
                return Err(ObjectError::Io);
            }
            // The pager may know bytes that were cut off, or that never belonged to the object.
            let kept = self.readable().saturating_sub(index << PAGE_SHIFT);
            zero_from(ctx, id, kept.min(PAGE_SIZE) as usize);
        }
        self.insert(ctx, slot, absent, index, frame, false);
        Ok(pager.is_some())
    }

    /// Puts a page in if there is none, without asking the pager. The frame is freed if not. A page that is being punched
    /// out is still there: its slot names it.
    pub(crate) fn put_in(&self, ctx: Ctx<'_, M>, index: u64, frame: Frame) -> Result<PutIn, ObjectError> {
        let Ok(slot) = self.pages.get_or_make(index) else {
            ctx.free(frame);
            return Err(ObjectError::OutOfMemory);
        };
        // Acquire and fence: as in `bring_in`.
        let absent = slot.load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        let exists = frame_in(absent).is_some() || is_closed(absent) && !mutant::is(mutant::Mutant::PutInClosed);
        if exists || self.is_past_end(index) {
            ctx.free(frame);
            return Ok(if exists { PutIn::Exists } else { PutIn::PastEnd });
        }
        Ok(if self.insert(ctx, slot, absent, index, frame, true) { PutIn::Done } else { PutIn::Exists })
    }

    /// Puts a filled page into a slot that is absent as it was; the loser of a race frees its own. The cache holds one
    /// reference. `dirty`: its pager does not have it.
    fn insert(&self, ctx: Ctx<'_, M>, slot: &AtomicU64, absent: u64, index: u64, frame: Frame, dirty: bool) -> bool {
        ctx.record(frame.id()).set_words(self.id, index);
        ctx.record(frame.id()).init_state(self.writes_back, dirty);
        ctx.record(frame.id()).init_counts(1, 0);
        // Release publishes the contents and the record.
        if slot.compare_exchange(absent, slot_value(frame.id()), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // Not freed outright: a look-up by the number of the frame's earlier life may hold a reference.
            ctx.put(frame.id(), 1, 0);
            return false;
        }
        true
    }

    /// Reads up to `into.len()` bytes from `offset`; returns how many there were before the end.
    pub(crate) fn read_at(&self, ctx: Ctx<'_, M>, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        let len = (into.len() as u64).min(self.size().saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < len {
            let (index, start) = split(offset + done as u64);
            let part = (len - done).min(PAGE_SIZE as usize - start);
            let target = &mut into[done..done + part];
            match self.any_page(ctx, index) {
                PageState::Resident(frame) => {
                    ctx.machine().read(frame, start, target);
                    ctx.put(ctx.memory.holder(frame), 1, 0);
                }
                PageState::Absent if !self.must_read(index) => target.fill(0),
                PageState::Absent => {
                    self.bring_in(ctx, index)?;
                    continue;
                }
                PageState::Closed => {
                    wait_for_punch(ctx);
                    continue;
                }
                PageState::PastEnd => return Ok(done), // truncated meanwhile
            }
            done += part;
        }
        Ok(len)
    }

    /// Writes all of `from` at `offset`, extending the object.
    pub(crate) fn write_at(&self, ctx: Ctx<'_, M>, offset: u64, from: &[u8]) -> Result<usize, ObjectError> {
        let end = offset.checked_add(from.len() as u64).filter(|end| *end < 1 << 63).ok_or(ObjectError::TooBig)?;
        if self.large && end > self.size() {
            return Err(ObjectError::TooBig); // sizes are of whole pages
        }
        let mut done = 0;
        while done < from.len() {
            let (index, start) = split(offset + done as u64);
            let part = (from.len() - done).min(PAGE_SIZE as usize - start);
            let frame = match self.any_cached(ctx, index) {
                PageState::Resident(frame) => frame,
                PageState::Closed => {
                    wait_for_punch(ctx);
                    continue;
                }
                _ => match self.bring_in(ctx, index) {
                    Ok(_) => continue,
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => return Ok(done),
                },
            };
            ctx.machine().write(frame, start, &from[done..done + part]);
            done += part;
            // Only what is written counts as content. Before the page is dirty: it is written back up to the end.
            self.grow_noting(ctx, (offset + done as u64).min(end));
            self.note_written(ctx, frame);
            ctx.put(ctx.memory.holder(frame), 1, 0);
        }
        Ok(done)
    }

    /// Makes the object at least `size` bytes long. Returns its old size.
    pub(crate) fn grow(&self, size: u64) -> u64 {
        // AcqRel: as `set_size`.
        self.size.fetch_max(size, Ordering::AcqRel)
    }

    /// Sets the size. Pages beyond a smaller size are still cached and mapped until `drop_beyond` and the unmapping
    /// of all mappings, which the caller does.
    pub(crate) fn set_size(&self, size: u64) -> u64 {
        // Release pairs with the Acquire in `readable`.
        self.readable.fetch_min(size, Ordering::Release);
        // AcqRel: the sweep that follows carries it to faults that look the page up later (P9).
        let old = self.size.swap(size, Ordering::AcqRel);
        // Pairs with the fence in `bring_in`.
        fence(Ordering::SeqCst);
        old
    }

    /// Did the last truncation leave pages mapped that it cut off?
    pub(crate) fn is_torn(&self) -> bool {
        // Relaxed: calls that resize one object do not overlap.
        self.torn.load(Ordering::Relaxed)
    }

    /// Notes whether a truncation has left pages mapped that it cut off.
    pub(crate) fn set_torn(&self, torn: bool) {
        self.torn.store(torn, Ordering::Relaxed);
    }

    /// Takes what lies beyond `size` out of the cache. The slots get new values, present or not, so that no page that
    /// was read before comes in behind us.
    pub(crate) fn drop_beyond(&self, ctx: Ctx<'_, M>, size: u64) {
        let stamp = self.cuts.fetch_add(1, Ordering::Relaxed);
        if self.large {
            return self.drop_large(ctx, (size / Self::large_size(), u64::MAX), stamp);
        }
        self.pages.take(size.div_ceil(PAGE_SIZE), u64::MAX, absent_value(stamp), |frame| self.let_go(ctx, frame));
        let (index, start) = split(size);
        if start != 0 {
            self.cut_page(ctx, index, start, stamp);
        }
    }

    /// Zeroes the page from byte `start` on, or marks its absence.
    fn cut_page(&self, ctx: Ctx<'_, M>, index: u64, start: usize, stamp: u64) {
        let Some(slot) = self.pages.get(index) else { return };
        // Ends: each round but the last follows another CPU's successful change of the slot, or waits for a punch to end.
        loop {
            // With a reference: another truncation may drop the page while we write.
            if let PageState::Resident(frame) = self.cached(ctx, index, 0) {
                zero_from(ctx, frame, start);
                self.note_written(ctx, frame);
                return ctx.put(frame, 1, 0);
            }
            let value = slot.load(Ordering::Acquire);
            if is_closed(value) {
                wait_for_punch(ctx);
                continue;
            }
            // What was punched out in front of the cut must not be read again.
            let is_hole = is_hole(value) && !mutant::is(mutant::Mutant::CutForgetsHole);
            let absent = if is_hole { hole_value(stamp) } else { absent_value(stamp) };
            // AcqRel: as `Radix::take`.
            if frame_in(value).is_none()
                && slot.compare_exchange(value, absent, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }

    /// Calls `visit` with every cached frame.
    pub(crate) fn each_page(&self, visit: &mut dyn FnMut(u64, FrameId)) {
        self.pages.each(visit);
    }
}

/// A moment for who punches a hole, and may be waiting for this CPU to forget the page.
#[cold]
fn wait_for_punch<M: Machine>(ctx: Ctx<'_, M>) {
    ctx.relax();
    spin_hint();
}

/// Zeroes a frame from byte `start` on.
fn zero_from<M: Machine>(ctx: Ctx<'_, M>, frame: FrameId, start: usize) {
    zero(ctx, frame, start, PAGE_SIZE as usize);
}

/// Zeroes the bytes `start..end` of a frame.
fn zero<M: Machine>(ctx: Ctx<'_, M>, frame: FrameId, mut start: usize, end: usize) {
    const ZEROES: [u8; 64] = [0; 64];
    while start < end {
        let part = (end - start).min(ZEROES.len());
        ctx.machine().write(frame, start, &ZEROES[..part]);
        start += part;
    }
}

/// Page index and offset in the page.
fn split(offset: u64) -> (u64, usize) {
    (offset >> PAGE_SHIFT, (offset & (PAGE_SIZE - 1)) as usize)
}

impl<M: Machine> Drop for Object<M> {
    fn drop(&mut self) {
        let memory = &self.memory;
        if self.promised != 0 {
            memory.commit().adjust(None, -self.promised.cast_signed());
        }
        if self.large {
            memory.forget_promises(&crate::sync::Held::default(), crate::sync::spin_hint, self.id, (0, u64::MAX));
        }
        self.pages.take(0, u64::MAX, absent_value(0), |frame| {
            self.write_last(frame);
            if memory.record(frame).drop_counts(1, 0) {
                memory.free_without_cpu(frame);
            }
        });
    }
}

impl<M: Machine> fmt::Debug for Object<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("id", &self.id).field("label", &self.label).field("size", &self.size()).finish()
    }
}
