//! An area: the attributes of one mapped range. Split, merge and limits as pure functions.
//!
//! Called by `space`. An area never changes once it is in the index; an operation replaces it and marks the old one
//! dead (VM-02). A fault may work on any area it found and establishes at its commit that the area still lives (P1).
//! Absent on purpose: pages. An area does not know what is mapped.

mod index;

pub(crate) use index::{Index, Prepared, StripeGuard};

use crate::addr::{PAGE_SHIFT, PageRange, Rights, VirtAddr};
use crate::machine::Machine;
use crate::object::Object;
use crate::sync::{AtomicBool, Ordering};
use alloc::sync::Arc;
use core::ops::BitOr;

/// Bytes below a growing stack that stay free (Linux's stack guard gap).
pub(crate) const STACK_GUARD: u64 = 256 << PAGE_SHIFT;

/// Who sees the stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Only this space: the first store to a page copies it.
    Private,
    /// All who map the object.
    Shared,
}

/// Properties of an area besides its rights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AreaFlags(u32);

impl AreaFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// Grows downwards when the memory below it is touched (MAP_GROWSDOWN).
    pub const GROWS_DOWN: Self = Self(1);
    /// A hint that this is a stack (MAP_STACK).
    pub const STACK: Self = Self(2);
    /// No reservation is made (MAP_NORESERVE).
    pub const NO_RESERVE: Self = Self(4);

    /// Are all flags of `other` set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for AreaFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One mapped range of a space.
///
/// Letters: (I) fixed before the area enters the index, (S) written under the stripe's lock, read by anybody in a
/// section.
pub(crate) struct Area<M: Machine> {
    pub(crate) range: PageRange,               // (I)
    pub(crate) rights: Rights,                 // (I)
    pub(crate) max_rights: Rights,             // (I)
    pub(crate) sharing: Sharing,               // (I)
    pub(crate) flags: AreaFlags,               // (I)
    pub(crate) object: Option<Arc<Object<M>>>, // (I)
    /// Offset of the first byte in the object; for anonymous areas the address, as Linux counts.
    pub(crate) offset: u64, // (I)
    dead: AtomicBool,                          // (S) once true, for ever
    pending: AtomicBool,                       // (S) once false, for ever
}

impl<M: Machine> Area<M> {
    /// A live area.
    pub(crate) fn new(attributes: Attributes<M>) -> Self {
        let Attributes { range, rights, max_rights, sharing, flags, object, offset } = attributes;
        let (dead, pending) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { range, rights, max_rights, sharing, flags, object, offset, dead, pending }
    }

    /// Has the area left the index? Checked by every fault after it loaded the entry (P1).
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        // Acquire pairs with `kill`: who sees the death finds the new index at its next lookup.
        self.dead.load(Ordering::Acquire)
    }

    /// Marks the area dead: after the new index is published, before the sweep.
    pub(crate) fn kill(&self) {
        // Release pairs with `is_dead`. The sweep's read-modify-writes follow in program order.
        self.dead.store(true, Ordering::Release);
    }

    /// Must faults wait because the range's old pages are still there? (hole 13 of PROTOCOL)
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        // Acquire pairs with `open`: who sees it open sees the range swept and flushed.
        self.pending.load(Ordering::Acquire)
    }

    /// Makes faults wait. Before the area is published.
    pub(crate) fn close(&self) {
        self.pending.store(true, Ordering::Relaxed);
    }

    /// Lets faults in.
    pub(crate) fn open(&self) {
        // Release pairs with `is_pending`.
        self.pending.store(false, Ordering::Release);
    }

    /// The index in the object of the page that holds `address`.
    #[inline]
    pub(crate) fn page_index(&self, address: VirtAddr) -> u64 {
        (self.offset + (address.as_u64() - self.range.start().as_u64())) >> PAGE_SHIFT
    }

    /// The attributes, for a copy that replaces the area.
    pub(crate) fn attributes(&self) -> Attributes<M> {
        Attributes {
            range: self.range,
            rights: self.rights,
            max_rights: self.max_rights,
            sharing: self.sharing,
            flags: self.flags,
            object: self.object.clone(),
            offset: self.offset,
        }
    }

    /// The attributes of the part in `range`, which lies inside the area.
    pub(crate) fn part(&self, range: PageRange) -> Attributes<M> {
        debug_assert!(self.range.intersect(range) == Some(range), "part of an area");
        let offset = self.offset + (range.start().as_u64() - self.range.start().as_u64());
        Attributes { range, offset, ..self.attributes() }
    }

    /// Bytes to leave free below the area.
    pub(crate) fn guard(&self) -> u64 {
        guard_of(self.flags)
    }
}

/// Bytes to leave free below an area with these flags.
pub(crate) fn guard_of(flags: AreaFlags) -> u64 {
    if flags.contains(AreaFlags::GROWS_DOWN) { STACK_GUARD } else { 0 }
}

/// What an area is made from.
pub(crate) struct Attributes<M: Machine> {
    pub(crate) range: PageRange,
    pub(crate) rights: Rights,
    pub(crate) max_rights: Rights,
    pub(crate) sharing: Sharing,
    pub(crate) flags: AreaFlags,
    pub(crate) object: Option<Arc<Object<M>>>,
    pub(crate) offset: u64,
}

impl<M: Machine> Attributes<M> {
    /// Can one area take the place of `self` and of `next`, which follows it?
    pub(crate) fn merges_with(&self, next: &Self) -> bool {
        let same_object = match (&self.object, &next.object) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) && self.offset + self.range.len() == next.offset,
            _ => false,
        };
        same_object
            && self.range.end() == next.range.start()
            && self.rights == next.rights
            && self.max_rights == next.max_rights
            && self.sharing == next.sharing
            && self.flags == next.flags
            && !self.flags.contains(AreaFlags::GROWS_DOWN)
    }
}
