//! Who was born of whom, who lives, who was waited for: so that any part of a scenario is one.
//!
//! Called by `judge`.

use super::{Difference, Failure};
use crate::scenario::{MOST_PROCESSES, Op};

/// Who was born of whom, who lives, who was waited for.
pub(super) struct Lives {
    parents: [Option<usize>; MOST_PROCESSES],
    born: [bool; MOST_PROCESSES],
    ended: [bool; MOST_PROCESSES],
    waited: [bool; MOST_PROCESSES],
}

impl Lives {
    pub(super) fn new() -> Self {
        let no = [false; MOST_PROCESSES];
        let mut born = no;
        born[0] = true;
        Self { parents: [None; MOST_PROCESSES], born, ended: no, waited: no }
    }

    pub(super) fn living(&self) -> Vec<usize> {
        (0..MOST_PROCESSES).filter(|process| self.lives(*process)).collect()
    }

    pub(super) fn lives(&self, process: usize) -> bool {
        self.born[process] && !self.ended[process]
    }

    /// Has the process a parent or a child?
    pub(super) fn has_forked(&self, process: usize) -> bool {
        self.parents[process].is_some() || self.parents.contains(&Some(process))
    }

    /// Does the step make sense now?
    pub(super) fn permits(&self, process: usize, op: &Op) -> bool {
        self.lives(process)
            && match *op {
                Op::Fork { child } => !self.born[child],
                Op::Wait { child } => self.parents[child] == Some(process) && !self.waited[child],
                Op::Peek { other, .. } | Op::Poke { other, .. } => self.lives(other),
                _ => true,
            }
    }

    pub(super) fn note(&mut self, process: usize, op: &Op) {
        match *op {
            Op::Fork { child } => (self.born[child], self.parents[child]) = (true, Some(process)),
            Op::Exit { .. } => self.ended[process] = true,
            Op::Wait { child } => self.waited[child] = self.ended[child],
            _ => {}
        }
    }

    pub(super) fn differs(&self, step: usize, what: &'static str, host: String, ours: String) -> Failure {
        let process = self.living().first().copied().unwrap_or_default();
        Failure::Differs(Box::new(Difference { step, process, what, host, ours }))
    }
}
