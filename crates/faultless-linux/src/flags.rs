//! Bits of the C interface, decoded.
//!
//! Called by `calls`, and by embedders that show bits again.

use faultless::{AreaFlags, PAGE_SIZE, Rights};
use linux_raw_sys::general as linux;

/// Bytes of a large page (hugetlb).
pub(crate) const HUGE_PAGE: u64 = 1 << 21;

/// The rights that `PROT_*` bits name.
#[must_use]
pub fn rights_of(protection: u32) -> Rights {
    let part = |bit, right| if protection & bit != 0 { right } else { Rights::NONE };
    part(linux::PROT_READ, Rights::READ)
        | part(linux::PROT_WRITE, Rights::WRITE)
        | part(linux::PROT_EXEC, Rights::EXECUTE)
}

/// The properties of an area that `MAP_*` bits name. On Linux, `MAP_STACK` says that large pages are not wanted.
pub(crate) fn area_flags_of(flags: u32) -> AreaFlags {
    let part = |bit, flag| if flags & bit != 0 { flag } else { AreaFlags::NONE };
    part(linux::MAP_GROWSDOWN, AreaFlags::GROWS_DOWN)
        | part(linux::MAP_NORESERVE, AreaFlags::NO_RESERVE)
        | part(linux::MAP_STACK, AreaFlags::NO_HUGE)
        | part(linux::MAP_LOCKED, AreaFlags::LOCKED)
}

/// Rounds up to whole pages; zero if that passes the end of the address space, as in C.
pub(crate) fn page_align(length: u64) -> u64 {
    length.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0)
}

/// Is this the address of a page?
pub(crate) fn is_page(address: u64) -> bool {
    address.is_multiple_of(PAGE_SIZE)
}
