//! Large pages of anonymous memory: who gets them, how a fault maps one, where they must not reach over.
//!
//! Called by faults that find no table, and by range operations before they change anything. A HUGE entry lies in one
//! area always: whoever cuts an area makes the tables at the cuts first ([`Core::split_edges`]), and where there is a
//! table no large page is put.

use super::Core;
use super::fault::{Need, Work};
use super::settle::NoTables;
use crate::addr::{Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Sharing};
use crate::frame::{Ctx, Kind};
use crate::machine::Machine;
use crate::machine::format::PageBits;
use crate::sync::{Event, Ordering, Section, mutant};
use crate::table::{Delta, Found, Removed, Stop, find, huge, populate_to, span};

/// Which anonymous memory gets large pages when it is first stored to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum HugePages {
    /// None.
    Never = 0,
    /// Where it was asked for ([`AreaFlags::HUGE`], MADV_HUGEPAGE).
    Advised = 1,
    /// All, but where it was asked not to ([`AreaFlags::NO_HUGE`]).
    Always = 2,
}

/// The large page that `address` would be in.
fn span_of<M: Machine>(address: u64) -> (u64, u64) {
    let covered = span::<M::Format>(1);
    let start = address & !(covered - 1);
    (start, start + covered)
}

/// May this memory have large pages under `policy`?
fn is_eligible<M: Machine>(attributes: &Attributes<M>, policy: u8) -> bool {
    const SMALL: AreaFlags = AreaFlags::GROWS_DOWN;
    let advised = attributes.flags.contains(AreaFlags::HUGE);
    let allowed = advised || policy >= HugePages::Always as u8 && !attributes.flags.contains(AreaFlags::NO_HUGE);
    policy != HugePages::Never as u8 && allowed && !attributes.flags.contains(SMALL) && may_collapse(attributes)
}

/// May this memory have large pages at all?
pub(super) fn may_collapse<M: Machine>(attributes: &Attributes<M>) -> bool {
    // Where somebody watches, each page counts.
    let is_anonymous =
        attributes.object.is_none() && !attributes.flags.contains(AreaFlags::RAW) && attributes.watch.is_none();
    is_anonymous && attributes.sharing == Sharing::Private
}

fn covers<M: Machine>(attributes: &Attributes<M>, (low, high): (u64, u64)) -> bool {
    attributes.range.start().as_u64() <= low && high <= attributes.range.end().as_u64()
}

impl<M: Machine> Core<M> {
    /// Is a store to `address`, where no table is, to get a large page?
    #[inline]
    pub(super) fn wants_huge(&self, ctx: Ctx<'_, M>, address: VirtAddr, area: &Area<M>) -> bool {
        let policy = ctx.memory.huge_policy();
        policy != 0
            && is_eligible(area, policy)
            && covers(area, span_of::<M>(address.as_u64()))
            // Relaxed: a policy; stores under way may still get one.
            && !self.no_huge.load(Ordering::Relaxed)
    }

    /// Maps a large page of zeroes. False if there are no frames in a row. Inside a section.
    #[cold]
    pub(super) fn map_huge(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        area: &Area<M>,
        work: &mut Work,
    ) -> Result<bool, Need<M>> {
        let place = huge::parent(ctx, self.root, address, &mut work.removed, &mut work.delta);
        if work.delta.tables != 0 && area.is_dead() {
            self.note_strays(); // as for the tables of small pages
        }
        let (parent, slot) = place?;
        let empty = huge::empty_value::<M>(slot).ok_or(Need::Retry)?;
        // P1: after the load, as for small pages.
        if area.is_dead() && !mutant::is(mutant::Mutant::NoDeadCheck) {
            return Err(Need::Retry);
        }
        let Some(block) = ctx.alloc_block(Kind::Anon) else {
            ctx.count(Event::HugeFallbacks);
            return Ok(false);
        };
        block.frames().for_each(|frame| ctx.machine().zero(frame));
        let execute = area.rights.contains(Rights::EXECUTE);
        let bits = PageBits { write: true, execute, exclusive: true, dirty: true, ..PageBits::default() };
        if !huge::install(ctx, parent, address, empty, block, bits) {
            return Err(Need::Retry);
        }
        work.delta.page(Kind::Anon, huge::pages::<M::Format>().cast_signed());
        Ok(true)
    }

    /// Makes the path to the large page around `address` private. True if it may be stored to as it is then: the last
    /// sharer has its tables back.
    #[cold]
    pub(super) fn take_huge_back(&self, ctx: Ctx<'_, M>, address: VirtAddr, work: &mut Work) -> Result<bool, Need<M>> {
        let (_, slot) = huge::parent(ctx, self.root, address, &mut work.removed, &mut work.delta)?;
        Ok(huge::is_writable::<M>(slot))
    }

    /// Sees to it that no large page reaches over `low` or `high`, and that none is put there before the areas are
    /// changed. The stripes are locked.
    ///
    /// # Errors
    ///
    /// [`NoTables`]; nothing visible has changed.
    pub(super) fn split_edges(&self, ctx: Ctx<'_, M>, low: u64, high: u64) -> Result<(), NoTables> {
        let ever = ctx.memory.huge_ever();
        if ever == 0 || mutant::is(mutant::Mutant::NoSplitEdges) {
            return Ok(());
        }
        for edge in [low, high] {
            if !edge.is_multiple_of(span::<M::Format>(1)) && self.could_be_huge(ctx, edge, ever) {
                self.make_path(ctx, VirtAddr::new(edge))?;
            }
        }
        Ok(())
    }

    /// Is there a large page around `edge`, or could a fault put one there?
    #[cold]
    fn could_be_huge(&self, ctx: Ctx<'_, M>, edge: u64, ever: u8) -> bool {
        let span = span_of::<M>(edge);
        let section: Section<'_> = ctx.enter(self.section_name());
        let area = self.index.find(VirtAddr::new(edge), &section);
        area.is_some_and(|area| is_eligible(area, ever) && covers(area, span))
            || matches!(find(ctx, self.root, VirtAddr::new(edge)), Found::Huge { .. })
    }

    /// Waits for the range operations under way.
    pub(crate) fn wait_for_operations(&self, ctx: Ctx<'_, M>) {
        drop(self.index.lock_all(ctx.cpu.held(), move || ctx.relax()));
    }

    /// Splits the large page around `address`, if there is one.
    #[cold]
    pub(super) fn split(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> Result<(), NoTables> {
        let guard = self.lock(ctx, address.as_u64(), address.as_u64() + 1);
        if self.index.find(address, &guard).is_none() || self.has_exited() {
            return Ok(());
        }
        self.make_path(ctx, address)
    }

    /// Makes the tables down to the leaf entry of `address` private and complete. The stripe is locked, or nobody runs
    /// this space.
    pub(super) fn make_path(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> Result<(), NoTables> {
        self.make_path_to(ctx, address, 0)
    }

    /// The same down to the entry in a table of level `bottom`: 1 for a large page of the pool, which is not split.
    pub(super) fn make_path_to(&self, ctx: Ctx<'_, M>, address: VirtAddr, bottom: usize) -> Result<(), NoTables> {
        let (mut removed, mut delta) = (Removed::new(), Delta::default());
        // Ends: each round but the last follows the success of a fault on the way.
        loop {
            let section = ctx.enter(self.section_name());
            let done = populate_to(ctx, self.root, address, bottom, &mut removed, &mut delta);
            self.touch(address);
            self.counters.post(ctx, &core::mem::take(&mut delta));
            drop(section);
            self.settle(ctx, &mut removed);
            match done {
                Ok(_) => return Ok(()),
                Err(Stop::NoMemory) => return Err(NoTables),
                Err(Stop::Retry | Stop::Frozen) => ctx.relax(),
            }
        }
    }
}
