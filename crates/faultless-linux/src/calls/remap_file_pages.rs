//! `remap_file_pages`.

use faultless::{
    AreaFlags, AreaInfo, Machine, NonlinearError, PAGE_SIZE, PageRange, Populate, Rights, Sharing, VirtAddr,
};
use linux_raw_sys::general as linux;

use crate::memory::LOCKING;
use crate::{Caller, Errno};

/// The arguments of `remap_file_pages`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RemapFilePagesArgs {
    /// Where, rounded down to pages.
    pub start: u64,
    /// How much, rounded down to pages.
    pub size: u64,
    /// 0.
    pub protection: u64,
    /// The first page of the object to be shown.
    pub page: u64,
    /// `MAP_NONBLOCK`: do not bring the pages in. Other flags are not looked at.
    pub flags: u64,
}

/// Makes a part of a shared mapping show other pages of its object. The mapping stays one mapping, where Linux since 4.0
/// makes several; the checks are those of today's Linux.
///
/// # Errors
///
/// `EINVAL`, `EAGAIN` (it would be locked, which is too much), `EOVERFLOW`, `EPERM`, `ENOMEM`.
pub fn remap_file_pages<M: Machine>(caller: &mut Caller<'_, M>, args: RemapFilePagesArgs) -> Result<(), Errno> {
    const MASK: u64 = !(PAGE_SIZE - 1);
    let RemapFilePagesArgs { protection, page, .. } = args;
    let (start, size) = (args.start & MASK, args.size & MASK);
    if protection != 0 {
        return Err(Errno::EINVAL);
    }
    let end = start.checked_add(size).filter(|end| *end > start && *end <= caller.memory.end()).ok_or(Errno::EINVAL)?;
    page.checked_add(size / PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let range = PageRange::new(VirtAddr::new(start), VirtAddr::new(end)).map_err(|_| Errno::EINVAL)?;
    // What shows a file that was not opened for writing is not shared in Linux's eyes.
    let area = caller.memory.space.area_at(caller.cpu, range.start()).ok_or(Errno::EINVAL)?;
    if !area.max_rights.contains(Rights::WRITE) {
        return Err(Errno::EINVAL);
    }
    let locking = locking_of(caller, &area, range)?;
    caller.memory.space.remap_pages(caller.cpu, range, page, locking).map_err(|error| match error {
        NonlinearError::Invalid => Errno::EINVAL,
        NonlinearError::TooFar => Errno::EOVERFLOW,
        NonlinearError::Sealed => Errno::EPERM,
        NonlinearError::NoMemory => Errno::ENOMEM,
    })?;
    let is_locked = locking.contains(AreaFlags::LOCKED);
    let waits = locking.contains(AreaFlags::LOCKED_ON_FAULT);
    if !waits && (is_locked || args.flags & u64::from(linux::MAP_NONBLOCK) == 0) {
        // Pages that cannot be had are left to the accesses that want them.
        let _ = caller.memory.space.populate(caller.cpu, range, Populate::AsMapped);
    }
    Ok(())
}

/// How the range will be locked: what was locked stays so, and what is shown anew counts as a later mapping
/// (`MCL_FUTURE`), as on Linux, which makes it one. The limit is asked as if nothing of the range were locked yet.
fn locking_of<M: Machine>(
    caller: &mut Caller<'_, M>,
    area: &AreaInfo<M>,
    range: PageRange,
) -> Result<AreaFlags, Errno> {
    let later = caller.memory.space.default_flags();
    let locked = area.flags.contains(AreaFlags::LOCKED);
    if !locked && !later.contains(AreaFlags::LOCKED) {
        return Ok(AreaFlags::NONE);
    }
    let may_lock_any = !locked || caller.may_lock_any();
    if may_lock_any && caller.may_lock(range.len() / PAGE_SIZE) {
        let waits = later.contains(AreaFlags::LOCKED_ON_FAULT);
        return Ok(if waits { LOCKING } else { AreaFlags::LOCKED });
    }
    // What cannot be arranged at all is that first.
    let flags = |area: &AreaInfo<M>| area.flags.without(AreaFlags::NONLINEAR);
    let id = |area: &AreaInfo<M>| area.object.as_ref().map(|(object, _)| object.id());
    let same = caller.each_area(range.start().as_u64(), range.end().as_u64(), |_, other, _| {
        let same = id(other) == id(area) && (other.rights, flags(other)) == (area.rights, flags(area));
        if same { Ok(()) } else { Err(Errno::EINVAL) }
    });
    match same {
        Ok(()) if area.sharing == Sharing::Shared && may_lock_any => Err(Errno::EAGAIN),
        Ok(()) if area.sharing == Sharing::Shared => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}
