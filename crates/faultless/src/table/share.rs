//! Tables that several spaces name: fork shares them at the root, the first change below copies the path.
//! Protocols P6 (fork) and P7 (unshare).
//!
//! A table's record counts the parent entries that name it (`sc`). An entry that names a shared table carries SHARED
//! and no write permission, so the MMU write-protects everything below. Below a SHARED entry nothing changes but what
//! copiers do under the table's lock: clear W and EXCLUSIVE, and set SHARED one level down.

use super::walk::{Stop, load};
use super::{Delta, Removed, Unlinked, alloc_table, discard_table, huge, note_stored, part_shift, span};
use crate::addr::{FrameId, VirtAddr};
use crate::frame::{Ctx, Frame, Kind, Retired};
use crate::machine::format::{Leaf, PageBits, Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Event, Ordering, RawGuard, mutant};

/// Makes the shared table that `slot` names private to this space: takes it back if nobody else names it, else
/// copies it. `entry` is the slot's value, `level` the table's. Returns the private entry.
pub(super) fn unshare<M: Machine>(
    ctx: Ctx<'_, M>,
    slot: &AtomicEntry,
    entry: Raw,
    table: FrameId,
    level: usize,
    address: VirtAddr,
    removed: &mut Removed,
) -> Result<Raw, Stop> {
    let guard = lock_for_unshare(ctx, table);
    // Under the lock: the slot still names the table, so this space still has its share of it.
    if load(slot) != entry {
        return Err(Stop::Retry);
    }
    // Acquire (in `shares`) pairs with the AcqRel of the drop of the other shares: their copies are complete.
    if ctx.record(table).shares() == 1 {
        ctx.count(Event::SlowUnshareTake);
        return exchange(slot, entry, M::Format::table(table, false, false));
    }
    ctx.count(Event::SlowUnshareCopy);
    let Some(copy) = alloc_table(ctx, level) else {
        return Err(Stop::NoMemory);
    };
    if copy_entries(ctx, table, copy.id(), level).is_err() {
        undo_copy(ctx, copy, level);
        return Err(Stop::NoMemory);
    }
    let private = M::Format::table(copy.id(), false, false);
    if let Err(stop) = exchange(slot, entry, private) {
        // Still under the lock: the shared table holds all that the copy refers to, so nothing goes for good here.
        undo_copy(ctx, copy, level);
        return Err(stop);
    }
    drop(guard);
    // R8: this space's share of the old table goes after its walk caches have forgotten it.
    let covered = span::<M::Format>(level + 1);
    removed.note(address.as_u64() & !(covered - 1), covered);
    if mutant::is(mutant::Mutant::DropBeforeFlush) {
        settle_drop(ctx, table, level);
    } else {
        removed.tables.push(Unlinked::Shared(table, level));
    }
    Ok(private)
}

/// Takes the lock of a shared table. A named slow path with counters of its own, so it is not among the table locks
/// that faults on private paths must not take.
fn lock_for_unshare<M: Machine>(ctx: Ctx<'_, M>, table: FrameId) -> Option<RawGuard<'_>> {
    if mutant::is(mutant::Mutant::TakeWithoutLock) {
        return None;
    }
    let held = ctx.cpu.held();
    let inside = held.set_in_fault(false);
    let guard = ctx.lock_table(table);
    held.set_in_fault(inside);
    Some(guard)
}

fn exchange(slot: &AtomicEntry, from: Raw, to: Raw) -> Result<Raw, Stop> {
    // Release publishes the copy; Acquire because the value is built upon.
    match slot.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(to),
        Err(_) => Err(Stop::Retry),
    }
}

/// Fills an unpublished table with what the shared one holds, taking a reference for each. Under the source's lock.
fn copy_entries<M: Machine>(ctx: Ctx<'_, M>, from: FrameId, to: FrameId, level: usize) -> Result<(), NoFrame> {
    // Nobody knows the target yet; its publication carries the stores.
    let targets = ctx.entries(to);
    if level > 0 {
        let mut failed = false;
        ctx.record(to).note_parts(ctx.record(from).parts());
        each_linked(ctx, from, |index, source| {
            let copied = copy_upper(ctx, source);
            failed |= copied == M::Format::poison();
            targets[index].store(copied, Ordering::Relaxed);
        });
        return if failed { Err(NoFrame) } else { Ok(()) };
    }
    let sources = ctx.entries(from);
    // A page is pinned on a private path only; the fork that shares its table waits for that, and sees it here.
    if ctx.memory.has_pins() {
        copy_leaves::<M, true>(ctx, sources, targets)
    } else {
        copy_leaves::<M, false>(ctx, sources, targets)
    }
}

/// Kept out of the walk, so that the loop has the registers to itself.
#[inline(never)]
fn copy_leaves<M: Machine, const PINS: bool>(
    ctx: Ctx<'_, M>,
    sources: &[AtomicEntry],
    targets: &[AtomicEntry],
) -> Result<(), NoFrame> {
    for (source, target) in sources.iter().zip(targets) {
        let entry = load(source);
        if M::Format::all_empty(entry) {
            if M::Format::is_marked_empty(entry) {
                target.store(M::Format::with_mark(0, true), Ordering::Relaxed);
            }
            continue;
        }
        let copied = copy_leaf::<M, PINS>(ctx, source, entry);
        if PINS && copied == M::Format::poison() {
            return Err(NoFrame);
        }
        target.store(copied, Ordering::Relaxed);
    }
    Ok(())
}

/// No frame for the copy of a pinned page.
struct NoFrame;

/// A pinned page stays its owner's alone: the child of a fork, for which this copy is made, gets one of its own (GU-05).
/// POISON if there is no frame. Nobody else meets one, for a page is pinned on a private path only, and a fork has the child copy the tables of
/// pinned pages before anybody runs.
#[cold]
fn copy_pinned<M: Machine>(ctx: Ctx<'_, M>, leaf: Leaf) -> Raw {
    let (Leaf::Page(source, bits) | Leaf::None(source, bits)) = leaf else {
        return 0;
    };
    let Some(frame) = ctx.alloc(Kind::Anon) else {
        return M::Format::poison();
    };
    ctx.machine().copy(source, frame.id());
    let frame = ctx.publish(frame, 1, 1);
    let bits = PageBits { write: false, exclusive: true, pending: false, dirty: true, ..bits };
    let copy = M::Format::with_soft(M::Format::page(frame, bits, 0));
    if matches!(leaf, Leaf::None(..)) { M::Format::page_to_none(copy, 0) } else { copy }
}

/// Visits the entries of an upper table (not the root) that may name tables. For tables to which nothing is linked any
/// more: whoever linked something had noted the part before.
fn each_linked<M: Machine>(ctx: Ctx<'_, M>, table: FrameId, mut visit: impl FnMut(usize, &AtomicEntry)) {
    let (entries, shift) = (ctx.entries(table), part_shift::<M::Format>());
    let mut parts = ctx.record(table).parts();
    while parts != 0 {
        let part = parts.trailing_zeros() as usize;
        parts &= parts - 1;
        for (index, slot) in (part << shift..).zip(&entries[part << shift..(part + 1) << shift]) {
            visit(index, slot);
        }
    }
}

/// The copy of a leaf entry, POISON if there is no frame for it; the source loses W and EXCLUSIVE first, so neither side can write without copying.
#[inline]
fn copy_leaf<M: Machine, const PINS: bool>(ctx: Ctx<'_, M>, source: &AtomicEntry, mut entry: Raw) -> Raw {
    loop {
        let leaf = M::Format::leaf(entry);
        let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = leaf else {
            // What says something without mapping a page says it to both.
            return if let Leaf::Offset(_) | Leaf::Lost = leaf { entry } else { 0 };
        };
        let common = M::Format::without_exclusive(entry);
        if !bits.special {
            let record = ctx.record(frame);
            if PINS && common != entry && record.is_pinned() {
                return copy_pinned(ctx, leaf);
            }
            // The source entry holds a reference, and under the table's lock nobody removes it.
            record.add_counts(1, 1);
        }
        if common == entry || mutant::is(mutant::Mutant::CopyKeepsExclusive) {
            return common;
        }
        // The MMU may set accessed bits in between. Acquire on failure, as `load`.
        match source.compare_exchange(entry, common, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return common,
            Err(now) => {
                if !bits.special {
                    ctx.put(frame, 1, 1);
                }
                entry = now;
            }
        }
    }
}

/// The copy of an upper entry: both sides now share the table it names. POISON if there is no memory for it.
fn copy_upper<M: Machine>(ctx: Ctx<'_, M>, source: &AtomicEntry) -> Raw {
    let mut entry = load(source);
    loop {
        let frame = match M::Format::upper(entry) {
            Upper::Table { frame, .. } => frame,
            Upper::Huge => return copy_huge(ctx, source, entry),
            _ => return 0,
        };
        let shared = M::Format::table(frame, true, false);
        ctx.record(frame).add_share();
        if shared == entry {
            return shared;
        }
        // Acquire on failure, as `load`.
        match source.compare_exchange(entry, shared, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return shared,
            Err(now) => {
                ctx.record(frame).drop_share();
                entry = now;
            }
        }
    }
}

/// The copy of a HUGE entry, as [`copy_leaf`] would copy the entries that it stands for. No page of it is pinned, for a pin
/// splits it, unless it is of the pool: then the whole is copied, as [`copy_pinned`] does.
#[cold]
fn copy_huge<M: Machine>(ctx: Ctx<'_, M>, source: &AtomicEntry, mut entry: Raw) -> Raw {
    if let Some(first) = huge::first_frame::<M::Format>(entry)
        && M::Format::without_exclusive(entry) != entry
        && ctx.record(first).is_pinned()
    {
        return huge::copy_pinned(ctx, entry);
    }
    // The source entry holds the references, and under the table's lock nobody removes it.
    huge::each_counted(ctx, entry, |frame| ctx.record(frame).add_counts(1, 1));
    ctx.memory.add_huge(1);
    // Ends: under the lock of a shared table only the MMU changes the entry, and it sets at most two bits.
    loop {
        let common = M::Format::without_exclusive(entry);
        if mutant::is(mutant::Mutant::CopyKeepsExclusive) {
            return common;
        }
        // Acquire on failure, as `load`.
        match source.compare_exchange(entry, common, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return common,
            Err(now) => entry = now,
        }
    }
}

/// Drops the references of a copy that was never published.
fn undo_copy<M: Machine>(ctx: Ctx<'_, M>, copy: Frame, level: usize) {
    drop_entries(ctx, copy.id(), level);
    discard_table(ctx, copy);
}

/// Drops one share of a table; the last one frees the table and what it maps. After the flush, outside sections.
///
/// Recursion ends at the leaf level: at most `LEVELS` deep.
pub(crate) fn settle_drop<M: Machine>(ctx: Ctx<'_, M>, table: FrameId, level: usize) {
    if ctx.record(table).drop_share() {
        // A copier may be at work that found its slot before the slot was emptied: it takes references to what the
        // table holds until it fails. Whoever locks the table from now on finds another value in the slot.
        drop(lock_for_unshare(ctx, table));
        drop_entries(ctx, table, level);
        ctx.retire(Retired::Table(table));
    }
}

/// Drops what a table's entries hold. Nobody else names the table.
fn drop_entries<M: Machine>(ctx: Ctx<'_, M>, table: FrameId, level: usize) {
    if level > 0 {
        return each_linked(ctx, table, |_, slot| {
            let entry = load(slot);
            match M::Format::upper(entry) {
                Upper::Table { frame, .. } => settle_drop(ctx, frame, level - 1),
                Upper::Huge => drop_huge(ctx, entry),
                _ => {}
            }
        });
    }
    for slot in ctx.entries(table) {
        let entry = load(slot);
        if entry != 0
            && let Leaf::Page(frame, bits) | Leaf::None(frame, bits) = M::Format::leaf(entry)
            && !bits.special
        {
            if bits.dirty && ctx.record(frame).is_of_object() {
                note_stored(ctx, frame);
            }
            ctx.put(frame, 1, 1);
        }
    }
}

/// Drops what a HUGE entry holds.
fn drop_huge<M: Machine>(ctx: Ctx<'_, M>, entry: Raw) {
    if let Some(first) = huge::first_frame::<M::Format>(entry) {
        ctx.put_block(first);
        ctx.memory.add_huge(-1);
    }
}

/// Frees the whole user half of a space that no CPU runs and no section uses (ZP-09), and the root.
pub(crate) fn teardown<M: Machine>(ctx: Ctx<'_, M>, root: FrameId) {
    for slot in &ctx.entries(root)[..M::Format::USER_SLOTS] {
        if let Upper::Table { frame, .. } = M::Format::upper(load(slot)) {
            settle_drop(ctx, frame, M::Format::LEVELS - 2);
        }
    }
    let last = ctx.record(root).drop_share();
    debug_assert!(last, "a root table has one owner");
    ctx.retire(Retired::Table(root));
}

/// First half of a fork: marks each root slot of `slots` shared and frozen, so that no fault changes one until
/// [`unfreeze`]. True if a private table became shared (then the sections of the space must be waited for and its
/// CPUs flushed before [`link_child`]).
pub(crate) fn freeze<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, slots: core::ops::Range<usize>) -> bool {
    if mutant::is(mutant::Mutant::NoFreeze) {
        return true;
    }
    let mut became_shared = false;
    for slot in &ctx.entries(root)[slots] {
        let mut entry = load(slot);
        loop {
            let (frozen, was_private) = match M::Format::upper(entry) {
                Upper::Table { frame, shared, .. } => (M::Format::table(frame, true, true), !shared),
                _ => (M::Format::frozen_empty(), false),
            };
            // AcqRel: the freeze orders every change of the slot by a fault before or after it (P6).
            match slot.compare_exchange(entry, frozen, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    became_shared |= was_private;
                    break;
                }
                Err(now) => entry = now,
            }
        }
    }
    became_shared
}

/// Second half: gives the child its share of each table. After the grace period and the flush.
pub(crate) fn link_child<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, child: FrameId, slots: core::ops::Range<usize>) {
    let (from, to) = (&ctx.entries(root)[slots.clone()], &ctx.entries(child)[slots]);
    for (slot, target) in from.iter().zip(to) {
        let mut entry = load(slot);
        if mutant::is(mutant::Mutant::NoFreeze) {
            entry = share_unfrozen::<M>(slot, entry);
        }
        let Upper::Table { frame, .. } = M::Format::upper(entry) else {
            continue;
        };
        // A table that was shared before has had no grace period. A fault that took it for the last share, under its
        // lock, has failed on the frozen slot by now; one that locks it later sees the child's share. Without the lock
        // the fault's exchange could come after the thaw, which restores the very value that it expects.
        let lock = (!mutant::is(mutant::Mutant::ForkWithoutLock)).then(|| ctx.lock_table(frame));
        ctx.record(frame).add_share();
        drop(lock);
        ctx.count(Event::TablesShared);
        // An RMW, not a store: the page side may reach the child already (R1).
        target.swap(M::Format::table(frame, true, false), Ordering::AcqRel);
    }
}

/// What a fork without a freeze would do (a seeded bug): share whatever is there now.
fn share_unfrozen<M: Machine>(slot: &AtomicEntry, entry: Raw) -> Raw {
    let Upper::Table { frame, .. } = M::Format::upper(entry) else {
        return entry;
    };
    let shared = M::Format::table(frame, true, false);
    slot.swap(shared, Ordering::AcqRel);
    shared
}

/// Ends a fork: faults may change the slots again.
pub(crate) fn unfreeze<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, slots: core::ops::Range<usize>, stamp: u64) {
    for slot in &ctx.entries(root)[slots] {
        let entry = load(slot);
        let thawed = match M::Format::upper(entry) {
            Upper::Table { frame, frozen: true, .. } => M::Format::table(frame, true, false),
            Upper::Frozen => M::Format::empty(stamp, 0),
            _ => continue,
        };
        // While a slot is frozen only the forker changes it.
        let result = slot.compare_exchange(entry, thawed, Ordering::AcqRel, Ordering::Relaxed);
        debug_assert!(result.is_ok(), "a frozen slot changed");
    }
}

/// What a shared subtree counts for in each space that names it: its pages by kind and its tables.
///
/// Recursion ends at the leaf level.
pub(super) fn weigh<M: Machine>(ctx: Ctx<'_, M>, table: FrameId, level: usize, delta: &mut Delta, sign: i64) {
    delta.tables += sign;
    if level > 0 {
        return each_linked(ctx, table, |_, slot| match M::Format::upper(load(slot)) {
            Upper::Table { frame, .. } => weigh(ctx, frame, level - 1, delta, sign),
            Upper::Huge => {
                delta.page(huge::kind(ctx, load(slot)), sign * huge::pages::<M::Format>().cast_signed());
            }
            _ => {}
        });
    }
    for slot in ctx.entries(table) {
        if let Leaf::Page(frame, bits) | Leaf::None(frame, bits) = M::Format::leaf(load(slot))
            && !bits.special
        {
            delta.page(ctx.record(frame).kind(), sign);
        }
    }
}
