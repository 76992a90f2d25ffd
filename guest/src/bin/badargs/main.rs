//! `badargs`: wild pointers and bad arguments, one line of output per case.
//!
//! The lines are the same on each Linux: addresses lie in an arena at a fixed place, and
//! what depends on the version, the amount of memory or ASLR is left out. So the output of
//! two kernels can be compared byte by byte, and `--check 1` compares it with what Linux
//! 6.18 printed (`expected.txt`). Absent on purpose: calls that reclaim or advise.

mod alone;
mod deaths;
mod fuzz;
mod locking;
mod memfds;
mod offsets;
mod pointers;
mod ranges;
mod shared;
mod stage;

use faultless_guest::args::{Args, opt};
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::rng::mix;
use stage::Stage;

/// What Linux 6.18 prints with the default seed.
const EXPECTED: &str = include_str!("expected.txt");

/// The lines of one group.
pub struct Lines {
    group: &'static str,
    /// All lines so far, with the group in front.
    all: Vec<String>,
}

impl Lines {
    /// Prints and keeps one line.
    pub fn add(&mut self, text: impl core::fmt::Display) {
        let line = format!("{}: {text}", self.group);
        faultless_guest::sys::print(1, &format!("{line}\n"));
        self.all.push(line);
    }
}

type Group = (&'static str, fn(&mut Stage, &mut Lines));

const GROUPS: &[Group] = &[
    ("mmap", ranges::mmap),
    ("mmapfd", ranges::mmap_files),
    ("munmap", ranges::munmap),
    ("mprotect", ranges::mprotect),
    ("brk", ranges::brk),
    ("offsets", offsets::offsets),
    ("deaths", deaths::deaths),
    ("traps", deaths::traps),
    ("pointers", pointers::pointers),
    ("partial", pointers::partial),
    ("mlock", locking::mlock),
    ("mseal", locking::mseal),
    ("limits", locking::limits),
    ("shm", shared::shm),
    ("remote", shared::remote),
    ("barrier", shared::barrier),
    ("seals", memfds::seals),
    ("fallocate", memfds::fallocate),
    ("fuzz", fuzz::fuzz),
];

fn main() {
    let args = Args::parse(
        "badargs",
        "wild pointers and bad arguments, one comparable line per case",
        &[
            opt(
                "only",
                "all",
                "groups: mmap,mmapfd,munmap,mprotect,brk,offsets,deaths,traps,\
                 pointers,partial,mlock,mseal,limits,shm,remote,barrier,seals,\
                 fallocate,fuzz",
            ),
            opt("fuzz", "400", "number of random calls"),
            opt("check", "0", "1: compare with what Linux 6.18 printed for seed 1"),
        ],
    );
    let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let report = Report::new(&args);
    probe::catch();
    let mut stage = Stage::new(&report, args.count("fuzz"));
    let mut lines = Lines { group: "", all: Vec::new() };
    for (name, group) in GROUPS.iter().filter(|(name, _)| args.wants(name)) {
        lines.group = name;
        group(&mut stage, &mut lines);
    }
    for line in &lines.all {
        report.passed(1);
        report.fold(line.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte))));
    }
    if args.number("check") == 1 {
        compare(&args, &report, &lines.all);
    }
    report.finish();
}

/// Fails unless the lines are those of Linux.
fn compare(args: &Args, report: &Report, got: &[String]) {
    let wanted = |line: &&str| line.split(':').next().is_some_and(|group| args.wants(group));
    let want: Vec<&str> = EXPECTED.lines().filter(wanted).collect();
    let mut wrong = 0;
    for index in 0..want.len().max(got.len()) {
        let want = want.get(index).copied().unwrap_or("(nothing)");
        let got = got.get(index).map_or("(nothing)", String::as_str);
        if want != got {
            wrong += 1;
            report.say(format_args!("line {index}\n  Linux: {want}\n  here:  {got}"));
        }
    }
    report.check(wrong == 0, || format!("{wrong} lines differ from Linux"));
}
