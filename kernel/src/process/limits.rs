//! Resource limits of memory, as the space of a process knows them.
//!
//! Called where limits or capabilities change, and where a process gets a memory. A memory that two processes share
//! (`vfork`) has the limits of whoever set them last; the parent sets its own again when it goes on.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use faultless::{Limits, PAGE_SIZE};
use linux_raw_sys::general as linux;

use super::{Capabilities, Process};
use crate::tunables;

/// What each memory call asks for, so that it need not lock the limits: bytes of heap, and of locked memory, where all
/// of them is the right to lock as much as one likes.
pub(super) struct MemoryRights {
    heap: AtomicU64,
    locked: AtomicU64,
}

impl Default for MemoryRights {
    /// Those of the first process.
    fn default() -> MemoryRights {
        MemoryRights { heap: AtomicU64::new(u64::MAX), locked: AtomicU64::new(u64::MAX) }
    }
}

impl Clone for MemoryRights {
    fn clone(&self) -> MemoryRights {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Relaxed));
        MemoryRights { heap: copy(&self.heap), locked: copy(&self.locked) }
    }
}

impl Process {
    /// Makes the present limits those of its memory and of its memory calls.
    pub fn apply_limits(&self) {
        let (may_lock, limits) = (self.may_lock(), *self.limits.lock());
        let soft = |resource: u32| limits[resource as usize].0;
        self.memory_rights.heap.store(soft(linux::RLIMIT_DATA), Relaxed);
        let locked = if may_lock { u64::MAX } else { soft(linux::RLIMIT_MEMLOCK) };
        self.memory_rights.locked.store(locked, Relaxed);
        self.memory().space().set_limits(memory_limits(&limits, may_lock));
    }

    /// The limits of its memory calls.
    pub fn call_limits(&self) -> faultless_linux::Limits {
        let locked = self.memory_rights.locked.load(Relaxed);
        let data = self.memory_rights.heap.load(Relaxed);
        faultless_linux::Limits { data, locked, may_lock: locked == u64::MAX }
    }

    /// May it lock as much as it likes?
    pub fn may_lock(&self) -> bool {
        self.capabilities.lock().effective & Capabilities::IPC_LOCK != 0
    }

    /// The limits for its memory.
    pub(super) fn memory_limits(&self) -> Limits {
        memory_limits(&self.limits.lock(), self.may_lock())
    }
}

/// The same for a process that is yet to be.
pub(super) fn memory_limits(limits: &[(u64, u64); 16], may_lock: bool) -> Limits {
    let in_pages = |bytes: u64| if bytes == u64::MAX { u64::MAX } else { bytes / PAGE_SIZE };
    let pages = |resource: u32| in_pages(limits[resource as usize].0);
    let (data, most_data) = limits[linux::RLIMIT_DATA as usize];
    Limits {
        pages: pages(linux::RLIMIT_AS),
        areas: tunables::max_map_count(),
        // As on Linux, where old programs set the limit to zero to forbid the heap alone.
        data: in_pages(if data == 0 { most_data } else { data }),
        locked: if may_lock { u64::MAX } else { pages(linux::RLIMIT_MEMLOCK) },
    }
}
