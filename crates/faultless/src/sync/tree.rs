//! A range tree that readers walk without a lock: a B+tree whose nodes are copied, never changed. Protocol P5.
//!
//! Called by `area::index`. A writer (one at a time per tree) builds the changed path aside, publishes the new root by
//! one release store, and retires the nodes that are no longer reachable. A reader loads the root once and sees one
//! version of the whole tree. Each child slot knows the largest gap below it, so a free range is found in O(log n).
//!
//! The tree owns its values through raw pointers; a value that an edit replaced comes back [`Detached`], to be retired.

mod edit;

use super::{AtomicPtr, Garbage, Ordering, Section, mutant, try_box};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use core::marker::PhantomData;
use core::mem;
use core::ptr::{self, NonNull};
use edit::{build, fill};
use smallvec::SmallVec;

/// Entries per node. Small in model builds so that trees have depth.
const FAN: usize = if cfg!(any(loom, shuttle)) { 3 } else { 16 };
/// Most values that one edit inserts.
pub(crate) const MOST_INSERTED: usize = 3;
/// Slots of a node that was merged or filled: room is left for insertions.
const FULL: usize = FAN - FAN / 4;

/// Proof that nodes and values stay allocated while they are looked at.
pub(crate) trait Reader {}
impl Reader for Section<'_> {}

/// One slot of a node. In a leaf: a value and the range that it stands for. Above: a node, and a summary of what is
/// below it.
struct Slot<T> {
    /// Start of the (first) value.
    low: u64,
    /// The lowest start less guard: a search for a gap leaves the guard free.
    guarded: u64,
    /// End of the (last) value.
    high: u64,
    /// The largest gap between two values below; 0 in a leaf.
    gap: u64,
    /// The value or the node.
    what: NonNull<()>,
    of: PhantomData<NonNull<T>>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}

/// One node; never changed after publication, never empty.
struct Node<T> {
    is_leaf: bool,
    slots: ArrayVec<Slot<T>, FAN>,
}

// SAFETY: a node is immutable data that refers to values which may be shared and sent.
unsafe impl<T: Send + Sync> Send for Node<T> {}

impl<T> Slot<T> {
    /// The node below.
    ///
    /// # Safety
    ///
    /// The slot is in a node that is no leaf, and the version it belongs to may still be read: by a reader, or by the
    /// writer that edits it. The reference is not kept beyond that.
    unsafe fn node<'r>(&self) -> &'r Node<T> {
        // SAFETY: not a leaf's, so it names a node, by the caller's promise still allocated.
        unsafe { self.what.cast::<Node<T>>().as_ref() }
    }

    /// Frees the value of a slot that never was in a published tree.
    ///
    /// # Safety
    ///
    /// The slot is a leaf's; this is its last copy.
    unsafe fn free(self) {
        // SAFETY: a leaf's, so it names a value; values come from `Box::leak` in `NewItems::push`, and by the caller's
        // promise this is the last copy.
        drop(unsafe { Box::from_raw(self.what.cast::<T>().as_ptr()) });
    }
}

/// A value in the tree, and where its range begins. It goes with the proof of the reader who was given it.
pub(crate) struct Item<'r, T> {
    /// First address.
    pub(crate) start: u64,
    /// The value.
    pub(crate) value: &'r T,
}

impl<'r, T> Item<'r, T> {
    /// The item of a leaf's slot.
    ///
    /// # Safety
    ///
    /// The slot is a leaf's, and for `'r` there is a reader who keeps the value: values are freed after a grace period
    /// that a section holds up, or by the writer of the tree, who is the reader.
    unsafe fn of(slot: &Slot<T>) -> Self {
        // SAFETY: a leaf's, so it names a value, by the caller's promise allocated for as long as `'r`.
        Self { start: slot.low, value: unsafe { slot.what.cast().as_ref() } }
    }
}

/// Values on their way into a tree; frees what did not get there.
pub(crate) struct NewItems<T>(SmallVec<[Slot<T>; MOST_INSERTED]>);

impl<T> NewItems<T> {
    /// None.
    pub(crate) fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Adds `value`, which stands for `start..end` and wants `guard` bytes free below; ascending.
    pub(crate) fn push(&mut self, start: u64, end: u64, guard: u64, value: T) -> Result<(), NoMemory> {
        self.0.try_reserve(1).map_err(|_| NoMemory)?;
        let value = NonNull::from(Box::leak(try_box(value).map_err(|_| NoMemory)?));
        self.0.push(Slot {
            low: start,
            guarded: start.saturating_sub(guard),
            high: end,
            gap: 0,
            what: value.cast(),
            of: PhantomData,
        });
        Ok(())
    }
}

impl<T> Drop for NewItems<T> {
    fn drop(&mut self) {
        for slot in self.0.drain(..) {
            // SAFETY: what is still here was not published, and the drain gives the last copy.
            unsafe { slot.free() };
        }
    }
}

/// The published tree.
pub(crate) struct Tree<T> {
    root: AtomicPtr<Node<T>>,
}

// SAFETY: the tree owns its nodes and values; shared access gives out `&T` only.
unsafe impl<T: Send + Sync> Send for Tree<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Tree<T> {}

/// A change on its way: made, prepared, then published; dropped before that, it takes everything back.
pub(crate) struct Edit<T> {
    /// The root that the edit was prepared for.
    old: *mut Node<T>,
    root: *mut Node<T>,
    /// Nodes that the edit made.
    fresh: SmallVec<[NonNull<Node<T>>; 6]>,
    /// Nodes that the new version does not name any more.
    stale: SmallVec<[NonNull<Node<T>>; 6]>,
    /// Values inside the edited range, to be replaced.
    replaced: SmallVec<[NonNull<T>; MOST_INSERTED]>,
    /// What is put in.
    inserted: NewItems<T>,
}

/// No memory for nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

impl<T> Tree<T> {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self { root: AtomicPtr::new(ptr::null_mut()) }
    }

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

    /// The first value that ends above `address`.
    #[inline]
    pub(crate) fn next<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<Item<'r, T>> {
        let mut node = self.root(reader)?;
        loop {
            let slot = node.slots.iter().find(|slot| slot.high > address)?;
            if node.is_leaf {
                // SAFETY: a leaf's, and `reader` keeps the version.
                return Some(unsafe { Item::of(slot) });
            }
            // SAFETY: not a leaf's, and `reader` keeps the version.
            node = unsafe { slot.node() };
        }
    }

    /// The last value that starts below `address`.
    pub(crate) fn previous<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<Item<'r, T>> {
        let mut node = self.root(reader)?;
        loop {
            let slot = node.slots.iter().rfind(|slot| slot.low < address)?;
            if node.is_leaf {
                // SAFETY: a leaf's, and `reader` keeps the version.
                return Some(unsafe { Item::of(slot) });
            }
            // SAFETY: not a leaf's, and `reader` keeps the version.
            node = unsafe { slot.node() };
        }
    }

    /// The value that covers `address`.
    #[inline]
    pub(crate) fn find<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
        let item = self.next(address, reader)?;
        (item.start <= address).then_some(item.value)
    }

    /// The highest start of a free range of `len` bytes inside `low..high`, guards respected.
    pub(crate) fn highest_gap(&self, low: u64, high: u64, len: u64, reader: &(impl Reader + ?Sized)) -> Option<u64> {
        let mut ceiling = high;
        if let Some(root) = self.root(reader)
            && let Some(found) = gap_below(root, low, &mut ceiling, len)
        {
            return Some(found);
        }
        // Below the first value, or in an empty tree.
        fits(0, low, ceiling, len)
    }

    /// Prepares in `edit` the replacement of all values that meet `low..high` by what was inserted into it: ascending,
    /// inside what the range and the values it meets cover. On failure nothing has happened.
    pub(crate) fn prepare(
        &self,
        edit: &mut Edit<T>,
        low: u64,
        high: u64,
        _writer: &(impl Reader + ?Sized),
    ) -> Result<(), NoMemory> {
        debug_assert!(edit.inserted.0.len() <= MOST_INSERTED && edit.fresh.is_empty());
        let inserted: ArrayVec<Slot<T>, MOST_INSERTED> = edit.inserted.0.iter().copied().collect();
        // Relaxed: the writer's lock orders it after the last publication.
        edit.old = self.root.load(Ordering::Relaxed);
        build(edit, NonNull::new(edit.old), low, high, &inserted)
    }

    /// Publishes an edit. Replaced nodes go to `retire`; replaced values stay in the edit.
    pub(crate) fn publish(&self, edit: &mut Edit<T>, mut retire: impl FnMut(Garbage))
    where
        T: Send + Sync + 'static,
    {
        // Relaxed: as `prepare`. Of two edits that were prepared side by side, the second would bring back what the first
        // gave up.
        assert!(self.root.load(Ordering::Relaxed) == edit.old, "an edit of an older version of the tree");
        // Release pairs with the Acquire in `root`.
        self.root.store(edit.root, mutant::weaken(mutant::Mutant::RelaxedPublish, Ordering::Release));
        edit.fresh.clear(); // the tree owns them now
        edit.inserted.0.clear();
        for node in edit.stale.drain(..) {
            // SAFETY: the node came from a Box (`make`), and no version from now on names it.
            retire(unsafe { Garbage::new(node) });
        }
    }

    /// Fills an empty, unpublished tree with ascending values.
    pub(crate) fn fill(&mut self, items: NewItems<T>) -> Result<(), NoMemory> {
        let mut edit = Edit::new(items);
        let items = mem::take(&mut edit.inserted.0);
        let result = fill(&mut edit, &items);
        if result.is_err() {
            edit.inserted.0 = items;
            return result;
        }
        // Release: as `publish`.
        self.root.store(edit.root, Ordering::Release);
        edit.fresh.clear(); // the tree owns them now
        Ok(())
    }

    /// Calls `visit` with each item, ascending, until it returns `false`.
    pub(crate) fn each<'r>(
        &'r self,
        reader: &'r (impl Reader + ?Sized),
        visit: &mut impl FnMut(Item<'r, T>) -> bool,
    ) -> bool {
        self.root(reader).is_none_or(|root| each(root, visit))
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
            &mut |slot| {
                let value = slot.what.cast::<T>();
                // SAFETY: the value is freed only as the garbage made below.
                let seen = unsafe { value.as_ref() };
                // SAFETY: the value came from a Box (`NewItems::push`) and its tree is no longer published.
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
            &mut |slot| {
                // SAFETY: a leaf's slot, and the tree that is being dropped was its only owner.
                unsafe { slot.free() };
            },
        );
    }
}

/// The highest gap of `len` bytes between the values of `node`, or between its last value and `ceiling`. Lowers
/// `ceiling` to the lowest guarded start in the node if there is none.
fn gap_below<T>(node: &Node<T>, low: u64, ceiling: &mut u64, len: u64) -> Option<u64> {
    node.slots.iter().rev().find_map(|slot| {
        if let Some(found) = fits(slot.high, low, *ceiling, len) {
            return Some(found);
        }
        if slot.gap >= len && slot.high > low {
            // SAFETY: only slots above the leaves have gaps; the caller's reader keeps the version.
            return gap_below(unsafe { slot.node() }, low, ceiling, len);
        }
        *ceiling = (*ceiling).min(slot.guarded);
        None
    })
}

/// The highest start of `len` bytes between `floor` and `ceiling`, not below `low`.
fn fits(floor: u64, low: u64, ceiling: u64, len: u64) -> Option<u64> {
    let start = ceiling.checked_sub(len)?;
    (start >= floor && start >= low).then_some(start)
}

fn each<'r, T>(node: &'r Node<T>, visit: &mut impl FnMut(Item<'r, T>) -> bool) -> bool {
    node.slots.iter().all(|slot| {
        if node.is_leaf {
            // SAFETY: a leaf's; the caller's reader, who gave `node` for `'r`, keeps its values as long.
            return visit(unsafe { Item::of(slot) });
        }
        // SAFETY: not a leaf's; the caller's reader keeps the version.
        each(unsafe { slot.node() }, visit)
    })
}

fn clear<T>(node: *mut Node<T>, retire: &mut impl FnMut(NonNull<Node<T>>), item: &mut impl FnMut(Slot<T>)) {
    let Some(node) = NonNull::new(node) else { return };
    // SAFETY: the node is of a version whose owner is taking it apart; it is given up only below.
    let here = unsafe { node.as_ref() };
    for slot in &here.slots {
        if here.is_leaf {
            item(*slot);
        } else {
            clear(slot.what.cast().as_ptr(), retire, item);
        }
    }
    retire(node);
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
