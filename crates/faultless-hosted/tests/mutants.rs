//! Seeded bugs: the storms must find each of them.
//!
//! Run with `cargo test -p faultless-hosted --features mutants --test mutants`. A mutant is switched on for the whole
//! process, so the cases run one after the other.
//!
//! Environment: `FAULTLESS_MUTANT` runs the one of that name only, `FAULTLESS_ROUNDS` (default 1) multiplies the seeds.

mod common;

use common::replay::{catch, env};
use common::storm::Storm;
use faultless::mutant::{Mutant, set};

/// Mutants that the storms find, and how many seeds they may take.
const FOUND: [(Mutant, u64); 20] = [
    (Mutant::NoDeadCheck, 1000),
    (Mutant::DeadCheckFirst, 1000),
    (Mutant::NoStamp, 1000),
    (Mutant::NoUpperStamp, 1000),
    (Mutant::NoGenerationBump, 1000),
    (Mutant::NoWrapGuard, 1000),
    (Mutant::CowDirect, 1000),
    (Mutant::NoPendingFlush, 1000),
    (Mutant::FreeBeforeFlush, 1000),
    (Mutant::NoShootdown, 1000),
    (Mutant::NoPending, 1000),
    (Mutant::NoFreeze, 1000),
    (Mutant::NoForkGrace, 1000),
    (Mutant::NoForkFlush, 1000),
    (Mutant::CopyKeepsExclusive, 1000),
    (Mutant::DropBeforeFlush, 1000),
    (Mutant::TakeWithoutLock, 1000),
    (Mutant::NoEpoch, 1000),
    (Mutant::AlwaysQuiet, 1000),
    (Mutant::NoPageRecheck, 1000),
];

/// The number of seeds until a storm fails.
fn seeds_until_found(most: u64) -> Option<(u64, String)> {
    (1..=most).find_map(|seed| catch(|| Storm::of(seed).run()).err().map(|what| (seed, what)))
}

#[test]
fn storms_find_every_mutant() {
    let only = std::env::var("FAULTLESS_MUTANT").ok();
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for (mutant, most) in FOUND {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        set(mutant);
        let found = seeds_until_found(most * env("FAULTLESS_ROUNDS", 1));
        set(Mutant::None);
        match found {
            Some((seeds, what)) => {
                let first = what.lines().next().unwrap_or_default();
                println!("{mutant:?}: seed {seeds}: {:.160}", first);
            }
            None => missed.push(mutant),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// For those who tune the table above: which kinds of storms find the mutant in `FAULTLESS_MUTANT`?
#[test]
#[ignore = "a survey, not a check"]
fn survey() {
    let only = std::env::var("FAULTLESS_MUTANT").expect("names a mutant");
    std::panic::set_hook(Box::new(|_| ()));
    let all = FOUND.iter().map(|(mutant, _)| *mutant).chain([
        Mutant::ForkWithoutLock,
        Mutant::NoActivateFence,
        Mutant::NoAloneCheck,
        Mutant::SweepByStore,
    ]);
    for mutant in all.filter(|mutant| format!("{mutant:?}") == only) {
        set(mutant);
        for kind in 0..common::storm::KINDS_OF_STORMS {
            let most = 1000 * env("FAULTLESS_ROUNDS", 1);
            let found =
                (1..=most).find_map(|seed| catch(|| Storm::of_kind(kind, seed).run()).err().map(|what| (seed, what)));
            let text =
                found.map(|(seed, what)| format!("seed {seed}: {:.120}", what.lines().next().unwrap_or_default()));
            println!("{mutant:?} kind {kind}: {}", text.unwrap_or("-".into()));
        }
        let most = 100 * env("FAULTLESS_ROUNDS", 1);
        let found =
            (1..=most).find_map(|seed| catch(|| Storm::of_generations(seed).run()).err().map(|what| (seed, what)));
        let text = found.map(|(seed, what)| format!("seed {seed}: {:.120}", what.lines().next().unwrap_or_default()));
        println!("{mutant:?} generations: {}", text.unwrap_or("-".into()));
        set(Mutant::None);
    }
}
