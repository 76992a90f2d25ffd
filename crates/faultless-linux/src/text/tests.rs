//! The formats, against lines that a Linux kernel wrote.

use super::*;
use alloc::string::String;
use alloc::vec;
use faultless::{Footprint, PAGE_SIZE};

fn shown(write: impl FnOnce(&mut Text)) -> String {
    let mut text = Text::default();
    write(&mut text);
    String::from_utf8(text.0).expect("text")
}

#[test]
fn a_line_of_maps_is_linux_own() {
    let line = MapLine {
        range: (0x5634_b87c_5000, 0x5634_b87c_a000),
        rights: (true, false, true),
        shared: false,
        offset: 0x2000,
        file: (0xfe, 0, 247_030),
        name: b"/usr/bin/cat".to_vec(),
    };
    let wanted = "5634b87c5000-5634b87ca000 r-xp 00002000 fe:00 247030                     /usr/bin/cat\n";
    assert_eq!(shown(|text| line.write(text)), wanted);
    let anonymous =
        MapLine { range: (0x7f78_b8b4_c000, 0x7f78_b8b6_e000), rights: (true, true, false), ..MapLine::default() };
    assert_eq!(shown(|text| anonymous.write(text)), "7f78b8b4c000-7f78b8b6e000 rw-p 00000000 00:00 0 \n");
}

#[test]
fn sizes_are_told_as_linux_tells_them() {
    let sizes = Sizes { total: 765, anon: 28, file: 396, data: 90, stack: 33, text: 5, tables: 12, ..Sizes::default() };
    assert_eq!(shown(|text| sizes.write_statm(text)), "765 424 396 5 0 123 0\n");
    let status = shown(|text| sizes.write_status(text));
    for line in ["VmPeak:\t    3060 kB", "VmHWM:\t    1696 kB", "VmRSS:\t    1696 kB", "RssAnon:\t     112 kB"] {
        assert!(status.lines().any(|found| found == line), "{line} in\n{status}");
    }
}

#[test]
fn a_rollup_has_linux_own_lines() {
    let sums_of = |pages| PageSums { pages, ..PageSums::default() };
    let mut sums = sums_of(Footprint { resident: 441, shared_clean: 403, ..Footprint::default() });
    // A page is a third of three's.
    let share = 28 * (PAGE_SIZE << Footprint::FRACTION_BITS) + (PAGE_SIZE << Footprint::FRACTION_BITS) / 3;
    sums += sums_of(Footprint { private_dirty: 28, anon_share: share, ..Footprint::default() });
    let text = shown(|text| sums.write_rollup(text));
    let wanted = vec![
        "Rss:                1764 kB",
        "Pss:                 113 kB",
        "Pss_Anon:            113 kB",
        "Shared_Clean:       1612 kB",
        "Private_Dirty:       112 kB",
        "ShmemPmdMapped:        0 kB",
        "Private_Hugetlb:       0 kB",
        "Locked:                0 kB",
    ];
    for line in wanted {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
