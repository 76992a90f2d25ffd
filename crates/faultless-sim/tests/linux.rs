//! A short check against the host's Linux, and the scenarios that once failed. Those in `scenarios/open` still do.

use faultless_sim::check::{CheckError, Plan, check};
use faultless_sim::judge::{Machine, Manner, judge};
use faultless_sim::scenario::Scenario;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(plan: &Plan) {
    match check(plan, |_| ()) {
        Ok(progress) => println!("{} operations, {:.0} per second", progress.operations, progress.speed()),
        Err(CheckError::Found(found)) => {
            panic!("seed {}:\n{}\n{}", found.seed, found.difference, found.scenario)
        }
        Err(CheckError::Failed(unjudged)) => {
            panic!("seed {}: {}\n{}", unjudged.seed, unjudged.failure, unjudged.scenario)
        }
    }
}

#[test]
fn random_scenarios_agree() {
    run(&Plan::new(number("FAULTLESS_SEED", 1), number("FAULTLESS_OPERATIONS", 3000)));
}

#[test]
fn random_scenarios_agree_on_the_hostile_machine() {
    let manner = Manner { machine: Machine::Hostile(7), every: 4 };
    run(&Plan { manner, ..Plan::new(number("FAULTLESS_SEED", 100_000), number("FAULTLESS_OPERATIONS", 1000)) });
}

#[test]
fn kept_scenarios_agree() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let entries = std::fs::read_dir(dir).expect("scenarios").map(|entry| entry.expect("a file").path());
    let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scenarios are kept");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("text");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Err(failure) = judge(&scenario, Manner::STRICT) {
            panic!("{}: {failure}", path.display());
        }
    }
}
