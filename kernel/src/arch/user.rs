//! Copies between kernel and user memory.
//!
//! Called by system calls for the current thread's memory. Each takes the CPU's `&mut CpuLocal`
//! because a fault on the way uses its token: nobody can be inside faultless with the same token
//! while one of these runs. A fault goes to `Space::fault` first and then, if that refuses, to the
//! fixup in `entry.s`, and the copy reports [`Fault`].
//!
//! The order of bytes within a copy is not defined; after a `Fault` any part may have been done.

use alloc::vec::Vec;

use super::CpuLocal;
use super::trap::InterruptFrame;
use crate::retired;
use faultless::{Access, FaultError, Resolved, VirtAddr};

/// End of what user mode can address; one page is left unused below the hole.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// The user address is not there or does not allow the access: EFAULT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault;

impl From<Fault> for crate::errno::Errno {
    fn from(_: Fault) -> Self {
        crate::errno::Errno::EFAULT
    }
}

unsafe extern "C" {
    safe static user_access_start: u8;
    safe static user_access_end: u8;
    safe static user_access_fault: u8;
    fn user_copy(to: *mut u8, from: *const u8, bytes: u64) -> u64;
    fn user_load32(from: *const u32, into: *mut u32) -> u64;
    fn user_exchange32(at: *mut u32, old: *mut u32, new: u32) -> u64;
}

/// Checks that `bytes` at `address` are user addresses.
fn check(address: u64, bytes: usize) -> Result<(), Fault> {
    match address.checked_add(bytes as u64) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Fault),
    }
}

fn result(code: u64) -> Result<(), Fault> {
    if code == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies from user memory.
pub fn copy_in(_cpu: &mut CpuLocal, from: u64, into: &mut [u8]) -> Result<(), Fault> {
    check(from, into.len())?;
    // SAFETY: the source was checked to be user memory, where any fault is handled; the
    // destination is exactly the slice.
    result(unsafe { user_copy(into.as_mut_ptr(), from as *const u8, into.len() as u64) })
}

/// Copies to user memory.
pub fn copy_out(_cpu: &mut CpuLocal, to: u64, from: &[u8]) -> Result<(), Fault> {
    check(to, from.len())?;
    // SAFETY: the destination was checked to be user memory, which no Rust reference covers; the
    // source is exactly the slice.
    result(unsafe { user_copy(to as *mut u8, from.as_ptr(), from.len() as u64) })
}

/// Reads a zero-terminated string of at most `limit` bytes, terminator excluded. A longer one is
/// cut: compare the length with `limit` to notice.
pub fn cstr(cpu: &mut CpuLocal, from: u64, limit: usize) -> Result<Vec<u8>, Fault> {
    const CHUNK: u64 = 64;
    let mut text = Vec::new();
    let mut address = from;
    while text.len() < limit {
        // Chunks end at multiples of their size, so none reaches into a page the string does not.
        let bytes = (CHUNK - address % CHUNK) as usize;
        let mut chunk = [0; CHUNK as usize];
        copy_in(cpu, address, &mut chunk[..bytes])?;
        let part = &chunk[..bytes];
        let end = part.iter().position(|&b| b == 0);
        text.extend_from_slice(&part[..end.unwrap_or(bytes)]);
        if end.is_some() {
            break;
        }
        address += bytes as u64;
    }
    text.truncate(limit);
    Ok(text)
}

/// One atomic load of an aligned word.
pub fn load32(_cpu: &mut CpuLocal, from: u64) -> Result<u32, Fault> {
    check(from, 4)?;
    let mut value = 0;
    // SAFETY: the source was checked to be user memory.
    result(unsafe { user_load32(from as *const u32, &raw mut value) })?;
    Ok(value)
}

/// Replaces an aligned word by `new` if it is `old`. Returns what was there.
pub fn compare_exchange32(_cpu: &mut CpuLocal, at: u64, old: u32, new: u32) -> Result<u32, Fault> {
    check(at, 4)?;
    let mut seen = old;
    // SAFETY: the word was checked to be user memory.
    result(unsafe { user_exchange32(at as *mut u32, &raw mut seen, new) })?;
    Ok(seen)
}

/// Handles a page fault that happened in the kernel. Says whether the access is to be retried or
/// continues at its fixup (both by returning true), or was none of the above.
pub(super) fn handle_fault(cpu: &mut CpuLocal, address: u64, access: Access, frame: &mut InterruptFrame) -> bool {
    let start = &raw const user_access_start as u64;
    let end = &raw const user_access_end as u64;
    if !(start..end).contains(&frame.rip) || address >= USER_END {
        return false;
    }
    let resolved = match &cpu.memory {
        Some(memory) => memory.space().fault(&mut cpu.vm, VirtAddr::new(address), access),
        None => return false,
    };
    let resolved = match resolved {
        Err(error) => retired::fault_again(cpu, address, access, error),
        done => done,
    };
    match resolved {
        Ok(Resolved::Minor) => cpu.minor_faults += 1,
        Ok(Resolved::Major) => cpu.major_faults += 1,
        Err(error) => {
            if error == FaultError::Watched {
                // The run loop has the call wait for the answer.
                cpu.failed_fault = Some((address, error));
            }
            frame.rip = &raw const user_access_fault as u64;
        }
    }
    true
}
