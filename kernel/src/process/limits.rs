//! Resource limits of memory, as the space of a process knows them.
//!
//! Called where limits or capabilities change, and where a process gets a memory. A memory that two processes share
//! (`vfork`) has the limits of whoever set them last; the parent sets its own again when it goes on.

use faultless::{Limits, PAGE_SIZE};
use linux_raw_sys::general as linux;

use super::{Capabilities, Process};
use crate::tunables;

impl Process {
    /// Makes the present limits those of its memory.
    pub fn apply_limits(&self) {
        self.memory().space().set_limits(self.memory_limits());
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
    let pages = |resource: u32| limits[resource as usize].0 / PAGE_SIZE;
    let (data, most_data) = limits[linux::RLIMIT_DATA as usize];
    Limits {
        pages: pages(linux::RLIMIT_AS),
        areas: tunables::max_map_count(),
        // As on Linux, where old programs set the limit to zero to forbid the heap alone.
        data: if data == 0 { most_data } else { data } / PAGE_SIZE,
        locked: if may_lock { u64::MAX } else { pages(linux::RLIMIT_MEMLOCK) },
    }
}
