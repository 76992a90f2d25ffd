//! Large pages: one entry of level 1 (HUGE) that stands for a leaf table whose entries map frames in a row.
//!
//! Called by the walk, the sweep and sharing, and by `space` for faults and collapsing. Each frame has the counts that
//! its own leaf entry would give it, so a HUGE entry and its table say the same, and [`split`] turns one into the other
//! by one compare-exchange: nothing is counted, nothing flushed. Whoever cannot deal with a large page splits it.
//!
//! Faults change a HUGE value in no other way than by splitting it. So it needs no generation: a split that was prepared
//! for a value that came round puts in what the entry says by then. An EMPTY value becomes HUGE under the rule of leaf
//! entries (P1): it is loaded, then the area is seen alive, then the exchange.
//!
//! A large page of the pool (hugetlb) is counted as a whole, by its first frame, and is never split: it lies in areas
//! whose cuts line up with it, and faults change its entry under the stripe's lock only (`space::hugetlb`).
//!
//! Absent on purpose: large pages of files, and large pages of zeroes; a read maps a small one.

use super::walk::{Stop, load, populate_to};
use super::{Delta, Removed, alloc_table, discard_table, part_of, slot_of};
use crate::addr::{FrameId, VirtAddr};
use crate::frame::{Block, Ctx, Kind};
use crate::machine::format::{Leaf, PageBits, Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Event, Ordering};

/// Pages of a large page.
pub(crate) const fn pages<F: Format>() -> u64 {
    1 << F::INDEX_BITS
}

/// The frames of a HUGE entry: the first one.
pub(super) fn first_frame<F: Format>(entry: Raw) -> Option<FrameId> {
    match F::leaf(entry) {
        Leaf::Page(frame, _) | Leaf::None(frame, _) => Some(frame),
        _ => None,
    }
}

/// Calls `visit` with each frame of a HUGE entry.
pub(super) fn each_frame<F: Format>(entry: Raw, visit: impl FnMut(FrameId)) {
    let first = first_frame::<F>(entry).map_or(0..0, |frame| frame.as_u64()..frame.as_u64() + pages::<F>());
    first.map(FrameId::new).for_each(visit);
}

/// Calls `visit` with each frame of a HUGE entry that the entry is counted in.
pub(super) fn each_counted<M: Machine>(ctx: Ctx<'_, M>, entry: Raw, mut visit: impl FnMut(FrameId)) {
    match first_frame::<M::Format>(entry) {
        Some(first) if ctx.record(first).kind() == Kind::Huge => visit(first),
        _ => each_frame::<M::Format>(entry, visit),
    }
}

/// What kind of frames a HUGE entry maps.
pub(super) fn kind<M: Machine>(ctx: Ctx<'_, M>, entry: Raw) -> Kind {
    first_frame::<M::Format>(entry).map_or(Kind::Anon, |first| ctx.record(first).kind())
}

/// Replaces the HUGE entry of `slot` by the table that it stands for. Does nothing if the slot has changed; the caller
/// loads it again.
#[cold]
pub(super) fn split<M: Machine>(
    ctx: Ctx<'_, M>,
    slot: &AtomicEntry,
    entry: Raw,
    delta: &mut Delta,
) -> Result<(), Stop> {
    debug_assert_ne!(kind(ctx, entry), Kind::Huge, "a large page of the pool is never split");
    let table = alloc_table(ctx, 0).ok_or(Stop::NoMemory)?;
    let mut expected = entry;
    // Ends: the MMU sets at most two bits.
    loop {
        for (index, target) in ctx.entries(table.id()).iter().enumerate() {
            // Nobody knows the table yet; its publication carries the stores.
            target.store(M::Format::part_of_huge(expected, index), Ordering::Relaxed);
        }
        let new = M::Format::table(table.id(), false, false);
        // Release publishes the table's entries and record (PL-03); Acquire on failure, as `load`.
        match slot.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) if M::Format::same_but_touched(now, expected) => expected = now,
            Err(_) => {
                discard_table(ctx, table);
                return Ok(());
            }
        }
    }
    delta.tables += 1;
    ctx.memory.add_huge(-1);
    ctx.count(Event::HugeSplits);
    Ok(())
}

/// Maps the frames of `block` at the EMPTY slot of level 1 in `parent`, which is on a private path; `empty` is what the
/// slot held before the area was seen alive. False if it holds something else by now; then the frames are free again.
pub(crate) fn install<M: Machine>(
    ctx: Ctx<'_, M>,
    parent: FrameId,
    address: VirtAddr,
    empty: Raw,
    block: Block,
    bits: PageBits,
) -> bool {
    let first = ctx.publish_block(block);
    let installed = install_known(ctx, parent, address, empty, first, bits);
    if !installed {
        ctx.put_block(first);
    }
    installed
}

/// The same for frames that others may know. If the slot holds something else by now, the caller keeps the references
/// and mappings that the entry was to have.
pub(crate) fn install_known<M: Machine>(
    ctx: Ctx<'_, M>,
    parent: FrameId,
    address: VirtAddr,
    empty: Raw,
    first: FrameId,
    bits: PageBits,
) -> bool {
    let index = slot_of::<M::Format>(address.as_u64(), 1);
    ctx.record(parent).note_parts(part_of::<M::Format>(index));
    let entry = M::Format::huge(first, bits);
    // Release publishes the frames' contents and records; on failure nothing is built on the value.
    let installed =
        ctx.entries(parent)[index].compare_exchange(empty, entry, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if installed {
        ctx.memory.add_huge(1);
    }
    installed
}

/// What the entry of level 1 says, if it maps a large page: its value, and the leaf entry of the first frame.
pub(crate) fn mapped<M: Machine>(slot: &AtomicEntry) -> Option<(Raw, Leaf)> {
    let entry = load(slot);
    (M::Format::upper(entry) == Upper::Huge).then(|| (entry, M::Format::leaf(entry)))
}

/// Changes the entry of a large page of the pool, which nobody but the MMU does meanwhile: the stripe is locked, and the
/// path private.
pub(crate) fn change<M: Machine>(slot: &AtomicEntry, entry: Raw, new: impl Fn(Raw) -> Raw) {
    let mut expected = entry;
    // Ends: the MMU, and accesses from outside, set at most two bits. Release publishes the frames' contents.
    while let Err(now) = slot.compare_exchange(expected, new(expected), Ordering::AcqRel, Ordering::Acquire) {
        debug_assert!(M::Format::same_but_touched(now, expected), "the entry of a locked stripe changed");
        expected = now;
    }
}

/// A copy of a pinned page of the pool for the child of a fork; POISON if the pool has none to spare.
pub(super) fn copy_pinned<M: Machine>(ctx: Ctx<'_, M>, entry: Raw) -> Raw {
    let (Leaf::Page(source, bits) | Leaf::None(source, bits)) = M::Format::leaf(entry) else {
        return 0;
    };
    let Ok(large) = ctx.take_large(None) else {
        return M::Format::poison();
    };
    for (from, to) in (source.as_u64()..).zip(large.frames::<M>()) {
        ctx.machine().copy(FrameId::new(from), to);
    }
    let first = ctx.publish_large(large, 0, 1);
    ctx.memory.add_huge(1);
    let bits = PageBits { write: false, exclusive: true, pending: false, dirty: true, ..bits };
    let copy = M::Format::huge(first, bits);
    if matches!(M::Format::leaf(entry), Leaf::None(..)) { M::Format::page_to_none(copy, 0) } else { copy }
}

/// A leaf table that was taken out of its slot for a large page to be put there.
#[must_use = "what was taken out must be put back or released"]
pub(crate) struct Taken {
    parent: FrameId,
    /// The entry that named it.
    entry: Raw,
    /// What the slot holds meanwhile.
    empty: Raw,
    table: FrameId,
}

/// Takes the leaf table of `address`, which is on a private path, out of its slot. The area is closed, and its sections
/// were waited for, so nobody changes it; the MMU does until the flush.
pub(crate) fn take<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: VirtAddr) -> Result<Taken, Stop> {
    let mut removed = Removed::new();
    let (parent, slot) = populate_to(ctx, root, address, 1, &mut removed, &mut Delta::default())?;
    let entry = load(slot);
    let Upper::Table { frame: table, shared: false, .. } = M::Format::upper(entry) else {
        return Err(Stop::Retry);
    };
    let empty = M::Format::empty(ctx.cpu.stamp(), 0);
    // AcqRel: as all changes of entries.
    slot.compare_exchange(entry, empty, Ordering::AcqRel, Ordering::Acquire).map_err(|_| Stop::Retry)?;
    Ok(Taken { parent, entry, empty, table })
}

/// What the entries of a taken table map, by index. After the flush.
pub(crate) fn taken_leaves<'a, M: Machine>(ctx: Ctx<'a, M>, taken: &Taken) -> impl Iterator<Item = Leaf> + 'a {
    ctx.entries(taken.table).iter().map(|slot| M::Format::leaf(load(slot)))
}

/// Puts a taken table back.
pub(crate) fn put_back<M: Machine>(ctx: Ctx<'_, M>, address: VirtAddr, taken: &Taken) {
    let slot = &ctx.entries(taken.parent)[slot_of::<M::Format>(address.as_u64(), 1)];
    let done = slot.compare_exchange(taken.empty, taken.entry, Ordering::AcqRel, Ordering::Relaxed);
    debug_assert!(done.is_ok(), "a slot of a closed area changed");
}

/// Maps `block` where the table was that it has the contents of, and releases the table and what it mapped.
pub(crate) fn replace<M: Machine>(
    ctx: Ctx<'_, M>,
    address: VirtAddr,
    taken: Taken,
    block: Block,
    bits: PageBits,
    delta: &mut Delta,
) {
    let Taken { parent, empty, table, .. } = taken;
    let installed = install(ctx, parent, address, empty, block, bits);
    debug_assert!(installed, "a slot of a closed area changed");
    delta.page(Kind::Anon, pages::<M::Format>().cast_signed());
    delta.tables -= 1;
    for slot in ctx.entries(table) {
        if let Leaf::Page(frame, bits) = M::Format::leaf(load(slot))
            && !bits.special
        {
            delta.page(Kind::Anon, -1);
            ctx.put(frame, 1, 1);
        }
    }
    let last = ctx.record(table).drop_share();
    debug_assert!(last, "a private table has one parent entry");
    ctx.count(Event::HugeCollapses);
}

impl Taken {
    /// The table, which nobody names any more, to be retired outside sections.
    pub(crate) fn table(&self) -> FrameId {
        self.table
    }
}

/// The entry of level 1 for `address` and its table, on a private path.
pub(crate) fn parent<'a, M: Machine>(
    ctx: Ctx<'a, M>,
    root: FrameId,
    address: VirtAddr,
    removed: &mut Removed,
    delta: &mut Delta,
) -> Result<(FrameId, &'a AtomicEntry), Stop> {
    populate_to(ctx, root, address, 1, removed, delta)
}

/// Does the entry of level 1, on a private path, map a large page that may be stored to?
pub(crate) fn is_writable<M: Machine>(slot: &AtomicEntry) -> bool {
    let entry = load(slot);
    M::Format::upper(entry) == Upper::Huge && matches!(M::Format::leaf(entry), Leaf::Page(_, bits) if bits.write)
}

/// What a slot of level 1 holds, if it is EMPTY, so that a large page may be put there.
pub(crate) fn empty_value<M: Machine>(slot: &AtomicEntry) -> Option<Raw> {
    let entry = load(slot);
    (M::Format::upper(entry) == Upper::Empty).then_some(entry)
}
