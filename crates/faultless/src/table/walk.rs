//! The walk from the root to a leaf entry: one helper for everybody (PL-08).
//!
//! [`find`] only looks. [`populate`] makes the path private and complete: it allocates missing tables by one
//! compare-exchange each (PL-02) and unshares shared ones (P7). Both run inside a section and never block.

use super::{Delta, Removed, alloc_table, discard_table, huge, part_of, share, slot_of};
use crate::addr::{FrameId, VirtAddr};
use crate::frame::Ctx;
use crate::machine::format::{Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Ordering, mutant};

/// What a walk that changes nothing found.
pub(crate) enum Found<'a> {
    /// A leaf entry; `shared` if some table on the way belongs to others too.
    Leaf {
        /// The entry.
        slot: &'a AtomicEntry,
        /// The leaf table it is in.
        table: FrameId,
        /// Is the path shared (and everything below it read-only)?
        shared: bool,
    },
    /// A large page.
    Huge {
        /// The entry of level 1.
        slot: &'a AtomicEntry,
        /// As for [`Found::Leaf`].
        shared: bool,
    },
    /// A table is missing on the way.
    Missing,
    /// A fork has frozen the root: wait, outside the section.
    Frozen,
    /// A table on the way is being taken away: start over.
    Poison,
}

/// Why a path could not be completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Somebody else changed the path: start over.
    Retry,
    /// A fork has frozen the root: wait, outside the section.
    Frozen,
    /// No frame for a table.
    NoMemory,
}

/// Loads an entry that a compare-exchange will build on.
#[inline]
pub(crate) fn load(entry: &AtomicEntry) -> Raw {
    if mutant::is(mutant::Mutant::RelaxedEntryLoad) {
        return entry.load(Ordering::Relaxed);
    }
    // Acquire pairs with the AcqRel of whoever wrote the value: a value written by a sweep carries the area's death,
    // one written by an install carries the page's contents (P1).
    entry.load(Ordering::Acquire)
}

/// A mapped address, looked at: the entry that decides, and what a leaf entry for the address says or would say.
pub(crate) struct Look<'a> {
    /// The leaf entry, or that of a large page.
    pub(crate) slot: &'a AtomicEntry,
    /// Its value.
    pub(crate) entry: Raw,
    /// The value of the leaf entry.
    pub(crate) leaf: Raw,
    /// As for [`Found::Leaf`].
    pub(crate) shared: bool,
    /// Is it part of a large page?
    pub(crate) large: bool,
}

/// Looks at `address`; `None` if there is no table. Changes nothing.
pub(crate) fn look<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: VirtAddr) -> Option<Look<'_>> {
    match find(ctx, root, address) {
        Found::Leaf { slot, shared, .. } => {
            let entry = load(slot);
            Some(Look { slot, entry, leaf: entry, shared, large: false })
        }
        Found::Huge { slot, shared } => {
            let entry = load(slot);
            if M::Format::upper(entry) != Upper::Huge {
                return None; // split in between: as good as not there yet
            }
            let leaf = M::Format::part_of_huge(entry, slot_of::<M::Format>(address.as_u64(), 0));
            Some(Look { slot, entry, leaf, shared, large: true })
        }
        _ => None,
    }
}

/// Looks for the leaf entry of `address`.
#[inline]
pub(crate) fn find<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: VirtAddr) -> Found<'_> {
    let mut table = root;
    let mut path_shared = false;
    for level in (1..M::Format::LEVELS).rev() {
        let slot = &ctx.entries(table)[slot_of::<M::Format>(address.as_u64(), level)];
        let entry = load(slot);
        let Some((frame, shared)) = M::Format::open_table(entry) else {
            return match M::Format::upper(entry) {
                Upper::Empty => Found::Missing,
                Upper::Huge => Found::Huge { slot, shared: path_shared },
                Upper::Frozen | Upper::Table { .. } => Found::Frozen,
                Upper::Poison => Found::Poison,
            };
        };
        path_shared |= shared;
        table = frame;
    }
    let slot = &ctx.entries(table)[slot_of::<M::Format>(address.as_u64(), 0)];
    Found::Leaf { slot, table, shared: path_shared }
}

/// Is no table shared on the way to the leaf entry of `address`, as far as there are tables, and is that not part of a
/// large page?
pub(crate) fn is_private<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: VirtAddr) -> bool {
    let mut table = root;
    for level in (1..M::Format::LEVELS).rev() {
        let slot = &ctx.entries(table)[slot_of::<M::Format>(address.as_u64(), level)];
        match M::Format::upper(load(slot)) {
            Upper::Table { frame, shared: false, frozen: false } => table = frame,
            other => return other == Upper::Empty,
        }
    }
    true
}

/// Finds the leaf entry of `address` on a private path, making it so where it is not.
#[inline]
pub(crate) fn populate<'a, M: Machine>(
    ctx: Ctx<'a, M>,
    root: FrameId,
    address: VirtAddr,
    removed: &mut Removed,
    delta: &mut Delta,
) -> Result<&'a AtomicEntry, Stop> {
    populate_to(ctx, root, address, 0, removed, delta).map(|(_, slot)| slot)
}

/// The same down to a table of `bottom`: that table, and its entry for the address.
pub(crate) fn populate_to<'a, M: Machine>(
    ctx: Ctx<'a, M>,
    root: FrameId,
    address: VirtAddr,
    bottom: usize,
    removed: &mut Removed,
    delta: &mut Delta,
) -> Result<(FrameId, &'a AtomicEntry), Stop> {
    let mut table = root;
    for level in (bottom + 1..M::Format::LEVELS).rev() {
        let slot = &ctx.entries(table)[slot_of::<M::Format>(address.as_u64(), level)];
        let mut entry = load(slot);
        // Ends: each round but the last is caused by another CPU's success, or makes the entry private.
        table = loop {
            match M::Format::upper(entry) {
                Upper::Table { frozen: true, .. } | Upper::Frozen => return Err(Stop::Frozen),
                Upper::Table { frame, shared: false, .. } => break frame,
                Upper::Table { frame, .. } => {
                    entry = share::unshare(ctx, slot, entry, frame, level - 1, address, removed)?;
                }
                Upper::Poison => return Err(Stop::Retry),
                Upper::Huge => {
                    huge::split(ctx, slot, entry, delta)?;
                    entry = load(slot);
                }
                Upper::Empty => entry = link_table(ctx, table, address, entry, level, delta)?,
            }
        };
    }
    Ok((table, &ctx.entries(table)[slot_of::<M::Format>(address.as_u64(), bottom)]))
}

/// Links a new table at the EMPTY slot of `address` in `parent`, which is of `level`, or returns what somebody else put
/// there.
#[inline(never)]
fn link_table<M: Machine>(
    ctx: Ctx<'_, M>,
    parent: FrameId,
    address: VirtAddr,
    empty: Raw,
    level: usize,
    delta: &mut Delta,
) -> Result<Raw, Stop> {
    let index = slot_of::<M::Format>(address.as_u64(), level);
    let slot = &ctx.entries(parent)[index];
    ctx.record(parent).note_parts(part_of::<M::Format>(index));
    let frame = alloc_table(ctx, level - 1).ok_or(Stop::NoMemory)?;
    let entry = M::Format::table(frame.id(), false, false);
    // Release publishes the empty entries and the record (PL-03); Acquire on failure, as `load`.
    match slot.compare_exchange(empty, entry, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            delta.tables += 1;
            Ok(entry)
        }
        Err(now) => {
            discard_table(ctx, frame);
            Ok(now)
        }
    }
}
