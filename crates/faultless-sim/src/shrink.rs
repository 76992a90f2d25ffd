//! Shorter scenarios that fail in the same way.
//!
//! Called by `check`. Steps are dropped by halves and one by one; then ranges, files and words become smaller. A trial
//! counts only if the same thing differs: a shorter scenario with another difference is another matter.

use crate::arena::PAGE;
use crate::judge::{Difference, Failure, Manner, judge};
use crate::scenario::{MOST_PROCESSES, Op, Scenario, Step};

/// Most steps that all trials together may execute.
const BUDGET: usize = 40_000;
/// What making processes costs, in steps.
const TRIAL: usize = 10;

/// The shortest scenario found, and how it fails.
#[must_use]
pub fn shrink(scenario: &Scenario, first: &Difference, manner: Manner) -> (Scenario, Difference) {
    let mut best = Best { scenario: scenario.clone(), difference: first.clone(), manner, budget: BUDGET };
    best.scenario.steps.truncate(first.step + 1);
    let whole = scenario.clone();
    if !best.again() {
        best.scenario = whole;
    }
    // Ends: a round that changes nothing is the last, and so is one without budget.
    while best.drop_steps() | best.shrink_steps() && best.budget > 0 {}
    (best.scenario, best.difference)
}

struct Best {
    scenario: Scenario,
    difference: Difference,
    manner: Manner,
    budget: usize,
}

impl Best {
    /// Does the scenario still fail as it did?
    fn again(&mut self) -> bool {
        let scenario = self.scenario.clone();
        self.try_this(scenario)
    }

    fn try_this(&mut self, scenario: Scenario) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget = self.budget.saturating_sub(scenario.steps.len() + TRIAL);
        match judge(&scenario, self.manner) {
            Err(Failure::Differs(difference)) if difference.what == self.difference.what => {
                self.scenario = scenario;
                self.difference = *difference;
                true
            }
            _ => false,
        }
    }

    fn drop_steps(&mut self) -> bool {
        let mut changed = false;
        let mut part = self.scenario.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.scenario.steps.len() {
                let mut trial = self.scenario.clone();
                trial.steps.drain(at..(at + part).min(trial.steps.len()));
                if self.try_this(trial) {
                    changed = true;
                } else {
                    at += part;
                }
            }
            if part == 1 {
                return changed;
            }
            part = part.div_ceil(2);
        }
    }

    fn shrink_steps(&mut self) -> bool {
        let mut changed = false;
        for file in 0..self.scenario.files.len() {
            let mut trial = self.scenario.clone();
            trial.files[file] = 0;
            changed |= self.scenario.files[file] != 0 && self.try_this(trial);
            let mut trial = self.scenario.clone();
            trial.on_disk[file] = false;
            changed |= self.scenario.on_disk[file] && self.try_this(trial);
        }
        for child in 1..MOST_PROCESSES {
            if let Some(trial) = without_child(&self.scenario, child) {
                changed |= self.try_this(trial);
            }
        }
        for index in 0..self.scenario.steps.len() {
            for op in smaller(self.scenario.steps[index].op) {
                let mut trial = self.scenario.clone();
                trial.steps[index].op = op;
                changed |= self.try_this(trial);
            }
        }
        changed
    }
}

/// The scenario with `child`'s steps in the hands of its parent.
fn without_child(scenario: &Scenario, child: usize) -> Option<Scenario> {
    let born = |step: &Step| matches!(step.op, Op::Fork { child: other } if other == child);
    let parent = scenario.steps.iter().find(|step| born(step))?.process;
    let mut trial = scenario.clone();
    let about = |step: &Step| {
        born(step)
            || matches!(step.op, Op::Wait { child: other } if other == child)
            || step.process == child && matches!(step.op, Op::Exit { .. })
    };
    trial.steps.retain(|step| !about(step));
    for step in trial.steps.iter_mut().filter(|step| step.process == child) {
        step.process = parent;
    }
    Some(trial)
}

/// Simpler forms of an operation, simplest first.
fn smaller(op: Op) -> Vec<Op> {
    let shorter = |len: u64| {
        [PAGE, len / 2 / PAGE * PAGE, len.saturating_sub(PAGE)].into_iter().filter(move |new| *new > 0 && *new < len)
    };
    match op {
        Op::Map { at, len, prot, flags, file, offset } => {
            let map = |len, prot, flags, offset| Op::Map { at, len, prot, flags, file, offset };
            let simple = [map(len, 3, flags, offset), map(len, prot, flags, 0)];
            let plain = linux_raw_sys::general::MAP_POPULATE | linux_raw_sys::general::MAP_NORESERVE;
            let mut ops: Vec<Op> = shorter(len).map(|len| map(len, prot, flags, offset)).collect();
            ops.extend(simple.into_iter().filter(|new| *new != op));
            ops.extend((flags & plain != 0).then(|| map(len, prot, flags & !plain, offset)));
            ops
        }
        Op::Unmap { at, len } => shorter(len).map(|len| Op::Unmap { at, len }).collect(),
        Op::Protect { at, len, prot } => shorter(len).map(|len| Op::Protect { at, len, prot }).collect(),
        Op::Advise { at, len, advice } => shorter(len).map(|len| Op::Advise { at, len, advice }).collect(),
        Op::Lock { at, len, flags } => shorter(len).map(|len| Op::Lock { at, len, flags }).collect(),
        Op::Remap { at, old, new, flags, to } => {
            let olds = shorter(old).map(|old| Op::Remap { at, old, new, flags, to });
            olds.chain(shorter(new).map(|new| Op::Remap { at, old, new, flags, to })).collect()
        }
        Op::Load { at, width } if width > 1 => {
            vec![Op::Load { at: at & !(PAGE - 1), width: 1 }, Op::Load { at, width: 1 }]
        }
        Op::Store { at, width, value } if (width, value) != (1, 1) => {
            vec![Op::Store { at: at & !(PAGE - 1), width: 1, value: 1 }, Op::Store { at, width, value: 1 }]
                .into_iter()
                .filter(|new| *new != op)
                .collect()
        }
        Op::Poke { other, at, len, value } if len > 1 => vec![Op::Poke { other, at, len: 1, value }],
        Op::Peek { other, at, len } if len > 1 => vec![Op::Peek { other, at, len: 1 }],
        Op::Write { file, offset, len, value } if len > 1 => vec![Op::Write { file, offset, len: 1, value }],
        _ => Vec::new(),
    }
}
