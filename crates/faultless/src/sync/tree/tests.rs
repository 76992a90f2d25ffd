//! The tree against a sorted map: random edits, lookups and gap searches (VM-01).

use super::*;
use std::collections::BTreeMap;

/// Start, end, guard, tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Value(u64, u64, u64, u32);

impl Ranged for Value {
    fn low(&self) -> u64 {
        self.0
    }
    fn high(&self) -> u64 {
        self.1
    }
    fn guard(&self) -> u64 {
        self.2
    }
}

/// The only thread there is, or the only one that writes.
struct Me;
impl Reader for Me {}
impl Writer for Me {}

struct Model(BTreeMap<u64, (u64, u64, u32)>); // start -> end, guard, tag

fn check(tree: &Tree<Value>, model: &Model) {
    let mut got = std::vec::Vec::new();
    tree.each(&Me, &mut |value| {
        got.push((value.0, value.3));
        true
    });
    let want: std::vec::Vec<_> = model.0.iter().map(|(start, (_, _, tag))| (*start, *tag)).collect();
    assert_eq!(got, want);
    check_nodes(tree);
}

/// What the nodes say about what is below them is exact when nobody writes.
fn check_nodes(tree: &Tree<Value>) {
    let Some(root) = tree.root(&Me) else { return };
    assert!(check_node(root) > 0, "an empty root");
}

fn check_node(node: &Node<Value>) -> usize {
    let mut last = 0;
    for slot in node.slots() {
        assert!(slot.low >= last && slot.low < slot.high, "out of order");
        last = slot.high;
        let exact = if node.is_leaf {
            // SAFETY: a leaf's slot of a tree that nobody changes now.
            unsafe { Slot::of(slot.what.cast()) }
        } else {
            // SAFETY: not a leaf's.
            let child: &Node<Value> = unsafe { slot.node() };
            assert!(check_node(child) > 0, "an empty child");
            node::summary(child).unwrap()
        };
        assert_eq!((slot.low, slot.guarded, slot.high, slot.gap), (exact.low, exact.guarded, exact.high, exact.gap));
    }
    node.slots().count()
}

fn naive_gap(model: &Model, low: u64, high: u64, len: u64) -> Option<u64> {
    let mut ceiling = high;
    for (start, (end, guard, _)) in model.0.iter().rev() {
        if ceiling >= len && ceiling - len >= *end && ceiling - len >= low {
            return Some(ceiling - len);
        }
        ceiling = ceiling.min(start.saturating_sub(*guard));
    }
    (ceiling >= low && ceiling - low >= len).then(|| ceiling - len)
}

/// One random change of tree and model.
fn random_edit(tree: &Tree<Value>, model: &mut Model, space: u64, tag: u32, next: &mut impl FnMut(u64) -> u64) {
    let (a, b) = (next(space), next(space));
    // Few wide removals, so that the tree grows.
    let (low, high) = if next(8) == 0 { (a.min(b), a.max(b) + 1) } else { (a, a + 1 + next(3)) };
    let guard = if next(10) == 0 { 2 } else { 0 };
    let mut cut = cut_out(model, low, high);
    if next(4) != 0 {
        model.0.insert(low, (high, guard, tag));
        cut.push(Value(low, high, guard, tag));
    }
    cut.sort_unstable();
    if next(2) == 0 && put_one(tree, &cut, low, high) {
        return;
    }
    // The place is sometimes another one: that of a neighbour with which the caller would merge.
    let near = if next(3) == 0 { high } else { low };
    // One in seven is prepared, dropped, and prepared again.
    let rounds = u32::from(tag % 7 == 3);
    for round in 0..=rounds {
        let mut edit = Edit::new();
        cut.iter().for_each(|value| edit.insert(*value).unwrap());
        edit.prepare(&tree.spot(near, &Me), low, high).unwrap();
        if round == rounds {
            tree.publish(&mut edit, &Me, drop);
            edit.retire_replaced(drop);
        }
    }
}

/// Puts `values` (what was in the range and sticks out, and what comes) in the place of what meets `low..high`, if one slot
/// can tell.
fn put_one(tree: &Tree<Value>, values: &[Value], low: u64, high: u64) -> bool {
    let spot = tree.spot(low, &Me);
    let first = spot.first().filter(|first| first.low() < high);
    let slot = match (values, first) {
        ([], Some(first)) if first.high() >= high && spot.may_remove() => Some(spot.slot()),
        ([_], Some(first)) if first.high() >= high => Some(spot.slot()),
        ([_], None) => spot.vacancy(),
        _ => None,
    };
    let Some(slot) = slot else { return false };
    let garbage = spot.put(slot, values.first().map(|value| std::boxed::Box::new(*value)));
    assert_eq!(garbage.is_some(), first.is_some());
    true
}

/// Takes `low..high` out of the model; returns what sticks out, to be put back, as range operations do.
fn cut_out(model: &mut Model, low: u64, high: u64) -> std::vec::Vec<Value> {
    let touched: std::vec::Vec<_> =
        model.0.iter().filter(|(start, (end, ..))| **start < high && *end > low).map(|(s, v)| (*s, *v)).collect();
    let mut cut = std::vec::Vec::new();
    for (start, (end, guard, tag)) in touched {
        model.0.remove(&start);
        if start < low {
            cut.push(Value(start, low, guard, tag));
        }
        if end > high {
            cut.push(Value(high, end, 0, tag));
        }
    }
    model.0.extend(cut.iter().map(|value| (value.0, (value.1, value.2, value.3))));
    cut
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move |bound| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % bound
    }
}

#[test]
fn random_edits_match_a_sorted_map() {
    for seed in 1..40u64 {
        let mut next = random(seed);
        let tree: Tree<Value> = Tree::new();
        let mut model = Model(BTreeMap::new());
        for tag in 0..600u32 {
            let space = if seed % 2 == 0 { 4000 } else { 300 };
            random_edit(&tree, &mut model, space, tag, &mut next);
            if tag % 16 == 0 {
                check(&tree, &model);
            }
            for _ in 0..4 {
                check_lookups(&tree, &model, next(space + 10));
                let (low, len) = (next(space), 1 + next(20));
                let high = low + next(space);
                assert_eq!(tree.highest_gap(low, high, len, &Me), naive_gap(&model, low, high, len));
            }
        }
    }
}

fn check_lookups(tree: &Tree<Value>, model: &Model, address: u64) {
    let covers = |(start, (end, ..)): &(&u64, &(u64, u64, u32))| **start <= address && address < *end;
    let tag = |value: &Value| value.3;
    assert_eq!(tree.find(address, &Me).map(tag), model.0.iter().find(covers).map(|(_, v)| v.2));
    let below = model.0.range(..address).next_back().map(|(_, v)| v.2);
    let above = model.0.values().find(|v| v.0 > address).map(|v| v.2);
    let beyond = model.0.values().find(|v| v.0 > address + 7).map(|v| v.2);
    assert_eq!(tree.previous(address, &Me).map(tag), below);
    assert_eq!(tree.next(address, &Me).map(tag), above);
    let spot = tree.spot(address, &Me);
    assert_eq!((spot.below().map(tag), spot.first().map(tag)), (below, above));
    assert_eq!(spot.above(address + 7).map(tag), beyond);
    assert_eq!(spot.is_free(address + 1), model.0.iter().find(covers).is_none());
}

/// Replaces what meets the range of `values` (or `range`, if there are none) by them; returns how many nodes it took.
fn replace(tree: &Tree<Value>, range: (u64, u64), values: &[Value]) -> usize {
    let mut edit = Edit::new();
    values.iter().for_each(|value| edit.insert(*value).unwrap());
    edit.prepare(&tree.spot(range.0, &Me), range.0, range.1).unwrap();
    let (made, mut retired) = (edit.nodes_made(), 0);
    tree.publish(&mut edit, &Me, |node| {
        retired += 1;
        drop(node);
    });
    edit.retire_replaced(drop);
    check_nodes(tree);
    assert!(made > 0 || retired == 0, "a change in place retires no node");
    made
}

#[test]
fn a_change_in_place_makes_no_node() {
    let tree = Tree::new();
    let value = |at: u64, end: u64| Value(at, end, 0, at as u32);
    assert_eq!(replace(&tree, (100, 110), &[value(100, 110)]), 1, "the first leaf");
    for at in (1..=9).rev() {
        assert_eq!(replace(&tree, (at * 10, at * 10 + 5), &[value(at * 10, at * 10 + 5)]), 0, "below all others");
    }
    assert_eq!(replace(&tree, (50, 55), &[Value(50, 55, 0, 7)]), 0, "other attributes");
    assert_eq!(replace(&tree, (50, 58), &[value(50, 58)]), 0, "grown");
    assert_eq!(replace(&tree, (48, 58), &[value(48, 58)]), 0, "grown downwards");
    assert_eq!(replace(&tree, (48, 52), &[value(52, 58)]), 0, "trimmed");
    assert_eq!(replace(&tree, (52, 58), &[]), 0, "removed");
    assert_eq!(replace(&tree, (47, 59), &[value(47, 59)]), 0, "inserted where one was removed");
    assert_eq!(replace(&tree, (50, 52), &[value(47, 50), value(52, 59)]), 1, "split");
    assert_eq!(replace(&tree, (20, 35), &[value(20, 35)]), 1, "two replaced by one");
}

#[test]
fn a_change_of_one_leaf_copies_only_that() {
    let mut tree = Tree::new();
    let mut items = NewItems::new();
    (0..5000u64).for_each(|i| items.push(Value(i * 10, i * 10 + 5, 0, i as u32)).unwrap());
    tree.fill(items).unwrap();
    assert_eq!(replace(&tree, (25_000, 25_005), &[Value(25_000, 25_002, 0, 1), Value(25_003, 25_005, 0, 2)]), 1);
    assert_eq!(replace(&tree, (25_000, 25_005), &[Value(25_000, 25_005, 0, 3)]), 1);
    assert_eq!(replace(&tree, (25_000, 25_005), &[Value(25_000, 25_001, 0, 3)]), 0);
}

/// Readers that look while the writer changes: what is mapped all the time is found all the time, and what is found
/// covers the address.
#[test]
fn readers_find_what_is_always_mapped() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let tree: Tree<Value> = Tree::new();
    let done = AtomicBool::new(false);
    let mut limbo = std::vec::Vec::new();
    std::thread::scope(|scope| {
        // Every tenth page is mapped once and then only replaced, by itself or by more.
        for page in (0..400).step_by(10) {
            replace(&tree, (page, page + 1), &[Value(page, page + 1, 0, 0)]);
        }
        for reader in 0..2 {
            let (tree, done, mut next) = (&tree, &done, random(reader + 7));
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    let page = next(40) * 10;
                    let found = tree.find(page, &Me).expect("an address that is always mapped");
                    assert!(found.0 <= page && page < found.1, "a value of another place");
                    let found = tree.next(page.saturating_sub(3), &Me).expect("a value above");
                    assert!(found.1 > page.saturating_sub(3) && found.0 <= page, "the next was skipped");
                }
            });
        }
        let (mut model, mut next) = (Model(BTreeMap::new()), random(99));
        (0..400).step_by(10).for_each(|page| {
            model.0.insert(page, (page + 1, 0, 0));
        });
        for tag in 1..4000 {
            edit_around(&tree, &mut model, tag, &mut next, &mut limbo);
        }
        done.store(true, Relaxed);
    });
    check_nodes(&tree);
}

/// Changes something between two pages that stay mapped, or replaces from one to the next, or one by itself and some.
fn edit_around(
    tree: &Tree<Value>,
    model: &mut Model,
    tag: u32,
    next: &mut impl FnMut(u64) -> u64,
    limbo: &mut std::vec::Vec<Garbage>,
) {
    let tenth = next(39) * 10;
    let (a, b) = (tenth + 1 + next(9), tenth + 1 + next(9));
    let (low, high) = (a.min(b), a.max(b) + 1);
    let (low, high, maps) = match next(5) {
        0 => (tenth, tenth + 1 + next(10), true),
        1 => (low.min(tenth + 9), tenth + 11, true),
        2 => (low, high.min(tenth + 10), true),
        _ => (low, high.min(tenth + 10), false),
    };
    let mut cut = cut_out(model, low, high);
    if maps {
        model.0.insert(low, (high, 0, tag));
        cut.push(Value(low, high, 0, tag));
    }
    cut.sort_unstable();
    let mut edit = Edit::new();
    cut.iter().for_each(|value| edit.insert(*value).unwrap());
    edit.prepare(&tree.spot(low, &Me), low, high).unwrap();
    tree.publish(&mut edit, &Me, |node| limbo.push(node));
    edit.retire_replaced(|value| limbo.push(value));
}

#[test]
fn filling_gives_the_items_back() {
    for count in [0usize, 1, 11, 12, 13, 200, 5000] {
        let mut items = NewItems::new();
        (0..count as u64).for_each(|i| items.push(Value(i * 10, i * 10 + 5, 0, i as u32)).unwrap());
        let mut tree = Tree::new();
        tree.fill(items).unwrap();
        let mut seen = 0;
        tree.each(&Me, &mut |value| {
            assert_eq!(value.3, seen);
            seen += 1;
            true
        });
        assert_eq!(seen as usize, count);
        assert_eq!(tree.is_empty(), count == 0);
        check_nodes(&tree);
    }
}

#[test]
#[should_panic(expected = "older version")]
fn of_two_edits_prepared_side_by_side_the_second_is_refused() {
    let tree = Tree::new();
    let mut edits = [1, 2].map(|start| {
        let mut edit = Edit::new();
        edit.insert(Value(start * 10, start * 10 + 5, 0, 0)).unwrap();
        edit.prepare(&tree.spot(start * 10, &Me), start * 10, start * 10 + 5).unwrap();
        edit
    });
    edits.iter_mut().for_each(|edit| tree.publish(edit, &Me, drop));
}
