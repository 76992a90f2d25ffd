//! The walk against entries written by hand.

use super::*;
use crate::arena::Populate;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ALL: u64 = PRESENT | WRITE | USER;

/// An address with the indices 1, 2, 3, 4 from the root down.
const AT: VirtAddr = VirtAddr::new(1 << 39 | 2 << 30 | 3 << 21 | 4 << 12);

/// Tables in the frames 0 to 3, root first; the page in frame 4. `bits` are those of the entries, root first.
struct Tables(Arena);

impl Tables {
    fn new(bits: [u64; 4]) -> Self {
        let arena = Arena::new(8, Populate::Lazily).expect("an arena");
        for (depth, bits) in bits.into_iter().enumerate() {
            let frame = FrameId::new(depth as u64);
            arena.table(frame)[depth + 1].store((depth as u64 + 1) << 12 | bits, Ordering::Relaxed);
        }
        Self(arena)
    }

    fn walk(&self, access: Access) -> Result<Translation, PageFault> {
        walk(&self.0, root(FrameId::new(0)), AT, access, &mut Nobody)
    }

    fn entry(&self, depth: usize) -> u64 {
        self.0.table(FrameId::new(depth as u64))[depth + 1].load(Ordering::Relaxed)
    }
}

struct Nobody;
impl Steps for Nobody {}

#[test]
fn rights_are_those_of_all_levels_together() {
    for level in 0..4 {
        let mut bits = [ALL; 4];
        bits[level] = ALL & !WRITE;
        assert_eq!(Tables::new(bits).walk(Access::Write), Err(PageFault::Protection), "W of level {level}");
        assert!(Tables::new(bits).walk(Access::Read).is_ok_and(|found| !found.write));
        bits[level] = ALL | NO_EXECUTE;
        assert_eq!(Tables::new(bits).walk(Access::Execute), Err(PageFault::Protection), "NX of level {level}");
        assert!(Tables::new(bits).walk(Access::Write).is_ok_and(|found| !found.execute));
        bits[level] = ALL & !USER;
        assert_eq!(Tables::new(bits).walk(Access::Read), Err(PageFault::NotPresent), "U of level {level}");
        bits[level] = ALL & !PRESENT;
        assert_eq!(Tables::new(bits).walk(Access::Read), Err(PageFault::NotPresent), "P of level {level}");
    }
    let found = Tables::new([ALL; 4]).walk(Access::Execute).expect("all rights");
    assert_eq!((found.frame, found.write, found.execute), (FrameId::new(4), true, true));
}

#[test]
fn accessed_is_set_on_the_way_and_dirty_by_stores() {
    let tables = Tables::new([ALL; 4]);
    assert!(!tables.walk(Access::Read).expect("mapped").dirty);
    (0..4).for_each(|depth| assert_eq!(tables.entry(depth) & (ACCESSED | DIRTY), ACCESSED, "level {depth}"));
    assert!(tables.walk(Access::Write).expect("mapped").dirty);
    (0..3).for_each(|depth| assert_eq!(tables.entry(depth) & DIRTY, 0, "only the leaf gets dirty"));
    assert_eq!(tables.entry(3) & DIRTY, DIRTY);
}

#[test]
fn a_denied_store_leaves_no_mark_on_the_leaf() {
    let tables = Tables::new([ALL, ALL, ALL, PRESENT | USER]);
    assert_eq!(tables.walk(Access::Write), Err(PageFault::Protection));
    assert_eq!(tables.entry(3) & (ACCESSED | DIRTY), 0);
}

#[test]
fn corrupt_tables_are_told_from_missing_pages() {
    let large = Tables::new([ALL, ALL | LARGE, ALL, ALL]).walk(Access::Read);
    assert!(matches!(large, Err(PageFault::Malformed { level: 2, .. })), "{large:?}");
    let nowhere = Tables::new([ALL, ALL, ALL, ALL | 9 << 12]).walk(Access::Read);
    assert!(matches!(nowhere, Err(PageFault::Malformed { level: 0, .. })), "{nowhere:?}");
    let tables = Tables::new([ALL; 4]);
    for wild in [1 << 47, 1 << 63, u64::MAX] {
        let found = walk(&tables.0, root(FrameId::new(0)), VirtAddr::new(wild), Access::Read, &mut Nobody);
        assert_eq!(found, Err(PageFault::NotPresent), "{wild:#x}");
    }
}
