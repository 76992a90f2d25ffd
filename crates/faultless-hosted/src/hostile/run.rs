//! Runs: threads of the host that hand one turn around.
//!
//! A thread waits for its turn on a condition variable of its own, so what happens depends on the seed alone. If one
//! panics, all others are made to, and the panic goes on in the caller of [`Hostile::run`].

use super::turns::{Offer, Turns};
use super::{Hostile, State};
use faultless::{CpuId, CpuSet, Flush};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::thread;

/// What one CPU does in a run.
pub type Body<'env> = Box<dyn FnOnce() + Send + 'env>;

/// A run under way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) turns: Turns,
    /// Somebody panicked.
    failure: Option<Failure>,
}

/// What somebody panicked with.
struct Failure(Option<Box<dyn Any + Send>>);

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failure")
    }
}

/// Where CPUs wait for their turn.
#[derive(Debug)]
pub(super) struct Stage(Vec<Condvar>);

/// Why a CPU stops that has done nothing wrong.
struct SomebodyElseFailed;

impl Stage {
    pub(super) fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| Condvar::new()).collect())
    }
}

impl Hostile {
    /// Runs the bodies, each as the CPU named, and returns when all have ended. The seed decides everything.
    ///
    /// # Panics
    ///
    /// With the panic of a body, if one panics; if a CPU is named twice or does not exist; if a run is under way.
    pub fn run(&self, bodies: Vec<(CpuId, Body<'_>)>) {
        self.begin(&bodies);
        thread::scope(|scope| {
            for (cpu, body) in bodies {
                scope.spawn(move || self.play(cpu.as_usize(), body));
            }
        });
        let run = self.lock().run.take().expect("begun above");
        if let Some(Failure(Some(payload))) = run.failure {
            resume_unwind(payload);
        }
    }

    fn begin(&self, bodies: &[(CpuId, Body<'_>)]) {
        let mut state = self.lock();
        assert!(state.run.is_none(), "a run inside a run");
        let mut alive = vec![false; self.config.cpus];
        for (cpu, _) in bodies {
            assert!(!std::mem::replace(&mut alive[cpu.as_usize()], true), "{cpu:?} twice");
        }
        let turns = Turns::new(self.config.schedule, alive, &mut state.rng);
        state.run = Some(Run { turns, failure: None });
    }

    /// The life of one thread of a run.
    fn play(&self, cpu: usize, body: Body<'_>) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            drop(self.wait_for_turn(self.lock(), cpu));
            body();
        }));
        let mut state = self.lock();
        let State { cpus, run, rng, .. } = &mut *state;
        let Some(run) = run else { return };
        cpus[cpu].serve();
        let next = if run.turns.current == cpu { run.turns.end(rng) } else { None };
        if let Err(payload) = result
            && !payload.is::<SomebodyElseFailed>()
            && run.failure.is_none()
        {
            run.failure = Some(Failure(Some(payload)));
        }
        if let Some(next) = next {
            run.turns.current = next;
        }
        self.stage.0.iter().for_each(Condvar::notify_all);
    }

    /// Something is about to happen, or the CPU waits: perhaps somebody else goes on first.
    pub(super) fn step(&self, offer: Offer) {
        let mut state = self.lock();
        let State { run: Some(run), rng, cpus, digest, .. } = &mut *state else { return };
        if thread::panicking() {
            return; // on the way out: the run is over
        }
        let me = run.turns.current;
        if run.turns.steps > self.config.most_steps {
            let (seed, steps) = (self.config.seed, run.turns.steps);
            drop(state);
            panic!("no progress: seed {seed} has taken {steps} steps");
        }
        if self.config.speculate != 0 && rng.once_in(self.config.speculate) {
            let cpu = rng.below(cpus.len() as u64) as usize;
            cpus[cpu].speculate(&self.arena, rng);
        }
        let next = run.turns.next(offer, rng);
        *digest = (*digest ^ next as u64).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        if next != me {
            run.turns.current = next;
            self.stage.0[next].notify_all();
            drop(self.wait_for_turn(state, me));
        }
    }

    fn wait_for_turn<'a>(&'a self, mut state: MutexGuard<'a, State>, cpu: usize) -> MutexGuard<'a, State> {
        loop {
            let run = state.run.as_ref().expect("a run lasts until its last thread has ended");
            if run.failure.is_some() {
                drop(state);
                panic_any(SomebodyElseFailed);
            }
            if run.turns.current == cpu {
                return state;
            }
            state = self.stage.0[cpu].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends an interrupt to each target; those without a thread take it at once. Returns its number.
    pub(super) fn send(&self, targets: &CpuSet, flush: &Flush) -> u64 {
        let State { run, cpus, interrupts, .. } = &mut *self.lock();
        *interrupts += 1;
        for target in targets.iter().map(CpuId::as_usize) {
            if run.as_ref().is_some_and(|run| run.turns.is_alive(target)) {
                cpus[target].interrupt(*interrupts, *flush);
            } else {
                cpus[target].forget(flush);
            }
        }
        *interrupts
    }
}
