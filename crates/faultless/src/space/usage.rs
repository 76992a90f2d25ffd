//! What a space has: pages by kind, tables, faults. Each CPU counts in a line of its own (F-01, AC-02).

use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::Gauge;
use crate::sync::plain::{AtomicI64, Ordering::Relaxed};
use crate::table::Delta;
use alloc::boxed::Box;

/// Memory use and faults of one space. Pages are of 4096 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Anonymous pages (RssAnon).
    pub anon: u64,
    /// Pages of files (RssFile).
    pub file: u64,
    /// Pages of memory objects (RssShmem).
    pub shmem: u64,
    /// Page tables, the root not counted (VmPTE).
    pub tables: u64,
    /// Pages of 4096 bytes in mapped large pages of the pool, which are not resident memory (HugetlbPages).
    pub huge: u64,
    /// Faults that read nothing from a pager.
    pub minor: u64,
    /// Faults that read from a pager.
    pub major: u64,
    /// Highest sum of pages seen: the larger of what was noted before each decrease and the present sum (AC-04).
    pub peak: u64,
}

impl Usage {
    /// Resident pages of all kinds (VmRSS).
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.anon + self.file + self.shmem
    }
}

/// One CPU's part.
#[repr(align(64))]
#[derive(Default)]
struct Shard {
    anon: Gauge,
    file: Gauge,
    memory: Gauge,
    tables: Gauge,
    huge: Gauge,
    minor: Gauge,
    major: Gauge,
}

/// The counters of one space.
pub(crate) struct Counters {
    shards: Box<[Shard]>,
    /// The mark of AC-04, stored only before a decrease.
    peak: AtomicI64,
}

impl Counters {
    /// All zero.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { shards: (0..cpus).map(|_| Shard::default()).collect(), peak: AtomicI64::new(0) }
    }

    /// Posts a change.
    #[inline]
    pub(crate) fn post<M: Machine>(&self, ctx: Ctx<'_, M>, delta: &Delta) {
        if *delta == Delta::default() {
            return;
        }
        if delta.anon + delta.file + delta.memory < 0 {
            self.mark_peak();
        }
        let shard = &self.shards[ctx.cpu.index()];
        shard.anon.add(delta.anon);
        shard.file.add(delta.file);
        shard.memory.add(delta.memory);
        shard.tables.add(delta.tables);
        if delta.huge != 0 {
            shard.huge.add(delta.huge);
        }
    }

    /// Counts a fault that brought so many anonymous pages, and needed no pager.
    #[inline]
    pub(crate) fn count_touch<M: Machine>(&self, ctx: Ctx<'_, M>, pages: i64) {
        let shard = &self.shards[ctx.cpu.index()];
        shard.anon.add(pages);
        shard.minor.add(1);
    }

    /// Counts a resolved fault.
    #[inline]
    pub(crate) fn count_fault<M: Machine>(&self, ctx: Ctx<'_, M>, major: bool) {
        let shard = &self.shards[ctx.cpu.index()];
        if major { shard.major.add(1) } else { shard.minor.add(1) }
    }

    /// Starts a child with the pages and tables of its parent, whose sums are exact now: no fault can change them.
    pub(crate) fn inherit<M: Machine>(&self, ctx: Ctx<'_, M>, parent: &Self) {
        let usage = parent.sum();
        self.post(
            ctx,
            &Delta {
                anon: usage.anon as i64,
                file: usage.file as i64,
                memory: usage.shmem as i64,
                tables: usage.tables as i64,
                huge: usage.huge as i64,
            },
        );
    }

    /// Forgets the pages and tables of a space that was taken down; faults and the mark stay.
    pub(crate) fn reset(&self) {
        self.mark_peak();
        for shard in &self.shards {
            for gauge in [&shard.anon, &shard.file, &shard.memory, &shard.tables, &shard.huge] {
                gauge.add(-gauge.get());
            }
        }
    }

    /// Starts the mark anew from what is there.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.sum().resident() as i64, Relaxed);
    }

    fn mark_peak(&self) {
        let now = self.sum().resident() as i64;
        if self.peak.load(Relaxed) < now {
            self.peak.fetch_max(now, Relaxed);
        }
    }

    /// The sums. Exact at quiescence.
    pub(crate) fn sum(&self) -> Usage {
        let sum =
            |gauge: fn(&Shard) -> &Gauge| self.shards.iter().map(|shard| gauge(shard).get()).sum::<i64>().max(0) as u64;
        let mut usage = Usage {
            anon: sum(|shard| &shard.anon),
            file: sum(|shard| &shard.file),
            shmem: sum(|shard| &shard.memory),
            tables: sum(|shard| &shard.tables),
            huge: sum(|shard| &shard.huge),
            minor: sum(|shard| &shard.minor),
            major: sum(|shard| &shard.major),
            peak: 0,
        };
        usage.peak = usage.resident().max(self.peak.load(Relaxed).max(0) as u64);
        usage
    }
}
