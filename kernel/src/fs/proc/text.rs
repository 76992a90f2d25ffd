//! The text of /proc files, in Linux' exact format, from plain figures. What is about memory is
//! `faultless_linux`'s.
//!
//! Called by `process` and `system`, which gather the figures, and by the host's tests. Pure.

use alloc::vec::Vec;
use core::fmt;

pub use faultless_linux::text::{Sizes, Text, put};

/// What `stat` and `status` say about a process besides its memory.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Ids: thread, process, parent, group, session.
    pub tid: i32,
    /// See `tid`.
    pub pid: i32,
    /// See `tid`.
    pub parent: i32,
    /// See `tid`.
    pub group: i32,
    /// See `tid`.
    pub session: i32,
    /// Name of the program, at most 15 bytes.
    pub name: Vec<u8>,
    /// `R`, `S`, `T` or `Z`.
    pub state: char,
    /// Device number of the controlling terminal and its foreground group, or 0 and -1.
    pub terminal: (u64, i32),
    /// Faults: minor, of waited-for children, major, of waited-for children.
    pub faults: [u64; 4],
    /// Clock ticks: user, system, the same of waited-for children.
    pub ticks: [u64; 4],
    /// Threads of the process.
    pub threads: usize,
    /// Capabilities: inheritable, permitted, effective.
    pub capabilities: [u64; 3],
    /// Signals queued in all processes, and its limit of them.
    pub queued: (usize, u64),
    /// Clock ticks after boot at which it started.
    pub started: u64,
    /// Soft `RLIMIT_RSS`.
    pub resident_limit: u64,
    /// Code, start and end; stack pointer at entry.
    pub code: (u64, u64),
    /// See `code`.
    pub stack: u64,
    /// Heap start; argument and environment strings.
    pub heap: u64,
    /// See `heap`.
    pub args: (u64, u64),
    /// See `heap`.
    pub env: (u64, u64),
    /// Signal sets: pending here, pending in the process, blocked, ignored, caught.
    pub signals: [u64; 5],
    /// Signal sent to the parent at the end.
    pub exit_signal: i32,
    /// CPU it ran on last, and CPUs it may run on.
    pub cpu: u32,
    /// See `cpu`.
    pub affinity: u64,
    /// Status as `wait` will have it, of a zombie.
    pub exit_code: i32,
    /// `umask` and places in the file table.
    pub umask: u32,
    /// See `umask`.
    pub file_places: usize,
    /// Switches: voluntary, not.
    pub switches: (u64, u64),
}

impl Facts {
    /// `stat`.
    pub fn write_stat(&self, sizes: Option<&Sizes>, text: &mut Text) {
        let none = Sizes::default();
        let memory = sizes.unwrap_or(&none);
        put!(text, "{} (", self.tid);
        text.0.extend_from_slice(&self.name);
        put!(text, ") {} {} {} {}", self.state, self.parent, self.group, self.session);
        put!(text, " {} {} 0", self.terminal.0, self.terminal.1);
        for faults in self.faults {
            put!(text, " {faults}");
        }
        for ticks in self.ticks {
            put!(text, " {ticks}");
        }
        // Priority, nice, threads, an obsolete timer, start.
        put!(text, " 20 0 {} 0 {}", self.threads, self.started);
        put!(text, " {} {} {}", memory.total * 4096, memory.resident(), self.resident_limit);
        let addresses = if sizes.is_some() { [self.code.0, self.code.1, self.stack] } else { [0; 3] };
        for address in addresses {
            put!(text, " {address}");
        }
        // Stack and instruction pointers are not told; the obsolete masks have 31 bits.
        put!(text, " 0 0");
        let [own, _, blocked, ignored, caught] = self.signals;
        for set in [own, blocked, ignored, caught] {
            put!(text, " {}", set & 0x7fff_ffff);
        }
        put!(text, " 0 0 0 {} {} 0 0 0 0 0", self.exit_signal, self.cpu);
        let places =
            if sizes.is_some() { [0, 0, self.heap, self.args.0, self.args.1, self.env.0, self.env.1] } else { [0; 7] };
        for address in places {
            put!(text, " {address}");
        }
        put!(text, " {}\n", self.exit_code);
    }

    /// `status`.
    pub fn write_status(&self, sizes: Option<&Sizes>, text: &mut Text) {
        put!(text, "Name:\t");
        text.0.extend_from_slice(&self.name);
        put!(text, "\nUmask:\t{:04o}\n", self.umask);
        put!(text, "State:\t{} ({})\n", self.state, state_name(self.state));
        put!(text, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\n", self.pid, self.tid);
        put!(text, "PPid:\t{}\nTracerPid:\t0\n", self.parent);
        put!(text, "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
        put!(text, "FDSize:\t{}\nGroups:\t \n", self.file_places);
        put!(text, "NStgid:\t{}\nNSpid:\t{}\n", self.pid, self.tid);
        put!(text, "NSpgid:\t{}\nNSsid:\t{}\n", self.group, self.session);
        if let Some(sizes) = sizes {
            sizes.write_status(text);
            put!(text, "CoreDumping:\t0\nTHP_enabled:\t0\n");
        }
        put!(text, "Threads:\t{}\nSigQ:\t{}/{}\n", self.threads, self.queued.0, self.queued.1);
        let names = ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];
        for (name, set) in names.into_iter().zip(self.signals) {
            put!(text, "{name}:\t{set:016x}\n");
        }
        let [inheritable, permitted, effective] = self.capabilities;
        let sets = [inheritable, permitted, effective, ROOT, 0];
        for (name, set) in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].into_iter().zip(sets) {
            put!(text, "{name}:\t{set:016x}\n");
        }
        put!(text, "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n");
        put!(text, "Cpus_allowed:\t{:x}\nCpus_allowed_list:\t", self.affinity);
        write_cpu_list(self.affinity, text);
        put!(text, "\nvoluntary_ctxt_switches:\t{}\n", self.switches.0);
        put!(text, "nonvoluntary_ctxt_switches:\t{}\n", self.switches.1);
    }
}

/// All capabilities but the one to map the lowest addresses, which nobody has here.
const ROOT: u64 = 0x0000_01ff_ffff_ffff & !(1 << 17);

fn state_name(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'T' => "stopped",
        'Z' => "zombie",
        _ => "dead",
    }
}

/// CPUs as `0-3,5`.
pub fn write_cpu_list(mask: u64, text: &mut Text) {
    let mut cpu = 0;
    let mut separator = "";
    while cpu < 64 {
        if mask >> cpu & 1 == 0 {
            cpu += 1;
            continue;
        }
        let run = (mask >> cpu).trailing_ones();
        match run {
            1 => put!(text, "{separator}{cpu}"),
            run => put!(text, "{separator}{cpu}-{}", cpu + run - 1),
        }
        separator = ",";
        cpu += run;
    }
}

/// One line of `limits`.
pub fn write_limit(name: &str, unit: &str, (soft, hard): (u64, u64), text: &mut Text) {
    let value = |limit: u64| Limit(limit);
    put!(text, "{name:<25} {:<20} {:<20} {unit:<10}\n", value(soft), value(hard));
}

struct Limit(u64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX {
            return f.pad("unlimited");
        }
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        // Digits are ASCII.
        f.pad(core::str::from_utf8(&digits[at..]).unwrap_or_default())
    }
}

/// The pool of large pages, in large pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct LargePages {
    /// All.
    pub total: u64,
    /// In use by nobody.
    pub free: u64,
    /// Of those, promised.
    pub reserved: u64,
    /// Of all, those that go when they are free.
    pub surplus: u64,
}

impl LargePages {
    /// Pages of 4 KiB in one.
    const PAGES: u64 = 512;
}

/// Memory of the machine, in pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineMemory {
    /// All of it.
    pub total: u64,
    /// Used by nobody.
    pub free: u64,
    /// Pages of files and of shared memory, mapped or not.
    pub cached: u64,
    /// Of these, those of shared memory.
    pub shmem: u64,
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of large pages of anonymous memory.
    pub anon_huge: u64,
    /// Of `cached`, those that are mapped.
    pub mapped: u64,
    /// Of `cached`, those that wait to be written back: none where files live in memory.
    pub dirty: u64,
    /// Of `cached`, those that are being written back.
    pub writing: u64,
    /// Page tables.
    pub tables: u64,
    /// The pool of large pages.
    pub pool: LargePages,
    /// What programs may be promised at most with overcommit mode 2, and what they were.
    pub commit: (u64, u64),
    /// Faults since the start.
    pub faults: u64,
    /// Of these, those that read from a file.
    pub major_faults: u64,
}

impl MachineMemory {
    /// `meminfo`. Absent: what nobody counts here, such as ages of pages.
    pub fn write(&self, text: &mut Text) {
        let lines = [
            ("MemTotal", self.total),
            ("MemFree", self.free),
            ("MemAvailable", self.free),
            ("Buffers", 0),
            ("Cached", self.cached),
            ("SwapCached", 0),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Dirty", self.dirty),
            ("Writeback", self.writing),
            ("AnonPages", self.anon),
            ("Mapped", self.mapped),
            ("Shmem", self.shmem),
            ("PageTables", self.tables),
            ("AnonHugePages", self.anon_huge),
            ("CommitLimit", self.commit.0),
            ("Committed_AS", self.commit.1),
            ("VmallocTotal", 0),
            ("VmallocUsed", 0),
            ("HugePages_Total", self.pool.total),
            ("HugePages_Free", self.pool.free),
            ("HugePages_Rsvd", self.pool.reserved),
            ("HugePages_Surp", self.pool.surplus),
            ("Hugepagesize", LargePages::PAGES),
            ("Hugetlb", self.pool.total * LargePages::PAGES),
        ];
        for (name, pages) in lines {
            let label = LABEL_WIDTH - name.len() - 1;
            if name.starts_with("HugePages_") {
                put!(text, "{name}:{:label$}{pages:8}\n", "");
            } else {
                put!(text, "{name}:{:label$}{:8} kB\n", "", pages * 4);
            }
        }
    }

    /// `vmstat`, as far as it is counted.
    pub fn write_pages(&self, text: &mut Text) {
        let lines = [
            ("nr_free_pages", self.free),
            ("nr_anon_pages", self.anon),
            ("nr_mapped", self.mapped),
            ("nr_file_pages", self.cached),
            ("nr_dirty", self.dirty),
            ("nr_writeback", self.writing),
            ("nr_shmem", self.shmem),
            ("nr_page_table_pages", self.tables),
            ("pgfault", self.faults),
            ("pgmajfault", self.major_faults),
        ];
        for (name, count) in lines {
            put!(text, "{name} {count}\n");
        }
    }
}

const LABEL_WIDTH: usize = 16;

/// `uptime`: seconds since boot, and idle seconds of all CPUs, from hundredths.
pub fn write_uptime(up: u64, idle: u64, text: &mut Text) {
    put!(text, "{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100);
}
