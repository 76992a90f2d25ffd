//! A radix tree from index to frame, read and filled without a lock: the page cache of one object. Protocol P9.
//!
//! Called by `object` only. Nodes are added by one compare-exchange each and live as long as the tree, so readers need
//! no section. A slot is the frame number plus 1, or absent: 0 at first, later a stamp that it did not carry before.

use super::{AtomicPtr, AtomicU64, Ordering, mutant, try_box};
use crate::addr::FrameId;
use alloc::boxed::Box;
use core::ptr;

const BITS: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 6 };
const FAN: usize = 1 << BITS;

/// The tree; grows upwards as higher indices come.
pub(crate) struct Radix {
    root: AtomicPtr<Node>,
}

struct Node {
    /// Levels below this one: 0 for a node of pages.
    height: u32,
    slots: Slots,
}

enum Slots {
    Pages([AtomicU64; FAN]),
    Nodes([AtomicPtr<Node>; FAN]),
}

/// No heap for a node.
#[derive(Debug)]
pub(crate) struct NoNode;

/// Set in stamps. Frame numbers do not reach so far.
const STAMPED: u64 = 1 << 63;

/// The frame in a slot's value.
pub(crate) fn frame_in(value: u64) -> Option<FrameId> {
    if value & STAMPED != 0 {
        return None;
    }
    value.checked_sub(1).map(FrameId::new)
}

/// Set in stamps of pages that are zeroes, whatever stands behind the object.
const HOLE: u64 = 1 << 62;

/// Set in the values of slots that nobody may bring a page into yet: what was there is still mapped somewhere.
const CLOSED: u64 = 1 << 61;

/// Beside CLOSED: the slot was absent as a hole is.
const WAS_HOLE: u64 = 1 << 60;

/// Where a closed slot's value has the number of its closing, above the frame (as in [`slot_value`]; 0: none).
const NUMBER: u32 = 41;

/// The value that closing number `number` gives a slot of value `value`: it keeps what was there.
fn closed_value(number: u64, value: u64) -> u64 {
    let kept = frame_in(value).map_or(if is_hole(value) { WAS_HOLE } else { 0 }, slot_value);
    debug_assert!(kept & !WAS_HOLE < 1 << NUMBER, "frame numbers are of 40 bits");
    STAMPED | HOLE | CLOSED | closing(number) | kept
}

/// The bits of closing number `number`. They come round after 2^19 changes of one object, all during one call.
fn closing(number: u64) -> u64 {
    number << NUMBER & (WAS_HOLE - 1)
}

/// The frame that a closed slot keeps.
fn kept_frame(value: u64) -> Option<FrameId> {
    frame_in(value & ((1 << NUMBER) - 1))
}

/// What becomes of closed slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opened {
    /// They are holes, with this stamp.
    Hole(u64),
    /// They are as they were; this is the stamp of the absent ones.
    Back(u64),
}

impl Opened {
    /// The value after `closed`.
    fn value(self, closed: u64) -> u64 {
        match self {
            Self::Hole(stamp) => hole_value(stamp),
            Self::Back(stamp) => match kept_frame(closed) {
                Some(frame) => slot_value(frame),
                None if closed & WAS_HOLE != 0 => hole_value(stamp),
                None => absent_value(stamp),
            },
        }
    }
}

/// Is this the value of a slot whose page is being punched out?
pub(crate) fn is_closed(value: u64) -> bool {
    is_hole(value) && value & CLOSED != 0
}

/// The value of a slot that is absent again.
pub(crate) fn absent_value(stamp: u64) -> u64 {
    STAMPED | stamp & !HOLE
}

/// The value of a slot whose page was punched out.
pub(crate) fn hole_value(stamp: u64) -> u64 {
    STAMPED | HOLE | stamp
}

/// Is this the value of a slot whose page was punched out?
pub(crate) fn is_hole(value: u64) -> bool {
    value & (STAMPED | HOLE) == STAMPED | HOLE
}

/// The slot's value for a frame.
pub(crate) fn slot_value(frame: FrameId) -> u64 {
    frame.as_u64() + 1
}

impl Node {
    fn make(height: u32) -> Result<*mut Node, NoNode> {
        let slots = if height == 0 {
            Slots::Pages(core::array::from_fn(|_| AtomicU64::new(0)))
        } else {
            Slots::Nodes(core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())))
        };
        Ok(Box::into_raw(try_box(Node { height, slots }).map_err(|_| NoNode)?))
    }

    /// Does a tree with this root reach `index`?
    fn covers(&self, index: u64) -> bool {
        index.checked_shr(BITS * (self.height + 1)).unwrap_or(0) == 0
    }

    fn slot(&self, index: u64) -> usize {
        (index >> (BITS * self.height)) as usize & (FAN - 1)
    }
}

impl Radix {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self { root: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The slot of `index`, if the path to it exists.
    pub(crate) fn get(&self, index: u64) -> Option<&AtomicU64> {
        // Acquire pairs with the Release of whoever linked the node: it is initialised.
        let mut node = self.root.load(Ordering::Acquire);
        // SAFETY: nodes, once linked, live as long as the tree.
        if !unsafe { node.as_ref() }?.covers(index) {
            return None;
        }
        loop {
            // SAFETY: as above.
            let here = unsafe { node.as_ref() }?;
            match &here.slots {
                Slots::Pages(slots) => return Some(&slots[here.slot(index)]),
                Slots::Nodes(slots) => node = slots[here.slot(index)].load(Ordering::Acquire),
            }
        }
    }

    /// The slot of `index`, making the path to it.
    pub(crate) fn get_or_make(&self, index: u64) -> Result<&AtomicU64, NoNode> {
        self.grow(index)?;
        // Acquire pairs with the Release of whoever linked the node.
        let mut node = self.root.load(Ordering::Acquire);
        loop {
            // SAFETY: `grow` made the root and each round below makes the child; nodes live as long as the tree.
            let here = unsafe { &*node };
            match &here.slots {
                Slots::Pages(slots) => return Ok(&slots[here.slot(index)]),
                Slots::Nodes(slots) => {
                    let slot = &slots[here.slot(index)];
                    let child = slot.load(Ordering::Acquire);
                    node =
                        if child.is_null() { link(slot, ptr::null_mut(), Node::make(here.height - 1)?) } else { child };
                }
            }
        }
    }

    /// Adds roots until the tree reaches `index`.
    fn grow(&self, index: u64) -> Result<(), NoNode> {
        loop {
            // Acquire pairs with the Release of whoever linked the node.
            let root = self.root.load(Ordering::Acquire);
            // SAFETY: nodes, once linked, live as long as the tree.
            let height = match unsafe { root.as_ref() } {
                Some(node) if node.covers(index) => return Ok(()),
                Some(node) => node.height + 1,
                None => 0,
            };
            let above = Node::make(height)?;
            // SAFETY: the node was just made and nobody else knows it.
            if let Slots::Nodes(slots) = unsafe { &(*above).slots } {
                slots[0].store(root, Ordering::Relaxed);
            }
            link(&self.root, root, above);
        }
    }

    /// Gives the slots of `first..=last` the value `absent` and hands their frames (and the reference of each) to `take`.
    pub(crate) fn take(&self, first: u64, last: u64, absent: u64, mut take: impl FnMut(FrameId)) {
        visit(self.root.load(Ordering::Acquire), 0, (first, last), &mut |_, slot| {
            if mutant::is(mutant::Mutant::AbsentKeepsValue) && frame_in(slot.load(Ordering::Acquire)).is_none() {
                return true;
            }
            // AcqRel: whoever re-reads the slot afterwards sees that the page is gone.
            let old = slot.swap(absent, Ordering::AcqRel);
            if let Some(frame) = if is_closed(old) { kept_frame(old) } else { frame_in(old) } {
                take(frame);
            }
            true
        });
    }

    /// Closes the slots of `first..=last`: each keeps its frame, and the reference, until it is opened. Another closing's
    /// slots are waited for; as all go upwards, no two wait for each other.
    pub(crate) fn close(&self, first: u64, last: u64, number: u64, mut wait: impl FnMut()) {
        visit(self.root.load(Ordering::Acquire), 0, (first, last), &mut |_, slot| {
            let mut value = slot.load(Ordering::Acquire);
            // Ends: each round follows another CPU's change of the slot, or waits for one that is under way.
            loop {
                if mutant::is(mutant::Mutant::AbsentKeepsValue) && frame_in(value).is_none() {
                    return true;
                }
                if is_closed(value) {
                    wait();
                    value = slot.load(Ordering::Acquire);
                    continue;
                }
                // AcqRel: whoever re-reads the slot afterwards sees that the page is gone.
                let closed = closed_value(number, value);
                match slot.compare_exchange(value, closed, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return true,
                    Err(other) => value = other,
                }
            }
        });
    }

    /// Opens the slots of `first..=last` that closing `number` has closed; `take` gets the frames (and the reference of
    /// each) that do not come back.
    pub(crate) fn open(&self, first: u64, last: u64, number: u64, how: Opened, mut take: impl FnMut(FrameId)) {
        visit(self.root.load(Ordering::Acquire), 0, (first, last), &mut |_, slot| {
            let closed = slot.load(Ordering::Acquire);
            if !is_closed(closed) || closed & (WAS_HOLE - (1 << NUMBER)) != closing(number) {
                return true; // another closing's, or a truncation's
            }
            // Release: who finds the hole sees the old page unmapped everywhere.
            let done = slot.compare_exchange(closed, how.value(closed), Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if let (true, Opened::Hole(_), Some(frame)) = (done, how, kept_frame(closed)) {
                take(frame);
            }
            true
        });
    }

    /// Calls `seen` with the slots of `first..=last`, ascending, until it says that this is enough.
    pub(crate) fn find(&self, first: u64, last: u64, seen: &mut dyn FnMut(u64, &AtomicU64) -> bool) {
        visit(self.root.load(Ordering::Acquire), 0, (first, last), seen);
    }

    /// Calls `seen` with every page.
    pub(crate) fn each(&self, seen: &mut dyn FnMut(u64, FrameId)) {
        visit(self.root.load(Ordering::Acquire), 0, (0, u64::MAX), &mut |index, slot| {
            if let Some(frame) = frame_in(slot.load(Ordering::Acquire)) {
                seen(index, frame);
            }
            true
        });
    }
}

/// Links `node` where `expected` stands; if somebody else was first, frees it and returns the other's.
fn link(slot: &AtomicPtr<Node>, expected: *mut Node, node: *mut Node) -> *mut Node {
    // Release publishes the node; Acquire on failure for the other's.
    match slot.compare_exchange(expected, node, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => node,
        Err(other) => {
            // SAFETY: the node came from `Box::into_raw` in `make` and was not published.
            drop(unsafe { Box::from_raw(node) });
            other
        }
    }
}

/// Visits the page slots of the range (both ends included) below `node`, whose lowest index is `base`, until `seen` says
/// that this is enough; then false. At most 11 levels deep.
fn visit(node: *mut Node, base: u64, range: (u64, u64), seen: &mut dyn FnMut(u64, &AtomicU64) -> bool) -> bool {
    // SAFETY: nodes, once linked, live as long as the tree.
    let Some(here) = (unsafe { node.as_ref() }) else {
        return true;
    };
    let covered = 1u64.checked_shl(BITS * here.height).unwrap_or(u64::MAX);
    for number in 0..FAN {
        let Some(start) = covered.checked_mul(number as u64).and_then(|offset| base.checked_add(offset)) else {
            return true;
        };
        if start > range.1 {
            return true;
        }
        if start.saturating_add(covered - 1) < range.0 {
            continue;
        }
        let more = match &here.slots {
            Slots::Pages(slots) => seen(start, &slots[number]),
            Slots::Nodes(slots) => visit(slots[number].load(Ordering::Acquire), start, range, seen),
        };
        if !more {
            return false;
        }
    }
    true
}

fn free(node: *mut Node) {
    if node.is_null() {
        return;
    }
    // SAFETY: the tree is being dropped; each node came from `Box::into_raw` and is named once.
    let node = unsafe { Box::from_raw(node) };
    if let Slots::Nodes(slots) = &node.slots {
        slots.iter().for_each(|slot| free(slot.load(Ordering::Relaxed)));
    }
}

impl Drop for Radix {
    fn drop(&mut self) {
        free(self.root.load(Ordering::Relaxed));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn slots_are_distinct_and_found_again() {
        let tree = Radix::new();
        let indices = [0, 1, 63, 64, 4095, 4096, 1 << 20, (1 << 51) - 1, u64::MAX];
        for (n, index) in indices.iter().enumerate() {
            assert!(tree.get(*index).is_none_or(|slot| slot.load(Ordering::Relaxed) == 0));
            tree.get_or_make(*index).unwrap().store(n as u64 + 1, Ordering::Relaxed);
        }
        for (n, index) in indices.iter().enumerate() {
            assert_eq!(tree.get(*index).unwrap().load(Ordering::Relaxed), n as u64 + 1);
        }
        let mut seen = Vec::new();
        tree.each(&mut |index, frame| seen.push((index, frame.as_u64() as usize)));
        assert_eq!(seen, indices.iter().copied().zip(0..).collect::<Vec<_>>());
        let mut taken = Vec::new();
        tree.take(64, u64::MAX, absent_value(7), |frame| taken.push(frame.as_u64()));
        assert_eq!(taken, [3, 4, 5, 6, 7, 8]);
        assert!(frame_in(tree.get(64).unwrap().load(Ordering::Relaxed)).is_none());
        assert_eq!(tree.get(63).unwrap().load(Ordering::Relaxed), 3);
    }

    #[test]
    fn what_is_closed_comes_back_or_becomes_a_hole() {
        let tree = Radix::new();
        let value = |index| tree.get(index).unwrap().load(Ordering::Relaxed);
        let largest = FrameId::new((1 << 40) - 1);
        tree.get_or_make(0).unwrap().store(slot_value(largest), Ordering::Relaxed);
        tree.get_or_make(1).unwrap().store(hole_value(3), Ordering::Relaxed);
        for how in [Opened::Back(5), Opened::Hole(6)] {
            let mut taken = Vec::new();
            tree.close(0, 2, u64::MAX, || panic!("nobody else closes"));
            assert!((0..3).all(|index| is_closed(value(index)) && frame_in(value(index)).is_none()));
            tree.open(0, 2, 7, how, |_| panic!("another closing's"));
            tree.open(0, 2, u64::MAX, how, |frame| taken.push(frame));
            match how {
                Opened::Back(stamp) => {
                    assert_eq!(
                        (0..3).map(value).collect::<Vec<_>>(),
                        [1 << 40, hole_value(stamp), absent_value(stamp)]
                    );
                    assert_eq!(taken, []);
                }
                Opened::Hole(stamp) => {
                    assert!((0..3).all(|index| value(index) == hole_value(stamp)));
                    assert_eq!(taken, [largest]);
                }
            }
        }
        // A truncation takes what is closed.
        tree.get_or_make(0).unwrap().store(slot_value(largest), Ordering::Relaxed);
        tree.close(0, 0, 1, || panic!("nobody else closes"));
        let mut taken = Vec::new();
        tree.take(0, 0, absent_value(9), |frame| taken.push(frame));
        assert_eq!((taken, value(0)), (std::vec![largest], absent_value(9)));
    }
}
