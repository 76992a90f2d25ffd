//! `remap_file_pages`.

use faultless::{AreaFlags, Machine, NonlinearError, PAGE_SIZE, PageRange, Populate, Rights, VirtAddr};
use linux_raw_sys::general as linux;

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
/// `EINVAL`, `EOVERFLOW`, `EPERM`, `ENOMEM`.
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
    caller.memory.space.remap_pages(caller.cpu, range, page).map_err(|error| match error {
        NonlinearError::Invalid => Errno::EINVAL,
        NonlinearError::TooFar => Errno::EOVERFLOW,
        NonlinearError::Sealed => Errno::EPERM,
        NonlinearError::NoMemory => Errno::ENOMEM,
    })?;
    if args.flags & u64::from(linux::MAP_NONBLOCK) == 0 || area.flags.contains(AreaFlags::LOCKED) {
        // Pages that cannot be had are left to the accesses that want them.
        let _ = caller.memory.space.populate(caller.cpu, range, Populate::AsMapped);
    }
    Ok(())
}
