//! One node of a tree: what readers walk, and what only the writer keeps.
//!
//! Called by [`Tree`](super::Tree) and `edit`. A node is filled from the back, so that a new lowest value finds room: mmap
//! places downwards. A slot that lost its value stays where it is, vacant, until a value of just that place comes or the
//! node is copied: nothing ever moves inside a node (P5). Absent on purpose: what a change consists of.

use super::{Ranged, Reader, Writer};
use crate::sync::plain::{AtomicU8, AtomicU64 as PlainU64, Ordering::Relaxed};
use crate::sync::{AtomicPtr, AtomicU64, Ordering, mutant, own_pointer, own_word};
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// Entries per node. Small in model builds so that trees have depth.
pub(super) const FAN: usize = if cfg!(any(loom, shuttle)) { 3 } else { 16 };

/// What one slot says. In a leaf: a value and its range. Above: a node, and a summary of what is below it.
pub(super) struct Slot<T> {
    /// Start of the (first) value.
    pub(super) low: u64,
    /// The lowest start less guard: a search for a gap leaves the guard free.
    pub(super) guarded: u64,
    /// End of the (last) value.
    pub(super) high: u64,
    /// The largest gap between two values below; 0 in a leaf.
    pub(super) gap: u64,
    /// The value or the node.
    pub(super) what: NonNull<()>,
    of: PhantomData<NonNull<T>>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}

impl<T> Slot<T> {
    /// The node below.
    ///
    /// # Safety
    ///
    /// The slot is in a node that is no leaf, and for `'r` the node below is kept: by a reader, or because it is the
    /// writer's own.
    pub(super) unsafe fn node<'r>(&self) -> &'r Node<T> {
        // SAFETY: not a leaf's, so it names a node, by the caller's promise still allocated.
        unsafe { self.what.cast::<Node<T>>().as_ref() }
    }
}

impl<T: Ranged> Slot<T> {
    /// The slot of a value.
    ///
    /// # Safety
    ///
    /// The value is allocated.
    pub(super) unsafe fn of(value: NonNull<T>) -> Self {
        // SAFETY: by the caller's promise.
        let seen = unsafe { value.as_ref() };
        let (low, high) = (seen.low(), seen.high());
        Self { low, guarded: low.saturating_sub(seen.guard()), high, gap: 0, what: value.cast(), of: PhantomData }
    }
}

/// One node.
///
/// Letters: (I) fixed before publication, (R) written by the writer, one store at a time, and read by anybody; (W)
/// written and read by the writer alone. All of (R) and (W) is exact whenever the writer's lock is free.
pub(super) struct Node<T> {
    /// Does it name values?
    pub(super) is_leaf: bool, // (I)
    /// Slots below this one are vacant. Only ever lowered. Not modelled, as it is part of the hint that `high` is.
    first: AtomicU8, // (R)
    /// End of what the slot names; 0 if it is vacant. A hint that leads readers: the value itself says what it covers.
    high: [AtomicU64; FAN], // (R)
    /// The value or the node; null if the slot is vacant.
    what: [AtomicPtr<()>; FAN], // (R)
    low: [PlainU64; FAN],     // (W)
    guarded: [PlainU64; FAN], // (W)
    gap: [PlainU64; FAN],     // (W)
    of: PhantomData<NonNull<T>>,
}

// SAFETY: a node is atomics that refer to values which may be shared and sent.
unsafe impl<T: Send + Sync> Send for Node<T> {}

impl<T> Node<T> {
    /// A node of the slots given, ascending, at most [`FAN`]: filled from the back.
    pub(super) fn new(is_leaf: bool, slots: &[Slot<T>]) -> Self {
        let first = FAN - slots.len();
        let (mut low, mut guarded, mut high, mut gap) = ([0; FAN], [0; FAN], [0; FAN], [0; FAN]);
        let mut what = [ptr::null_mut(); FAN];
        for (index, slot) in (first..FAN).zip(slots) {
            (low[index], guarded[index], high[index], gap[index]) = (slot.low, slot.guarded, slot.high, slot.gap);
            what[index] = slot.what.as_ptr();
        }
        Self {
            is_leaf,
            first: AtomicU8::new(first as u8),
            high: high.map(AtomicU64::new),
            what: what.map(AtomicPtr::new),
            low: low.map(PlainU64::new),
            guarded: guarded.map(PlainU64::new),
            gap: gap.map(PlainU64::new),
            of: PhantomData,
        }
    }

    /// The first slot that names something which ends above `address`.
    ///
    /// Relaxed: see "Why an address that is mapped is found" in P5.
    #[inline]
    pub(super) fn above(&self, address: u64) -> Option<usize> {
        self.above_from(usize::from(self.first.load(Relaxed)), address)
    }

    /// The same from slot `from` on.
    #[inline]
    pub(super) fn above_from(&self, from: usize, address: u64) -> Option<usize> {
        (from..FAN).find(|index| self.high[*index].load(Ordering::Relaxed) > address)
    }

    /// What slot `index` names, if anything.
    #[inline]
    pub(super) fn what(&self, index: usize) -> Option<NonNull<()>> {
        // Acquire pairs with the Release in `put`: the value or node is complete.
        NonNull::new(self.what[index].load(Ordering::Acquire))
    }

    /// The value that a slot of a leaf names.
    ///
    /// # Safety
    ///
    /// The node is a leaf.
    #[inline]
    pub(super) unsafe fn value<'r>(&self, index: usize, _reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
        // SAFETY: a leaf's, so it names a value; values are freed after a grace period that `_reader` holds up, or by
        // the writer of the tree, who is the reader.
        self.what(index).map(|value| unsafe { value.cast::<T>().as_ref() })
    }

    /// The node that a slot names; not null above the leaves.
    ///
    /// # Safety
    ///
    /// The node is no leaf.
    #[inline]
    pub(super) unsafe fn child<'r>(&self, index: usize, _reader: &'r (impl Reader + ?Sized)) -> Option<&'r Node<T>> {
        // SAFETY: not a leaf's, so it names a node; nodes are freed after a grace period that `_reader` holds up, or by
        // the writer of the tree, who is the reader.
        self.what(index).map(|node| unsafe { node.cast::<Node<T>>().as_ref() })
    }
}

/// What the writer does, or the owner of a node that is not published. Relaxed: its lock orders it.
impl<T> Node<T> {
    /// Where the used part begins.
    #[inline]
    pub(super) fn first(&self) -> usize {
        usize::from(self.first.load(Relaxed))
    }

    /// Is there nothing in slot `index`?
    #[inline]
    pub(super) fn is_vacant(&self, index: usize) -> bool {
        own_word(&self.high[index]) == 0
    }

    /// The first slot from `from` on that names something which ends above `address`.
    #[inline]
    pub(super) fn own_above(&self, from: usize, address: u64) -> Option<usize> {
        (from..FAN).find(|index| own_word(&self.high[*index]) > address)
    }

    /// The slot that leads to `address`, or beyond everything to the end of the last leaf. Not of a leaf.
    #[inline]
    pub(super) fn own_towards(&self, address: u64) -> usize {
        self.own_above(self.first(), address).unwrap_or(FAN - 1)
    }

    /// What slot `index` names, if anything.
    #[inline]
    pub(super) fn own_what(&self, index: usize) -> Option<NonNull<()>> {
        NonNull::new(own_pointer(&self.what[index]))
    }

    /// End of what slot `index` names, if anything.
    #[inline]
    pub(super) fn own_high(&self, index: usize) -> Option<u64> {
        Some(own_word(&self.high[index])).filter(|high| *high != 0)
    }

    /// Start less guard of what slot `index` names.
    #[inline]
    pub(super) fn guarded(&self, index: usize) -> u64 {
        self.guarded[index].load(Relaxed)
    }

    /// Start of what slot `index` names.
    #[inline]
    pub(super) fn low(&self, index: usize) -> u64 {
        self.low[index].load(Relaxed)
    }

    /// What slot `index` says, unless it is vacant.
    pub(super) fn slot(&self, index: usize) -> Option<Slot<T>> {
        Some(Slot {
            what: self.own_what(index)?,
            low: self.low(index),
            guarded: self.guarded[index].load(Relaxed),
            high: own_word(&self.high[index]),
            gap: self.gap[index].load(Relaxed),
            of: PhantomData,
        })
    }

    /// All that is not vacant, ascending.
    pub(super) fn slots(&self) -> impl DoubleEndedIterator<Item = Slot<T>> {
        (self.first()..FAN).filter_map(|index| self.slot(index))
    }

    /// Number of slots that are not vacant.
    pub(super) fn count(&self) -> usize {
        (self.first()..FAN).filter(|index| !self.is_vacant(*index)).count()
    }

    /// Changes what slot `index` names: one store, which readers see or do not. True if its range or gap changed too.
    pub(super) fn put(&self, index: usize, slot: Option<Slot<T>>, _writer: &(impl Writer + ?Sized)) -> bool {
        let what = slot.map_or(ptr::null_mut(), |slot| slot.what.as_ptr());
        let changes = slot.is_none_or(|slot| self.differs(index, &slot));
        match &slot {
            Some(slot) if changes => self.note(index, slot),
            Some(_) => {}
            None => self.high[index].store(0, Ordering::Relaxed),
        }
        if index < self.first() {
            self.first.store(index as u8, Relaxed);
        }
        // Release pairs with the Acquire in `what`.
        self.what[index].store(what, mutant::weaken(mutant::Mutant::RelaxedPublish, Ordering::Release));
        changes
    }

    /// Notes the summary of what slot `index` names. False if nothing changed.
    pub(super) fn renote(&self, index: usize, slot: &Slot<T>) -> bool {
        let changes = self.differs(index, slot);
        if changes {
            self.note(index, slot);
        }
        changes
    }

    fn differs(&self, index: usize, slot: &Slot<T>) -> bool {
        own_word(&self.high[index]) != slot.high
            || self.low(index) != slot.low
            || self.guarded[index].load(Relaxed) != slot.guarded
            || self.gap[index].load(Relaxed) != slot.gap
    }

    fn note(&self, index: usize, slot: &Slot<T>) {
        debug_assert!(slot.low < slot.high, "an empty range, or one that looks vacant");
        self.high[index].store(slot.high, Ordering::Relaxed);
        self.low[index].store(slot.low, Relaxed);
        self.guarded[index].store(slot.guarded, Relaxed);
        self.gap[index].store(slot.gap, Relaxed);
    }
}

/// The slot that names `node`, with the summary of what it holds; `None` if that is nothing.
pub(super) fn summary<T>(node: &Node<T>) -> Option<Slot<T>> {
    let mut slots = node.slots();
    let first = slots.next()?;
    let mut all = Slot { what: NonNull::from(node).cast(), ..first };
    for slot in slots {
        let between = slot.guarded.saturating_sub(all.high);
        all.gap = all.gap.max(slot.gap).max(between);
        all.guarded = all.guarded.min(slot.guarded);
        all.high = slot.high;
    }
    Some(all)
}
