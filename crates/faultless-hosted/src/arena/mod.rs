//! Physical memory as one shared mapping of a memfd. The only room of this crate with `unsafe`.
//!
//! Called by both faces and by the walker. Frames are numbered from 0 and reached in two ways that are never mixed on
//! one frame: as a page table, that is as `&[AtomicU64]`, and as data, through the copying functions here. Both are
//! sound whatever a wrong caller does:
//!
//! - no `&T` or `&mut T` to data is ever made, so there is nothing that a racing store could invalidate; data moves
//!   through machine instructions outside the language's memory model (`bytes`), as for any memory that is shared
//!   with a device or another process;
//! - tables are atomics, for everybody;
//! - each access is checked against the arena's end.
//!
//! Absent on purpose: which frame is used for what. That is the business of `faultless`.

mod bytes;
mod scratch;

pub use scratch::Scratch;

use core::ptr::NonNull;
use faultless::{AtomicEntry, FrameId, FrameRange, PAGE_SIZE};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const PAGE: usize = PAGE_SIZE as usize;
const WORDS: usize = PAGE / size_of::<u64>();

/// When the host backs the arena with memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// When a frame is first touched: the start is quick, the host's faults are in what you measure.
    Lazily,
    /// At once.
    Now,
}

/// The frames.
#[derive(Debug)]
pub struct Arena {
    /// `frames * PAGE` bytes, mapped read-write until the drop.
    base: NonNull<u8>,
    frames: u64,
    ram: [FrameRange; 1],
}

// SAFETY: the arena is plain memory that any thread may reach; all access goes through atomics and raw copies.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// `frames` frames of zeroes.
    ///
    /// # Errors
    ///
    /// What the host says: too many frames, no memfd.
    pub fn new(frames: u64, populate: Populate) -> Result<Self, Errno> {
        let bytes = frames.checked_mul(PAGE_SIZE).filter(|bytes| *bytes != 0).ok_or(Errno::INVAL)?;
        let len = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        let file = memfd_create("faultless-arena", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, bytes)?;
        let flags = match populate {
            Populate::Lazily => MapFlags::SHARED,
            Populate::Now => MapFlags::SHARED | MapFlags::POPULATE,
        };
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists. The memfd is ours
        // and is dropped here, so nobody can shrink it under the mapping.
        let base = unsafe { mmap(core::ptr::null_mut(), len, rights, flags, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, frames, ram: [FrameRange { start: FrameId::new(0), end: FrameId::new(frames) }] })
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// All frames as the one range they are.
    #[must_use]
    pub fn ram(&self) -> &[FrameRange] {
        &self.ram
    }

    /// Is this one of ours?
    #[inline]
    #[must_use]
    pub fn has(&self, frame: FrameId) -> bool {
        frame.as_u64() < self.frames
    }

    /// The first byte of a frame.
    ///
    /// # Panics
    ///
    /// If the frame is none of ours: somebody made up a frame number.
    #[inline]
    fn start(&self, frame: FrameId) -> *mut u8 {
        assert!(self.has(frame), "{frame:?} is not in the arena");
        // SAFETY: the frame lies inside the mapping (asserted), so the offset does too.
        unsafe { self.base.as_ptr().add(frame.as_u64() as usize * PAGE) }
    }

    /// A place inside a frame.
    ///
    /// # Panics
    ///
    /// If `offset + len` passes the end of the frame.
    #[inline]
    fn at(&self, frame: FrameId, offset: usize, len: usize) -> *mut u8 {
        assert!(len <= PAGE && offset <= PAGE - len, "access past the end of a frame");
        // SAFETY: inside the frame (asserted).
        unsafe { self.start(frame).add(offset) }
    }

    /// A frame as a page table.
    #[inline]
    #[must_use]
    pub fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        let words: *const AtomicEntry = self.start(frame).cast_const().cast();
        // SAFETY: the frame is mapped for as long as `self` lives, page aligned, and 512 words long; any bit pattern
        // is an atomic word; whoever uses the frame as data at the same time is outside the memory model (`bytes`).
        unsafe { core::slice::from_raw_parts(words, WORDS) }
    }

    /// Fills a frame with zeroes.
    #[inline]
    pub fn zero(&self, frame: FrameId) {
        // SAFETY: a whole frame (1).
        unsafe { bytes::zero_page(self.start(frame)) }
    }

    /// Copies a frame.
    #[inline]
    pub fn copy(&self, from: FrameId, to: FrameId) {
        if from != to {
            // SAFETY: two whole frames (1), not the same (2).
            unsafe { bytes::copy_page(self.start(from), self.start(to)) }
        }
    }

    /// Copies bytes out of a frame.
    #[inline]
    pub fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        // SAFETY: `len` bytes inside a frame (1); the slice is not in the arena (2).
        unsafe { bytes::read(self.at(frame, offset, into.len()), into) }
    }

    /// Copies bytes into a frame.
    #[inline]
    pub fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        // SAFETY: `len` bytes inside a frame (1); the slice is not in the arena (2).
        unsafe { bytes::write(self.at(frame, offset, from.len()), from) }
    }

    /// Loads a word at once, if it does not cross a border of its own size, as the hardware guarantees.
    #[inline]
    pub fn load<W: Word>(&self, frame: FrameId, offset: usize) -> W {
        // SAFETY: the word lies inside a frame.
        unsafe { W::load(self.at(frame, offset, size_of::<W>())) }
    }

    /// Stores a word at once, likewise.
    #[inline]
    pub fn store<W: Word>(&self, frame: FrameId, offset: usize, value: W) {
        // SAFETY: the word lies inside a frame.
        unsafe { value.store(self.at(frame, offset, size_of::<W>())) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and `&mut self` proves that no borrow of it is left.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.frames as usize * PAGE) };
        debug_assert!(result.is_ok(), "the arena was mapped");
    }
}

/// What one load or store moves: `u8`, `u16`, `u32` or `u64`.
pub trait Word: Copy + sealed::Sealed + Send + 'static {
    /// Loads from `from`.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `size_of::<Self>()` bytes, in memory that is not the language's own.
    unsafe fn load(from: *const u8) -> Self;

    /// Stores to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `size_of::<Self>()` bytes, in memory that is not the language's own.
    unsafe fn store(self, to: *mut u8);

    /// The bytes, lowest address first.
    fn to_bytes(self) -> [u8; 8];

    /// From the bytes, lowest address first; those beyond the word's size are ignored.
    fn from_bytes(bytes: [u8; 8]) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

macro_rules! word {
    ($($word:ty, $load:ident, $store:ident;)*) => { $(
        impl Word for $word {
            #[inline]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller's promise is the callee's demand.
                unsafe { bytes::$load(from) }
            }

            #[inline]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller's promise is the callee's demand.
                unsafe { bytes::$store(to, self) }
            }

            fn to_bytes(self) -> [u8; 8] {
                u64::from(self).to_le_bytes()
            }

            fn from_bytes(bytes: [u8; 8]) -> Self {
                u64::from_le_bytes(bytes) as $word
            }
        }
    )* };
}

word! {
    u8, load8, store8;
    u16, load16, store16;
    u32, load32, store32;
    u64, load64, store64;
}

#[cfg(test)]
mod tests;
