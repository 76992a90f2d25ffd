//! What one CPU's MMU remembers, for as long as the manual lets it: until it is flushed, or raises a page fault.
//!
//! Called by `hostile` with the machine locked. Nothing is ever evicted for lack of room.

use crate::entry::Entry;
use crate::rng::Rng;
use crate::walk::{LEVELS, Node, Translation, index, prefix, root, shift};
use core::sync::atomic::Ordering;
use faultless::{Flush, FrameId, PAGE_SIZE, Scope, VirtAddr};
use std::collections::BTreeMap;

use crate::arena::Arena;

/// One CPU's translations and paging-structure caches, and the flushes that wait for it.
#[derive(Debug, Default)]
pub(super) struct Caches {
    pub(super) root: Option<FrameId>,
    /// By page number.
    pages: BTreeMap<u64, Translation>,
    /// Tables by their level and the address bits above their span.
    tables: BTreeMap<(usize, u64), Node>,
    /// Interrupts that have not been taken, by their number.
    waiting: Vec<(u64, Flush)>,
    /// Occasions at which they were not.
    put_off: u64,
}

impl Caches {
    /// Another root: everything is forgotten.
    pub(super) fn load_root(&mut self, root: Option<FrameId>) {
        self.root = root;
        self.pages.clear();
        self.tables.clear();
    }

    /// The cached translation of a page, stale or not.
    pub(super) fn page(&self, address: VirtAddr) -> Option<Translation> {
        self.pages.get(&prefix(address, 0)).copied()
    }

    /// Remembers a translation in place of what was known.
    pub(super) fn keep_page(&mut self, address: VirtAddr, found: Translation) {
        self.pages.insert(prefix(address, 0), found);
    }

    /// Loses one entry.
    pub(super) fn evict(&mut self, rng: &mut Rng) {
        if !self.pages.is_empty() {
            let victim = rng.below(self.pages.len() as u64) as usize;
            let page = self.pages.keys().nth(victim).copied();
            page.and_then(|page| self.pages.remove(&page));
        }
    }

    /// Remembers a table on the way to `address`.
    pub(super) fn keep_table(&mut self, address: VirtAddr, node: Node) {
        self.tables.insert((node.level, prefix(address, node.level + 1)), node);
    }

    /// Where a walk to `address` may start: any cached table above it, or the root.
    pub(super) fn start(&self, address: VirtAddr, rng: &mut Rng) -> Option<Node> {
        let cached = |level| self.tables.get(&(level, prefix(address, level + 1))).copied();
        let found = (0..LEVELS - 1).find_map(|level| cached(level).filter(|_| !rng.once_in(4)));
        found.or_else(|| self.root.map(root))
    }

    /// What the processor drops when it raises a page fault at `address`.
    pub(super) fn fault(&mut self, address: VirtAddr) {
        self.forget_page(address);
    }

    fn forget_page(&mut self, address: VirtAddr) {
        self.pages.remove(&prefix(address, 0));
        (0..LEVELS - 1).for_each(|level| {
            self.tables.remove(&(level, prefix(address, level + 1)));
        });
    }

    /// Does what a flush says.
    pub(super) fn forget(&mut self, flush: &Flush) {
        if self.root != Some(flush.root) {
            return;
        }
        match flush.scope {
            Scope::All => {
                self.pages.clear();
                self.tables.clear();
            }
            Scope::Pages(range) => {
                let mut at = range.start();
                while at < range.end() {
                    self.forget_page(at);
                    at = VirtAddr::new(at.as_u64() + PAGE_SIZE);
                }
            }
        }
    }

    /// An interrupt arrives.
    pub(super) fn interrupt(&mut self, number: u64, flush: Flush) {
        self.waiting.push((number, flush));
    }

    /// Has the interrupt been taken?
    pub(super) fn has_served(&self, number: u64) -> bool {
        self.waiting.iter().all(|(waiting, _)| *waiting != number)
    }

    /// An occasion to take interrupts, which may be put off up to `delay` times.
    pub(super) fn may_serve(&mut self, delay: u64, rng: &mut Rng) {
        if self.waiting.is_empty() {
            return;
        }
        self.put_off += 1;
        if self.put_off > delay || rng.once_in(delay + 1) {
            self.serve();
        }
    }

    /// Takes all interrupts.
    pub(super) fn serve(&mut self) {
        self.put_off = 0;
        for (_, flush) in core::mem::take(&mut self.waiting) {
            self.forget(&flush);
        }
    }

    /// Walks to a random present page, as a processor may at any time: sets accessed bits, fills the caches. It may
    /// start at a cached table, however old.
    pub(super) fn speculate(&mut self, arena: &Arena, rng: &mut Rng) {
        let Some(top) = self.root.map(root) else { return };
        let (mut node, mut base) = self.speculation_start(top, rng);
        loop {
            let Some((slot, entry)) = random_present(arena, node, rng) else { return };
            base |= (slot as u64) << shift(node.level);
            let address = VirtAddr::new(base);
            let used = entry.used(false);
            let word = &arena.table(node.table)[slot];
            // AcqRel: the processor's locked update.
            if used != entry && word.compare_exchange(entry.0, used.0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                return;
            }
            let write = node.write && entry.permits_write();
            let execute = node.execute && entry.permits_execute();
            if node.level == 0 {
                let found = Translation { frame: entry.frame(), write, execute, dirty: entry.is_dirty() };
                self.pages.entry(prefix(address, 0)).or_insert(found);
                return;
            }
            node = Node { table: entry.frame(), level: node.level - 1, write, execute };
            self.tables.entry((node.level, prefix(address, node.level + 1))).or_insert(node);
        }
    }

    fn speculation_start(&self, top: Node, rng: &mut Rng) -> (Node, u64) {
        let choice = rng.below(self.tables.len() as u64 + 1) as usize;
        match self.tables.iter().nth(choice) {
            Some(((level, bits), node)) => (*node, bits << shift(level + 1)),
            None => (top, 0),
        }
    }
}

/// A random entry of a table that a user-mode walk could use.
fn random_present(arena: &Arena, node: Node, rng: &mut Rng) -> Option<(usize, Entry)> {
    let slots = if node.level == LEVELS - 1 { 256 } else { 512 };
    let table = arena.table(node.table);
    let first = rng.below(slots) as usize;
    (0..slots as usize).map(|offset| (first + offset) % slots as usize).find_map(|slot| {
        // Acquire: as in a walk.
        let entry = Entry(table[slot].load(Ordering::Acquire));
        let usable = entry.is_present() && entry.permits_user() && arena.has(entry.frame());
        (usable && !(node.level > 0 && entry.is_large())).then_some((slot, entry))
    })
}

/// Sets the dirty bit of the page of `address` although its entry may not permit stores any more, as a processor may
/// that still has a writable translation cached. False if the entry maps another frame or none.
pub(super) fn set_dirty(arena: &Arena, top: FrameId, address: VirtAddr, frame: FrameId) -> bool {
    let mut table = top;
    for level in (0..LEVELS).rev() {
        let word = &arena.table(table)[index(address, level)];
        // Acquire: as in a walk.
        let entry = Entry(word.load(Ordering::Acquire));
        if !entry.is_present() || !arena.has(entry.frame()) {
            return false;
        }
        if level > 0 {
            table = entry.frame();
        } else {
            let dirty = entry.used(true);
            // AcqRel: the processor's locked update.
            return entry.frame() == frame
                && word.compare_exchange(entry.0, dirty.0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        }
    }
    false
}
