//! How much address space is mapped, locked and promised, and how much may be: VmSize, VmPeak, VmData, VmLck, the number
//! of areas, Committed_AS (AC-04, AC-06).
//!
//! Counted where changes of the index are committed, under the stripes' locks; two operations in different stripes may
//! meet at a limit, so what an operation adds is counted before it is checked, and taken back if it is too much.

use super::Core;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, StripeGuard};
use crate::frame::{Commit, Ctx};
use crate::machine::{Format, Machine};
use crate::sync::NoMemory;
use crate::sync::plain::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use alloc::sync::Arc;

/// What is mapped. An area that a stripe border cuts counts as two.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    /// Pages of address space.
    pub pages: u64,
    /// Areas.
    pub areas: u64,
    /// Most pages there ever were.
    pub peak: u64,
    /// Pages of private writable areas that are no stacks.
    pub data: u64,
    /// Pages of locked areas (VmLck).
    pub locked: u64,
}

/// What may be mapped: operations that would add more fail for want of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pages of address space (RLIMIT_AS).
    pub pages: u64,
    /// Areas (vm.max_map_count). A new mapping may make one more, as on Linux; a split may not. An area that a stripe
    /// border cuts counts as one.
    pub areas: u64,
    /// Pages of private writable areas that are no stacks (RLIMIT_DATA).
    pub data: u64,
    /// Pages of locked areas (RLIMIT_MEMLOCK).
    pub locked: u64,
}

impl Limits {
    /// Whatever fits.
    pub const NONE: Self = Self { pages: u64::MAX, areas: u64::MAX, data: u64::MAX, locked: u64::MAX };
}

/// What operations add and take away.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Growth {
    pages: i64,
    areas: i64,
    data: i64,
    locked: i64,
    promised: i64,
    /// Does any area of it show an object?
    has_objects: bool,
    /// Is any area of it watched?
    has_watched: bool,
}

/// The counters of a space. All alone atomic.
pub(crate) struct Account {
    pages: AtomicI64,
    areas: AtomicI64,
    data: AtomicI64,
    locked: AtomicI64,
    promised: AtomicI64,
    peak: AtomicI64,
    most_pages: AtomicU64,
    most_areas: AtomicU64,
    most_data: AtomicU64,
    most_locked: AtomicU64,
    /// Flags that new areas get (mlockall).
    defaults: AtomicU32,
    /// Was anything ever sealed?
    has_sealed: AtomicBool,
}

/// Is a change held against the limits?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// Yes, if it adds anything.
    Checked,
    /// Yes, as a new mapping: also if it only replaces, and by the pages it adds for each kind of page.
    Fresh,
    /// No: it is one half of a move, and the sum was checked. Nor does it set a new mark (AC-04).
    Half,
}

/// Which limit was in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Excess {
    Areas,
    Other,
}

impl Growth {
    /// Adds an area that comes.
    #[inline]
    pub(super) fn add<M: Machine>(&mut self, area: &Attributes<M>) {
        self.tally(area, (area.range.len() / PAGE_SIZE) as i64, 1);
    }

    /// Takes away an area that leaves.
    #[inline]
    fn sub<M: Machine>(&mut self, area: &Attributes<M>) {
        self.tally(area, -((area.range.len() / PAGE_SIZE) as i64), -1);
    }

    /// What it comes to that one area takes the place of another: mostly a change of rights, which is little.
    #[inline]
    fn of_swap<M: Machine>(new: &Attributes<M>, old: &Attributes<M>) -> Self {
        let pages = (new.range.len() / PAGE_SIZE) as i64;
        let by = |new: bool, old: bool| {
            if new == old {
                0
            } else if new {
                pages
            } else {
                -pages
            }
        };
        let has = |flag| by(new.flags.contains(flag), old.flags.contains(flag));
        let same_object = match (&new.object, &old.object) {
            (None, None) => true,
            (Some(new_object), Some(old_object)) => {
                Arc::ptr_eq(new_object, old_object) && new.may_store() == old.may_store()
            }
            _ => false,
        };
        Self {
            pages: 0,
            areas: 0,
            data: by(new.is_data(), old.is_data()),
            locked: has(AreaFlags::LOCKED),
            promised: has(AreaFlags::ACCOUNTED),
            has_objects: !same_object,
            has_watched: old.watch.is_some(),
        }
    }

    /// Does it change nothing but what is data?
    #[inline]
    fn is_of_kind(&self) -> bool {
        self.pages == 0 && self.areas == 0 && self.locked == 0 && self.promised == 0
    }

    #[inline]
    fn tally<M: Machine>(&mut self, area: &Attributes<M>, pages: i64, areas: i64) {
        self.pages += pages;
        self.areas += areas;
        self.data += if area.is_data() { pages } else { 0 };
        self.has_objects |= area.object.is_some();
        self.has_watched |= area.watch.is_some();
        if area.flags.intersects(AreaFlags::LOCKED | AreaFlags::ACCOUNTED) {
            self.locked += if area.flags.contains(AreaFlags::LOCKED) { pages } else { 0 };
            self.promised += if area.flags.contains(AreaFlags::ACCOUNTED) { pages } else { 0 };
        }
    }

    /// Pages that are promised.
    pub(super) fn promised(&self) -> u64 {
        self.promised.max(0).cast_unsigned()
    }
}

impl Account {
    /// Nothing mapped, no limits.
    pub(crate) fn new() -> Self {
        let (none, unlimited) = (|| AtomicI64::new(0), || AtomicU64::new(u64::MAX));
        Self {
            pages: none(),
            areas: none(),
            data: none(),
            locked: none(),
            promised: none(),
            peak: none(),
            most_pages: unlimited(),
            most_areas: unlimited(),
            most_data: unlimited(),
            most_locked: unlimited(),
            defaults: AtomicU32::new(0),
            has_sealed: AtomicBool::new(false),
        }
    }

    /// Counts a change, or says what is in the way.
    #[inline]
    fn admit(&self, commit: &Commit, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        if growth.is_of_kind() && admission == Admission::Checked {
            return self.admit_kind(growth.data);
        }
        self.admit_all(commit, growth, admission)
    }

    /// The same where nothing but rights changes.
    #[inline]
    fn admit_kind(&self, data: i64) -> Result<(), Excess> {
        if data == 0 {
            return Ok(());
        }
        let now = self.data.fetch_add(data, Relaxed) + data;
        if data > 0 && now.max(0).cast_unsigned() > self.most_data.load(Relaxed) {
            self.data.fetch_sub(data, Relaxed);
            return Err(Excess::Other);
        }
        Ok(())
    }

    fn admit_all(&self, commit: &Commit, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        if growth.pages < 0 && admission != Admission::Half {
            self.note_peak();
        }
        self.apply(growth, 1);
        if admission == Admission::Half {
            commit.adjust(growth.promised);
            return Ok(());
        }
        let mut result = self.look(growth, admission);
        if result.is_ok() {
            result = self.promise(commit, growth);
        }
        if result.is_err() {
            self.apply(growth, -1);
        }
        result
    }

    fn note_peak(&self) {
        let pages = self.pages.load(Relaxed);
        if pages > self.peak.load(Relaxed) {
            self.peak.fetch_max(pages, Relaxed);
        }
    }

    #[inline]
    fn apply(&self, growth: &Growth, sign: i64) {
        let parts = [
            (&self.pages, growth.pages),
            (&self.areas, growth.areas),
            (&self.data, growth.data),
            (&self.locked, growth.locked),
            (&self.promised, growth.promised),
        ];
        for (counter, by) in parts {
            if by != 0 {
                counter.fetch_add(by * sign, Relaxed);
            }
        }
    }

    /// Are the counters, which contain `growth`, within the limits that it concerns?
    #[inline]
    fn look(&self, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        let is_fresh = admission == Admission::Fresh;
        let exceeds = |now: i64, most: &AtomicU64| now.max(0).cast_unsigned() > most.load(Relaxed);
        if growth.areas > 0 {
            let spare = i64::from(is_fresh);
            if exceeds(self.areas.load(Relaxed) - spare, &self.most_areas) {
                return Err(Excess::Areas);
            }
        }
        // As Linux, a new mapping is looked at even if it adds nothing, and one of data by what it adds in all.
        let pages = growth.pages > 0 || is_fresh;
        let excess = pages && exceeds(self.pages.load(Relaxed), &self.most_pages)
            || growth.data > 0 && exceeds(self.data_as(growth, is_fresh), &self.most_data)
            || growth.locked > 0 && exceeds(self.locked.load(Relaxed), &self.most_locked);
        if excess { Err(Excess::Other) } else { Ok(()) }
    }

    fn data_as(&self, growth: &Growth, is_fresh: bool) -> i64 {
        let data = self.data.load(Relaxed);
        if is_fresh { data - growth.data + growth.pages } else { data }
    }

    #[inline]
    fn promise(&self, commit: &Commit, growth: &Growth) -> Result<(), Excess> {
        if growth.promised <= 0 {
            commit.adjust(growth.promised);
            return Ok(());
        }
        let mapped = self.pages.load(Relaxed).max(0).cast_unsigned();
        commit.promise(growth.promised.cast_unsigned(), mapped).map_err(|_| Excess::Other)
    }

    /// May so many pages of a mapping be added? Nothing is counted.
    pub(super) fn has_room_for<M: Machine>(&self, commit: &Commit, pages: u64, like: &Attributes<M>) -> bool {
        let fits = |now: &AtomicI64, most: &AtomicU64| {
            now.load(Relaxed).max(0).cast_unsigned().saturating_add(pages) <= most.load(Relaxed)
        };
        if pages == 0 {
            return true;
        }
        let mapped = self.pages.load(Relaxed).max(0).cast_unsigned();
        let promised = !like.flags.contains(AreaFlags::ACCOUNTED) || {
            let allowed = commit.promise(pages, mapped).is_ok();
            if allowed {
                commit.adjust(-pages.cast_signed());
            }
            allowed
        };
        fits(&self.pages, &self.most_pages)
            && (!like.is_data() || fits(&self.data, &self.most_data))
            && (!like.flags.contains(AreaFlags::LOCKED) || fits(&self.locked, &self.most_locked))
            && promised
    }

    /// Starts a child: its areas, and its parent's limits. What is promised was asked for.
    pub(super) fn inherit(&self, growth: &Growth, parent: &Self) {
        self.apply(growth, 1);
        self.set_limits(parent.limits());
        self.has_sealed.store(parent.has_sealed.load(Relaxed), Relaxed);
    }

    /// Forgets the areas of a space that was taken down; the mark stays.
    pub(super) fn reset(&self, commit: &Commit) {
        self.peak.fetch_max(self.pages.swap(0, Relaxed), Relaxed);
        [&self.areas, &self.data, &self.locked].into_iter().for_each(|counter| counter.store(0, Relaxed));
        commit.adjust(-self.promised.swap(0, Relaxed));
    }

    /// Sets the limits of later operations.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.most_pages.store(limits.pages, Relaxed);
        self.most_areas.store(limits.areas, Relaxed);
        self.most_data.store(limits.data, Relaxed);
        self.most_locked.store(limits.locked, Relaxed);
    }

    /// The limits of later operations.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            pages: self.most_pages.load(Relaxed),
            areas: self.most_areas.load(Relaxed),
            data: self.most_data.load(Relaxed),
            locked: self.most_locked.load(Relaxed),
        }
    }

    /// Flags that new areas get.
    pub(crate) fn defaults(&self) -> AreaFlags {
        AreaFlags::from_bits(self.defaults.load(Relaxed))
    }

    /// Sets the flags that new areas get.
    pub(crate) fn set_defaults(&self, flags: AreaFlags) {
        self.defaults.store(flags.bits(), Relaxed);
    }

    /// What is mapped.
    pub(crate) fn extent(&self) -> Extent {
        let count = |counter: &AtomicI64| counter.load(Relaxed).max(0).cast_unsigned();
        let pages = count(&self.pages);
        Extent {
            pages,
            areas: count(&self.areas),
            peak: pages.max(count(&self.peak)),
            data: count(&self.data),
            locked: count(&self.locked),
        }
    }
}

impl<M: Machine> Core<M> {
    /// Publishes prepared changes, runs `sweep`, then retires the areas that were replaced.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] if the limits do not allow it; then nothing has happened.
    pub(super) fn commit_all(
        &self,
        ctx: Ctx<'_, M>,
        changes: &mut Changes<M>,
        guard: &StripeGuard<'_>,
        sweep: impl FnOnce(),
    ) -> Result<(), NoMemory> {
        self.commit_as(ctx, changes, guard, Admission::Checked, sweep)
    }

    /// The same with limits or without.
    pub(super) fn commit_as(
        &self,
        ctx: Ctx<'_, M>,
        changes: &mut Changes<M>,
        guard: &StripeGuard<'_>,
        admission: Admission,
        sweep: impl FnOnce(),
    ) -> Result<(), NoMemory> {
        let growth = growth_of(changes, guard);
        let mut admitted = self.account.admit(ctx.memory.commit(), &growth, admission);
        if admitted == Err(Excess::Areas) && self.cuts_excuse(ctx, &growth, admission) {
            admitted = self.account.admit(ctx.memory.commit(), &growth, Admission::Half);
        }
        admitted.map_err(|_| NoMemory)?;
        if growth.has_objects {
            note_objects(changes, guard);
        }
        changes.each_mut(|change| self.index.commit(ctx, change, guard));
        sweep();
        if growth.has_watched {
            changes.iter().flat_map(|change| change.replaced(guard)).for_each(|area| self.wake_unwatched(area, guard));
        }
        changes.each_mut(|change| change.retire_replaced(ctx));
        Ok(())
    }

    /// Are there areas to spare if those that a stripe border cuts count as one?
    #[cold]
    fn cuts_excuse(&self, ctx: Ctx<'_, M>, growth: &Growth, admission: Admission) -> bool {
        let cuts = self.cuts(ctx);
        let limits = self.account.limits();
        let after = self.account.extent().areas.saturating_add_signed(growth.areas);
        let spare = u64::from(admission == Admission::Fresh);
        let excused = after.saturating_sub(cuts + spare) <= limits.areas;
        let rest = Growth { areas: 0, ..*growth };
        excused && cuts != 0 && {
            // Everything but the number of areas is looked at again.
            let admitted = self.account.admit(ctx.memory.commit(), &rest, admission).is_ok();
            if admitted {
                self.account.apply(&rest, -1);
                ctx.memory.commit().adjust(-rest.promised);
            }
            admitted
        }
    }

    /// Stripe borders that cut an area.
    fn cuts(&self, ctx: Ctx<'_, M>) -> u64 {
        let section = ctx.enter(self.section_name());
        let is_cut = |stripe: &usize| {
            let (border, _) = Index::<M>::bounds(*stripe);
            let below = self.index.find(VirtAddr::new(border - 1), &section);
            let above = self.index.find(VirtAddr::new(border), &section);
            below.zip(above).is_some_and(|(below, above)| below.is_cut_from(above))
        };
        (1..M::Format::STRIPES).filter(is_cut).count() as u64
    }

    /// Does a prepared change take out anything that is sealed?
    pub(super) fn breaks_seal(&self, changes: &Changes<M>, guard: &StripeGuard<'_>) -> bool {
        let is_sealed = |area: &Area<M>| area.flags.contains(AreaFlags::SEALED);
        self.has_sealed() && changes.iter().any(|change| change.replaced(guard).any(is_sealed))
    }

    /// Was anything ever sealed?
    #[inline]
    pub(super) fn has_sealed(&self) -> bool {
        // Relaxed: set before the flag of the area, which the stripe locks order.
        self.account.has_sealed.load(Relaxed)
    }

    /// Notes that something is about to be sealed.
    pub(super) fn note_sealed(&self) {
        self.account.has_sealed.store(true, Relaxed);
    }
}

/// What prepared changes add and take away.
#[inline]
fn growth_of<M: Machine>(changes: &Changes<M>, guard: &StripeGuard<'_>) -> Growth {
    if let Some((new, old)) = changes.only().and_then(|change| change.swap(guard))
        && new.range == old.range
    {
        return Growth::of_swap(new, old);
    }
    let mut growth = Growth::default();
    for change in changes.iter() {
        change.inserted(guard).for_each(|area| growth.add(area));
        change.replaced(guard).for_each(|area| growth.sub(area));
    }
    growth
}

/// Tells the objects by how many areas they are shown.
#[inline(never)]
fn note_objects<M: Machine>(changes: &Changes<M>, guard: &StripeGuard<'_>) {
    for change in changes.iter() {
        change.inserted(guard).for_each(|area| area.note_object(1));
        change.replaced(guard).for_each(|area| area.note_object(-1));
    }
}
