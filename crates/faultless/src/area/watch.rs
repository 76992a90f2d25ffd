//! Who is told of the faults of an area, and how a fault waits for an answer (userfaultfd). Protocol P13.
//!
//! Implemented by embedders: a kernel behind a descriptor, a sandbox or an emulator that brings pages in itself. Like a
//! [`Pager`](crate::Pager), a [`Watcher`] is the only thing here that may wait, and is asked with no section entered and no
//! lock held. Absent on purpose: what the answer is. The pages come by [`Space::copy_in`](crate::Space::copy_in) and its
//! relatives, from anywhere.

use crate::addr::{Access, PageRange, VirtAddr};
use alloc::sync::Arc;
use core::fmt;

/// Which faults are reported.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WatchModes {
    /// Those that find no page, neither mapped nor in the object (UFFDIO_REGISTER_MODE_MISSING).
    pub missing: bool,
    /// Those that find the page in the object, but not mapped (UFFDIO_REGISTER_MODE_MINOR).
    pub minor: bool,
    /// Stores to marked pages (UFFDIO_REGISTER_MODE_WP).
    pub stores: bool,
}

/// Why a fault is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// There is no page.
    Missing,
    /// The page is in the object, but not mapped.
    Minor,
    /// The page is marked.
    Store,
}

/// A fault that is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Where, to the byte.
    pub addr: VirtAddr,
    /// What was tried.
    pub access: Access,
    /// Why it is reported.
    pub why: Watched,
}

/// What becomes of a part of a watched range, besides faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeEvent {
    /// Its pages are about to be given up, the mapping stays (UFFD_EVENT_REMOVE).
    Removed(PageRange),
    /// All of this range was unmapped, or mapped anew; the watcher knew a part of it (UFFD_EVENT_UNMAP).
    Unmapped(PageRange),
    /// The mapping was moved, and its watch with it (UFFD_EVENT_REMAP).
    Moved {
        /// Where it was.
        from: PageRange,
        /// Where it is.
        to: VirtAddr,
    },
}

/// A report that was announced, as its watcher numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// How waiting ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Somebody woke the ticket: look again.
    Over,
    /// This thread cannot wait here. The ticket stays announced, the fault ends with
    /// [`FaultError::Watched`](crate::FaultError::Watched), and whoever called parks the thread until the ticket is woken,
    /// then lets it repeat the access.
    Elsewhere,
}

/// Who is told of faults. All but [`Watcher::wait`] return at once, and none calls back into the space.
pub trait Watcher: Send + Sync {
    /// Notes a fault that is about to wait. From now on a [`Watcher::wake`] that covers its page must reach the ticket.
    fn announce(&self, report: &Report) -> Ticket;

    /// The fault does not wait after all. The ticket may have been woken or not.
    fn withdraw(&self, ticket: Ticket);

    /// Waits until the ticket is woken; at once if it has been.
    fn wait(&self, ticket: Ticket) -> Waiting;

    /// Wakes the tickets of all pages in `range`. Called with locks of the space held when a range is no longer watched.
    fn wake(&self, range: PageRange);

    /// Are marks to be set also where no page is, in anonymous memory (UFFD_FEATURE_WP_UNPOPULATED)? In objects they
    /// always are.
    fn marks_absent(&self) -> bool {
        false
    }

    /// Something becomes of a part of what it watches. Called with locks of the space held.
    fn changed(&self, change: RangeEvent) {
        let _ = change;
    }

    /// Does the watch go with a mapping that moves? If not, what has moved is not watched.
    fn follows(&self) -> bool {
        false
    }

    /// Who watches a child's copies of what it watches, if anybody. Asked once for each fork, which may still fail, with
    /// locks of the space held.
    fn fork(&self) -> Option<Arc<dyn Watcher>> {
        None
    }

    /// Do accesses end in [`FaultError::Bus`](crate::FaultError::Bus), unannounced (UFFD_FEATURE_SIGBUS)?
    fn refuses(&self) -> bool {
        false
    }

    /// Has it gone? Then its areas are as good as not watched, for ever. Who sets it wakes everybody afterwards.
    fn is_closed(&self) -> bool;
}

/// What is watched in an area, and by whom.
pub(crate) struct Watch {
    pub(crate) watcher: Arc<dyn Watcher>,
    pub(crate) modes: WatchModes,
}

impl Watch {
    /// Is it the same watcher?
    pub(crate) fn is_by(&self, watcher: &Arc<dyn Watcher>) -> bool {
        core::ptr::addr_eq(Arc::as_ptr(&self.watcher), Arc::as_ptr(watcher))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?})", self.modes)
    }
}

/// Do both say the same?
pub(super) fn are_same(a: Option<&Arc<Watch>>, b: Option<&Arc<Watch>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.modes == b.modes && a.is_by(&b.watcher),
        _ => false,
    }
}
