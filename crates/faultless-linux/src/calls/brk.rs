//! `brk`.

use faultless::{Machine, VirtAddr};

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
        // The program's own data counts as well, but nobody remembers where it was.
        if wanted - start > caller.limits.data || caller.check_limits(new - old, Growth::Data, None).is_err() {
            return now;
        }
    }
    caller.memory.space.brk(caller.cpu, VirtAddr::new(wanted)).as_u64()
}
