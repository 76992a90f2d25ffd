//! What entries say of stores goes to the object's page: the dirty bit of one that leaves, or that is write-protected so
//! that its page can be written back. Protocol P17.
//!
//! Called by sweeps and teardown for entries that leave, and by `space::clean`. Absent on purpose: which pages are wanted,
//! and flushes.

use super::walk::{Found, find, load};
use crate::addr::{FrameId, VirtAddr};
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::{Ordering, mutant};

/// Notes that an object's page was stored to, as an entry said that has left and been flushed. Before its reference goes.
#[cold]
pub(crate) fn note_stored<M: Machine>(ctx: Ctx<'_, M>, frame: FrameId) {
    if !mutant::is(mutant::Mutant::DirtyNotMoved) {
        ctx.record(frame).mark_dirty();
    }
}

/// Write-protects the entry of `address` and takes its dirty bit. True if it had one; `None` if nothing was to be done. The
/// stripe is locked, so the page stays mapped; the flush, after which the dirty bit goes to the page, is the caller's.
///
/// Also below a shared table, once for all sharers: none of their CPUs can store through it, as the way there is
/// write-protected, so nobody else's TLB has to hear of it; and the table's lock keeps copiers from copying the entry as
/// it was. So nothing is unshared, and no memory is needed.
pub(crate) fn clean<M: Machine>(ctx: Ctx<'_, M>, root: FrameId, address: VirtAddr) -> Option<bool> {
    // Ends: each round but the last follows the success of a fault or a copier that changed the way.
    loop {
        let Found::Leaf { slot, table, .. } = find(ctx, root, address) else {
            return None;
        };
        let _lock = (!mutant::is(mutant::Mutant::CleanUnlocked)).then(|| ctx.lock_table(table));
        // Under the lock: a copier may have published a table of our own meanwhile.
        if let Found::Leaf { slot: now, .. } = find(ctx, root, address)
            && core::ptr::eq(slot, now)
        {
            return clean_entry::<M>(slot);
        }
    }
}

fn clean_entry<M: Machine>(slot: &AtomicEntry) -> Option<bool> {
    let mut entry = load(slot);
    // Ends: each round but the last follows a fault's success or the MMU's, which sets two bits.
    loop {
        let (_, dirty) = stores_of::<M>(entry)?;
        // AcqRel: as the sweeps' (P1). No generation: no fault has prepared an exchange that this must stop (P17).
        match slot.compare_exchange(entry, M::Format::without_stores(entry), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(dirty),
            Err(now) => entry = now,
        }
    }
}

/// The page of an entry that permits stores, or has seen any, and whether it has. Pages without records are left out.
pub(crate) fn stores_of<M: Machine>(entry: Raw) -> Option<(FrameId, bool)> {
    let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = M::Format::leaf(entry) else {
        return None;
    };
    (!bits.special && (bits.write || bits.dirty)).then_some((frame, bits.dirty))
}
