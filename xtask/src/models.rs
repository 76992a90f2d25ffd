//! Runs the model-checking suites named in `models.toml`.
//!
//! A suite that is named and does not exist is an error, and so is one that exists and is not named: no suite drops
//! out in silence. A suite that ran no test is an error too.

use std::collections::BTreeSet;
use std::fs;

use clap::Args;
use serde::Deserialize;

use crate::job::Job;
use crate::step::{Failure, Ledger, Tally};
use crate::workspace;

/// The table, from the root of the source tree.
const TABLE: &str = "xtask/models.toml";

/// How much to run.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the suites that are quick enough for every change, and within their narrower bounds
    #[arg(long)]
    quick: bool,
    /// Only suites whose name contains this
    #[arg(value_name = "NAME", default_value = "")]
    name: String,
}

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Packages whose `tests/` hold suites, and the file prefixes that make a suite.
    #[serde(default)]
    watch: Vec<Watch>,
    #[serde(default)]
    suite: Vec<Suite>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    package: String,
    prefixes: Vec<String>,
}

/// One test target under one model checker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    package: String,
    /// The test target, or `lib` for the library's own tests.
    test: String,
    /// `--cfg` flags, for example `loom`.
    #[serde(default)]
    cfg: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    /// Cargo's profile; `release` if absent.
    profile: Option<String>,
    /// Environment, for example the checker's bounds.
    #[serde(default)]
    env: std::collections::BTreeMap<String, String>,
    /// Whether it belongs into every change's gate.
    #[serde(default)]
    quick: bool,
    /// Arguments for the test harness in a quick run, for example a filter.
    #[serde(default)]
    quick_args: Vec<String>,
    /// Arguments for the test harness in any run.
    #[serde(default)]
    args: Vec<String>,
}

impl Options {
    /// What the gate runs.
    pub fn quick() -> Self {
        Options { quick: true, name: String::new() }
    }
}

/// Runs the suites.
pub fn run(ledger: &mut Ledger, options: &Options) {
    let table = match read() {
        Ok(table) => table,
        Err(failure) => return ledger.step("models", || Err(failure)),
    };
    ledger.step("models: every suite is in the table", || complete(&table));
    let wanted = |suite: &&Suite| suite.name().contains(&options.name) && (suite.quick || !options.quick);
    for suite in table.suite.iter().filter(wanted) {
        ledger.step(&format!("model {}", suite.name()), || suite.run(options));
    }
}

fn read() -> Result<Table, Failure> {
    let text = fs::read_to_string(workspace::at(TABLE)).map_err(|error| broken(error.to_string()))?;
    toml::from_str(&text).map_err(|error| broken(error.to_string()))
}

fn broken(what: String) -> Failure {
    Failure { what: format!("{TABLE}: {what}"), repeat: "cargo xtask models".into() }
}

/// Compares the table with the test files that are there.
fn complete(table: &Table) -> Result<Tally, Failure> {
    let mut unnamed = Vec::new();
    for watch in &table.watch {
        let named: BTreeSet<&str> = table
            .suite
            .iter()
            .filter(|suite| suite.package == watch.package)
            .map(|suite| suite.test.as_str())
            .collect();
        let found = test_targets(&watch.package);
        let is_suite = |name: &&String| watch.prefixes.iter().any(|prefix| name.starts_with(prefix));
        let forgotten = found.iter().filter(is_suite).filter(|name| !named.contains(name.as_str()));
        unnamed.extend(forgotten.map(|name| format!("{}: {name}", watch.package)));
    }
    match unnamed.is_empty() {
        true => Ok(Tally::ONE),
        false => Err(broken(format!("suites exist that it does not name: {}", unnamed.join(", ")))),
    }
}

fn test_targets(package: &str) -> Vec<String> {
    let entries = fs::read_dir(workspace::at("crates").join(package).join("tests"));
    let entries = entries.into_iter().flatten().flatten();
    let stem = |entry: fs::DirEntry| entry.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    entries.filter_map(stem).collect()
}

impl Suite {
    fn name(&self) -> String {
        let cfg = self.cfg.join("+");
        format!("{} {} {cfg}", self.package, self.test).trim_end().to_owned()
    }

    fn run(&self, options: &Options) -> Result<Tally, Failure> {
        let job = self.job(options.quick);
        let tally = job.run()?;
        if tally.passed == 0 {
            return Err(Failure { what: "the suite ran no test".into(), repeat: job.line() });
        }
        Ok(tally)
    }

    /// The cargo command. Each set of flags has its own target directory, so that no suite rebuilds another's.
    fn job(&self, quick: bool) -> Job {
        let profile = self.profile.as_deref().unwrap_or("release");
        let mut job = Job::cargo("", &["test", "-p", &self.package, "--profile", profile, "-j2"]);
        job = match self.test.as_str() {
            "lib" => job.args(["--lib"]),
            test => job.args(["--test", test]),
        };
        if !self.features.is_empty() {
            job = job.args(["--features", &self.features.join(",")]);
        }
        let flags: Vec<String> = self.cfg.iter().map(|cfg| format!("--cfg {cfg}")).collect();
        if !flags.is_empty() {
            job = job.env("RUSTFLAGS", &flags.join(" "));
            job = job.args(["--target-dir", &format!("target/{}", self.cfg.join("-"))]);
        }
        if !quick {
            job = job.env("FAULTLESS_MODEL", "full");
        }
        job = self.env.iter().fold(job, |job, (name, value)| job.env(name, value));
        let harness = if quick && !self.quick_args.is_empty() { &self.quick_args } else { &self.args };
        if harness.is_empty() { job } else { job.args(["--"]).args(harness) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_becomes_a_command() {
        let table: Table = toml::from_str(
            r#"
            [[watch]]
            package = "faultless"
            prefixes = ["loom_"]
            [[suite]]
            package = "faultless"
            test = "loom_pin"
            cfg = ["loom"]
            profile = "model"
            env = { LOOM_MAX_PREEMPTIONS = "2" }
            quick = true
            args = ["--test-threads=1"]
            "#,
        )
        .expect("a table");
        assert_eq!(
            table.suite[0].job(false).line(),
            "RUSTFLAGS='--cfg loom' FAULTLESS_MODEL=full LOOM_MAX_PREEMPTIONS=2 cargo test -p faultless --profile model \
             -j2 --test loom_pin --target-dir target/loom -- --test-threads=1"
        );
        assert_eq!(table.suite[0].name(), "faultless loom_pin loom");
    }

    #[test]
    fn the_table_in_the_tree_can_be_read() {
        read().expect("a table");
    }
}
