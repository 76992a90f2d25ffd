//! The hostile face: what the manual allows and nobody hopes for, replayed exactly from a seed.
//!
//! - A TLB keeps everything until it is flushed, and serves it although memory says otherwise. Its MMU walks at any
//!   time to pages that nobody asked for, from tables cached long ago, and sets accessed bits on the way.
//! - An interrupt is taken late: only while its CPU runs user code or waits, and even then it is put off.
//! - A store through a stale writable translation may set the dirty bit of an entry that is read-only by now.
//! - Copying a page is not atomic, and the n-th allocation fails.
//! - CPUs are threads of the host of which one runs at a time. At every call of the machine, every access of a walk
//!   and every round of a waiting loop the seed decides who goes on.
//!
//! What a processor does *not* do is not done here either: before it raises a page fault it forgets what it has cached
//! about that address, and it takes no interrupt in the middle of an access.
//!
//! Outside [`Hostile::run`] the machine works too, on the calling thread alone; interrupts are then taken at once.

mod caches;
mod config;
mod run;
mod turns;

pub use config::{HostileConfig, Schedule};
pub use run::Body;

use crate::arena::{Arena, Populate};
use crate::mmu::Mmu;
use crate::rng::Rng;
use crate::walk::{Node, PageFault, Steps, Translation, walk};
use caches::{Caches, set_dirty};
use faultless::machine::X86_64;
use faultless::{Access, AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine, VirtAddr};
use run::Stage;
use rustix::io::Errno;
use std::sync::{Mutex, MutexGuard, PoisonError};
use turns::Offer;

/// A machine that wants your memory management to fail.
#[derive(Debug)]
pub struct Hostile {
    arena: Arena,
    config: HostileConfig,
    state: Mutex<State>,
    stage: Stage,
}

/// Which allocations fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failing {
    /// The one named, and no other: who asks again gets a frame.
    Once,
    /// The one named and all that follow.
    AllFromThenOn,
}

/// Everything that changes, in the hands of whoever runs.
#[derive(Debug)]
struct State {
    rng: Rng,
    cpus: Vec<Caches>,
    /// The run, if there is one.
    run: Option<run::Run>,
    /// Number of the next interrupt.
    interrupts: u64,
    /// Allocations asked for so far.
    allocations: u64,
    /// The allocation that fails.
    failing: Option<(u64, Failing)>,
    has_failed: bool,
    /// A digest of all choices, to compare two runs of a seed.
    digest: u64,
}

impl Hostile {
    /// A machine of fresh memory.
    ///
    /// # Errors
    ///
    /// What the host says if it has no such memory.
    pub fn new(config: HostileConfig) -> Result<Self, Errno> {
        let state = State {
            rng: Rng::new(config.seed),
            cpus: (0..config.cpus).map(|_| Caches::default()).collect(),
            run: None,
            interrupts: 0,
            allocations: 0,
            failing: None,
            has_failed: false,
            digest: 0,
        };
        let arena = Arena::new(config.frames, Populate::Lazily)?;
        Ok(Self { arena, config, state: Mutex::new(state), stage: Stage::new(config.cpus) })
    }

    /// Lets the allocation after `more` others fail. Replaces what was set before.
    pub fn fail_allocation_after(&self, more: u64, which: Failing) {
        let mut state = self.lock();
        state.failing = Some((state.allocations + more, which));
        state.has_failed = false;
    }

    /// No allocation fails any more. True if one has failed since [`Hostile::fail_allocation_after`].
    pub fn fail_no_allocation(&self) -> bool {
        let mut state = self.lock();
        state.failing = None;
        state.has_failed
    }

    /// A digest of every choice made so far: two runs of one seed have the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.lock().digest
    }

    /// The number of steps so far in the run under way: the clock that all CPUs agree on. 0 outside a run.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.lock().run.as_ref().map_or(0, |run| run.turns.steps)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic with the lock held ends the run; what is left is good enough to say so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CPU is in user mode or waits: it may take the interrupts that wait for it.
    fn serve(&self, cpu: CpuId) {
        let State { cpus, rng, .. } = &mut *self.lock();
        cpus[cpu.as_usize()].may_serve(self.config.delay, rng);
    }

    /// The translation for an access, from the TLB or by a walk.
    fn translate(&self, cpu: CpuId, address: VirtAddr, access: Access) -> Result<FrameId, PageFault> {
        if let Some(found) = self.cached(cpu, address, access)? {
            return Ok(found);
        }
        let start = {
            let State { cpus, rng, .. } = &mut *self.lock();
            cpus[cpu.as_usize()].start(address, rng).ok_or(PageFault::NotPresent)?
        };
        let found = walk(&self.arena, start, address, access, &mut Watched { machine: self, cpu, address });
        let caches = &mut self.lock().cpus[cpu.as_usize()];
        match found {
            Ok(found) => caches.keep_page(address, found),
            Err(_) => caches.fault(address),
        }
        found.map(|found| found.frame)
    }

    /// What the TLB says: a frame, nothing, or (as it may without looking at memory) a page fault.
    fn cached(&self, cpu: CpuId, address: VirtAddr, access: Access) -> Result<Option<FrameId>, PageFault> {
        let State { cpus, rng, .. } = &mut *self.lock();
        let caches = &mut cpus[cpu.as_usize()];
        if self.config.evict != 0 && rng.once_in(self.config.evict) {
            caches.evict(rng);
        }
        let Some(found) = caches.page(address) else { return Ok(None) };
        if !found.permits(access) {
            if rng.once_in(2) {
                return Ok(None);
            }
            caches.fault(address);
            return Err(PageFault::Protection);
        }
        if access != Access::Write || found.dirty {
            return Ok(Some(found.frame));
        }
        // A store through a translation whose dirty bit is not set yet.
        let sets = caches.root.is_some_and(|root| rng.once_in(2) && set_dirty(&self.arena, root, address, found.frame));
        if sets {
            caches.keep_page(address, Translation { dirty: true, ..found });
        }
        Ok(sets.then_some(found.frame))
    }
}

/// A walk that is interrupted between its accesses and fills the caches of its CPU.
struct Watched<'a> {
    machine: &'a Hostile,
    cpu: CpuId,
    address: VirtAddr,
}

impl Steps for Watched<'_> {
    fn step(&mut self) {
        self.machine.step(Offer::Step);
    }

    fn passed(&mut self, node: Node) {
        self.machine.lock().cpus[self.cpu.as_usize()].keep_table(self.address, node);
    }
}

impl Mmu for Hostile {
    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn load_root(&self, cpu: CpuId, root: Option<FrameId>) {
        self.step(Offer::Step);
        self.lock().cpus[cpu.as_usize()].load_root(root);
    }

    fn with_page<R>(
        &self,
        cpu: CpuId,
        address: VirtAddr,
        access: Access,
        then: impl FnOnce(&Arena, FrameId, usize) -> R,
    ) -> Result<R, PageFault> {
        self.serve(cpu);
        self.step(Offer::Step);
        // From here to the end no interrupt is taken: an access is done as a whole or faults.
        let frame = self.translate(cpu, address, access)?;
        self.step(Offer::Step);
        Ok(then(&self.arena, frame, address.page_offset()))
    }
}

// SAFETY: the arena is ours alone and reaches exactly the frame named (1); `Arena::table` is the same memory each time
// (2); `flush_local` drops at once, `flush_remote` returns when each target has taken its interrupt, and no interrupt
// is taken during an access (3); one CPU runs at a time, and turns are handed over by a mutex (4).
unsafe impl Machine for Hostile {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        self.config.cpus
    }

    fn ram(&self) -> &[FrameRange] {
        self.arena.ram()
    }

    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.step(Offer::Step);
        self.arena.table(frame)
    }

    fn zero(&self, frame: FrameId) {
        self.step(Offer::Step);
        self.arena.zero(frame);
    }

    fn copy(&self, from: FrameId, to: FrameId) {
        const HALF: usize = 2048;
        for offset in [0, HALF] {
            self.step(Offer::Step);
            let mut bytes = [0; HALF];
            self.arena.read(from, offset, &mut bytes);
            self.arena.write(to, offset, &bytes);
        }
    }

    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        self.step(Offer::Step);
        self.arena.read(frame, offset, into);
    }

    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        self.step(Offer::Step);
        self.arena.write(frame, offset, from);
    }

    fn flush_local(&self, cpu: CpuId, flush: &Flush) {
        self.step(Offer::Step);
        self.lock().cpus[cpu.as_usize()].forget(flush);
    }

    fn flush_remote(&self, cpu: CpuId, targets: &CpuSet, flush: &Flush) {
        self.step(Offer::Step);
        let number = self.send(targets, flush);
        // Ends: a CPU in user mode puts an interrupt off a bounded number of times, one that waits does too, and
        // everything else comes to one of the two; a body that has ended has taken all.
        while !targets.iter().all(|target| self.lock().cpus[target.as_usize()].has_served(number)) {
            self.relax(cpu);
        }
    }

    fn relax(&self, cpu: CpuId) {
        self.serve(cpu);
        self.step(Offer::Wait);
    }

    fn light_barrier(&self) {
        self.step(Offer::Step);
    }

    fn heavy_barrier(&self) {
        self.step(Offer::Step);
    }

    fn may_allocate(&self, _cpu: CpuId) -> bool {
        self.step(Offer::Step);
        let mut state = self.lock();
        state.allocations += 1;
        let Some((last, which)) = state.failing.filter(|(last, _)| state.allocations > *last) else { return true };
        state.has_failed = true;
        state.failing = (which == Failing::AllFromThenOn).then_some((last, which));
        false
    }
}

#[cfg(test)]
mod tests;
