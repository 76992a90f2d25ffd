//! An area: the attributes of one mapped range. Split, merge and limits as pure functions.
//!
//! Called by `space`. An area never changes once it is in the index; an operation replaces it and marks the old one
//! dead (VM-02). A fault may work on any area it found and establishes at its commit that the area still lives (P1).
//! Absent on purpose: pages. An area does not know what is mapped.

mod index;
mod watch;

pub(crate) use index::{Changes, Index, Look, Place, StripeGuard};
pub(crate) use watch::Watch;
pub use watch::{RangeEvent, Report, Ticket, Waiting, WatchModes, Watched, Watcher};

use crate::addr::{PAGE_SHIFT, PageRange, Rights, VirtAddr};
use crate::machine::Machine;
use crate::object::Object;
use crate::sync::{AtomicBool, AtomicU8, Ordering, Ranged};
use alloc::sync::Arc;
use core::ops::{BitOr, Deref};

/// Bytes below a growing stack that stay free (Linux's stack guard gap).
pub const STACK_GUARD: u64 = 256 << PAGE_SHIFT;

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
    /// Its pages stay (mlock).
    pub const LOCKED: Self = Self(8);
    /// With [`AreaFlags::LOCKED`]: pages stay once they are there, but are not brought in at once (MLOCK_ONFAULT).
    pub const LOCKED_ON_FAULT: Self = Self(16);
    /// A child does not get it (MADV_DONTFORK).
    pub const NO_FORK: Self = Self(32);
    /// A child gets it without its contents (MADV_WIPEONFORK).
    pub const WIPE_ON_FORK: Self = Self(64);
    /// Not part of a core dump (MADV_DONTDUMP).
    pub const NO_DUMP: Self = Self(128);
    /// Neither its place nor its rights nor its contents may be taken away (mseal).
    pub const SEALED: Self = Self(256);
    /// A hint that it is read in order (MADV_SEQUENTIAL).
    pub const SEQUENTIAL: Self = Self(512);
    /// A hint that it is read in no order (MADV_RANDOM).
    pub const RANDOM: Self = Self(1024);
    /// Large pages are wanted (MADV_HUGEPAGE).
    pub const HUGE: Self = Self(2048);
    /// Large pages are not wanted (MADV_NOHUGEPAGE).
    pub const NO_HUGE: Self = Self(4096);
    /// Frames that the embedder maps by number, with or without records: never counted, copied or freed. Set by the core
    /// alone, for [`Backing::Frames`](crate::Backing).
    pub const RAW: Self = Self(8192);
    /// Each of its pages counts as soft-dirty, there or not: new mappings do, until that is cleared. No reason to keep
    /// two areas apart: one that comes of both has it if either had (P14).
    pub const SOFT_DIRTY: Self = Self(1 << 14);
    /// Its pages count as promised (Linux's VM_ACCOUNT). Set by the core alone, where private memory becomes writable, and
    /// stays then.
    pub const ACCOUNTED: Self = Self(1 << 20);
    /// Its pages may be taken at any time instead of being swapped (MAP_DROPPABLE).
    pub const DROPPABLE: Self = Self(1 << 21);
    /// Shows pages of its object in another order than theirs (remap_file_pages). Comes with
    /// [`Space::remap_pages`](crate::Space::remap_pages).
    pub const NONLINEAR: Self = Self(1 << 24);
    /// Shows an object of large pages ([`Vm::new_huge_memory`](crate::Vm::new_huge_memory)): all of it is mapped by large
    /// pages only. Set by the core alone.
    pub const HUGETLB: Self = Self(1 << 28);
    /// Private, and promised its large pages. Not in a child. Set by the core alone.
    pub const HUGETLB_RESERVED: Self = Self(1 << 29);

    /// Are all flags of `other` set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any flag of `other` set?
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As a number, for a word that threads share.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// What [`AreaFlags::bits`] gave.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All flags but those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What no request may set.
    pub(crate) const SET_BY_CORE: Self =
        Self(Self::RAW.0 | Self::ACCOUNTED.0 | Self::HUGETLB.0 | Self::HUGETLB_RESERVED.0 | Self::NONLINEAR.0);

    /// No reason to keep two areas apart; the one that comes of both has what either had.
    const JOINED: Self = Self(Self::SOFT_DIRTY.0 | Self::ACCOUNTED.0);

    /// Could one area have these flags and `other`?
    pub(crate) const fn joins(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::JOINED.0 == 0
    }

    /// The flags of one area made of one with these and one with `other`.
    pub(crate) const fn joined_with(self, other: Self) -> Self {
        Self(self.0 | other.0 & Self::JOINED.0)
    }
}

impl BitOr for AreaFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Faults must wait.
const PENDING: u8 = 1;
/// Faults may have to be reported.
const WATCHED: u8 = 2;
/// A pager is asked before a page becomes writable.
const ASKED: u8 = 4;

/// One mapped range of a space: attributes that never change, and two flags.
///
/// Letters: (I) fixed before the area enters the index, (S) written under the stripe's lock, read by anybody in a
/// section.
pub(crate) struct Area<M: Machine> {
    attributes: Attributes<M>, // (I)
    dead: AtomicBool,          // (S) once true, for ever
    care: AtomicU8,            // (S) `PENDING`; `WATCHED` and `ASKED`, which are fixed
    class: Class,              // (I) of the attributes
}

/// What an area counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class(u8);

impl Class {
    /// Private, writable, no stack: RLIMIT_DATA counts it.
    pub(crate) const DATA: Self = Self(1);
    /// Its pages are locked.
    pub(crate) const LOCKED: Self = Self(2);
    /// Its pages are promised.
    pub(crate) const PROMISED: Self = Self(4);
    /// It shows an object.
    pub(crate) const OBJECT: Self = Self(8);
    /// It is watched.
    pub(crate) const WATCHED: Self = Self(16);
    /// Is it any of what `other` is?
    #[inline]
    pub(crate) const fn is(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The same, being `other` or not.
    #[inline]
    const fn with(self, other: Self, is: bool) -> Self {
        Self(self.0 & !other.0 | if is { other.0 } else { 0 })
    }

    /// `pages` if it is any of what `other` is, else 0.
    #[inline]
    pub(crate) const fn count(self, other: Self, pages: i64) -> i64 {
        if self.is(other) { pages } else { 0 }
    }
}

impl<M: Machine> Deref for Area<M> {
    type Target = Attributes<M>;

    #[inline]
    fn deref(&self) -> &Attributes<M> {
        &self.attributes
    }
}

impl<M: Machine> Area<M> {
    /// A live area.
    pub(crate) fn new(attributes: Attributes<M>) -> Self {
        let (care, class) = (attributes.care(), attributes.class());
        Self { attributes, dead: AtomicBool::new(false), care: AtomicU8::new(care), class }
    }

    /// The same for a child of a fork, with another watch and without the flags `lost`, none of which but `LOCKED` says
    /// what an area counts as.
    #[inline]
    pub(crate) fn inherited(&self, lost: AreaFlags, watch: Option<Arc<Watch>>) -> Self {
        let (flags, watched) = (self.flags.without(lost), watch.is_some());
        let class = self.class.with(Class::LOCKED, flags.contains(AreaFlags::LOCKED)).with(Class::WATCHED, watched);
        let attributes = Attributes { flags, watch, ..self.attributes.clone() };
        debug_assert_eq!(class, attributes.class());
        let care = AtomicU8::new(attributes.care());
        Self { attributes, dead: AtomicBool::new(false), care, class }
    }

    /// What it counts as.
    #[inline]
    pub(crate) fn class(&self) -> Class {
        self.class
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
        self.care.load(Ordering::Acquire) & PENDING != 0
    }

    /// Does any of what is not usual hold: must faults wait, or may they have to be reported?
    #[inline]
    pub(crate) fn needs_care(&self) -> bool {
        // Acquire: as `is_pending`.
        self.care.load(Ordering::Acquire) != 0
    }

    /// Makes faults wait. Before the area is published.
    pub(crate) fn close(&self) {
        self.care.store(self.attributes.care() | PENDING, Ordering::Relaxed);
    }

    /// Lets faults in.
    pub(crate) fn open(&self) {
        // Release pairs with `is_pending`.
        self.care.store(self.attributes.care(), Ordering::Release);
    }
}

impl<M: Machine> Ranged for Area<M> {
    #[inline]
    fn low(&self) -> u64 {
        self.range.start().as_u64()
    }

    #[inline]
    fn high(&self) -> u64 {
        self.range.end().as_u64()
    }

    #[inline]
    fn guard(&self) -> u64 {
        self.attributes.guard()
    }
}

/// What an area is made from.
pub(crate) struct Attributes<M: Machine> {
    pub(crate) range: PageRange,
    pub(crate) rights: Rights,
    pub(crate) max_rights: Rights,
    pub(crate) sharing: Sharing,
    pub(crate) flags: AreaFlags,
    pub(crate) object: Option<Arc<Object<M>>>,
    /// Offset of the first byte in the object; for anonymous areas the address.
    pub(crate) offset: u64,
    /// Who is told of faults here.
    pub(crate) watch: Option<Arc<Watch>>,
}

impl<M: Machine> Clone for Attributes<M> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), watch: self.watch.clone(), ..*self }
    }
}

impl<M: Machine> Attributes<M> {
    /// The index in the object of the page that holds `address`.
    #[inline]
    pub(crate) fn page_index(&self, address: VirtAddr) -> u64 {
        (self.offset + (address.as_u64() - self.range.start().as_u64())) >> PAGE_SHIFT
    }

    /// The part in `range`, which lies inside.
    pub(crate) fn part(&self, range: PageRange) -> Self {
        debug_assert!(self.range.intersect(range) == Some(range), "part of an area");
        let offset = self.offset + (range.start().as_u64() - self.range.start().as_u64());
        Self { range, offset, object: self.object.clone(), watch: self.watch.clone(), ..*self }
    }

    /// `WATCHED` and `ASKED`, as it is.
    fn care(&self) -> u8 {
        (if self.watch.is_some() { WATCHED } else { 0 }) | if self.asks_pager() { ASKED } else { 0 }
    }

    /// Is a pager asked before a store may go to one of its pages (CW-08)?
    pub(crate) fn asks_pager(&self) -> bool {
        self.sharing == Sharing::Shared && self.object.as_ref().is_some_and(|object| object.writes_back())
    }

    /// Shows what `before`, which it continues, shows from its start on.
    pub(crate) fn extend_down(&mut self, before: &Self) {
        if let Ok(range) = PageRange::new(before.range.start(), self.range.end()) {
            (self.range, self.offset) = (range, before.offset);
            self.flags = self.flags.joined_with(before.flags);
        }
    }

    /// Shows what `after`, which continues it, shows up to its end.
    pub(crate) fn extend_up(&mut self, after: &Self) {
        if let Ok(range) = PageRange::new(self.range.start(), after.range.end()) {
            self.range = range;
            self.flags = self.flags.joined_with(after.flags);
        }
    }

    /// Do stores go straight to the object's pages, which are memory with nothing behind it that must hear of them? That
    /// they are no news to the soft-dirty bits either is asked apart.
    pub(crate) fn is_unwatched(&self) -> bool {
        self.sharing == Sharing::Shared && self.object.as_ref().is_some_and(|object| object.is_memory())
    }

    /// Tells the object, if there is one, that so many more areas show it.
    pub(crate) fn note_object(&self, areas: i64) {
        if let Some(object) = &self.object {
            object.note_areas(areas, self.may_store());
        }
    }

    /// May stores ever go to the object?
    pub(crate) fn may_store(&self) -> bool {
        self.sharing == Sharing::Shared && self.max_rights.contains(Rights::WRITE)
    }

    /// What an area of these counts as.
    #[inline]
    pub(crate) fn class(&self) -> Class {
        let bit = |is: bool, class: Class| if is { class.0 } else { 0 };
        Class(
            bit(self.is_data(), Class::DATA)
                | bit(self.flags.contains(AreaFlags::LOCKED), Class::LOCKED)
                | bit(self.flags.contains(AreaFlags::ACCOUNTED), Class::PROMISED)
                | bit(self.object.is_some(), Class::OBJECT)
                | bit(self.watch.is_some(), Class::WATCHED),
        )
    }

    /// Does it count for RLIMIT_DATA: private, writable, no stack?
    #[inline]
    pub(crate) fn is_data(&self) -> bool {
        self.sharing == Sharing::Private
            && self.rights.contains(Rights::WRITE)
            && !self.flags.contains(AreaFlags::GROWS_DOWN)
    }

    /// The flags it has with `rights`: private memory that may be stored to is promised, unless nothing is reserved.
    #[inline]
    pub(crate) fn flags_with(&self, rights: Rights) -> AreaFlags {
        let exempt = AreaFlags::NO_RESERVE | AreaFlags::RAW | AreaFlags::HUGETLB;
        let is_promised = rights.contains(Rights::WRITE) && self.sharing == Sharing::Private;
        if is_promised && !self.flags.intersects(exempt) { self.flags | AreaFlags::ACCOUNTED } else { self.flags }
    }

    /// Bytes to leave free below.
    pub(crate) fn guard(&self) -> u64 {
        if self.flags.contains(AreaFlags::GROWS_DOWN) { STACK_GUARD } else { 0 }
    }

    /// Is `next` the same mapping, cut off by a stripe border?
    pub(crate) fn is_cut_from(&self, next: &Self) -> bool {
        self.range.end() == next.range.start()
            && self.shows_same(next)
            && self.range.end().as_u64().is_multiple_of(Index::<M>::bounds(0).1)
    }

    /// Could one area show `self` and, behind it, `next` or a part of it, if no address is between them?
    pub(crate) fn continues_as(&self, next: &Self) -> bool {
        self.shows_same(next) && !self.flags.intersects(AreaFlags::RAW | AreaFlags::HUGETLB)
    }

    fn shows_same(&self, next: &Self) -> bool {
        // Wraps if the part of `next` that is meant begins behind its start, and `self` before.
        let distance = next.range.start().as_u64().wrapping_sub(self.range.start().as_u64());
        let same_object = match (&self.object, &next.object) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) && self.offset.wrapping_add(distance) == next.offset,
            _ => false,
        };
        same_object
            && self.rights == next.rights
            && self.max_rights == next.max_rights
            && self.sharing == next.sharing
            && self.flags.joins(next.flags)
            && watch::are_same(self.watch.as_ref(), next.watch.as_ref())
    }
}
