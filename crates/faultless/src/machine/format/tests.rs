//! The codec as a partition: every value decodes, and what was encoded comes back (OT-01, F-04, F-13).

use super::*;
use core::mem::size_of;

type F = X86_64;

fn all_bits() -> impl Iterator<Item = PageBits> {
    (0..128u32).map(|n| PageBits {
        write: n & 1 != 0,
        execute: n & 2 != 0,
        exclusive: n & 4 != 0,
        pending: n & 8 != 0,
        special: n & 16 != 0,
        dirty: n & 32 != 0,
        marked: n & 64 != 0,
    })
}

fn frames() -> impl Iterator<Item = FrameId> {
    [0, 1, 0xfff, 0x1000, (1 << 39) - 1, 0x55_5555_5555, 0x2a_aaaa_aaaa].into_iter().map(FrameId::new)
}

#[test]
fn an_entry_is_one_native_atomic() {
    // F-04: no torn entries.
    assert_eq!(size_of::<crate::AtomicEntry>(), size_of::<Raw>());
}

#[test]
fn pages_round_trip() {
    for frame in frames() {
        for bits in all_bits() {
            for generation in [0, 1, 31] {
                let entry = F::page(frame, bits, generation);
                assert_eq!(F::leaf(entry), Leaf::Page(frame, bits));
                assert_eq!(F::generation(entry), generation);
                let none = F::page_to_none(entry, 7);
                assert_eq!(F::leaf(none), Leaf::None(frame, PageBits { write: false, ..bits }));
                assert_eq!(F::generation(none), 7);
                let back = F::none_to_page(none);
                assert_eq!(F::leaf(back), Leaf::Page(frame, PageBits { write: false, ..bits }));
                assert_eq!(F::generation(back), 7);
            }
        }
    }
}

#[test]
fn stamps_are_injective_and_stay_empty() {
    let stamps = [0, 1, 2, (1 << 47) - 1, 1 << 47, (1 << 53) - 1, 0xa_aaaa_aaaa_aaaa];
    for (i, a) in stamps.iter().enumerate() {
        for generation in 0..32 {
            let entry = F::empty(*a, generation);
            assert_eq!(F::leaf(entry), Leaf::Empty);
            assert_eq!(F::upper(F::empty(*a, 0)), Upper::Empty);
            assert_eq!(F::generation(entry), generation);
            for b in &stamps[..i] {
                assert_ne!(F::empty(*b, generation), entry);
            }
        }
    }
}

#[test]
fn offsets_round_trip() {
    // NL-01. Every offset that a file may have fits: pages of a file of 2^63 bytes have indexes of 51 bits.
    const { assert!(F::OFFSET_BITS >= 63 - 12) };
    for index in [0, 1, 0xfff, 1 << 46, (1 << 47) - 1, 1 << 47, (1 << 51) - 1, (1 << 53) - 1, 0xa_aaaa_aaaa_aaaa] {
        for generation in 0..32 {
            let entry = F::offset(index, generation);
            assert_eq!(F::leaf(entry), Leaf::Offset(index));
            assert_eq!(F::generation(entry), generation);
            assert_eq!(F::leaf(F::with_generation(entry, 7)), Leaf::Offset(index));
            assert!(!F::all_empty(entry) && !F::same_but_touched(entry, entry));
            assert_ne!(entry & ABOVE_MEMORY, 0);
        }
    }
}

#[test]
fn marks_and_losses_round_trip() {
    for generation in 0..32 {
        assert_eq!(F::leaf(F::lost(generation)), Leaf::Lost);
        assert_eq!(F::generation(F::lost(generation)), generation);
    }
    assert!(F::lost(0) & ABOVE_MEMORY != 0 && F::lost(0) & PRESENT == 0 && !F::all_empty(F::lost(0)));
    let bits = PageBits { write: true, exclusive: true, ..PageBits::default() };
    let page = F::page(FrameId::new(9), bits, 3);
    let marked = F::with_mark(page, true);
    let shown = PageBits { write: false, marked: true, ..bits };
    assert_eq!((F::leaf(marked), F::generation(marked)), (Leaf::Page(FrameId::new(9), shown), 3));
    // PROT_NONE and back keeps it, and a page made writable has none.
    let none = F::page_to_none(marked, 4);
    assert_eq!(F::leaf(F::none_to_page(none)), Leaf::Page(FrameId::new(9), shown));
    assert_eq!(F::leaf(F::with_mark(none, true)), F::leaf(none));
    assert_eq!(F::leaf(F::with_mark(F::with_mark(none, false), true)), F::leaf(none));
    assert!(matches!(F::leaf(F::made_writable(marked, true)), Leaf::Page(_, bits) if bits.write && !bits.marked));
    assert!(!F::is_marked_empty(marked) && !F::is_marked_empty(none) && !F::is_marked_empty(F::lost(0)));
    for stamp in [0, 1, (1 << 53) - 1] {
        let (plain, marked) = (F::empty(stamp, 3), F::with_mark(F::empty(stamp, 3), true));
        assert_eq!((F::leaf(marked), F::generation(marked)), (Leaf::Empty, 3));
        assert!(F::is_marked_empty(marked) && !F::is_marked_empty(plain) && F::all_empty(marked));
        assert_eq!((F::with_mark(marked, false), F::with_mark(marked, true)), (plain, marked));
        assert_eq!(F::upper(F::with_mark(F::empty(stamp, 0), true)), Upper::Empty);
    }
}

#[test]
fn non_present_entries_keep_their_address_bits_above_memory() {
    // OT-01 and L1TF: an affected CPU must not find cacheable memory there.
    for stamp in [1, 77, (1 << 53) - 1] {
        assert_ne!(F::empty(stamp, 3) & ABOVE_MEMORY, 0);
    }
    for frame in frames() {
        assert_ne!(F::page_to_none(F::page(frame, PageBits::default(), 0), 1) & ABOVE_MEMORY, 0);
    }
}

#[test]
fn the_mmu_sees_only_pages_as_present() {
    for entry in [
        F::empty(5, 5),
        F::offset(5, 5),
        F::poison(),
        F::frozen_empty(),
        F::page_to_none(F::page(FrameId::new(3), PageBits::default(), 1), 2),
    ] {
        assert_eq!(entry & PRESENT, 0);
    }
}

#[test]
fn every_value_decodes() {
    // F-13: the decoder is total; kinds that were never written are treated as POISON (look again), never as a page.
    let mut x: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..100_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        match F::leaf(x) {
            Leaf::Page(..) => assert_eq!(x & 1, 1),
            _ => assert_eq!(x & 1, 0),
        }
        let open = match F::upper(x) {
            Upper::Table { frame, shared, frozen: false } => Some((frame, shared)),
            _ => None,
        };
        assert_eq!(F::open_table(x), open);
    }
}

#[test]
fn tables_round_trip() {
    for frame in frames() {
        for (shared, frozen) in [(false, false), (true, false), (true, true)] {
            let entry = F::table(frame, shared, frozen);
            assert_eq!(F::upper(entry), Upper::Table { frame, shared, frozen });
            assert_eq!(entry & WRITE == 0, shared, "a shared table is write-protected by its parent entry");
        }
    }
}

#[test]
fn a_large_page_stands_for_its_table() {
    for frame in [0, 512, 0x55_5555_5400, (1 << 39) - 512].map(FrameId::new) {
        for bits in all_bits() {
            let entry = F::huge(frame, bits);
            for huge in [entry, F::page_to_none(entry, 0)] {
                assert_eq!(F::upper(huge), Upper::Huge);
                assert!(!F::all_empty(huge));
            }
            assert_eq!(F::leaf(entry), Leaf::Page(frame, bits));
            assert_eq!(F::none_to_page(F::page_to_none(entry, 0)) & LARGE, LARGE);
            for index in [0, 1, 255, 511] {
                let page = FrameId::new(frame.as_u64() + index as u64);
                let small = F::with_soft(F::page(page, bits, 0));
                assert_eq!(F::part_of_huge(entry, index), small);
                let none = F::page_to_none(small, 0);
                assert_eq!(F::part_of_huge(F::page_to_none(entry, 0), index), none);
            }
        }
    }
}

#[test]
fn losing_exclusivity_takes_the_write_permission_of_private_pages_only() {
    let private = F::page(FrameId::new(9), PageBits { write: true, exclusive: true, ..PageBits::default() }, 0);
    let shared = F::page(FrameId::new(9), PageBits { write: true, ..PageBits::default() }, 0);
    let Leaf::Page(_, bits) = F::leaf(F::without_exclusive(private)) else { panic!() };
    assert!(!bits.write && !bits.exclusive);
    assert_eq!(F::without_exclusive(shared), shared);
    let none = F::page_to_none(private, 0);
    assert!(
        matches!(F::leaf(F::without_exclusive(none)), Leaf::None(frame, bits) if frame == FrameId::new(9) && !bits.exclusive)
    );
}

#[test]
fn what_may_be_written_is_soft_dirty() {
    for bits in all_bits() {
        let page = F::page(FrameId::new(5), bits, 3);
        for entry in [page, F::made_writable(page, true), F::page_to_none(page, 3)] {
            let (Leaf::Page(_, now) | Leaf::None(_, now)) = F::leaf(entry) else { panic!() };
            assert!(F::is_soft(entry) || !now.write, "a store would not be seen: {now:?}");
            let cleared = F::without_soft(entry);
            let (Leaf::Page(frame, clear) | Leaf::None(frame, clear)) = F::leaf(cleared) else { panic!() };
            assert_eq!((frame, clear), (FrameId::new(5), PageBits { write: false, ..now }));
            assert!(!F::is_soft(cleared) && F::is_soft(F::with_soft(cleared)));
            assert_eq!(F::without_soft(F::with_soft(cleared)), cleared);
            assert_eq!((F::generation(cleared), F::is_accessed(F::unused(cleared))), (3, false));
        }
    }
}

#[test]
fn touching_changes_only_what_the_mmu_changes() {
    let page = F::page(FrameId::new(1), PageBits::default(), 4);
    assert!(F::same_but_touched(page, F::touched(page, true)));
    assert!(!F::same_but_touched(page, F::with_generation(page, 5)));
    assert!(!F::same_but_touched(F::empty(1, 0), F::empty(1, 0)), "only present entries are touched by the MMU");
}

#[test]
fn several_values_are_empty_if_what_they_have_in_common_says_so() {
    let empties = [F::empty(0, 0), F::empty(1, 31), F::empty((1 << 54) - 1, 7), F::empty(0x2a_aaaa_aaaa_aaaa, 0)];
    let all = empties.iter().fold(0, |ored, entry| ored | entry);
    assert!(F::all_empty(all));
    let page = F::page(FrameId::new(5), PageBits::default(), 0);
    for other in
        [page, F::page_to_none(page, 0), F::poison(), F::frozen_empty(), F::table(FrameId::new(0), true, false)]
    {
        assert!(!F::all_empty(other) && !F::all_empty(all | other), "{other:#x}");
    }
}
