//! Starting to watch anew: which pages are used, and which are stored to (clear_refs; protocol P14).
//!
//! Called by `engine`. Absent on purpose: reading the answer, which is `pages`.

use super::Core;
use super::settle::NoTables;
use crate::addr::VirtAddr;
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{NoMemory, mutant};
use crate::table::Rewrite;

/// What [`Space::clear_refs`](crate::Space::clear_refs) makes the space forget, as the values of /proc/PID/clear_refs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearRefs {
    /// That any page was used (1).
    Accessed,
    /// That a page of an area without an object was used (2).
    AccessedAnon,
    /// That a page of an area with an object was used (3).
    AccessedFile,
    /// That any page was stored to (4).
    SoftDirty,
}

/// No memory for a part of the area index, or for the copy of a shared table. Some areas may have been dealt with; to
/// repeat the call does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearRefsError;

impl From<NoMemory> for ClearRefsError {
    fn from(NoMemory: NoMemory) -> Self {
        Self
    }
}

impl From<NoTables> for ClearRefsError {
    fn from(NoTables: NoTables) -> Self {
        Self
    }
}

impl ClearRefs {
    fn rewrite(self) -> Rewrite {
        if self == Self::SoftDirty { Rewrite::Settle } else { Rewrite::Age }
    }

    fn concerns<M: Machine>(self, area: &Area<M>) -> bool {
        match self {
            // Nobody can tell what happens to memory without records.
            _ if area.flags.contains(AreaFlags::RAW) => self == Self::SoftDirty,
            Self::Accessed | Self::SoftDirty => true,
            Self::AccessedAnon => area.object.is_none(),
            Self::AccessedFile => area.object.is_some(),
        }
    }
}

impl<M: Machine> Core<M> {
    /// Forgets what `refs` says. A use or store by whoever comes after the return is noted again.
    pub(crate) fn clear_refs(&self, ctx: Ctx<'_, M>, refs: ClearRefs) -> Result<(), ClearRefsError> {
        let guard = self.index.lock_all(ctx.cpu.held(), move || ctx.relax());
        self.each_area(
            &guard,
            |area| if refs.concerns(area) { self.clear_area(ctx, area, refs, &guard) } else { Ok(()) },
        )?;
        if refs != ClearRefs::SoftDirty || mutant::is(mutant::Mutant::NoClearWait) {
            return Ok(());
        }
        // A store from outside marks the entry, then copies, inside one section: what it marked before the sweep it has
        // copied now. A pin looks at the entry and then counts, inside one section too: what it did is seen below.
        ctx.wait_for_sections(self.section_name());
        if ctx.memory.has_pins() && !mutant::is(mutant::Mutant::NoPinnedPass) {
            self.each_area(&guard, |area| {
                Ok(self.sweep_alive(
                    ctx,
                    area.range.start().as_u64(),
                    area.range.end().as_u64(),
                    Rewrite::KeepPinned,
                )?)
            })?;
        }
        Ok(())
    }

    fn clear_area(
        &self,
        ctx: Ctx<'_, M>,
        area: &Area<M>,
        refs: ClearRefs,
        guard: &StripeGuard<'_>,
    ) -> Result<(), ClearRefsError> {
        let (low, high) = (area.range.start().as_u64(), area.range.end().as_u64());
        self.prepare_tables(ctx, low, high, refs.rewrite())?;
        if refs != ClearRefs::SoftDirty || !area.flags.contains(AreaFlags::SOFT_DIRTY) {
            return Ok(self.sweep_alive(ctx, low, high, refs.rewrite())?);
        }
        // In place, not merged with neighbours that have yet to lose the flag.
        let attributes = Attributes { flags: area.flags.without(AreaFlags::SOFT_DIRTY), ..(**area).clone() };
        let place = self.index.place(low, guard);
        let mut changes = Changes::new();
        let change = Index::change(&mut changes, low)?;
        change.insert(attributes)?;
        change.prepare(&place, low, high)?;
        // A fault of the old area may still map a page of the object writable and soft-dirty: one page too many is said
        // to be stored to, none too few.
        Ok(self.commit_all(ctx, &mut changes, guard, || {
            let done = self.sweep_alive(ctx, low, high, refs.rewrite());
            debug_assert!(done.is_ok(), "the tables were prepared");
        })?)
    }

    /// Calls `each` with all areas, ascending; it may replace the area in place. All stripes are locked.
    fn each_area(
        &self,
        guard: &StripeGuard<'_>,
        mut each: impl FnMut(&Area<M>) -> Result<(), ClearRefsError>,
    ) -> Result<(), ClearRefsError> {
        let mut at = VirtAddr::new(0);
        // Ends: each round passes an area.
        while let Some(area) = self.index.next(at.as_u64(), guard) {
            at = area.range.end();
            each(area)?;
        }
        Ok(())
    }
}
