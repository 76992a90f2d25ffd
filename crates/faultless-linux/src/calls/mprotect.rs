//! `mprotect`.

use alloc::vec::Vec;
use faultless::{AreaFlags, Machine, PageRange, ProtectError, Rights, Sharing, VirtAddr};
use linux_raw_sys::general as linux;

use crate::flags::{is_page, page_align, rights_of};
use crate::{Caller, Errno};

/// Gives the range other rights. The protection is a long: bits above the known ones are errors.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`, `EACCES`, `EPERM` (sealed). Areas before the one that stopped it have been changed.
pub fn mprotect<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, protection: u64) -> Result<(), Errno> {
    protect_with(caller, start, length, protection, NO_KEY)
}

/// The protection key of `mprotect`: none.
const NO_KEY: i32 = -1;

/// The same with a protection key, of which there are none.
pub(super) fn protect_with<M: Machine>(
    caller: &mut Caller<'_, M>,
    start: u64,
    length: u64,
    protection: u64,
    key: i32,
) -> Result<(), Errno> {
    const GROWS: u32 = linux::PROT_GROWSDOWN | linux::PROT_GROWSUP;
    const KNOWN: u32 = linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC | linux::PROT_SEM;
    let grows = protection as u32 & GROWS;
    let protection = protection & !u64::from(GROWS);
    if grows == GROWS || !is_page(start) {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(());
    }
    let end = start.wrapping_add(page_align(length));
    if end <= start {
        return Err(Errno::ENOMEM);
    }
    if protection & !u64::from(KNOWN) != 0 {
        return Err(Errno::EINVAL);
    }
    if key != NO_KEY {
        return Err(Errno::EINVAL);
    }
    if start >= caller.memory.end() {
        return Err(Errno::ENOMEM);
    }
    let start = if grows == 0 { start } else { extend(caller, start, end, grows)? };
    protect(caller, start, end, rights_of(protection as u32))
}

/// The start of the range that `PROT_GROWSDOWN` means.
fn extend<M: Machine>(caller: &mut Caller<'_, M>, start: u64, end: u64, grows: u32) -> Result<u64, Errno> {
    let area = caller.find(|area| area.range.end().as_u64() > start);
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

fn protect<M: Machine>(caller: &mut Caller<'_, M>, start: u64, end: u64, rights: Rights) -> Result<(), Errno> {
    // What lies beyond the user half is not mapped, but what lies before it is changed first.
    let top = caller.memory.end();
    let range = PageRange::new(VirtAddr::new(start), VirtAddr::new(end.min(top))).map_err(|_| Errno::ENOMEM)?;
    let locked = if rights.contains(Rights::WRITE) { locked_read_only(caller, range) } else { Vec::new() };
    let done = caller.memory.space.protect(caller.cpu, range, rights);
    if !locked.is_empty() {
        // Made one's own when it becomes writable, as far as the call came.
        let stop = match done {
            Ok(()) => range.end(),
            Err(
                ProtectError::Denied(at)
                | ProtectError::Unmapped(at)
                | ProtectError::NoMemory(at)
                | ProtectError::Sealed(at)
                | ProtectError::Unaligned(at),
            ) => at,
        };
        for part in locked.iter().filter(|part| part.start() < stop) {
            let _ = caller.populate_locked(part.start().as_u64(), part.end().min(stop).as_u64());
        }
    }
    match done {
        Ok(()) if end > top => Err(Errno::ENOMEM),
        Ok(()) => Ok(()),
        Err(ProtectError::Denied(_)) => Err(Errno::EACCES),
        Err(ProtectError::Sealed(_)) => Err(Errno::EPERM),
        Err(ProtectError::Unaligned(_)) => Err(Errno::EINVAL),
        Err(ProtectError::Unmapped(_) | ProtectError::NoMemory(_)) => Err(Errno::ENOMEM),
    }
}

/// The parts of the range that are private, locked and not writable yet.
fn locked_read_only<M: Machine>(caller: &mut Caller<'_, M>, range: PageRange) -> Vec<PageRange> {
    let mut found = Vec::new();
    if caller.memory.space.extent().locked != 0 {
        // The range may have holes; what comes before one counts.
        let _ = caller.each_area(range.start().as_u64(), range.end().as_u64(), |_, area, part| {
            let is_locked = area.flags.contains(AreaFlags::LOCKED) && area.sharing == Sharing::Private;
            found.extend((is_locked && !area.rights.contains(Rights::WRITE)).then_some(part));
            Ok(())
        });
    }
    found
}
