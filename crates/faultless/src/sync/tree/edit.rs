//! Building the next version of a tree: the changed path is copied, everything else is named again.
//!
//! Called by [`Tree`](super::Tree) with the writer's lock held. Everything here may fail for want of memory, and then
//! nothing has happened: the old version is untouched, and what was made goes with the [`Edit`].

use super::{Edit, FAN, FULL, Garbage, Item, MOST_INSERTED, NewItems, NoMemory, Node, Reader, Slot};
use crate::sync::try_box;
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::ptr::{self, NonNull};
use smallvec::SmallVec;

impl<T> Edit<T> {
    /// An edit that puts `inserted` in, to be prepared.
    pub(crate) fn new(inserted: NewItems<T>) -> Self {
        let (fresh, stale, replaced) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        Self { old: ptr::null_mut(), root: ptr::null_mut(), fresh, stale, replaced, inserted }
    }

    /// Adds a value to put in; see [`NewItems::push`].
    pub(crate) fn insert(&mut self, start: u64, end: u64, guard: u64, value: T) -> Result<(), NoMemory> {
        self.inserted.push(start, end, guard, value)
    }

    /// The values that the edit puts in, before it is published.
    pub(crate) fn inserted<'r>(&'r self, _writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        // SAFETY: each is a leaf's slot, and its value stays with the edit, or in the tree of which we are the writer.
        self.inserted.0.iter().map(|slot| unsafe { Item::of(slot) }.value)
    }

    /// The values that a published edit replaced.
    pub(crate) fn replaced<'r>(&'r self, _writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        // SAFETY: until `retire_replaced`, which wants the edit for itself, the edit keeps the values that left the tree.
        self.replaced.iter().map(|value| unsafe { value.as_ref() })
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

    /// Makes a node of `parts` (at least one slot, at most [`FAN`]) and the slot that names it.
    fn make(&mut self, is_leaf: bool, parts: &[&[Slot<T>]]) -> Result<Slot<T>, NoMemory> {
        self.fresh.try_reserve(1).map_err(|_| NoMemory)?;
        let node = Box::leak(try_box(Node { is_leaf, slots: ArrayVec::new() }).map_err(|_| NoMemory)?);
        for part in parts {
            let fits = node.slots.try_extend_from_slice(part);
            debug_assert!(fits.is_ok(), "a node is made of what fits");
        }
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

    /// Makes as many nodes as `parts` need, equally full.
    fn push_nodes(&mut self, is_leaf: bool, parts: [&[Slot<T>]; 3], out: &mut Wide<T>) -> Result<(), NoMemory> {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        if count == 0 {
            return Ok(());
        }
        if count <= FAN {
            let slot = self.make(is_leaf, &parts)?;
            out.push(slot);
            return Ok(());
        }
        let mut all: Wide<T> = ArrayVec::new();
        parts.iter().for_each(|part| all.extend(part.iter().copied()));
        let nodes = count.div_ceil(FAN);
        for part in all.chunks(count.div_ceil(nodes)) {
            let slot = self.make(is_leaf, &[part])?;
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
pub(super) fn build<T>(
    edit: &mut Edit<T>,
    old: Option<NonNull<Node<T>>>,
    low: u64,
    high: u64,
    inserted: &[Slot<T>],
) -> Result<(), NoMemory> {
    let mut top: Wide<T> = ArrayVec::new();
    match old {
        Some(root) => edit_node(edit, root, low, high, inserted, &mut top)?,
        None => edit.push_nodes(true, [inserted, &[], &[]], &mut top)?,
    }
    while top.len() > 1 {
        let mut above: Wide<T> = ArrayVec::new();
        edit.push_nodes(false, [&top, &[], &[]], &mut above)?;
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
        return edit.push_nodes(false, [&next, &[], &[]], out);
    }
    let below = node.slots.partition_point(|slot| slot.high <= low);
    let above = node.slots.partition_point(|slot| slot.low < high).max(below);
    edit.replaced.try_reserve(above - below).map_err(|_| NoMemory)?;
    edit.replaced.extend(node.slots[below..above].iter().map(|slot| slot.what.cast()));
    edit.push_nodes(true, [&node.slots[..below], inserted, &node.slots[above..]], out)
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
    let merged = edit.make(left.is_leaf, &[&left.slots, &right.slots])?;
    edit.discard(a)?;
    edit.discard(b)?;
    out.pop();
    out.push(merged);
    Ok(())
}

/// Builds a whole tree from ascending slots.
pub(super) fn fill<T>(edit: &mut Edit<T>, items: &[Slot<T>]) -> Result<(), NoMemory> {
    let mut level: Vec<Slot<T>> = Vec::new();
    let mut below = items;
    let mut is_leaf = true;
    while is_leaf && !below.is_empty() || below.len() > 1 {
        let mut above: Vec<Slot<T>> = Vec::new();
        above.try_reserve(below.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
        for part in below.chunks(FULL) {
            above.push(edit.make(is_leaf, &[part])?);
        }
        level = above;
        below = &level;
        is_leaf = false;
    }
    edit.root = level.first().map_or(ptr::null_mut(), |slot| slot.what.cast().as_ptr());
    Ok(())
}
