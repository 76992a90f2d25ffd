//! `faultless check`: random scenarios, judged by Linux.
//!
//! Called by the binary. The verdict goes to standard output, to standard error why there is none, and progress if that is
//! a terminal. Exit codes: 0 all agree, 1 they differ, 125 they could not be judged.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use faultless_sim::check::{CheckError, Found, Plan, Progress, Unjudged, check};
use faultless_sim::judge::{Difference, Failure, Machine, Manner};
use faultless_sim::scenario::Scenario;
use serde_json::{Value, json};

use crate::args::{CheckArgs, HostedKind, MannerArgs};
use crate::error::EXIT_OWN_FAILURE;

/// The exit code if the two sides differ.
pub const EXIT_DIFFERS: u8 = 1;

/// Checks, tells what came out, and returns the exit code.
pub fn run(args: &CheckArgs) -> u8 {
    if let Some(path) = args.save.as_deref().filter(|path| !may_be_made(path)) {
        return refuse(&args.manner, &format!("{} cannot be written: there is no such directory", path.display()));
    }
    let seed = args.seed.unwrap_or_else(some_seed);
    let plan = Plan {
        steps: args.steps as usize,
        processes: args.processes as usize,
        manner: manner(&args.manner, seed),
        ..Plan::new(seed, args.operations)
    };
    let mut line = Line::new(args.operations, seed);
    let result = check(&plan, |progress| line.show(progress));
    line.clear();
    let (code, value, text) = match &result {
        Ok(progress) => (0, agreed(seed, progress), in_words(seed, progress)),
        Err(CheckError::Found(found)) => (EXIT_DIFFERS, differs(found), found_in_words(found)),
        Err(CheckError::Failed(unjudged)) => {
            let Unjudged { seed, failure, .. } = &**unjudged;
            (EXIT_OWN_FAILURE, failed(failure), format!("faultless: seed {seed}: {failure}\n"))
        }
    };
    let saved = match (&args.save, &result) {
        (Some(path), Err(CheckError::Found(found))) => fs::write(path, kept(found)),
        (Some(path), Err(CheckError::Failed(unjudged))) => fs::write(path, unjudged.scenario.to_string()),
        _ => Ok(()),
    };
    if let Err(error) = saved {
        let _ = writeln!(io::stderr(), "faultless: while writing the scenario: {error}");
    }
    tell(&args.manner, code, &value, &text);
    code
}

/// Is there a directory for the file? Asked first: a difference may take hours to be found.
fn may_be_made(path: &Path) -> bool {
    path.parent().is_none_or(|dir| dir.as_os_str().is_empty() || dir.is_dir())
}

/// The manner that options ask for.
pub(super) fn manner(args: &MannerArgs, seed: u64) -> Manner {
    let machine = match args.machine {
        HostedKind::Fast => Machine::Fast,
        HostedKind::Hostile => Machine::Hostile(seed),
    };
    Manner { machine, every: args.every as usize, others: 4, details: args.details as usize, canary: None }
}

/// Says why there is no verdict, and returns the exit code for that.
pub(super) fn refuse(args: &MannerArgs, what: &str) -> u8 {
    tell(args, EXIT_OWN_FAILURE, &json!({"verdict": "none", "error": what}), &format!("faultless: {what}\n"));
    EXIT_OWN_FAILURE
}

/// Writes the verdict in the form that was asked for, or to standard error why there is none. If those are gone, the exit
/// code still tells.
pub(super) fn tell(args: &MannerArgs, code: u8, value: &Value, text: &str) {
    let _ = match (args.json, code) {
        (true, _) => writeln!(io::stdout(), "{value:#}"),
        (false, EXIT_OWN_FAILURE) => io::stderr().write_all(text.as_bytes()),
        (false, _) => io::stdout().write_all(text.as_bytes()),
    };
}

/// A difference as JSON.
pub(super) fn difference_value(difference: &Difference) -> Value {
    let Difference { step, process, what, host, ours } = difference;
    json!({"step": step, "process": process, "what": what, "linux": host, "faultless": ours})
}

/// A failure as JSON.
pub(super) fn failed(failure: &Failure) -> Value {
    json!({"verdict": "none", "error": failure.to_string()})
}

fn some_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed again.
    since.as_micros() as u64 % 1_000_000_000
}

fn agreed(seed: u64, progress: &Progress) -> Value {
    json!({
        "verdict": "agree",
        "seed": seed,
        "operations": progress.operations,
        "calls": progress.executed.calls,
        "by_threads_together": progress.executed.together,
        "scenarios": progress.scenarios,
        "seconds": progress.elapsed.as_secs_f64(),
        "operations_per_second": progress.speed(),
    })
}

fn in_words(seed: u64, progress: &Progress) -> String {
    let last = seed.wrapping_add(progress.scenarios.saturating_sub(1));
    format!(
        "{} operations in {} scenarios (seeds {seed} to {last}) agree with Linux; {:.0} operations per second\n",
        progress.operations,
        progress.scenarios,
        progress.speed()
    )
}

fn differs(found: &Found) -> Value {
    json!({
        "verdict": "differ",
        "seed": found.seed,
        "difference": difference_value(&found.difference),
        "scenario": found.scenario.to_string(),
    })
}

fn found_in_words(found: &Found) -> String {
    format!(
        "seed {} differs from Linux; shortened to {} steps:\n\n{}\n{}\n",
        found.seed,
        found.scenario.steps.len(),
        numbered(&found.scenario),
        found.difference
    )
}

fn numbered(scenario: &Scenario) -> String {
    scenario.to_string()
}

fn kept(found: &Found) -> String {
    let comment: String = found.difference.to_string().lines().map(|line| format!("# {line}\n")).collect();
    format!("# Seed {}.\n{comment}{}", found.seed, found.scenario)
}

/// The progress line of a terminal.
struct Line {
    goal: u64,
    first: u64,
    last: Option<Instant>,
    on: bool,
}

impl Line {
    fn new(goal: u64, first: u64) -> Self {
        Self { goal, first, last: None, on: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: &Progress) {
        let due = self.last.is_none_or(|last| last.elapsed() > Duration::from_millis(200));
        if self.on && due {
            self.last = Some(Instant::now());
            let percent = progress.operations * 100 / self.goal.max(1);
            // Who interrupts it knows where to go on.
            let seed = self.first.wrapping_add(progress.scenarios);
            let (operations, speed) = (progress.operations, progress.speed());
            let text = format!("{percent:3} %  {operations} operations, {speed:.0} per second, at seed {seed}");
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
        }
    }

    fn clear(&self) {
        if self.on && self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
