//! Hits, misses, rights and ages.

use super::*;
use faultless::PageRange;

fn page(number: u64) -> VirtAddr {
    VirtAddr::new(number * PAGE_SIZE)
}

fn to(frame: u64, write: bool, dirty: bool) -> Translation {
    Translation { frame: FrameId::new(frame), write, execute: false, dirty }
}

#[test]
fn a_store_needs_write_permission_and_a_dirty_bit_in_memory() {
    let tlb = Tlb::new();
    assert_eq!(tlb.look_up(page(0), Access::Read), None, "fresh lines match nothing, not even page 0");
    for (found, hits) in [(to(7, true, true), true), (to(7, true, false), false), (to(7, false, true), false)] {
        tlb.fill(page(5), found);
        assert_eq!(tlb.look_up(page(5), Access::Read), Some(FrameId::new(7)));
        assert_eq!(tlb.look_up(page(5), Access::Write).is_some(), hits, "{found:?}");
        assert_eq!(tlb.look_up(page(5), Access::Execute), None);
    }
}

#[test]
fn pages_are_forgotten_one_by_one_or_all() {
    let tlb = Tlb::new();
    let far = (1 << 35) - 1; // the last page below 2^47
    for number in [1, 2, far] {
        tlb.fill(page(number), to(number, true, true));
        tlb.fill_upper(page(number), Node { table: FrameId::new(9), level: 0, write: true, execute: false });
    }
    tlb.forget(&Scope::Pages(PageRange::page(page(2))));
    assert_eq!(tlb.look_up(page(1), Access::Write), Some(FrameId::new(1)));
    assert_eq!(tlb.look_up(page(2), Access::Read), None);
    assert_eq!(tlb.look_up(page(far), Access::Read), Some(FrameId::new(far)));
    assert_eq!(tlb.upper(page(1)), None, "any flush drops the tables");
    tlb.forget(&Scope::All);
    assert!([1, far].iter().all(|number| tlb.look_up(page(*number), Access::Read).is_none()));
}

#[test]
fn a_page_that_shares_a_line_takes_it_over() {
    let tlb = Tlb::new();
    let other = 1 + LINES as u64;
    tlb.fill(page(1), to(1, true, true));
    tlb.fill(page(other), to(2, true, true));
    assert_eq!(tlb.look_up(page(1), Access::Read), None);
    tlb.forget(&Scope::Pages(PageRange::page(page(1))));
    assert_eq!(tlb.look_up(page(other), Access::Read), Some(FrameId::new(2)), "another page's flush leaves it alone");
}

#[test]
fn ages_come_round_without_reviving_anything() {
    let tlb = Tlb::new();
    tlb.fill(page(3), to(3, true, true));
    tlb.age.store(LAST_AGE, Relaxed);
    tlb.fill(page(4), to(4, true, true));
    tlb.forget(&Scope::All);
    assert_eq!(tlb.age.load(Relaxed), 1);
    assert_eq!(tlb.look_up(page(3), Access::Read), None, "its age is current again, but the line was cleared");
    assert_eq!(tlb.look_up(page(4), Access::Read), None);
}
