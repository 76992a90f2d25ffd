//! What is known about a step before it is made: whether the host may make it, and what may come of it there.
//!
//! Called by `judge`. Absent on purpose: what is mapped.

use crate::arena;
use crate::host::lowest_address;
use crate::scenario::Op;
use linux_raw_sys::general as linux;

/// May the step make several pages resident that are not anonymous?
pub(super) fn may_fault_around(op: &Op) -> bool {
    match *op {
        Op::Load { at, width } => at % arena::PAGE + u64::from(width) > arena::PAGE,
        Op::Map { .. } => maps_file(op),
        Op::Advise { advice, .. } => matches!(advice, linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE),
        Op::Lock { .. } | Op::LockAll { .. } | Op::Remap { .. } | Op::Protect { .. } | Op::Nonlinear { .. } => true,
        Op::Peek { at, len, .. } | Op::Poke { at, len, .. } => at % arena::PAGE + len as u64 > arena::PAGE,
        _ => false,
    }
}

/// Does it map pages that are not anonymous?
pub(super) fn maps_file(op: &Op) -> bool {
    matches!(*op, Op::Map { flags, .. } if flags & linux::MAP_TYPE != linux::MAP_PRIVATE || flags & linux::MAP_ANONYMOUS == 0)
}

/// May a page of it be clean on one side only (`free-shared`)?
pub(super) fn frees(op: &Op) -> bool {
    matches!(op, Op::Advise { advice: linux::MADV_FREE, .. } | Op::Peek { .. })
}

/// Does it make pages that nobody has asked for yet?
pub(super) fn allocates(op: &Op) -> bool {
    matches!(op, Op::Allocate { mode, .. } if mode & linux::FALLOC_FL_PUNCH_HOLE == 0)
}

/// May the host execute it? A call that reaches beyond the arena would hit the process itself.
pub(super) fn is_tame(op: &Op) -> bool {
    match *op {
        Op::Unmap { at, len }
        | Op::Advise { at, len, .. }
        | Op::Sync { at, len, .. }
        | Op::Lock { at, len, .. }
        | Op::Unlock { at, len }
        | Op::Protect { at, len, .. }
        | Op::Resident { at, len }
        | Op::Seal { at, len, .. }
        | Op::Nonlinear { at, len, .. } => {
            // Beyond the user's half, or with an end beyond 2^64, nothing happens.
            arena::holds(at, len) || at >= 1 << 46 || at.checked_add(len).is_none()
        }
        // `punch-first-page`.
        Op::Allocate { mode, offset, len, .. } => {
            mode & linux::FALLOC_FL_PUNCH_HOLE == 0 || offset.saturating_add(len) >= arena::PAGE as i64
        }
        Op::Peek { at, len, .. } | Op::Poke { at, len, .. } => arena::holds(at, len as u64),
        Op::Brk { to } => to <= arena::END || to >= 1 << 47,
        Op::Remap { at, old, new, flags, to } => {
            let fixed = flags & linux::MREMAP_FIXED != 0;
            arena::holds(at, old) && arena::holds(at, new) && (!fixed || arena::holds(to, new))
        }
        Op::Map { at, len, flags, .. } => {
            let fixed = flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0;
            !fixed || arena::holds(at, len) || at < lowest_address() || len > 1 << 46 || at >= (1 << 47) - arena::PAGE
        }
        _ => true,
    }
}
