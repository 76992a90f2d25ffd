//! Runs programs on the kernel in QEMU, as `guest-tests.toml` lists them.
//!
//! Every scenario goes through the `faultless` command, as a user's program would, so that a failure is repeated with
//! one line. A scenario holds if output and status are the expected ones and the kernel's recount found no leaked
//! frame. `--on-host` runs the same programs on the machine's own kernel instead: what fails there is a wrong test.
//!
//! Absent on purpose: parallel runs (QEMU's CPUs fill the machine) and judgements about time.

mod scenario;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::build;
use crate::job::Job;
use crate::step::{Failure, Ledger, Tally};
use crate::workspace;
use scenario::{Case, Table};

/// The table, from the root of the source tree.
const TABLE: &str = "xtask/guest-tests.toml";

/// How much to run.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the scenarios that are quick enough for every change
    #[arg(long)]
    quick: bool,
    /// Run the programs on this machine's own kernel, to see whether the expectations are right
    #[arg(long)]
    on_host: bool,
    /// The scenarios of this group, which are left out otherwise
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only scenarios whose name contains this
    #[arg(value_name = "NAME", default_value = "")]
    name: String,
}

impl Options {
    /// What the gate runs.
    pub fn quick() -> Self {
        Options { quick: true, on_host: false, group: None, name: String::new() }
    }
}

const COMMAND: &str = "faultless command build";

/// Builds what the scenarios need, then runs them.
pub fn build_and_run(ledger: &mut Ledger, options: &Options) {
    if !options.on_host {
        build::kernel(ledger);
    }
    build::guest(ledger);
    run(ledger, options);
}

/// Runs the scenarios with what is built.
pub fn run(ledger: &mut Ledger, options: &Options) {
    let cases = match cases(options) {
        Ok(cases) => cases,
        Err(failure) => return ledger.step("guest tests", || Err(failure)),
    };
    if !options.on_host {
        ledger.step(COMMAND, || Job::cargo("", &["build", "-p", "faultless-cli", "-j2"]).run());
    }
    for (case, name) in cases {
        let mut needed = if options.on_host { vec![] } else { vec![build::KERNEL, COMMAND] };
        needed.extend(case.scenario.is_ours().then_some(build::GUEST));
        ledger.step_after(&needed, &name, || {
            let done = if options.on_host { case.run_on_host() } else { in_guest(&case) };
            done.map_err(|what| Failure { what: format!("{name}: {what}"), repeat: case.line(options.on_host) })
        });
    }
}

fn cases(options: &Options) -> Result<Vec<(Case, String)>, Failure> {
    let broken = |what: String| Failure { what: format!("{TABLE}: {what}"), repeat: "cargo xtask guest-tests".into() };
    let text = fs::read_to_string(workspace::at(TABLE)).map_err(|error| broken(error.to_string()))?;
    let table: Table = toml::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let cases = table.cases(options.on_host).map_err(broken)?;
    let wanted = |case: &Case| {
        let is_in = case.scenario.group == options.group;
        is_in && (case.scenario.quick || !options.quick) && case.name().contains(&options.name)
    };
    let named = cases.into_iter().filter(wanted).map(|case| {
        let place = if options.on_host { "host" } else { "guest" };
        let name = format!("{place} {}", case.name());
        (case, name)
    });
    let cases: Vec<_> = named.collect();
    if cases.is_empty() { Err(broken(format!("no scenario is called {:?}", options.name))) } else { Ok(cases) }
}

fn command() -> PathBuf {
    workspace::at("target/debug/faultless")
}

/// Runs a case, and again if two runs have to come out the same. On a busy host the emulator's device threads take, once
/// in a while, their turn at another instruction, so a few more runs are allowed; the same figures never come by chance.
fn in_guest(case: &Case) -> Result<Tally, String> {
    const MOST: usize = 4;
    let mut runs = vec![run_in_guest(case)?];
    if !case.scenario.twice {
        return Ok(Tally::ONE);
    }
    while runs.len() < MOST {
        let run = run_in_guest(case)?;
        if runs.contains(&run) {
            return Ok(Tally::ONE);
        }
        runs.push(run);
    }
    Err(format!("{MOST} runs all differ:\n{runs:#?}"))
}

/// Runs a case, judges it, and returns all that came out: output and report.
fn run_in_guest(case: &Case) -> Result<(String, serde_json::Value), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let report = dir.path().join("report.json");
    let output = case.run_in_guest(&command(), &report)?;
    case.judge(&output)?;
    let report = read_report(&report)?;
    case.judge_report(&report)?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), report))
}

fn read_report(path: &Path) -> Result<serde_json::Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("there is no report: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("the report is no JSON: {error}"))
}
