//! Slabs: runs of 16 KiB cut into blocks of one size class, given back when all blocks are free.
//!
//! Called in batches only, when a CPU's own list is empty or too long. What is known about a slab
//! lies in a table beside the memory, one entry per 16 KiB of the heap's region, so blocks fill
//! their slab without a header. An entry belongs to the class that its slab has, and is used under
//! the lock of that class.

use core::ptr::null_mut;

use super::Block;
use super::classes::class_size;

/// Bytes of a slab, and its alignment.
pub const SLAB: usize = 16 << 10;

/// No slab.
const NONE: u32 = u32::MAX;

/// One entry of the table.
#[derive(Clone, Copy)]
struct Slab {
    /// Free blocks.
    free: *mut Block,
    free_count: u32,
    /// Neighbours in the list of slabs with free blocks.
    next: u32,
    previous: u32,
}

/// The table, and where the memory that it describes begins.
#[derive(Clone, Copy)]
pub struct Table {
    slabs: *mut Slab,
    base: usize,
    count: usize,
}

/// The slabs of a class that have free blocks.
pub struct Partial {
    first: u32,
}

impl Table {
    /// No memory at all.
    pub const fn none() -> Table {
        Table { slabs: null_mut(), base: 0, count: 0 }
    }

    /// A table for the region `start..start + bytes`, made at its beginning. Returns it with the
    /// bytes that it takes.
    ///
    /// # Safety
    ///
    /// The region must be mapped, aligned to a slab, and used by nobody.
    pub unsafe fn make(start: usize, bytes: usize) -> (Table, usize) {
        let count = bytes / SLAB;
        let slabs = start as *mut Slab;
        for n in 0..count {
            let slab = Slab { free: null_mut(), free_count: 0, next: NONE, previous: NONE };
            let entry = slabs.wrapping_add(n);
            // SAFETY: inside the region, which is ours by the caller's promise.
            unsafe { entry.write(slab) };
        }
        (Table { slabs, base: start, count }, count * size_of::<Slab>())
    }

    /// The entry with this number.
    fn entry(&self, number: u32) -> *mut Slab {
        assert!((number as usize) < self.count, "a block lies in the heap's region");
        self.slabs.wrapping_add(number as usize)
    }

    fn number_of(&self, address: usize) -> u32 {
        ((address - self.base) / SLAB) as u32
    }

    fn address_of(&self, number: u32) -> usize {
        self.base + number as usize * SLAB
    }
}

impl Partial {
    /// No slab.
    pub const fn new() -> Partial {
        Partial { first: NONE }
    }

    /// Whether no slab has a free block.
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Takes a free block; null if there is none.
    pub fn take(&mut self, table: &Table) -> *mut Block {
        if self.first == NONE {
            return null_mut();
        }
        let number = self.first;
        // SAFETY: slabs in the list are this class's, whose lock the caller holds.
        let slab = unsafe { &mut *table.entry(number) };
        let block = slab.free;
        // SAFETY: free blocks are initialised when they are put into a list.
        slab.free = unsafe { (*block).next };
        slab.free_count -= 1;
        if slab.free_count == 0 {
            self.unlink(table, number);
        }
        block
    }

    /// Gives a block back. Returns the address of its slab if that is all free now and is not the
    /// last one of the class; it then is no slab any more.
    pub fn give(&mut self, table: &Table, class: usize, block: *mut Block) -> Option<usize> {
        let number = table.number_of(block as usize);
        // SAFETY: the block's slab is this class's, whose lock the caller holds.
        let slab = unsafe { &mut *table.entry(number) };
        // SAFETY: the caller gives the block up.
        unsafe { (*block).next = slab.free };
        slab.free = block;
        slab.free_count += 1;
        let is_free = slab.free_count as usize == SLAB / class_size(class);
        if slab.free_count == 1 {
            self.link(table, number);
        }
        let is_last = self.first == number && slab.next == NONE;
        if !is_free || is_last {
            return None;
        }
        self.unlink(table, number);
        slab.free = null_mut();
        slab.free_count = 0;
        Some(table.address_of(number))
    }

    /// Cuts the run at `address` into blocks.
    ///
    /// # Safety
    ///
    /// The run must be a slab long, aligned to one, and belong to nobody.
    pub unsafe fn add(&mut self, table: &Table, class: usize, address: usize) {
        let (number, size) = (table.number_of(address), class_size(class));
        let mut free: *mut Block = null_mut();
        for n in (0..SLAB / size).rev() {
            let block = (address + n * size) as *mut Block;
            // SAFETY: inside the run, which is ours by the caller's promise.
            unsafe { block.write(Block { next: free }) };
            free = block;
        }
        // SAFETY: the slab becomes this class's, whose lock the caller holds.
        let slab = unsafe { &mut *table.entry(number) };
        slab.free = free;
        slab.free_count = (SLAB / size) as u32;
        self.link(table, number);
    }

    fn link(&mut self, table: &Table, number: u32) {
        // SAFETY: an entry of this class, whose lock the caller holds.
        let slab = unsafe { &mut *table.entry(number) };
        slab.next = self.first;
        slab.previous = NONE;
        if self.first != NONE {
            // SAFETY: as above, and another entry.
            unsafe { (*table.entry(self.first)).previous = number };
        }
        self.first = number;
    }

    fn unlink(&mut self, table: &Table, number: u32) {
        // SAFETY: an entry of this class, whose lock the caller holds.
        let Slab { next, previous, .. } = unsafe { table.entry(number).read() };
        if next != NONE {
            // SAFETY: as above.
            unsafe { (*table.entry(next)).previous = previous };
        }
        if previous == NONE {
            self.first = next;
        } else {
            // SAFETY: as above.
            unsafe { (*table.entry(previous)).next = next };
        }
    }
}
