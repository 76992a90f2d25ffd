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

/// Mutants that the storms find; those of one kind only where all kinds together would take too many seeds.
///
/// Not here: bugs that need another CPU between two steps of the machine (`TakeWithoutLock`, `NoPageRecheck`), a
/// generation that comes round inside one fault (`NoWrapGuard`), that leave nothing wrong once all is torn down
/// (`NoUpperStamp`), or nothing that a storm looks at (`MoveBeforeFlush`, `CleanWithoutFlush`, which page is pinned). The
/// models of `faultless` catch these.
const FOUND: [(Mutant, Option<usize>); 22] = [
    (Mutant::NoDeadCheck, None),
    (Mutant::DeadCheckFirst, None),
    (Mutant::NoStamp, None),
    (Mutant::NoGenerationBump, Some(11)),
    (Mutant::CowDirect, None),
    (Mutant::NoPendingFlush, None),
    (Mutant::FreeBeforeFlush, Some(10)),
    (Mutant::NoShootdown, None),
    (Mutant::NoPending, None),
    (Mutant::NoFreeze, None),
    (Mutant::NoForkGrace, Some(9)),
    (Mutant::NoForkFlush, None),
    (Mutant::CopyKeepsExclusive, None),
    (Mutant::DropBeforeFlush, Some(10)),
    (Mutant::NoEpoch, None),
    (Mutant::AlwaysQuiet, None),
    (Mutant::MoveWithoutClose, Some(14)),
    (Mutant::MoveWithoutWait, Some(14)),
    (Mutant::MoveOpensEarly, Some(14)),
    (Mutant::PunchLate, Some(16)),
    (Mutant::PunchStaysOpen, Some(16)),
    (Mutant::ForkForgetsPins, Some(17)),
];

/// Seeds after which a mutant counts as not found.
const MOST_SEEDS: u64 = 3000;

/// The number of seeds until a storm fails.
fn seeds_until_found(kind: Option<usize>, most: u64) -> Option<(u64, String)> {
    let storm = |seed| kind.map_or_else(|| Storm::of(seed), |kind| Storm::of_kind(kind, seed));
    (1..=most).find_map(|seed| catch(|| storm(seed).run()).err().map(|what| (seed, what)))
}

#[test]
fn storms_find_every_mutant() {
    let only = std::env::var("FAULTLESS_MUTANT").ok();
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for (mutant, kind) in FOUND {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        set(mutant);
        let found = seeds_until_found(kind, MOST_SEEDS * env("FAULTLESS_ROUNDS", 1));
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
        Mutant::NoUpperStamp,
        Mutant::NoWrapGuard,
        Mutant::TakeWithoutLock,
        Mutant::NoPageRecheck,
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
