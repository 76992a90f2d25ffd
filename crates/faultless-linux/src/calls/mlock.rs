//! `mlock` and its relatives.
//!
//! Nothing is taken away from programs yet, so a page that is there stays; what locking does is to bring pages in, to
//! count them (VmLck, `RLIMIT_MEMLOCK`) and to refuse calls that would take them out.

use faultless::{AdviseError, AreaFlags, FaultError, Machine, PAGE_SIZE, PageRange, Populate, VirtAddr};
use linux_raw_sys::general as linux;

use crate::flags::page_align;
use crate::memory::LOCKING;
use crate::{Caller, Errno};

/// Brings the pages of the range in and keeps them. Areas before one that stops it are locked, and stay so.
///
/// # Errors
///
/// `EPERM` (nothing may be locked), `ENOMEM` (too much, holes, pages that cannot be had), `EINVAL` (the range wraps),
/// `EAGAIN` (no memory for a page).
pub fn mlock<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64) -> Result<(), Errno> {
    lock(caller, start, length, AreaFlags::LOCKED)
}

/// The same; with `MLOCK_ONFAULT` pages are kept once they are there.
///
/// # Errors
///
/// As [`mlock`], and `EINVAL` for other flags.
pub fn mlock2<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, flags: u32) -> Result<(), Errno> {
    if flags & !linux::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    let wanted = if flags == 0 { AreaFlags::LOCKED } else { LOCKING };
    lock(caller, start, length, wanted)
}

fn lock<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, wanted: AreaFlags) -> Result<(), Errno> {
    if !caller.may_lock_any() {
        return Err(Errno::EPERM);
    }
    let (start, length) = whole_pages(start, length);
    if !caller.may_lock(length / PAGE_SIZE) {
        let known = caller.locked_in(start, start.saturating_add(length));
        if !caller.may_lock((length / PAGE_SIZE).saturating_sub(known)) {
            return Err(Errno::ENOMEM);
        }
    }
    let end = set(caller, start, length, wanted)?;
    caller.populate_areas(start, end, LOCKED_OR_LARGE).map_err(|fault| match fault {
        FaultError::OutOfMemory | FaultError::Watched => Errno::EAGAIN,
        FaultError::Denied | FaultError::Bus | FaultError::Unmapped => Errno::ENOMEM,
    })
}

/// Lets the pages of the range go again.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`.
pub fn munlock<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64) -> Result<(), Errno> {
    let (start, length) = whole_pages(start, length);
    set(caller, start, length, AreaFlags::NONE).map(drop)
}

/// The pages that a range touches, as Linux computes them: lengths wrap.
fn whole_pages(start: u64, length: u64) -> (u64, u64) {
    let offset = start % PAGE_SIZE;
    (start - offset, page_align(length.wrapping_add(offset)))
}

/// What is brought in by locking: large pages of the pool too, though they are not marked as locked.
const LOCKED_OR_LARGE: AreaFlags = AreaFlags::LOCKED.union(AreaFlags::HUGETLB);
/// What is never locked. Large pages of the pool stay anyway.
const NEVER: AreaFlags = AreaFlags::RAW.union(AreaFlags::DROPPABLE).union(AreaFlags::HUGETLB);

/// Gives the areas of the range these of the two flags of locking, up to the first hole. Returns the range's end.
fn set<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, wanted: AreaFlags) -> Result<u64, Errno> {
    let end = start.wrapping_add(length);
    if end < start {
        return Err(Errno::EINVAL);
    }
    let mut at = start;
    // Ends: each round passes one area.
    while at < end {
        let area =
            if at < caller.memory.end() { caller.memory.space.area_at(caller.cpu, VirtAddr::new(at)) } else { None };
        let area = area.ok_or(Errno::ENOMEM)?;
        let stop = area.range.end().as_u64().min(end);
        if !area.flags.intersects(NEVER) {
            let part = PageRange::new(VirtAddr::new(at), VirtAddr::new(stop)).map_err(|_| Errno::EINVAL)?;
            change(caller, part, wanted).map_err(|_| Errno::ENOMEM)?;
        }
        at = stop;
    }
    Ok(end)
}

fn change<M: Machine>(caller: &mut Caller<'_, M>, part: PageRange, wanted: AreaFlags) -> Result<(), AdviseError> {
    caller.memory.space.set_flags(caller.cpu, part, wanted, LOCKING.without(wanted), |_| true)
}

/// Locks what is mapped, what will be, or both.
///
/// # Errors
///
/// `EINVAL`, `EPERM` (nothing may be locked), `ENOMEM` (too much).
pub fn mlockall<M: Machine>(caller: &mut Caller<'_, M>, flags: u32) -> Result<(), Errno> {
    let known = linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT;
    if flags == 0 || flags & !known != 0 || flags == linux::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    if !caller.may_lock_any() {
        return Err(Errno::EPERM);
    }
    let is_current = flags & linux::MCL_CURRENT != 0;
    let mapped = caller.memory.space.extent().pages;
    if is_current && mapped > caller.limits.locked / PAGE_SIZE && !caller.limits.may_lock {
        return Err(Errno::ENOMEM);
    }
    let wanted = if flags & linux::MCL_ONFAULT == 0 { AreaFlags::LOCKED } else { LOCKING };
    let future = if flags & linux::MCL_FUTURE != 0 { wanted } else { AreaFlags::NONE };
    caller.memory.space.set_default_flags(future);
    if is_current {
        set_all(caller, wanted);
        // What cannot be had is passed over.
        caller.each_part_of_all(|caller, start, end| {
            let _ = caller.populate_areas(start, end, LOCKED_OR_LARGE);
        });
    }
    Ok(())
}

/// Lets all pages go, and those of later mappings.
///
/// # Errors
///
/// None today.
pub fn munlockall<M: Machine>(caller: &mut Caller<'_, M>) -> Result<(), Errno> {
    caller.memory.space.set_default_flags(AreaFlags::NONE);
    set_all(caller, AreaFlags::NONE);
    Ok(())
}

/// Changes all areas; Linux passes over those that cannot be changed, too.
fn set_all<M: Machine>(caller: &mut Caller<'_, M>, wanted: AreaFlags) {
    caller.each_part_of_all(|caller, start, end| {
        let Ok(part) = PageRange::new(VirtAddr::new(start), VirtAddr::new(end)) else { return };
        let area = caller.memory.space.area_at(caller.cpu, part.start());
        if area.is_some_and(|area| !area.flags.intersects(NEVER)) {
            let _ = change(caller, part, wanted);
        }
    });
}

impl<M: Machine> Caller<'_, M> {
    /// May this process lock anything at all?
    pub(crate) fn may_lock_any(&self) -> bool {
        self.limits.may_lock || self.limits.locked != 0
    }

    /// May so many more pages be locked?
    pub(crate) fn may_lock(&self, pages: u64) -> bool {
        let locked = self.memory.space.extent().locked;
        self.limits.may_lock || locked.saturating_add(pages) <= self.limits.locked / PAGE_SIZE
    }

    /// Locked pages of a range.
    fn locked_in(&mut self, start: u64, end: u64) -> u64 {
        let mut pages = 0;
        self.each(|area| {
            let (from, to) = (area.range.start().as_u64().max(start), area.range.end().as_u64().min(end));
            if area.flags.contains(AreaFlags::LOCKED) && from < to {
                pages += (to - from) / PAGE_SIZE;
            }
        });
        pages
    }

    /// Brings in the pages of the locked areas of a range, unless they come when they are used. Stops at the first that
    /// cannot be had.
    pub(crate) fn populate_locked(&mut self, start: u64, end: u64) -> Result<(), FaultError> {
        self.populate_areas(start, end, AreaFlags::LOCKED)
    }

    /// The same for areas that have any of these flags.
    fn populate_areas(&mut self, start: u64, end: u64, wanted: AreaFlags) -> Result<(), FaultError> {
        let mut failed = Ok(());
        let _ = self.each_area(start, end, |caller, area, part| {
            if !area.flags.intersects(wanted) || area.flags.contains(AreaFlags::LOCKED_ON_FAULT) {
                return Ok(());
            }
            // Memory without rights cannot be read in.
            failed = if area.rights.is_none() {
                Err(FaultError::Denied)
            } else {
                caller.memory.space.populate(caller.cpu, part, Populate::AsMapped).map_err(|error| error.fault)
            };
            failed.map_err(|_| Errno::ENOMEM)
        });
        failed
    }

    /// Calls `then` with the bounds of each area, ascending. The areas may change meanwhile.
    fn each_part_of_all(&mut self, mut then: impl FnMut(&mut Self, u64, u64)) {
        let mut at = 0;
        // Ends: each round passes an area.
        while let Some(area) = self.find(|area| area.range.end().as_u64() > at) {
            let (start, end) = (area.range.start().as_u64().max(at), area.range.end().as_u64());
            then(self, start, end);
            at = end;
        }
    }
}
