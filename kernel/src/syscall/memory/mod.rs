//! Memory calls: what Linux checks, in Linux' order, before and after faultless is asked.
//!
//! | file | calls |
//! |---|---|
//! | `map` | `mmap` |
//! | this one | `munmap`, `mprotect`, `brk` |
//! | `residence` | `mlock` and its relatives, `msync`, `madvise` |
//!
//! Absent on purpose, and therefore `ENOSYS`: `mremap`, `mincore`, `remap_file_pages`, System V shared
//! memory, protection keys. faultless does not offer what they need.

mod map;
mod residence;

use faultless::{AreaFlags, AreaInfo, PAGE_SIZE, PageRange, ProtectError, Rights, Sharing, VirtAddr};
use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::arch::user::USER_END;
use crate::errno::{Errno, SysResult};
use crate::machine::KernelMachine;

pub(super) const CALLS: Calls = &[
    (linux::__NR_mmap, Plain(map::mmap)),
    (linux::__NR_munmap, Plain(munmap)),
    (linux::__NR_mprotect, Plain(mprotect)),
    (linux::__NR_brk, Plain(brk)),
    (linux::__NR_madvise, Plain(residence::madvise)),
    (linux::__NR_msync, Plain(residence::msync)),
    (linux::__NR_mlock, Plain(|_| residence::refuse_lock())),
    (linux::__NR_mlock2, Plain(residence::mlock2)),
    (linux::__NR_mlockall, Plain(residence::mlockall)),
    (linux::__NR_munlock, Plain(residence::munlock)),
    (linux::__NR_munlockall, Plain(|_| Ok(0))),
];

/// Rounds up to whole pages; zero if that passes the end of the address space, as in C.
fn page_align(length: u64) -> u64 {
    length.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0)
}

/// The rights that `PROT_*` bits name.
fn rights_of(protection: u32) -> Rights {
    let part = |bit, right| if protection & bit != 0 { right } else { Rights::NONE };
    part(linux::PROT_READ, Rights::READ)
        | part(linux::PROT_WRITE, Rights::WRITE)
        | part(linux::PROT_EXEC, Rights::EXECUTE)
}

fn munmap(call: &mut Call<'_>) -> SysResult {
    let (start, length) = (call.word(0), call.word(1));
    if !start.is_multiple_of(PAGE_SIZE) || start > USER_END || length > USER_END - start {
        return Err(Errno::EINVAL);
    }
    let range = PageRange::with_len(VirtAddr::new(start), page_align(length));
    let range = range.map_err(|_| Errno::EINVAL)?;
    let memory = call.process().memory();
    match memory.space.unmap(&mut call.cpu.vm, range) {
        Ok(()) => Ok(0),
        Err(faultless::UnmapError::Invalid) => Err(Errno::EINVAL),
        Err(faultless::UnmapError::NoMemory) => Err(Errno::ENOMEM),
    }
}

fn mprotect(call: &mut Call<'_>) -> SysResult {
    const GROWS: u32 = linux::PROT_GROWSDOWN | linux::PROT_GROWSUP;
    let (start, length) = (call.word(0), call.word(1));
    // The kernel takes the protection as a long; bits above the known ones are errors.
    let protection = call.word(2);
    let grows = protection as u32 & GROWS;
    let protection = protection & !u64::from(GROWS);
    if grows == GROWS || !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    let end = start.wrapping_add(page_align(length));
    if end <= start {
        return Err(Errno::ENOMEM);
    }
    let known = linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC | linux::PROT_SEM;
    if protection & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    if start >= USER_END {
        return Err(Errno::ENOMEM);
    }
    let (start, end) = match grows {
        0 => (start, end),
        _ => (extend(call, start, end, grows)?, end),
    };
    protect(call, start, end, rights_of(protection as u32))
}

/// The start of the range that `PROT_GROWSDOWN` means.
fn extend(call: &mut Call<'_>, start: u64, end: u64, grows: u32) -> Result<u64, Errno> {
    let mut area = None;
    each_area(call, |candidate| {
        if area.is_none() && candidate.range.end().as_u64() > start {
            area = Some(candidate);
        }
    });
    let area = area.ok_or(Errno::ENOMEM)?;
    let first = area.range.start().as_u64();
    if grows == linux::PROT_GROWSUP {
        // No area grows upwards on this architecture.
        return Err(if first > start { Errno::ENOMEM } else { Errno::EINVAL });
    }
    if first >= end {
        return Err(Errno::ENOMEM);
    }
    if !area.flags.contains(AreaFlags::GROWS_DOWN) {
        return Err(Errno::EINVAL);
    }
    Ok(first)
}

fn protect(call: &mut Call<'_>, start: u64, end: u64, rights: Rights) -> SysResult {
    // What lies beyond the user half is not mapped, but what lies before it is changed first.
    let beyond = end > USER_END;
    let range = PageRange::new(VirtAddr::new(start), VirtAddr::new(end.min(USER_END)));
    let range = range.map_err(|_| Errno::ENOMEM)?;
    let memory = call.process().memory();
    match memory.space.protect(&mut call.cpu.vm, range, rights) {
        Ok(()) if beyond => Err(Errno::ENOMEM),
        Ok(()) => Ok(0),
        Err(ProtectError::Denied(_)) => Err(Errno::EACCES),
        Err(ProtectError::Unmapped(_) | ProtectError::NoMemory(_)) => Err(Errno::ENOMEM),
    }
}

fn brk(call: &mut Call<'_>) -> SysResult {
    let wanted = call.word(0);
    let memory = call.process().memory();
    let (start, now) = memory.space.brk_range();
    let (start, now) = (start.as_u64(), now.as_u64());
    let refused = Ok(now.cast_signed());
    if wanted < start || wanted > USER_END {
        return refused;
    }
    let (old, new) = (page_align(now), page_align(wanted));
    if new > old {
        // The program's own data counts as well, but nobody remembers where it was.
        if wanted - start > call.limit(linux::RLIMIT_DATA) {
            return refused;
        }
        if check_limits(call, new - old, Growth::Data, None).is_err() {
            return refused;
        }
    }
    let end = memory.space.brk(&mut call.cpu.vm, VirtAddr::new(wanted));
    Ok(end.as_u64().cast_signed())
}

/// Calls `visit` with each of the caller's areas, ascending.
fn each_area(call: &mut Call<'_>, visit: impl FnMut(AreaInfo<KernelMachine>)) {
    call.process().memory().space.areas(&mut call.cpu.vm, visit);
}

/// What a new mapping counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// Private and writable: `RLIMIT_DATA` applies.
    Data,
    /// Anything else.
    Other,
}

/// Whether `bytes` more may be mapped; what is mapped in `replaced` now does not count.
///
/// # Errors
///
/// `ENOMEM`.
fn check_limits(call: &mut Call<'_>, bytes: u64, growth: Growth, replaced: Option<PageRange>) -> Result<(), Errno> {
    let total_limit = call.limit(linux::RLIMIT_AS);
    let data_limit = if growth == Growth::Data { call.limit(linux::RLIMIT_DATA) } else { u64::MAX };
    if total_limit == u64::MAX && data_limit == u64::MAX {
        return Ok(());
    }
    let (mut total, mut data) = (bytes, bytes);
    each_area(call, |area| {
        let kept = area.range.len() - overlap(area.range, replaced);
        total = total.saturating_add(kept);
        let is_data = area.rights.contains(Rights::WRITE)
            && area.sharing == Sharing::Private
            && !area.flags.contains(AreaFlags::STACK);
        if is_data {
            data = data.saturating_add(kept);
        }
    });
    if total > total_limit || data > data_limit { Err(Errno::ENOMEM) } else { Ok(()) }
}

/// Bytes that both ranges have.
fn overlap(range: PageRange, other: Option<PageRange>) -> u64 {
    other.and_then(|other| range.intersect(other)).map_or(0, PageRange::len)
}
