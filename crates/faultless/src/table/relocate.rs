//! Moving what is mapped to another place in the same space (mremap): leaf tables whole where both places line up, else
//! entry by entry.
//!
//! Called by `space::remap` with the stripes of both places locked. A sweep takes entries and tables out into a
//! [`Moved`]; after the flush of the old place (ZP-10) [`install`] puts them in at the new one, whose area keeps faults
//! waiting until then. [`make_room`] has made the tables that are needed, so installing cannot fail.
//!
//! Protocol P11. No fault is on its way into what moves: the area was closed, and its sections have ended.

use super::sweep::{Progress, Rewrite, Sweep};
use super::walk::{Stop, load, populate_to};
use super::{Delta, Found, Removed, Unlinked, find, part_of, slot_of, span};
use crate::addr::{FrameId, PAGE_SIZE, VirtAddr};
use crate::frame::Ctx;
use crate::machine::format::{Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::Ordering;
use arrayvec::ArrayVec;

/// Pages that one [`Moved`] holds.
const PAGES: usize = if cfg!(any(loom, shuttle)) { 4 } else { 128 };
/// Tables that one [`Moved`] holds.
const TABLES: usize = if cfg!(any(loom, shuttle)) { 2 } else { 32 };

/// Entries on their way, each with the address that it will be at.
#[must_use = "what was taken out must be installed"]
pub(crate) struct Moved {
    pages: ArrayVec<(u64, Raw), PAGES>,
    tables: ArrayVec<(u64, Raw), TABLES>,
}

impl Moved {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self { pages: ArrayVec::new(), tables: ArrayVec::new() }
    }
}

impl<M: Machine> Sweep<'_, M> {
    /// Is the leaf table that the entry at `start` (in a table of `level`) names moved as it is?
    pub(super) fn moves_whole(&self, level: usize, start: u64, from: u64, to: u64) -> bool {
        let Rewrite::Move { range: (low, high), by, .. } = self.rewrite else {
            return false;
        };
        let covered = span::<M::Format>(1);
        // A visit that resumes in the middle of a table goes on entry by entry.
        level == 1 && from == start && to == start + covered && low <= start && to <= high && by.is_multiple_of(covered)
    }

    /// Takes a leaf table out whole. `Ok(false)` if the slot has changed.
    pub(super) fn take_table(&mut self, slot: &AtomicEntry, entry: Raw, start: u64) -> Result<bool, Progress> {
        let Rewrite::Move { by, .. } = self.rewrite else {
            return Ok(false);
        };
        let empty = M::Format::empty(self.stamp, 0);
        let Some(moved) = self.moved.as_mut().filter(|moved| !moved.tables.is_full()) else {
            return Err(Progress::Resume(start));
        };
        // AcqRel: whoever loads the new value sees the areas dead (P1).
        if slot.compare_exchange(entry, empty, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(false);
        }
        moved.tables.push((start.wrapping_add(by), entry));
        self.removed.note(start, span::<M::Format>(1));
        Ok(true)
    }

    /// Puts in at once what was taken out (a seeded bug).
    pub(crate) fn install_early(&mut self, delta: &mut Delta) {
        if let Some(moved) = self.moved.as_mut() {
            install(self.ctx, self.root, moved, self.removed, delta);
        }
    }

    /// Is there room for another page on its way?
    pub(super) fn has_room(&self) -> bool {
        self.moved.as_ref().is_some_and(|moved| !moved.pages.is_full())
    }

    /// Notes a page that was taken out, if the sweep moves pages.
    pub(super) fn note_moved(&mut self, entry: Raw, address: u64) {
        if let (Rewrite::Move { by, .. }, Some(moved)) = (self.rewrite, self.moved.as_mut()) {
            moved.pages.push((address.wrapping_add(by), entry));
        }
    }
}

/// Makes the tables that [`install`] will need for what is mapped in `range` now, `by` bytes on. Inside a section.
pub(crate) fn make_room<M: Machine>(
    ctx: Ctx<'_, M>,
    root: FrameId,
    range: (u64, u64),
    by: u64,
    removed: &mut Removed,
    delta: &mut Delta,
) -> Result<(), Stop> {
    let covered = span::<M::Format>(1);
    let (mut at, high) = range;
    // Ends: each round passes a leaf table.
    while at < high {
        let (mut first, mut last) = (u64::MAX, 0);
        let next = super::scan(ctx, root, at, high, &mut |seen| {
            first = first.min(seen.address);
            last = last.max(seen.address);
        });
        let Some(next) = next else { break };
        let start = (next - 1) & !(covered - 1);
        if by.is_multiple_of(covered) && range.0 <= start && next == start + covered {
            // The table moves as it is, with pages or without (`Sweep::moves_whole`).
            populate_to(ctx, root, VirtAddr::new(start.wrapping_add(by)), 1, removed, delta)?;
        } else if first <= last {
            populate_to(ctx, root, VirtAddr::new(first.wrapping_add(by)), 0, removed, delta)?;
            populate_to(ctx, root, VirtAddr::new(last.wrapping_add(by)), 0, removed, delta)?;
        }
        at = next;
    }
    Ok(())
}

/// Puts in what a sweep took out, after the flush. Inside a section; leaves `moved` empty.
pub(crate) fn install<M: Machine>(
    ctx: Ctx<'_, M>,
    root: FrameId,
    moved: &mut Moved,
    sweep: &mut Removed,
    delta: &mut Delta,
) {
    for (address, entry) in moved.tables.drain(..) {
        install_table(ctx, root, address, entry, sweep, delta);
    }
    for (address, entry) in moved.pages.drain(..) {
        install_page(ctx, root, address, entry);
    }
}

fn install_page<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: u64, entry: Raw) {
    let Found::Leaf { slot, shared: false, .. } = find(ctx, root, VirtAddr::new(address)) else {
        unreachable!("room was made, and the stripes are locked");
    };
    let mut empty = load(slot);
    // Ends: faults of dead areas do not commit, those of the new one wait.
    loop {
        let new = M::Format::with_generation(entry, M::Format::generation(empty));
        // Release carries the flush of the old place to whoever finds the page at the new one.
        match slot.compare_exchange(empty, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => empty = now,
        }
    }
}

fn install_table<M: Machine>(
    ctx: Ctx<'_, M>,
    root: FrameId,
    address: u64,
    entry: Raw,
    removed: &mut Removed,
    delta: &mut Delta,
) {
    let Ok((parent, slot)) = populate_to(ctx, root, VirtAddr::new(address), 1, removed, delta) else {
        unreachable!("room was made, and the stripes are locked");
    };
    ctx.record(parent).note_parts(part_of::<M::Format>(slot_of::<M::Format>(address, 1)));
    let mut old = load(slot);
    // Ends: each round but the last follows the success of a fault that linked a table here.
    loop {
        // Release: as `install_page`.
        match slot.compare_exchange(old, entry, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => old = now,
        }
    }
    // A table that was left here: it maps nothing. A child may have been given its share of it.
    if let Upper::Table { frame, shared, .. } = M::Format::upper(old) {
        delta.tables -= 1;
        removed.note(address, PAGE_SIZE);
        removed.tables.push(if shared { Unlinked::Shared(frame, 0) } else { Unlinked::Private(frame) });
    }
}
