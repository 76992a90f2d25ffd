//! `statm`, and the memory lines of `status`.

use faultless::{AreaFlags, Cpu, Machine, Rights};

use super::{Text, put};
use crate::Memory;
use crate::memory::is_data;

/// What memory a process has, in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Largest and present sum of all mappings.
    pub peak: u64,
    /// See `peak`.
    pub total: u64,
    /// Largest resident size.
    pub resident_peak: u64,
    /// Resident pages: anonymous, of files, of shared memory.
    pub anon: u64,
    /// See `anon`.
    pub file: u64,
    /// See `anon`.
    pub shmem: u64,
    /// Private writable mappings.
    pub data: u64,
    /// Locked mappings.
    pub locked: u64,
    /// The stack.
    pub stack: u64,
    /// The program's code.
    pub text: u64,
    /// All executable mappings.
    pub executable: u64,
    /// Page tables.
    pub tables: u64,
    /// Mapped large pages of the pool, in small ones; not part of the resident size.
    pub hugetlb: u64,
}

impl Sizes {
    /// The sizes of a memory; `text` is left to the embedder, who knows where the program's code is.
    pub fn of<M: Machine>(memory: &Memory<M>, cpu: &mut Cpu<M>) -> Self {
        let usage = memory.space.usage();
        let mut sizes = Self {
            resident_peak: usage.peak,
            anon: usage.anon,
            file: usage.file,
            shmem: usage.shmem,
            tables: usage.tables,
            hugetlb: usage.huge,
            peak: memory.space.extent().peak,
            locked: memory.space.extent().locked,
            ..Self::default()
        };
        memory.space.areas(cpu, |area| {
            let pages = area.range.pages();
            sizes.total += pages;
            if area.flags.contains(AreaFlags::GROWS_DOWN) {
                sizes.stack += pages;
            } else if is_data(&area) {
                sizes.data += pages;
            } else if area.rights.contains(Rights::EXECUTE) && !area.rights.contains(Rights::WRITE) {
                sizes.executable += pages;
            }
        });
        sizes.peak = sizes.peak.max(sizes.total);
        sizes
    }

    /// Resident pages of all kinds.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.anon + self.file + self.shmem
    }

    /// `statm`.
    pub fn write_statm(&self, text: &mut Text) {
        put!(
            text,
            "{} {} {} {} 0 {} 0\n",
            self.total,
            self.resident(),
            self.file + self.shmem,
            self.text,
            self.data + self.stack,
        );
    }

    /// The `Vm` lines of `status`.
    pub fn write_status(&self, text: &mut Text) {
        let resident = self.resident();
        let lines = [
            ("VmPeak", self.peak.max(self.total)),
            ("VmSize", self.total),
            ("VmLck", self.locked),
            ("VmPin", 0),
            ("VmHWM", self.resident_peak.max(resident)),
            ("VmRSS", resident),
            ("RssAnon", self.anon),
            ("RssFile", self.file),
            ("RssShmem", self.shmem),
            ("VmData", self.data),
            ("VmStk", self.stack),
            ("VmExe", self.text),
            ("VmLib", self.executable.saturating_sub(self.text)),
            ("VmPTE", self.tables),
            ("VmSwap", 0),
            ("HugetlbPages", self.hugetlb),
        ];
        for (name, pages) in lines {
            put!(text, "{name}:\t{:8} kB\n", pages * 4);
        }
    }
}
