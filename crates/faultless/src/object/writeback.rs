//! Dirty pages on their way back to the pager: claimed, written, and what became of it. Protocol P17.
//!
//! Called by `engine`, which between claiming and writing has every mapping of the pages write-protected, and by faults.
//! Absent on purpose: when to write. Nothing here is written of its own accord but by the drop of the last handle.

use super::{Object, PageReader, PageState};
use crate::addr::{FrameId, PAGE_SHIFT, PAGE_SIZE};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::plain::{AtomicU64 as PlainU64, Ordering::Relaxed};
use crate::sync::{AtomicU64, Ordering, frame_in, mutant, spin_hint};
use arrayvec::ArrayVec;

/// Pages that are claimed at a time. Small in model builds, so that they end.
const BATCH: usize = if cfg!(any(loom, shuttle)) { 2 } else { 128 };

/// How a page of a file stands to its backing store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The backing store has it, unless a mapping has been stored through since, which its entry knows.
    Clean,
    /// It was stored to.
    Dirty,
    /// It is being written; it may be dirty again, too.
    Writing,
}

/// Which failures of write-back somebody has heard of: one for each handle that a program has on a file. As Linux's
/// `errseq_t`: a failure is told once to each, and one that nobody has heard of is told to a handle that comes later too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteErrors(u64);

/// Somebody has been told of the last failure.
const TOLD: u64 = 1;
const FAILURE: u64 = 2;

/// What an object knows of its write-back.
pub(super) struct Writing {
    /// Cleans so far: a permission to store is worth nothing after the next one began.
    rounds: AtomicU64, // (A)
    /// Failures, and `TOLD`.
    errors: PlainU64, // (A)
    /// What those were told who synchronise mappings.
    mapped: PlainU64, // (A)
}

impl Writing {
    pub(super) fn new() -> Self {
        Self { rounds: AtomicU64::new(0), errors: PlainU64::new(0), mapped: PlainU64::new(0) }
    }
}

/// Dirty pages that were claimed, each with a reference.
#[must_use = "what is claimed must be written"]
pub(crate) struct Claims {
    pages: ArrayVec<(u64, FrameId), BATCH>,
    /// One past the last page that was looked at.
    pub(crate) end: u64,
    /// Was there one that is dirty again while somebody writes it?
    pub(crate) busy: bool,
}

impl<M: Machine> Object<M> {
    /// Is its pager handed what was stored to?
    #[inline]
    pub(crate) fn writes_back(&self) -> bool {
        self.writes_back
    }

    /// Cleans so far, for a permission to store.
    pub(crate) fn rounds(&self) -> u64 {
        // Acquire pairs with `start_round`.
        self.writing.rounds.load(Ordering::Acquire)
    }

    /// Makes all permissions to store void. Whoever finds one good all the same is in a section that began before, and is
    /// waited for.
    pub(crate) fn start_round(&self) {
        // Release pairs with `rounds`; the wait for sections has the barrier.
        self.writing.rounds.fetch_add(1, Ordering::AcqRel);
    }

    /// May the page become writable? Outside sections.
    pub(crate) fn may_store(&self, index: u64) -> bool {
        self.pager.as_ref().is_none_or(|pager| pager.page_mkwrite(index).is_ok())
    }

    /// Notes that a page was written to by a call.
    pub(super) fn note_written(&self, ctx: Ctx<'_, M>, frame: FrameId) {
        if !self.large {
            ctx.record(frame).mark_dirty();
        }
    }

    /// Makes the object at least `size` bytes long. What was the end of its last page belongs to it now, and was never
    /// written.
    pub(crate) fn grow_noting(&self, ctx: Ctx<'_, M>, size: u64) {
        let old = self.grow(size);
        if self.writes_back
            && old < size
            && !old.is_multiple_of(PAGE_SIZE)
            && let PageState::Resident(frame) = self.cached(ctx, old >> PAGE_SHIFT, 0)
        {
            ctx.record(frame).mark_dirty();
            ctx.put(frame, 1, 0);
        }
    }

    /// Gives the cache's reference to a page back that has left it. A page that is being written is waited for: what is
    /// behind the end may be given away when a truncation returns.
    pub(super) fn let_go(&self, ctx: Ctx<'_, M>, frame: FrameId) {
        if self.writes_back {
            let record = ctx.record(frame);
            record.leave_cache();
            // Ends: whoever has claimed it writes it, and waits for nobody.
            while record.is_writing() && !mutant::is(mutant::Mutant::CutDuringWrite) {
                ctx.relax();
                spin_hint();
            }
        }
        ctx.put(frame, 1, 0);
    }

    /// Claims the dirty pages of `from..end`, as many as fit. They count as clean from now on: a store that comes later
    /// makes them dirty again. So the claim stands before the cleaning of their entries.
    pub(crate) fn claim(&self, ctx: Ctx<'_, M>, (from, end): (u64, u64)) -> Claims {
        let mut claims = Claims { pages: ArrayVec::new(), end, busy: false };
        self.pages.find(from, end - 1, &mut |index, slot| {
            if !frame_in(slot.load(Ordering::Acquire)).is_some_and(|frame| ctx.record(frame).is_owed()) {
                return true;
            }
            if claims.pages.is_full() {
                claims.end = index;
                return false;
            }
            // Looked up anew, with a reference; it may be another page by now.
            if let PageState::Resident(frame) = self.cached(ctx, index, 0) {
                if ctx.record(frame).start_write() {
                    claims.pages.push((index, frame));
                } else {
                    claims.busy |= ctx.record(frame).is_writing();
                    ctx.put(frame, 1, 0);
                }
            }
            true
        });
        claims
    }

    /// Hands the claimed pages to the pager. Their entries were cleaned and flushed since the claim. Outside sections.
    pub(crate) fn write_claimed(&self, ctx: Ctx<'_, M>, claims: Claims) {
        for (index, frame) in claims.pages {
            let read = |offset, into: &mut [u8]| ctx.machine().read(frame, offset, into);
            let written = self.write_out(index, &read);
            ctx.record(frame).end_write(written);
            ctx.put(frame, 1, 0);
        }
    }

    /// Hands one page to the pager. True if nothing is left to do.
    fn write_out(&self, index: u64, read: &dyn Fn(usize, &mut [u8])) -> bool {
        let len = self.size().saturating_sub(index << PAGE_SHIFT).min(PAGE_SIZE) as usize;
        let Some(pager) = self.pager.as_ref().filter(|_| len != 0) else {
            return true; // cut off meanwhile
        };
        let written = pager.write_page(index, &PageReader { read, len }).is_ok();
        if !written {
            let next = |errors| Some((errors & !TOLD) + FAILURE);
            // Relaxed: one word says it all.
            let _ = self.writing.errors.try_update(Relaxed, Relaxed, next);
        }
        written
    }

    /// Waits for pages of `from..end` that somebody else is writing. Holds no claim.
    pub(crate) fn await_writes(&self, ctx: Ctx<'_, M>, (from, end): (u64, u64)) {
        if mutant::is(mutant::Mutant::NoWriteAwait) {
            return;
        }
        self.pages.find(from, end - 1, &mut |index, slot| {
            let is_writing = frame_in(slot.load(Ordering::Acquire)).is_some_and(|frame| ctx.record(frame).is_writing());
            if is_writing && let PageState::Resident(frame) = self.cached(ctx, index, 0) {
                // Ends: as in `let_go`.
                while ctx.record(frame).is_writing() {
                    ctx.relax();
                    spin_hint();
                }
                ctx.put(frame, 1, 0);
            }
            true
        });
    }

    /// The last handle goes: what is dirty is written, and nobody is left to hear of failures.
    pub(super) fn write_last(&self, frame: FrameId) {
        let record = self.memory.record(frame);
        if record.start_write() {
            let read = |offset, into: &mut [u8]| self.memory.machine().read(frame, offset, into);
            let written = self.write_out(record.words().1, &read);
            record.end_write(written);
        }
    }

    /// How the page that holds byte `offset` stands to its backing store; `None` if it is not in the cache. A look: it
    /// may have changed by the time of the answer.
    #[must_use]
    pub fn standing(&self, offset: u64) -> Option<Standing> {
        let slot = self.pages.get(offset >> PAGE_SHIFT).filter(|_| !self.large)?;
        let record = self.memory.record(frame_in(slot.load(Ordering::Acquire))?);
        Some(match (record.is_writing(), record.is_dirty()) {
            (true, _) => Standing::Writing,
            (false, true) => Standing::Dirty,
            (false, false) => Standing::Clean,
        })
    }

    /// Where a new handle on the file begins to hear of failures.
    #[must_use]
    pub fn write_errors(&self) -> WriteErrors {
        let errors = self.writing.errors.load(Relaxed);
        WriteErrors(if errors & TOLD == 0 { 0 } else { errors })
    }

    /// Has a write failed that the handle was not told of? Now it is.
    pub(crate) fn tell(&self, known: &mut WriteErrors) -> bool {
        let errors = self.writing.errors.load(Relaxed);
        if errors == known.0 {
            return false;
        }
        // Relaxed: one word. A failure that comes in between is told as this one.
        known.0 = self.writing.errors.fetch_or(TOLD, Relaxed) | TOLD;
        true
    }

    /// The same for those who synchronise mappings, who count as one handle.
    pub(crate) fn tell_mappings(&self) -> bool {
        let mut known = WriteErrors(self.writing.mapped.load(Relaxed));
        let told = self.tell(&mut known);
        self.writing.mapped.fetch_max(known.0, Relaxed);
        told
    }
}
