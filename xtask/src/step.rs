//! Named steps with their times, and the account that is closed at the end.
//!
//! Called by every task. A failed step does not end the run: the other steps may show why. Steps that cannot make
//! sense without another one say so with [`Ledger::step_after`], and count as failed with it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Tests or checks that were run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that held.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that their authors switched off.
    pub ignored: u64,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was found.
    pub what: String,
    /// The command that repeats it.
    pub repeat: String,
}

/// What a step found, in the order of running.
#[derive(Debug)]
struct Entry {
    name: String,
    time: Duration,
    result: Result<Tally, Failure>,
}

/// The account of one run.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Tally {
    /// One check that held.
    pub const ONE: Tally = Tally { passed: 1, failed: 0, ignored: 0 };

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Ledger {
    /// Runs a step and notes what it found.
    pub fn step(&mut self, name: &str, action: impl FnOnce() -> Result<Tally, Failure>) {
        println!("\n== {name}");
        let start = Instant::now();
        let result = action();
        let time = start.elapsed();
        match &result {
            Ok(tally) => println!("== {name}: ok, {}{}", seconds(time), tests(tally)),
            Err(failure) => println!("== {name}: FAILED, {}\n{failure}", seconds(time)),
        }
        self.entries.push(Entry { name: name.into(), time, result });
    }

    /// Runs a step unless one of the earlier steps that it needs failed.
    pub fn step_after(&mut self, needed: &[&str], name: &str, action: impl FnOnce() -> Result<Tally, Failure>) {
        let lost = |entry: &&Entry| needed.contains(&entry.name.as_str()) && entry.result.is_err();
        let Some(entry) = self.entries.iter().find(lost) else {
            return self.step(name, action);
        };
        let repeat = entry.result.as_ref().err().map(|failure| failure.repeat.clone());
        let what = format!("{name}: not run, because {} failed", entry.name);
        self.step(name, || Err(Failure { what, repeat: repeat.unwrap_or_default() }));
    }

    /// Prints the account and turns it into this process' end.
    pub fn close(&self) -> ExitCode {
        let mut total = Tally::default();
        println!();
        for entry in &self.entries {
            let word = if entry.result.is_ok() { "ok" } else { "FAILED" };
            println!("{:>8}  {word:6}  {}", seconds(entry.time), entry.name);
            // A step without tests of its own counts as one.
            match &entry.result {
                Ok(tally) => total.add(if tally.passed == 0 { &Tally::ONE } else { tally }),
                Err(_) => total.failed += 1,
            }
        }
        for failure in self.entries.iter().filter_map(|entry| entry.result.as_ref().err()) {
            println!("\n{failure}");
        }
        println!("\n{} passed, {} failed", total.passed, total.failed);
        if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn tests(tally: &Tally) -> String {
    match tally.passed + tally.ignored {
        0 => String::new(),
        _ if tally.ignored > 0 => format!(", {} passed, {} ignored", tally.passed, tally.ignored),
        _ => format!(", {} passed", tally.passed),
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  repeat: {}", self.what, self.repeat)
    }
}
