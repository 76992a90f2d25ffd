//! Random numbers for user space and for the kernel's own needs.
//!
//! A counter-based mixer (splitmix64) over a seed from the CPU's random instruction, or from the
//! time stamp counter where there is none. Under a deterministic emulator it is deterministic,
//! which is what repeatable runs want; nothing secret is protected by it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::cpu;

static STATE: AtomicU64 = AtomicU64::new(0);

/// Seeds the generator; the first CPU does this once.
pub fn init() {
    STATE.store(cpu::hardware_random().unwrap_or_else(cpu::timestamp), Ordering::Relaxed);
}

/// The next number.
pub fn word() -> u64 {
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills a buffer.
pub fn fill(buffer: &mut [u8]) {
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&word().to_le_bytes()[..chunk.len()]);
    }
}

/// As many bytes as the caller's array has.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut result = [0; N];
    fill(&mut result);
    result
}
