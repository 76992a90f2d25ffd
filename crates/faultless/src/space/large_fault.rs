//! Faults in areas of large pages from the pool (hugetlb).
//!
//! Called by the fault's loop where it finds no table, or a large page. Where nothing is mapped, a page goes in under the
//! rule of P1, without a lock: the object's, or one of the space's own. A page that is mapped, but not as it is needed, is
//! dealt with by [`Core::fix_large`], a named slow path that holds the stripe's lock. So nobody else changes the entry
//! meanwhile, and it needs no generation (P15).
//!
//! The pool may be empty: then the fault ends in [`FaultError::Bus`], as on Linux, and nothing has changed. Different from
//! Linux: a parent that copies when the pool is empty takes no page away from its children.

use super::fault::{Need, Work};
use super::{Core, FaultError};
use crate::addr::{Access, FrameId, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing};
use crate::frame::{Ctx, Kind, Large, NoLarge};
use crate::machine::format::{Leaf, PageBits, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::object::{NotMade, PageState};
use crate::sync::{Event, mutant, spin_hint};
use crate::table::{Delta, Found, Removed, Stop, huge, load, shift, span};
use core::mem;

/// What a look under the lock came to.
enum Fix<'a> {
    /// The entry was made what is needed.
    Done(Event),
    /// Something else is there by now: start over.
    Again,
    /// The page must be copied.
    Copy(&'a AtomicEntry, Raw, FrameId),
}

/// What the fault wants.
#[derive(Clone, Copy)]
struct Wish {
    address: VirtAddr,
    access: Access,
    /// A store to private memory whatever its rights.
    forced: bool,
}

/// Is a large page mapped as it is needed?
fn is_adequate<M: Machine>(entry: Raw, bits: PageBits, shared: bool, access: Access, forced: bool) -> bool {
    match access {
        Access::Write if forced => bits.exclusive && !bits.pending && M::Format::is_soft(entry) && !shared,
        Access::Write => bits.write && !shared,
        Access::Execute => bits.execute,
        Access::Read => true,
    }
}

impl<M: Machine> Core<M> {
    /// One attempt in such an area: `found` is what the walk found. Inside a section.
    #[cold]
    pub(super) fn fault_large<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        found: Found<'_>,
        address: VirtAddr,
        area: &Area<M>,
        access: Access,
        work: &mut Work,
    ) -> Result<Event, Need<M>> {
        let forced = FORCED && area.sharing == Sharing::Private;
        let Found::Huge { slot, shared } = found else {
            return self.map_large(ctx, Wish { address, access, forced }, area, work);
        };
        // HT-01: decided from the tables alone.
        let entry = load(slot);
        if area.is_dead() {
            return Err(Need::Retry);
        }
        match M::Format::leaf(entry) {
            Leaf::Page(_, bits) if is_adequate::<M>(entry, bits, shared, access, forced) => Ok(Event::FaultSpurious),
            _ => Err(Need::Large),
        }
    }

    /// Maps a page where nothing is.
    fn map_large(&self, ctx: Ctx<'_, M>, wish: Wish, area: &Area<M>, work: &mut Work) -> Result<Event, Need<M>> {
        let Wish { address, access, .. } = wish;
        let place = huge::parent(ctx, self.root, address, &mut work.removed, &mut work.delta);
        if work.delta.tables != 0 && area.is_dead() {
            self.note_strays(); // as for the tables of small pages
        }
        let (parent, slot) = place?;
        let empty = huge::empty_value::<M>(slot).ok_or(Need::Retry)?;
        // P1: after the load. And P9: the object is looked at after it too.
        if area.is_dead() {
            return Err(Need::Retry);
        }
        let object = area.object.as_ref().ok_or(Need::Retry)?;
        let index = area.large_index(address);
        let copies = area.sharing == Sharing::Private && access == Access::Write;
        let state = object.large_page(ctx, index, u32::from(!copies));
        let is_private = area.sharing == Sharing::Private;
        // The first store to what is not soft-dirty must be seen (P14).
        let is_unseen = access == Access::Write || area.flags.contains(AreaFlags::SOFT_DIRTY);
        let bits = PageBits {
            write: area.rights.contains(Rights::WRITE) && is_unseen,
            execute: area.rights.contains(Rights::EXECUTE),
            exclusive: is_private,
            dirty: access == Access::Write,
            ..PageBits::default()
        };
        let first = match state {
            PageState::PastEnd => return Err(if area.is_dead() { Need::Retry } else { Need::Fail(FaultError::Bus) }),
            PageState::Closed => return Err(Need::Wait),
            PageState::Resident(first) if !copies => {
                let bits = PageBits { write: bits.write && !is_private, exclusive: false, ..bits };
                if !huge::install_known(ctx, parent, address, empty, first, bits) {
                    ctx.put(first, 1, 1);
                    return Err(Need::Retry);
                }
                work.delta.page(Kind::Huge, huge::pages::<M::Format>().cast_signed());
                return Ok(Event::FaultHugetlb);
            }
            PageState::Absent if !is_private => {
                object.make_large(ctx, index).map_err(|error| self.lack(area, error))?;
                return Err(Need::Retry);
            }
            PageState::Resident(first) => Some(first),
            PageState::Absent => None,
        };
        let key = self.large_key(address);
        let taken = ctx.take_large(Some(key));
        // Who has mapped it meanwhile may have got the last one.
        if taken.is_err() && load(slot) != empty {
            first.inspect(|first| ctx.put(*first, 1, 0));
            return Err(Need::Retry);
        }
        let large = taken.map_err(|error| {
            first.inspect(|first| ctx.put(*first, 1, 0));
            self.lack(area, NotMade::Pool(error))
        })?;
        fill(ctx, &large, first);
        first.inspect(|first| ctx.put(*first, 1, 0));
        let promised = large.promised();
        let own = ctx.publish_large(large, 0, 1);
        if !huge::install_known(ctx, parent, address, empty, own, bits) {
            ctx.withdraw_large(own, key, promised);
            return Err(Need::Retry);
        }
        ctx.end_large(key);
        work.delta.page(Kind::Huge, huge::pages::<M::Format>().cast_signed());
        Ok(Event::FaultHugetlb)
    }

    /// What the pool's lack means to a fault.
    fn lack(&self, area: &Area<M>, error: NotMade) -> Need<M> {
        match error {
            NotMade::NoHeap => Need::Frames,
            NotMade::Pool(NoLarge::Busy) => Need::Wait,
            NotMade::Pool(NoLarge::Empty) if area.is_dead() => Need::Retry,
            NotMade::Pool(NoLarge::Empty) => Need::Pool,
        }
    }

    /// The index of private memory at `address`, as promises have it.
    fn large_key(&self, address: VirtAddr) -> (u64, u64) {
        (self.id, address.as_u64() >> shift::<M::Format>(1))
    }

    /// Makes a mapped large page what `access` needs, under the stripe's lock. False if the fault is to start over.
    #[cold]
    pub(super) fn fix_large(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        forced: bool,
    ) -> Result<bool, FaultError> {
        ctx.count(Event::SlowHugeWiden);
        // Named and counted: not among the locks that faults must not take.
        let inside = ctx.cpu.held().set_in_fault(false);
        let result = self.fix_locked(ctx, Wish { address, access, forced });
        ctx.cpu.held().set_in_fault(inside);
        result
    }

    fn fix_locked(&self, ctx: Ctx<'_, M>, wish: Wish) -> Result<bool, FaultError> {
        let at = wish.address.as_u64();
        let guard = self.lock(ctx, at, at + 1);
        let area = self.index.find(wish.address, &guard).filter(|area| area.flags.contains(AreaFlags::HUGETLB));
        let Some(area) = area.filter(|_| !self.has_exited()) else {
            return Ok(false);
        };
        let wish = Wish { forced: wish.forced && area.sharing == Sharing::Private, ..wish };
        if area.rights.is_none() || !area.rights.allow(wish.access) && !wish.forced {
            return Ok(false);
        }
        let (mut removed, mut delta) = (Removed::new(), Delta::default());
        // Ends: each round but the last follows the success of a fault on the way.
        loop {
            let section = ctx.enter(self.section_name());
            let place = huge::parent(ctx, self.root, wish.address, &mut removed, &mut delta);
            let fix = place.map(|(_, slot)| self.look_at_large(ctx, wish, area, slot));
            self.touch(wish.address);
            self.counters.post(ctx, &mem::take(&mut delta));
            drop(section);
            self.settle(ctx, &mut removed);
            match fix {
                Ok(Fix::Done(event)) => {
                    ctx.count(event);
                    return Ok(true);
                }
                Ok(Fix::Again) => return Ok(false),
                Ok(Fix::Copy(slot, entry, source)) => {
                    self.copy_large(ctx, wish, area, slot, entry, source)?;
                    return Ok(true);
                }
                Err(Stop::NoMemory) => return Err(FaultError::OutOfMemory),
                Err(Stop::Retry | Stop::Frozen) => {
                    ctx.relax();
                    spin_hint();
                }
            }
        }
    }

    /// Changes the entry if its page may stay. The path is private.
    fn look_at_large<'a>(&self, ctx: Ctx<'_, M>, wish: Wish, area: &Area<M>, slot: &'a AtomicEntry) -> Fix<'a> {
        let Some((entry, leaf)) = huge::mapped::<M>(slot) else {
            return Fix::Again;
        };
        let (write, execute) = (area.rights.contains(Rights::WRITE), area.rights.contains(Rights::EXECUTE));
        let shown = |entry| match M::Format::leaf(entry) {
            Leaf::None(..) => M::Format::with_rights(M::Format::none_to_page(entry), false, execute),
            _ => entry,
        };
        let (Leaf::Page(first, bits) | Leaf::None(first, bits)) = leaf else {
            return Fix::Again;
        };
        if wish.access != Access::Write {
            huge::change::<M>(slot, entry, |entry| M::Format::with_rights(shown(entry), bits.write, execute));
            return Fix::Done(Event::FaultWiden);
        }
        if area.sharing == Sharing::Shared {
            huge::change::<M>(slot, entry, |entry| M::Format::made_writable(shown(entry), false));
            return Fix::Done(Event::FaultShared);
        }
        // Alone: no other entry maps it. Who reads it by this one meanwhile, from outside, does not count.
        let is_alone = ctx.memory.is_anon(first) && ctx.record(first).counts().1 == 1;
        if !bits.exclusive && !is_alone {
            return Fix::Copy(slot, entry, first);
        }
        huge::change::<M>(slot, entry, |entry| {
            M::Format::with_rights(M::Format::made_writable(shown(entry), true), write, execute)
        });
        Fix::Done(Event::FaultReuse)
    }

    /// Copies a private page. As for small ones (P3): the copy goes in read-only and PENDING, and becomes writable when
    /// no CPU can read the old page any more. The stripe is locked, so the slot stays, and faults of its area wait or
    /// find a page that they may read.
    fn copy_large(
        &self,
        ctx: Ctx<'_, M>,
        wish: Wish,
        area: &Area<M>,
        slot: &AtomicEntry,
        entry: Raw,
        source: FrameId,
    ) -> Result<(), FaultError> {
        let key = self.large_key(wish.address);
        // Ends: who makes the page of the index is in a section, which does not wait.
        let mut collected = false;
        let large = loop {
            match ctx.take_large(Some(key)) {
                Ok(large) => break large,
                Err(NoLarge::Empty) if mem::replace(&mut collected, true) => return Err(FaultError::Bus),
                Err(NoLarge::Empty) => {
                    ctx.collect();
                }
                Err(NoLarge::Busy) => {
                    ctx.relax();
                    spin_hint();
                }
            }
        };
        ctx.count(Event::SlowHugeCopy);
        fill(ctx, &large, Some(source));
        let first = ctx.publish_large(large, 0, 1);
        let (write, execute) = (area.rights.contains(Rights::WRITE), area.rights.contains(Rights::EXECUTE));
        let direct = mutant::is(mutant::Mutant::LargeCopyDirect);
        let pending =
            PageBits { write: direct, execute, exclusive: true, pending: !direct, dirty: true, ..PageBits::default() };
        huge::change::<M>(slot, entry, |_| M::Format::huge(first, pending));
        ctx.end_large(key);
        let mut removed = Removed::new();
        let covered = span::<M::Format>(1);
        removed.note(wish.address.as_u64() & !(covered - 1), covered);
        removed.blocks.push(source);
        self.settle(ctx, &mut removed);
        huge::change::<M>(slot, M::Format::huge(first, pending), |entry| {
            M::Format::with_rights(M::Format::made_writable(entry, true), write, execute)
        });
        ctx.count(Event::FaultCow);
        Ok(())
    }
}

/// Fills a new page with what `source` has, or with zeroes.
fn fill<M: Machine>(ctx: Ctx<'_, M>, large: &Large, source: Option<FrameId>) {
    for (index, target) in large.frames::<M>().enumerate() {
        match source {
            Some(first) => ctx.machine().copy(FrameId::new(first.as_u64() + index as u64), target),
            None => ctx.machine().zero(target),
        }
    }
}
