//! What one CPU owns: its frame cache, its limbo, its stamps, the locks it holds.
//!
//! Called through `Ctx`. Not `Sync`: the engine hands each [`CpuLocal`] to one token. Everything here is therefore
//! free of atomics.

use crate::addr::{CpuId, FrameId};
use crate::machine::format::STAMP_BITS;
use crate::sync::{Garbage, Held, Limbo, Sections};
use arrayvec::ArrayVec;
use core::cell::{Cell, RefCell};

/// Frames a CPU keeps at hand. Small in model builds, where a few frames serve several CPUs.
const CACHE: usize = if cfg!(any(loom, shuttle)) { 16 } else { 128 };
/// Frames moved between a cache and the zone at a time.
const BATCH: usize = if cfg!(any(loom, shuttle)) { 4 } else { 32 };
/// Stamp bits that name the CPU.
const CPU_BITS: u32 = 10;

/// Something unlinked that sections may still reach.
pub(crate) enum Retired {
    /// A page table.
    Table(FrameId),
    /// An area or a node of the area index.
    Heap(Garbage),
}

/// One CPU's own things.
pub(crate) struct CpuLocal {
    id: CpuId,
    held: Held,
    cache: RefCell<ArrayVec<FrameId, CACHE>>,
    limbo: RefCell<Limbo<Retired>>,
    next_stamp: Cell<u64>,
}

impl CpuLocal {
    /// For CPU `id` of a machine with `cpus` CPUs. `stamps` is where an earlier owner of the same CPU stopped.
    pub(crate) fn new(id: CpuId, cpus: usize, stamps: u64) -> Self {
        Self {
            id,
            held: Held::default(),
            cache: RefCell::new(ArrayVec::new()),
            limbo: RefCell::new(Limbo::new(cpus)),
            next_stamp: Cell::new(stamps),
        }
    }

    /// The CPU's number.
    #[inline]
    pub(crate) fn id(&self) -> CpuId {
        self.id
    }

    /// The number as an index.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.id.as_usize()
    }

    /// The locks this CPU holds.
    #[inline]
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// A stamp that no entry of this machine carries, and none has carried for 2^44 stamps of this CPU (P1).
    pub(crate) fn stamp(&self) -> u64 {
        let counter_bits = STAMP_BITS - CPU_BITS;
        let counter_of = |count: u64| count & ((1 << counter_bits) - 1);
        let next = self.next_stamp.get() + 1;
        // Never 0: that is the stamp of fresh tables.
        let count = if counter_of(next) == 0 { next + 1 } else { next };
        self.next_stamp.set(count);
        (self.index() as u64) << counter_bits | counter_of(count)
    }

    /// How many stamps were given out.
    pub(crate) fn stamps(&self) -> u64 {
        self.next_stamp.get()
    }

    /// A frame from the cache.
    #[inline]
    pub(crate) fn cached_frame(&self) -> Option<FrameId> {
        self.cache.borrow_mut().pop()
    }

    /// Puts a frame into the cache; gives it back if the cache is full.
    #[inline]
    pub(crate) fn cache_frame(&self, frame: FrameId) -> Option<FrameId> {
        self.cache.borrow_mut().try_push(frame).err().map(|full| full.element())
    }

    /// Frames that a cache holds at most.
    pub(crate) const MOST_CACHED: usize = CACHE;

    /// Calls `visit` with each frame in the cache.
    pub(crate) fn each_cached(&self, visit: &mut dyn FnMut(FrameId)) {
        self.cache.borrow().iter().copied().for_each(visit);
    }

    /// Puts a frame from the zone into the empty cache.
    pub(crate) fn fill(&self, frame: FrameId) {
        self.cache.borrow_mut().push(frame);
    }

    /// Hands a batch of cached frames to `give`.
    pub(crate) fn drain(&self, give: impl FnMut(FrameId)) {
        let mut cache = self.cache.borrow_mut();
        let keep = cache.len().saturating_sub(BATCH);
        cache.drain(keep..).for_each(give);
    }

    /// Retires a thing; see [`Limbo::retire`].
    #[inline]
    pub(crate) fn retire(
        &self,
        thing: Retired,
        sections: &Sections,
        barrier: impl Fn(),
        relax: impl Fn(),
        free: impl FnMut(Retired),
    ) {
        self.limbo.borrow_mut().retire(thing, sections, self.index(), barrier, relax, free);
    }

    /// Frees what can be freed; see [`Limbo::collect`].
    pub(crate) fn collect(&self, sections: &Sections, barrier: impl Fn(), free: impl FnMut(Retired)) -> bool {
        self.limbo.borrow_mut().collect(sections, self.index(), barrier, free)
    }
}
