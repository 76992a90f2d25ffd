//! RAM as words, no TLB, four CPUs, and hooks that run something else in the middle of an operation: an interleaving is
//! a hook, not a matter of luck.

use crate::machine::X86_64;
use crate::sync::fence;
use crate::sync::plain::{AtomicU64, Ordering};
use crate::{AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

/// Where a hook runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Point {
    /// Before a frame is allocated on this CPU.
    Allocate(usize),
    /// On entering a section.
    Enter,
    /// In a round of a waiting loop.
    Relax,
    /// Before the entries of this table are looked at.
    Table(FrameId),
    /// After a frame was copied.
    Copy,
    /// Before bytes are written into a frame.
    Write,
}

struct Hook {
    at: Point,
    /// Times that the point is passed before.
    skip: usize,
    run: Box<dyn FnOnce() + Send>,
}

/// RAM as words that anybody may touch at any time.
pub(super) struct Words {
    words: Vec<AtomicU64>,
    ram: [FrameRange; 1],
    hooks: Mutex<Vec<Hook>>,
    /// Allocations that succeed before all fail.
    budget: AtomicU64,
}

pub(super) const CPUS: usize = 4;

impl Words {
    pub(super) fn new(frames: u64) -> Self {
        Self {
            words: (0..frames * 512).map(|_| AtomicU64::new(0)).collect(),
            ram: [FrameRange { start: FrameId::new(0), end: FrameId::new(frames) }],
            hooks: Mutex::new(Vec::new()),
            budget: AtomicU64::new(u64::MAX),
        }
    }

    /// Runs `run` when `at` is passed for the `skip + 1`-th time from now on.
    pub(super) fn hook(&self, at: Point, skip: usize, run: impl FnOnce() + Send + 'static) {
        self.hooks.lock().unwrap().push(Hook { at, skip, run: Box::new(run) });
    }

    /// Lets `budget` more allocations succeed.
    pub(super) fn set_budget(&self, budget: u64) {
        self.budget.store(budget, Ordering::Relaxed);
    }

    fn pass(&self, point: Point) {
        let run = {
            let mut hooks = self.hooks.lock().unwrap();
            let Some(at) = hooks.iter().position(|hook| hook.at == point) else { return };
            if hooks[at].skip > 0 {
                hooks[at].skip -= 1;
                return;
            }
            hooks.remove(at).run
        };
        run();
    }

    fn frame(&self, frame: FrameId) -> &[AtomicU64] {
        &self.words[frame.as_u64() as usize * 512..][..512]
    }
}

// SAFETY: `words` is owned by the machine and each frame is its own 512 words (1, 2); there is no TLB, so nothing is
// ever stale (3); the default barriers are fences (4).
unsafe impl Machine for Words {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        CPUS
    }
    fn ram(&self) -> &[FrameRange] {
        &self.ram
    }
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.pass(Point::Table(frame));
        self.frame(frame)
    }
    fn zero(&self, frame: FrameId) {
        self.frame(frame).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    fn copy(&self, from: FrameId, to: FrameId) {
        for (from, to) in self.frame(from).iter().zip(self.frame(to)) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.pass(Point::Copy);
    }
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.frame(frame)[at / 8].load(Ordering::Relaxed).to_le_bytes()[at % 8];
        }
    }
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        self.pass(Point::Write);
        for (at, byte) in (offset..).zip(from) {
            let word = &self.frame(frame)[at / 8];
            let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
            bytes[at % 8] = *byte;
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }
    fn flush_local(&self, _cpu: CpuId, _flush: &Flush) {}
    fn flush_remote(&self, _cpu: CpuId, _targets: &CpuSet, _flush: &Flush) {}
    fn relax(&self, _cpu: CpuId) {
        self.pass(Point::Relax);
        std::thread::yield_now();
    }
    fn light_barrier(&self) {
        fence(Ordering::SeqCst);
        self.pass(Point::Enter);
    }
    fn may_allocate(&self, cpu: CpuId) -> bool {
        self.pass(Point::Allocate(cpu.as_usize()));
        let left = self.budget.load(Ordering::Relaxed);
        self.budget.store(left.saturating_sub(1), Ordering::Relaxed);
        left != 0
    }
}
