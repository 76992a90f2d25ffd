//! The robust list: locks that a thread held when it ended are marked and their waiters woken.
//!
//! The list lies in user memory and may be anything: it is walked with a limit, and the first
//! fault ends the walk.

use alloc::sync::Arc;

use super::wake_address;
use crate::arch::CpuLocal;
use crate::arch::user::{Fault, compare_exchange32, copy_in, load32};
use crate::process::Memory;

/// The most entries that are looked at, as on Linux.
const LIMIT: usize = 2048;
const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;
const TID_MASK: u32 = 0x3fff_ffff;
/// An entry's lowest bit says that the lock inherits priority.
const PI_BIT: u64 = 1;

/// Walks the list at `head` for the thread `tid`, whose memory is loaded.
pub(crate) fn release_robust_list(cpu: &mut CpuLocal, memory: &Arc<Memory>, tid: i32, head: u64) {
    // A fault means that the program's list is broken, which is its own affair.
    let _ = walk(cpu, memory, tid, head);
}

fn walk(cpu: &mut CpuLocal, memory: &Arc<Memory>, tid: i32, head: u64) -> Result<(), Fault> {
    let offset = read_word(cpu, head + 8)?;
    let pending = read_word(cpu, head + 16)?;
    let mut entry = read_word(cpu, head)?;
    for _ in 0..LIMIT {
        if entry & !PI_BIT == head {
            break;
        }
        // The next entry first: the lock may be reused as soon as it is released.
        let next = read_word(cpu, entry & !PI_BIT)?;
        if entry != pending {
            release(cpu, memory, tid, (entry & !PI_BIT).wrapping_add(offset))?;
        }
        entry = next;
    }
    if pending & !PI_BIT != 0 {
        release(cpu, memory, tid, (pending & !PI_BIT).wrapping_add(offset))?;
    }
    Ok(())
}

fn release(cpu: &mut CpuLocal, memory: &Arc<Memory>, tid: i32, word: u64) -> Result<(), Fault> {
    if !word.is_multiple_of(4) {
        return Err(Fault);
    }
    // Ends: a failed exchange means that somebody else changed the word.
    loop {
        let seen = load32(cpu, word)?;
        if seen & TID_MASK != tid.cast_unsigned() {
            return Ok(());
        }
        if compare_exchange32(cpu, word, seen, seen & WAITERS | OWNER_DIED)? == seen {
            if seen & WAITERS != 0 {
                wake_address(cpu, memory, word);
            }
            return Ok(());
        }
    }
}

fn read_word(cpu: &mut CpuLocal, at: u64) -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    copy_in(cpu, at, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
