//! The buddy allocator: free blocks of 2^order frames in one list per order.
//!
//! Called by `frame` under the zone's lock, to refill and drain the CPUs' caches. A free block's first record holds
//! the links: word0 = next + 1, word1 = (previous + 1) << 8 | order. Single frames that come back from caches wait on
//! a loose list and are merged only when a block is wanted that the lists do not have.

use super::record::{Kind, Record};
use super::records::Records;
use crate::addr::{FrameId, FrameRange};

/// Blocks of up to 2^10 frames (4 MiB).
pub(crate) const ORDERS: usize = 11;
/// Batches for CPUs' caches are of 2^5 frames at most; of 4 in model builds, where a few frames serve several CPUs.
const BATCH_ORDER: usize = if cfg!(any(loom, shuttle)) { 2 } else { 5 };

/// The free lists.
pub(crate) struct Zone {
    /// First block of each order, plus 1; 0 is the empty list.
    heads: [u64; ORDERS],
    /// First loose frame, plus 1.
    loose: u64,
    /// Frames on all lists.
    free: u64,
}

/// The order that a loose frame's record shows: no block has it.
const LOOSE: u64 = 0xff;

impl Zone {
    /// No memory yet.
    pub(crate) fn new() -> Self {
        Self { heads: [0; ORDERS], loose: 0, free: 0 }
    }

    /// Frames on the lists.
    pub(crate) fn free_frames(&self) -> u64 {
        self.free
    }

    /// Adds RAM, in the largest aligned blocks that fit.
    pub(crate) fn donate(&mut self, records: &Records, range: FrameRange) {
        for frame in range.start.as_u64()..range.end.as_u64() {
            records.get(FrameId::new(frame)).set_kind(Kind::Cached);
        }
        let (mut at, end) = (range.start.as_u64(), range.end.as_u64());
        while at < end {
            let mut order = (at.trailing_zeros() as usize).min(ORDERS - 1);
            while at + (1 << order) > end {
                order -= 1;
            }
            self.give(records, FrameId::new(at), order);
            at += 1 << order;
        }
    }

    /// Takes a block of 2^`order` frames.
    pub(crate) fn take(&mut self, records: &Records, order: usize) -> Option<FrameId> {
        let mut found = match self.order_of_next(order) {
            Some(found) => found,
            None => {
                self.merge_loose(records);
                self.order_of_next(order)?
            }
        };
        let block = self.heads[found] - 1;
        self.unlink(records, block, found);
        // Give the upper halves back until the block is as small as asked.
        while found > order {
            found -= 1;
            self.link(records, block + (1 << found), found);
        }
        self.free -= 1 << order;
        records.get(FrameId::new(block)).set_kind(Kind::Cached);
        Some(FrameId::new(block))
    }

    /// The smallest order, from `order` on, of which there is a block.
    fn order_of_next(&self, order: usize) -> Option<usize> {
        (order..ORDERS).find(|order| self.heads[*order] != 0)
    }

    /// Takes up to `BATCH` single frames for a CPU's cache.
    pub(crate) fn take_batch(&mut self, records: &Records, mut take: impl FnMut(FrameId)) {
        for taken in 0..1 << BATCH_ORDER {
            let Some(frame) = self.loose.checked_sub(1).map(FrameId::new) else {
                return if taken == 0 {
                    self.take_block(records, take)
                };
            };
            let record = records.get(frame);
            self.loose = record.words().0;
            record.set_words(0, 0);
            record.set_kind(Kind::Cached);
            self.free -= 1;
            take(frame);
        }
    }

    /// The same from a block, the largest there is of at most a batch.
    fn take_block(&mut self, records: &Records, mut take: impl FnMut(FrameId)) {
        let Some(order) = (0..=BATCH_ORDER).rev().find(|order| self.order_of_next(*order).is_some()) else { return };
        let Some(first) = self.take(records, order) else { return };
        for offset in (0..1 << order).rev() {
            let frame = FrameId::new(first.as_u64() + offset);
            records.get(frame).set_kind(Kind::Cached);
            take(frame);
        }
    }

    /// Gives a single frame back without a look at its neighbours.
    pub(crate) fn give_loose(&mut self, records: &Records, frame: FrameId) {
        let record = records.get(frame);
        record.set_kind(Kind::Free);
        record.set_words(self.loose, LOOSE);
        self.loose = frame.as_u64() + 1;
        self.free += 1;
    }

    /// Merges the loose frames into blocks.
    fn merge_loose(&mut self, records: &Records) {
        while let Some(frame) = self.loose.checked_sub(1).map(FrameId::new) {
            self.loose = records.get(frame).words().0;
            self.free -= 1;
            self.give(records, frame, 0);
        }
    }

    /// Gives a block back and merges it with its buddies.
    pub(crate) fn give(&mut self, records: &Records, frame: FrameId, order: usize) {
        self.free += 1 << order;
        let (mut block, mut order) = (frame.as_u64(), order);
        while order < ORDERS - 1 {
            let buddy = block ^ 1 << order;
            if !is_free_block(records, buddy, order) {
                break;
            }
            self.unlink(records, buddy, order);
            block &= !(1 << order);
            order += 1;
        }
        self.link(records, block, order);
    }

    /// Calls `visit` with the first frame of each block on the lists, and how many it has. Ends early if there are more
    /// than [`Zone::free_frames`], as on a list that leads back into itself.
    pub(crate) fn each(&self, records: &Records, visit: &mut dyn FnMut(FrameId, u64)) {
        let mut seen = 0;
        let loose = (self.loose, 1);
        let blocks = self.heads.iter().enumerate().map(|(order, head)| (*head, 1 << order));
        for (mut next, count) in blocks.chain([loose]) {
            while let Some(frame) = next.checked_sub(1).map(FrameId::new)
                && seen <= self.free
            {
                seen += count;
                visit(frame, count);
                next = records.get(frame).words().0;
            }
        }
    }

    fn link(&mut self, records: &Records, block: u64, order: usize) {
        let next = self.heads[order];
        let record = records.get(FrameId::new(block));
        record.set_kind(Kind::Free);
        record.set_words(next, order as u64);
        if next != 0 {
            let after = records.get(FrameId::new(next - 1));
            after.set_words(after.words().0, (block + 1) << 8 | order as u64);
        }
        self.heads[order] = block + 1;
    }

    fn unlink(&mut self, records: &Records, block: u64, order: usize) {
        let record = records.get(FrameId::new(block));
        let (next, back) = record.words();
        let previous = back >> 8;
        if next != 0 {
            let after = records.get(FrameId::new(next - 1));
            after.set_words(after.words().0, previous << 8 | order as u64);
        }
        if previous == 0 {
            self.heads[order] = next;
        } else {
            let before = records.get(FrameId::new(previous - 1));
            before.set_words(next, before.words().1);
        }
        record.set_kind(Kind::Cached);
        record.set_words(0, 0);
    }
}

/// Is `block` the first frame of a free block of exactly this order?
fn is_free_block(records: &Records, block: u64, order: usize) -> bool {
    records
        .find(block)
        .is_some_and(|record: &Record| record.kind() == Kind::Free && record.words().1 & 0xff == order as u64)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
