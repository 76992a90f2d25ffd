//! How much address space is mapped, locked and promised, and how much may be: VmSize, VmPeak, VmData, VmLck, the number
//! of areas, Committed_AS (AC-04, AC-06).
//!
//! Counted where changes of the index are committed, under the stripes' locks, by each CPU in a line of its own. Two
//! operations in different stripes may meet at a limit, so what an operation adds is counted before it is checked, and
//! taken back if it is too much.

use super::Core;
use crate::addr::VirtAddr;
use crate::area::{Area, AreaFlags, Attributes, Changes, Class, Index, StripeGuard};
use crate::frame::Ctx;
use crate::machine::{Format, Machine};
use crate::sync::plain::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::{Gauge, NoMemory, Ordering, fence};
use alloc::boxed::Box;
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

/// One CPU's part of what is mapped.
#[repr(align(64))]
#[derive(Default)]
struct Shard {
    pages: Gauge,
    areas: Gauge,
    data: Gauge,
    locked: Gauge,
    promised: Gauge,
}

/// The counters of a space, and its limits. All alone atomic.
pub(crate) struct Account {
    shards: Box<[Shard]>, // each written by its CPU only
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
        self.tally(area.class(), area.range.pages().cast_signed(), 1);
    }

    /// What it comes to that one area goes and one comes, or only one of both.
    #[inline]
    pub(super) fn of_swap<M: Machine>(new: Option<&Area<M>>, old: Option<&Area<M>>) -> Self {
        let mut growth = Self::default();
        growth.add_swap(new, old);
        if growth.has_objects
            && let (Some(new), Some(old)) = (new, old)
        {
            // If both show the same object, that is shown by as many areas as before.
            growth.has_objects = !is_same_object(new, old);
        }
        growth
    }

    #[inline]
    fn add_swap<M: Machine>(&mut self, new: Option<&Area<M>>, old: Option<&Area<M>>) {
        match (new, old) {
            (Some(new), Some(old)) if new.class() == old.class() => {
                self.tally(new.class(), new.range.pages().cast_signed() - old.range.pages().cast_signed(), 0);
            }
            _ => {
                new.into_iter().for_each(|area| self.tally(area.class(), area.range.pages().cast_signed(), 1));
                old.into_iter().for_each(|area| self.tally(area.class(), -area.range.pages().cast_signed(), -1));
            }
        }
    }

    #[inline]
    fn tally(&mut self, class: Class, pages: i64, areas: i64) {
        self.pages += pages;
        self.areas += areas;
        self.data += class.count(Class::DATA, pages);
        self.locked += class.count(Class::LOCKED, pages);
        self.promised += class.count(Class::PROMISED, pages);
        self.has_objects |= class.is(Class::OBJECT);
        self.has_watched |= class.is(Class::WATCHED);
    }

    /// Does any area of it show an object, which must hear of it?
    #[inline]
    pub(super) fn has_objects(&self) -> bool {
        self.has_objects
    }

    /// Is any area of it watched?
    #[inline]
    pub(super) fn has_watched(&self) -> bool {
        self.has_watched
    }

    /// Pages that are promised.
    pub(super) fn promised(&self) -> u64 {
        self.promised.max(0).cast_unsigned()
    }
}

/// Do both show the same object, and may both store to it or none?
#[inline(never)]
fn is_same_object<M: Machine>(a: &Attributes<M>, b: &Attributes<M>) -> bool {
    match (&a.object, &b.object) {
        (Some(object), Some(other)) => Arc::ptr_eq(object, other) && a.may_store() == b.may_store(),
        _ => false,
    }
}

impl Shard {
    /// Counts a change, or takes it back.
    #[inline]
    fn apply(&self, growth: &Growth, sign: i64) {
        self.pages.add(growth.pages * sign);
        self.areas.add(growth.areas * sign);
        self.data.add(growth.data * sign);
        self.locked.add(growth.locked * sign);
        self.promised.add(growth.promised * sign);
    }
}

impl Account {
    /// Nothing mapped, no limits, on a machine of `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        let unlimited = || AtomicU64::new(u64::MAX);
        Self {
            shards: (0..cpus).map(|_| Shard::default()).collect(),
            peak: AtomicI64::new(0),
            most_pages: unlimited(),
            most_areas: unlimited(),
            most_data: unlimited(),
            most_locked: unlimited(),
            defaults: AtomicU32::new(0),
            has_sealed: AtomicBool::new(false),
        }
    }

    #[inline]
    fn sum(&self, part: impl Fn(&Shard) -> &Gauge) -> i64 {
        self.shards.iter().map(|shard| part(shard).get()).sum()
    }

    fn pages(&self) -> u64 {
        self.sum(|shard| &shard.pages).max(0).cast_unsigned()
    }

    /// Counts a change, or says what is in the way.
    #[inline(always)]
    fn admit<M: Machine>(&self, ctx: Ctx<'_, M>, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        if growth.pages < 0 && admission != Admission::Half {
            self.note_peak();
        }
        let shard = &self.shards[ctx.cpu.index()];
        shard.apply(growth, 1);
        let result = match admission {
            Admission::Half => Ok(()),
            _ => self.look(growth, admission),
        };
        let result = result.and_then(|()| self.promise(ctx, growth, admission));
        if result.is_err() {
            shard.apply(growth, -1);
        }
        result
    }

    #[inline]
    fn note_peak(&self) {
        let pages = self.sum(|shard| &shard.pages);
        if pages > self.peak.load(Relaxed) {
            self.peak.fetch_max(pages, Relaxed);
        }
    }

    /// Are the counters, which contain `growth`, within the limits that it concerns?
    #[inline]
    fn look(&self, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        let is_fresh = admission == Admission::Fresh;
        if growth.areas > 0 && exceeds(&self.most_areas, || self.sum(|shard| &shard.areas) - i64::from(is_fresh)) {
            return Err(Excess::Areas);
        }
        // As Linux, a new mapping is looked at even if it adds nothing, and one of data by what it adds in all.
        let pages = growth.pages > 0 || is_fresh;
        let excess = pages && exceeds(&self.most_pages, || self.sum(|shard| &shard.pages))
            || growth.data > 0 && exceeds(&self.most_data, || self.data_as(growth, is_fresh))
            || growth.locked > 0 && exceeds(&self.most_locked, || self.sum(|shard| &shard.locked));
        if excess { Err(Excess::Other) } else { Ok(()) }
    }

    fn data_as(&self, growth: &Growth, is_fresh: bool) -> i64 {
        let data = self.sum(|shard| &shard.data);
        if is_fresh { data - growth.data + growth.pages } else { data }
    }

    #[inline]
    fn promise<M: Machine>(&self, ctx: Ctx<'_, M>, growth: &Growth, admission: Admission) -> Result<(), Excess> {
        let (commit, cpu) = (ctx.memory.commit(), Some(ctx.cpu.index()));
        if growth.promised > 0 && admission != Admission::Half {
            let promised = commit.promise(cpu, growth.promised.cast_unsigned(), || self.pages());
            return promised.map_err(|_| Excess::Other);
        }
        if growth.promised != 0 {
            commit.adjust(cpu, growth.promised);
        }
        Ok(())
    }

    /// May so many pages of a mapping be added? Nothing is counted.
    pub(super) fn has_room_for<M: Machine>(&self, ctx: Ctx<'_, M>, pages: u64, like: &Attributes<M>) -> bool {
        if pages == 0 {
            return true;
        }
        let (commit, cpu) = (ctx.memory.commit(), Some(ctx.cpu.index()));
        let promised = !like.flags.contains(AreaFlags::ACCOUNTED) || {
            let allowed = commit.promise(cpu, pages, || self.pages()).is_ok();
            if allowed {
                commit.adjust(cpu, -pages.cast_signed());
            }
            allowed
        };
        let added = pages.min(i64::MAX as u64).cast_signed();
        let fits = |most, part: fn(&Shard) -> &Gauge| !exceeds(most, || self.sum(part).saturating_add(added));
        fits(&self.most_pages, |shard| &shard.pages)
            && (!like.is_data() || fits(&self.most_data, |shard| &shard.data))
            && (!like.flags.contains(AreaFlags::LOCKED) || fits(&self.most_locked, |shard| &shard.locked))
            && promised
    }

    /// Starts a child: its areas, and its parent's limits. What is promised was asked for.
    pub(super) fn inherit<M: Machine>(&self, ctx: Ctx<'_, M>, growth: &Growth, parent: &Self) {
        self.shards[ctx.cpu.index()].apply(growth, 1);
        self.set_limits(parent.limits());
        self.has_sealed.store(parent.has_sealed.load(Relaxed), Relaxed);
    }

    /// Forgets the areas of a space that was taken down, in which nobody counts any more; the mark stays.
    pub(super) fn reset<M: Machine>(&self, ctx: Ctx<'_, M>) {
        self.note_peak();
        ctx.memory.commit().adjust(Some(ctx.cpu.index()), -self.sum(|shard| &shard.promised));
        for shard in &self.shards {
            let parts = [&shard.pages, &shard.areas, &shard.data, &shard.locked, &shard.promised];
            parts.into_iter().for_each(|part| part.add(-part.get()));
        }
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
        let count = |part: fn(&Shard) -> &Gauge| self.sum(part).max(0).cast_unsigned();
        let pages = self.pages();
        Extent {
            pages,
            areas: count(|shard| &shard.areas),
            peak: pages.max(self.peak.load(Relaxed).max(0).cast_unsigned()),
            data: count(|shard| &shard.data),
            locked: count(|shard| &shard.locked),
        }
    }
}

/// Is what `now` counts, which contains what the caller added, more than `most`?
#[inline]
fn exceeds(most: &AtomicU64, now: impl FnOnce() -> i64) -> bool {
    let most = most.load(Relaxed);
    if most == u64::MAX {
        return false;
    }
    // Of two that add at a time, at least one sees what the other has added.
    fence(Ordering::SeqCst);
    now().max(0).cast_unsigned() > most
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
        self.admit(ctx, &growth, admission)?;
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

    /// Counts a change.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] if the limits do not allow it; then nothing has happened.
    #[inline(always)]
    pub(super) fn admit(&self, ctx: Ctx<'_, M>, growth: &Growth, admission: Admission) -> Result<(), NoMemory> {
        match self.account.admit(ctx, growth, admission) {
            Ok(()) => Ok(()),
            Err(Excess::Areas) if self.cuts_excuse(ctx, growth, admission) => {
                self.account.admit(ctx, growth, Admission::Half).map_err(|_| NoMemory)
            }
            Err(_) => Err(NoMemory),
        }
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
            let admitted = self.account.admit(ctx, &rest, admission).is_ok();
            if admitted {
                self.account.shards[ctx.cpu.index()].apply(&rest, -1);
                ctx.memory.commit().adjust(Some(ctx.cpu.index()), -rest.promised);
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
fn growth_of<M: Machine>(changes: &Changes<M>, guard: &StripeGuard<'_>) -> Growth {
    let mut growth = Growth::default();
    for change in changes.iter() {
        change.inserted(guard).for_each(|area| growth.add_swap(Some(area), None));
        change.replaced(guard).for_each(|area| growth.add_swap(None, Some(area)));
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
