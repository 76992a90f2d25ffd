//! `msync`.

use faultless::{AreaFlags, Machine, PAGE_SIZE};
use linux_raw_sys::general as linux;

use crate::flags::is_page;
use crate::{Caller, Errno};

/// Checks its arguments: the page cache is the file here, and a store to a shared mapping has arrived when it is done.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`, `EBUSY` (MS_INVALIDATE of locked memory).
pub fn msync<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, flags: u32) -> Result<(), Errno> {
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !(both | linux::MS_INVALIDATE) != 0 || !is_page(start) || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let end = start.wrapping_add(length.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1));
    if end < start {
        return Err(Errno::ENOMEM);
    }
    let checked = caller.each_area(start, end, |_, area, _| {
        let kept = flags & linux::MS_INVALIDATE != 0 && area.flags.contains(AreaFlags::LOCKED);
        if kept { Err(Errno::EBUSY) } else { Ok(()) }
    });
    Ok(checked?)
}
