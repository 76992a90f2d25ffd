//! `mincore`.

use alloc::vec;
use alloc::vec::Vec;
use faultless::{AreaFlags, AreaInfo, Machine, PAGE_SIZE, PageRange, VirtAddr};

use crate::flags::{is_page, page_align};
use crate::{Caller, Errno};

/// Pages that one part of the answer is about: nobody may make us allocate as much as they can map.
pub const MINCORE_PART: u64 = 4096;

/// Which pages of the range are in memory, one byte each: mapped, or in the cache of the file that would be mapped.
/// Answers part by part, [`MINCORE_PART`] pages each, as Linux writes its answer; `None` behind the last part.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`. What earlier parts said has been said.
pub fn mincore<M: Machine>(
    caller: &mut Caller<'_, M>,
    start: u64,
    length: u64,
    part: u64,
) -> Result<Option<Vec<u8>>, Errno> {
    if !is_page(start) {
        return Err(Errno::EINVAL);
    }
    let end = start.checked_add(page_align(length)).filter(|end| *end <= caller.memory.end()).ok_or(Errno::ENOMEM)?;
    if length != 0 && end == start {
        return Err(Errno::ENOMEM);
    }
    let bytes = MINCORE_PART * PAGE_SIZE;
    let first = part.checked_mul(bytes).and_then(|offset| start.checked_add(offset));
    let Some(first) = first.filter(|first| *first < end) else { return Ok(None) };
    let last = end.min(first + bytes);
    caller.check_mapped(first, last)?;
    let mut found = vec![0; ((last - first) / PAGE_SIZE) as usize];
    caller.each_area(first, last, |caller, area, part| {
        look(caller, area, part, &mut found[((part.start().as_u64() - first) / PAGE_SIZE) as usize..]);
        Ok(())
    })?;
    Ok(Some(found))
}

fn look<M: Machine>(caller: &mut Caller<'_, M>, area: &AreaInfo<M>, part: PageRange, found: &mut [u8]) {
    let first = part.start().as_u64();
    caller.memory.space.pages(caller.cpu, part, |page| found[((page.addr.as_u64() - first) / PAGE_SIZE) as usize] = 1);
    if let Some((object, offset)) = &area.object {
        let offset = offset + (first - area.range.start().as_u64());
        let nonlinear = area.flags.contains(AreaFlags::NONLINEAR);
        for (index, byte) in found.iter_mut().enumerate().take(part.pages() as usize) {
            let distance = index as u64 * PAGE_SIZE;
            let mut offset = offset + distance;
            if nonlinear
                && let Some(shown) = caller.memory.space.page_index_at(caller.cpu, VirtAddr::new(first + distance))
            {
                offset = shown * PAGE_SIZE;
            }
            *byte |= u8::from(object.is_resident(offset));
        }
    }
}
