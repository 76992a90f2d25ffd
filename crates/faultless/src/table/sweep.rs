//! Sweeps: what a range operation does to the entries of its range. Protocols P1 (stamps) and P2 (generations).
//!
//! Called by `space::{unmap, protect, map, brk, advise, truncate}` with the stripe's lock held, inside a section, after the index was
//! changed and the old areas were marked dead. A sweep runs until its [`Removed`] is full; the caller then leaves the
//! section, flushes, settles, and resumes exactly where it stopped (ZP-03).
//!
//! If no section of the space was active after the areas died, no fault holds a value from before, and EMPTY entries
//! need no new stamp and PRESENT ones no new generation: the sweep is `quiet` and only loads what is empty.

use super::relocate::Moved;
use super::walk::load;
use super::{Delta, FRAMES, Removed, Unlinked, part_shift, share, slot_of, span};
use crate::addr::{FrameId, PAGE_SIZE, Rights, VirtAddr};
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Ordering, mutant};
use arrayvec::ArrayVec;

/// What a sweep does to each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rewrite {
    /// Remove it; tables that lie wholly in `window` (where no area is left) go too.
    Remove {
        /// The gap around the range after the operation.
        window: (u64, u64),
    },
    /// Remove it while the areas stay (truncation, MADV_DONTNEED). Private tables stay too: a fault of a live area may
    /// be on its way into one. A shared table that lies wholly in `range` is given up, for no fault commits below it.
    Discard {
        /// What is discarded.
        range: (u64, u64),
        /// Must a fault that found nothing mapped look again? Yes if the page it would map is gone from its object; a
        /// page of zeroes is as good after the operation as before.
        restamps: bool,
        /// Do anonymous pages leave too? If not, the private copies of an object's pages stay.
        copies: bool,
    },
    /// Move it `by` bytes (modulo 2^64), into [`Sweep::moved`] first. Tables that lie wholly in `window` go.
    Move {
        /// The gap around the range after the operation.
        window: (u64, u64),
        /// What is moved.
        range: (u64, u64),
        /// How far.
        by: u64,
    },
    /// As `Discard`, in a nonlinear area: the pages whose indexes lie in `pages`. One that is not where the area's offset
    /// says leaves its index behind (NL-03).
    DiscardNonlinear {
        /// The index that the area's offset gives to address 0, modulo 2^64.
        linear: u64,
        /// First index, and one past the last.
        pages: (u64, u64),
        /// As for `Discard`.
        restamps: bool,
    },
    /// Remove it, and note in each entry that another page of the object belongs there (NL-02). All leaf tables exist.
    Place {
        /// The index that the area's offset gives to address 0, modulo 2^64.
        linear: u64,
        /// The index that the entries give to address 0 afterwards, modulo 2^64.
        target: u64,
    },
    /// Note it as clean (MADV_FREE): the next store sets its dirty bit again. Only pages that nobody else has.
    Clean,
    /// Mark it, so that a watcher hears of the next store, or take the mark away.
    Mark {
        /// Which of both.
        on: bool,
        /// Also where nothing is mapped, for the page that comes?
        empty: bool,
    },
    /// Give it these rights. `narrows` if some page may lose a right.
    Protect {
        /// The new rights.
        rights: Rights,
        /// May some page lose a right? If not, shared tables are left alone.
        narrows: bool,
        /// May stores go to every page as it is, and unnoticed (a shared mapping of memory)?
        unwatched: bool,
        /// Is every page soft-dirty anyway? If not, one that is clean stays write-protected.
        soft: bool,
    },
    /// Note it as not soft-dirty, and write-protect it, so that the next store is seen (P14). Pinned pages stay: their
    /// holder stores to them without the MMU.
    Settle,
    /// Note the pinned pages as soft-dirty: some may have been pinned while they were settled.
    KeepPinned,
    /// Note it as not accessed.
    Age,
}

impl Rewrite {
    /// Do pages leave?
    pub(super) fn removes(self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Discard { .. } | Self::DiscardNonlinear { .. } | Self::Place { .. })
    }

    /// Do pages go to another place?
    pub(crate) fn moves(self) -> bool {
        matches!(self, Self::Move { .. })
    }

    /// Must a fault that is under way notice? Not if pages only gain rights.
    pub(super) fn restricts(self) -> bool {
        !matches!(self, Self::Protect { narrows: false, .. } | Self::KeepPinned | Self::Mark { on: false, .. })
    }

    /// Must EMPTY entries change too, so that a fault that saw one before fails?
    pub(super) fn restamps(self) -> bool {
        match self {
            Self::Remove { .. } | Self::Move { .. } | Self::Place { .. } => true,
            Self::Discard { restamps, .. } | Self::DiscardNonlinear { restamps, .. } => restamps,
            Self::Clean | Self::Settle | Self::KeepPinned | Self::Age | Self::Mark { .. } => false,
            Self::Protect { narrows, .. } => narrows,
        }
    }

    /// Are shared tables left alone?
    fn spares_shared(self) -> bool {
        matches!(self, Self::Protect { narrows: false, .. } | Self::Clean | Self::KeepPinned)
    }
}

/// How far a sweep came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// The range is done, but for the entries in [`Sweep::guarded`].
    Done,
    /// Flush and settle, then resume at this address.
    Resume(u64),
    /// No frame for the copy of a shared table; nothing from this address on has changed.
    NoMemory(u64),
}

/// Entries that wait for the generation wrap guard.
const GUARDED: usize = 16;

/// One sweep over a range of one space.
pub(crate) struct Sweep<'a, M: Machine> {
    pub(crate) ctx: Ctx<'a, M>,
    pub(crate) root: FrameId,
    pub(crate) rewrite: Rewrite,
    /// Unique among all values that the entries had: one per operation, as each entry is emptied once per operation.
    pub(crate) stamp: u64,
    /// No section of the space was active after the areas died.
    pub(crate) quiet: bool,
    /// A table may lie where no area is: a late fault linked it, or it was kept for the wrap guard (PL-05). Set by the
    /// sweep that keeps one.
    pub(crate) strays: bool,
    /// Change nothing but to make private the shared tables that the real sweep would have to copy.
    pub(crate) only_unshare: bool,
    /// What came out.
    pub(crate) removed: &'a mut Removed,
    /// What it means for the space's counters.
    pub(crate) delta: Delta,
    /// Entries whose next generation starts a half cycle: a section wait must come first (C4).
    pub(crate) guarded: ArrayVec<(u64, Raw), GUARDED>,
    /// Where [`Rewrite::Move`] puts what it takes.
    pub(crate) moved: Option<&'a mut Moved>,
    /// Pages of objects that came out of dirty entries, with the mapping and the reference of each: they are noted as
    /// dirty after the flush, and released then (P17).
    pub(crate) stored: ArrayVec<FrameId, FRAMES>,
}

/// The outcome of a visit to a table: where to resume, if not at its end.
pub(super) type Visit = Result<(), Progress>;

impl<'a, M: Machine> Sweep<'a, M> {
    /// A sweep that has not started.
    #[inline]
    pub(crate) fn new(ctx: Ctx<'a, M>, root: FrameId, rewrite: Rewrite, quiet: bool, removed: &'a mut Removed) -> Self {
        Self {
            ctx,
            root,
            rewrite,
            stamp: ctx.cpu.stamp(),
            quiet,
            strays: false,
            only_unshare: false,
            removed,
            delta: Delta::default(),
            guarded: ArrayVec::new(),
            moved: None,
            stored: ArrayVec::new(),
        }
    }

    /// Sweeps `from..to`.
    pub(crate) fn run(&mut self, from: u64, to: u64) -> Progress {
        let visit = match self.run_in_leaf(from, to) {
            Some(visit) => visit,
            None => self.visit_upper(self.root, M::Format::LEVELS - 1, 0, from, to),
        };
        match visit {
            Ok(()) => Progress::Done,
            Err(progress) => progress,
        }
    }

    /// The same for a range within one leaf table, where nothing above the leaves is to be changed; `None` if that is
    /// not so.
    fn run_in_leaf(&mut self, from: u64, to: u64) -> Option<Visit> {
        let covered = span::<M::Format>(1);
        let start = from & !(covered - 1);
        if to - start > covered || self.is_whole(1, start) || self.moves_whole(1, start, from, to) {
            return None;
        }
        let mut table = self.root;
        for level in (1..M::Format::LEVELS).rev() {
            let slot = &self.ctx.entries(table)[slot_of::<M::Format>(from, level)];
            let entry = load(slot);
            table = match M::Format::upper(entry) {
                Upper::Table { frame, shared: false, frozen: false } if level > 1 => frame,
                Upper::Table { shared: false, frozen: false, .. } if self.only_unshare => return Some(Ok(())),
                Upper::Table { frame, shared: false, frozen: false } => {
                    return match self.visit_leaf(slot, entry, frame, start, from, to) {
                        Ok(true) => Some(Ok(())),
                        Ok(false) => None, // replaced: look again
                        Err(progress) => Some(Err(progress)),
                    };
                }
                Upper::Empty if !self.stamps_upper() => return Some(Ok(())),
                _ => return None,
            };
        }
        None
    }

    /// Goes back to one entry after the section wait that began while it had the value `seen`. `false` if the entry
    /// has another value by now, so that the question must be asked anew.
    pub(crate) fn revisit(&mut self, address: u64, seen: Raw) -> bool {
        let found = super::find(self.ctx, self.root, VirtAddr::new(address));
        let super::Found::Leaf { slot, table, shared: false } = found else {
            return true; // the table left, and the entry with it
        };
        let _lock = self.ctx.lock_table(table);
        let now = load(slot);
        if now != seen && !M::Format::same_but_touched(now, seen) {
            return matches!(M::Format::leaf(now), Leaf::Empty | Leaf::Poison);
        }
        self.rewrite_leaf(slot, address, Some(seen)).is_ok()
    }

    /// Visits the entries of an upper table (level 1 and up) that cover `from..to`. Recursion is `LEVELS` deep.
    fn visit_upper(&mut self, table: FrameId, level: usize, base: u64, from: u64, to: u64) -> Visit {
        let covered = span::<M::Format>(level);
        let mut index = slot_of::<M::Format>(from, level);
        let end = slot_of::<M::Format>(to - 1, level) + 1;
        let entries = &self.ctx.entries(table)[..end];
        let skips_empty = !self.stamps_upper();
        // Ends: each round passes an entry.
        while let Some(slot) = entries.get(index) {
            if skips_empty && M::Format::all_empty(load(slot)) {
                index = self.next_linked(table, level, entries, index + 1);
                continue;
            }
            let start = base + covered * index as u64;
            self.visit_slot(slot, level, start, from.max(start), to.min(start + covered))?;
            index += 1;
        }
        Ok(())
    }

    /// The first entry of an upper table from `index` on that is not EMPTY, or the end: one look per part of the table in
    /// which no table was ever linked, whatever it would cover (ZP-02). What a sweep must not miss is linked and visible,
    /// and so is its part: who links a table notes the part first.
    fn next_linked(&self, table: FrameId, level: usize, entries: &[AtomicEntry], mut index: usize) -> usize {
        let shift = part_shift::<M::Format>();
        // The root's entries are also set by fork.
        let parts = if level == M::Format::LEVELS - 1 { u64::MAX } else { self.ctx.record(table).parts() };
        // Ends: each round passes the parts in a row that named tables, or the last entry.
        while index < entries.len() {
            let ahead = parts >> (index >> shift);
            if ahead == 0 {
                return entries.len();
            }
            let part = (index >> shift) + ahead.trailing_zeros() as usize;
            let end = entries.len().min((part + (parts >> part).trailing_ones() as usize) << shift);
            index = next_used::<M::Format>(&entries[..end], index.max(part << shift));
            if index < end {
                return index;
            }
        }
        index
    }

    /// Visits one upper entry, which covers the addresses from `start` on, for the part `from..to`.
    fn visit_slot(&mut self, slot: &AtomicEntry, level: usize, start: u64, from: u64, to: u64) -> Visit {
        let mut entry = load(slot);
        // Ends: each round but the last follows another CPU's successful change of this slot.
        loop {
            let table = match M::Format::upper(entry) {
                Upper::Table { frame, shared, .. } => Some((frame, shared)),
                Upper::Huge => None,
                _ => match self.restamp_upper(slot, entry) {
                    Ok(()) => return Ok(()),
                    Err(now) => {
                        entry = now;
                        continue;
                    }
                },
            };
            if self.moves_whole(level, start, from, to) {
                if self.only_unshare || self.take_table(slot, entry, start)? {
                    return Ok(());
                }
                entry = load(slot);
                continue;
            }
            let Some((frame, shared)) = table else {
                if self.visit_huge(slot, entry, start, from, to)? {
                    return Ok(());
                }
                entry = load(slot);
                continue;
            };
            if self.only_unshare && self.is_whole(level, start) {
                return Ok(()); // dropped whole, with all that is shared below
            }
            if shared {
                entry = match self.visit_shared(slot, entry, frame, level, start, from)? {
                    Some(private) => private,
                    None => return Ok(()),
                };
                continue;
            }
            if level == 1 {
                if self.only_unshare {
                    return Ok(());
                }
                if !self.visit_leaf(slot, entry, frame, start, from, to)? {
                    entry = load(slot); // replaced: look again
                    continue;
                }
            } else {
                self.visit_upper(frame, level - 1, start, from, to)?;
            }
            return self.unlink_private(slot, entry, frame, level, start);
        }
    }

    /// Must EMPTY upper entries get a new stamp?
    fn stamps_upper(&self) -> bool {
        self.rewrite.restamps() && !self.quiet && !self.only_unshare && !mutant::is(mutant::Mutant::NoUpperStamp)
    }

    /// An EMPTY upper entry gets a new stamp, so that a fault that saw the old one cannot link a table behind us.
    fn restamp_upper(&self, slot: &AtomicEntry, entry: Raw) -> Result<(), Raw> {
        if !self.stamps_upper() || M::Format::upper(entry) != Upper::Empty {
            return Ok(());
        }
        // AcqRel: whoever loads the new value sees the areas dead (P1).
        slot.compare_exchange(entry, M::Format::empty(self.stamp, 0), Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    /// A shared table: dropped whole if nothing else lies in its span, left alone if rights only grow, else unshared.
    /// Returns the private entry to go on with, or `None` if done.
    fn visit_shared(
        &mut self,
        slot: &AtomicEntry,
        entry: Raw,
        table: FrameId,
        level: usize,
        start: u64,
        from: u64,
    ) -> Result<Option<Raw>, Progress> {
        if self.rewrite.spares_shared() {
            return Ok(None);
        }
        if self.removed.tables.is_full() {
            return Err(Progress::Resume(from));
        }
        if self.rewrite.removes() && self.is_whole(level, start) {
            let empty = M::Format::empty(self.stamp, 0);
            // AcqRel: as `restamp_upper`.
            if slot.compare_exchange(entry, empty, Ordering::AcqRel, Ordering::Acquire).is_err() {
                return Ok(Some(load(slot)));
            }
            share::weigh(self.ctx, table, level - 1, &mut self.delta, -1);
            self.removed.note(start, span::<M::Format>(level));
            self.removed.tables.push(Unlinked::Shared(table, level - 1));
            return Ok(None);
        }
        match share::unshare(self.ctx, slot, entry, table, level - 1, VirtAddr::new(from), self.removed) {
            Ok(private) => Ok(Some(private)),
            Err(super::Stop::NoMemory) => Err(Progress::NoMemory(from)),
            Err(_) => Ok(Some(load(slot))),
        }
    }

    /// Is nothing left of what the entry at `start` (in a table of `level`) covers?
    fn is_whole(&self, level: usize, start: u64) -> bool {
        let (Rewrite::Remove { window: (low, high) }
        | Rewrite::Move { window: (low, high), .. }
        | Rewrite::Discard { range: (low, high), copies: true, .. }) = self.rewrite
        else {
            return false;
        };
        low <= start && start + span::<M::Format>(level) <= high
    }

    /// Takes a private table out whose span holds no area any more. It has just been swept, so it is empty but for
    /// entries that wait for the wrap guard and strays.
    fn unlink_private(&mut self, slot: &AtomicEntry, entry: Raw, table: FrameId, level: usize, start: u64) -> Visit {
        let stays = matches!(self.rewrite, Rewrite::Discard { .. });
        if self.only_unshare || stays || !self.is_whole(level, start) {
            return Ok(());
        }
        if !self.guarded.is_empty() {
            self.strays = true; // with entries pending, the table stays and goes with the next operation or at exit
            return Ok(());
        }
        self.removed.note(start, span::<M::Format>(level));
        if level > 1 && (self.strays || !self.quiet) {
            self.close(table, level - 1, start)?;
        }
        if self.removed.tables.is_full() {
            return Err(Progress::Resume(start));
        }
        let empty = M::Format::empty(self.stamp, 0);
        // AcqRel: as `restamp_upper`. Only holders of the stripe lock change a private table's slot.
        if slot.compare_exchange(entry, empty, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(());
        }
        self.delta.tables -= 1;
        self.removed.tables.push(Unlinked::Private(table));
        Ok(())
    }

    /// Takes the strays out of an upper table that is about to be unlinked and, unless the sweep is quiet, closes it to
    /// the faults of dead areas that are still on their way. No page is mapped below. If there is no room for all of
    /// them, the sweep resumes at `start`. Recursion is `LEVELS` deep.
    fn close(&mut self, table: FrameId, level: usize, start: u64) -> Visit {
        for slot in self.ctx.entries(table) {
            let mut entry = load(slot);
            // Ends: each round but the last follows another CPU's successful change of this slot.
            loop {
                match M::Format::upper(entry) {
                    Upper::Poison => break,
                    Upper::Table { frame, shared: false, .. } if level > 1 => self.close(frame, level - 1, start)?,
                    Upper::Table { .. } => {}
                    Upper::Huge => {
                        debug_assert!(false, "a large page where no area is");
                        break;
                    }
                    _ if self.quiet => break,
                    _ => {}
                }
                if self.removed.tables.is_full() {
                    return Err(Progress::Resume(start));
                }
                // AcqRel: a fault either linked before, and is found here, or fails.
                match slot.compare_exchange(entry, M::Format::poison(), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break self.book_stray(entry, level),
                    Err(now) => entry = now,
                }
            }
        }
        Ok(())
    }

    /// Books what was taken out of a slot of a table of `level`.
    fn book_stray(&mut self, entry: Raw, level: usize) {
        let Upper::Table { frame, shared, .. } = M::Format::upper(entry) else {
            return;
        };
        // Never walked by hardware with a page behind it, but paging-structure caches may hold it: the flush comes first.
        if shared {
            share::weigh(self.ctx, frame, level - 1, &mut self.delta, -1);
            self.removed.tables.push(Unlinked::Shared(frame, level - 1));
        } else {
            self.delta.tables -= 1;
            self.removed.tables.push(Unlinked::Private(frame));
        }
    }

    /// Visits the leaf entries for `from..to`. `Ok(false)` if the slot names another table by now.
    fn visit_leaf(
        &mut self,
        parent: &AtomicEntry,
        parent_entry: Raw,
        table: FrameId,
        start: u64,
        from: u64,
        to: u64,
    ) -> Result<bool, Progress> {
        let _lock = self.ctx.lock_table(table);
        if load(parent) != parent_entry {
            return Ok(false);
        }
        let entries = self.ctx.entries(table);
        let mut index = ((from - start) / PAGE_SIZE) as usize;
        let entries = &entries[..((to - start) / PAGE_SIZE) as usize];
        let skips_empty = !self.visits_empty();
        // Ends: each round passes an entry.
        while let Some(slot) = entries.get(index) {
            if skips_empty && M::Format::all_empty(load(slot)) {
                index = next_used::<M::Format>(entries, index + 1);
                continue;
            }
            self.rewrite_leaf(slot, start + index as u64 * PAGE_SIZE, None)?;
            index += 1;
        }
        Ok(true)
    }
}

/// The first entry from `index` on that is not EMPTY, or the end. Entries that mostly are need one test for many.
fn next_used<F: Format>(entries: &[AtomicEntry], index: usize) -> usize {
    let index = skip_empty::<F, 16>(entries, index);
    let index = skip_empty::<F, 8>(entries, index);
    skip_empty::<F, 1>(entries, index)
}

/// Passes as many EMPTY entries as it can in steps of `STEP`.
#[inline]
fn skip_empty<F: Format, const STEP: usize>(entries: &[AtomicEntry], mut index: usize) -> usize {
    // Ends: each round passes entries.
    while let Some(part) = entries.get(index..).and_then(<[AtomicEntry]>::first_chunk::<STEP>)
        && F::all_empty(part.iter().fold(0, |ored, slot| ored | load(slot)))
    {
        index += STEP;
    }
    index
}
