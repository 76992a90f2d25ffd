//! The contract that an embedder implements: RAM, CPUs, TLB. Everything else is ours.
//!
//! Called by every room above `sync`. A machine is hardware as `faultless` sees it: a kernel with a physical map, a
//! user-space arena with a software MMU, an emulator's guest RAM. [`format`] holds the entry codec per architecture.
//!
//! Absent on purpose: scheduling, files, clocks. If a memory feature needed them here, the contract would be wrong.

pub mod format;
mod raw;

pub use crate::sync::AtomicEntry;
pub use format::{Format, X86, X86_64, X86_64La57};
pub use raw::RawFrames;

use crate::addr::{CpuId, CpuSet, FrameId, FrameRange, PageRange};
use crate::sync::{Ordering, fence};

/// Which translations a CPU has to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// The root table of the space.
    pub root: FrameId,
    /// Which addresses.
    pub scope: Scope,
}

/// The addresses of a [`Flush`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// These pages, at most [`Scope::MOST_PAGES`] of them, and the cached upper-level entries used to reach them.
    Pages(PageRange),
    /// All translations of the space and all its cached upper-level entries.
    All,
}

impl Scope {
    /// Ranges of more pages than this are flushed with [`Scope::All`].
    pub const MOST_PAGES: u64 = 32;

    /// The scope that flushes `range`.
    #[must_use]
    pub fn of(range: PageRange) -> Self {
        if range.pages() <= Self::MOST_PAGES { Self::Pages(range) } else { Self::All }
    }
}

/// RAM, CPUs and TLBs.
///
/// About ten functions; `examples/embed.rs` has a machine in 40 lines, `faultless-hosted` one with threads and TLBs,
/// `kernel/` one on real page tables. `faultless_hosted::conformance::check` checks a new one, promise by promise.
///
/// # Safety
///
/// The implementor promises that
///
/// 1. the frames of [`Machine::ram`] exist, are not used by anybody else from [`Vm::new`](crate::Vm::new) on, and
///    [`Machine::table`], [`Machine::zero`], [`Machine::copy`], [`Machine::read`] and [`Machine::write`] reach exactly
///    the frame they are given;
/// 2. [`Machine::table`] returns the same memory each time, `2^Format::INDEX_BITS` entries, valid for reads and writes
///    as atomics as long as the machine lives;
/// 3. when [`Machine::flush_local`] or [`Machine::flush_remote`] returns, no CPU named uses a translation that was
///    read from the tables before the call, for the given root and scope;
/// 4. `light_barrier` on one CPU and `heavy_barrier` on another act as a pair of `fence(SeqCst)`.
pub unsafe trait Machine: Send + Sync + Sized + 'static {
    /// How the MMU wants its entries.
    type Format: Format;

    /// Number of CPUs, 1 to [`MAX_CPUS`](crate::addr::MAX_CPUS); they are numbered from 0.
    fn cpus(&self) -> usize;

    /// The frames that `faultless` may use, ascending, not overlapping. Asked once.
    fn ram(&self) -> &[FrameRange];

    /// The entries of the table in `frame`.
    fn table(&self, frame: FrameId) -> &[AtomicEntry];

    /// Fills a frame with zeroes. Other CPUs may read it at the same time only if they are wrong.
    fn zero(&self, frame: FrameId);

    /// Copies a whole frame. The source may be written by other CPUs at the same time; the copy is then thrown away.
    fn copy(&self, from: FrameId, to: FrameId);

    /// Copies bytes out of a frame; `offset + into.len()` is at most a page.
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]);

    /// Copies bytes into a frame; `offset + from.len()` is at most a page.
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]);

    /// Makes the calling CPU forget translations.
    fn flush_local(&self, cpu: CpuId, flush: &Flush);

    /// Makes other CPUs forget translations; returns when each of `targets` has. `targets` never holds `cpu`.
    fn flush_remote(&self, cpu: CpuId, targets: &CpuSet, flush: &Flush);

    /// Called in every round of every waiting loop. Must serve flushes that other CPUs ask of this one.
    fn relax(&self, cpu: CpuId);

    /// The fence of those who enter sections: cheap if [`Machine::heavy_barrier`] does the work.
    #[inline]
    fn light_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    /// The fence of those who wait for sections: an interrupt to all CPUs or membarrier, if `light_barrier` is empty.
    #[inline]
    fn heavy_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    /// Asked before each frame allocation; `false` makes it fail. For fault injection.
    #[inline]
    fn may_allocate(&self, _cpu: CpuId) -> bool {
        true
    }

    /// Prepares the part of a fresh root table that is not user space (a kernel's own half).
    #[inline]
    fn init_root(&self, _root: FrameId) {}
}
