//! The entries of a directory.
//!
//! Called by `namespace` for changes and by walks and `getdents64` for looks. Each entry gets a number
//! that it keeps, so that a reader continues where it was however many entries come and go meanwhile.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::inode::Inode;

/// Positions of `.` and `..`; entries come after them.
pub const FIRST_COOKIE: u64 = 2;

/// Names and what they name.
pub struct Directory {
    names: BTreeMap<Arc<[u8]>, Slot>,
    order: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    gone: bool,
}

struct Slot {
    inode: Arc<Inode>,
    cookie: u64,
}

impl Directory {
    /// No entries.
    pub const fn new() -> Directory {
        Directory { names: BTreeMap::new(), order: BTreeMap::new(), next: FIRST_COOKIE, gone: false }
    }

    /// What `name` names.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.names.get(name).map(|slot| slot.inode.clone())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What `st_size` shows: 20 bytes per entry, as tmpfs has it.
    pub fn size(&self) -> u64 {
        (self.names.len() as u64 + 2) * 20
    }

    /// Whether it was removed: nothing can be put into it.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Marks it as removed.
    pub fn set_gone(&mut self) {
        self.gone = true;
    }

    /// Makes `name` name `inode`; returns what it named before.
    pub fn put(&mut self, name: &[u8], inode: Arc<Inode>) -> Option<Arc<Inode>> {
        if let Some(slot) = self.names.get_mut(name) {
            return Some(core::mem::replace(&mut slot.inode, inode));
        }
        let name: Arc<[u8]> = name.into();
        let cookie = self.next;
        self.next += 1;
        self.order.insert(cookie, name.clone());
        self.names.insert(name, Slot { inode, cookie });
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Inode>> {
        let slot = self.names.remove(name)?;
        self.order.remove(&slot.cookie);
        Some(slot.inode)
    }

    /// The first entry at or after position `from`: its position, name and inode.
    pub fn entry_from(&self, from: u64) -> Option<(u64, &[u8], &Arc<Inode>)> {
        let (&cookie, name) = self.order.range(from..).next()?;
        let slot = self.names.get(name)?;
        Some((cookie, name, &slot.inode))
    }

    /// Takes all entries out.
    pub fn clear(&mut self) -> Vec<Arc<Inode>> {
        self.order.clear();
        core::mem::take(&mut self.names).into_values().map(|slot| slot.inode).collect()
    }
}
