//! What a fault does, as a pure function of what it found: no loads, no stores, no clock.
//!
//! Called by `commit`. The table test below walks every combination.

use crate::addr::{Access, Rights};
use crate::area::Sharing;
use crate::machine::format::Leaf;

/// What the object has at the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// The area is anonymous.
    NoObject,
    /// In the cache of a file.
    Resident,
    /// In memory that nothing stands behind: nobody must hear of stores.
    Memory,
    /// Not in the cache, and to be read from a pager.
    MustRead,
    /// Not in the cache, and made of zeroes.
    MustMake,
    /// Beyond the end.
    PastEnd,
}

/// Everything a decision depends on. `page` matters only for an entry that maps nothing, `alone` only for a write to a
/// write-protected page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// The area's rights; they allow the access, unless it is forced.
    pub(super) rights: Rights,
    pub(super) sharing: Sharing,
    pub(super) access: Access,
    pub(super) leaf: Leaf,
    pub(super) page: Page,
    /// The frame is anonymous and this entry holds its only reference.
    pub(super) alone: bool,
    /// A flush began after this very entry was seen PENDING.
    pub(super) flushed: bool,
    /// A store to private memory that its rights do not allow (a debugger's), or a pin: the page is to become ours, not
    /// writable (GU-06).
    pub(super) forced: bool,
    /// With `forced`: the entry is soft-dirty, so the store is no news (P14).
    pub(super) soft: bool,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plan {
    /// The entry is adequate: a stale translation, or somebody was first.
    Nothing,
    /// The entry is leaving: look again from the root.
    Retry,
    /// Map the zero frame, read-only.
    MapZero,
    /// Map a new frame of zeroes.
    MapAnon,
    /// Map the object's page.
    MapObject(Stores),
    /// Copy the object's page at once: a store to a private mapping (FL-02).
    CopyObject,
    /// Put a page into the object first.
    FillObject,
    /// Read the page from the pager first.
    ReadObject,
    /// SIGBUS.
    Bus,
    /// A page of an area that had no rights: show it again.
    Restore,
    /// Permit instruction fetches.
    Widen,
    /// A store to a shared mapping: permit it.
    MakeWritable,
    /// A store to a page that is ours alone: permit it.
    Reuse,
    /// A store to a fresh copy that other CPUs may not have seen yet: flush first.
    Flush,
    /// A store to a page that others have too: copy.
    Copy,
}

/// What a mapping of an object's page says of stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stores {
    /// The first one faults.
    Trapped,
    /// They may come unnoticed: writable at once.
    Free,
    /// It is mapped for one: writable and dirty.
    Done,
}

/// The plan for `facts`.
#[inline]
pub(super) fn decide(facts: &Facts) -> Plan {
    match facts.leaf {
        Leaf::Poison => Plan::Retry,
        Leaf::Lost => Plan::Bus,
        Leaf::None(..) => Plan::Restore,
        Leaf::Empty | Leaf::Offset(_) => decide_empty(facts),
        Leaf::Page(_, bits) => match facts.access {
            Access::Execute if !bits.execute => Plan::Widen,
            Access::Write if facts.forced && bits.exclusive && !bits.pending && facts.soft => Plan::Nothing,
            Access::Write if !bits.write => decide_write(facts, bits.pending, bits.exclusive),
            _ => Plan::Nothing,
        },
    }
}

#[inline]
fn decide_empty(facts: &Facts) -> Plan {
    let write = facts.access == Access::Write;
    match facts.page {
        Page::NoObject if write => Plan::MapAnon,
        Page::NoObject => Plan::MapZero,
        Page::PastEnd => Plan::Bus,
        Page::MustRead => Plan::ReadObject,
        Page::MustMake => Plan::FillObject,
        Page::Resident | Page::Memory if write && facts.sharing == Sharing::Private => Plan::CopyObject,
        Page::Resident | Page::Memory if write => Plan::MapObject(Stores::Done),
        // As Linux for memory objects: the store after the load takes no second fault.
        Page::Memory if facts.sharing == Sharing::Shared && facts.rights.contains(Rights::WRITE) => {
            Plan::MapObject(Stores::Free)
        }
        Page::Resident | Page::Memory => Plan::MapObject(Stores::Trapped),
    }
}

#[inline]
fn decide_write(facts: &Facts, pending: bool, exclusive: bool) -> Plan {
    if facts.sharing == Sharing::Shared {
        Plan::MakeWritable
    } else if pending && !facts.flushed {
        Plan::Flush
    } else if exclusive || facts.alone {
        Plan::Reuse
    } else {
        Plan::Copy
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
