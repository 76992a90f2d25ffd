//! A machine whose RAM is made of model atomics, with an MMU per CPU.
//!
//! An MMU has a TLB and a cache of walks to leaf tables. It caches only what an access made it walk, forgets only what
//! the scope of a flush or a fault names, and sets accessed and dirty by compare-exchange, as hardware does. One access
//! is one instruction: it holds the MMU from the lookup to the load or store, and a shootdown takes effect between two
//! instructions of its target. The entry decoder here is its own; it shares nothing with the codec under test.
//!
//! Absent on purpose: speculative walks (nobody would read what they cached before an access does), ASIDs.

use super::backend::Mutex;
use faultless::machine::Format;
use faultless::{AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine, PAGE_SIZE, Scope, VirtAddr};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Pages that a TLB can hold: more than the largest user space of any model.
const PAGES: usize = 16;

/// What an instruction raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault;

/// A cached translation of one page.
#[derive(Clone, Copy)]
struct Translation {
    frame: FrameId,
    write: bool,
    dirty: bool,
}

/// A walk: the table of the entry that maps the page, its level, and whether the path permits stores. Cached if that is
/// a leaf table.
#[derive(Clone, Copy)]
struct Walk {
    table: FrameId,
    level: usize,
    write: bool,
}

/// What one MMU knows.
struct Mmu {
    root: Option<FrameId>,
    pages: [Option<Translation>; PAGES],
    walks: [Option<Walk>; PAGES],
}

/// The machine.
pub struct ModelMachine<F> {
    ram: [FrameRange; 1],
    words: Vec<AtomicEntry>,
    mmus: Vec<Mutex<Mmu>>,
    /// Per CPU: allocations until one fails, and all that follow with it.
    budgets: Vec<AtomicU64>,
    format: PhantomData<fn() -> F>,
}

impl<F: Format> ModelMachine<F> {
    /// `cpus` CPUs and `frames` frames of `2^INDEX_BITS` words.
    pub fn new(cpus: usize, frames: u64) -> Self {
        let words = (0..frames << F::INDEX_BITS).map(|_| AtomicEntry::new(0)).collect();
        let mmu = |_| Mutex::new(Mmu { root: None, pages: [None; PAGES], walks: [None; PAGES] });
        let budgets = (0..cpus).map(|_| AtomicU64::new(u64::MAX)).collect();
        let ram = [FrameRange { start: FrameId::new(0), end: FrameId::new(frames) }];
        Self { ram, words, mmus: (0..cpus).map(mmu).collect(), budgets, format: PhantomData }
    }

    /// Lets `more` allocations of a CPU succeed, and then none.
    pub fn fail_after(&self, cpu: usize, more: u64) {
        self.budgets[cpu].store(more, Relaxed);
    }

    fn words(&self, frame: FrameId) -> &[AtomicEntry] {
        let first = (frame.as_u64() << F::INDEX_BITS) as usize;
        &self.words[first..first + (1 << F::INDEX_BITS)]
    }

    fn slot(page: u64, level: usize) -> usize {
        (page >> (F::INDEX_BITS * level as u32)) as usize & ((1 << F::INDEX_BITS) - 1)
    }

    /// Loads a root: what was cached of another one is gone.
    pub fn load_root(&self, cpu: usize, root: Option<FrameId>) {
        let mut mmu = self.mmus[cpu].lock().expect("a model thread panicked inside an MMU");
        *mmu = Mmu { root, pages: [None; PAGES], walks: [None; PAGES] };
    }

    /// One instruction of `cpu`: loads word `word` of `page`, or stores to it. `is_free` tells whose frame it must not
    /// be.
    pub fn access(
        &self,
        cpu: usize,
        page: u64,
        word: usize,
        store: Option<u64>,
        is_free: impl Fn(FrameId) -> bool,
    ) -> Result<u64, PageFault> {
        let mut mmu = self.mmus[cpu].lock().expect("a model thread panicked inside an MMU");
        let frame = match mmu.pages[page as usize] {
            Some(hit) if store.is_none() || hit.write && hit.dirty => hit.frame,
            _ => self.walk(&mut mmu, page, store.is_some())?,
        };
        assert!(!is_free(frame), "cpu {cpu} reached free {frame:?} at page {page} through a stale translation");
        let target = &self.words(frame)[word];
        Ok(match store {
            Some(value) => {
                target.store(value, Relaxed);
                value
            }
            None => target.load(Relaxed),
        })
    }

    /// Walks for an access and caches what it found; a fault drops what was cached for the page.
    fn walk(&self, mmu: &mut Mmu, page: u64, store: bool) -> Result<FrameId, PageFault> {
        let found = self.walk_table(mmu, page).and_then(|walk| {
            let slot = &self.words(walk.table)[Self::slot(page, walk.level)];
            let entry = decode(touch(slot, store && walk.write, walk.level == 1)?);
            let write = walk.write && entry.write;
            let frame = part(entry, walk.level, Self::slot(page, 0));
            (write || !store).then_some(Translation { frame, write, dirty: entry.dirty })
        });
        mmu.pages[page as usize] = found;
        if found.is_none() {
            mmu.walks[(page >> F::INDEX_BITS) as usize] = None;
        }
        found.map(|hit| hit.frame).ok_or(PageFault)
    }

    /// The leaf table for a page, from the cache or from the root.
    fn walk_table(&self, mmu: &mut Mmu, page: u64) -> Option<Walk> {
        let cached = &mut mmu.walks[(page >> F::INDEX_BITS) as usize];
        if cached.is_none() {
            let root = mmu.root.expect("a CPU that runs no space made an access");
            let mut walk = Walk { table: root, level: 0, write: true };
            for level in (1..F::LEVELS).rev() {
                let entry = decode(self.words(walk.table)[Self::slot(page, level)].load(Acquire));
                if !entry.present {
                    return None;
                }
                if level == 1 && entry.large {
                    return Some(Walk { level, ..walk }); // not cached: the walk ends here
                }
                walk = Walk { table: entry.frame, level: 0, write: walk.write && entry.write };
            }
            *cached = Some(walk);
        }
        *cached
    }

    /// The leaf entry of a page as it stands, with the write permission of the whole path; `None` if there is no table.
    pub fn entry(&self, root: FrameId, page: u64) -> Option<Entry> {
        let (mut table, mut write) = (root, true);
        for level in (1..F::LEVELS).rev() {
            let entry = decode(self.words(table)[Self::slot(page, level)].load(Acquire));
            if !entry.present {
                return None;
            }
            if level == 1 && entry.large {
                let frame = part(entry, level, Self::slot(page, 0));
                return Some(Entry { write: write && entry.write, frame, ..entry });
            }
            (table, write) = (entry.frame, write && entry.write);
        }
        let entry = decode(self.words(table)[Self::slot(page, 0)].load(Acquire));
        Some(Entry { write: write && entry.write, ..entry })
    }

    /// May some CPU that runs `root` use a cached translation of `page` (for stores, if `store`)?
    pub fn is_cached(&self, root: FrameId, page: u64, store: bool) -> bool {
        self.mmus.iter().any(|mmu| {
            let mmu = mmu.lock().expect("a model thread panicked inside an MMU");
            mmu.root == Some(root) && mmu.pages[page as usize].is_some_and(|hit| hit.write || !store)
        })
    }

    /// Clears accessed and dirty of a page that is mapped privately, as ageing would, and makes every CPU forget it: the
    /// next access sets them again.
    pub fn age(&self, root: FrameId, page: u64) {
        let mut table = root;
        for level in (1..F::LEVELS).rev() {
            table = decode(self.words(table)[Self::slot(page, level)].load(Acquire)).frame;
        }
        self.words(table)[Self::slot(page, 0)].fetch_and(!(32 | 64), AcqRel);
        (0..self.mmus.len()).for_each(|cpu| self.flush(CpuId::new(cpu as u32), &Flush { root, scope: Scope::All }));
    }

    /// The contents of a word.
    pub fn word(&self, frame: FrameId, word: usize) -> u64 {
        self.words(frame)[word].load(Relaxed)
    }

    fn flush(&self, cpu: CpuId, flush: &Flush) {
        let mut mmu = self.mmus[cpu.as_usize()].lock().expect("a model thread panicked inside an MMU");
        if mmu.root != Some(flush.root) {
            return;
        }
        for page in 0..PAGES as u64 {
            let named = match flush.scope {
                Scope::All => true,
                Scope::Pages(range) => range.contains(VirtAddr::new(page * PAGE_SIZE)),
            };
            if named {
                mmu.pages[page as usize] = None;
                mmu.walks[(page >> F::INDEX_BITS) as usize] = None;
            }
        }
    }
}

/// An entry as hardware reads it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub present: bool,
    pub write: bool,
    pub dirty: bool,
    pub large: bool,
    pub frame: FrameId,
}

/// The frame of page `index` of a table's worth, as an entry of `level` maps it.
fn part(entry: Entry, level: usize, index: usize) -> FrameId {
    FrameId::new(entry.frame.as_u64() + if level == 1 { index as u64 } else { 0 })
}

fn decode(raw: u64) -> Entry {
    let (present, write) = (raw & 1 != 0, raw & 2 != 0);
    Entry { present, write, dirty: raw & 64 != 0, large: raw & 128 != 0, frame: FrameId::new(raw << 12 >> 24) }
}

/// Sets accessed and, for a store that the entry permits, dirty. `None` if nothing is mapped, or not in this size.
fn touch(slot: &AtomicEntry, store: bool, large: bool) -> Option<u64> {
    let mut raw = slot.load(Acquire);
    loop {
        if raw & 1 == 0 || decode(raw).large != large {
            return None;
        }
        let touched = raw | 32 | if store && raw & 2 != 0 { 64 } else { 0 };
        if touched == raw {
            return Some(raw);
        }
        match slot.compare_exchange(raw, touched, AcqRel, Acquire) {
            Ok(_) => return Some(touched),
            Err(now) => raw = now,
        }
    }
}

// SAFETY: `words` is owned by the machine and each frame is its own part of it (1, 2); a flush holds the MMU that it
// changes, and an access holds it from the lookup to the end (3); the default barriers are fences (4).
unsafe impl<F: Format> Machine for ModelMachine<F> {
    type Format = F;

    fn cpus(&self) -> usize {
        self.mmus.len()
    }

    fn ram(&self) -> &[FrameRange] {
        &self.ram
    }

    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        self.words(frame)
    }

    fn zero(&self, frame: FrameId) {
        self.words(frame).iter().for_each(|word| word.store(0, Relaxed));
    }

    fn copy(&self, from: FrameId, to: FrameId) {
        for (from, to) in self.words(from).iter().zip(self.words(to)) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        for (chunk, word) in into.chunks_mut(8).zip(self.words(frame).iter().skip(offset / 8)) {
            chunk.copy_from_slice(&word.load(Relaxed).to_le_bytes()[..chunk.len()]);
        }
    }

    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        // The rest of the page is not there.
        for (chunk, word) in from.chunks_exact(8).zip(self.words(frame).iter().skip(offset / 8)) {
            word.store(u64::from_le_bytes(chunk.try_into().expect("a word")), Relaxed);
        }
    }

    fn flush_local(&self, cpu: CpuId, flush: &Flush) {
        self.flush(cpu, flush);
    }

    fn flush_remote(&self, cpu: CpuId, targets: &CpuSet, flush: &Flush) {
        assert!(!targets.contains(cpu), "a remote flush of oneself");
        targets.iter().for_each(|target| self.flush(target, flush));
    }

    fn relax(&self, _cpu: CpuId) {}

    fn may_allocate(&self, cpu: CpuId) -> bool {
        // Only this CPU's thread changes it.
        let left = self.budgets[cpu.as_usize()].load(Relaxed);
        self.budgets[cpu.as_usize()].store(left.saturating_sub(1), Relaxed);
        left != 0
    }
}
