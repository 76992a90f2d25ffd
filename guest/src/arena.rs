//! Address ranges that belong to the test alone, and every kind of access to them.
//!
//! Called by all programs but `vmbench`. No Rust object ever lives in an [`Arena`], and
//! accesses are made in assembly, so mapping, unmapping, racing and faulting in there is
//! sound. Arenas lie where neither Linux nor libc places anything by itself: a hole made
//! by `munmap` stays a hole until the test fills it, whatever other threads map meanwhile.

use crate::probe::{self, Probe};
use crate::sys::{self, ANON, PAGE, WORDS};
use core::arch::asm;
use core::fmt;

/// Address of the first arena; far below the stack and far above any program.
const FIRST: usize = 0x1000_0000_0000;
/// Distance of arenas; 64 of them fit below the shared libraries.
const STRIDE: usize = 0x0100_0000_0000;

/// A range of addresses reserved for testing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    base: usize,
    pages: usize,
}

/// A word that did not have the expected value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub addr: usize,
    /// What was read.
    pub got: u64,
    /// What should have been read.
    pub want: u64,
}

impl fmt::Debug for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:#x}: got {:#x}, want {:#x}", self.addr, self.got, self.want)
    }
}

/// Word `index` of a page filled with `key`. Key 0 is a page of zeroes.
#[inline]
#[must_use]
pub const fn word(key: u64, index: usize) -> u64 {
    if key == 0 { 0 } else { key ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// One step of a checksum that depends on the order and on each bit.
#[inline]
#[must_use]
pub const fn absorb(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// Checksum of a page filled with `key`.
#[must_use]
pub const fn digest(key: u64) -> u64 {
    let mut sum = 0_u64;
    let mut index = 0;
    while index < WORDS {
        sum = absorb(sum, word(key, index));
        index += 1;
    }
    sum
}

/// Access and content. Offsets count bytes from the start of the arena.
impl Arena {
    /// Arena number `slot` with `pages` pages, nothing mapped.
    ///
    /// # Panics
    ///
    /// If `slot` or `pages` is too large.
    #[must_use]
    pub const fn new(slot: usize, pages: usize) -> Self {
        assert!(slot < 64 && pages <= STRIDE / 2 / PAGE);
        Self { base: FIRST + slot * STRIDE, pages }
    }

    /// Pages `first..first + count` as an arena.
    ///
    /// # Panics
    ///
    /// If the range does not lie inside this arena.
    #[must_use]
    pub const fn part(&self, first: usize, count: usize) -> Self {
        Self { base: self.range(first, count).0, pages: count }
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// Address of byte `offset`.
    #[must_use]
    pub const fn addr(&self, offset: usize) -> usize {
        self.base + offset
    }

    /// Address of page `page`.
    #[must_use]
    pub const fn page_addr(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    /// Reads a word; a fault is a signal.
    ///
    /// # Panics
    ///
    /// If the word does not lie inside the arena.
    #[inline]
    #[must_use]
    pub fn load(&self, offset: usize) -> u64 {
        let addr = self.within(offset, 8);
        let value: u64;
        // SAFETY: an arena holds no Rust object, and the compiler does not know the address.
        unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) addr, options(nostack, preserves_flags)) };
        value
    }

    /// Writes a word; a fault is a signal.
    ///
    /// # Panics
    ///
    /// If the word does not lie inside the arena.
    #[inline]
    pub fn store(&self, offset: usize, value: u64) {
        let addr = self.within(offset, 8);
        // SAFETY: as in `load`.
        unsafe { asm!("mov [{}], {}", in(reg) addr, in(reg) value, options(nostack, preserves_flags)) };
    }

    /// Reads a byte; a fault is a signal.
    ///
    /// # Panics
    ///
    /// If the byte does not lie inside the arena.
    #[inline]
    #[must_use]
    pub fn load_byte(&self, offset: usize) -> u8 {
        let addr = self.within(offset, 1);
        let value: u8;
        // SAFETY: as in `load`.
        unsafe { asm!("mov {}, [{}]", out(reg_byte) value, in(reg) addr, options(nostack, preserves_flags)) };
        value
    }

    /// Writes a byte; a fault is a signal.
    ///
    /// # Panics
    ///
    /// If the byte does not lie inside the arena.
    #[inline]
    pub fn store_byte(&self, offset: usize, value: u8) {
        let addr = self.within(offset, 1);
        // SAFETY: as in `load`.
        unsafe { asm!("mov [{}], {}", in(reg) addr, in(reg_byte) value, options(nostack, preserves_flags)) };
    }

    /// Adds one to a word as a locked instruction, for counters shared by processes.
    ///
    /// # Panics
    ///
    /// If the word does not lie inside the arena.
    #[inline]
    pub fn add(&self, offset: usize, value: u64) -> u64 {
        let addr = self.within(offset, 8);
        let old: u64;
        // SAFETY: as in `load`.
        unsafe { asm!("lock xadd [{}], {}", in(reg) addr, inout(reg) value => old, options(nostack)) };
        old
    }

    /// Reads a word and reports a fault as a value.
    ///
    /// # Panics
    ///
    /// If the word does not start inside the arena.
    pub fn try_load(&self, offset: usize) -> Probe<u64> {
        let addr = self.within(offset, 1);
        // SAFETY: an arena holds no Rust object; a word across its end lies in the gap
        // between arenas.
        unsafe { probe::load(addr) }
    }

    /// Writes a word and reports a fault as a value.
    ///
    /// # Panics
    ///
    /// If the word does not start inside the arena.
    pub fn try_store(&self, offset: usize, value: u64) -> Probe<()> {
        let addr = self.within(offset, 1);
        // SAFETY: as in `try_load`.
        unsafe { probe::store(addr, value) }
    }

    /// Writes `start`, `start + 1`, … to one word, `count` times. Gives the next value
    /// that would have been written and the fault that ended the series, if one did.
    ///
    /// # Panics
    ///
    /// If the word does not start inside the arena.
    pub fn hammer(&self, offset: usize, start: u64, count: u64) -> (u64, Probe<()>) {
        let addr = self.within(offset, 1);
        // SAFETY: as in `try_load`.
        unsafe { probe::hammer(addr, start, count) }
    }

    /// Fills every byte of `page` with the pattern of `key`.
    pub fn fill(&self, page: usize, key: u64) {
        for index in 0..WORDS {
            self.store(page * PAGE + index * 8, word(key, index));
        }
    }

    /// Compares every byte of `page` with the pattern of `key`.
    ///
    /// # Errors
    ///
    /// The first word that differs.
    pub fn verify(&self, page: usize, key: u64) -> Result<(), Wrong> {
        for index in 0..WORDS {
            let offset = page * PAGE + index * 8;
            let (got, want) = (self.load(offset), word(key, index));
            if got != want {
                return Err(Wrong { addr: self.addr(offset), got, want });
            }
        }
        Ok(())
    }

    const fn within(&self, offset: usize, size: usize) -> usize {
        assert!(offset + size <= self.pages * PAGE);
        self.base + offset
    }

    const fn range(&self, first: usize, count: usize) -> (usize, usize) {
        assert!(first + count <= self.pages);
        (self.base + first * PAGE, count * PAGE)
    }
}

/// Mapping. Ranges are given in pages: `first`, `count`.
impl Arena {
    /// Maps fresh private anonymous memory over the range.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn map(&self, first: usize, count: usize, prot: i32) -> sys::Result {
        self.map_as(first, count, prot, ANON, -1, 0)
    }

    /// Maps anything over the range; `from` is the page of the object to start at.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn map_as(&self, first: usize, count: usize, prot: i32, flags: i32, fd: i32, from: usize) -> sys::Result {
        let (addr, len) = self.range(first, count);
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::mmap(addr, len, prot, flags | libc::MAP_FIXED, fd, from * PAGE) }
    }

    /// Unmaps the range.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn unmap(&self, first: usize, count: usize) -> sys::Result {
        let (addr, len) = self.range(first, count);
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::munmap(addr, len) }
    }

    /// Changes the rights of the range.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn protect(&self, first: usize, count: usize, prot: i32) -> sys::Result {
        let (addr, len) = self.range(first, count);
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::mprotect(addr, len, prot) }
    }
}
