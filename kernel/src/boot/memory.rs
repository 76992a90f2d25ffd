//! Physical memory at boot: what is free, what the kernel takes, what faultless gets.
//!
//! Frames are taken from the largest free range below 4 GiB, which the boot tables map. After
//! [`hand_over`] there is nothing left to take. Never handed out: the first MiB (firmware, the
//! trampoline of the other CPUs), the kernel image and the archive, which stays in place as the
//! backing of its files.

use alloc::vec::Vec;

use faultless::{FrameId, FrameRange};

use super::pvh::{BootInfo, Region};
use crate::sync::Lock;

const PAGE: u64 = 4096;
const LOW_END: u64 = 1 << 20;
const BOOT_MAPPED_END: u64 = 4 << 30;
const RANGES_MAX: usize = 48;

/// The heap gets this share of the memory, within limits.
const HEAP_SHARE: u64 = 8;
const HEAP_MIN: u64 = 16 << 20;
const HEAP_MAX: u64 = 512 << 20;

struct Free {
    ranges: [Region; RANGES_MAX],
    count: usize,
}

static FREE: Lock<Free> = Lock::new(Free { ranges: [Region { start: 0, end: 0 }; RANGES_MAX], count: 0 });

unsafe extern "C" {
    safe static image_start: u8;
    safe static image_end: u8;
}

/// Physical range of the kernel image.
pub fn image() -> Region {
    Region { start: &raw const image_start as u64, end: (&raw const image_end as u64).next_multiple_of(PAGE) }
}

impl Free {
    fn push(&mut self, region: Region) {
        if region.start < region.end && self.count < RANGES_MAX {
            self.ranges[self.count] = region;
            self.count += 1;
        }
    }

    fn subtract(&mut self, taken: Region) {
        let old = core::mem::replace(self, Free { ranges: [Region::default(); RANGES_MAX], count: 0 });
        for range in &old.ranges[..old.count] {
            self.push(Region { start: range.start, end: range.end.min(taken.start) });
            self.push(Region { start: range.start.max(taken.end), end: range.end });
        }
    }

    fn largest_mapped(&mut self) -> Option<&mut Region> {
        self.ranges[..self.count].iter_mut().filter(|r| r.end <= BOOT_MAPPED_END).max_by_key(|r| r.end - r.start)
    }
}

/// Finds out what is free.
pub fn init(info: &BootInfo) {
    let mut free = FREE.lock();
    for &region in info.regions() {
        free.push(region);
    }
    free.subtract(Region { start: 0, end: LOW_END });
    free.subtract(image());
    if let Some(module) = info.module {
        free.subtract(Region { start: module.start & !(PAGE - 1), end: module.end.next_multiple_of(PAGE) });
    }
}

/// Takes `bytes` (rounded up to pages) of memory with adjacent addresses, not zeroed.
///
/// # Panics
///
/// If there is not enough: the machine is too small for this kernel.
pub fn take(bytes: u64) -> u64 {
    let bytes = bytes.next_multiple_of(PAGE);
    let mut free = FREE.lock();
    let range = free.largest_mapped().expect("there is memory below 4 GiB");
    assert!(range.end - range.start >= bytes, "not enough memory to boot: give the machine more");
    let start = range.start;
    range.start += bytes;
    start
}

/// Takes the region of the kernel heap: its address and size.
pub fn take_heap() -> (u64, u64) {
    let total: u64 = {
        let free = FREE.lock();
        free.ranges[..free.count].iter().map(|r| r.end - r.start).sum()
    };
    let wanted = (total / HEAP_SHARE).clamp(HEAP_MIN, HEAP_MAX) & !(PAGE - 1);
    let limit = {
        let mut free = FREE.lock();
        free.largest_mapped().map_or(0, |r| (r.end - r.start) / 2) & !(PAGE - 1)
    };
    let bytes = wanted.min(limit);
    (take(bytes), bytes)
}

/// All that is left, for faultless. Nothing can be taken any more.
pub fn hand_over() -> Vec<FrameRange> {
    let mut free = FREE.lock();
    let mut frames: Vec<FrameRange> = free.ranges[..free.count]
        .iter()
        .filter(|r| r.start < r.end)
        .map(|r| FrameRange { start: FrameId::new(r.start / PAGE), end: FrameId::new(r.end / PAGE) })
        .collect();
    frames.sort_by_key(|r| r.start.as_u64());
    free.count = 0;
    frames
}
