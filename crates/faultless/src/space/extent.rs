//! How much address space is mapped, and how much may be: VmSize, VmPeak, the number of areas (AC-04, AC-06).
//!
//! Counted where changes of the index are committed, under the stripes' locks; two operations in different stripes may
//! meet at a limit, so what an operation adds is counted before it is checked, and taken back if it is too much.

use super::Core;
use crate::addr::PAGE_SIZE;
use crate::area::{Area, Changes, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::NoMemory;
use crate::sync::plain::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// What is mapped. An area that a stripe border cuts counts as two.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    /// Pages of address space.
    pub pages: u64,
    /// Areas.
    pub areas: u64,
    /// Most pages there ever were.
    pub peak: u64,
}

/// What may be mapped: operations that would add more fail for want of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pages of address space (RLIMIT_AS).
    pub pages: u64,
    /// Areas (vm.max_map_count).
    pub areas: u64,
}

impl Limits {
    /// Whatever fits.
    pub const NONE: Self = Self { pages: u64::MAX, areas: u64::MAX };
}

/// What operations add and take away.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Growth {
    pages: i64,
    areas: i64,
}

/// The counters of a space. All alone atomic.
pub(crate) struct Account {
    pages: AtomicI64,
    areas: AtomicI64,
    peak: AtomicI64,
    most_pages: AtomicU64,
    most_areas: AtomicU64,
}

/// Is a change held against the limits?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// Yes, if it adds anything.
    Checked,
    /// No: it is one half of a move, and the sum was checked. Nor does it set a new mark (AC-04).
    Half,
}

impl Growth {
    /// Adds an area that comes.
    pub(super) fn add<M: Machine>(&mut self, area: &Area<M>) {
        self.pages += (area.range.len() / PAGE_SIZE) as i64;
        self.areas += 1;
    }

    /// Takes away an area that leaves.
    pub(super) fn sub<M: Machine>(&mut self, area: &Area<M>) {
        self.pages -= (area.range.len() / PAGE_SIZE) as i64;
        self.areas -= 1;
    }
}

impl Account {
    /// Nothing mapped, no limits.
    pub(crate) fn new() -> Self {
        Self {
            pages: AtomicI64::new(0),
            areas: AtomicI64::new(0),
            peak: AtomicI64::new(0),
            most_pages: AtomicU64::new(u64::MAX),
            most_areas: AtomicU64::new(u64::MAX),
        }
    }

    /// Counts a change, or refuses it.
    #[inline]
    pub(super) fn admit(&self, growth: Growth, admission: Admission) -> Result<(), NoMemory> {
        if growth == Growth::default() {
            return Ok(());
        }
        if growth.pages < 0 && admission == Admission::Checked {
            self.peak.fetch_max(self.pages.load(Relaxed), Relaxed);
        }
        let pages = self.pages.fetch_add(growth.pages, Relaxed) + growth.pages;
        let areas = self.areas.fetch_add(growth.areas, Relaxed) + growth.areas;
        let too_many = |added: i64, now: i64, most: &AtomicU64| added > 0 && now.cast_unsigned() > most.load(Relaxed);
        let exceeds =
            too_many(growth.pages, pages, &self.most_pages) || too_many(growth.areas, areas, &self.most_areas);
        if exceeds && admission == Admission::Checked {
            self.pages.fetch_sub(growth.pages, Relaxed);
            self.areas.fetch_sub(growth.areas, Relaxed);
            return Err(NoMemory);
        }
        Ok(())
    }

    /// May so many pages be added?
    pub(super) fn has_room_for(&self, pages: u64) -> bool {
        pages == 0 || self.pages.load(Relaxed).cast_unsigned().saturating_add(pages) <= self.most_pages.load(Relaxed)
    }

    /// Starts a child: its areas, and its parent's limits.
    pub(super) fn inherit(&self, growth: Growth, parent: &Self) {
        self.pages.store(growth.pages, Relaxed);
        self.areas.store(growth.areas, Relaxed);
        self.set_limits(Limits { pages: parent.most_pages.load(Relaxed), areas: parent.most_areas.load(Relaxed) });
    }

    /// Forgets the areas of a space that was taken down; the mark stays.
    pub(super) fn reset(&self) {
        self.peak.fetch_max(self.pages.swap(0, Relaxed), Relaxed);
        self.areas.store(0, Relaxed);
    }

    /// Sets the limits of later operations.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.most_pages.store(limits.pages, Relaxed);
        self.most_areas.store(limits.areas, Relaxed);
    }

    /// What is mapped.
    pub(crate) fn extent(&self) -> Extent {
        let count = |counter: &AtomicI64| counter.load(Relaxed).max(0).cast_unsigned();
        let pages = count(&self.pages);
        Extent { pages, areas: count(&self.areas), peak: pages.max(count(&self.peak)) }
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
        let (mut growth, mut watched) = (Growth::default(), false);
        for change in changes.iter() {
            change.inserted(guard).for_each(|area| growth.add(area));
            change.replaced(guard).for_each(|area| {
                growth.sub(area);
                watched |= area.watch.is_some();
            });
        }
        self.account.admit(growth, admission)?;
        changes.each_mut(|change| self.index.commit(ctx, change, guard));
        sweep();
        if watched {
            changes.iter().flat_map(|change| change.replaced(guard)).for_each(|area| self.wake_unwatched(area, guard));
        }
        changes.each_mut(|change| change.retire_replaced(ctx));
        Ok(())
    }
}
