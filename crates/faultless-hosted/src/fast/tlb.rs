//! A direct-mapped TLB and a small cache of leaf tables (a paging-structure cache), both of one CPU.
//!
//! Called by `fast`, by the CPU's own thread only; the fields are atomics because the machine is shared, and every
//! access is relaxed. Everything is forgotten in O(1) by counting an age up: a line of another age does not match.

use crate::walk::{Node, Translation, prefix};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use faultless::{Access, FrameId, PAGE_SIZE, Scope, VirtAddr};

const LINES: usize = 1024;
const TABLES: usize = 64;

/// Low bits of a tag: what may be done without a walk.
const STORE: u64 = 1;
const EXECUTE: u64 = 2;
const RIGHTS_BITS: u32 = 2;
/// Then the age, then the page number (36 bits at most).
const AGE_BITS: u32 = 26;
const LAST_AGE: u64 = (1 << AGE_BITS) - 1;

/// One CPU's cached translations.
#[derive(Debug)]
pub(super) struct Tlb {
    lines: Box<[Line]>,
    tables: Box<[Line]>,
    /// Of the lines; never 0, so that fresh lines match nothing.
    age: AtomicU64,
    /// Of the tables.
    tables_age: AtomicU64,
}

/// Where a page number leads.
#[derive(Debug, Default)]
struct Line {
    tag: AtomicU64,
    /// A frame number; of a table with its rights in the low bits.
    target: AtomicU64,
}

impl Tlb {
    /// Empty.
    pub(super) fn new() -> Self {
        let lines = |count| (0..count).map(|_| Line::default()).collect();
        Self { lines: lines(LINES), tables: lines(TABLES), age: AtomicU64::new(1), tables_age: AtomicU64::new(1) }
    }

    /// The frame of `address`, if it is cached with sufficient rights.
    #[inline]
    pub(super) fn look_up(&self, address: VirtAddr, access: Access) -> Option<FrameId> {
        let page = prefix(address, 0);
        let line = &self.lines[page as usize % LINES];
        let tag = line.tag.load(Relaxed);
        let needs = match access {
            Access::Read => 0,
            Access::Write => STORE,
            Access::Execute => EXECUTE,
        };
        let hit = tag >> RIGHTS_BITS == page << AGE_BITS | self.age.load(Relaxed) && tag & needs == needs;
        hit.then(|| FrameId::new(line.target.load(Relaxed)))
    }

    /// Caches a translation.
    pub(super) fn fill(&self, address: VirtAddr, found: Translation) {
        let page = prefix(address, 0);
        let store = if found.write && found.dirty { STORE } else { 0 };
        let execute = if found.execute { EXECUTE } else { 0 };
        let line = &self.lines[page as usize % LINES];
        line.tag.store((page << AGE_BITS | self.age.load(Relaxed)) << RIGHTS_BITS | store | execute, Relaxed);
        line.target.store(found.frame.as_u64(), Relaxed);
    }

    /// The leaf table of `address`, if it is cached.
    pub(super) fn upper(&self, address: VirtAddr) -> Option<Node> {
        let number = prefix(address, 1);
        let line = &self.tables[number as usize % TABLES];
        let tag = line.tag.load(Relaxed);
        if tag >> RIGHTS_BITS != number << AGE_BITS | self.tables_age.load(Relaxed) {
            return None;
        }
        let table = FrameId::new(line.target.load(Relaxed));
        Some(Node { table, level: 0, write: tag & STORE != 0, execute: tag & EXECUTE != 0 })
    }

    /// Caches the leaf table of `address`.
    pub(super) fn fill_upper(&self, address: VirtAddr, node: Node) {
        debug_assert_eq!(node.level, 0, "only leaf tables are cached");
        let number = prefix(address, 1);
        let rights = if node.write { STORE } else { 0 } | if node.execute { EXECUTE } else { 0 };
        let line = &self.tables[number as usize % TABLES];
        line.tag.store((number << AGE_BITS | self.tables_age.load(Relaxed)) << RIGHTS_BITS | rights, Relaxed);
        line.target.store(node.table.as_u64(), Relaxed);
    }

    /// Forgets translations, and all tables: a flush of any page drops the paging-structure cache, as INVLPG does.
    pub(super) fn forget(&self, scope: &Scope) {
        match scope {
            Scope::Pages(range) => {
                let mut at = range.start().as_u64();
                while at < range.end().as_u64() {
                    self.forget_page(prefix(VirtAddr::new(at), 0));
                    at += PAGE_SIZE;
                }
            }
            Scope::All => next_age(&self.age, &self.lines),
        }
        next_age(&self.tables_age, &self.tables);
    }

    fn forget_page(&self, page: u64) {
        let tag = &self.lines[page as usize % LINES].tag;
        if tag.load(Relaxed) >> (RIGHTS_BITS + AGE_BITS) == page {
            tag.store(0, Relaxed);
        }
    }
}

/// Counts an age up; when it comes round, the lines are cleared one by one.
fn next_age(age: &AtomicU64, lines: &[Line]) {
    let next = age.load(Relaxed) + 1;
    if next <= LAST_AGE {
        age.store(next, Relaxed);
        return;
    }
    lines.iter().for_each(|line| line.tag.store(0, Relaxed));
    age.store(1, Relaxed);
}

#[cfg(test)]
mod tests;
