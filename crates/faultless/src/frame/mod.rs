//! Physical memory: one record per frame, typed handles, the allocator, and what a CPU owns of it.
//!
//! Called by `table`, `object` and `space`. [`Ctx`] is the bundle that every operation carries: the machine's memory
//! and the CPU it runs on. Absent on purpose: who maps a frame (that is `rmap`'s business) and when it may be freed
//! after an unmap (`tlb` and `space` decide; here a count reaches zero).

mod audit;
mod commit;
mod cpu;
mod pool;
mod record;
mod records;
mod zone;

pub(crate) use audit::recount_free;
pub(crate) use commit::Commit;
pub use commit::CommitPolicy;
pub(crate) use cpu::{CpuLocal, Retired};
pub use pool::HugePool;
pub(crate) use pool::{Key, Large, NoLarge, Pool};
pub(crate) use record::{Kind, Record};

use crate::addr::FrameId;
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::plain::{AtomicBool as PlainBool, AtomicU8, AtomicU64 as PlainU64, Ordering::Relaxed};
use crate::sync::{AtomicU64, Event, Held, Lock, Ordering, Rank, RawGuard, Section, Sections, Tally, mutant};
use alloc::boxed::Box;
use records::Records;
use zone::Zone;

/// Everything physical: the machine, its records and allocator, and the section words.
pub(crate) struct Memory<M: Machine> {
    machine: M,            // fixed
    records: Records,      // fixed directory; each record says itself who writes it
    zone: Lock<Zone>,      // rank Zone
    sections: Sections,    // each word written by its CPU only
    tallies: Box<[Line]>,  // each line written by its CPU only
    zero: FrameId,         // fixed: the shared frame of zeroes
    total: u64,            // fixed: frames in the allocator's care
    pins: AtomicU64,       // alone atomic: pins of anonymous pages that stand
    huge: PlainU64,        // alone atomic: HUGE entries, modulo 2^64
    huge_policy: AtomicU8, // alone atomic: see `HugePages`
    huge_ever: AtomicU8,   // alone atomic: the most that range operations ever had to reckon with
    commit: Commit,        // says itself
    pool: Lock<Pool>,      // rank Pool
    pooled: PlainBool,     // alone atomic, once true for ever: was anything of the pool ever promised?
}

/// A tally alone in its cache lines.
#[repr(align(128))]
struct Line(Tally);

/// A frame that was allocated and that nobody else knows yet. Publish it or free it.
#[must_use = "a frame that is neither published nor freed is lost"]
#[derive(Debug)]
pub(crate) struct Frame {
    id: FrameId,
}

impl Frame {
    /// The frame's number, for filling it.
    pub(crate) fn id(&self) -> FrameId {
        self.id
    }
}

/// Frames in a row, as many as a leaf table has entries and aligned to that, that nobody else knows yet. Publish or free
/// them.
#[must_use = "a block that is neither published nor freed is lost"]
#[derive(Debug)]
pub(crate) struct Block {
    first: FrameId,
    count: u64,
}

impl Block {
    /// The frames.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameId> + use<> {
        (self.first.as_u64()..self.first.as_u64() + self.count).map(FrameId::new)
    }
}

/// Why physical memory could not be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryError {
    /// The machine handed over no usable frame.
    NoMemory,
    /// The machine's RAM ranges are reversed or overlap, or it has no or too many CPUs.
    BadMachine,
}

impl<M: Machine> Memory<M> {
    /// Takes over the machine's RAM.
    pub(crate) fn new(machine: M) -> Result<Self, MemoryError> {
        let cpus = machine.cpus();
        if cpus == 0 || cpus > crate::addr::MAX_CPUS {
            return Err(MemoryError::BadMachine);
        }
        let records = Records::new(machine.ram()).ok_or(MemoryError::BadMachine)?;
        let mut zone = Zone::new();
        let mut total = 0;
        for range in machine.ram() {
            total += range.count();
            zone.donate(&records, *range);
        }
        let zero = zone.take(&records, 0).ok_or(MemoryError::NoMemory)?;
        machine.zero(zero);
        records.get(zero).set_kind(Kind::Zero);
        Ok(Self {
            machine,
            records,
            zone: Lock::new(Rank::Zone, zone),
            sections: Sections::new(cpus),
            tallies: (0..cpus).map(|_| Line(Tally::new())).collect(),
            zero,
            total,
            pins: AtomicU64::new(0),
            huge: PlainU64::new(0),
            huge_policy: AtomicU8::new(0),
            huge_ever: AtomicU8::new(0),
            commit: Commit::new(total, cpus),
            pool: Lock::new(Rank::Pool, Pool::new(cpus)),
            pooled: PlainBool::new(false),
        })
    }

    /// The embedder's machine.
    #[inline]
    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// The record of a frame.
    ///
    /// # Panics
    ///
    /// If the machine never handed the frame over: an entry was corrupted.
    #[inline]
    pub(crate) fn record(&self, frame: FrameId) -> &Record {
        self.records.get(frame)
    }

    /// The shared frame of zeroes.
    #[inline]
    pub(crate) fn zero_frame(&self) -> FrameId {
        self.zero
    }

    /// What was promised.
    #[inline]
    pub(crate) fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Notes a pin of an anonymous page to which the caller holds a reference.
    pub(crate) fn add_pin(&self, frame: FrameId) {
        self.record(frame).add_pin();
        // Relaxed, as in the record: a fork reads it after its grace period, which orders it.
        self.pins.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a pin back; before the reference is dropped.
    pub(crate) fn drop_pin(&self, frame: FrameId) {
        self.record(frame).drop_pin();
        // Release pairs with `has_pins`: who sees no pin left sees what was stored while there was one (P14).
        self.pins.fetch_sub(1, mutant::weaken(mutant::Mutant::RelaxedUnpin, Ordering::Release));
    }

    /// Counts HUGE entries that came or went.
    pub(crate) fn add_huge(&self, by: i64) {
        self.huge.fetch_add(by.cast_unsigned(), Relaxed);
    }

    /// Entries that map a large page.
    pub(crate) fn huge_entries(&self) -> u64 {
        self.huge.load(Relaxed)
    }

    /// Which memory gets large pages.
    #[inline]
    pub(crate) fn huge_policy(&self) -> u8 {
        self.huge_policy.load(Relaxed)
    }

    /// What range operations have to reckon with: nothing as long as no large page was ever asked for, else the most that
    /// the policy can have been where there are any.
    #[inline]
    pub(crate) fn huge_ever(&self) -> u8 {
        self.huge_ever.load(Relaxed)
    }

    /// Has range operations reckon with large pages where they are asked for. Before an area that asks is in the index:
    /// whoever finds it there took the lock of its stripe later, and knows.
    pub(crate) fn reckon_with_huge(&self) {
        self.huge_ever.fetch_max(1, Relaxed);
    }

    /// Changes the policy; `settle` runs between the note for range operations and the change itself.
    pub(crate) fn set_huge_policy(&self, policy: u8, settle: impl FnOnce()) {
        if policy > 1 {
            // Areas need not ask any more.
            self.huge_ever.fetch_max(policy, Relaxed);
        }
        settle();
        self.huge_policy.store(policy, Relaxed);
    }

    /// Does any pin of an anonymous page stand?
    #[inline]
    pub(crate) fn has_pins(&self) -> bool {
        // Acquire pairs with `drop_pin`.
        self.pins.load(Ordering::Acquire) != 0 && !mutant::is(mutant::Mutant::ForkForgetsPins)
    }

    /// The section words.
    #[inline]
    pub(crate) fn sections(&self) -> &Sections {
        &self.sections
    }

    /// Counters of one CPU.
    pub(crate) fn tally(&self, cpu: usize) -> &Tally {
        &self.tallies[cpu].0
    }

    /// Frames in the allocator's care, free or not.
    pub(crate) fn total_frames(&self) -> u64 {
        self.total
    }

    /// Frames on the free lists (frames in CPUs' caches are not among them).
    pub(crate) fn free_frames(&self, held: &Held) -> u64 {
        self.zone.lock(held, || ()).free_frames()
    }

    /// Calls `visit` with every frame that has a record.
    pub(crate) fn each_frame(&self, visit: impl FnMut(FrameId, &Record)) {
        self.records.each(visit);
    }

    /// Gives a frame back without a CPU at hand (the last reference to an object was dropped).
    pub(crate) fn free_without_cpu(&self, frame: FrameId) {
        let held = Held::default();
        if self.record(frame).kind() == Kind::Huge {
            return self.put_large(frame, &held, core::hint::spin_loop);
        }
        self.record(frame).set_kind(Kind::Cached);
        self.zone.lock(&held, core::hint::spin_loop).give(&self.records, frame, 0);
    }
}

/// What every operation carries: the memory, and the CPU it runs on.
pub(crate) struct Ctx<'a, M: Machine> {
    /// Physical memory.
    pub(crate) memory: &'a Memory<M>,
    /// What belongs to this CPU alone.
    pub(crate) cpu: &'a CpuLocal,
}

impl<M: Machine> Clone for Ctx<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Ctx<'_, M> {}

impl<'a, M: Machine> Ctx<'a, M> {
    /// The embedder's machine.
    #[inline]
    pub(crate) fn machine(self) -> &'a M {
        &self.memory.machine
    }

    /// Counts an event.
    #[inline]
    pub(crate) fn count(self, event: Event) {
        self.add(event, 1);
    }

    /// Counts an event several times.
    #[inline]
    pub(crate) fn add(self, event: Event, by: u64) {
        self.memory.tallies[self.cpu.index()].0.add(event, by);
    }

    /// One round of a waiting loop.
    #[inline]
    pub(crate) fn relax(self) {
        self.machine().relax(self.cpu.id());
    }

    /// Enters a section of `space`.
    #[inline]
    pub(crate) fn enter(self, space: u32) -> Section<'a> {
        self.memory.sections.enter(self.cpu.index(), space, || {
            if !mutant::is(mutant::Mutant::NoSectionFence) {
                self.machine().light_barrier();
            }
        })
    }

    /// Waits for the sections of `space` on other CPUs, or finds that there are none. True if it waited.
    pub(crate) fn wait_for_sections(self, space: u32) -> bool {
        if !self.has_other_sections(space) {
            return false;
        }
        self.memory.sections.wait(self.cpu.index(), space, || self.relax());
        true
    }

    /// After everything this CPU did so far is visible: is any section of `space` active elsewhere?
    pub(crate) fn has_other_sections(self, space: u32) -> bool {
        self.machine().heavy_barrier();
        self.memory.sections.is_active(self.cpu.index(), space)
    }

    /// The entries of a table.
    #[inline]
    pub(crate) fn entries(self, table: FrameId) -> &'a [AtomicEntry] {
        debug_assert_eq!(self.memory.record(table).kind(), Kind::Table, "walk into a frame that is no table");
        self.machine().table(table)
    }

    /// The record of a frame.
    #[inline]
    pub(crate) fn record(self, frame: FrameId) -> &'a Record {
        self.memory.record(frame)
    }

    /// Takes a table's lock (`L`).
    #[inline]
    pub(crate) fn lock_table(self, table: FrameId) -> RawGuard<'a> {
        self.record(table).lock.lock(Rank::Table, self.cpu.held(), move || self.relax())
    }

    /// Allocates a frame with undefined contents.
    pub(crate) fn alloc(self, kind: Kind) -> Option<Frame> {
        if !self.machine().may_allocate(self.cpu.id()) {
            return None;
        }
        let id = match self.cpu.cached_frame() {
            Some(id) => id,
            None => self.refill()?,
        };
        let record = self.record(id);
        debug_assert_eq!(record.kind(), Kind::Cached, "allocated a frame that is in use");
        record.set_kind(kind);
        Some(Frame { id })
    }

    /// Allocates a frame of zeroes.
    pub(crate) fn alloc_zeroed(self, kind: Kind) -> Option<Frame> {
        let frame = self.alloc(kind)?;
        self.machine().zero(frame.id);
        Some(frame)
    }

    /// Fills the empty cache of this CPU and takes one frame out.
    #[cold]
    fn refill(self) -> Option<FrameId> {
        self.count(Event::SlowFrameRefill);
        let mut zone = self.memory.zone.lock(self.cpu.held(), || self.relax());
        zone.take_batch(&self.memory.records, |frame| self.cpu.fill(frame));
        self.cpu.cached_frame()
    }

    /// Allocates frames for a large page, with undefined contents.
    pub(crate) fn alloc_block(self, kind: Kind) -> Option<Block> {
        if !self.machine().may_allocate(self.cpu.id()) {
            return None;
        }
        let order = M::Format::INDEX_BITS as usize;
        let first = self.memory.zone.lock(self.cpu.held(), || self.relax()).take(&self.memory.records, order)?;
        let block = Block { first, count: 1 << order };
        block.frames().for_each(|frame| self.record(frame).set_kind(kind));
        Some(block)
    }

    /// Gives each frame of a block a reference and a mapping and lets others know them. Returns the first.
    pub(crate) fn publish_block(self, block: Block) -> FrameId {
        block.frames().for_each(|frame| self.record(frame).init_counts(1, 1));
        block.first
    }

    /// Frees a block that was never published.
    pub(crate) fn free_block(self, block: Block) {
        self.give_block(block.first);
    }

    fn give_block(self, first: FrameId) {
        let order = M::Format::INDEX_BITS;
        let frames = first.as_u64()..first.as_u64() + (1 << order);
        frames.for_each(|frame| self.record(FrameId::new(frame)).set_kind(Kind::Cached));
        self.memory.zone.lock(self.cpu.held(), || self.relax()).give(&self.memory.records, first, order as usize);
    }

    /// Drops a reference and a mapping of each frame of a block; those frames go whose last reference it was, and if that
    /// is so of all, in one piece.
    pub(crate) fn put_block(self, first: FrameId) {
        if self.record(first).kind() == Kind::Huge {
            return self.put(first, 1, 1); // counted as a whole
        }
        let frames = || (first.as_u64()..first.as_u64() + (1 << M::Format::INDEX_BITS)).map(FrameId::new);
        // One bit per frame whose last reference went.
        let mut gone = [0u64; 8];
        for (index, frame) in frames().enumerate() {
            gone[index / 64] |= u64::from(self.record(frame).drop_counts(1, 1)) << (index % 64);
        }
        let count: u32 = gone.iter().map(|word| word.count_ones()).sum();
        if count == 1 << M::Format::INDEX_BITS {
            return self.give_block(first);
        }
        let is_gone = |index: usize| gone[index / 64] >> (index % 64) & 1 != 0;
        frames().enumerate().filter(|(index, _)| is_gone(*index)).for_each(|(_, frame)| self.free_id(frame));
    }

    /// Sets the reference count of a new frame (and as many mappings) and lets others know it.
    #[inline]
    pub(crate) fn publish(self, frame: Frame, references: u32, mappings: u32) -> FrameId {
        self.record(frame.id).init_counts(references, mappings);
        frame.id
    }

    /// Frees a frame that was never published.
    pub(crate) fn free(self, frame: Frame) {
        self.free_id(frame.id);
    }

    /// Drops `references` references and `mappings` mappings; the last one frees the frame.
    #[inline]
    pub(crate) fn put(self, frame: FrameId, references: u32, mappings: u32) {
        if self.record(frame).drop_counts(references, mappings) {
            self.free_id(frame);
        }
    }

    /// Frees a frame whose last reference is gone.
    pub(crate) fn free_id(self, frame: FrameId) {
        let record = self.record(frame);
        debug_assert!(
            !matches!(record.kind(), Kind::Free | Kind::Cached | Kind::Absent | Kind::Zero),
            "freed a frame of kind {:?}",
            record.kind()
        );
        if record.kind() == Kind::Huge {
            return self.memory.put_large(frame, self.cpu.held(), || self.relax());
        }
        record.set_kind(Kind::Cached);
        if let Some(id) = self.cpu.cache_frame(frame) {
            self.drain(id);
        }
    }

    /// Gives half of this CPU's full cache back, and `frame`.
    #[cold]
    fn drain(self, frame: FrameId) {
        self.count(Event::SlowFrameRefill);
        let mut zone = self.memory.zone.lock(self.cpu.held(), || self.relax());
        zone.give_loose(&self.memory.records, frame);
        self.cpu.drain(|id| zone.give_loose(&self.memory.records, id));
    }

    /// Gives the whole cache of this CPU back.
    pub(crate) fn drain_all(self) {
        let mut zone = self.memory.zone.lock(self.cpu.held(), || self.relax());
        while let Some(id) = self.cpu.cached_frame() {
            zone.give(&self.memory.records, id, 0);
        }
    }

    /// Retires a thing that sections may still reach. Stands in no section.
    pub(crate) fn retire(self, thing: Retired) {
        self.cpu.retire(
            thing,
            &self.memory.sections,
            || self.machine().heavy_barrier(),
            || self.relax(),
            |thing| self.reclaim(thing),
        );
    }

    /// Frees retired things whose sections have ended. True if none is left.
    pub(crate) fn collect(self) -> bool {
        self.cpu.collect(&self.memory.sections, || self.machine().heavy_barrier(), |thing| self.reclaim(thing))
    }

    fn reclaim(self, thing: Retired) {
        match thing {
            Retired::Table(frame) => {
                self.count(Event::TablesFreed);
                self.free_id(frame);
            }
            Retired::Heap(thing) => drop(thing),
        }
    }
}
