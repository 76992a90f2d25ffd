//! The smallest complete embedding: a machine over plain byte arrays, one CPU, no TLB.
//!
//! Maps memory, faults, forks, writes on both sides, reads back.

use core::sync::atomic::{AtomicU64, Ordering};
use faultless::machine::X86_64;
use faultless::{AtomicEntry, Cpu, CpuId, CpuSet, Flush, FrameId, FrameRange, Layout, Machine, MapRequest, Space, Vm};

/// RAM as words that anybody may touch at any time.
pub(crate) struct Bytes {
    words: Vec<AtomicU64>,
    pub(crate) ram: [FrameRange; 1],
}

impl Bytes {
    pub(crate) fn new(frames: u64) -> Self {
        let words = (0..frames * 512).map(|_| AtomicU64::new(0)).collect();
        Self { words, ram: [FrameRange { start: FrameId::new(0), end: FrameId::new(frames) }] }
    }
}

// SAFETY: `words` is owned by the machine and each frame is its own 512 words (1, 2); there is no TLB, so nothing is
// ever stale (3); the default barriers are fences (4).
unsafe impl Machine for Bytes {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        1
    }
    fn ram(&self) -> &[FrameRange] {
        &self.ram
    }
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        &self.words[frame.as_u64() as usize * 512..][..512]
    }
    fn zero(&self, frame: FrameId) {
        self.table(frame).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    fn copy(&self, from: FrameId, to: FrameId) {
        for (from, to) in self.table(from).iter().zip(self.table(to)) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.table(frame)[at / 8].load(Ordering::Relaxed).to_le_bytes()[at % 8];
        }
    }
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        for (at, byte) in (offset..).zip(from) {
            let word = &self.table(frame)[at / 8];
            let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
            bytes[at % 8] = *byte;
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }
    fn flush_local(&self, _cpu: CpuId, _flush: &Flush) {}
    fn flush_remote(&self, _cpu: CpuId, _targets: &CpuSet, _flush: &Flush) {}
    fn relax(&self, _cpu: CpuId) {
        std::hint::spin_loop();
    }
}

fn text(space: &Space<Bytes>, cpu: &mut Cpu<Bytes>, at: faultless::VirtAddr) -> String {
    let mut bytes = [0; 6];
    space.read(cpu, at, &mut bytes).expect("mapped");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn main() {
    let vm = Vm::new(Bytes::new(256)).expect("a sound machine");
    let mut cpu = vm.cpu(CpuId::new(0)).expect("the first to ask");
    let parent = vm.new_space(&mut cpu, Layout::linux()).expect("memory");

    let at = parent.map(&mut cpu, MapRequest::anonymous(64 << 10)).expect("room");
    parent.write(&mut cpu, at, b"parent").expect("mapped"); // faults: a fresh frame
    let child = parent.fork(&mut cpu).expect("memory"); // shares the page tables
    child.write(&mut cpu, at, b"child!").expect("mapped"); // faults: the path and one page are copied

    assert_eq!((text(&parent, &mut cpu, at), text(&child, &mut cpu, at)), ("parent".into(), "child!".into()));
    println!("parent {:?}, child {:?}", parent.usage(), child.usage());
    child.exit(&mut cpu);
    parent.exit(&mut cpu);
    vm.audit(&mut cpu, &[], &[]).expect("nothing leaks");
}
