//! `msync`.

use faultless::{AreaFlags, Machine, PAGE_SIZE};
use linux_raw_sys::general as linux;

use crate::flags::is_page;
use crate::{Caller, Errno};

/// With MS_SYNC, writes what was stored to the files of shared mappings, area by area, if their pagers want it. Else it
/// checks its arguments: the page cache is the file, and a store to a shared mapping has arrived when it is done.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`, `EBUSY` (MS_INVALIDATE of locked memory), `EIO` (a page could not be written, now or earlier).
pub fn msync<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, flags: u32) -> Result<(), Errno> {
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !(both | linux::MS_INVALIDATE) != 0 || !is_page(start) || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let end = start.wrapping_add(length.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1));
    if end < start {
        return Err(Errno::ENOMEM);
    }
    let checked = caller.each_area(start, end, |caller, area, part| {
        if flags & linux::MS_INVALIDATE != 0 && area.flags.contains(AreaFlags::LOCKED) {
            return Err(Errno::EBUSY);
        }
        if flags & linux::MS_SYNC == 0 {
            return Ok(());
        }
        caller.memory.space.sync(caller.cpu, part).map_err(|_| Errno::EIO)
    });
    Ok(checked?)
}
