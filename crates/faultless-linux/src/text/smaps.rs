//! `smaps` and `smaps_rollup`: what the pages of an area are.

use core::ops::AddAssign;
use faultless::{AreaFlags, AreaInfo, Cpu, Footprint, Machine, PAGE_SIZE, Rights, Sharing, Space};

use super::{Text, put};
use crate::flags::HUGE_PAGE;

/// The pages of one area, or of several, by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageSums {
    /// What the core counts.
    pub pages: Footprint,
    /// Share of the pages that are locked, as [`Footprint`] has shares.
    pub locked: u64,
}

impl AddAssign for PageSums {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.locked += other.locked;
    }
}

impl PageSums {
    /// The sums of an area. Looking changes nothing.
    pub fn of<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, area: &AreaInfo<M>) -> Self {
        let pages = space.footprint(cpu, area.range);
        Self { pages, locked: if area.flags.contains(AreaFlags::LOCKED) { pages.share() } else { 0 } }
    }

    /// The lines of one area in `smaps`, after its line of `maps`.
    pub fn write_area<M: Machine>(&self, area: &AreaInfo<M>, text: &mut Text) {
        line(text, "Size", area.range.len());
        let unit = if area.flags.contains(AreaFlags::HUGETLB) { HUGE_PAGE } else { PAGE_SIZE };
        line(text, "KernelPageSize", unit);
        line(text, "MMUPageSize", unit);
        self.write_shares(text);
        self.write_rest(text);
        put!(text, "THPeligible:    {:8}\n", 0);
        vm_flags(area, text);
    }

    /// The lines of `smaps_rollup`, after its head.
    pub fn write_rollup(&self, text: &mut Text) {
        self.write_shares(text);
        line(text, "Pss_Anon", bytes(self.pages.anon_share));
        line(text, "Pss_File", bytes(self.pages.file_share));
        line(text, "Pss_Shmem", bytes(self.pages.shmem_share));
        self.write_rest(text);
    }

    fn write_shares(&self, text: &mut Text) {
        line(text, "Rss", self.pages.resident * PAGE_SIZE);
        line(text, "Pss", bytes(self.pages.share()));
        line(text, "Pss_Dirty", bytes(self.pages.dirty_share));
    }

    fn write_rest(&self, text: &mut Text) {
        let pages = &self.pages;
        let counts = [
            ("Shared_Clean", pages.shared_clean),
            ("Shared_Dirty", pages.shared_dirty),
            ("Private_Clean", pages.private_clean),
            ("Private_Dirty", pages.private_dirty),
            ("Referenced", pages.referenced),
            ("Anonymous", pages.anonymous),
            ("KSM", 0),
            ("LazyFree", pages.lazy_free),
            ("AnonHugePages", pages.anon_huge),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", pages.shared_hugetlb),
            ("Private_Hugetlb", pages.private_hugetlb),
            ("Swap", 0),
            ("SwapPss", 0),
        ];
        for (name, count) in counts {
            line(text, name, count * PAGE_SIZE);
        }
        line(text, "Locked", bytes(self.locked));
    }
}

/// The whole bytes of a share.
const fn bytes(share: u64) -> u64 {
    share >> Footprint::FRACTION_BITS
}

/// Width of a name with its colon.
const NAME: usize = 16;

fn line(text: &mut Text, name: &str, bytes: u64) {
    let pad = NAME - name.len() - 1;
    put!(text, "{name}:{:pad$}{:8} kB\n", "", bytes / 1024);
}

/// The line `VmFlags` of an area: two letters per property, in Linux's order.
pub fn vm_flags<M: Machine>(area: &AreaInfo<M>, text: &mut Text) {
    let shared = area.sharing == Sharing::Shared;
    let may = |right| area.max_rights.contains(right);
    let has = |flag| area.flags.contains(flag);
    let (raw, huge) = (has(AreaFlags::RAW), has(AreaFlags::HUGETLB));
    let flags = [
        ("rd", area.rights.contains(Rights::READ)),
        ("wr", area.rights.contains(Rights::WRITE)),
        ("ex", area.rights.contains(Rights::EXECUTE)),
        // Linux calls a mapping shared only if a store could ever go through it.
        ("sh", shared && may(Rights::WRITE)),
        ("mr", may(Rights::READ)),
        ("mw", may(Rights::WRITE)),
        ("me", may(Rights::EXECUTE)),
        ("ms", shared),
        ("gd", has(AreaFlags::GROWS_DOWN)),
        ("pf", raw),
        ("lo", has(AreaFlags::LOCKED)),
        ("io", raw),
        ("sr", has(AreaFlags::SEQUENTIAL)),
        ("rr", has(AreaFlags::RANDOM)),
        ("dc", has(AreaFlags::NO_FORK)),
        ("de", raw || huge),
        ("lf", has(AreaFlags::LOCKED_ON_FAULT)),
        ("ac", has(AreaFlags::ACCOUNTED)),
        ("nr", has(AreaFlags::NO_RESERVE)),
        ("ht", huge),
        ("wf", has(AreaFlags::WIPE_ON_FORK)),
        ("dd", raw || has(AreaFlags::NO_DUMP)),
        ("sd", has(AreaFlags::SOFT_DIRTY)),
        ("hg", has(AreaFlags::HUGE)),
        ("nh", has(AreaFlags::NO_HUGE)),
        ("dp", has(AreaFlags::DROPPABLE)),
        ("sl", has(AreaFlags::SEALED)),
    ];
    put!(text, "VmFlags: ");
    for (letters, _) in flags.into_iter().filter(|(_, set)| *set) {
        put!(text, "{letters} ");
    }
    put!(text, "\n");
}
