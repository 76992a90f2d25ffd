//! `mlock` and its relatives, on a machine where nobody may lock memory (`RLIMIT_MEMLOCK` is zero): the core has no
//! locked pages yet, so there is nothing to unlock either.

use faultless::{Machine, PAGE_SIZE};
use linux_raw_sys::general as linux;

use crate::flags::page_align;
use crate::{Caller, Errno};

/// Refused.
///
/// # Errors
///
/// `EPERM`, always.
pub fn mlock<M: Machine>(_caller: &mut Caller<'_, M>, _start: u64, _length: u64) -> Result<(), Errno> {
    Err(Errno::EPERM)
}

/// Refused, after a look at the flags.
///
/// # Errors
///
/// `EINVAL`, `EPERM`.
pub fn mlock2<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, flags: u32) -> Result<(), Errno> {
    if flags & !linux::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    mlock(caller, start, length)
}

/// Refused, after a look at the flags.
///
/// # Errors
///
/// `EINVAL`, `EPERM`.
pub fn mlockall<M: Machine>(_caller: &mut Caller<'_, M>, flags: u32) -> Result<(), Errno> {
    let known = linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT;
    if flags == 0 || flags & !known != 0 || flags == linux::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    Err(Errno::EPERM)
}

/// Nothing is locked, so all that is left to do is to check that the range is mapped.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`.
pub fn munlock<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64) -> Result<(), Errno> {
    let offset = start % PAGE_SIZE;
    let start = start - offset;
    let end = start.wrapping_add(page_align(length.wrapping_add(offset)));
    if end < start {
        return Err(Errno::EINVAL);
    }
    caller.check_mapped(start, end)
}

/// Nothing is locked: done.
///
/// # Errors
///
/// None today.
pub fn munlockall<M: Machine>(_caller: &mut Caller<'_, M>) -> Result<(), Errno> {
    Ok(())
}
