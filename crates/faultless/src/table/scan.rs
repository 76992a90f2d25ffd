//! Looking at what is mapped, table by table, without changing anything (mincore, smaps, pagemap).
//!
//! Called by `space::pages` inside a section. One call visits one leaf table, so that the section ends soon.

use super::walk::load;
use super::{shift, slot_of, span};
use crate::addr::{FrameId, PAGE_SIZE};
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw, Upper};
use crate::machine::{AtomicEntry, Format, Machine};

/// A leaf entry that says something: it maps a page, or is OFFSET or LOST.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The page's address.
    pub(crate) address: u64,
    /// The entry.
    pub(crate) entry: Raw,
    /// The product of the shares of all tables on the way: 1 if the path is this space's alone.
    pub(crate) shares: u64,
    /// Is it part of a large page? Then the entry is what its table would hold.
    pub(crate) large: bool,
}

/// Where a search stands: a table of a level, the address that its first entry covers, the shares so far.
#[derive(Clone, Copy)]
struct At {
    table: FrameId,
    level: usize,
    base: u64,
    shares: u64,
}

/// Calls `visit` with the entries that say something of the first leaf table that has any address of `from..to`. Returns the end of
/// that table's part of the range, or `None` if there is no such table.
pub(crate) fn scan<M: Machine>(
    ctx: Ctx<'_, M>,
    root: FrameId,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(Seen),
) -> Option<u64> {
    scan_to(ctx, root, from, to, visit).map(|(end, _)| end)
}

/// The same; tells besides which entry was the last that was looked at. If a walk to the last page comes to another one
/// now, the table is one that the space has left: it may be another's alone by now, and say what that one has done.
pub(crate) fn scan_to<'a, M: Machine>(
    ctx: Ctx<'a, M>,
    root: FrameId,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(Seen),
) -> Option<(u64, &'a AtomicEntry)> {
    let at = At { table: root, level: M::Format::LEVELS - 1, base: 0, shares: 1 };
    search(ctx, at, from, to, visit)
}

/// Searches below `at`; `None` if it has no leaf table for the range. Recursion is `LEVELS` deep.
fn search<'a, M: Machine>(
    ctx: Ctx<'a, M>,
    at: At,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(Seen),
) -> Option<(u64, &'a AtomicEntry)> {
    let covered = span::<M::Format>(at.level);
    let first = slot_of::<M::Format>(from.max(at.base), at.level);
    let last = ((to - 1 - at.base) >> shift::<M::Format>(at.level)) as usize;
    let slots = ctx.entries(at.table).iter().enumerate().take(last + 1).skip(first);
    for (index, slot) in slots {
        let base = at.base + covered * index as u64;
        let entry = load(slot);
        let frame = match M::Format::upper(entry) {
            Upper::Table { frame, .. } => frame,
            Upper::Huge => {
                let end = to.min(base + covered);
                large::<M>(at, entry, base, (from.max(base), end), visit);
                return Some((end, slot));
            }
            _ => continue,
        };
        let below = At {
            table: frame,
            level: at.level - 1,
            base,
            shares: at.shares.saturating_mul(u64::from(ctx.record(frame).shares().max(1))),
        };
        let end = to.min(base + covered);
        if below.level > 0 {
            if let Some(found) = search(ctx, below, from.max(base), end, visit) {
                return Some(found);
            }
            continue;
        }
        leaves(ctx, below, from.max(base), end, visit);
        return Some((end, &ctx.entries(frame)[slot_of::<M::Format>(end - 1, 0)]));
    }
    None
}

fn leaves<M: Machine>(ctx: Ctx<'_, M>, at: At, from: u64, to: u64, visit: &mut impl FnMut(Seen)) {
    let pages = ((from - at.base) / PAGE_SIZE) as usize..((to - at.base) / PAGE_SIZE) as usize;
    for (index, slot) in ctx.entries(at.table).iter().enumerate().take(pages.end).skip(pages.start) {
        let entry = load(slot);
        if let Leaf::Page(..) | Leaf::None(..) | Leaf::Offset(_) | Leaf::Lost = M::Format::leaf(entry) {
            visit(Seen { address: at.base + index as u64 * PAGE_SIZE, entry, shares: at.shares, large: false });
        }
    }
}

/// The same for the pages `from..to` of a large page at `base`.
fn large<M: Machine>(at: At, entry: Raw, base: u64, (from, to): (u64, u64), visit: &mut impl FnMut(Seen)) {
    for index in ((from - base) / PAGE_SIZE)..((to - base) / PAGE_SIZE) {
        let part = M::Format::part_of_huge(entry, index as usize);
        visit(Seen { address: base + index * PAGE_SIZE, entry: part, shares: at.shares, large: true });
    }
}
