//! Both machines keep the promises, and the suite finds machines that do not.

use faultless::machine::X86_64;
use faultless::{Access, AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine, Scope, VirtAddr};
use faultless_hosted::conformance::{SoftProbe, check};
use faultless_hosted::{Arena, Barriers, Fast, FastConfig, Hostile, HostileConfig, Mmu, PageFault};

#[test]
fn the_fast_machine_keeps_its_promises() {
    for barriers in [Barriers::Best, Barriers::Fences] {
        let machine = Fast::new(FastConfig { barriers, ..FastConfig::new(64, 3) }).expect("an arena");
        assert_eq!(check(&machine, &mut SoftProbe::new()), Ok(()), "{barriers:?}");
    }
}

#[test]
fn the_hostile_machine_keeps_its_promises() {
    for seed in 0..8 {
        let machine = Hostile::new(HostileConfig::new(64, 3, seed)).expect("an arena");
        assert_eq!(check(&machine, &mut SoftProbe::new()), Ok(()), "seed {seed}");
    }
}

/// Which promise is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    None,
    ZeroesHalf,
    CopiesHalf,
    WritesElsewhere,
    ForgetsLocalFlush,
    ForgetsRemoteFlush,
    FlushesPagesOnly,
    NoCpus,
    RamReversed,
}

/// A machine that breaks a promise.
struct Liar {
    inner: Hostile,
    lie: Lie,
    reversed: [FrameRange; 1],
}

impl Liar {
    fn new(lie: Lie) -> Self {
        let inner = Hostile::new(HostileConfig::new(64, 2, 5)).expect("an arena");
        Self { inner, lie, reversed: [FrameRange { start: FrameId::new(9), end: FrameId::new(3) }] }
    }

    fn half(&self, frame: FrameId) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        self.inner.read(frame, 2048, &mut bytes);
        bytes
    }
}

// SAFETY: memory is the inner machine's; the promises broken are about contents and translations, which the suite
// checks without a `Vm`.
unsafe impl Machine for Liar {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        if self.lie == Lie::NoCpus { 0 } else { self.inner.cpus() }
    }
    fn ram(&self) -> &[FrameRange] {
        if self.lie == Lie::RamReversed { &self.reversed } else { self.inner.ram() }
    }
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.inner.table(frame)
    }
    fn zero(&self, frame: FrameId) {
        let half = self.half(frame);
        self.inner.zero(frame);
        if self.lie == Lie::ZeroesHalf {
            self.inner.write(frame, 2048, &half);
        }
    }
    fn copy(&self, from: FrameId, to: FrameId) {
        let half = self.half(to);
        self.inner.copy(from, to);
        if self.lie == Lie::CopiesHalf {
            self.inner.write(to, 2048, &half);
        }
    }
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        self.inner.read(frame, offset, into);
    }
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        let frame = if self.lie == Lie::WritesElsewhere { FrameId::new(frame.as_u64() ^ 1) } else { frame };
        self.inner.write(frame, offset, from);
    }
    fn flush_local(&self, cpu: CpuId, flush: &Flush) {
        match (self.lie, flush.scope) {
            (Lie::ForgetsLocalFlush, _) | (Lie::FlushesPagesOnly, Scope::All) => {}
            _ => self.inner.flush_local(cpu, flush),
        }
    }
    fn flush_remote(&self, cpu: CpuId, targets: &CpuSet, flush: &Flush) {
        if self.lie != Lie::ForgetsRemoteFlush {
            self.inner.flush_remote(cpu, targets, flush);
        }
    }
    fn relax(&self, cpu: CpuId) {
        self.inner.relax(cpu);
    }
}

impl Mmu for Liar {
    fn arena(&self) -> &Arena {
        self.inner.arena()
    }
    fn load_root(&self, cpu: CpuId, root: Option<FrameId>) {
        self.inner.load_root(cpu, root);
    }
    fn with_page<R>(
        &self,
        cpu: CpuId,
        address: VirtAddr,
        access: Access,
        then: impl FnOnce(&Arena, FrameId, usize) -> R,
    ) -> Result<R, PageFault> {
        self.inner.with_page(cpu, address, access, then)
    }
}

#[test]
fn the_suite_finds_every_lie() {
    assert_eq!(check(&Liar::new(Lie::None), &mut SoftProbe::new()), Ok(()));
    for (lie, sign) in [
        (Lie::ZeroesHalf, "zero does not"),
        (Lie::CopiesHalf, "copy does not"),
        (Lie::WritesElsewhere, "write at"),
        (Lie::ForgetsLocalFlush, "flush_local"),
        (Lie::ForgetsRemoteFlush, "flush_remote"),
        (Lie::FlushesPagesOnly, "flush_local of all"),
        (Lie::NoCpus, "CPUs"),
        (Lie::RamReversed, "RAM"),
    ] {
        let failures = check(&Liar::new(lie), &mut SoftProbe::new()).expect_err("a lie");
        assert!(failures.iter().any(|failure| failure.contains(sign)), "{lie:?}: {failures:?}");
    }
}
