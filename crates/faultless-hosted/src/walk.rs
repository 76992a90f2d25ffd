//! The page walk as the processor does it: rights of all levels combined, accessed and dirty bits set on the way by
//! locked read-modify-writes, nothing locked and nobody asked.
//!
//! Called by both faces. A walk may start at the root or at a table that a paging-structure cache remembers, and it
//! may be observed step by step ([`Steps`]), which is where the hostile face switches CPUs. Absent on purpose: caches.

use crate::arena::Arena;
use crate::entry::Entry;
use core::sync::atomic::Ordering;
use faultless::{Access, FrameId, PAGE_SHIFT, VirtAddr};

/// Levels of tables; the root is at `LEVELS - 1`, leaf tables at 0.
pub(crate) const LEVELS: usize = 4;
const INDEX_BITS: u32 = 9;
/// One past the last user address.
const USER_END: u64 = 1 << 47;

/// A table to go on from, and what the levels above it permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) table: FrameId,
    pub(crate) level: usize,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

/// What a walk found: what a TLB remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    pub(crate) frame: FrameId,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    /// The dirty bit in memory is set: a store need not set it.
    pub(crate) dirty: bool,
}

impl Translation {
    /// Are the rights sufficient?
    pub(crate) fn permits(self, access: Access) -> bool {
        match access {
            Access::Read => true,
            Access::Write => self.write,
            Access::Execute => self.execute,
        }
    }
}

/// Why the processor raises a page fault (or worse).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFault {
    /// An entry was not present, or the address is not the user's.
    NotPresent,
    /// All were present; the access is not permitted.
    Protection,
    /// No processor would get here: a reserved bit is set, or the frame does not exist. The tables are corrupt.
    Malformed {
        /// The entry.
        entry: u64,
        /// The level of its table.
        level: usize,
    },
}

/// What happens during a walk.
pub(crate) trait Steps {
    /// Between two accesses to memory.
    fn step(&mut self) {}
    /// A table was found on the way to the address.
    fn passed(&mut self, _node: Node) {}
}

/// The node of a root table.
pub(crate) fn root(table: FrameId) -> Node {
    Node { table, level: LEVELS - 1, write: true, execute: true }
}

/// The bits of `address` that choose the entries down to (and including) the table of `level`.
pub(crate) fn prefix(address: VirtAddr, level: usize) -> u64 {
    address.as_u64() >> shift(level)
}

/// Walks from `from` to the page of `address` for `access`.
pub(crate) fn walk(
    arena: &Arena,
    from: Node,
    address: VirtAddr,
    access: Access,
    steps: &mut impl Steps,
) -> Result<Translation, PageFault> {
    if address.as_u64() >= USER_END {
        return Err(PageFault::NotPresent);
    }
    let mut node = from;
    while node.level > 0 {
        node = match descend(arena, node, address, steps)? {
            Below::Table(node) => node,
            Below::Large => return leaf(arena, node, address, access, steps),
        };
        steps.passed(node);
    }
    leaf(arena, node, address, access, steps)
}

/// What an upper entry leads to.
enum Below {
    Table(Node),
    /// A large page, to be dealt with as a leaf.
    Large,
}

/// One upper level.
fn descend(arena: &Arena, node: Node, address: VirtAddr, steps: &mut impl Steps) -> Result<Below, PageFault> {
    let slot = &arena.table(node.table)[index(address, node.level)];
    loop {
        steps.step();
        // Acquire pairs with the Release of whoever linked the table: its entries are initialised.
        let entry = Entry(slot.load(Ordering::Acquire));
        if !entry.is_present() || !entry.permits_user() {
            return Err(PageFault::NotPresent);
        }
        if entry.is_large() && node.level == 1 {
            return Ok(Below::Large);
        }
        if entry.is_large() || !arena.has(entry.frame()) {
            return Err(PageFault::Malformed { entry: entry.0, level: node.level });
        }
        if write_back(slot, entry, entry.used(false), steps) {
            return Ok(Below::Table(Node {
                table: entry.frame(),
                level: node.level - 1,
                write: node.write && entry.permits_write(),
                execute: node.execute && entry.permits_execute(),
            }));
        }
    }
}

/// The entry that maps the page: in a leaf table, or of a large page.
fn leaf(
    arena: &Arena,
    node: Node,
    address: VirtAddr,
    access: Access,
    steps: &mut impl Steps,
) -> Result<Translation, PageFault> {
    let slot = &arena.table(node.table)[index(address, node.level)];
    loop {
        steps.step();
        // Acquire pairs with the Release of whoever installed the page: its contents are visible.
        let entry = Entry(slot.load(Ordering::Acquire));
        if !entry.is_present() || !entry.permits_user() {
            return Err(PageFault::NotPresent);
        }
        if entry.is_large() != (node.level == 1) {
            if node.level == 1 {
                return Err(PageFault::NotPresent); // it was large a moment ago: the access is repeated
            }
            return Err(PageFault::Malformed { entry: entry.0, level: 0 });
        }
        // The low bits of a large page's frame are those of the address.
        let offset = if node.level == 1 { index(address, 0) as u64 } else { 0 };
        let is_aligned = offset == 0 || entry.frame().as_u64().is_multiple_of(1 << INDEX_BITS);
        let frame = FrameId::new(entry.frame().as_u64() + offset);
        if !is_aligned || !arena.has(frame) {
            return Err(PageFault::Malformed { entry: entry.0, level: node.level });
        }
        let used = entry.used(access == Access::Write);
        let found = Translation {
            frame,
            write: node.write && entry.permits_write(),
            execute: node.execute && entry.permits_execute(),
            dirty: used.is_dirty(),
        };
        if !found.permits(access) {
            return Err(PageFault::Protection);
        }
        if write_back(slot, entry, used, steps) {
            return Ok(found);
        }
    }
}

/// Sets accessed and dirty bits, if they are not set and the entry is still what was read.
fn write_back(slot: &faultless::AtomicEntry, entry: Entry, used: Entry, steps: &mut impl Steps) -> bool {
    if used == entry {
        return true;
    }
    steps.step();
    // AcqRel: the processor's locked update.
    slot.compare_exchange(entry.0, used.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

pub(crate) fn index(address: VirtAddr, level: usize) -> usize {
    (address.as_u64() >> shift(level)) as usize & ((1 << INDEX_BITS) - 1)
}

pub(crate) fn shift(level: usize) -> u32 {
    PAGE_SHIFT + INDEX_BITS * level as u32
}

#[cfg(test)]
mod tests;
