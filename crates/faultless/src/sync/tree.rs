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
use core::mem;
use core::ptr::{self, NonNull};
use smallvec::SmallVec;

/// Entries per node. Small in model builds so that trees have depth.
const FAN: usize = if cfg!(any(loom, shuttle)) { 3 } else { 16 };
/// Most values that one edit inserts.
pub(crate) const MOST_INSERTED: usize = 3;
/// Room for the entries of a node while it is edited: each edited child may split once, and be merged.
const WIDE: usize = 2 * FAN + MOST_INSERTED;

/// Proof that nodes and values stay allocated while they are looked at.
pub(crate) trait Reader {}
impl Reader for Section<'_> {}
impl Reader for RawGuard<'_> {}

/// A value and the range that it stands for.
pub(crate) struct Item<T> {
    /// First address.
    pub(crate) start: u64,
    /// One past the last.
    pub(crate) end: u64,
    /// Bytes below `start` that a search for a gap leaves free.
    pub(crate) guard: u64,
    value: NonNull<T>,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Item<T> {}

impl<T> Item<T> {
    /// Gives `value` to a tree-to-be.
    fn new(start: u64, end: u64, guard: u64, value: Box<T>) -> Self {
        Self { start, end, guard, value: NonNull::from(Box::leak(value)) }
    }

    /// The value.
    pub(crate) fn get<'r>(&self, _reader: &'r (impl Reader + ?Sized)) -> &'r T {
        // SAFETY: an item is in a tree or in an edit under way; values are freed only after a grace period that
        // `_reader` holds up, or by the writer that `_reader` proves to be us.
        unsafe { self.value.as_ref() }
    }

    /// Frees the value of an item that never was in a published tree.
    fn free(self) {
        // SAFETY: `value` came from `Box::leak` in `new`; the callers in this module give up the last copy of an item
        // that nobody else has seen.
        drop(unsafe { Box::from_raw(self.value.as_ptr()) });
    }
}

/// A value that left the tree. Readers of an older version may still look at it.
#[must_use = "a detached value is retired"]
pub(crate) struct Detached<T> {
    value: NonNull<T>,
}

impl<T: Send + 'static> Detached<T> {
    /// The value.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: the value is freed only through `self`, by `into_garbage`.
        unsafe { self.value.as_ref() }
    }

    /// Gives it up, to be freed when no reader can hold it any more.
    pub(crate) fn into_garbage(self) -> Garbage {
        // SAFETY: the value came from a Box (`Item::new`), left its tree, and this is the only owner.
        unsafe { Garbage::new(self.value) }
    }
}

/// The values that an edit replaced.
pub(crate) type Replaced<T> = SmallVec<[Detached<T>; MOST_INSERTED]>;

/// Items on their way into a tree; frees what did not get there.
pub(crate) struct NewItems<T>(SmallVec<[Item<T>; MOST_INSERTED]>);

impl<T> NewItems<T> {
    /// None.
    pub(crate) fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Adds `value`, which stands for `start..end`; ascending.
    pub(crate) fn push(&mut self, start: u64, end: u64, guard: u64, value: T) -> Result<(), NoMemory> {
        self.0.try_reserve(1).map_err(|_| NoMemory)?;
        self.0.push(Item::new(start, end, guard, try_box(value).map_err(|_| NoMemory)?));
        Ok(())
    }
}

impl<T> Drop for NewItems<T> {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Item::free);
    }
}

/// One node; never changed after publication.
pub(crate) enum Node<T> {
    /// Values, ascending.
    Leaf(ArrayVec<Item<T>, FAN>),
    /// Nodes, ascending.
    Inner(ArrayVec<Child<T>, FAN>),
}

// SAFETY: a node is immutable data that refers to values which may be shared and sent.
unsafe impl<T: Send + Sync> Send for Node<T> {}
// SAFETY: the same for what it is detached as.
unsafe impl<T: Send + Sync> Send for Detached<T> {}

/// A child slot and its summary.
pub(crate) struct Child<T> {
    /// Start of the first value below.
    low: u64,
    /// The lowest start less guard below.
    guarded: u64,
    /// End of the last value below.
    high: u64,
    /// The largest gap between two values below.
    gap: u64,
    node: NonNull<Node<T>>,
}

impl<T> Clone for Child<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Child<T> {}

impl<T> Child<T> {
    fn node(&self) -> &Node<T> {
        // SAFETY: nodes live as long as some version that names them can be read: whoever holds a `Child` is a reader
        // or the writer. The reference is never kept beyond that (private to this module).
        unsafe { self.node.as_ref() }
    }
}

/// The summary of a sequence of ranges: what a child slot stores about it.
fn summary<T>(node: &Node<T>) -> (u64, u64, u64, u64) {
    fn fold(ranges: impl Iterator<Item = (u64, u64, u64, u64)>) -> (u64, u64, u64, u64) {
        let mut all: Option<(u64, u64, u64, u64)> = None;
        for (low, guarded, high, gap) in ranges {
            all = Some(match all {
                None => (low, guarded, high, gap),
                Some(so_far) => {
                    let between = guarded.saturating_sub(so_far.2);
                    (so_far.0, so_far.1.min(guarded), high, so_far.3.max(gap).max(between))
                }
            });
        }
        all.expect("nodes are never empty")
    }
    match node {
        Node::Leaf(items) => fold(items.iter().map(|i| (i.start, i.start.saturating_sub(i.guard), i.end, 0))),
        Node::Inner(children) => fold(children.iter().map(|c| (c.low, c.guarded, c.high, c.gap))),
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

/// A change that is prepared but not published: publish it or abandon it.
#[must_use = "an edit is published or abandoned"]
pub(crate) struct Edit<T> {
    root: *mut Node<T>,
    fresh: SmallVec<[NonNull<Node<T>>; 6]>,
    stale: SmallVec<[NonNull<Node<T>>; 6]>,
    /// Values inside the edited range, to be replaced.
    replaced: SmallVec<[Item<T>; MOST_INSERTED]>,
    /// What is put in.
    inserted: NewItems<T>,
}

impl<T> Edit<T> {
    fn new(inserted: NewItems<T>) -> Self {
        Self {
            root: ptr::null_mut(),
            fresh: SmallVec::new(),
            stale: SmallVec::new(),
            replaced: SmallVec::new(),
            inserted,
        }
    }

    /// The values that the edit puts in.
    pub(crate) fn inserted<'r>(&'r self, writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        self.inserted.0.iter().map(move |item| item.get(writer))
    }
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
            match node {
                Node::Leaf(items) => return items.iter().find(|item| item.end > address).copied(),
                Node::Inner(children) => node = children.iter().find(|child| child.high > address)?.node(),
            }
        }
    }

    /// The last value that starts below `address`.
    pub(crate) fn previous<'r>(&'r self, address: u64, reader: &'r (impl Reader + ?Sized)) -> Option<Item<T>> {
        let mut node = self.root(reader)?;
        loop {
            match node {
                Node::Leaf(items) => {
                    return items.iter().rfind(|item| item.start < address).copied();
                }
                Node::Inner(children) => node = children.iter().rfind(|child| child.low < address)?.node(),
            }
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
        (ceiling >= low && ceiling - low >= len).then(|| ceiling - len)
    }

    /// Prepares the replacement of all values that meet `low..high` by `inserted` (at most [`MOST_INSERTED`],
    /// ascending, inside what the range and the values it meets cover). On failure nothing has happened.
    pub(crate) fn edit(
        &self,
        low: u64,
        high: u64,
        inserted: NewItems<T>,
        _writer: &(impl Reader + ?Sized),
    ) -> Result<Edit<T>, NoMemory> {
        debug_assert!(inserted.0.len() <= MOST_INSERTED);
        let mut edit = Edit::new(inserted);
        let items: ArrayVec<Item<T>, MOST_INSERTED> = edit.inserted.0.iter().copied().collect();
        // Relaxed: the writer's lock orders it after the last publication.
        let old = NonNull::new(self.root.load(Ordering::Relaxed));
        match build(&mut edit, old, low, high, &items) {
            Ok(()) => Ok(edit),
            Err(NoMemory) => {
                edit.abandon();
                Err(NoMemory)
            }
        }
    }

    /// Publishes an edit. Replaced nodes go to `retire`; replaced values are returned.
    pub(crate) fn publish(&self, mut edit: Edit<T>, mut retire: impl FnMut(Garbage)) -> Replaced<T>
    where
        T: Send + Sync + 'static,
    {
        // Release pairs with the Acquire in `root`.
        self.root.store(edit.root, Ordering::Release);
        edit.inserted.0.clear(); // the tree owns them now
        for node in edit.stale {
            // SAFETY: the node came from a Box (`make`), and no version from now on names it.
            retire(unsafe { Garbage::new(node) });
        }
        edit.replaced.into_iter().map(|item| Detached { value: item.value }).collect()
    }

    /// Fills an empty, unpublished tree with ascending items.
    pub(crate) fn fill(&mut self, items: NewItems<T>) -> Result<(), NoMemory> {
        let mut edit = Edit::new(items);
        let items = mem::take(&mut edit.inserted.0);
        let result = fill(&mut edit, &items);
        if result.is_err() {
            edit.inserted.0 = items;
            edit.abandon();
            return result;
        }
        // Release: as `publish`.
        self.root.store(edit.root, Ordering::Release);
        Ok(())
    }

    /// Calls `visit` with each item, ascending, until it returns `false`.
    pub(crate) fn each(&self, reader: &(impl Reader + ?Sized), visit: &mut impl FnMut(Item<T>) -> bool) -> bool {
        self.root(reader).is_none_or(|root| each(root, visit))
    }

    /// Empties the tree: hands out its nodes and values.
    pub(crate) fn clear(&self, mut retire: impl FnMut(Garbage), mut item: impl FnMut(Detached<T>))
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
            &mut |gone| item(Detached { value: gone.value }),
        );
    }
}

impl<T> Drop for Tree<T> {
    fn drop(&mut self) {
        let root = self.root.load(Ordering::Acquire);
        clear(
            root,
            &mut |node| {
                // SAFETY: the node came from a Box (`make`) and nobody reads a tree that is being dropped.
                drop(unsafe { Box::from_raw(node.as_ptr()) });
            },
            &mut Item::free,
        );
    }
}

impl<T> Edit<T> {
    /// Takes everything back; nothing has happened.
    pub(crate) fn abandon(self) {
        for node in self.fresh {
            // SAFETY: the node came from a Box (`make`) and was never published.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
        }
    }
}

/// Moves a node to the heap and makes the slot that names it.
fn make<T>(edit: &mut Edit<T>, node: Node<T>) -> Result<Child<T>, NoMemory> {
    let (low, guarded, high, gap) = summary(&node);
    edit.fresh.try_reserve(1).map_err(|_| NoMemory)?;
    let node = NonNull::from(Box::leak(try_box(node).map_err(|_| NoMemory)?));
    edit.fresh.push(node);
    Ok(Child { low, guarded, high, gap, node })
}

/// Marks a node as replaced by the edit. A node that the same edit made is freed at once.
fn replace<T>(edit: &mut Edit<T>, node: NonNull<Node<T>>) -> Result<(), NoMemory> {
    if let Some(position) = edit.fresh.iter().position(|fresh| *fresh == node) {
        edit.fresh.swap_remove(position);
        // SAFETY: the node came from a Box (`make`) in this edit and nothing names it any more.
        drop(unsafe { Box::from_raw(node.as_ptr()) });
        return Ok(());
    }
    edit.stale.try_reserve(1).map_err(|_| NoMemory)?;
    edit.stale.push(node);
    Ok(())
}

/// Builds the new version of the whole tree.
fn build<T>(
    edit: &mut Edit<T>,
    old: Option<NonNull<Node<T>>>,
    low: u64,
    high: u64,
    inserted: &[Item<T>],
) -> Result<(), NoMemory> {
    let mut top: ArrayVec<Child<T>, WIDE> = ArrayVec::new();
    match old {
        Some(root) => edit_node(edit, root, low, high, inserted, &mut top)?,
        None if inserted.is_empty() => {}
        None => top.push(make(edit, Node::Leaf(inserted.iter().copied().collect()))?),
    }
    while top.len() > 1 {
        let mut level: ArrayVec<Child<T>, WIDE> = ArrayVec::new();
        push_inner(edit, &top, &mut level)?;
        top = level;
    }
    let mut root = top.first().map(|child| child.node);
    // A root with one child is no root.
    while let Some(node) = root
        // SAFETY: the node is fresh or of the version that this writer edits.
        && let Node::Inner(children) = unsafe { node.as_ref() }
        && children.len() == 1
    {
        let child = children[0].node;
        replace(edit, node)?;
        root = Some(child);
    }
    edit.root = root.map_or(ptr::null_mut(), NonNull::as_ptr);
    Ok(())
}

/// Builds what takes the place of `node`: no, one or two nodes, appended to `out`.
fn edit_node<T>(
    edit: &mut Edit<T>,
    node: NonNull<Node<T>>,
    low: u64,
    high: u64,
    inserted: &[Item<T>],
    out: &mut ArrayVec<Child<T>, WIDE>,
) -> Result<(), NoMemory> {
    replace(edit, node)?;
    // SAFETY: the node belongs to the version that this writer edits; `replace` only noted it.
    match unsafe { node.as_ref() } {
        Node::Leaf(items) => {
            let mut next: ArrayVec<Item<T>, WIDE> = items.iter().filter(|item| item.end <= low).copied().collect();
            next.extend(inserted.iter().copied());
            next.extend(items.iter().filter(|item| item.start >= high).copied());
            let gone = items.iter().filter(|item| item.end > low && item.start < high);
            edit.replaced.try_reserve(gone.clone().count()).map_err(|_| NoMemory)?;
            edit.replaced.extend(gone.copied());
            push_leaves(edit, &next, out)
        }
        Node::Inner(children) => {
            let children = children.clone();
            let mut next: ArrayVec<Child<T>, WIDE> = ArrayVec::new();
            edit_children(edit, &children, low, high, inserted, &mut next)?;
            push_inner(edit, &next, out)
        }
    }
}

/// Edits the children that meet the range (or the one that the insertion belongs to) and keeps the others.
fn edit_children<T>(
    edit: &mut Edit<T>,
    children: &[Child<T>],
    low: u64,
    high: u64,
    inserted: &[Item<T>],
    out: &mut ArrayVec<Child<T>, WIDE>,
) -> Result<(), NoMemory> {
    let mut first = children.partition_point(|child| child.high <= low);
    let mut last = children.partition_point(|child| child.low < high);
    if first >= last {
        // Nothing meets the range: the insertion goes to the end of the child before it, or to the first.
        first = first.saturating_sub(1);
        last = first + 1;
    }
    out.try_extend_from_slice(&children[..first]).expect("a node fits");
    let mut inserted = inserted;
    for child in &children[first..last] {
        let mut made: ArrayVec<Child<T>, WIDE> = ArrayVec::new();
        edit_node(edit, child.node, low, high, inserted, &mut made)?;
        inserted = &[];
        for child in made {
            push_merging(edit, child, out)?;
        }
    }
    let mut rest = children[last..].iter();
    if let Some(child) = rest.next() {
        push_merging(edit, *child, out)?;
    }
    out.extend(rest.copied());
    Ok(())
}

/// Appends `child`, merged with the one before if both fit well into one node.
fn push_merging<T>(edit: &mut Edit<T>, child: Child<T>, out: &mut ArrayVec<Child<T>, WIDE>) -> Result<(), NoMemory> {
    const MERGED: usize = FAN - FAN / 4;
    let Some(last) = out.last().copied() else {
        out.push(child);
        return Ok(());
    };
    let merged = match (last.node(), child.node()) {
        (Node::Leaf(a), Node::Leaf(b)) if a.len() + b.len() <= MERGED => {
            Node::Leaf(a.iter().chain(b).copied().collect())
        }
        (Node::Inner(a), Node::Inner(b)) if a.len() + b.len() <= MERGED => {
            Node::Inner(a.iter().chain(b).copied().collect())
        }
        _ => {
            out.push(child);
            return Ok(());
        }
    };
    replace(edit, last.node)?;
    replace(edit, child.node)?;
    out.pop();
    let merged = make(edit, merged)?;
    out.push(merged);
    Ok(())
}

fn push_leaves<T>(edit: &mut Edit<T>, items: &[Item<T>], out: &mut ArrayVec<Child<T>, WIDE>) -> Result<(), NoMemory> {
    for part in halves(items) {
        let child = make(edit, Node::Leaf(part.iter().copied().collect()))?;
        out.push(child);
    }
    Ok(())
}

fn push_inner<T>(edit: &mut Edit<T>, nodes: &[Child<T>], out: &mut ArrayVec<Child<T>, WIDE>) -> Result<(), NoMemory> {
    for part in halves(nodes) {
        let child = make(edit, Node::Inner(part.iter().copied().collect()))?;
        out.push(child);
    }
    Ok(())
}

/// Splits what does not fit one node into equal parts that do.
fn halves<E>(entries: &[E]) -> impl Iterator<Item = &[E]> {
    let parts = entries.len().div_ceil(FAN).max(1);
    entries.chunks(entries.len().div_ceil(parts).max(1))
}

fn fill<T>(edit: &mut Edit<T>, items: &[Item<T>]) -> Result<(), NoMemory> {
    const FULL: usize = FAN - FAN / 4;
    let mut level: Vec<Child<T>> = Vec::new();
    level.try_reserve(items.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
    for part in items.chunks(FULL) {
        let child = make(edit, Node::Leaf(part.iter().copied().collect()))?;
        level.push(child);
    }
    while level.len() > 1 {
        let mut above: Vec<Child<T>> = Vec::new();
        above.try_reserve(level.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
        for part in level.chunks(FULL) {
            let child = make(edit, Node::Inner(part.iter().copied().collect()))?;
            above.push(child);
        }
        level = above;
    }
    edit.root = level.first().map_or(ptr::null_mut(), |child| child.node.as_ptr());
    Ok(())
}

/// The highest gap of `len` bytes between the values of `node`, or between its last value and `ceiling`. Lowers
/// `ceiling` to the guarded start of the node's first value if there is none.
fn gap_below<T>(node: &Node<T>, low: u64, ceiling: &mut u64, len: u64) -> Option<u64> {
    match node {
        Node::Leaf(items) => items.iter().rev().find_map(|item| {
            fits(item.end, low, ceiling, len).or_else(|| {
                *ceiling = (*ceiling).min(item.start.saturating_sub(item.guard));
                None
            })
        }),
        Node::Inner(children) => children.iter().rev().find_map(|child| {
            if let Some(found) = fits(child.high, low, ceiling, len) {
                return Some(found);
            }
            if child.gap >= len && child.high > low {
                return gap_below(child.node(), low, ceiling, len);
            }
            *ceiling = (*ceiling).min(child.guarded);
            None
        }),
    }
}

/// Does a range of `len` bytes fit between `floor` and `ceiling`, not below `low`?
fn fits(floor: u64, low: u64, ceiling: &u64, len: u64) -> Option<u64> {
    let start = ceiling.checked_sub(len)?;
    (start >= floor && start >= low).then_some(start)
}

fn each<T>(node: &Node<T>, visit: &mut impl FnMut(Item<T>) -> bool) -> bool {
    match node {
        Node::Leaf(items) => items.iter().all(|item| visit(*item)),
        Node::Inner(children) => children.iter().all(|child| each(child.node(), visit)),
    }
}

fn clear<T>(node: *mut Node<T>, retire: &mut impl FnMut(NonNull<Node<T>>), item: &mut impl FnMut(Item<T>)) {
    let Some(node) = NonNull::new(node) else {
        return;
    };
    // SAFETY: the node is of a version whose owner is taking it apart; it is given up only below.
    match unsafe { node.as_ref() } {
        Node::Leaf(items) => items.iter().copied().for_each(item),
        Node::Inner(children) => children.iter().for_each(|child| clear(child.node.as_ptr(), retire, item)),
    }
    retire(node);
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
