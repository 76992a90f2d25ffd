//! Addresses, page ranges, rights and CPU numbers: values without behaviour.
//!
//! Called by every room. Absent on purpose: anything that reads memory or knows an entry format.

use core::fmt;
use core::ops::BitOr;

/// Bytes in a base page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Binary logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// A virtual address; any 64-bit value, canonical or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// Wraps `address` as it is.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The start of the page that holds this address.
    #[must_use]
    pub const fn align_down(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The first page boundary at or above this address, or `None` if there is none below 2^64.
    #[must_use]
    pub const fn align_up(self) -> Option<Self> {
        match self.0.checked_add(PAGE_SIZE - 1) {
            Some(sum) => Some(Self(sum & !(PAGE_SIZE - 1))),
            None => None,
        }
    }

    /// Bytes between the start of the page and this address.
    #[must_use]
    pub const fn page_offset(self) -> usize {
        (self.0 & (PAGE_SIZE - 1)) as usize
    }

    /// Is this the first byte of a page?
    #[must_use]
    pub const fn is_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// This address plus `bytes`, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a physical page frame; its physical address is the number times [`PAGE_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameId(u64);

impl FrameId {
    /// Wraps a frame number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame#{:#x}", self.0)
    }
}

/// A half-open range of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRange {
    /// First frame.
    pub start: FrameId,
    /// One past the last frame.
    pub end: FrameId,
}

impl FrameRange {
    /// Number of frames; 0 if the range is reversed.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

/// Why a pair of numbers is not a page range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// An end is not a multiple of [`PAGE_SIZE`].
    Unaligned,
    /// The range is empty or reversed.
    Empty,
    /// Start plus length passes 2^64.
    Overflow,
}

/// A half-open, page-aligned, non-empty range of virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    start: VirtAddr,
    end: VirtAddr,
}

impl PageRange {
    /// The range `start..end`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Unaligned`] or [`RangeError::Empty`].
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Result<Self, RangeError> {
        if !start.is_aligned() || !end.is_aligned() {
            return Err(RangeError::Unaligned);
        }
        if start.0 >= end.0 {
            return Err(RangeError::Empty);
        }
        Ok(Self { start, end })
    }

    /// The range of `len` bytes from `start`; `len` is rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// [`RangeError`], as [`PageRange::new`], and [`RangeError::Overflow`].
    pub const fn with_len(start: VirtAddr, len: u64) -> Result<Self, RangeError> {
        let Some(end) = start.checked_add(len) else {
            return Err(RangeError::Overflow);
        };
        let Some(end) = end.align_up() else {
            return Err(RangeError::Overflow);
        };
        Self::new(start, end)
    }

    /// The page that holds `address`.
    #[must_use]
    pub const fn page(address: VirtAddr) -> Self {
        let start = address.align_down();
        // The last page of the address space has no representable end: it is never user memory, saturate.
        Self { start, end: VirtAddr(start.0.saturating_add(PAGE_SIZE)) }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> VirtAddr {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> VirtAddr {
        self.end
    }

    /// Length in bytes, never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a PageRange is never empty
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Length in pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.len() >> PAGE_SHIFT
    }

    /// Does the range hold `address`?
    #[must_use]
    pub const fn contains(self, address: VirtAddr) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// The part of this range that lies in `other`.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No access at all (PROT_NONE).
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Stores.
    pub const WRITE: Self = Self(2);
    /// Instruction fetches.
    pub const EXECUTE: Self = Self(4);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Does `self` grant all of `other`?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is no access granted?
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Do these rights allow `access`?
    ///
    /// As on x86-64, every right but none implies reading; executing needs [`Rights::EXECUTE`].
    #[must_use]
    pub const fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.0 != 0,
            Access::Write => self.contains(Self::WRITE),
            Access::Execute => self.contains(Self::EXECUTE),
        }
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, c| if self.contains(right) { c } else { '-' };
        write!(f, "{}{}{}", letter(Self::READ, 'r'), letter(Self::WRITE, 'w'), letter(Self::EXECUTE, 'x'))
    }
}

/// What an instruction wanted to do when it faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store or a read-modify-write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// The number of a CPU, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CpuId(u32);

impl CpuId {
    /// Wraps a CPU number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as an index.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// CPUs that one [`CpuSet`] can name, and so the most that a machine may have.
pub const MAX_CPUS: usize = 1024;

/// A set of CPUs.
#[derive(Clone, PartialEq, Eq)]
pub struct CpuSet {
    words: [u64; MAX_CPUS / 64],
    /// Words that may be non-zero; the rest need not be looked at.
    used: usize,
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [0; MAX_CPUS / 64], used: 0 }
    }

    /// Adds the 64 CPUs from `64 * word` on that `bits` names.
    pub(crate) fn insert_word(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
        self.used = self.used.max(word + 1);
    }

    /// Adds `cpu`.
    ///
    /// # Panics
    ///
    /// If the number is 1024 or more.
    pub fn insert(&mut self, cpu: CpuId) {
        self.insert_word(cpu.as_usize() / 64, 1 << (cpu.as_usize() % 64));
    }

    /// Takes `cpu` out.
    pub fn remove(&mut self, cpu: CpuId) {
        if let Some(word) = self.words.get_mut(cpu.as_usize() / 64) {
            *word &= !(1 << (cpu.as_usize() % 64));
        }
    }

    /// Is `cpu` in the set?
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words.get(cpu.as_usize() / 64).is_some_and(|word| word >> (cpu.as_usize() % 64) & 1 == 1)
    }

    /// Is the set empty?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words[..self.used].iter().all(|word| *word == 0)
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.words[..self.used].iter().enumerate().flat_map(|(index, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| CpuId((index * 64 + bit) as u32))
        })
    }
}

impl Default for CpuSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(CpuId::as_usize)).finish()
    }
}
