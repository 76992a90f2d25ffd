//! Where a range lies in a tree, and who its neighbours are: one descent per operation.
//!
//! Called by `area::index` for `space`, which decides with it what to merge and what to keep, and by `edit`, which
//! begins where it points. Absent on purpose: changes.

use super::{FAN, Node, Ranged, Tree, Writer};
use crate::sync::own_pointer;
use crate::sync::plain::Ordering::Relaxed;
use arrayvec::ArrayVec;
use core::ptr::NonNull;

/// Most nodes above a leaf. Every level but the lowest is made by the split of a full root, and a node is full again
/// only after eight splits below it: 8^12 operations.
pub(super) const DEPTH: usize = 12;

/// The nodes from the root to the parent of a leaf.
pub(super) type Path<T> = ArrayVec<Step<T>, DEPTH>;

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
    pub(super) path: Path<T>,
    /// The leaf at the end of the path; `None` in an empty tree.
    pub(super) leaf: Option<&'r Node<T>>,
    /// The slot in the leaf, or [`FAN`] if all that the tree holds ends below.
    pub(super) at: usize,
}

impl<T: Ranged> Tree<T> {
    /// The place of the first value that ends above `address`.
    #[inline]
    pub(crate) fn spot<'r>(&'r self, address: u64, writer: &'r dyn Writer) -> Spot<'r, T> {
        let mut spot = Spot { tree: self, writer, address, path: Path::new(), leaf: None, at: FAN };
        spot.descend();
        spot
    }
}

impl<'r, T: Ranged> Spot<'r, T> {
    /// From the root to the leaf. Not inlined, where the compiler would peel a round for each step of the path.
    #[inline(never)]
    fn descend(&mut self) {
        let mut next = NonNull::new(own_pointer(&self.tree.root));
        // Ends: each round goes a level down.
        while let Some(node) = next {
            // SAFETY: what a tree names is allocated as long as its writer wants it to be.
            let node = unsafe { node.as_ref() };
            let above = node.own_above(node.first(), self.address);
            if node.is_leaf {
                (self.leaf, self.at) = (Some(node), above.unwrap_or(FAN));
                return;
            }
            // Beyond everything: the end of the last leaf.
            let index = above.unwrap_or(FAN - 1);
            self.path.push(Step { node: NonNull::from(node), index });
            next = node.own_what(index).map(NonNull::cast);
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
    pub(crate) fn below(&self) -> Option<&'r T> {
        if let Some(first) = self.first()
            && first.low() < self.address
        {
            return Some(first);
        }
        let leaf = self.leaf?;
        match (leaf.first()..self.at).rfind(|index| !leaf.is_vacant(*index)) {
            Some(index) => self.value(index),
            None if self.path.is_empty() => None,
            None => self.tree.previous(self.address, self.writer),
        }
    }

    /// The first value that ends above `high`, which is not below the address.
    pub(crate) fn above(&self, high: u64) -> Option<&'r T> {
        debug_assert!(high >= self.address, "a look back");
        match self.leaf?.own_above(self.at, high) {
            Some(index) => self.value(index),
            None if self.path.is_empty() => None,
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

    /// The node that `depth` steps of the path lead to.
    pub(super) fn node_at(&self, depth: usize) -> Option<NonNull<Node<T>>> {
        self.path.get(depth).map_or(self.leaf.map(NonNull::from), |step| Some(step.node))
    }

    /// Start of the first value behind the subtree that `depth` steps of the path lead to.
    pub(super) fn next_low(&self, depth: usize) -> u64 {
        let behind = self.path[..depth].iter().rev().find(|step| step.index + 1 < FAN);
        // SAFETY: a step of this spot, whose writer has published nothing since.
        behind.map_or(u64::MAX, |step| unsafe { step.node() }.low(step.index + 1))
    }
}
