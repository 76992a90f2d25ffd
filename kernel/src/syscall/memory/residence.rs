//! Calls about where the pages of a mapping are: `mlock`, `msync`, `madvise`.
//!
//! Nothing is ever swapped out or written back here, but faultless has no notion of locked pages
//! either. So this is a machine on which nobody may lock memory (`RLIMIT_MEMLOCK` is zero), and on
//! which there is nothing to unlock and nothing left to write.

use faultless::{PAGE_SIZE, VirtAddr};
use linux_raw_sys::general as linux;

use super::page_align;
use crate::errno::{Errno, SysResult};
use crate::syscall::call::Call;

/// What a process with no right to lock memory gets.
pub(super) fn refuse_lock() -> SysResult {
    Err(Errno::EPERM)
}

pub(super) fn mlock2(call: &mut Call<'_>) -> SysResult {
    if call.uint(2) & !linux::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    refuse_lock()
}

pub(super) fn mlockall(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(0);
    let known = linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT;
    if flags == 0 || flags & !known != 0 || flags == linux::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    refuse_lock()
}

/// Nothing is locked, so all that is left to do is to check that the range is mapped.
pub(super) fn munlock(call: &mut Call<'_>) -> SysResult {
    let (start, length) = (call.word(0), call.word(1));
    let offset = start % PAGE_SIZE;
    let start = start - offset;
    let length = page_align(length.wrapping_add(offset));
    let end = start.wrapping_add(length);
    if end < start {
        return Err(Errno::EINVAL);
    }
    check_mapped(call, start, end)
}

pub(super) fn msync(call: &mut Call<'_>) -> SysResult {
    let (start, length, flags) = (call.word(0), call.word(1), call.uint(2));
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !(both | linux::MS_INVALIDATE) != 0 || !start.is_multiple_of(PAGE_SIZE) || flags & both == both {
        return Err(Errno::EINVAL);
    }
    // The page cache is the file: a store to a shared mapping has arrived when it is done.
    let end = start.wrapping_add(length.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1));
    if end < start {
        return Err(Errno::ENOMEM);
    }
    check_mapped(call, start, end)
}

/// Hints are checked and taken as hints; what would have an effect that a program can see is refused.
pub(super) fn madvise(call: &mut Call<'_>) -> SysResult {
    let (start, length, advice) = (call.word(0), call.word(1), call.uint(2));
    let is_hint =
        matches!(advice, linux::MADV_NORMAL | linux::MADV_RANDOM | linux::MADV_SEQUENTIAL | linux::MADV_WILLNEED);
    if !is_hint || !start.is_multiple_of(PAGE_SIZE) {
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
    check_mapped(call, start, end)
}

/// `ENOMEM` unless all of the range is mapped.
fn check_mapped(call: &mut Call<'_>, start: u64, end: u64) -> SysResult {
    if start == end {
        return Ok(0);
    }
    let memory = call.process().memory();
    let mut at = start;
    while at < end {
        let area = memory.space.area_at(&mut call.cpu.vm, VirtAddr::new(at));
        // Ends: each area reaches beyond its addresses.
        at = area.ok_or(Errno::ENOMEM)?.range.end().as_u64();
    }
    Ok(0)
}
