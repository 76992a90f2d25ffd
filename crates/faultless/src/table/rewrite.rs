//! What a sweep does to one leaf entry: the value it gets, with a new stamp or generation where faults must notice.
//!
//! Called by [`sweep`](super::sweep), under the leaf table's lock. Protocols P1 and P2.

use super::sweep::{Progress, Rewrite, Sweep, Visit};
use super::walk::load;
use super::{huge, span};
use crate::addr::{PAGE_SIZE, Rights};
use crate::machine::format::{Leaf, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Event, Ordering, mutant};

impl<M: Machine> Sweep<'_, M> {
    /// Rewrites one leaf entry. `waited` is the value for which the wrap guard's wait has been done.
    pub(super) fn rewrite_leaf(&mut self, slot: &AtomicEntry, address: u64, waited: Option<Raw>) -> Visit {
        let mut entry = load(slot);
        // Ends: a compare-exchange fails only if a fault or the MMU changed the entry, and each does so finitely often
        // per value: faults of the dead area give up, the MMU sets two bits.
        loop {
            let new = match M::Format::leaf(entry) {
                Leaf::Poison => return Ok(()),
                Leaf::Empty => match self.new_empty(entry, address) {
                    Some(new) => new,
                    None => return Ok(()),
                },
                Leaf::Page(..) | Leaf::None(..) | Leaf::Offset(_) | Leaf::Lost => {
                    match self.new_mapped(entry, address, waited)? {
                        Some(new) => new,
                        None => return Ok(()),
                    }
                }
            };
            if mutant::is(mutant::Mutant::SweepByStore) {
                slot.store(new, Ordering::Release);
                self.note_rewritten(entry, address);
                return Ok(());
            }
            // AcqRel: whoever loads the new value sees the areas dead (P1). Acquire on failure, as `load`.
            match slot.compare_exchange(entry, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.note_rewritten(entry, address);
                    return Ok(());
                }
                Err(now) => entry = now,
            }
        }
    }

    /// Rewrites the HUGE entry at `start` whole if the operation is for all of it, or splits it. False if the slot is to be
    /// looked at again.
    #[cold]
    pub(super) fn visit_huge(
        &mut self,
        slot: &AtomicEntry,
        entry: Raw,
        start: u64,
        from: u64,
        to: u64,
    ) -> Result<bool, Progress> {
        let covered = span::<M::Format>(1);
        if matches!(self.rewrite, Rewrite::Discard { copies: false, .. }) && self.is_copy(entry) {
            return Ok(true);
        }
        if (from, to) != (start, start + covered) || matches!(self.rewrite, Rewrite::Move { .. }) {
            let done = huge::split(self.ctx, slot, entry, &mut self.delta);
            return done.map(|()| false).map_err(|_| Progress::NoMemory(from));
        }
        if self.only_unshare {
            return Ok(true);
        }
        if self.rewrite.removes() && self.removed.blocks.is_full() {
            return Err(Progress::Resume(start));
        }
        let new = match self.rewrite {
            Rewrite::Clean if is_own_and_dirty::<M>(entry) => M::Format::cleaned(entry),
            Rewrite::Clean => return Ok(true),
            Rewrite::Settle | Rewrite::KeepPinned | Rewrite::Age => match self.noted(entry) {
                Some(noted) => noted,
                None => return Ok(true),
            },
            Rewrite::Protect { rights, unwatched, soft, .. } => protected::<M>(entry, rights, unwatched, soft),
            // Neither nonlinear nor watched areas have any.
            Rewrite::DiscardNonlinear { .. } | Rewrite::Place { .. } | Rewrite::Mark { .. } => return Ok(true),
            Rewrite::Remove { .. } | Rewrite::Discard { .. } | Rewrite::Move { .. } => M::Format::empty(self.stamp, 0),
        };
        // AcqRel: as `rewrite_leaf`. No generation: faults do nothing to the value but split it.
        if slot.compare_exchange(entry, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(false);
        }
        self.ctx.count(Event::EntriesSwept);
        if self.rewrite.removes() {
            self.delta.page(huge::kind(self.ctx, entry), -huge::pages::<M::Format>().cast_signed());
            self.removed.blocks.extend(huge::first_frame::<M::Format>(entry));
            self.ctx.memory.add_huge(-1);
        }
        if self.rewrite.restricts() {
            self.removed.note(start, covered);
        }
        Ok(true)
    }

    /// Is there no room for another page that comes out?
    fn is_full(&self) -> bool {
        self.removed.frames.is_full() || self.stored.is_full()
    }

    /// Must EMPTY leaf entries get a new stamp?
    pub(super) fn stamps_leaves(&self) -> bool {
        self.rewrite.restamps() && !self.quiet && !mutant::is(mutant::Mutant::NoStamp)
    }

    /// Must EMPTY leaf entries be looked at one by one?
    pub(super) fn visits_empty(&self) -> bool {
        self.stamps_leaves() || matches!(self.rewrite, Rewrite::Place { .. } | Rewrite::Mark { empty: true, .. })
    }

    /// What an EMPTY leaf becomes, if it must change.
    fn new_empty(&self, entry: Raw, address: u64) -> Option<Raw> {
        if let Rewrite::Place { linear, target } = self.rewrite {
            return self.placed_empty(entry, address, linear, target);
        }
        if let Rewrite::Mark { on, empty: true } = self.rewrite {
            return Some(M::Format::with_mark(entry, on)).filter(|changed| *changed != entry);
        }
        let keeps_mark = matches!(self.rewrite, Rewrite::Discard { .. }) && M::Format::is_marked_empty(entry);
        self.stamps_leaves().then(|| {
            let new = M::Format::empty(self.stamp, M::Format::generation(entry));
            if keeps_mark { M::Format::with_mark(new, true) } else { new }
        })
    }

    /// What a PAGE, NONE, OFFSET or LOST becomes. `Ok(None)` if it stays, or waits for the wrap guard.
    fn new_mapped(&mut self, entry: Raw, address: u64, waited: Option<Raw>) -> Result<Option<Raw>, Progress> {
        let changed = match self.rewrite {
            Rewrite::Discard { copies: false, .. } if self.is_copy(entry) => return Ok(None),
            rewrite if rewrite.removes() && self.is_full() => return Err(Progress::Resume(address)),
            Rewrite::Discard { .. } => self.discarded(entry),
            Rewrite::Remove { .. } => M::Format::empty(self.stamp, 0),
            Rewrite::DiscardNonlinear { linear, pages, .. } => match self.unbound(entry, address, linear, pages) {
                Some(changed) => changed,
                None => return Ok(None),
            },
            Rewrite::Place { linear, target } => match self.placed(entry, address, linear, target) {
                Some(changed) => changed,
                None => return Ok(None),
            },
            Rewrite::Move { .. } if !self.has_room() => return Err(Progress::Resume(address)),
            Rewrite::Move { .. } => M::Format::empty(self.stamp, 0),
            Rewrite::Mark { on, .. } => {
                let changed = with_mark::<M>(entry, on);
                if !on || changed == entry {
                    return Ok((changed != entry).then_some(changed));
                }
                changed
            }
            Rewrite::Clean if !is_own_and_dirty::<M>(entry) => return Ok(None),
            Rewrite::Clean => M::Format::cleaned(entry),
            // No generation: whoever makes the page writable meanwhile makes it soft-dirty by the same exchange (P14).
            Rewrite::Settle | Rewrite::KeepPinned | Rewrite::Age => return Ok(self.noted(entry)),
            Rewrite::Protect { rights, narrows, unwatched, soft } => {
                let changed = protected::<M>(entry, rights, unwatched, soft);
                if !narrows {
                    return Ok((changed != entry).then_some(changed));
                }
                changed
            }
        };
        // Also where no bit of its rights changes: a compare-exchange prepared before must fail (hole 11 of PROTOCOL).
        let generation = self.next_generation(entry, M::Format::generation(entry), address, waited)?;
        Ok(generation.map(|generation| M::Format::with_generation(changed, generation)))
    }

    /// What a discarded leaf becomes: the mark of an object's page waits for its return, as on Linux.
    fn discarded(&self, entry: Raw) -> Raw {
        let empty = M::Format::empty(self.stamp, 0);
        match M::Format::leaf(entry) {
            Leaf::Page(frame, bits) | Leaf::None(frame, bits) if bits.marked => {
                let is_object = !bits.special && !self.ctx.memory.is_anon(frame);
                M::Format::with_mark(empty, is_object)
            }
            _ => empty,
        }
    }

    /// The entry as the accounting views want it to begin with, if it must change.
    #[cold]
    fn noted(&self, entry: Raw) -> Option<Raw> {
        let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = M::Format::leaf(entry) else {
            return None;
        };
        // The zero frame is never stored to, and of memory without a record nobody knows who does.
        let held = !bits.special && self.ctx.record(frame).is_held();
        let noted = match self.rewrite {
            Rewrite::Age => M::Format::unused(entry),
            Rewrite::KeepPinned if held => M::Format::with_soft(entry),
            Rewrite::Settle if !bits.special && !held => M::Format::without_soft(entry),
            _ => entry,
        };
        (noted != entry).then_some(noted)
    }

    /// Does it map anonymous memory?
    fn is_copy(&self, entry: Raw) -> bool {
        let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = M::Format::leaf(entry) else {
            return false;
        };
        !bits.special && self.ctx.memory.is_anon(frame)
    }

    /// The generation to write, or `None` if the wrap guard demands a section wait first (C4).
    fn next_generation(
        &mut self,
        entry: Raw,
        generation: u64,
        address: u64,
        waited: Option<Raw>,
    ) -> Result<Option<u64>, Progress> {
        if self.quiet || mutant::is(mutant::Mutant::NoGenerationBump) {
            return Ok(Some(generation));
        }
        let cycle = 1u64 << M::Format::GENERATION_BITS;
        let next = (generation + 1) % cycle;
        let starts_half = next.is_multiple_of((cycle / 2).max(1));
        let excused = waited.is_some_and(|seen| seen == entry || M::Format::same_but_touched(seen, entry));
        if !starts_half || excused || mutant::is(mutant::Mutant::NoWrapGuard) {
            return Ok(Some(next));
        }
        if self.guarded.try_push((address, entry)).is_err() {
            return Err(Progress::Resume(address));
        }
        Ok(None)
    }

    /// Books what a successful rewrite took away.
    fn note_rewritten(&mut self, entry: Raw, address: u64) {
        let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = M::Format::leaf(entry) else {
            if let Leaf::Offset(_) | Leaf::Lost = M::Format::leaf(entry) {
                self.note_moved(entry, address); // no page, and nothing to flush
            }
            return;
        };
        self.ctx.count(Event::EntriesSwept);
        if self.rewrite.removes() {
            if !bits.special {
                let record = self.ctx.record(frame);
                self.delta.page(record.kind(), -1);
                if bits.dirty && record.is_of_object() {
                    self.stored.push(frame);
                } else {
                    self.removed.frames.push(frame);
                }
            }
            self.removed.note(address, PAGE_SIZE);
        } else if self.rewrite.restricts() {
            if self.rewrite == Rewrite::Clean && mutant::is(mutant::Mutant::CleanWithoutFlush) {
                return;
            }
            self.note_moved(entry, address);
            self.removed.note(address, PAGE_SIZE);
        }
    }
}

/// A mapped leaf marked or not; any other as it is.
fn with_mark<M: Machine>(entry: Raw, on: bool) -> Raw {
    match M::Format::leaf(entry) {
        Leaf::Page(..) | Leaf::None(..) => M::Format::with_mark(entry, on),
        _ => entry,
    }
}

/// Is it an anonymous page of this space alone, stored to since it was last clean?
fn is_own_and_dirty<M: Machine>(entry: Raw) -> bool {
    let (Leaf::Page(_, bits) | Leaf::None(_, bits)) = M::Format::leaf(entry) else { return false };
    bits.exclusive && bits.dirty && !bits.pending
}

/// A mapped leaf under new rights. A page that may be written without a copy gets its write permission back at once;
/// any other is left to the next write fault, and so is the first store to one that is not soft-dirty.
fn protected<M: Machine>(entry: Raw, rights: Rights, unwatched: bool, soft: bool) -> Raw {
    if rights.is_none() {
        return match M::Format::leaf(entry) {
            Leaf::Page(..) => M::Format::page_to_none(entry, M::Format::generation(entry)),
            _ => entry,
        };
    }
    let (page, bits) = match M::Format::leaf(entry) {
        Leaf::Page(_, bits) => (entry, bits),
        Leaf::None(_, bits) => (M::Format::none_to_page(entry), bits),
        _ => return entry,
    };
    let is_soft = M::Format::is_soft(entry) || soft;
    let may_be_free = !bits.pending && !bits.marked && is_soft;
    let writable = rights.contains(Rights::WRITE) && may_be_free && (bits.exclusive || bits.write || unwatched);
    let page = if writable { M::Format::with_soft(page) } else { page };
    M::Format::with_rights(page, writable, rights.contains(Rights::EXECUTE))
}
