//! A range tree that readers walk without a lock, a wait or a retry: a B+tree that changes by one store at a time.
//! Protocol P5.
//!
//! Called by `area::index`. A writer (one at a time per tree) prepares a change aside and publishes it by one release
//! store of one pointer:
//!
//! | change | the store | allocated | retired |
//! |---|---|---|---|
//! | one value replaced by one (other rights, grown, trimmed) | the value's slot | the value | the old value |
//! | one value removed, others are left in its leaf | the value's slot | nothing | the old value |
//! | one value inserted where a slot of just that place is vacant | that slot | the value | nothing |
//! | anything else | the slot of the lowest node that holds all of it, or the root | copies of the nodes below that slot that it touches | those nodes, and the old values |
//!
//! A value never moves inside a node, and ranges never change: a value says itself what it covers. What the nodes say
//! about ranges are hints for the descent, written before or after the pointer in no order that readers could rely on.
//! An address that is mapped all the time is found nevertheless: each hint that leads to it, whichever of its values a
//! reader sees, leads there (P5 has the argument). Each child slot knows the largest gap below it, so a free range is
//! found in O(log n).
//!
//! The tree owns its values through raw pointers; a value that an edit replaced stays in the edit, to be retired.

mod edit;
mod node;
mod spot;

use super::{AtomicPtr, Few, Garbage, Ordering, Section, mutant, plain, try_box};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::{self, NonNull};
pub(crate) use edit::Edit;
use node::{FAN, Node, Slot};
pub(crate) use spot::Spot;
use spot::{Path, Step};

/// Most values that one edit inserts.
const MOST_INSERTED: usize = 3;

/// Proof that nodes and values stay allocated while they are looked at.
pub(crate) trait Reader {}
impl Reader for Section<'_> {}

/// Proof that nobody else changes the tree.
pub(crate) trait Writer: Reader {}

/// What stands for a range. All of it is fixed.
pub(crate) trait Ranged {
    /// First address.
    fn low(&self) -> u64;
    /// One past the last.
    fn high(&self) -> u64;
    /// Bytes that a search for a gap leaves free below.
    fn guard(&self) -> u64;
}

/// Values on their way into a tree, ascending; frees what did not get there.
pub(crate) struct NewItems<T>(Vec<NonNull<T>>);

impl<T> NewItems<T> {
    /// None.
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds `value`, which lies behind the ones before.
    pub(crate) fn push(&mut self, value: T) -> Result<(), NoMemory> {
        if self.0.len() == self.0.capacity() {
            self.0.try_reserve(self.0.len().max(FAN)).map_err(|_| NoMemory)?;
        }
        self.0.push(leak(value)?);
        Ok(())
    }
}

/// Moves a value to the heap, to be freed as a box.
fn leak<T>(value: T) -> Result<NonNull<T>, NoMemory> {
    Ok(NonNull::from(Box::leak(try_box(value).map_err(|_| NoMemory)?)))
}

impl<T> Drop for NewItems<T> {
    fn drop(&mut self) {
        for value in self.0.drain(..) {
            // SAFETY: from a Box (`leak`); what is still here was not published, and the drain gives the only copy.
            drop(unsafe { Box::from_raw(value.as_ptr()) });
        }
    }
}

/// The published tree.
///
/// Letters: (R) written by the writer, read by anybody; (W) the writer's own.
pub(crate) struct Tree<T> {
    root: AtomicPtr<Node<T>>, // (R)
    /// Number of changes, to refuse an edit that was prepared for an older version.
    version: plain::AtomicU64, // (W)
}

// SAFETY: the tree owns its nodes and values; shared access gives out `&T` only.
unsafe impl<T: Send + Sync> Send for Tree<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Tree<T> {}

/// No memory for nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

impl<T: Ranged> Tree<T> {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self { root: AtomicPtr::new(ptr::null_mut()), version: plain::AtomicU64::new(0) }
    }

    #[inline]
    fn root<'r>(&'r self, _reader: &'r (impl Reader + ?Sized)) -> Option<&'r Node<T>> {
        // Acquire pairs with the Release in `publish`: the nodes are complete.
        let root = self.root.load(Ordering::Acquire);
        // SAFETY: a published root is null or a complete node, and it is freed only after a grace period that
        // `_reader` holds up.
        unsafe { root.as_ref() }
    }

    /// Has the tree no values?
    pub(crate) fn is_empty(&self) -> bool {
        self.root.load(Ordering::Relaxed).is_null()
    }

    /// The value that covers `address`.
    #[inline]
    pub(crate) fn find<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
        let mut node = self.root(reader)?;
        loop {
            let index = node.above(address)?;
            if node.is_leaf {
                // SAFETY: a leaf.
                let value = unsafe { node.value(index, reader) }?;
                return (value.low() <= address && address < value.high()).then_some(value);
            }
            // SAFETY: not a leaf.
            node = unsafe { node.child(index, reader) }?;
        }
    }

    /// The first value that ends above `address`.
    pub(crate) fn next<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
        next_in(self.root(reader)?, address, reader)
    }

    /// The last value that starts below `address`.
    pub(crate) fn previous<'r>(&'r self, address: u64, writer: &'r (impl Writer + ?Sized)) -> Option<&'r T> {
        let mut node = self.root(writer)?;
        loop {
            let starts_below = |index: &usize| node.low(*index) < address && !node.is_vacant(*index);
            let index = (node.first()..FAN).rfind(starts_below)?;
            let what = node.own_what(index)?;
            if node.is_leaf {
                // SAFETY: a leaf's, so it names a value, and the writer keeps what the tree names.
                return Some(unsafe { what.cast().as_ref() });
            }
            // SAFETY: not a leaf's, so it names a node, and the writer keeps what the tree names.
            node = unsafe { what.cast().as_ref() };
        }
    }

    /// The highest start of a free range of `len` bytes inside `low..high`, guards respected.
    pub(crate) fn highest_gap(&self, low: u64, high: u64, len: u64, writer: &(impl Writer + ?Sized)) -> Option<u64> {
        let mut ceiling = high;
        if let Some(root) = self.root(writer)
            && let Some(found) = gap_below(root, low, &mut ceiling, len)
        {
            return Some(found);
        }
        // Below the first value, or in an empty tree.
        fits(0, low, ceiling, len)
    }

    /// Publishes a prepared edit. Replaced nodes go to `retire`; replaced values stay in the edit.
    ///
    /// # Panics
    ///
    /// If the tree was changed since the edit was prepared: what it names may be gone.
    pub(crate) fn publish(&self, edit: &mut Edit<T>, writer: &(impl Writer + ?Sized), mut retire: impl FnMut(Garbage))
    where
        T: Send + Sync + 'static,
    {
        // Relaxed: the writer's lock orders it.
        let version = self.version.load(Ordering::Relaxed);
        assert!(version == edit.version, "an edit of an older version of the tree");
        self.version.store(version + 1, Ordering::Relaxed);
        edit.store(&self.root, writer);
        edit.publish(|node| {
            // SAFETY: the node came from a Box (`make`), and no version from now on names it.
            retire(unsafe { Garbage::new(node) });
        });
    }

    /// Fills an empty, unpublished tree with ascending values.
    pub(crate) fn fill(&mut self, mut items: NewItems<T>) -> Result<(), NoMemory> {
        // Release: as `publish`.
        self.root.store(edit::fill(&items.0)?, Ordering::Release);
        items.0.clear(); // the tree owns them now
        Ok(())
    }

    /// Calls `visit` with each value, ascending, until it returns `false`.
    pub(crate) fn each<'r>(
        &'r self,
        reader: &'r (impl Reader + ?Sized),
        visit: &mut impl FnMut(&'r T) -> bool,
    ) -> bool {
        self.root(reader).is_none_or(|root| each(root, reader, visit))
    }

    /// Empties the tree: hands out its nodes and values.
    pub(crate) fn clear(&self, mut retire: impl FnMut(Garbage), mut item: impl FnMut(&T, Garbage))
    where
        T: Send + Sync + 'static,
    {
        // Acquire pairs with the Release in `publish`.
        let root = self.root.swap(ptr::null_mut(), Ordering::AcqRel);
        clear(
            root,
            &mut |node| {
                // SAFETY: the node came from a Box (`make`) and its tree is no longer published.
                retire(unsafe { Garbage::new(node) });
            },
            &mut |value| {
                // SAFETY: the value is freed only as the garbage made below.
                let seen = unsafe { value.as_ref() };
                // SAFETY: the value came from a Box (`leak`) and its tree is no longer published.
                item(seen, unsafe { Garbage::new(value) });
            },
        );
    }
}

impl<T> Drop for Tree<T> {
    fn drop(&mut self) {
        // Acquire pairs with the Release in `publish`.
        let root = self.root.load(Ordering::Acquire);
        clear(
            root,
            &mut |node| {
                // SAFETY: the node came from a Box (`make`) and nobody reads a tree that is being dropped.
                drop(unsafe { Box::from_raw(node.as_ptr()) });
            },
            &mut |value| {
                // SAFETY: the value came from a Box (`leak`), and the tree was its only owner.
                drop(unsafe { Box::from_raw(value.as_ptr()) });
            },
        );
    }
}

/// The first value below `node` that ends above `address`. A slot whose hint promises one may have lost it since, so
/// the search goes on with the next. Recursion is as deep as the tree.
fn next_in<'r, T: Ranged>(node: &'r Node<T>, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
    let mut at = node.above(address);
    // Ends: each round passes a slot.
    while let Some(index) = at {
        let found = if node.is_leaf {
            // SAFETY: a leaf.
            unsafe { node.value(index, reader) }.filter(|value| value.high() > address)
        } else {
            // SAFETY: not a leaf.
            unsafe { node.child(index, reader) }.and_then(|child| next_in(child, address, reader))
        };
        if found.is_some() {
            return found;
        }
        at = node.above_from(index + 1, address);
    }
    None
}

/// The highest gap of `len` bytes between the values of `node`, or between its last value and `ceiling`. Lowers
/// `ceiling` to the lowest guarded start in the node if there is none.
fn gap_below<T>(node: &Node<T>, low: u64, ceiling: &mut u64, len: u64) -> Option<u64> {
    for index in (node.first()..FAN).rev() {
        let Some(end) = node.own_high(index) else { continue };
        if let Some(found) = fits(end, low, *ceiling, len) {
            return Some(found);
        }
        // Only slots above the leaves have gaps.
        if !node.is_leaf
            && end > low
            && let Some(below) = node.slot(index).filter(|slot| slot.gap >= len)
        {
            // SAFETY: not a leaf's, and the writer's lock keeps what the tree names.
            let found = gap_below(unsafe { below.node() }, low, ceiling, len);
            if found.is_some() {
                return found;
            }
            continue;
        }
        *ceiling = (*ceiling).min(node.guarded(index));
    }
    None
}

/// The highest start of `len` bytes between `floor` and `ceiling`, not below `low`.
fn fits(floor: u64, low: u64, ceiling: u64, len: u64) -> Option<u64> {
    let start = ceiling.checked_sub(len)?;
    (start >= floor && start >= low).then_some(start)
}

fn each<'r, T>(node: &'r Node<T>, reader: &'r (impl Reader + ?Sized), visit: &mut impl FnMut(&'r T) -> bool) -> bool {
    (node.first()..FAN).all(|index| {
        if node.is_leaf {
            // SAFETY: a leaf.
            return unsafe { node.value(index, reader) }.is_none_or(&mut *visit);
        }
        // SAFETY: not a leaf.
        unsafe { node.child(index, reader) }.is_none_or(|child| each(child, reader, visit))
    })
}

fn clear<T>(node: *mut Node<T>, retire: &mut impl FnMut(NonNull<Node<T>>), item: &mut impl FnMut(NonNull<T>)) {
    let Some(node) = NonNull::new(node) else { return };
    // SAFETY: the node is of a version whose owner is taking it apart; it is given up only below.
    let here = unsafe { node.as_ref() };
    for what in (here.first()..FAN).filter_map(|index| here.what(index)) {
        if here.is_leaf {
            item(what.cast());
        } else {
            clear(what.cast().as_ptr(), retire, item);
        }
    }
    retire(node);
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
