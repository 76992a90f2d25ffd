//! The counters of a [`Vm`](crate::Vm), summed.

use crate::frame::Memory;
use crate::machine::Machine;
use crate::sync::{Event, Held};
use alloc::vec::Vec;

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
