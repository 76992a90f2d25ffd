//! The tree against a sorted map: random edits, lookups and gap searches (VM-01).

use super::*;
use crate::sync::Sections;
use std::collections::BTreeMap;

struct Model(BTreeMap<u64, (u64, u64, u32)>); // start -> end, guard, tag

fn check(tree: &Tree<u32>, model: &Model, reader: &impl Reader) {
    let mut got = std::vec::Vec::new();
    tree.each(reader, &mut |item| {
        got.push((item.start, *item.value));
        true
    });
    let want: std::vec::Vec<_> = model.0.iter().map(|(start, (_, _, tag))| (*start, *tag)).collect();
    assert_eq!(got, want);
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

#[test]
fn random_edits_match_a_sorted_map() {
    let sections = Sections::new(1);
    for seed in 1..40u64 {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |bound: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % bound
        };
        let tree: Tree<u32> = Tree::new();
        let mut model = Model(BTreeMap::new());
        for tag in 0..600u32 {
            let reader = sections.enter(0, 1, || ());
            let space = if seed % 2 == 0 { 4000 } else { 300 };
            let (a, b) = (next(space), next(space));
            // Few wide removals, so that the tree grows.
            let (low, high) = if next(8) == 0 { (a.min(b), a.max(b) + 1) } else { (a, a + 1 + next(3)) };
            let guard = if next(10) == 0 { 2 } else { 0 };
            let insert = next(4) != 0;
            // Values that stick out of the range are cut, as range operations do.
            let mut cut = std::vec::Vec::new();
            let touched: std::vec::Vec<_> =
                model.0.iter().filter(|(s, (e, ..))| **s < high && *e > low).map(|(s, v)| (*s, *v)).collect();
            for (start, (end, guard, tag)) in &touched {
                model.0.remove(start);
                if *start < low {
                    cut.push((*start, low, *guard, *tag));
                    model.0.insert(*start, (low, *guard, *tag));
                }
                if *end > high {
                    cut.push((high, *end, 0, *tag));
                    model.0.insert(high, (*end, 0, *tag));
                }
            }
            if insert {
                model.0.insert(low, (high, guard, tag));
                cut.push((low, high, guard, tag));
            }
            cut.sort_unstable();
            // One in seven is prepared, dropped, and prepared again.
            for round in 0..=u32::from(tag % 7 == 3) {
                let mut edit = Edit::new(NewItems::new());
                for (start, end, guard, tag) in &cut {
                    edit.insert(*start, *end, *guard, *tag).unwrap();
                }
                tree.prepare(&mut edit, low, high, &reader).unwrap();
                if round == u32::from(tag % 7 == 3) {
                    tree.publish(&mut edit, drop);
                    edit.retire_replaced(drop);
                }
            }
            if tag % 16 == 0 {
                check(&tree, &model, &reader);
            }
            for _ in 0..4 {
                let address = next(space + 10);
                let want = model.0.iter().find(|(s, (e, ..))| **s <= address && address < *e).map(|(_, v)| v.2);
                assert_eq!(tree.find(address, &reader).copied(), want);
                let want = model.0.range(..address).next_back().map(|(s, _)| *s);
                assert_eq!(tree.previous(address, &reader).map(|item| item.start), want);
                let (low, len) = (next(space), 1 + next(20));
                let high = low + next(space);
                assert_eq!(tree.highest_gap(low, high, len, &reader), naive_gap(&model, low, high, len));
            }
        }
    }
}

#[test]
fn filling_gives_the_items_back() {
    let sections = Sections::new(1);
    for count in [0usize, 1, 11, 12, 13, 200, 5000] {
        let mut items = NewItems::new();
        (0..count as u64).for_each(|i| items.push(i * 10, i * 10 + 5, 0, i as u32).unwrap());
        let mut tree = Tree::new();
        tree.fill(items).unwrap();
        let reader = sections.enter(0, 1, || ());
        let mut seen = 0;
        tree.each(&reader, &mut |item| {
            assert_eq!(*item.value, seen);
            seen += 1;
            true
        });
        assert_eq!(seen as usize, count);
        assert_eq!(tree.is_empty(), count == 0);
    }
}

#[test]
#[should_panic(expected = "older version")]
fn of_two_edits_prepared_side_by_side_the_second_is_refused() {
    let sections = Sections::new(1);
    let reader = sections.enter(0, 1, || ());
    let tree = Tree::new();
    let mut edits = [1, 2].map(|start| {
        let mut edit = Edit::new(NewItems::new());
        edit.insert(start * 10, start * 10 + 5, 0, start).unwrap();
        tree.prepare(&mut edit, start * 10, start * 10 + 5, &reader).unwrap();
        edit
    });
    edits.iter_mut().for_each(|edit| tree.publish(edit, drop));
}
