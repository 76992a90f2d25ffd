//! Areas of large pages from the pool (hugetlb): mapping them, and what range operations have to reckon with.
//!
//! Called by `map`, and by each operation that could cut a large page: it asks [`Core::cuts_large`] before it changes
//! anything. So a HUGE entry of such an area is never split. Nor are there leaf tables: faults make none, and before the
//! area opens, the sections of the space have ended in which faults of dead areas may link one, and what they left is
//! taken away. Faults are in `large_fault`; docs/protocols/P15 has the argument.
//!
//! Promises: a private mapping is promised its pages as a space, by address, a shared one as its object, by index.

use super::Core;
use super::advise::AdviseError;
use super::extent::Admission;
use super::map::MapError;
use crate::addr::{PAGE_SHIFT, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Sharing, StripeGuard};
use crate::frame::{Ctx, Key};
use crate::machine::Machine;
use crate::object::Object;
use crate::sync::{NoMemory, Ordering, mutant};
use crate::table::{Rewrite, shift, span};
use alloc::vec::Vec;

/// What was promised to a mapping that is being made.
enum Promised {
    Nothing,
    /// So many pages.
    Private(u64),
    /// These pages of the object.
    Shared(Vec<Key>),
}

/// The large pages of `low..high`, counted from address 0.
fn pages<M: Machine>(low: u64, high: u64) -> (u64, u64) {
    (low >> shift::<M::Format>(1), high >> shift::<M::Format>(1))
}

/// The large pages of the object that a mapping of this range shows.
fn shown<M: Machine>(range: PageRange, attributes: &Attributes<M>) -> (u64, u64) {
    pages::<M>(attributes.offset, attributes.offset + range.len())
}

impl<M: Machine> Core<M> {
    /// Does an end of the range lie inside of a large page of the pool, mapped or to be mapped?
    #[inline]
    pub(super) fn cuts_large(&self, low: u64, high: u64, guard: &StripeGuard<'_>) -> bool {
        self.memory.uses_pool() && self.is_large_at(low, high, guard) && !mutant::is(mutant::Mutant::CutPool)
    }

    #[cold]
    fn is_large_at(&self, low: u64, high: u64, guard: &StripeGuard<'_>) -> bool {
        [low, high].into_iter().filter(|edge| !edge.is_multiple_of(span::<M::Format>(1))).any(|edge| {
            let area = self.index.next(edge, guard);
            area.is_some_and(|area| area.range.contains(VirtAddr::new(edge)) && area.flags.contains(AreaFlags::HUGETLB))
        })
    }

    /// Forgets what private mappings of `low..high` were promised: they are gone.
    #[inline]
    pub(super) fn forget_large(&self, ctx: Ctx<'_, M>, low: u64, high: u64) {
        if self.memory.uses_pool() {
            let range = pages::<M>(low, high);
            ctx.memory.forget_promises(ctx.cpu.held(), || ctx.relax(), self.id, range);
        }
    }

    /// What private mappings of `low..high` were promised moves with them.
    pub(super) fn move_large(&self, ctx: Ctx<'_, M>, low: u64, high: u64, by: u64) {
        // Modulo 2^64 as `by` is: the shift must keep its sign.
        let by = (by.cast_signed() >> shift::<M::Format>(1)).cast_unsigned();
        ctx.move_promises(self.id, pages::<M>(low, high), by);
    }

    /// [`Core::map_at`] for large pages of the pool; the range lines up with them.
    #[cold]
    pub(super) fn map_large_at(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        attributes: &Attributes<M>,
        guard: &StripeGuard<'_>,
    ) -> Result<(), MapError> {
        let object = attributes.object.as_ref().ok_or(MapError::Invalid)?;
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let mut changes = Changes::new();
        self.prepare_map(range, attributes, guard, &mut changes)?;
        if self.breaks_seal(&changes, guard) {
            return Err(MapError::NotPermitted);
        }
        let rewrite = Rewrite::Remove { window: (low, high) };
        self.prepare_tables(ctx, low, high, rewrite)?;
        let promised = self.promise_large(ctx, range, attributes, object)?;
        changes.iter().flat_map(|change| change.inserted(guard)).for_each(Area::close);
        let committed = self.commit_as(ctx, &mut changes, guard, Admission::Fresh, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
            self.forget_large(ctx, low, high);
            self.clear_strays(ctx, low, high);
            if let Promised::Private(_) = promised {
                ctx.settle_promises(self.id, pages::<M>(low, high));
            }
            if attributes.rights.contains(Rights::WRITE) {
                // As Linux does: what is mapped for stores is part of the file.
                object.grow(attributes.offset + range.len());
            }
            self.open(range, guard);
            self.open_neighbours(low, high, guard);
        });
        Ok(committed.inspect_err(|_| match promised {
            Promised::Nothing => {}
            Promised::Private(pages) => ctx.release_promises(pages),
            Promised::Shared(added) => ctx.take_back_promises(&added),
        })?)
    }

    /// Promises a mapping its pages, unless it does not want that.
    fn promise_large(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        attributes: &Attributes<M>,
        object: &Object<M>,
    ) -> Result<Promised, NoMemory> {
        if attributes.sharing == Sharing::Private && attributes.flags.contains(AreaFlags::HUGETLB_RESERVED) {
            let count = range.len() >> shift::<M::Format>(1);
            return ctx.hold_promises(count).map(|()| Promised::Private(count));
        }
        if attributes.sharing == Sharing::Shared && !attributes.flags.contains(AreaFlags::NO_RESERVE) {
            return object.promise_large(ctx, shown(range, attributes)).map(Promised::Shared);
        }
        ctx.hold_promises(0).map(|()| Promised::Nothing)
    }

    /// Takes away the tables that faults of dead areas have left in `low..high`, where nothing is mapped and no fault
    /// starts, and waits for those that may link more.
    pub(super) fn clear_strays(&self, ctx: Ctx<'_, M>, low: u64, high: u64) {
        if mutant::is(mutant::Mutant::StraysStay) {
            return;
        }
        ctx.wait_for_sections(self.section_name());
        // Relaxed: whoever left one is over.
        if self.strays.load(Ordering::Relaxed) {
            let done = self.drive(ctx, low, high, Rewrite::Remove { window: (low, high) }, true);
            debug_assert!(done.is_ok(), "the tables were prepared");
        }
    }

    /// MADV_DONTNEED: whole large pages from the start on; a part of one at the end stays, as on Linux. What was promised
    /// to a private mapping is promised again.
    pub(super) fn discard_large(&self, ctx: Ctx<'_, M>, area: &Area<M>, part: PageRange) -> Result<(), AdviseError> {
        let covered = span::<M::Format>(1);
        let (low, high) = (part.start().as_u64(), part.end().as_u64() & !(covered - 1));
        if !low.is_multiple_of(covered) {
            return Err(AdviseError::Refused(part.start()));
        }
        if low >= high {
            return Ok(());
        }
        let rewrite = Rewrite::Discard { range: (low, high), restamps: false, copies: true };
        let no_memory = |_| AdviseError::NoMemory(part.start());
        self.prepare_tables(ctx, low, high, rewrite).map_err(no_memory)?;
        self.sweep_alive(ctx, low, high, rewrite).map_err(no_memory)?;
        if area.flags.contains(AreaFlags::HUGETLB_RESERVED) {
            ctx.promise_again(self.id, pages::<M>(low, high));
        }
        Ok(())
    }
}

impl<M: Machine> Attributes<M> {
    /// The large page of the object that holds `address`.
    pub(super) fn large_index(&self, address: VirtAddr) -> u64 {
        self.page_index(address) >> (shift::<M::Format>(1) - PAGE_SHIFT)
    }
}
