//! A short check against the host's Linux, and the scenarios that once failed. Those in `scenarios/open` still do.

use faultless_sim::check::{CheckError, Plan, check};
use faultless_sim::judge::{Canary, Failure, Machine, Manner, judge};
use faultless_sim::scenario::Scenario;
use std::time::{SystemTime, UNIX_EPOCH};

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
    let manner = Manner { machine: Machine::Hostile(7), every: 4, others: 4, details: 20, canary: None };
    run(&Plan { manner, ..Plan::new(number("FAULTLESS_SEED", 100_000), number("FAULTLESS_OPERATIONS", 1000)) });
}

#[test]
fn a_new_seed_agrees() {
    // Another one each time; the variable repeats it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64 % 1_000_000_000);
    let seed = number("FAULTLESS_NEW_SEED", now);
    println!("to repeat: FAULTLESS_NEW_SEED={seed} cargo test -p faultless-sim --test linux a_new_seed_agrees");
    run(&Plan::new(seed, number("FAULTLESS_OPERATIONS", 1500)));
}

#[test]
fn planted_wrong_answers_are_found() {
    let plan = Plan::new(42, 0);
    for canary in Canary::ALL {
        let manner = Manner { canary: Some(canary), ..Manner::STRICT };
        // Not every scenario has a place for it.
        let found = (42..142).find_map(|seed| match judge(&plan.scenario(seed), manner) {
            Ok(_) => None,
            Err(Failure::Differs(difference)) => Some(difference.what),
            Err(failure) => panic!("{canary:?}: {failure}"),
        });
        assert_eq!(found, Some(canary.alarm()), "{canary:?}");
    }
}

#[test]
fn what_was_planted_is_found_in_few_steps() {
    let manner = Manner { canary: Some(Canary::Mapping), ..Manner::STRICT };
    match check(&Plan { manner, ..Plan::new(42, 1000) }, |_| ()) {
        Err(CheckError::Found(found)) => assert_eq!(found.scenario.steps.len(), 1, "{}", found.scenario),
        other => panic!("{other:?}"),
    }
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
