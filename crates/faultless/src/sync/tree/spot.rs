//! Where a range lies in a tree, and who its neighbours are: one descent per operation.
//!
//! Called by `area::index` for `space`, which decides with it what to merge and what to keep, and by `edit`, which
//! begins where it points. Absent on purpose: changes.

use super::edit::{LEAST, refresh};
use super::{FAN, Garbage, Node, Ranged, Slot, Tree, Writer};
use crate::sync::own_pointer;
use crate::sync::plain::Ordering::Relaxed;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use core::ptr::NonNull;

/// Most nodes above a leaf. Every level but the lowest is made by the split of a full root, and a node is full again
/// only after eight splits below it: 8^12 operations.
pub(super) const DEPTH: usize = 12;

/// The nodes from the root to the parent of a leaf.
pub(super) type Path<T> = ArrayVec<Step<T>, DEPTH>;

/// The path to the leaf that an address leads to, as the writer sees it.
#[inline(never)]
pub(super) fn path_to<T>(root: *mut Node<T>, address: u64) -> Path<T> {
    let (mut path, mut next) = (Path::new(), NonNull::new(root));
    // Ends: each round goes a level down.
    while let Some(node) = next {
        // SAFETY: what a tree names is allocated as long as its writer wants it to be.
        let here = unsafe { node.as_ref() };
        if here.is_leaf {
            break;
        }
        let index = here.own_towards(address);
        path.push(Step { node, index });
        next = here.own_what(index).map(NonNull::cast);
    }
    path
}

/// Start of the first value behind the subtree that a path leads to.
pub(super) fn next_low<T>(path: &[Step<T>]) -> u64 {
    let behind = path.iter().rev().find(|step| step.index + 1 < FAN);
    // SAFETY: a step of a path whose writer has published nothing since.
    behind.map_or(u64::MAX, |step| unsafe { step.node() }.low(step.index + 1))
}

/// One node on the way, and the slot that leads on.
pub(super) struct Step<T> {
    pub(super) node: NonNull<Node<T>>,
    pub(super) index: usize,
}

impl<T> Clone for Step<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Step<T> {}

impl<T> Step<T> {
    /// The node.
    ///
    /// # Safety
    ///
    /// The writer who made the step still holds the lock, and has not retired the node. The reference is not kept
    /// beyond that.
    pub(super) unsafe fn node<'r>(&self) -> &'r Node<T> {
        // SAFETY: it was reached from the root, and by the caller's promise it is allocated.
        unsafe { self.node.as_ref() }
    }
}

/// A place in a tree: the slot of the first value that ends above an address. As the writer sees it, whose lock it
/// holds on to: it is exact until the writer publishes something.
pub(crate) struct Spot<'r, T> {
    tree: &'r Tree<T>,
    writer: &'r dyn Writer,
    pub(super) address: u64,
    /// The leaf that the address leads to; `None` in an empty tree.
    pub(super) leaf: Option<&'r Node<T>>,
    /// Is there no node above it?
    pub(super) is_root: bool,
    /// The slot in the leaf, or [`FAN`] if all that the tree holds ends below.
    pub(super) at: usize,
}

impl<T: Ranged> Tree<T> {
    /// The place of the first value that ends above `address`.
    #[inline]
    pub(crate) fn spot<'r>(&'r self, address: u64, writer: &'r dyn Writer) -> Spot<'r, T> {
        let (mut next, mut is_root) = (NonNull::new(own_pointer(&self.root)), true);
        // Ends: each round goes a level down.
        while let Some(node) = next {
            // SAFETY: what a tree names is allocated as long as its writer wants it to be.
            let node = unsafe { node.as_ref() };
            if node.is_leaf {
                let at = node.own_above(node.first(), address).unwrap_or(FAN);
                return Spot { tree: self, writer, address, leaf: Some(node), is_root, at };
            }
            is_root = false;
            next = node.own_what(node.own_towards(address)).map(NonNull::cast);
        }
        Spot { tree: self, writer, address, leaf: None, is_root, at: FAN }
    }
}

impl<'r, T: Ranged> Spot<'r, T> {
    /// Replaces what a slot of the leaf names: one store, which readers see or do not. Returns what it named, which they may
    /// still look at.
    #[inline]
    pub(crate) fn put(&self, slot: usize, value: Option<Box<T>>) -> Option<Garbage>
    where
        T: Send + 'static,
    {
        let leaf = self.leaf?;
        let old = leaf.own_what(slot);
        let value = value.map(|value| NonNull::from(Box::leak(value)));
        // SAFETY: just leaked, and freed by the tree's owner only.
        let value = value.map(|value| unsafe { Slot::of(value) });
        let version = &self.tree.version;
        version.store(version.load(Relaxed) + 1, Relaxed);
        if leaf.put(slot, value, self.writer) && !self.is_root {
            // The hints above the leaf are what they were.
            refresh(&path_to(own_pointer(&self.tree.root), self.address));
        }
        // SAFETY: a leaf's, so it came from a Box (`put` or `leak`); it has left the tree, and this is the only copy.
        old.map(|old| unsafe { Garbage::new(old.cast::<T>()) })
    }

    /// The slot of what [`Spot::first`] finds.
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.at
    }

    /// A vacant slot for a value that lies between the neighbours.
    #[inline]
    pub(crate) fn vacancy(&self) -> Option<usize> {
        self.at.checked_sub(1).filter(|slot| self.leaf.is_some_and(|leaf| leaf.is_vacant(*slot)))
    }

    /// May the first value leave without another taking its slot?
    pub(crate) fn may_remove(&self) -> bool {
        let least = if self.is_root { 1 } else { LEAST };
        self.leaf.is_some_and(|leaf| leaf.count() > least)
    }

    /// The last value that ends at or below the address and its slot, if the leaf knows: it may be in another.
    #[inline]
    pub(crate) fn below_in_leaf(&self) -> Option<Option<(usize, &'r T)>> {
        let leaf = self.leaf?;
        match (leaf.first()..self.at).rfind(|index| !leaf.is_vacant(*index)) {
            Some(index) => Some(self.value(index).map(|value| (index, value))),
            None => self.is_root.then_some(None),
        }
    }

    fn value(&self, index: usize) -> Option<&'r T> {
        // SAFETY: a leaf's, so it names a value, and the writer keeps what the tree names.
        self.leaf?.own_what(index).map(|value| unsafe { value.cast().as_ref() })
    }

    /// The first value that ends above the address.
    #[inline]
    pub(crate) fn first(&self) -> Option<&'r T> {
        if self.at < FAN { self.value(self.at) } else { None }
    }

    /// Does no value meet the range from the address to `high`?
    #[inline]
    pub(crate) fn is_free(&self, high: u64) -> bool {
        self.first().is_none_or(|value| value.low() >= high)
    }

    /// The last value that starts below the address.
    #[inline]
    pub(crate) fn below(&self) -> Option<&'r T> {
        if let Some(first) = self.first()
            && first.low() < self.address
        {
            return Some(first);
        }
        let leaf = self.leaf?;
        match (leaf.first()..self.at).rfind(|index| !leaf.is_vacant(*index)) {
            Some(index) => self.value(index),
            None if self.is_root => None,
            None => self.tree.previous(self.address, self.writer),
        }
    }

    /// The first value that ends above `high`, which is not below the address.
    #[inline]
    pub(crate) fn above(&self, high: u64) -> Option<&'r T> {
        debug_assert!(high >= self.address, "a look back");
        match self.leaf?.own_above(self.at, high) {
            Some(index) => self.value(index),
            None if self.is_root => None,
            None => self.tree.next(high, self.writer),
        }
    }

    /// The place of another address.
    pub(super) fn again(&self, address: u64) -> Self {
        self.tree.spot(address, self.writer)
    }

    /// The version of the tree that this is a place in.
    pub(super) fn version(&self) -> u64 {
        self.tree.version.load(Relaxed)
    }

    /// The nodes above the leaf.
    pub(super) fn path(&self) -> Path<T> {
        if self.is_root { Path::new() } else { path_to(own_pointer(&self.tree.root), self.address) }
    }
}
