//! Carrying out the plan: each by one exact compare-exchange on the entry that was loaded, or not at all.
//!
//! Called by the loop in `fault`, inside a section. Nothing here waits.

use super::decide::{Facts, Page, Plan, Stores, decide};
use super::permit::{self, Step};
use super::touch::Seen;
use super::{Carried, FaultError, Need, Work};
use crate::addr::{Access, FrameId, PAGE_SIZE, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing};
use crate::frame::{Ctx, Kind};
use crate::machine::format::{Leaf, PageBits, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::object::{Object, PageState};
use crate::space::Core;
use crate::space::watch::Empty;
use crate::sync::{Event, Ordering, Section, mutant};
use crate::table::{Found, Stop, find, load, populate};
use crate::tlb::flush_if_alone;
use alloc::sync::Arc;

/// One attempt's view: where, under which area, on which entry.
pub(super) struct Attempt<'a, M: Machine, const FORCED: bool> {
    pub(super) core: &'a Core<M>,
    pub(super) ctx: Ctx<'a, M>,
    pub(super) address: VirtAddr,
    pub(super) area: &'a Area<M>,
    pub(super) slot: &'a AtomicEntry,
    /// The value that the commit expects.
    pub(super) entry: Raw,
}

impl<M: Machine> Core<M> {
    /// One attempt inside a section. `flushed` is the entry for which a flush was done since the last one.
    #[inline(never)]
    pub(super) fn attempt_inside<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        flushed: Option<&Carried>,
        work: &mut Work,
        section: &Section<'_>,
    ) -> Result<(), Need<M>> {
        let area = self.index.find(address, section).ok_or(Need::Area)?;
        if area.needs_care() {
            return self.attempt_with_care::<FORCED>(ctx, address, access, area, flushed, work);
        }
        self.attempt_in::<FORCED, false>(ctx, address, access, area, flushed, work)
    }

    /// The same under the area that was found. `WATCHED`: somebody may have to be told first.
    #[inline(always)]
    pub(super) fn attempt_in<const FORCED: bool, const WATCHED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        area: &Area<M>,
        flushed: Option<&Carried>,
        work: &mut Work,
    ) -> Result<(), Need<M>> {
        let may_force = FORCED && area.sharing == Sharing::Private && !area.rights.is_none();
        if !area.rights.allow(access) && !may_force {
            // A verdict on a dead area is none (hole 14).
            return Err(if area.is_dead() { Need::Retry } else { Need::Fail(FaultError::Denied) });
        }
        if mutant::is(mutant::Mutant::DeadCheckFirst) && area.is_dead() {
            return Err(Need::Retry);
        }
        let slot = match self.leaf_slot::<FORCED>(ctx, address, area, access, work)? {
            Path::Slot(slot) => slot,
            Path::Done(event) => {
                ctx.count(event);
                return Ok(());
            }
        };
        let entry = load(slot);
        // P1: after the load. A fault that loaded before the sweep fails its compare-exchange; one that loaded after
        // it sees the death here.
        let checks = !mutant::is(mutant::Mutant::NoDeadCheck) && !mutant::is(mutant::Mutant::DeadCheckFirst);
        if checks && area.is_dead() {
            return Err(Need::Retry);
        }
        if WATCHED {
            self.report(address, access, area, entry)?;
            if self.keep_mark(ctx, (address, access), &Empty { area, slot, entry }, work)? {
                return Ok(());
            }
            if access == Access::Write && area.asks_pager() {
                let attempt: Attempt<'_, M, FORCED> = Attempt { core: self, ctx, address, area, slot, entry };
                return attempt.run_permitted(flushed, work);
            }
        }
        self.attempt_on::<FORCED>(ctx, address, access, &Seen { area, slot, entry }, flushed, work)
    }

    /// The same on what was seen.
    #[inline(always)]
    pub(super) fn attempt_on<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        seen: &Seen<'_, M>,
        flushed: Option<&Carried>,
        work: &mut Work,
    ) -> Result<(), Need<M>> {
        let Seen { area, slot, entry } = *seen;
        let attempt: Attempt<'_, M, FORCED> = Attempt { core: self, ctx, address, area, slot, entry };
        attempt.run(access, flushed, work)
    }

    /// The leaf entry, on a private path.
    #[inline(always)]
    fn leaf_slot<'a, const FORCED: bool>(
        &'a self,
        ctx: Ctx<'a, M>,
        address: VirtAddr,
        area: &Area<M>,
        access: Access,
        work: &mut Work,
    ) -> Result<Path<'a>, Need<M>> {
        match find(ctx, self.root, address) {
            Found::Leaf { slot, shared: false, .. } => Ok(Path::Slot(slot)),
            found => self.make_leaf_slot::<FORCED>(ctx, address, area, access, found, work),
        }
    }

    /// The same where the path is missing, shared, or ends at a large page. Out of line: it happens once per table.
    #[inline(never)]
    fn make_leaf_slot<'a, const FORCED: bool>(
        &'a self,
        ctx: Ctx<'a, M>,
        address: VirtAddr,
        area: &Area<M>,
        access: Access,
        found: Found<'a>,
        work: &mut Work,
    ) -> Result<Path<'a>, Need<M>> {
        match found {
            Found::Leaf { slot, .. } if is_adequate::<M>(load(slot), access) && !area.is_dead() => {
                return Ok(Path::Done(Event::FaultSpurious));
            }
            Found::Huge { slot, shared }
                if !FORCED && is_adequate_huge::<M>(slot, shared, access) && !area.is_dead() =>
            {
                return Ok(Path::Done(Event::FaultSpurious));
            }
            found @ (Found::Huge { .. } | Found::Missing) if area.flags.contains(AreaFlags::HUGETLB) => {
                return self.fault_large::<FORCED>(ctx, found, address, area, access, work).map(Path::Done);
            }
            Found::Huge { shared: true, .. } if access == Access::Write && !FORCED => {
                if self.take_huge_back(ctx, address, work)? && !area.is_dead() {
                    return Ok(Path::Done(Event::FaultReuse));
                }
            }
            Found::Missing if access == Access::Write && !FORCED && self.wants_huge(ctx, address, area) => {
                if self.map_huge(ctx, address, area, work)? {
                    return Ok(Path::Done(Event::FaultHuge));
                }
            }
            Found::Leaf { .. } | Found::Missing | Found::Huge { .. } => {}
            Found::Frozen => return Err(Need::Wait),
            Found::Poison => return Err(Need::Retry),
        }
        let populated = populate(ctx, self.root, address, &mut work.removed, &mut work.delta);
        if work.delta.tables != 0 && area.is_dead() {
            self.note_strays(); // linked, perhaps, behind the sweep of the operation that killed the area
        }
        match populated {
            Ok(slot) => Ok(Path::Slot(slot)),
            Err(stop) => Err(stop.into()),
        }
    }
}

/// Where a fault goes on.
enum Path<'a> {
    /// At this leaf entry, on a private path.
    Slot(&'a AtomicEntry),
    /// Nowhere: what was found, or what was done, is the answer.
    Done(Event),
}

impl<M: Machine> From<Stop> for Need<M> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Retry => Need::Retry,
            Stop::Frozen => Need::Wait,
            Stop::NoMemory => Need::Frames,
        }
    }
}

/// Does a large page permit the access?
#[cold]
fn is_adequate_huge<M: Machine>(slot: &AtomicEntry, shared: bool, access: Access) -> bool {
    match M::Format::leaf(load(slot)) {
        Leaf::Page(_, bits) if access == Access::Write => bits.write && !shared,
        Leaf::Page(_, bits) => access == Access::Read || bits.execute,
        _ => false,
    }
}

/// Does an entry below a shared table permit the access? A store never: the table is write-protected.
fn is_adequate<M: Machine>(entry: Raw, access: Access) -> bool {
    match M::Format::leaf(entry) {
        Leaf::Page(_, bits) => access == Access::Read || access == Access::Execute && bits.execute,
        _ => false,
    }
}

impl<M: Machine, const FORCED: bool> Attempt<'_, M, FORCED> {
    fn run(mut self, access: Access, flushed: Option<&Carried>, work: &mut Work) -> Result<(), Need<M>> {
        let leaf = M::Format::leaf(self.entry);
        let (page, frame) = self.look_up(leaf, access);
        let mut facts = Facts {
            rights: self.area.rights,
            sharing: self.area.sharing,
            access,
            leaf,
            page,
            alone: self.is_alone(leaf, access, flushed),
            flushed: flushed.is_some_and(|carried| M::Format::same_but_touched(carried.entry, self.entry))
                || mutant::is(mutant::Mutant::NoPendingFlush),
            forced: FORCED && self.area.sharing == Sharing::Private,
            soft: FORCED && M::Format::is_soft(self.entry),
        };
        let mut plan = decide(&facts);
        if plan == Plan::Flush && flush_if_alone(self.ctx, &self.core.mask, self.core.root, self.address).is_some() {
            // Flushed on the spot: no section was left, so the value cannot have come round (C5).
            facts.flushed = true;
            plan = decide(&facts);
        }
        self.carry_out(plan, leaf, frame, work)
    }

    /// A store to a shared page whose pager is asked first (CW-08).
    #[cold]
    fn run_permitted(self, flushed: Option<&Carried>, work: &mut Work) -> Result<(), Need<M>> {
        let (ctx, step) = (self.ctx, permit::next_step(self.ctx, self.area, self.slot, self.entry, flushed)?);
        match step {
            Step::Go => self.run(Access::Write, flushed, work),
            Step::MapFirst => self.run(Access::Read, flushed, work).and(Err(Need::Retry)),
            Step::Store(frame) => {
                self.run(Access::Write, flushed, work)?;
                // In the section of the exchange: who waits for that finds the page dirty (P17).
                permit::note_store(ctx, frame);
                Ok(())
            }
        }
    }

    fn carry_out(&mut self, plan: Plan, leaf: Leaf, page: Option<FrameId>, work: &mut Work) -> Result<(), Need<M>> {
        let execute = self.area.rights.contains(Rights::EXECUTE);
        match (plan, leaf, page) {
            (Plan::Nothing, ..) => self.done(Event::FaultSpurious),
            (Plan::MapZero, ..) => self.map_zero(),
            (Plan::MapAnon, ..) => {
                self.map_anon()?;
                work.delta.page(Kind::Anon, 1);
                Ok(())
            }
            (Plan::MapObject(stores), _, Some(page)) => {
                let trapped = stores == Stores::Trapped || stores == Stores::Free && !self.stores_unseen();
                let (write, dirty) = (!trapped, stores == Stores::Done);
                self.map_object(page, PageBits { write, execute, dirty, ..PageBits::default() }, work)
            }
            (Plan::CopyObject, _, Some(page)) => self.copy_object(page, execute, work),
            (Plan::FillObject, ..) => self.fill_object(),
            (Plan::ReadObject, ..) => self.read_object(),
            (Plan::Bus, ..) => Err(if self.area.is_dead() { Need::Retry } else { Need::Fail(FaultError::Bus) }),
            (Plan::Restore, ..) => {
                // A page again, read-only; a store goes on to reuse or copy in the next attempt.
                let page = M::Format::with_rights(M::Format::none_to_page(self.entry), false, execute);
                self.exchange(page)?;
                Err(Need::Retry)
            }
            (Plan::Widen, Leaf::Page(_, bits), _) => {
                self.exchange_touched(|entry| M::Format::with_rights(entry, bits.write, true))?;
                self.done(Event::FaultWiden)
            }
            (Plan::MakeWritable, ..) => {
                self.exchange_touched(|entry| M::Format::made_writable(entry, false))?;
                self.done(Event::FaultShared)
            }
            (Plan::Reuse, Leaf::Page(_, bits), _) => {
                self.exchange_touched(|entry| self.made_own(entry))?;
                self.done(if bits.pending { Event::FaultFinish } else { Event::FaultReuse })
            }
            (Plan::Flush, Leaf::Page(frame, _), _) => Err(self.carry(frame, work)),
            (Plan::Copy, Leaf::Page(frame, bits), _) => self.copy(frame, bits, work),
            _ => Err(Need::Retry),
        }
    }

    fn done(&self, event: Event) -> Result<(), Need<M>> {
        self.ctx.count(event);
        Ok(())
    }

    /// The object's page for an empty entry, referenced: as mapped, unless it is only the source of a copy.
    fn look_up(&self, leaf: Leaf, access: Access) -> (Page, Option<FrameId>) {
        if let Leaf::Offset(index) = leaf {
            return self.look_up_offset(index);
        }
        let Some(object) = &self.area.object else {
            return (if self.area.flags.contains(AreaFlags::RAW) { self.raw_hole() } else { Page::NoObject }, None);
        };
        if leaf != Leaf::Empty {
            return (Page::NoObject, None);
        }
        let copies = access == Access::Write && self.area.sharing == Sharing::Private;
        self.look_up_at(object, self.area.page_index(self.address), u32::from(!copies))
    }

    #[inline]
    fn look_up_at(&self, object: &Object<M>, index: u64, mappings: u32) -> (Page, Option<FrameId>) {
        match object.page(self.ctx, index, mappings) {
            PageState::Resident(frame) if object.is_memory() => (Page::Memory, Some(frame)),
            PageState::Resident(frame) => (Page::Resident, Some(frame)),
            PageState::PastEnd => (Page::PastEnd, None),
            PageState::Absent if object.must_read(index) => (Page::MustRead, None),
            PageState::Absent => (Page::MustMake, None),
            // Outside the section, also where nothing has to be read: what is punched out is waited for.
            PageState::Closed => (Page::MustRead, None),
        }
    }

    /// Is a store to the area no news, for all of it is soft-dirty? If not, the first store to a page must fault (P14).
    fn stores_unseen(&self) -> bool {
        self.area.flags.contains(AreaFlags::SOFT_DIRTY)
    }

    /// The object's page for an OFFSET entry (NL-01). One in an area that cannot have any is not believed (F-13).
    #[cold]
    fn look_up_offset(&self, index: u64) -> (Page, Option<FrameId>) {
        match &self.area.object {
            Some(object) if self.area.flags.contains(AreaFlags::NONLINEAR) => self.look_up_at(object, index, 1),
            _ => (Page::PastEnd, None),
        }
    }

    /// The index of the object's page that belongs here.
    fn page_index(&self) -> u64 {
        match M::Format::leaf(self.entry) {
            Leaf::Offset(index) => index,
            _ => self.area.page_index(self.address),
        }
    }

    /// What stands for a page that nobody put into an area of raw frames (PF-08).
    #[cold]
    fn raw_hole(&self) -> Page {
        if self.area.sharing == Sharing::Shared { Page::PastEnd } else { Page::NoObject }
    }

    /// Is the frame anonymous and referenced by this entry alone (and by the round trip of our own flush)?
    fn is_alone(&self, leaf: Leaf, access: Access, flushed: Option<&Carried>) -> bool {
        let Leaf::Page(frame, bits) = leaf else {
            return false;
        };
        if access != Access::Write || bits.write || bits.exclusive || bits.special {
            return false;
        }
        let record = self.ctx.record(frame);
        let own = 1 + u32::from(flushed.is_some_and(|carried| carried.frame == frame));
        record.kind() == Kind::Anon && record.counts().0 == own
    }

    /// The commit: the entry that was loaded becomes `new`, or the attempt starts over.
    fn exchange(&self, new: Raw) -> Result<(), Need<M>> {
        // Release publishes the frame's contents and record with the entry; on failure nothing is built on the value.
        let ordering = mutant::weaken(mutant::Mutant::RelaxedInstall, Ordering::AcqRel);
        match self.slot.compare_exchange(self.entry, new, ordering, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(Need::Retry),
        }
    }

    /// The same for a present entry, in which the MMU may set accessed and dirty meanwhile (F-05).
    fn exchange_touched(&self, new: impl Fn(Raw) -> Raw) -> Result<Raw, Need<M>> {
        let mut expected = self.entry;
        // Ends: the MMU sets at most two bits.
        loop {
            let value = new(expected);
            // As `exchange`.
            match self.slot.compare_exchange(expected, value, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(value),
                Err(now) if M::Format::same_but_touched(now, expected) => expected = now,
                Err(_) => return Err(Need::Retry),
            }
        }
    }

    /// The entry with its page exclusive, and writable if the area's rights say so: a forced store changes no rights.
    #[inline]
    fn made_own(&self, entry: Raw) -> Raw {
        let own = M::Format::made_writable(entry, true);
        if FORCED { self.as_allowed(own) } else { own }
    }

    /// The entry without a right that the area does not grant.
    #[cold]
    fn as_allowed(&self, entry: Raw) -> Raw {
        let rights = self.area.rights;
        M::Format::with_rights(entry, rights.contains(Rights::WRITE), rights.contains(Rights::EXECUTE))
    }

    /// Maps the zero frame.
    #[inline(always)]
    pub(super) fn map_zero(&self) -> Result<(), Need<M>> {
        let execute = self.area.rights.contains(Rights::EXECUTE);
        let bits = PageBits { execute, special: true, ..PageBits::default() };
        let zero = self.ctx.memory.zero_frame();
        self.exchange(M::Format::page(zero, bits, M::Format::generation(self.entry)))?;
        self.done(Event::FaultZero)
    }

    /// Maps a new frame of zeroes, which the caller counts.
    #[inline(always)]
    pub(super) fn map_anon(&self) -> Result<(), Need<M>> {
        let frame = self.ctx.alloc_zeroed(Kind::Anon).ok_or(Need::Frames)?;
        let frame = self.ctx.publish(frame, 1, 1);
        self.install_own(frame, self.area.rights.contains(Rights::EXECUTE))?;
        self.done(Event::FaultAnon)
    }

    /// Installs a frame of our own, or frees it.
    #[inline(always)]
    fn install_own(&self, frame: FrameId, execute: bool) -> Result<(), Need<M>> {
        let bits = PageBits { write: true, execute, exclusive: true, dirty: true, ..PageBits::default() };
        let page = M::Format::page(frame, bits, M::Format::generation(self.entry));
        self.exchange(if FORCED { self.as_allowed(page) } else { page }).inspect_err(|_| self.ctx.put(frame, 1, 1))
    }

    fn map_object(&self, page: FrameId, bits: PageBits, work: &mut Work) -> Result<(), Need<M>> {
        self.exchange(M::Format::page(page, bits, M::Format::generation(self.entry)))
            .inspect_err(|_| self.ctx.put(page, 1, 1))?;
        work.delta.page(self.ctx.record(page).kind(), 1);
        self.done(Event::FaultObject)
    }

    fn copy_object(&self, page: FrameId, execute: bool, work: &mut Work) -> Result<(), Need<M>> {
        let Some(frame) = self.ctx.alloc(Kind::Anon) else {
            self.ctx.put(page, 1, 0);
            return Err(Need::Frames);
        };
        self.ctx.machine().copy(page, frame.id());
        self.ctx.put(page, 1, 0);
        let frame = self.ctx.publish(frame, 1, 1);
        self.install_own(frame, execute)?;
        work.delta.page(Kind::Anon, 1);
        self.done(Event::FaultEarlyCopy)
    }

    /// A page of a memory object is made on the spot; that needs nothing that waits.
    fn fill_object(&self) -> Result<(), Need<M>> {
        let Some(object) = &self.area.object else {
            return Err(Need::Retry);
        };
        object.bring_in(self.ctx, self.page_index()).map_err(|_| Need::Frames)?;
        Err(Need::Retry)
    }

    fn read_object(&self) -> Result<(), Need<M>> {
        let Some(object) = &self.area.object else {
            return Err(Need::Retry);
        };
        Err(Need::Page(Arc::clone(object), self.page_index()))
    }

    /// Leaves the section for a flush; a reference keeps the PENDING page what it is.
    fn carry(&self, frame: FrameId, work: &mut Work) -> Need<M> {
        if !self.ctx.record(frame).try_get(0) {
            return Need::Retry;
        }
        if !M::Format::same_but_touched(load(self.slot), self.entry) {
            self.ctx.put(frame, 1, 0);
            return Need::Retry;
        }
        self.ctx.count(Event::CowFlushes);
        work.removed.note(self.address.align_down().as_u64(), PAGE_SIZE);
        work.carried = Some(Carried { entry: self.entry, frame });
        Need::Flush
    }

    /// Copy-on-write. The copy goes in read-only and PENDING (nobody can tell the difference); after a flush of the
    /// old translation it is made writable (CW-04).
    ///
    /// The source needs no reference of its own: if the compare-exchange succeeds, the entry held one all along, for
    /// within a section its value cannot come round (P2); if it fails, the copy is thrown away unseen.
    fn copy(&mut self, source: FrameId, bits: PageBits, work: &mut Work) -> Result<(), Need<M>> {
        let alone = self.core.mask.is_only(self.ctx.cpu.id());
        let frame = self.ctx.alloc(Kind::Anon).ok_or(Need::Frames)?;
        if source == self.ctx.memory.zero_frame() {
            self.ctx.machine().zero(frame.id());
        } else {
            self.ctx.machine().copy(source, frame.id());
        }
        // Before the exchange: the entry's reference, and that of the round trip if there will be one (C3).
        let references = if alone { 1 } else { 2 };
        let frame = self.ctx.publish(frame, references, 1);
        let direct = mutant::is(mutant::Mutant::CowDirect);
        let execute = self.area.rights.contains(Rights::EXECUTE);
        let pending = PageBits {
            write: direct,
            execute,
            exclusive: true,
            pending: !direct,
            dirty: direct,
            ..PageBits::default()
        };
        // What was soft-dirty stays it, should the store never come.
        let new = M::Format::with_soft(M::Format::page(frame, pending, M::Format::generation(self.entry)));
        self.exchange_touched(|_| new).inspect_err(|_| self.ctx.put(frame, references, 1))?;
        self.account_copy(source, bits, work);
        self.entry = new;
        if alone && self.finish_alone(source, bits)? {
            return Ok(());
        }
        work.removed.note(self.address.align_down().as_u64(), PAGE_SIZE);
        if !bits.special {
            work.removed.frames.push(source);
        }
        if alone {
            return Err(Need::Flush); // others came: the next attempt meets PENDING and does the full round
        }
        self.ctx.count(Event::CowFlushes);
        work.carried = Some(Carried { entry: new, frame });
        Err(Need::Flush)
    }

    /// Flushes this CPU, the only one, and makes the copy writable. `Ok(false)`: another CPU has started to run the
    /// space, nothing was done.
    fn finish_alone(&self, source: FrameId, bits: PageBits) -> Result<bool, Need<M>> {
        if flush_if_alone(self.ctx, &self.core.mask, self.core.root, self.address).is_none() {
            return Ok(false);
        }
        if !bits.special {
            self.ctx.put(source, 1, 1);
        }
        self.exchange_touched(|entry| self.made_own(entry))?;
        Ok(true)
    }

    /// AC-01: what was file or zero is anonymous now; what was anonymous stays it.
    fn account_copy(&self, source: FrameId, bits: PageBits, work: &mut Work) {
        self.ctx.count(if bits.special { Event::FaultCowZero } else { Event::FaultCow });
        work.delta.page(Kind::Anon, 1);
        if !bits.special {
            work.delta.page(self.ctx.record(source).kind(), -1);
        }
    }
}
