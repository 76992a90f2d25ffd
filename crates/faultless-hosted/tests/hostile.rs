//! Several CPUs at once on the hostile machine: each schedule is chosen by a seed and replayed exactly by it.
//!
//! Environment: `FAULTLESS_SEED` replays one seed, `FAULTLESS_ROUNDS` (default 1) multiplies the rounds.

mod common;

use common::replay::{catch, each_seed};
use common::storm::Storm;

#[test]
fn storms_have_an_explanation() {
    each_seed("hostile storms_have_an_explanation", 1, 600, |seed| catch(|| Storm::of(seed).run()).map(drop));
}

#[test]
fn storms_with_failing_allocations_have_an_explanation() {
    let test = "hostile storms_with_failing_allocations_have_an_explanation";
    each_seed(test, 1_000_000, 400, |seed| catch(|| Storm { failing: true, ..Storm::of(seed) }.run()).map(drop));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 5000..5010 {
        let digests = [0, 1].map(|_| catch(|| Storm::of(seed).run()));
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}
