//! `munmap`.

use faultless::{Machine, PageRange, UnmapError, VirtAddr};

use crate::flags::{is_page, page_align};
use crate::{Caller, Errno};

/// Unmaps what is in the range; holes are fine.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`, `EPERM` (sealed).
pub fn munmap<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64) -> Result<(), Errno> {
    let end = caller.memory.end();
    if !is_page(start) || start > end || length > end - start {
        return Err(Errno::EINVAL);
    }
    let range = PageRange::with_len(VirtAddr::new(start), page_align(length)).map_err(|_| Errno::EINVAL)?;
    caller.memory.space.unmap(caller.cpu, range).map_err(|error| match error {
        UnmapError::Invalid => Errno::EINVAL,
        UnmapError::NoMemory => Errno::ENOMEM,
        UnmapError::Sealed => Errno::EPERM,
    })
}
