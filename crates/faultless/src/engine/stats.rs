//! The counters of a [`Vm`](crate::Vm), summed.

use crate::frame::{Kind, Memory};
use crate::machine::Machine;
use crate::sync::{Event, Held};
use alloc::vec::Vec;

/// Frames by what they are used for, counted one by one. Exact when nobody works; else each frame is counted as it was
/// when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of files, mapped or not.
    pub file: u64,
    /// Pages of memory objects, mapped or not.
    pub shmem: u64,
    /// Of `file` and `shmem`, those that are mapped.
    pub mapped: u64,
    /// Of `file`, those that wait to be written back (Dirty).
    pub dirty: u64,
    /// Of `file`, those that are being written back (Writeback).
    pub writing: u64,
    /// Page tables, the roots too.
    pub tables: u64,
    /// In the pool of large pages, in use or not (Hugetlb).
    pub pooled: u64,
    /// Free, on the allocator's lists or in a CPU's cache.
    pub free: u64,
}

impl Census {
    pub(super) fn take<M: Machine>(memory: &Memory<M>) -> Self {
        let mut census = Self::default();
        memory.each_frame(|_, record| {
            match record.kind() {
                Kind::Anon => census.anon += 1,
                Kind::File => census.file += 1,
                Kind::Memory => census.shmem += 1,
                Kind::Table => census.tables += 1,
                Kind::Huge => census.pooled += 1,
                _ => {}
            }
            let is_object_page = matches!(record.kind(), Kind::File | Kind::Memory);
            census.dirty += u64::from(record.is_owed());
            census.writing += u64::from(is_object_page && record.is_writing());
            census.mapped += u64::from(is_object_page && record.counts().1 != 0);
        });
        // All but the frame of zeroes. Free frames are not looked at: the record of a block is that of its first.
        let used = census.anon + census.file + census.shmem + census.tables + census.pooled + 1;
        census.free = memory.total_frames().saturating_sub(used);
        census
    }
}

/// Counters since the start. Exact when nobody works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    counts: Vec<(&'static str, u64)>,
    /// Frames handed over by the machine, the zero frame included.
    pub total_frames: u64,
    /// Frames on the allocator's lists; those in CPUs' caches are neither free nor in use.
    pub free_frames: u64,
}

impl Stats {
    pub(super) fn collect<M: Machine>(memory: &Memory<M>) -> Self {
        let cpus = memory.sections().cpus();
        let sum = |event| (0..cpus).map(|cpu| memory.tally(cpu).get(event)).sum();
        Self {
            counts: Event::ALL.iter().map(|event| (event.name(), sum(*event))).collect(),
            total_frames: memory.total_frames(),
            free_frames: memory.free_frames(&Held::default()),
        }
    }

    /// The count of that name; 0 for a name that does not exist.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.counts.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    /// All counts by name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().copied()
    }
}
