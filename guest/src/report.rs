//! What a program tells: what it checked, a checksum, and how to repeat a failure.
//!
//! Called by all programs but `vmbench`. Lines are written with one system call each, so
//! a forked child neither repeats nor loses buffered output. Absent on purpose: durations.

use crate::args::Args;
use crate::rng::mix;
use crate::sys;
use core::fmt::Display;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// The last line of a failure. Process-wide, because a signal handler must find it too.
static EPITAPH: OnceLock<String> = OnceLock::new();

/// Ends the process with status 1, saying how to repeat it. Safe in a signal handler.
pub fn die(what: &str) -> ! {
    sys::print(1, what);
    sys::print(1, EPITAPH.get().map_or("", String::as_str));
    sys::exit(1)
}

/// The running account of one program.
///
/// Shared by all threads. (A) atomic alone: both sums are order independent.
#[derive(Debug)]
pub struct Report {
    program: &'static str,
    seed: u64,
    checks: AtomicU64, // (A)
    sum: AtomicU64,    // (A)
}

impl Report {
    /// Starts the account and prints the seed.
    #[must_use]
    pub fn new(args: &Args) -> Self {
        let (program, seed) = (args.program(), args.number("seed"));
        let report = Self { program, seed, checks: AtomicU64::new(0), sum: AtomicU64::new(0) };
        let repeat = args.repeat();
        EPITAPH.get_or_init(|| format!("{program}: seed {seed:#x}, repeat: {repeat}\n"));
        report.say(format_args!("seed {seed:#x}"));
        std::panic::set_hook(Box::new(move |panic| die(&format!("{program}: FAIL {panic}\n"))));
        report
    }

    /// Seed of this run.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Prints one line under the program's name.
    pub fn say(&self, text: impl Display) {
        sys::print(1, &format!("{}: {text}\n", self.program));
    }

    /// Counts `checks` comparisons that came out right.
    pub fn passed(&self, checks: usize) {
        self.checks.fetch_add(checks as u64, Ordering::Relaxed);
    }

    /// Adds a verified value to the checksum; the order of calls does not matter.
    pub fn fold(&self, value: u64) {
        self.sum.fetch_add(mix(value), Ordering::Relaxed);
    }

    /// Counts one comparison, or ends the program when it came out wrong.
    pub fn check(&self, right: bool, what: impl FnOnce() -> String) {
        if right {
            self.passed(1);
        } else {
            self.fail(what());
        }
    }

    /// Counts one comparison of two values, or ends the program when they differ.
    pub fn same<T: PartialEq + core::fmt::Debug>(&self, what: &str, got: T, want: T) {
        self.check(got == want, || format!("{what}: got {got:?}, want {want:?}"));
    }

    /// Takes the value out of `result`, or ends the program.
    pub fn need<T>(&self, what: &str, result: sys::Result<T>) -> T {
        result.unwrap_or_else(|error| self.fail(format!("{what}: {error}")))
    }

    /// Ends the program with status 1 after saying what went wrong and how to repeat it.
    pub fn fail(&self, what: impl Display) -> ! {
        die(&format!("{}: FAIL {what}\n", self.program))
    }

    /// Prints number of checks and checksum and ends the program with status 0.
    pub fn finish(self) -> ! {
        let checks = self.checks.load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed);
        self.say(format_args!("{checks} checks, checksum {sum:#018x}"));
        self.say("ok");
        sys::exit(0)
    }
}
