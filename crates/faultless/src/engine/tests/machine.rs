//! RAM as words, no TLB; counts flushes and table look-ups, and fails the allocation it is told to fail.

use crate::machine::X86_64;
use crate::sync::plain::{AtomicU64, Ordering::Relaxed};
use crate::{AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine};
use std::vec::Vec;

pub(super) struct TestMachine {
    words: Vec<AtomicU64>,
    ram: [FrameRange; 1],
    /// Calls of `flush_local`.
    pub(super) flushes: AtomicU64,
    /// Calls of `table`.
    pub(super) walks: AtomicU64,
    /// Allocations until one fails; 0 is never.
    pub(super) fail_after: AtomicU64,
}

impl TestMachine {
    pub(super) fn new(frames: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            words: (0..frames * 512).map(|_| zero()).collect(),
            ram: [FrameRange { start: FrameId::new(0), end: FrameId::new(frames) }],
            flushes: zero(),
            walks: zero(),
            fail_after: zero(),
        }
    }

    fn frame(&self, frame: FrameId) -> &[AtomicU64] {
        &self.words[frame.as_u64() as usize * 512..][..512]
    }
}

// SAFETY: each frame is its own 512 words of the machine's; there is no TLB; the default barriers are fences.
unsafe impl Machine for TestMachine {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        1
    }
    fn ram(&self) -> &[FrameRange] {
        &self.ram
    }
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.walks.fetch_add(1, Relaxed);
        self.frame(frame)
    }
    fn zero(&self, frame: FrameId) {
        self.frame(frame).iter().for_each(|word| word.store(0, Relaxed));
    }
    fn copy(&self, from: FrameId, to: FrameId) {
        self.frame(from).iter().zip(self.frame(to)).for_each(|(from, to)| to.store(from.load(Relaxed), Relaxed));
    }
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.frame(frame)[at / 8].load(Relaxed).to_le_bytes()[at % 8];
        }
    }
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        for (at, byte) in (offset..).zip(from) {
            let word = &self.frame(frame)[at / 8];
            let mut bytes = word.load(Relaxed).to_le_bytes();
            bytes[at % 8] = *byte;
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
    }
    fn flush_local(&self, _cpu: CpuId, _flush: &Flush) {
        self.flushes.fetch_add(1, Relaxed);
    }
    fn flush_remote(&self, _cpu: CpuId, _targets: &CpuSet, _flush: &Flush) {
        unreachable!("there is one CPU");
    }
    fn relax(&self, _cpu: CpuId) {}
    fn may_allocate(&self, _cpu: CpuId) -> bool {
        let left = self.fail_after.load(Relaxed);
        if left == 1 {
            return false; // and every one after it, until the test says otherwise
        }
        self.fail_after.store(left.saturating_sub(1), Relaxed);
        true
    }
}
