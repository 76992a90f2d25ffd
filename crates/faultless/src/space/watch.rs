//! Watching ranges, and putting pages into them from outside (userfaultfd). Protocol P13.
//!
//! Called by `engine`. A range is watched by its areas, so beginning and ending a watch are changes of the index like any
//! other. Pages are put in as faults put them in: by one exact compare-exchange on an EMPTY entry that was loaded before
//! the area was seen alive.

use super::{Core, settle::NoTables};
use crate::addr::{PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Sharing, StripeGuard, Watch, WatchModes, Watcher};
use crate::frame::{Ctx, Kind};
use crate::machine::format::{Leaf, PageBits, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::object::{Object, ObjectError, PageState, PutIn};
use crate::sync::{NoMemory, Ordering, Section, mutant};
use crate::table::{Delta, Found, Removed, Rewrite, Stop, find, load, populate, span};
use alloc::sync::Arc;

/// Why a range is not watched, or a page was not put in. What lies before the page was dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchError {
    /// Nothing there can be watched, or the range is not watched for what is asked (EINVAL).
    Invalid,
    /// A mapping that may never be written (EPERM).
    ReadOnly,
    /// Somebody else watches it, or a page is not this space's alone (EBUSY).
    Busy,
    /// Nobody watches it, or there is no page to be moved (ENOENT).
    Absent,
    /// There is a page, or a mark in its place (EEXIST).
    Exists,
    /// The object has no such page (EFAULT).
    NoPage,
    /// No frame, or no heap (ENOMEM).
    NoMemory,
}

impl From<NoTables> for WatchError {
    fn from(NoTables: NoTables) -> Self {
        Self::NoMemory
    }
}

impl From<NoMemory> for WatchError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// What is put where nothing is.
#[derive(Clone, Copy, Debug)]
pub enum Fill<'a> {
    /// A page with these bytes (UFFDIO_COPY); zeroes behind them.
    Bytes(&'a [u8]),
    /// A page of zeroes (UFFDIO_ZEROPAGE).
    Zeroes,
    /// The page that the object has (UFFDIO_CONTINUE).
    Cached,
    /// Nothing, for ever: accesses end in SIGBUS (UFFDIO_POISON).
    Lost,
}

/// Why an attempt put nothing in.
pub(super) enum Stuck {
    /// Somebody else's change won, or is under way.
    Retry,
    /// No frame.
    Memory,
    /// The end.
    Error(WatchError),
}

impl From<WatchError> for Stuck {
    fn from(error: WatchError) -> Self {
        Stuck::Error(error)
    }
}

impl<M: Machine> Attributes<M> {
    /// Can it be watched at all?
    fn is_watchable(&self) -> bool {
        let kind = match &self.object {
            None => self.sharing == Sharing::Private,
            Some(object) => object.is_memory(),
        };
        kind && !self.flags.intersects(AreaFlags::RAW | AreaFlags::NONLINEAR | AreaFlags::HUGETLB)
    }

    /// Who watches it, unless they have gone.
    pub(super) fn live_watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref().filter(|watch| !watch.watcher.is_closed())
    }

    /// The entry of an anonymous page that is put in, its generation aside.
    fn entry_of(&self, frame: crate::FrameId, special: bool, marked: bool) -> Raw {
        let execute = self.rights.contains(Rights::EXECUTE);
        let write = self.rights.contains(Rights::WRITE) && !special && !marked;
        let bits = PageBits { write, execute, exclusive: !special, special, dirty: !special, marked, pending: false };
        let page = M::Format::page(frame, bits, 0);
        let page = if special { page } else { M::Format::with_soft(page) };
        if self.rights.is_none() { M::Format::page_to_none(page, 0) } else { page }
    }
}

impl<M: Machine> Core<M> {
    /// Has `watcher` told of the faults in `range` from now on, holes left out.
    pub(crate) fn watch(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        watcher: &Arc<dyn Watcher>,
        modes: WatchModes,
    ) -> Result<(), WatchError> {
        let guard = self.lock_checked(ctx, range)?;
        let watch = Arc::new(Watch { watcher: Arc::clone(watcher), modes });
        self.each_watchable(range, &guard, |area, _| {
            if !area.is_watchable() || modes.minor && area.object.is_none() {
                return Err(WatchError::Invalid);
            }
            if !area.max_rights.contains(Rights::WRITE) {
                return Err(WatchError::ReadOnly);
            }
            let other = area.live_watch().is_some_and(|watch| !watch.is_by(watcher));
            if other { Err(WatchError::Busy) } else { Ok(()) }
        })?;
        let done = self
            .set_watch(ctx, range, Some(&watch), &guard)
            .and_then(|()| self.make_watchable(ctx, range, &watch, &guard));
        if done.is_err() {
            // What was watched for less before is not watched now: as good as before, for nobody may rely on it.
            let undone = self.set_watch(ctx, range, None, &guard);
            debug_assert!(undone.is_ok() || done == Err(WatchError::NoMemory), "only memory is missing");
        }
        done
    }

    /// Has any range ever been watched?
    pub(crate) fn is_watched(&self) -> bool {
        // Relaxed: a hint where no lock is held.
        self.watched.load(Ordering::Relaxed)
    }

    /// Nobody is told of the faults in `range` any more; who waits looks again.
    pub(crate) fn unwatch(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), WatchError> {
        let guard = self.lock_checked(ctx, range)?;
        self.each_watchable(
            range,
            &guard,
            |area, _| if area.is_watchable() { Ok(()) } else { Err(WatchError::Invalid) },
        )?;
        self.set_watch(ctx, range, None, &guard)
    }

    fn lock_checked<'a>(&'a self, ctx: Ctx<'a, M>, range: PageRange) -> Result<StripeGuard<'a>, WatchError> {
        if range.end() > self.layout.highest {
            return Err(WatchError::Invalid);
        }
        Ok(self.lock(ctx, range.start().as_u64(), range.end().as_u64()))
    }

    /// Calls `each` with the areas that `range` meets and their part of it. [`WatchError::Invalid`] if there are none.
    fn each_watchable(
        &self,
        range: PageRange,
        guard: &StripeGuard<'_>,
        mut each: impl FnMut(&Area<M>, PageRange) -> Result<(), WatchError>,
    ) -> Result<(), WatchError> {
        let (mut at, mut any) = (range.start(), false);
        // Ends: each round passes an area.
        while let Some(area) = self.index.next(at.as_u64(), guard).filter(|area| area.range.start() < range.end()) {
            let part = area.range.intersect(range).ok_or(WatchError::Invalid)?;
            (at, any) = (part.end(), true);
            each(area, part)?;
            if at >= range.end() {
                break;
            }
        }
        if any { Ok(()) } else { Err(WatchError::Invalid) }
    }

    /// Gives the areas of `range` another watch, or none.
    fn set_watch(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        watch: Option<&Arc<Watch>>,
        guard: &StripeGuard<'_>,
    ) -> Result<(), WatchError> {
        self.each_watchable(range, guard, |area, part| {
            if watch.is_none() && area.watch.is_none() {
                return Ok(());
            }
            self.split_edges(ctx, part.start().as_u64(), part.end().as_u64())?;
            let middle = Attributes { watch: watch.cloned(), ..area.part(part) };
            let place = self.index.place(part.start().as_u64(), guard);
            let mut changes = Changes::new();
            self.prepare_replace(&mut changes, &place, part, Some(middle))?;
            Ok(self.commit_all(ctx, &mut changes, guard, || {})?)
        })
    }

    /// After the areas are watched: no fault is under way that does not know it, no large page is left, and no mark of
    /// an earlier life.
    fn make_watchable(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        watch: &Watch,
        guard: &StripeGuard<'_>,
    ) -> Result<(), WatchError> {
        // Relaxed: read under the stripe locks, by exit.
        self.watched.store(true, Ordering::Relaxed);
        if !mutant::is(mutant::Mutant::WatchWithoutWait) {
            ctx.wait_for_sections(self.section_name());
        }
        self.each_watchable(range, guard, |area, part| {
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            if area.object.is_none() {
                self.split_all(ctx, low, high)?;
            }
            if watch.modes.stores {
                let clean = Rewrite::Mark { on: false, empty: true };
                self.prepare_tables(ctx, low, high, clean)?;
                self.sweep_alive(ctx, low, high, clean)?;
            }
            Ok(())
        })
    }

    /// Splits the large pages of a range in which no fault makes any.
    fn split_all(&self, ctx: Ctx<'_, M>, low: u64, high: u64) -> Result<(), NoTables> {
        if ctx.memory.huge_ever() == 0 {
            return Ok(());
        }
        let covered = span::<M::Format>(1);
        for start in (low & !(covered - 1)..high).step_by(covered as usize) {
            let address = VirtAddr::new(start.max(low));
            let section = ctx.enter(self.section_name());
            let is_huge = matches!(find(ctx, self.root, address), Found::Huge { .. });
            drop(section);
            if is_huge {
                self.make_path(ctx, address)?;
            }
        }
        Ok(())
    }

    /// After a change of the index: wakes those who wait for faults of areas that left, but where an area of the same
    /// watcher has taken their place.
    #[cold]
    pub(super) fn wake_unwatched(&self, replaced: &Area<M>, guard: &StripeGuard<'_>) {
        let Some(watch) = replaced.watch.as_ref().filter(|_| !mutant::is(mutant::Mutant::UnwatchWithoutWake)) else {
            return;
        };
        let wake = |from, to| {
            if let Ok(range) = PageRange::new(from, to) {
                watch.watcher.wake(range);
            }
        };
        let (mut at, end) = (replaced.range.start(), replaced.range.end());
        self.index.each(at.as_u64(), end.as_u64(), guard, &mut |area| {
            if area.watch.as_ref().is_some_and(|now| now.modes == watch.modes && now.is_by(&watch.watcher)) {
                wake(at, area.range.start().min(end));
                at = at.max(area.range.end());
            }
            true
        });
        wake(at, end);
    }

    /// Marks the pages of `range`, so that the next store to each is reported, or takes the marks away: in objects, and
    /// where the watcher wants it, also those that are not there yet.
    pub(crate) fn mark(&self, ctx: Ctx<'_, M>, range: PageRange, on: bool) -> Result<(), WatchError> {
        let guard = self.lock_checked(ctx, range)?;
        let found = self.each_watchable(range, &guard, |area, _| {
            if area.live_watch().is_some_and(|watch| watch.modes.stores) { Ok(()) } else { Err(WatchError::Absent) }
        });
        found.map_err(|_| WatchError::Absent)?;
        self.each_watchable(range, &guard, |area, part| {
            let empty = area.object.is_some() || area.live_watch().is_some_and(|watch| watch.watcher.marks_absent());
            let (low, high, mark) = (part.start().as_u64(), part.end().as_u64(), Rewrite::Mark { on, empty });
            if on && empty {
                self.make_leaf_tables(ctx, part).map_err(|_| WatchError::NoMemory)?;
            }
            self.prepare_tables(ctx, low, high, mark)?;
            Ok(self.sweep_alive(ctx, low, high, mark)?)
        })
    }

    /// Before pages of `area` are discarded: in anonymous memory, no mark stays for the pages that come, as on Linux.
    #[cold]
    pub(super) fn forget_marks(&self, ctx: Ctx<'_, M>, area: &Area<M>, low: u64, high: u64) -> Result<(), NoTables> {
        let clean = Rewrite::Mark { on: false, empty: true };
        if area.object.is_some() || !area.live_watch().is_some_and(|watch| watch.watcher.marks_absent()) {
            return Ok(());
        }
        self.prepare_tables(ctx, low, high, clean)?;
        self.sweep_alive(ctx, low, high, clean)
    }

    /// Puts a page, or what stands for none, where nothing is, in a range that is watched.
    pub(crate) fn fill(&self, ctx: Ctx<'_, M>, at: VirtAddr, fill: Fill<'_>, marked: bool) -> Result<(), WatchError> {
        let mut collected = false;
        // Ends: it is repeated only after another operation's success, and once for memory.
        loop {
            let (mut removed, mut delta) = (Removed::new(), Delta::default());
            let section = ctx.enter(self.section_name());
            let done = self.fill_inside(ctx, at, fill, marked, &section, (&mut removed, &mut delta));
            if delta.tables != 0 {
                self.touch(at);
            }
            self.counters.post(ctx, &delta);
            drop(section);
            self.settle(ctx, &mut removed);
            match done {
                Ok(()) => return Ok(()),
                Err(Stuck::Error(error)) => return Err(error),
                Err(Stuck::Memory) if !core::mem::replace(&mut collected, true) => {
                    ctx.collect();
                }
                Err(Stuck::Memory) => return Err(WatchError::NoMemory),
                Err(Stuck::Retry) => {
                    ctx.relax();
                    crate::sync::spin_hint();
                }
            }
        }
    }

    fn fill_inside(
        &self,
        ctx: Ctx<'_, M>,
        at: VirtAddr,
        fill: Fill<'_>,
        marked: bool,
        section: &Section<'_>,
        (removed, delta): (&mut Removed, &mut Delta),
    ) -> Result<(), Stuck> {
        let area = self.index.find(at, section).ok_or(WatchError::Absent)?;
        if area.is_pending() {
            return Err(Stuck::Retry);
        }
        let watch = area.live_watch().ok_or(WatchError::Absent)?;
        if marked && !watch.modes.stores {
            return Err(WatchError::Invalid.into());
        }
        let slot = populate(ctx, self.root, at, removed, delta);
        if delta.tables != 0 && area.is_dead() {
            self.note_strays(); // as for a fault
        }
        let slot = slot.map_err(|stop| match stop {
            Stop::NoMemory => Stuck::Memory,
            Stop::Retry | Stop::Frozen => Stuck::Retry,
        })?;
        let entry = load(slot);
        // P1: after the load, as for a fault.
        if area.is_dead() && !mutant::is(mutant::Mutant::FillWithoutLook) {
            return Err(Stuck::Retry);
        }
        match M::Format::leaf(entry) {
            Leaf::Empty => {}
            // A page that was lost can be had back, as on Linux.
            Leaf::Lost if matches!(fill, Fill::Bytes(_) | Fill::Cached) => {}
            _ => return Err(WatchError::Exists.into()),
        }
        let place = Empty { area, slot, entry };
        match (&area.object, fill) {
            (_, Fill::Lost) => place.put(M::Format::lost(0)),
            (None, Fill::Cached) => Err(WatchError::Invalid.into()),
            (Some(object), fill) => place.fill_object(ctx, object, at, fill, marked, delta),
            (None, fill) => place.fill_own(ctx, fill, marked, delta),
        }
    }
}

/// An EMPTY or LOST entry of a live area that is watched.
pub(super) struct Empty<'a, M: Machine> {
    pub(super) area: &'a Area<M>,
    pub(super) slot: &'a AtomicEntry,
    pub(super) entry: Raw,
}

impl<M: Machine> Empty<'_, M> {
    /// The commit, as that of a fault.
    fn put(&self, new: Raw) -> Result<(), Stuck> {
        let new = M::Format::with_generation(new, M::Format::generation(self.entry));
        // Release publishes the frame's contents and record with the entry.
        match self.slot.compare_exchange(self.entry, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stuck::Retry),
        }
    }

    /// An anonymous page of our own.
    pub(super) fn fill_own(
        &self,
        ctx: Ctx<'_, M>,
        fill: Fill<'_>,
        marked: bool,
        delta: &mut Delta,
    ) -> Result<(), Stuck> {
        let Fill::Bytes(bytes) = fill else {
            return self.put(self.area.entry_of(ctx.memory.zero_frame(), true, marked));
        };
        let frame = ctx.alloc_zeroed(Kind::Anon).ok_or(Stuck::Memory)?;
        ctx.machine().write(frame.id(), 0, bytes);
        let frame = ctx.publish(frame, 1, 1);
        self.put(self.area.entry_of(frame, false, marked)).inspect_err(|_| ctx.put(frame, 1, 1))?;
        delta.page(Kind::Anon, 1);
        Ok(())
    }

    fn fill_object(
        &self,
        ctx: Ctx<'_, M>,
        object: &Object<M>,
        at: VirtAddr,
        fill: Fill<'_>,
        marked: bool,
        delta: &mut Delta,
    ) -> Result<(), Stuck> {
        let index = self.area.page_index(at);
        if object.is_past_end(index) {
            return Err(WatchError::NoPage.into());
        }
        let bytes = match fill {
            Fill::Cached => return self.map_cached(ctx, object, index, marked, delta),
            _ if self.area.sharing == Sharing::Private => return self.fill_own(ctx, fill, marked, delta),
            Fill::Bytes(bytes) => bytes,
            _ => &[],
        };
        let frame = ctx.alloc_zeroed(object.kind()).ok_or(Stuck::Memory)?;
        ctx.machine().write(frame.id(), 0, bytes);
        match object.put_in(ctx, index, frame) {
            // Mapping it can be left to the next access.
            Ok(PutIn::Done) if !marked => self.map_cached(ctx, object, index, false, delta).or(Ok(())),
            // The mark is in the entry.
            Ok(PutIn::Done) => self.map_cached(ctx, object, index, true, delta),
            Ok(PutIn::Exists) => Err(WatchError::Exists.into()),
            Ok(PutIn::PastEnd) => Err(WatchError::NoPage.into()),
            Err(ObjectError::OutOfMemory) => Err(Stuck::Memory),
            Err(_) => Err(WatchError::NoPage.into()),
        }
    }

    /// Maps the object's page as a fault that reads would.
    pub(super) fn map_cached(
        &self,
        ctx: Ctx<'_, M>,
        object: &Object<M>,
        index: u64,
        marked: bool,
        delta: &mut Delta,
    ) -> Result<(), Stuck> {
        let PageState::Resident(frame) = object.page(ctx, index, 1) else {
            return Err(WatchError::NoPage.into());
        };
        let rights = self.area.rights;
        let write = self.area.sharing == Sharing::Shared && rights.contains(Rights::WRITE) && !marked;
        let bits = PageBits { write, execute: rights.contains(Rights::EXECUTE), marked, ..PageBits::default() };
        let page = M::Format::page(frame, bits, 0);
        let page = if rights.is_none() { M::Format::page_to_none(page, 0) } else { page };
        self.put(page).inspect_err(|_| ctx.put(frame, 1, 1))?;
        delta.page(object.kind(), 1);
        Ok(())
    }
}

const _: () = assert!(PAGE_SIZE == 4096, "bytes of a page");
