//! A change of a tree: prepared aside, then published by one store.
//!
//! Called by `area::index` with the writer's lock held. Preparing may fail for want of memory, and then nothing has
//! happened: the tree is untouched, and what was made goes with the [`Edit`]. Publishing cannot fail.

use super::node::summary;
use super::spot::{next_low, path_to};
use super::{AtomicPtr, FAN, Few, Garbage, MOST_INSERTED, NoMemory, Node, Ordering, Path, Ranged, Reader, Slot, Spot};
use super::{Step, Writer, leak, mutant};
use crate::sync::{own_pointer, try_box};
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::mem;
use core::ptr::{self, NonNull};

/// Slots of a node that was merged or filled: room is left for insertions.
const FULL: usize = FAN - FAN / 4;
/// A node with fewer slots in use is merged with a neighbour if that has room.
pub(super) const LEAST: usize = FAN.div_ceil(4);

/// Room for the slots of a node while it is edited: each edited child may split once.
type Wide<T> = ArrayVec<Slot<T>, { FAN + MOST_INSERTED + 1 }>;

/// A change on its way: made, prepared, then published; dropped before that, it takes everything back.
pub(crate) struct Edit<T> {
    /// The version of the tree that it was prepared for.
    pub(super) version: u64,
    store: Store<T>,
    /// Nodes that the edit made.
    fresh: Vec<NonNull<Node<T>>>,
    /// Nodes that the new version does not name any more.
    stale: Vec<NonNull<Node<T>>>,
    /// Values inside the edited range, to be replaced.
    replaced: Few<NonNull<T>>,
    /// What is put in.
    inserted: ArrayVec<NonNull<T>, MOST_INSERTED>,
}

/// The one store that publishes an edit.
enum Store<T> {
    /// None: there is nothing to change.
    Nothing,
    /// What is inserted, one value or none, into a slot of a leaf.
    Value {
        leaf: NonNull<Node<T>>,
        index: usize,
        /// Leads to the leaf; `None` if that is the root.
        address: Option<u64>,
    },
    /// This node into the slot that the path ends with, or into the root. Null for an empty tree.
    Node(*mut Node<T>, Path<T>),
}

impl<T: Ranged> Edit<T> {
    /// An edit to which what it inserts is to be added, ascending, and which is then prepared.
    #[inline]
    pub(crate) fn new() -> Self {
        let (fresh, stale) = (Vec::new(), Vec::new());
        Self { version: 0, store: Store::Nothing, fresh, stale, replaced: Few::new(), inserted: ArrayVec::new() }
    }

    /// Adds a value to put in, behind the ones before.
    ///
    /// # Panics
    ///
    /// If more than [`MOST_INSERTED`] are added.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Result<(), NoMemory> {
        self.inserted.push(leak(value)?);
        Ok(())
    }

    /// Prepares the replacement of all values that meet `low..high` by what was inserted: inside what the range and the
    /// values it meets cover. The spot is near `low`, best at it.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, spot: &Spot<'_, T>, low: u64, high: u64) -> Result<(), NoMemory> {
        debug_assert!(matches!(self.store, Store::Nothing), "prepared twice");
        let moved;
        let spot = if low == spot.address {
            spot
        } else {
            moved = spot.again(low);
            &moved
        };
        self.version = spot.version();
        let least = if spot.is_root { 1 } else { LEAST };
        if let Some(leaf) = spot.leaf
            && let Some(index) = self.slot_for(spot, leaf, high, least)
        {
            return self.use_slot(spot, leaf, index);
        }
        let built = self.build(spot, low, high);
        if built.is_err()
            && let Some(leaf) = spot.leaf
            && let Some(index) = self.slot_for(spot, leaf, high, 1)
        {
            // A leaf may hold less than it should: to take a value out of several needs no memory.
            self.take_back();
            return self.use_slot(spot, leaf, index);
        }
        built
    }

    #[inline(always)]
    fn use_slot(&mut self, spot: &Spot<'_, T>, leaf: &Node<T>, index: usize) -> Result<(), NoMemory> {
        if let Some(value) = leaf.own_what(index) {
            self.replaced.push(value.cast())?;
        }
        let address = if spot.is_root { None } else { Some(spot.address) };
        self.store = Store::Value { leaf: NonNull::from(leaf), index, address };
        Ok(())
    }

    /// Forgets what a failed build has made and noted.
    fn take_back(&mut self) {
        self.free_fresh();
        self.stale.clear();
        self.replaced.take_each(|_| {});
    }

    /// The slot of the leaf whose store alone makes the change, if there is one: it names the only value of the tree
    /// that meets the range, or it is vacant and lies just where the new value belongs. At least `least` values are left.
    #[inline(always)]
    fn slot_for(&self, spot: &Spot<'_, T>, leaf: &Node<T>, high: u64, least: usize) -> Option<usize> {
        let (at, inserted) = (spot.at, self.inserted.len());
        let Some(first) = spot.first().filter(|first| first.low() < high) else {
            return (inserted == 1 && at > 0 && leaf.is_vacant(at - 1)).then(|| at - 1);
        };
        if first.high() < high {
            let after = (at + 1..FAN).find(|index| !leaf.is_vacant(*index));
            if after.map_or_else(|| next_low(&spot.path()), |index| leaf.low(index)) < high {
                return None;
            }
        }
        match inserted {
            0 if leaf.count() > least => Some(at),
            1 => Some(at),
            2 if mutant::is(mutant::Mutant::TwoStores) && at > 0 && leaf.is_vacant(at - 1) => Some(at),
            _ => None,
        }
    }

    /// Makes the store. From here on readers find the new version.
    #[inline(always)]
    pub(super) fn store(&mut self, root: &AtomicPtr<Node<T>>, writer: &(impl Writer + ?Sized)) {
        match &self.store {
            Store::Nothing => {}
            &Store::Value { leaf, index, address } => {
                // SAFETY: a leaf of the version that this writer edits.
                let leaf = unsafe { leaf.as_ref() };
                if mutant::is(mutant::Mutant::TwoStores) && self.inserted.len() > 1 {
                    return self.store_two(leaf, index, writer);
                }
                // SAFETY: the edit owns its values until they are in the tree.
                let slot = self.inserted.first().map(|value| unsafe { Slot::of(*value) });
                if leaf.put(index, slot, writer)
                    && let Some(address) = address
                {
                    // The hints above the leaf are what they were.
                    refresh(&path_to(own_pointer(root), address));
                }
            }
            Store::Node(node, path) => match path.split_last() {
                Some((step, above)) => {
                    // SAFETY: the node is fresh, and only the root's place may be left empty.
                    let slot = unsafe { node.as_ref() }.and_then(summary);
                    debug_assert!(slot.is_some(), "an empty node below the root");
                    // SAFETY: a step to a node of the version that this writer edits.
                    if unsafe { step.node() }.put(step.index, slot, writer) {
                        refresh(above);
                    }
                }
                // Release pairs with the Acquire in `Tree::root`.
                None => root.store(*node, mutant::weaken(mutant::Mutant::RelaxedPublish, Ordering::Release)),
            },
        }
    }

    /// What a seeded bug makes of a split: two stores, and a hole between them.
    fn store_two(&self, leaf: &Node<T>, index: usize, writer: &(impl Writer + ?Sized)) {
        for (value, index) in self.inserted.iter().rev().zip([index, index - 1]) {
            // SAFETY: the edit owns its values until they are in the tree.
            leaf.put(index, Some(unsafe { Slot::of(*value) }), writer);
        }
    }

    /// The values that the edit puts in, before it is published.
    pub(crate) fn inserted<'r>(&'r self, _writer: &'r (impl Writer + ?Sized)) -> impl Iterator<Item = &'r T> {
        // SAFETY: each stays with the edit, or in the tree of which we are the writer.
        self.inserted.iter().map(|value| unsafe { value.as_ref() })
    }

    /// The store is made: the tree owns what is new. Hands the nodes that it does not name any more to `retire`.
    #[inline]
    pub(super) fn publish(&mut self, retire: impl FnMut(NonNull<Node<T>>)) {
        self.inserted.clear();
        if !self.stale.is_empty() || !self.fresh.is_empty() {
            self.fresh.clear();
            mem::take(&mut self.stale).into_iter().for_each(retire);
        }
    }

    /// The values that a published edit replaced.
    pub(crate) fn replaced<'r>(&'r self, _writer: &'r (impl Reader + ?Sized)) -> impl Iterator<Item = &'r T> {
        // SAFETY: until `retire_replaced`, which wants the edit for itself, the edit keeps the values that left the tree.
        self.replaced.iter().map(|value| unsafe { value.as_ref() })
    }

    /// Gives the replaced values up, to be freed when no reader can hold them any more. After publication.
    #[inline(always)]
    pub(crate) fn retire_replaced(&mut self, mut retire: impl FnMut(Garbage))
    where
        T: Send + 'static,
    {
        self.replaced.take_each(|value| {
            // SAFETY: the value came from a Box (`leak`), left its tree, and this is the only copy.
            retire(unsafe { Garbage::new(value) });
        });
    }

    /// Nodes that the prepared edit made: none, if it changes one slot of a leaf.
    #[cfg(test)]
    pub(super) fn nodes_made(&self) -> usize {
        self.fresh.len()
    }
}

/// Copies of nodes, from the lowest that holds the whole change upwards, until one takes the place of one.
impl<T: Ranged> Edit<T> {
    #[cold]
    fn build(&mut self, spot: &Spot<'_, T>, low: u64, high: u64) -> Result<(), NoMemory> {
        // SAFETY: the edit owns its values until they are in the tree.
        let inserted: ArrayVec<Slot<T>, MOST_INSERTED> =
            self.inserted.iter().map(|value| unsafe { Slot::of(*value) }).collect();
        let mut made: Wide<T> = ArrayVec::new();
        let mut path = spot.path();
        let (mut depth, height) = (path.len(), path.len());
        while next_low(&path[..depth]) < high {
            depth -= 1; // ends: behind the root there is nothing
        }
        match path.get(depth).map_or(spot.leaf.map(NonNull::from), |step| Some(step.node)) {
            Some(node) => self.edit_node(node, low, high, &inserted, &mut made)?,
            None => self.push_nodes(true, &inserted, &mut made)?,
        }
        while depth > 0 && !stands_alone(&made) {
            depth -= 1;
            let step = path[depth];
            let mut above: Wide<T> = ArrayVec::new();
            self.replace_child(step, &made, &mut above)?;
            made = above;
        }
        if depth == 0 {
            return self.build_root(&made, height);
        }
        path.truncate(depth);
        self.store = Store::Node(made[0].what.cast().as_ptr(), path);
        Ok(())
    }

    /// Makes the root of what takes the old one's place; the path to a leaf has at least `height` steps.
    fn build_root(&mut self, made: &[Slot<T>], height: usize) -> Result<(), NoMemory> {
        let mut root: *mut Node<T> = match made {
            [] => ptr::null_mut(), // an empty tree
            [only] => only.what.cast().as_ptr(),
            _ if height >= super::spot::DEPTH => return Err(NoMemory),
            several => self.make(false, several)?.what.cast().as_ptr(),
        };
        // A root with one child is no root.
        // SAFETY: the node is fresh, or of the version that this writer edits.
        while let Some(node) = unsafe { root.as_ref() }
            && !node.is_leaf
            && node.first() == FAN - 1
            && let Some(child) = node.slot(FAN - 1)
        {
            self.discard(NonNull::from(node))?;
            root = child.what.cast().as_ptr();
        }
        self.store = Store::Node(root, Path::new());
        Ok(())
    }

    /// Makes a node of `slots` (at least one, at most [`FAN`]) and the slot that names it.
    fn make(&mut self, is_leaf: bool, slots: &[Slot<T>]) -> Result<Slot<T>, NoMemory> {
        self.fresh.try_reserve(1).map_err(|_| NoMemory)?;
        let node = make_node(is_leaf, slots)?;
        self.fresh.push(node);
        // SAFETY: just made.
        summary(unsafe { node.as_ref() }).ok_or(NoMemory)
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

    /// Makes as many nodes as `slots` need, equally full.
    fn push_nodes(&mut self, is_leaf: bool, slots: &[Slot<T>], out: &mut Wide<T>) -> Result<(), NoMemory> {
        let nodes = slots.len().div_ceil(FAN).max(1);
        for part in slots.chunks(slots.len().div_ceil(nodes).max(1)) {
            let slot = self.make(is_leaf, part)?;
            out.push(slot);
        }
        Ok(())
    }

    /// Builds what takes the place of `node`: no, one or two nodes, appended to `out`. At most as deep as the tree.
    fn edit_node(
        &mut self,
        node: NonNull<Node<T>>,
        low: u64,
        high: u64,
        inserted: &[Slot<T>],
        out: &mut Wide<T>,
    ) -> Result<(), NoMemory> {
        self.discard(node)?;
        // SAFETY: the node belongs to the version that this writer edits; `discard` only noted it.
        let node = unsafe { node.as_ref() };
        if !node.is_leaf {
            let next = self.edit_children(node, low, high, inserted)?;
            return self.push_nodes(false, &next, out);
        }
        let mut next: Wide<T> = node.slots().take_while(|slot| slot.high <= low).collect();
        next.extend(inserted.iter().copied());
        for slot in node.slots().filter(|slot| slot.high > low) {
            if slot.low >= high {
                next.push(slot);
                continue;
            }
            self.replaced.push(slot.what.cast())?;
        }
        self.push_nodes(true, &next, out)
    }

    /// Edits the children that meet the range (or the one that the insertion belongs to) and keeps the others.
    fn edit_children(
        &mut self,
        node: &Node<T>,
        low: u64,
        high: u64,
        inserted: &[Slot<T>],
    ) -> Result<Wide<T>, NoMemory> {
        let mut out: Wide<T> = ArrayVec::new();
        let mut inserted = Some(inserted);
        let mut after_edited = false;
        for child in node.slots() {
            // The first child that ends behind `low` exists: the range meets several children, or the caller had gone on.
            if child.high <= low || child.low >= high && inserted.is_none() {
                if after_edited {
                    self.push_merging(child, &mut out)?
                } else {
                    out.push(child)
                }
                after_edited = false;
                continue;
            }
            let mut made: Wide<T> = ArrayVec::new();
            self.edit_node(child.what.cast(), low, high, inserted.take().unwrap_or(&[]), &mut made)?;
            for child in made {
                self.push_merging(child, &mut out)?;
            }
            after_edited = true;
        }
        debug_assert!(inserted.is_none(), "the insertion found no child");
        Ok(out)
    }

    /// Builds what takes the place of the step's node, whose child is replaced by what was made.
    fn replace_child(&mut self, step: Step<T>, made: &[Slot<T>], out: &mut Wide<T>) -> Result<(), NoMemory> {
        self.discard(step.node)?;
        // SAFETY: the node belongs to the version that this writer edits; `discard` only noted it.
        let node = unsafe { step.node() };
        let mut next: Wide<T> = (node.first()..step.index).filter_map(|index| node.slot(index)).collect();
        for child in made {
            self.push_merging(*child, &mut next)?;
        }
        let mut rest = (step.index + 1..FAN).filter_map(|index| node.slot(index));
        if let Some(child) = rest.next() {
            self.push_merging(child, &mut next)?;
        }
        next.extend(rest);
        self.push_nodes(false, &next, out)
    }

    /// Appends a child, merged with the one before if both fit well into one node.
    fn push_merging(&mut self, child: Slot<T>, out: &mut Wide<T>) -> Result<(), NoMemory> {
        let Some(last) = out.last().copied() else {
            out.push(child);
            return Ok(());
        };
        // SAFETY: a child of a node that is no leaf, of the version that this writer edits or fresh.
        let left = unsafe { last.node() };
        // SAFETY: as above.
        let right = unsafe { child.node() };
        if left.count() + right.count() > FULL {
            out.push(child);
            return Ok(());
        }
        debug_assert_eq!(left.is_leaf, right.is_leaf, "siblings are of one level");
        let both: Wide<T> = left.slots().chain(right.slots()).collect();
        let merged = self.make(left.is_leaf, &both)?;
        self.discard(last.what.cast())?;
        self.discard(child.what.cast())?;
        out.pop();
        out.push(merged);
        Ok(())
    }
}

/// Corrects the summaries on a path, from its end to the root.
pub(super) fn refresh<T: Ranged>(path: &[Step<T>]) {
    for step in path.iter().rev() {
        // SAFETY: a step to a node of the version that this writer edits.
        let node = unsafe { step.node() };
        // SAFETY: not a leaf's, so it names a node, and the writer keeps what the tree names.
        let child = node.own_what(step.index).map(|child| unsafe { child.cast::<Node<T>>().as_ref() });
        let changed = child.and_then(summary).is_some_and(|slot| node.renote(step.index, &slot));
        if !changed {
            return;
        }
    }
}

impl<T> Edit<T> {
    /// What was not published is taken back: nothing has happened.
    #[cold]
    fn give_up(&mut self) {
        self.free_fresh();
        for value in self.inserted.drain(..) {
            // SAFETY: the value came from a Box (`leak`) and was never published.
            drop(unsafe { Box::from_raw(value.as_ptr()) });
        }
    }
}

impl<T> Edit<T> {
    fn free_fresh(&mut self) {
        for node in self.fresh.drain(..) {
            // SAFETY: the node came from a Box (`make`) and was never published.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
        }
    }
}

impl<T> Drop for Edit<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.fresh.is_empty() || !self.inserted.is_empty() {
            self.give_up();
        }
    }
}

/// Can what was made take the place of one node, without a look at its neighbours?
fn stands_alone<T>(made: &[Slot<T>]) -> bool {
    // SAFETY: the node was just made.
    matches!(made, [only] if unsafe { only.node() }.count() >= LEAST)
}

fn make_node<T>(is_leaf: bool, slots: &[Slot<T>]) -> Result<NonNull<Node<T>>, NoMemory> {
    Ok(NonNull::from(Box::leak(try_box(Node::new(is_leaf, slots)).map_err(|_| NoMemory)?)))
}

/// Builds a whole tree from ascending values. They stay the caller's.
pub(super) fn fill<T: Ranged>(values: &[NonNull<T>]) -> Result<*mut Node<T>, NoMemory> {
    let mut edit = Edit::new(); // keeps the nodes until all are made
    let mut level: Vec<Slot<T>> = Vec::new();
    level.try_reserve(values.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
    for part in values.chunks(FULL) {
        // SAFETY: the caller's.
        let slots: ArrayVec<Slot<T>, FULL> = part.iter().map(|value| unsafe { Slot::of(*value) }).collect();
        level.push(edit.make(true, &slots)?);
    }
    // Ends: a node holds several slots.
    while level.len() > 1 {
        let mut above: Vec<Slot<T>> = Vec::new();
        above.try_reserve(level.len().div_ceil(FULL)).map_err(|_| NoMemory)?;
        for part in level.chunks(FULL) {
            above.push(edit.make(false, part)?);
        }
        level = above;
    }
    edit.fresh.clear(); // the caller's tree owns them now
    Ok(level.first().map_or(ptr::null_mut(), |slot| slot.what.cast().as_ptr()))
}
