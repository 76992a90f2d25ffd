//! The fast face: for embedding, emulators and benchmarks.
//!
//! A CPU is a thread. An access costs two plain stores to the CPU's own busy word, one compare in a direct-mapped TLB
//! and the access itself; no read-modify-write and, where the host has membarrier, no fence.
//!
//! How a flush reaches a CPU that takes no interrupts:
//!
//! | flusher | CPU |
//! |---|---|
//! | puts the flush into the CPU's mail | makes its busy word odd |
//! | heavy barrier | light barrier |
//! | waits while the busy word is odd and the same | looks for mail, drops what it says; uses TLB and tables |
//! | | makes its busy word even |
//!
//! Either the CPU sees the mail before it uses a translation, or the flusher sees it busy and waits for that one
//! access. So a shootdown completes although the target sleeps, computes, or has no thread at all.

mod mail;
mod tlb;

use crate::arena::{Arena, Populate};
use crate::barrier::Barrier;
use crate::mmu::Mmu;
use crate::walk::{Node, PageFault, Steps, root, walk};
use core::sync::atomic::{AtomicU64, Ordering};
use faultless::machine::X86_64;
use faultless::{Access, AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine, Scope, VirtAddr};
use mail::{Mail, Request};
use rustix::io::Errno;
use tlb::Tlb;

/// Which barriers a [`Fast`] machine uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Barriers {
    /// The host's membarrier if there is one, else fences.
    #[default]
    Best,
    /// Fences, whatever the host has.
    Fences,
}

/// What a [`Fast`] machine is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FastConfig {
    /// Frames of 4096 bytes.
    pub frames: u64,
    /// CPUs.
    pub cpus: usize,
    /// When the host backs them.
    pub populate: Populate,
    /// How sections and accesses are ordered against those who wait for them.
    pub barriers: Barriers,
}

impl FastConfig {
    /// `frames` frames and `cpus` CPUs, the rest as most want it.
    #[must_use]
    pub fn new(frames: u64, cpus: usize) -> Self {
        Self { frames, cpus, populate: Populate::Lazily, barriers: Barriers::Best }
    }
}

/// A machine in user space.
#[derive(Debug)]
pub struct Fast {
    arena: Arena,
    barrier: Barrier,
    seats: Box<[Seat]>,
}

/// What one CPU has for itself.
///
/// Letters: (O) written by the CPU only, (M) see `mail`.
#[derive(Debug)]
#[repr(align(128))]
struct Seat {
    /// Odd while the CPU uses translations; goes up with every access.
    busy: AtomicU64, // (O)
    mail: Mail, // (M)
    /// Frame number of the root plus 1, or 0.
    root: AtomicU64, // (O)
    tlb: Tlb,   // (O)
    /// Rounds of waiting, to yield now and then.
    waited: AtomicU64, // (O)
}

impl Fast {
    /// A machine of fresh memory.
    ///
    /// # Errors
    ///
    /// What the host says if it has no such memory.
    pub fn new(config: FastConfig) -> Result<Self, Errno> {
        let barrier = match config.barriers {
            Barriers::Best => Barrier::register(),
            Barriers::Fences => Barrier::Fences,
        };
        let seats = (0..config.cpus).map(|_| Seat::new()).collect();
        Ok(Self { arena: Arena::new(config.frames, config.populate)?, barrier, seats })
    }

    fn seat(&self, cpu: CpuId) -> &Seat {
        &self.seats[cpu.as_usize()]
    }

    /// The walk after a TLB miss.
    #[cold]
    fn miss(&self, seat: &Seat, address: VirtAddr, access: Access) -> Result<FrameId, PageFault> {
        let top = seat.root().map(root).ok_or(PageFault::NotPresent)?;
        if let Some(cached) = seat.tlb.upper(address)
            && let Ok(found) = walk(&self.arena, cached, address, access, &mut LastTable(cached))
        {
            seat.tlb.fill(address, found);
            return Ok(found.frame);
        }
        // Before a page fault the processor forgets what it has cached about the address: a table may have been
        // replaced, or become writable, which needs no flush.
        let mut last = LastTable(top);
        let found = walk(&self.arena, top, address, access, &mut last)?;
        if last.0.level == 0 {
            seat.tlb.fill_upper(address, last.0);
        }
        seat.tlb.fill(address, found);
        Ok(found.frame)
    }
}

/// Remembers the last table that a walk passed: a leaf table, unless it ended at a large page.
struct LastTable(Node);

impl Steps for LastTable {
    fn passed(&mut self, node: Node) {
        self.0 = node;
    }
}

impl Seat {
    fn new() -> Self {
        Self {
            busy: AtomicU64::new(0),
            mail: Mail::new(),
            root: AtomicU64::new(0),
            tlb: Tlb::new(),
            waited: AtomicU64::new(0),
        }
    }

    fn root(&self) -> Option<FrameId> {
        self.root.load(Ordering::Relaxed).checked_sub(1).map(FrameId::new)
    }

    /// Starts an access: from here on flushers wait for us, and those that came before are served.
    #[inline]
    fn enter(&self, barrier: Barrier) -> Busy<'_> {
        let count = self.busy.load(Ordering::Relaxed) + 1;
        debug_assert!(count % 2 == 1, "an access inside an access");
        self.busy.store(count, Ordering::Relaxed);
        // Pairs with the heavy barrier in `flush_remote`: it sees us busy, or we see its mail.
        barrier.light();
        if self.mail.has_come() {
            self.mail.serve(|request| self.obey(request));
        }
        Busy { seat: self, count }
    }

    /// Waits until the access under way, if there is one, has ended. It cannot start another with old translations.
    fn wait(&self) {
        // Acquire pairs with the Release in `Busy::drop`: the access's effects are visible.
        let seen = self.busy.load(Ordering::Acquire);
        if seen.is_multiple_of(2) {
            return;
        }
        let mut rounds = 0u32;
        // Ends: an access is one walk and one copy; it waits for nobody.
        while self.busy.load(Ordering::Acquire) == seen {
            pause(&mut rounds);
        }
    }

    fn obey(&self, request: Request<'_>) {
        match request {
            Request::Some(flush) => self.forget(flush),
            Request::All => self.tlb.forget(&Scope::All),
        }
    }

    fn forget(&self, flush: &Flush) {
        if self.root() == Some(flush.root) {
            self.tlb.forget(&flush.scope);
        }
    }
}

/// Spins, then lets another thread of the host run: it may be the one that is waited for.
fn pause(rounds: &mut u32) {
    *rounds += 1;
    if rounds.is_multiple_of(64) {
        std::thread::yield_now();
    } else {
        core::hint::spin_loop();
    }
}

/// An access under way.
struct Busy<'a> {
    seat: &'a Seat,
    count: u64,
}

impl Drop for Busy<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with the Acquire in `Seat::wait`.
        self.seat.busy.store(self.count + 1, Ordering::Release);
    }
}

impl Mmu for Fast {
    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn load_root(&self, cpu: CpuId, root: Option<FrameId>) {
        let seat = self.seat(cpu);
        seat.root.store(root.map_or(0, |root| root.as_u64() + 1), Ordering::Relaxed);
        seat.tlb.forget(&Scope::All);
    }

    #[inline]
    fn with_page<R>(
        &self,
        cpu: CpuId,
        address: VirtAddr,
        access: Access,
        then: impl FnOnce(&Arena, FrameId, usize) -> R,
    ) -> Result<R, PageFault> {
        let seat = self.seat(cpu);
        let _busy = seat.enter(self.barrier);
        let frame = match seat.tlb.look_up(address, access) {
            Some(frame) => frame,
            None => self.miss(seat, address, access)?,
        };
        Ok(then(&self.arena, frame, address.page_offset()))
    }
}

// SAFETY: the arena is ours alone and reaches exactly the frame named (1); `Arena::table` is the same memory each time
// (2); `flush_local` drops at once, `flush_remote` by the argument at the top of the file (3); the barriers are a pair
// of fences, or membarrier and nothing (4).
unsafe impl Machine for Fast {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        self.seats.len()
    }

    fn ram(&self) -> &[FrameRange] {
        self.arena.ram()
    }

    #[inline]
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.arena.table(frame)
    }

    fn zero(&self, frame: FrameId) {
        self.arena.zero(frame);
    }

    fn copy(&self, from: FrameId, to: FrameId) {
        self.arena.copy(from, to);
    }

    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        self.arena.read(frame, offset, into);
    }

    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        self.arena.write(frame, offset, from);
    }

    fn flush_local(&self, cpu: CpuId, flush: &Flush) {
        self.seat(cpu).forget(flush);
    }

    fn flush_remote(&self, _cpu: CpuId, targets: &CpuSet, flush: &Flush) {
        targets.iter().for_each(|target| self.seat(target).mail.put(flush));
        // Pairs with the light barrier in `Seat::enter`.
        self.barrier.heavy();
        targets.iter().for_each(|target| self.seat(target).wait());
    }

    fn relax(&self, cpu: CpuId) {
        let waited = &self.seat(cpu).waited;
        let mut rounds = waited.load(Ordering::Relaxed) as u32 % 64;
        pause(&mut rounds);
        waited.store(u64::from(rounds), Ordering::Relaxed);
    }

    #[inline]
    fn light_barrier(&self) {
        self.barrier.light();
    }

    fn heavy_barrier(&self) {
        self.barrier.heavy();
    }
}
