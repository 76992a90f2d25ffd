//! Page tables: the entry state machine, the lock-free walk, sweeps, sharing between spaces, teardown.
//!
//! Called by `space` inside sections. Protocols P1 (first touch), P2 (generations), P6 (fork) and P7 (unshare) live
//! here. Entries belong to the MMU too: after publication every change is a compare-exchange (R1).
//!
//! | holding | table stays allocated | entries may be |
//! |---|---|---|
//! | nothing | no | not even read |
//! | a section | yes | read; EMPTY filled and private PAGEs advanced by faults, by compare-exchange |
//! | a section and the stripe lock and `L` | yes | swept |
//! | `L` of a shared table | yes | made read-only and non-exclusive (copier) |
//!
//! Absent on purpose: TLBs. What was removed comes back as [`Removed`], to be flushed and settled by `space`.

mod audit;
mod clean;
pub(crate) mod huge;
mod nonlinear;
mod relocate;
mod rewrite;
mod scan;
mod share;
mod sweep;
mod walk;

pub(crate) use audit::recount;
pub(crate) use clean::{clean, note_stored, stores_of};
pub(crate) use relocate::{Moved, install, make_room};
pub(crate) use scan::{Seen, scan, scan_to};
pub(crate) use share::{freeze, link_child, settle_drop, teardown, unfreeze};
pub(crate) use sweep::{Progress, Rewrite, Sweep};
pub(crate) use walk::{Found, Look, Stop, find, is_private, load, look, populate, populate_to};

use crate::addr::{FrameId, PAGE_SHIFT, PAGE_SIZE};
use crate::frame::{Ctx, Frame, Kind};
use crate::machine::{Format, Machine};
use crate::sync::Event;
use arrayvec::ArrayVec;

/// Frames that one [`Removed`] holds. Small in model builds so that batches end.
const FRAMES: usize = if cfg!(any(loom, shuttle)) { 8 } else { 256 };
/// Large pages that one [`Removed`] holds.
const BLOCKS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 16 };
/// Tables that one [`Removed`] holds.
const TABLES: usize = if cfg!(any(loom, shuttle)) { 8 } else { 64 };

/// What an operation took out of the tables; nothing of it may be re-used before the flush.
#[must_use = "removed frames and tables must be flushed and settled"]
pub(crate) struct Removed {
    /// Frames whose mapping (and the reference it held) is gone.
    pub(crate) frames: ArrayVec<FrameId, FRAMES>,
    /// The first frames of large pages whose mapping is gone, with the references that it held.
    pub(crate) blocks: ArrayVec<FrameId, BLOCKS>,
    /// Tables that left.
    pub(crate) tables: ArrayVec<Unlinked, TABLES>,
    low: u64,
    high: u64,
}

/// A table that left its parent entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unlinked {
    /// It was private and is empty: free it after the flush and a grace period.
    Private(FrameId),
    /// It was shared: drop this space's share after the flush. The level is that of the table.
    Shared(FrameId, usize),
}

impl Removed {
    /// Nothing yet. Inlined so that the buffers are never moved.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { frames: ArrayVec::new(), blocks: ArrayVec::new(), tables: ArrayVec::new(), low: u64::MAX, high: 0 }
    }

    /// Has any translation been narrowed or removed?
    pub(crate) fn needs_flush(&self) -> bool {
        self.low < self.high
    }

    /// The addresses touched, page aligned; empty (`low >= high`) if none.
    pub(crate) fn span(&self) -> (u64, u64) {
        (self.low, self.high)
    }

    /// Notes that translations of `len` bytes from `address` on must be flushed.
    pub(crate) fn note(&mut self, address: u64, len: u64) {
        self.low = self.low.min(address);
        self.high = self.high.max(address.saturating_add(len));
    }

    /// Forgets the span: the flush is done.
    pub(crate) fn flushed(&mut self) {
        (self.low, self.high) = (u64::MAX, 0);
    }
}

/// Changes of a space's counters, posted once per operation (AC-03). Pages by kind, and tables.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Delta {
    /// Anonymous pages.
    pub(crate) anon: i64,
    /// File pages.
    pub(crate) file: i64,
    /// Pages of memory objects.
    pub(crate) memory: i64,
    /// Page tables, the root not counted.
    pub(crate) tables: i64,
    /// Pages of 4096 bytes in large pages of the pool: not resident memory.
    pub(crate) huge: i64,
}

impl Delta {
    /// Counts `by` pages of the kind of frame that is mapped.
    #[inline]
    pub(crate) fn page(&mut self, kind: Kind, by: i64) {
        match kind {
            Kind::Anon => self.anon += by,
            Kind::File => self.file += by,
            Kind::Memory => self.memory += by,
            Kind::Huge => self.huge += by,
            _ => {}
        }
    }
}

/// The slot of `address` in a table of `level` (0 is the leaf level).
#[inline]
pub(crate) fn slot_of<F: Format>(address: u64, level: usize) -> usize {
    (address >> shift::<F>(level)) as usize & ((1 << F::INDEX_BITS) - 1)
}

/// Binary logarithm of the entries that one bit of [`parts`](crate::frame::Record::parts) stands for.
pub(crate) const fn part_shift<F: Format>() -> u32 {
    F::INDEX_BITS.saturating_sub(6)
}

/// The bit of the entry `index` of an upper table in its parts.
#[inline]
pub(crate) const fn part_of<F: Format>(index: usize) -> u64 {
    1 << (index >> part_shift::<F>())
}

/// Binary logarithm of the bytes that one entry of a table of `level` covers.
#[inline]
pub(crate) const fn shift<F: Format>(level: usize) -> u32 {
    PAGE_SHIFT + F::INDEX_BITS * level as u32
}

/// Bytes that one entry of a table of `level` covers.
#[inline]
pub(crate) const fn span<F: Format>(level: usize) -> u64 {
    PAGE_SIZE << (F::INDEX_BITS * level as u32)
}

/// One past the last address of user space.
pub(crate) const fn user_end<F: Format>() -> u64 {
    (F::USER_SLOTS as u64) << shift::<F>(F::LEVELS - 1)
}

/// Allocates an empty table with one parent entry to be. It is fully initialised before anybody can see it (PL-03).
pub(crate) fn alloc_table<M: Machine>(ctx: Ctx<'_, M>, level: usize) -> Option<Frame> {
    let frame = ctx.alloc_zeroed(Kind::Table)?;
    let record = ctx.record(frame.id());
    record.init_share();
    record.set_words(level as u64, 0);
    ctx.count(Event::TablesAllocated);
    Some(frame)
}

/// Frees a table that was never published.
pub(crate) fn discard_table<M: Machine>(ctx: Ctx<'_, M>, frame: Frame) {
    ctx.record(frame.id()).drop_share();
    ctx.count(Event::TablesFreed);
    ctx.free(frame);
}

/// Allocates a root table and has the machine fill its own half.
pub(crate) fn alloc_root<M: Machine>(ctx: Ctx<'_, M>) -> Option<FrameId> {
    let frame = alloc_table(ctx, <M::Format as Format>::LEVELS - 1)?;
    ctx.machine().init_root(frame.id());
    Some(frame.id())
}
