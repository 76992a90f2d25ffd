//! `smaps` and `smaps_rollup`: what the pages of an area are.

use core::ops::AddAssign;
use faultless::{AreaFlags, AreaInfo, Machine, Rights, Sharing};

use super::{Text, put};

/// The pages of an area by what they are. Sizes are in bytes, so that a proportional share is exact enough to sum.
///
/// The core does not report them per area yet; whoever can count them fills this in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageSums {
    /// Resident.
    pub resident: u64,
    /// Each page divided by how many map it.
    pub proportional: u64,
    /// The part of `proportional` that is dirty.
    pub proportional_dirty: u64,
    /// The part of `proportional` that is anonymous, of files, of shared memory; only a rollup shows it.
    pub proportional_kinds: [u64; 3],
    /// Mapped more than once, and not dirty.
    pub shared_clean: u64,
    /// Mapped more than once, and dirty.
    pub shared_dirty: u64,
    /// Mapped here only, and not dirty.
    pub private_clean: u64,
    /// Mapped here only, and dirty.
    pub private_dirty: u64,
    /// Accessed.
    pub referenced: u64,
    /// Anonymous.
    pub anonymous: u64,
    /// To be freed when memory is short.
    pub lazy_free: u64,
    /// Swapped out.
    pub swapped: u64,
    /// Locked; the proportional share, as Linux has it.
    pub locked: u64,
}

impl AddAssign for PageSums {
    fn add_assign(&mut self, other: Self) {
        self.resident += other.resident;
        self.proportional += other.proportional;
        self.proportional_dirty += other.proportional_dirty;
        for (sum, part) in self.proportional_kinds.iter_mut().zip(other.proportional_kinds) {
            *sum += part;
        }
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.lazy_free += other.lazy_free;
        self.swapped += other.swapped;
        self.locked += other.locked;
    }
}

impl PageSums {
    /// The lines of one area in `smaps`, after its line of `maps`.
    pub fn write_area<M: Machine>(&self, area: &AreaInfo<M>, text: &mut Text) {
        line(text, "Size", area.range.len());
        line(text, "KernelPageSize", 4096);
        line(text, "MMUPageSize", 4096);
        line(text, "Rss", self.resident);
        line(text, "Pss", self.proportional);
        line(text, "Pss_Dirty", self.proportional_dirty);
        self.write_rest(text);
        put!(text, "THPeligible:    {:8}\n", 0);
        vm_flags(area, text);
    }

    /// The lines of `smaps_rollup`, after its head.
    pub fn write_rollup(&self, text: &mut Text) {
        line(text, "Rss", self.resident);
        line(text, "Pss", self.proportional);
        line(text, "Pss_Dirty", self.proportional_dirty);
        for (name, part) in ["Pss_Anon", "Pss_File", "Pss_Shmem"].into_iter().zip(self.proportional_kinds) {
            line(text, name, part);
        }
        self.write_rest(text);
    }

    fn write_rest(&self, text: &mut Text) {
        line(text, "Shared_Clean", self.shared_clean);
        line(text, "Shared_Dirty", self.shared_dirty);
        line(text, "Private_Clean", self.private_clean);
        line(text, "Private_Dirty", self.private_dirty);
        line(text, "Referenced", self.referenced);
        line(text, "Anonymous", self.anonymous);
        line(text, "KSM", 0);
        line(text, "LazyFree", self.lazy_free);
        for huge in ["AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb"] {
            line(text, huge, 0);
        }
        line(text, "Swap", self.swapped);
        line(text, "SwapPss", self.swapped);
        line(text, "Locked", self.locked);
    }
}

/// Width of a name with its colon.
const NAME: usize = 16;

fn line(text: &mut Text, name: &str, bytes: u64) {
    let pad = NAME - name.len() - 1;
    put!(text, "{name}:{:pad$}{:8} kB\n", "", bytes / 1024);
}

/// The line `VmFlags` of an area: two letters per property.
pub fn vm_flags<M: Machine>(area: &AreaInfo<M>, text: &mut Text) {
    let shared = area.sharing == Sharing::Shared;
    let may = |right| area.max_rights.contains(right);
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
        ("gd", area.flags.contains(AreaFlags::GROWS_DOWN)),
        ("nr", area.flags.contains(AreaFlags::NO_RESERVE)),
    ];
    put!(text, "VmFlags: ");
    for (letters, _) in flags.into_iter().filter(|(_, set)| *set) {
        put!(text, "{letters} ");
    }
    put!(text, "\n");
}
