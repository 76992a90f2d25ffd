//! Collapsing: the small pages of an aligned range become one large page (MADV_COLLAPSE).
//!
//! Called by `engine` with nothing held. As for a move, the area is closed and its sections are waited for; then the leaf
//! table is taken out and the range flushed, and from then on neither a fault nor the MMU can change the pages, which are
//! copied. Absent on purpose: doing it unasked, which is the embedder's (`kernel/src/khugepaged.rs`).

use super::Core;
use super::advise::AdviseError;
use super::huge::may_collapse;
use crate::addr::{PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, StripeGuard};
use crate::frame::{Block, Ctx, Kind, Retired};
use crate::machine::format::{Leaf, PageBits};
use crate::machine::{Machine, Scope};
use crate::sync::{Ordering, mutant};
use crate::table::huge::{self, Taken};
use crate::table::{Delta, Found, find, span};
use crate::tlb::shootdown;

/// Why a range was not made of large pages throughout. What could be was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollapseError {
    /// Some of it is not mapped (ENOMEM).
    Unmapped,
    /// Some of it is not private anonymous memory with any page in it, or it, or the space, must stay small (EINVAL).
    Invalid,
    /// No frames in a row, or none for a table (ENOMEM).
    NoMemory,
    /// A page is pinned (EAGAIN).
    Busy,
}

impl<M: Machine> Core<M> {
    /// Makes the whole large pages' worths of `range` large pages, whatever the policy says.
    pub(crate) fn collapse(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), CollapseError> {
        if self.no_huge.load(Ordering::Relaxed) {
            return Err(CollapseError::Invalid);
        }
        ctx.memory.reckon_with_huge();
        let mut last = Ok(());
        let covered = span::<M::Format>(1);
        let walked = self.each_part(ctx, range, |area, part, guard| {
            let low = part.start().as_u64().next_multiple_of(covered);
            let high = part.end().as_u64() & !(covered - 1);
            if low < high && (!may_collapse(area) || area.flags.contains(AreaFlags::NO_HUGE) || area.rights.is_none()) {
                return Err(AdviseError::Refused(part.start()));
            }
            for start in (low..high).step_by(covered as usize) {
                if let Err(error) = self.collapse_one(ctx, area, VirtAddr::new(start), guard) {
                    last = Err(error);
                }
            }
            Ok(())
        });
        match walked {
            Ok(()) => last,
            Err(AdviseError::Unmapped) => Err(CollapseError::Unmapped),
            Err(AdviseError::Refused(_)) => Err(CollapseError::Invalid),
            Err(AdviseError::NoMemory(_)) => Err(CollapseError::NoMemory),
        }
    }

    fn collapse_one(
        &self,
        ctx: Ctx<'_, M>,
        area: &Area<M>,
        start: VirtAddr,
        guard: &StripeGuard<'_>,
    ) -> Result<(), CollapseError> {
        let found = {
            let _section = ctx.enter(self.section_name());
            find(ctx, self.root, start)
        };
        match found {
            Found::Huge { shared: false, .. } => return Ok(()),
            Found::Leaf { .. } | Found::Huge { .. } => {}
            _ => return Err(CollapseError::Invalid),
        }
        // Private down to the leaf table, so that what follows copies nothing and needs no memory but the block.
        self.make_path(ctx, start).map_err(|_| CollapseError::NoMemory)?;
        let block = ctx.alloc_block(Kind::Anon).ok_or(CollapseError::NoMemory)?;
        let Ok(range) = PageRange::with_len(start, span::<M::Format>(1)) else {
            ctx.free_block(block);
            return Err(CollapseError::Invalid);
        };
        if !mutant::is(mutant::Mutant::NoCollapseClose) {
            self.close(ctx, range, guard);
        }
        let result = self.collapse_closed(ctx, area, range, block);
        self.open(range, guard);
        result
    }

    fn collapse_closed(
        &self,
        ctx: Ctx<'_, M>,
        area: &Area<M>,
        range: PageRange,
        block: Block,
    ) -> Result<(), CollapseError> {
        let start = range.start();
        let section = ctx.enter(self.section_name());
        let Ok(taken) = huge::take(ctx, self.root, start) else {
            drop(section);
            ctx.free_block(block);
            return Err(CollapseError::Busy);
        };
        drop(section);
        if !mutant::is(mutant::Mutant::NoCollapseFlush) {
            let _flushed = shootdown(ctx, &self.mask, self.root, Scope::of(range));
        }
        // Accesses from outside and pins ask no area: those that found the table are waited for, later ones find none.
        if !mutant::is(mutant::Mutant::NoCollapseWait) {
            ctx.wait_for_sections(self.section_name());
        }
        if huge::taken_leaves(ctx, &taken).any(|leaf| !is_movable(ctx, leaf)) {
            huge::put_back(ctx, start, &taken);
            ctx.free_block(block);
            return Err(CollapseError::Busy);
        }
        copy(ctx, &taken, &block);
        let rights = area.rights;
        let bits = PageBits {
            write: rights.contains(Rights::WRITE),
            execute: rights.contains(Rights::EXECUTE),
            exclusive: true,
            dirty: true,
            ..PageBits::default()
        };
        let table = taken.table();
        let mut delta = Delta::default();
        huge::replace(ctx, start, taken, block, bits, &mut delta);
        self.counters.post(ctx, &delta);
        ctx.retire(Retired::Table(table));
        Ok(())
    }
}

/// May what the entry maps be copied elsewhere?
fn is_movable<M: Machine>(ctx: Ctx<'_, M>, leaf: Leaf) -> bool {
    match leaf {
        Leaf::Empty => true,
        Leaf::Page(frame, bits) => bits.special && frame == ctx.memory.zero_frame() || is_unpinned(ctx, frame),
        Leaf::None(..) | Leaf::Offset(_) | Leaf::Lost | Leaf::Poison => false,
    }
}

fn is_unpinned<M: Machine>(ctx: Ctx<'_, M>, frame: crate::FrameId) -> bool {
    let record = ctx.record(frame);
    record.kind() == Kind::Anon && !record.is_pinned()
}

/// Fills the block with what the table maps.
fn copy<M: Machine>(ctx: Ctx<'_, M>, taken: &Taken, block: &Block) {
    for (leaf, target) in huge::taken_leaves(ctx, taken).zip(block.frames()) {
        match leaf {
            Leaf::Page(frame, bits) if !bits.special => ctx.machine().copy(frame, target),
            _ => ctx.machine().zero(target),
        }
    }
    debug_assert_eq!(block.frames().count() as u64 * PAGE_SIZE, span::<M::Format>(1), "a block fills its place");
}
