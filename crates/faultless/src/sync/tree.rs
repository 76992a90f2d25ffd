//! A range tree that readers walk without a lock: a B+tree whose nodes are copied, never changed. Protocol P5.
//!
//! Called by `area::index`. A writer (one at a time per tree) builds the changed path aside, publishes the new root by
//! one release store, and retires the nodes that are no longer reachable. A reader loads the root once and sees one
//! version of the whole tree. Each child slot knows the largest gap below it, so a free range is found in O(log n).
//!
//! The tree owns its values through raw pointers; a value that an edit replaced comes back [`Detached`], to be retired.

use super::{AtomicPtr, Garbage, Ordering, RawGuard, Section, try_box};
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::marker::PhantomData;
use core::mem;
use core::ptr::{self, NonNull};
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
impl Reader for RawGuard<'_> {}

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

/// A value in the tree, and its range.
pub(crate) struct Item<T> {
    /// First address.
    pub(crate) start: u64,
    value: NonNull<T>,
}

impl<T> Item<T> {
    /// The item of a leaf's slot (of a leaf: the value is looked at later).
    fn of(slot: &Slot<T>) -> Self {
        Self { start: slot.low, value: slot.what.cast() }
    }

    /// The value.
    pub(crate) fn get<'r>(&self, _reader: &'r (impl Reader + ?Sized)) -> &'r T {
        // SAFETY: items are handed out to readers and writers only; values are freed after a grace period that
        // `_reader` holds up, or by the writer that `_reader` proves to be us.
        unsafe { self.value.as_ref() }
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
    pub(crate) fn next<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<Item<T>> {
        let mut node = self.root(reader)?;
        loop {
            let slot = node.slots.iter().find(|slot| slot.high > address)?;
            if node.is_leaf {
                return Some(Item::of(slot));
            }
            // SAFETY: not a leaf's, and `reader` keeps the version.
            node = unsafe { slot.node() };
        }
    }

    /// The last value that starts below `address`.
    pub(crate) fn previous<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<Item<T>> {
        let mut node = self.root(reader)?;
        loop {
            let slot = node.slots.iter().rfind(|slot| slot.low < address)?;
            if node.is_leaf {
                return Some(Item::of(slot));
            }
            // SAFETY: not a leaf's, and `reader` keeps the version.
            node = unsafe { slot.node() };
        }
    }

    /// The value that covers `address`.
    #[inline]
    pub(crate) fn find<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<&'r T> {
        let item = self.next(address, reader)?;
        (item.start <= address).then(|| item.get(reader))
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
        let old = NonNull::new(self.root.load(Ordering::Relaxed));
        build(edit, old, low, high, &inserted)
    }

    /// Publishes an edit. Replaced nodes go to `retire`; replaced values stay in the edit.
    pub(crate) fn publish(&self, edit: &mut Edit<T>, mut retire: impl FnMut(Garbage))
    where
        T: Send + Sync + 'static,
    {
        // Release pairs with the Acquire in `root`.
        self.root.store(edit.root, Ordering::Release);
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
    pub(crate) fn each(&self, reader: &(impl Reader + ?Sized), visit: &mut impl FnMut(Item<T>) -> bool) -> bool {
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
                let value = Item::of(&slot).value;
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

impl<T> Edit<T> {
    /// An edit that puts `inserted` in, to be prepared.
    pub(crate) fn new(inserted: NewItems<T>) -> Self {
        let (fresh, stale, replaced) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        Self { root: ptr::null_mut(), fresh, stale, replaced, inserted }
    }

    /// Adds a value to put in; see [`NewItems::push`].
    pub(crate) fn insert(&mut self, start: u64, end: u64, guard: u64, value: T) -> Result<(), NoMemory> {
        self.inserted.push(start, end, guard, value)
    }

    /// The values that the edit puts in, before it is published.
    pub(crate) fn inserted<'r>(&'r self, writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        self.inserted.0.iter().map(move |slot| Item::of(slot).get(writer))
    }

    /// The values that a published edit replaced.
    pub(crate) fn replaced<'r>(&'r self, writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        self.replaced.iter().map(move |value| Item { start: 0, value: *value }.get(writer))
    }

    /// Gives the replaced values up, to be freed when no reader can hold them any more. After publication.
    pub(crate) fn retire_replaced(&mut self, mut retire: impl FnMut(Garbage))
    where
        T: Send + 'static,
    {
        for value in self.replaced.drain(..) {
            // SAFETY: the value came from a Box (`NewItems::push`), left its tree, and the drain gives the only copy.
            retire(unsafe { Garbage::new(value) });
        }
    }

    /// Makes a node of `slots` (at least one, at most [`FAN`]) and the slot that names it.
    fn make(&mut self, is_leaf: bool, slots: impl Iterator<Item = Slot<T>>) -> Result<Slot<T>, NoMemory> {
        self.fresh.try_reserve(1).map_err(|_| NoMemory)?;
        let node = Box::leak(try_box(Node { is_leaf, slots: ArrayVec::new() }).map_err(|_| NoMemory)?);
        node.slots.extend(slots);
        let slot = summary(node);
        self.fresh.push(NonNull::from(node));
        Ok(slot)
    }

    /// Notes that the new version does without `node`. A node that this edit made is freed at once.
    fn discard(&mut self, node: NonNull<Node<T>>) -> Result<(), NoMemory> {
        if let Some(position) = self.fresh.iter().position(|fresh| *fresh == node) {
            self.fresh.swap_remove(position);
            // SAFETY: the node came from a Box (`make`) in this edit and nothing names it any more.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
            return Ok(());
        }
        self.stale.try_reserve(1).map_err(|_| NoMemory)?;
        self.stale.push(node);
        Ok(())
    }

    /// Makes as many nodes as `count` slots need, equally full.
    fn push_nodes(
        &mut self,
        is_leaf: bool,
        count: usize,
        mut slots: impl Iterator<Item = Slot<T>>,
        out: &mut Wide<T>,
    ) -> Result<(), NoMemory> {
        let parts = count.div_ceil(FAN);
        for part in 0..parts {
            let share = count * (part + 1) / parts - count * part / parts;
            let slot = self.make(is_leaf, slots.by_ref().take(share))?;
            out.push(slot);
        }
        Ok(())
    }
}

impl<T> Drop for Edit<T> {
    /// What was not published is taken back: nothing has happened.
    fn drop(&mut self) {
        for node in self.fresh.drain(..) {
            // SAFETY: the node came from a Box (`make`) and was never published.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
        }
    }
}

/// Room for the slots of a node while it is edited: each edited child may split once.
type Wide<T> = ArrayVec<Slot<T>, { FAN + MOST_INSERTED + 1 }>;

/// The slot that names `node`, with the summary of what it holds.
fn summary<T>(node: &Node<T>) -> Slot<T> {
    let first = node.slots[0];
    let mut all = Slot { what: NonNull::from(node).cast(), ..first };
    for slot in &node.slots[1..] {
        let between = slot.guarded.saturating_sub(all.high);
        all.gap = all.gap.max(slot.gap).max(between);
        all.guarded = all.guarded.min(slot.guarded);
        all.high = slot.high;
    }
    all
}

/// Builds the new version of the whole tree.
fn build<T>(
    edit: &mut Edit<T>,
    old: Option<NonNull<Node<T>>>,
    low: u64,
    high: u64,
    inserted: &[Slot<T>],
) -> Result<(), NoMemory> {
    let mut top: Wide<T> = ArrayVec::new();
    match old {
        Some(root) => edit_node(edit, root, low, high, inserted, &mut top)?,
        None => edit.push_nodes(true, inserted.len(), inserted.iter().copied(), &mut top)?,
    }
    while top.len() > 1 {
        let mut above: Wide<T> = ArrayVec::new();
        edit.push_nodes(false, top.len(), top.iter().copied(), &mut above)?;
        top = above;
    }
    let Some(slot) = top.first() else { return Ok(()) }; // an empty tree has a null root
    let mut root = slot.what.cast::<Node<T>>();
    // A root with one child is no root.
    loop {
        // SAFETY: the node is fresh, or of the version that this writer edits.
        let node = unsafe { root.as_ref() };
        if node.is_leaf || node.slots.len() > 1 {
            break;
        }
        let child = node.slots[0].what.cast();
        edit.discard(root)?;
        root = child;
    }
    edit.root = root.as_ptr();
    Ok(())
}

/// Builds what takes the place of `node`: no, one or two nodes, appended to `out`. At most as deep as the tree.
fn edit_node<T>(
    edit: &mut Edit<T>,
    node: NonNull<Node<T>>,
    low: u64,
    high: u64,
    inserted: &[Slot<T>],
    out: &mut Wide<T>,
) -> Result<(), NoMemory> {
    edit.discard(node)?;
    // SAFETY: the node belongs to the version that this writer edits; `discard` only noted it.
    let node = unsafe { node.as_ref() };
    if !node.is_leaf {
        let mut next: Wide<T> = ArrayVec::new();
        edit_children(edit, &node.slots, low, high, inserted, &mut next)?;
        return edit.push_nodes(false, next.len(), next.iter().copied(), out);
    }
    let below = node.slots.partition_point(|slot| slot.high <= low);
    let above = node.slots.partition_point(|slot| slot.low < high).max(below);
    edit.replaced.try_reserve(above - below).map_err(|_| NoMemory)?;
    edit.replaced.extend(node.slots[below..above].iter().map(|slot| Item::of(slot).value));
    let kept = below + node.slots.len() - above;
    let next = node.slots[..below].iter().chain(inserted).chain(&node.slots[above..]).copied();
    edit.push_nodes(true, kept + inserted.len(), next, out)
}

/// Edits the children that meet the range (or the one that the insertion belongs to) and keeps the others.
fn edit_children<T>(
    edit: &mut Edit<T>,
    children: &[Slot<T>],
    low: u64,
    high: u64,
    inserted: &[Slot<T>],
    out: &mut Wide<T>,
) -> Result<(), NoMemory> {
    let mut first = children.partition_point(|child| child.high <= low);
    let mut last = children.partition_point(|child| child.low < high);
    if first >= last {
        // Nothing meets the range: the insertion goes to the end of the child before it, or to the first.
        first = first.saturating_sub(1);
        last = first + 1;
    }
    out.extend(children[..first].iter().copied());
    let mut inserted = inserted;
    for child in &children[first..last] {
        let mut made: Wide<T> = ArrayVec::new();
        edit_node(edit, child.what.cast(), low, high, inserted, &mut made)?;
        inserted = &[];
        for child in made {
            push_merging(edit, child, out)?;
        }
    }
    let mut rest = children[last..].iter().copied();
    if let Some(child) = rest.next() {
        push_merging(edit, child, out)?;
    }
    out.extend(rest);
    Ok(())
}

/// Appends a child, merged with the one before if both fit well into one node.
fn push_merging<T>(edit: &mut Edit<T>, child: Slot<T>, out: &mut Wide<T>) -> Result<(), NoMemory> {
    let Some(last) = out.last().copied() else {
        out.push(child);
        return Ok(());
    };
    let (a, b) = (last.what.cast::<Node<T>>(), child.what.cast::<Node<T>>());
    // SAFETY: a child of a node that is no leaf, of the version that this writer edits or fresh.
    let left = unsafe { a.as_ref() };
    // SAFETY: as above.
    let right = unsafe { b.as_ref() };
    if left.slots.len() + right.slots.len() > FULL {
        out.push(child);
        return Ok(());
    }
    debug_assert_eq!(left.is_leaf, right.is_leaf, "siblings are of one level");
    let merged = edit.make(left.is_leaf, left.slots.iter().chain(&right.slots).copied())?;
    edit.discard(a)?;
    edit.discard(b)?;
    out.pop();
    out.push(merged);
    Ok(())
}

/// Builds a whole tree from ascending slots.
fn fill<T>(edit: &mut Edit<T>, items: &[Slot<T>]) -> Result<(), NoMemory> {
    let mut level: Vec<Slot<T>> = Vec::new();
    let mut below = items;
    let mut is_leaf = true;
    while is_leaf && !below.is_empty() || below.len() > 1 {
        let mut above: Vec<Slot<T>> = Vec::new();
        above.try_reserve(below.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
        for part in below.chunks(FULL) {
            above.push(edit.make(is_leaf, part.iter().copied())?);
        }
        level = above;
        below = &level;
        is_leaf = false;
    }
    edit.root = level.first().map_or(ptr::null_mut(), |slot| slot.what.cast().as_ptr());
    Ok(())
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

fn each<T>(node: &Node<T>, visit: &mut impl FnMut(Item<T>) -> bool) -> bool {
    node.slots.iter().all(|slot| {
        if node.is_leaf {
            return visit(Item::of(slot));
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
