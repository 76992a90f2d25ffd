//! `mseal`.

use faultless::{AreaFlags, Machine, PageRange, VirtAddr};

use crate::flags::{is_page, page_align};
use crate::{Caller, Errno};

/// Seals the mappings of a range, for good: they can be neither unmapped nor moved nor replaced, their rights stay, and
/// contents that could not be written are not discarded.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM` (holes; then nothing has changed, or no memory for the parts of split areas).
pub fn mseal<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, flags: u64) -> Result<(), Errno> {
    let rounded = page_align(length);
    if flags != 0 || !is_page(start) || length != 0 && rounded == 0 {
        return Err(Errno::EINVAL);
    }
    let end = start.checked_add(rounded).ok_or(Errno::EINVAL)?;
    if end == start {
        return Ok(());
    }
    caller.check_mapped(start, end)?;
    let range = PageRange::new(VirtAddr::new(start), VirtAddr::new(end)).map_err(|_| Errno::EINVAL)?;
    let sealed = caller.memory.space.set_flags(caller.cpu, range, AreaFlags::SEALED, AreaFlags::NONE, |_| true);
    sealed.map_err(|_| Errno::ENOMEM)
}
