//! `brk`.

use faultless::{AreaFlags, Machine, PAGE_SIZE, VirtAddr};

use crate::Caller;
use crate::flags::page_align;
use crate::memory::Growth;

/// Moves the end of the heap to `wanted`, if that is possible; returns where it is afterwards.
pub fn brk<M: Machine>(caller: &mut Caller<'_, M>, wanted: u64) -> u64 {
    let (start, now) = caller.memory.space.brk_range();
    let (start, now) = (start.as_u64(), now.as_u64());
    if wanted < start || wanted > caller.memory.end() {
        return now;
    }
    let (old, new) = (page_align(now), page_align(wanted));
    if new > old {
        let pages = (new - old) / PAGE_SIZE;
        let locks = caller.memory.space.default_flags().contains(AreaFlags::LOCKED);
        // The program's own data counts as well, but nobody remembers where it was.
        let refused = wanted - start > caller.limits.data
            || locks && !caller.may_lock(pages)
            || caller.check_limits(pages, Growth::Data).is_err();
        if refused {
            return now;
        }
    }
    let is = caller.memory.space.brk(caller.cpu, VirtAddr::new(wanted)).as_u64();
    if new > old && is == wanted {
        // What cannot be had now is left to later faults.
        let _ = caller.populate_locked(old, new);
    }
    is
}
