//! Many scenarios from seeds, until one fails or enough steps were executed.
//!
//! Called by the command and by tests. Scenario `n` of seed `s` is the same on every machine.

use std::time::{Duration, Instant};

use crate::generate::{Shape, generate};
use crate::judge::{Difference, Executed, Failure, Manner, judge};
use crate::ours;
use crate::scenario::Scenario;
use crate::shrink::shrink;
use faultless_hosted::Rng;

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed of the first scenario; the next has the next.
    pub seed: u64,
    /// Steps to execute in all.
    pub operations: u64,
    /// Steps per scenario.
    pub steps: usize,
    /// Most processes of a scenario.
    pub processes: usize,
    /// Once in so many steps several threads work at the same time; 0 for never.
    pub bursts: u64,
    /// How to compare.
    pub manner: Manner,
}

impl Plan {
    /// The usual plan.
    #[must_use]
    pub fn new(seed: u64, operations: u64) -> Self {
        Self {
            seed,
            operations,
            steps: 200,
            processes: 6,
            bursts: 30,
            manner: Manner { others: 4, details: 20, ..Manner::STRICT },
        }
    }

    /// The scenario of a seed.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> Scenario {
        let shape = Shape { steps: self.steps, processes: self.processes, bursts: self.bursts, calls: ours::CALLS };
        generate(&mut Rng::new(seed), &shape)
    }
}

/// How far a check has come.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Steps executed.
    pub operations: u64,
    /// The same by call.
    pub executed: Executed,
    /// Scenarios finished.
    pub scenarios: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

impl Progress {
    /// Steps per second.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A scenario that fails, shortened.
#[derive(Debug)]
pub struct Found {
    /// The seed of the long one.
    pub seed: u64,
    /// The shortest that fails in the same way.
    pub scenario: Scenario,
    /// How.
    pub difference: Difference,
}

/// A scenario without a verdict.
#[derive(Debug)]
pub struct Unjudged {
    /// Its seed.
    pub seed: u64,
    /// All of it.
    pub scenario: Scenario,
    /// Why.
    pub failure: Failure,
}

/// Why a check ended early.
#[derive(Debug)]
pub enum CheckError {
    /// The two sides differ.
    Found(Box<Found>),
    /// A scenario could not be judged.
    Failed(Box<Unjudged>),
}

/// Checks scenario after scenario; `tell` hears of each that agreed.
///
/// # Errors
///
/// [`CheckError`] at the first scenario that does not agree.
pub fn check(plan: &Plan, mut tell: impl FnMut(&Progress)) -> Result<Progress, CheckError> {
    let start = Instant::now();
    let mut progress = Progress::default();
    let mut seed = plan.seed;
    while progress.operations < plan.operations {
        let scenario = plan.scenario(seed);
        match judge(&scenario, plan.manner) {
            Ok(executed) => {
                progress.operations += executed.operations();
                progress.executed.add(&executed);
            }
            Err(Failure::Differs(difference)) => {
                let (scenario, difference) =
                    shrink(&scenario, &difference, Manner { every: 1, others: 1, details: 1, ..plan.manner });
                return Err(CheckError::Found(Box::new(Found { seed, scenario, difference })));
            }
            Err(failure) => return Err(CheckError::Failed(Box::new(Unjudged { seed, scenario, failure }))),
        }
        seed = seed.wrapping_add(1);
        progress.scenarios += 1;
        progress.elapsed = start.elapsed();
        tell(&progress);
    }
    Ok(progress)
}
