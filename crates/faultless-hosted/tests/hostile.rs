//! Several CPUs at once on the hostile machine: each schedule is chosen by a seed and replayed exactly by it.
//!
//! Rows of REQUIREMENTS: F-03, F-05, F-06, F-08, F-12, F-15, AN-02, CW-01 to CW-05, PL-04, PL-05, FK-02, FK-05, FK-06,
//! SH-01, SH-05 to SH-07, SH-09, ZP-05, ZP-07, TB-01, TB-03, TB-04, VM-02 to VM-06, VM-12, VM-13, AC-01, AC-02, AC-06.
//!
//! Environment: `FAULTLESS_SEED` replays one seed, `FAULTLESS_ROUNDS` (default 1) multiplies the rounds.

mod common;

use common::replay::{catch, each_seed};
use common::storm::Storm;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn storms_have_an_explanation() {
    each_seed("hostile storms_have_an_explanation", 1, 600, |seed| catch(|| Storm::of(seed).run()).map(drop));
}

#[test]
fn storms_with_failing_allocations_have_an_explanation() {
    let test = "hostile storms_with_failing_allocations_have_an_explanation";
    each_seed(test, 1_000_000, 400, |seed| catch(|| Storm { failing: true, ..Storm::of(seed) }.run()).map(drop));
}

/// Seeds of storms with failing allocations that found something (docs/races.md).
const FOUND_BY: [u64; 2] = [51_038_189, 71_030_723];

#[test]
fn storms_that_found_something_have_an_explanation_now() {
    for seed in FOUND_BY {
        let result = catch(|| Storm { failing: true, ..Storm::of(seed) }.run());
        assert!(result.is_ok(), "seed {seed}: {}", result.err().unwrap_or_default());
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 5000..5010 {
        let digests = [0, 1].map(|_| catch(|| Storm::of(seed).run()));
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

#[test]
fn generations_come_round() {
    let waits = AtomicU64::new(0);
    each_seed("hostile generations_come_round", 1, 16, |seed| {
        let (_, stats) = catch(|| Storm::of_generations(seed).run())?;
        waits.fetch_add(stats.get("wrap_guard_waits"), Ordering::Relaxed);
        Ok(())
    });
    let replays = std::env::var_os("FAULTLESS_SEED").is_some();
    assert!(waits.into_inner() > 0 || replays, "no storm makes a generation come round");
}

/// The storms come to every corner that only several CPUs come to.
#[test]
fn storms_reach_every_slow_path() {
    let mut sums = std::collections::BTreeMap::new();
    for seed in 7000..7300 {
        let (_, stats) = catch(|| Storm::of(seed).run()).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        stats.iter().for_each(|(name, count)| *sums.entry(name).or_insert(0) += count);
    }
    println!("{sums:#?}");
    for name in [
        "fault_retries",
        "fault_waits",
        "fault_cow",
        "fault_cow_zero",
        "fault_reuse",
        "fault_finish",
        "fault_early_copy",
        "fault_shared",
        "fault_spurious",
        "cow_remote_flushes",
        "slow_unshare_copy",
        "slow_unshare_take",
        "fork_section_waits",
        "flush_local",
        "flush_remote",
    ] {
        assert!(sums[name] > 0, "no storm reaches {name}: {sums:#?}");
    }
}
