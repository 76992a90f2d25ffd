//! mremap: grow or shrink a mapping, or move it with its pages.
//!
//! A move closes the area first: faults of it wait outside their sections, and those under way are waited for. From then
//! on nobody but the holder of the stripe locks changes what is mapped there, so the sweep that takes the entries out
//! needs neither stamps nor generations, and the tables for the new place can be made before anything has changed. The
//! new area opens when the old translations are flushed and the pages are in place (ZP-10, hole 13 of PROTOCOL).

use super::Core;
use super::extent::Admission;
use super::map::{MapError, stripe_parts};
use super::settle::NoTables;
use super::unmap::UnmapError;
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, RangeEvent, Sharing, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{NoMemory, mutant};
use crate::table::{self, Delta, Moved, Progress, Removed, Rewrite, Stop, Sweep};

/// Where a mapping may go when it is resized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// It stays where it is.
    InPlace,
    /// Where there is room, if it cannot stay (MREMAP_MAYMOVE).
    Anywhere,
    /// To the address; what is mapped there is replaced (MREMAP_FIXED).
    Fixed(VirtAddr),
}

/// A request to resize or move a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemapRequest {
    /// First address.
    pub addr: VirtAddr,
    /// Bytes now, a multiple of the page size; 0 maps what a shared mapping shows a second time.
    pub old_len: u64,
    /// Bytes afterwards, a multiple of the page size.
    pub new_len: u64,
    /// Where it may go.
    pub destination: Destination,
    /// The old mapping stays, without its pages (MREMAP_DONTUNMAP). Always moves; lengths are equal.
    pub keep: bool,
}

/// Why a mapping was neither resized nor moved. What had to make room for [`Destination::Fixed`] may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapError {
    /// A length, an address or their combination makes no sense (EINVAL).
    Invalid,
    /// The old range is not one mapping, or one that cannot grow (EFAULT).
    Unmapped,
    /// No room, or no memory for areas or tables (ENOMEM).
    NoMemory,
    /// It is sealed (EPERM).
    Sealed,
}

impl From<NoMemory> for RemapError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl From<NoTables> for RemapError {
    fn from(NoTables: NoTables) -> Self {
        Self::NoMemory
    }
}

impl From<UnmapError> for RemapError {
    fn from(error: UnmapError) -> Self {
        match error {
            UnmapError::Sealed => Self::Sealed,
            UnmapError::Invalid => Self::Invalid,
            UnmapError::NoMemory => Self::NoMemory,
        }
    }
}

/// A checked move: `old` becomes the first part of `new`.
struct Move<M: Machine> {
    old: PageRange,
    new: PageRange,
    /// What the new area says; its range is `new`.
    attributes: Attributes<M>,
    keep: bool,
}

impl<M: Machine> Core<M> {
    /// Resizes or moves a mapping. Returns where it is.
    pub(crate) fn remap(&self, ctx: Ctx<'_, M>, request: RemapRequest) -> Result<VirtAddr, RemapError> {
        let RemapRequest { addr, old_len, new_len, destination, keep } = request;
        let aligned = addr.is_aligned() && old_len.is_multiple_of(PAGE_SIZE) && new_len.is_multiple_of(PAGE_SIZE);
        if !aligned || new_len == 0 || keep && (old_len != new_len || destination == Destination::InPlace) {
            return Err(RemapError::Invalid);
        }
        let highest = self.layout.highest.as_u64();
        if addr.as_u64() >= highest || old_len > highest - addr.as_u64() {
            return Err(RemapError::Unmapped);
        }
        if new_len > highest {
            return Err(RemapError::NoMemory);
        }
        if let Destination::Fixed(target) = destination {
            return self.remap_fixed(ctx, &request, target);
        }
        if !keep && old_len >= new_len {
            return self.shrink(ctx, &request).map(|()| addr);
        }
        if !keep && old_len != 0 && self.expand(ctx, &request)? {
            return Ok(addr);
        }
        if destination == Destination::InPlace {
            return Err(RemapError::NoMemory);
        }
        self.remap_anywhere(ctx, &request)
    }

    /// Unmaps what is behind the new length.
    fn shrink(&self, ctx: Ctx<'_, M>, request: &RemapRequest) -> Result<(), RemapError> {
        let (low, high) = (request.addr.as_u64() + request.new_len, request.addr.as_u64() + request.old_len);
        let guard = self.lock(ctx, request.addr.as_u64(), high.max(low + 1));
        self.index.find(request.addr, &guard).ok_or(RemapError::Unmapped)?;
        let Ok(tail) = PageRange::new(VirtAddr::new(low), VirtAddr::new(high)) else {
            return Ok(());
        };
        Ok(self.unmap_locked(ctx, tail, &guard)?)
    }

    /// Makes the mapping longer where it is, if it ends where the old range does and there is room behind.
    fn expand(&self, ctx: Ctx<'_, M>, request: &RemapRequest) -> Result<bool, RemapError> {
        let (low, end) = (request.addr.as_u64(), request.addr.as_u64() + request.old_len);
        let high = request.addr.checked_add(request.new_len).filter(|high| *high <= self.layout.highest);
        // A stack above keeps no gap here, as on Linux.
        let guard = self.lock(ctx, low, high.map_or(end, VirtAddr::as_u64));
        // Before all that is about room: where nothing is mapped, that is the error.
        let attributes = self.movable(request, &guard)?;
        let Some(high) = high else { return Ok(false) };
        let range = PageRange::new(VirtAddr::new(end), high).map_err(|_| RemapError::Invalid)?;
        let last = self.index.previous(end, &guard);
        let ends_here = last.is_some_and(|area| area.range.end().as_u64() == end);
        if !ends_here || !self.is_free(range, &guard) || self.has_exited() {
            return Ok(false);
        }
        let offset = attributes.offset.checked_add(request.old_len).ok_or(RemapError::Invalid)?;
        let mut changes = Changes::new();
        let flags = attributes.flags | AreaFlags::SOFT_DIRTY;
        self.prepare_map(range, &Attributes { range, flags, offset, ..attributes }, &guard, &mut changes)
            .map_err(|_| RemapError::NoMemory)?;
        self.commit_all(ctx, &mut changes, &guard, || {})?;
        Ok(true)
    }

    /// What the mapping in the old range says, if it is one mapping and may be resized.
    fn movable(&self, request: &RemapRequest, guard: &StripeGuard<'_>) -> Result<Attributes<M>, RemapError> {
        let first = self.index.find(request.addr, guard).ok_or(RemapError::Unmapped)?;
        if request.old_len == 0 && first.sharing == Sharing::Private {
            return Err(RemapError::Invalid);
        }
        let end = request.addr.as_u64() + request.old_len;
        let mut area = first;
        // Ends: each round passes one area. More than one only where a stripe border cuts a mapping.
        while area.range.end().as_u64() < end {
            let next = self.index.find(area.range.end(), guard).ok_or(RemapError::Unmapped)?;
            if !area.is_cut_from(next) {
                return Err(RemapError::Unmapped);
            }
            area = next;
        }
        if first.flags.contains(AreaFlags::SEALED) {
            return Err(RemapError::Sealed);
        }
        if first.flags.contains(AreaFlags::NONLINEAR) && request.keep {
            return Err(RemapError::Invalid); // what stays would show other pages than before
        }
        if first.flags.contains(AreaFlags::HUGETLB) && !is_large_move::<M>(request) {
            return Err(RemapError::Invalid);
        }
        if first.flags.contains(AreaFlags::RAW) && request.new_len > request.old_len {
            return Err(RemapError::Unmapped); // PF-09
        }
        let skip = request.addr.as_u64() - first.range.start().as_u64();
        let offset = first.offset.checked_add(skip).ok_or(RemapError::Invalid)?;
        if first.object.is_some() && offset.checked_add(request.new_len).is_none() {
            return Err(RemapError::Invalid);
        }
        Ok(Attributes { offset, ..(**first).clone() })
    }

    fn remap_fixed(&self, ctx: Ctx<'_, M>, request: &RemapRequest, target: VirtAddr) -> Result<VirtAddr, RemapError> {
        let RemapRequest { addr, old_len, new_len, keep, .. } = *request;
        let new = PageRange::with_len(target, new_len).map_err(|_| RemapError::Invalid)?;
        if new.end() > self.layout.highest || new.start() < self.layout.lowest {
            return Err(RemapError::Invalid);
        }
        let old_end = addr.as_u64() + old_len;
        if new.start().as_u64() < old_end && addr < new.end() {
            return Err(RemapError::Invalid);
        }
        let guard = self.lock(ctx, addr.min(target).as_u64(), old_end.max(new.end().as_u64()));
        if self.has_exited() {
            return Err(RemapError::NoMemory);
        }
        self.movable(request, &guard)?;
        self.unmap_locked(ctx, new, &guard)?;
        if let Ok(tail) = PageRange::new(VirtAddr::new(addr.as_u64() + new_len), VirtAddr::new(old_end)) {
            self.unmap_locked(ctx, tail, &guard)?;
        }
        self.move_to(ctx, &RemapRequest { old_len: old_len.min(new_len), keep, ..*request }, new, &guard)?;
        Ok(target)
    }

    /// Moves to where mmap would find room: the highest within one stripe, else across borders.
    fn remap_anywhere(&self, ctx: Ctx<'_, M>, request: &RemapRequest) -> Result<VirtAddr, RemapError> {
        let (low, top) = (self.layout.lowest.as_u64(), self.layout.mmap_top.as_u64());
        let old = (request.addr.as_u64(), request.addr.as_u64() + request.old_len.max(PAGE_SIZE));
        for stripe in (Index::<M>::stripe_of(low)..=Index::<M>::stripe_of(top - 1)).rev() {
            let (start, end) = Index::<M>::bounds(stripe);
            if request.new_len > end - start {
                break;
            }
            let guard = self.lock(ctx, start.min(old.0), end.max(old.1));
            if self.has_exited() {
                return Err(RemapError::NoMemory);
            }
            self.movable(request, &guard)?;
            let Some(found) = self.index.highest_gap_in(stripe, low, top, request.new_len, &guard) else {
                continue;
            };
            return self.move_found(ctx, request, found, &guard);
        }
        let guard = self.lock(ctx, 0, crate::table::user_end::<M::Format>());
        let found = self.highest_gap_across(low, top, request.new_len, &guard).ok_or(RemapError::NoMemory)?;
        self.move_found(ctx, request, found, &guard)
    }

    fn move_found(
        &self,
        ctx: Ctx<'_, M>,
        request: &RemapRequest,
        found: u64,
        guard: &StripeGuard<'_>,
    ) -> Result<VirtAddr, RemapError> {
        let found = VirtAddr::new(found);
        let new = PageRange::with_len(found, request.new_len).map_err(|_| RemapError::NoMemory)?;
        self.move_to(ctx, request, new, guard)?;
        Ok(found)
    }

    /// Moves the old range to `new`, where nothing is. The stripes of both are locked.
    fn move_to(
        &self,
        ctx: Ctx<'_, M>,
        request: &RemapRequest,
        new: PageRange,
        guard: &StripeGuard<'_>,
    ) -> Result<(), RemapError> {
        let attributes = self.movable(request, guard)?;
        let watch = Self::following(attributes.watch.as_ref()).filter(|_| request.old_len != 0);
        // What is new at an address is soft-dirty there.
        let flags = attributes.flags | AreaFlags::SOFT_DIRTY;
        let attributes = Attributes { range: new, flags, watch: watch.clone(), ..attributes };
        let Ok(old) = PageRange::with_len(request.addr, request.old_len) else {
            // Nothing moves: the object is shown a second time.
            let flags = attributes.flags.without(AreaFlags::NONLINEAR);
            return self.map_at(ctx, new, &Attributes { flags, ..attributes }, guard).map_err(|error: MapError| {
                match error {
                    MapError::Invalid | MapError::Overflow => RemapError::Invalid,
                    _ => RemapError::NoMemory,
                }
            });
        };
        let added = if request.keep { request.new_len } else { request.new_len.saturating_sub(request.old_len) };
        if !self.account.has_room_for(ctx, added / PAGE_SIZE, &attributes) {
            return Err(RemapError::NoMemory);
        }
        let watchers = self.watchers_of(old, guard)?;
        let plan = Move { old, new, attributes, keep: request.keep };
        self.close(ctx, old, guard);
        let result = self.move_closed(ctx, &plan, guard);
        // The old areas, or what is left of them.
        self.open(old, guard);
        self.open(new, guard);
        if result.is_ok() {
            self.merge(ctx, new, guard);
            if let Some(watch) = watch {
                Self::tell_moved(&watch, old, new.start());
            }
            if !request.keep {
                // As on Linux: moved or not, nothing is there any more.
                watchers.tell(RangeEvent::Unmapped(old));
            }
        }
        result
    }

    /// Keeps the faults of the areas in `range` waiting, and waits for those under way.
    pub(super) fn close(&self, ctx: Ctx<'_, M>, range: PageRange, guard: &StripeGuard<'_>) {
        self.index.each(range.start().as_u64(), range.end().as_u64(), guard, &mut |area| {
            if !mutant::is(mutant::Mutant::MoveWithoutClose) {
                area.close();
            }
            true
        });
        if !mutant::is(mutant::Mutant::MoveWithoutWait) {
            ctx.wait_for_sections(self.section_name());
        }
    }

    pub(super) fn open(&self, range: PageRange, guard: &StripeGuard<'_>) {
        self.index.each(range.start().as_u64(), range.end().as_u64(), guard, &mut |area| {
            area.open();
            true
        });
    }

    /// Prepares all that can fail, in an order in which each step can be taken back, then moves.
    fn move_closed(&self, ctx: Ctx<'_, M>, plan: &Move<M>, guard: &StripeGuard<'_>) -> Result<(), RemapError> {
        let (low, high) = (plan.old.start().as_u64(), plan.old.end().as_u64());
        let by = plan.new.start().as_u64().wrapping_sub(low);
        let rewrite = |window| Rewrite::Move { window, range: (low, high), by };
        self.prepare_tables(ctx, low, high, rewrite((0, 0)))?;
        let is_large = plan.attributes.flags.contains(AreaFlags::HUGETLB);
        if is_large {
            self.clear_strays(ctx, plan.new.start().as_u64(), plan.new.end().as_u64());
        }
        self.make_room(ctx, (low, high), by)?;
        // From here on a failure leaves tables where no area is: they go with the next operation there.
        self.insert_closed(ctx, plan, guard).inspect_err(|_| self.note_strays())?;
        let mut window = (0, 0);
        if !plan.keep {
            window = self.take_areas(ctx, plan.old, guard).inspect_err(|_| {
                self.note_strays();
                let undone = self.take_areas(ctx, plan.new, guard);
                debug_assert!(undone.is_ok(), "a whole area is taken out without memory");
            })?;
        }
        self.relocate(ctx, low, high, rewrite(window));
        if is_large {
            self.move_large(ctx, low, high, by);
        }
        Ok(())
    }

    /// Puts the new area in, closed, and not merged with its neighbours, so that it can be taken out again.
    fn insert_closed(&self, ctx: Ctx<'_, M>, plan: &Move<M>, guard: &StripeGuard<'_>) -> Result<(), RemapError> {
        let mut changes = Changes::new();
        for part in stripe_parts::<M>(plan.new) {
            let (low, high) = (part.start().as_u64(), part.end().as_u64());
            let place = self.index.place(low, guard);
            let change = Index::change(&mut changes, low)?;
            change.insert(plan.attributes.part(part))?;
            change.prepare(&place, low, high)?;
        }
        if !mutant::is(mutant::Mutant::MoveOpensEarly) {
            changes.iter().flat_map(|change| change.inserted(guard)).for_each(Area::close);
        }
        Ok(self.commit_as(ctx, &mut changes, guard, Admission::Half, || {})?)
    }

    /// Takes the areas of `range` out of the index; what sticks out stays. Returns the gap around it.
    fn take_areas(&self, ctx: Ctx<'_, M>, range: PageRange, guard: &StripeGuard<'_>) -> Result<(u64, u64), RemapError> {
        let mut changes = Changes::new();
        let window = self.prepare_unmap(range, guard, &mut changes)?;
        self.commit_as(ctx, &mut changes, guard, Admission::Half, || {})?;
        Ok(window)
    }

    pub(super) fn make_room(&self, ctx: Ctx<'_, M>, range: (u64, u64), by: u64) -> Result<(), RemapError> {
        let (mut removed, mut delta) = (Removed::new(), Delta::default());
        // Ends: it is repeated only for a table that a fault of a dead area has put in the way.
        loop {
            let section = ctx.enter(self.section_name());
            let made = table::make_room(ctx, self.root, range, by, &mut removed, &mut delta);
            self.counters.post(ctx, &core::mem::take(&mut delta));
            drop(section);
            self.settle(ctx, &mut removed);
            self.touch(VirtAddr::new(range.0.wrapping_add(by)));
            self.touch(VirtAddr::new((range.1 - 1).wrapping_add(by)));
            match made {
                Ok(()) => return Ok(()),
                Err(Stop::NoMemory) => {
                    self.note_strays(); // what was made stays, and goes with the next operation there
                    return Err(RemapError::NoMemory);
                }
                Err(Stop::Retry | Stop::Frozen) => {}
            }
        }
    }

    /// Takes everything out, flushes, and puts it in at the new place, as much at a time as a [`Moved`] holds.
    pub(super) fn relocate(&self, ctx: Ctx<'_, M>, low: u64, high: u64, rewrite: Rewrite) {
        let (mut removed, mut moved) = (Removed::new(), Moved::new());
        let mut at = low;
        // Ends: each round passes what it has moved.
        loop {
            // Quiet: the area was closed and its faults waited for.
            let mut sweep = Sweep::new(ctx, self.root, rewrite, true, &mut removed);
            sweep.strays = self.strays.load(crate::sync::Ordering::Relaxed);
            sweep.moved = Some(&mut moved);
            let mut delta = Delta::default();
            let progress = self.round(ctx, &mut sweep, |sweep| {
                let progress = sweep.run(at, high);
                if mutant::is(mutant::Mutant::MoveBeforeFlush) {
                    sweep.install_early(&mut delta);
                }
                progress
            });
            let section = ctx.enter(self.section_name());
            table::install(ctx, self.root, &mut moved, &mut removed, &mut delta);
            self.counters.post(ctx, &delta);
            drop(section);
            self.settle(ctx, &mut removed);
            match progress {
                Progress::Done => return,
                Progress::Resume(address) => at = address,
                Progress::NoMemory(_) => {
                    unreachable!("the tables were prepared, and nobody forks under the stripe locks")
                }
            }
        }
    }

    /// Merges the area of `range` with its neighbours, if there is memory for that.
    fn merge(&self, ctx: Ctx<'_, M>, range: PageRange, guard: &StripeGuard<'_>) {
        for part in stripe_parts::<M>(range) {
            let Some(area) = self.index.find(part.start(), guard) else { continue };
            let mut changes = Changes::new();
            let place = self.index.place(part.start().as_u64(), guard);
            if self.prepare_replace(&mut changes, &place, part, Some((**area).clone())).is_ok() {
                // Merging adds nothing.
                let _ = self.commit_all(ctx, &mut changes, guard, || {});
            }
        }
    }
}

/// Does a request for large pages of the pool line up with them, and ask for no more than they allow? As on Linux they
/// neither grow nor are kept.
fn is_large_move<M: Machine>(request: &RemapRequest) -> bool {
    let target = if let Destination::Fixed(target) = request.destination { target.as_u64() } else { 0 };
    let all = [request.addr.as_u64(), request.old_len, request.new_len, target];
    let aligned = all.into_iter().all(|place| place.is_multiple_of(crate::object::Object::<M>::large_size()));
    aligned && request.old_len != 0 && request.new_len <= request.old_len && !request.keep
}
