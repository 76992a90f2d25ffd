//! `madvise`.

use faultless::Machine;
use linux_raw_sys::general as linux;

use crate::flags::{is_page, page_align};
use crate::{Caller, Errno};

/// Hints are checked and taken as hints (`NORMAL`, `RANDOM`, `SEQUENTIAL`, `WILLNEED`); advice with an effect that a
/// program can see is refused until the core has that effect.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`.
pub fn madvise<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, advice: u32) -> Result<(), Errno> {
    let is_hint =
        matches!(advice, linux::MADV_NORMAL | linux::MADV_RANDOM | linux::MADV_SEQUENTIAL | linux::MADV_WILLNEED);
    if !is_hint || !is_page(start) {
        return Err(Errno::EINVAL);
    }
    let rounded = page_align(length);
    if length != 0 && rounded == 0 {
        return Err(Errno::EINVAL);
    }
    let end = start.wrapping_add(rounded);
    if end < start {
        return Err(Errno::EINVAL);
    }
    caller.check_mapped(start, end)
}
