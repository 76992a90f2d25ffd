//! From a frame number to its record, in O(1), also where memory has holes (OT-02).
//!
//! Called by `frame` only. The directory is fixed at start; a section covers 2^15 frames (128 MiB).

use super::record::{Kind, Record};
use crate::addr::{FrameId, FrameRange};
use alloc::boxed::Box;
use alloc::vec::Vec;

const SECTION_SHIFT: u32 = 15;
const SECTION: u64 = 1 << SECTION_SHIFT;

/// All records.
pub(crate) struct Records {
    directory: Vec<Section>,
}

/// Records of the frames `base .. base + records.len()` of one section.
struct Section {
    base: u64,
    records: Box<[Record]>,
}

impl Records {
    /// Records for the frames of `ranges`, or `None` if a range is reversed or overlaps the one before.
    pub(crate) fn new(ranges: &[FrameRange]) -> Option<Self> {
        let mut last = 0;
        for range in ranges {
            if range.start.as_u64() < last || range.start >= range.end {
                return None;
            }
            last = range.end.as_u64();
        }
        let sections = last.div_ceil(SECTION);
        let directory = (0..sections).map(|index| Section::new(index * SECTION, ranges)).collect();
        Some(Self { directory })
    }

    /// The record of `frame`.
    ///
    /// # Panics
    ///
    /// If no range held the frame or a neighbour in its section.
    #[inline]
    pub(crate) fn get(&self, frame: FrameId) -> &Record {
        let section = &self.directory[(frame.as_u64() >> SECTION_SHIFT) as usize];
        &section.records[(frame.as_u64() - section.base) as usize]
    }

    /// The record of `frame`, if the frame exists.
    pub(crate) fn find(&self, frame: u64) -> Option<&Record> {
        let section = self.directory.get((frame >> SECTION_SHIFT) as usize)?;
        let record = section.records.get(frame.checked_sub(section.base)? as usize)?;
        (record.kind() != Kind::Absent).then_some(record)
    }

    /// Calls `visit` with every frame that exists.
    pub(crate) fn each(&self, mut visit: impl FnMut(FrameId, &Record)) {
        for section in &self.directory {
            for (offset, record) in section.records.iter().enumerate() {
                if record.kind() != Kind::Absent {
                    visit(FrameId::new(section.base + offset as u64), record);
                }
            }
        }
    }
}

impl Section {
    /// The part of the ranges that lies in the section from `start` on.
    fn new(start: u64, ranges: &[FrameRange]) -> Self {
        let parts = || {
            ranges.iter().filter_map(|range| {
                let low = range.start.as_u64().max(start);
                let high = range.end.as_u64().min(start + SECTION);
                (low < high).then_some((low, high))
            })
        };
        let base = parts().map(|part| part.0).min().unwrap_or(start);
        let end = parts().map(|part| part.1).max().unwrap_or(base);
        Self { base, records: (base..end).map(|_| Record::absent()).collect() }
    }
}
