//! Whose turn it is: one CPU runs at a time, and the seed decides who is next.
//!
//! Called by `hostile` with the machine locked. Absent on purpose: threads; this file only makes choices.

use super::Schedule;
use crate::rng::Rng;

/// Why a CPU offers its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offer {
    /// Something is about to happen.
    Step,
    /// It waits for somebody else.
    Wait,
}

/// The state of a run.
#[derive(Debug)]
pub(super) struct Turns {
    schedule: Schedule,
    /// CPUs whose bodies have not ended.
    alive: Vec<bool>,
    /// The CPU that runs.
    pub(super) current: usize,
    /// Higher runs first.
    priorities: Vec<i64>,
    /// Below all priorities given so far.
    lowest: i64,
    /// Steps at which the priority of whoever runs falls.
    changes: Vec<u64>,
    /// Steps of this run.
    pub(super) steps: u64,
}

impl Turns {
    /// The turns of a run of the CPUs in `alive`.
    pub(super) fn new(schedule: Schedule, alive: Vec<bool>, rng: &mut Rng) -> Self {
        let priorities = alive.iter().map(|_| 1 + rng.below(1 << 20) as i64).collect();
        let changes = match schedule {
            Schedule::Random { .. } => Vec::new(),
            Schedule::Priorities { changes, length } => (0..changes).map(|_| rng.below(length)).collect(),
        };
        let mut turns = Self { schedule, alive, current: 0, priorities, lowest: 0, changes, steps: 0 };
        turns.current = turns.any(rng).unwrap_or(0);
        turns
    }

    /// Is the body of this CPU still running?
    pub(super) fn is_alive(&self, cpu: usize) -> bool {
        self.alive.get(cpu).copied().unwrap_or(false)
    }

    /// The next CPU after a step of the current one.
    pub(super) fn next(&mut self, offer: Offer, rng: &mut Rng) -> usize {
        self.steps += 1;
        match self.schedule {
            Schedule::Random { once_in } => match offer {
                Offer::Step if !rng.once_in(once_in) => self.current,
                _ => self.another(rng).unwrap_or(self.current),
            },
            Schedule::Priorities { .. } => {
                if offer == Offer::Wait || self.changes.contains(&self.steps) {
                    self.lowest -= 1;
                    self.priorities[self.current] = self.lowest;
                }
                self.highest().unwrap_or(self.current)
            }
        }
    }

    /// The body of the current CPU has ended. The next one, if any is left.
    pub(super) fn end(&mut self, rng: &mut Rng) -> Option<usize> {
        self.alive[self.current] = false;
        match self.schedule {
            Schedule::Random { .. } => self.any(rng),
            Schedule::Priorities { .. } => self.highest(),
        }
    }

    fn highest(&self) -> Option<usize> {
        (0..self.alive.len()).filter(|cpu| self.alive[*cpu]).max_by_key(|cpu| self.priorities[*cpu])
    }

    fn another(&self, rng: &mut Rng) -> Option<usize> {
        let others: Vec<usize> = (0..self.alive.len()).filter(|cpu| self.alive[*cpu] && *cpu != self.current).collect();
        (!others.is_empty()).then(|| rng.pick(&others))
    }

    fn any(&self, rng: &mut Rng) -> Option<usize> {
        let alive: Vec<usize> = (0..self.alive.len()).filter(|cpu| self.alive[*cpu]).collect();
        (!alive.is_empty()).then(|| rng.pick(&alive))
    }
}
