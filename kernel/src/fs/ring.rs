//! A bounded queue of bytes that can be looked at before it is consumed.
//!
//! Called by pipes. It grows by doubling up to its capacity, so that an idle pipe costs no memory.

use alloc::vec::Vec;

/// Bytes in the order they were put in.
pub struct Ring {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
    capacity: usize,
    /// Bytes that were taken out and may come back; room is kept for them.
    lent: usize,
}

/// No memory for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// What a fresh ring allocates at its first use.
const FIRST: usize = 4096;

impl Ring {
    /// An empty ring that takes up to `capacity` bytes, a power of two of at least a page.
    pub const fn new(capacity: usize) -> Ring {
        Ring { bytes: Vec::new(), start: 0, length: 0, capacity, lent: 0 }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity - self.length - self.lent
    }

    /// Bytes that fit at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the capacity unless more than that is in it. Says whether it did.
    pub fn set_capacity(&mut self, capacity: usize) -> bool {
        if self.length + self.lent > capacity {
            return false;
        }
        if self.bytes.len() > capacity {
            let mut kept = Vec::new();
            let (head, tail) = self.peek();
            if kept.try_reserve_exact(capacity).is_err() {
                return false;
            }
            kept.extend_from_slice(head);
            kept.extend_from_slice(tail);
            kept.resize(capacity, 0);
            self.bytes = kept;
            self.start = 0;
        }
        self.capacity = capacity;
        true
    }

    /// Everything in it, in two runs.
    pub fn peek(&self) -> (&[u8], &[u8]) {
        let end = self.start + self.length;
        if end <= self.bytes.len() {
            (&self.bytes[self.start..end], &[])
        } else {
            (&self.bytes[self.start..], &self.bytes[..end - self.bytes.len()])
        }
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.length, "consumed more than there is");
        self.length -= count;
        self.start = match self.length {
            0 => 0,
            _ => (self.start + count) % self.bytes.len(),
        };
    }

    /// Drops the first `count` bytes, but keeps room for them until they are [`settle`](Ring::settle)d.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn lend(&mut self, count: usize) {
        self.consume(count);
        self.lent += count;
    }

    /// Ends a loan of `lent` bytes, of which `back` come back to the front.
    ///
    /// # Panics
    ///
    /// If less was lent.
    pub fn settle(&mut self, lent: usize, back: &[u8]) {
        assert!(back.len() <= lent && lent <= self.lent, "came back more than was lent");
        self.lent -= lent;
        let size = self.bytes.len();
        if back.is_empty() {
            return;
        }
        self.start = (self.start + size - back.len()) % size;
        let (head, tail) = back.split_at(back.len().min(size - self.start));
        self.bytes[self.start..self.start + head.len()].copy_from_slice(head);
        self.bytes[..tail.len()].copy_from_slice(tail);
        self.length += back.len();
    }

    /// A run of free space of up to `wanted` bytes, to be filled from its start and then
    /// [`commit`](Ring::commit)ted. Empty only if the ring is full or `wanted` is zero.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] if the buffer cannot grow and nothing fits without.
    pub fn spare(&mut self, wanted: usize) -> Result<&mut [u8], NoMemory> {
        let wanted = wanted.min(self.room());
        let used = self.length + self.lent;
        let is_short = used + wanted > self.bytes.len();
        if is_short && self.grow(wanted).is_err() && used == self.bytes.len() && wanted > 0 {
            return Err(NoMemory);
        }
        let size = self.bytes.len();
        if size == 0 {
            return Ok(&mut []);
        }
        let free = (self.start + self.length) % size;
        let run = if free < self.start { self.start - free } else { size - free };
        let run = run.min(size - used).min(wanted);
        Ok(&mut self.bytes[free..free + run])
    }

    /// Adds the first `count` bytes of what [`spare`](Ring::spare) returned.
    pub fn commit(&mut self, count: usize) {
        debug_assert!(self.length + self.lent + count <= self.bytes.len());
        self.length += count;
    }

    fn grow(&mut self, wanted: usize) -> Result<(), NoMemory> {
        let size = (self.length + self.lent + wanted).next_power_of_two().clamp(FIRST, self.capacity);
        let mut bigger = Vec::new();
        bigger.try_reserve_exact(size).map_err(|_| NoMemory)?;
        let (head, tail) = self.peek();
        bigger.extend_from_slice(head);
        bigger.extend_from_slice(tail);
        bigger.resize(size, 0);
        self.bytes = bigger;
        self.start = 0;
        Ok(())
    }
}
