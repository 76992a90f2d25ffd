//! Seeds and their replay: a failure prints one line that repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A number from the environment, or `default`.
pub fn env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

/// Runs `check` for `rounds` seeds from `first` on, or for the one in `FAULTLESS_SEED`.
///
/// `FAULTLESS_ROUNDS` multiplies the number of rounds; `FAULTLESS_SKIP` leaves out that many seeds at the beginning, for
/// hunts where nobody has looked yet. `check` returns what went wrong.
pub fn each_seed(test: &str, first: u64, rounds: u64, mut check: impl FnMut(u64) -> Result<(), String>) {
    let seed = env("FAULTLESS_SEED", u64::MAX);
    let first = first + env("FAULTLESS_SKIP", 0);
    let seeds = if seed == u64::MAX { first..first + rounds * env("FAULTLESS_ROUNDS", 1) } else { seed..seed + 1 };
    for seed in seeds {
        if let Err(what) = check(seed) {
            panic!("{what}\nreplay: FAULTLESS_SEED={seed} cargo test -p faultless-hosted --test {test}\n");
        }
    }
}

/// Runs `body`; a panic becomes an error with its message.
pub fn catch<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| String::from(*text)));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Drops parts of `script` for as long as it keeps failing: halves first, single steps last.
pub fn shrink<T: Clone>(mut script: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut part = script.len().div_ceil(2).max(1);
    // Each failing trial is at least one step shorter, and the budget ends the others.
    let mut budget = 2000;
    loop {
        let (mut at, mut shorter) = (0, false);
        while at < script.len() && budget > 0 {
            let mut trial = script.clone();
            trial.drain(at..(at + part).min(trial.len()));
            budget -= 1;
            if fails(&trial) {
                script = trial;
                shorter = true;
            } else {
                at += part;
            }
        }
        if budget == 0 || part == 1 && !shorter {
            return script;
        }
        if !shorter {
            part = part.div_ceil(2);
        }
    }
}
