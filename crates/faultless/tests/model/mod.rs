//! What the model suites share: a machine of model atomics, threads that work on it, and the harness.
//!
//! The code under test is the shipping core; only its atomics are the model checker's (`--cfg loom`, `--cfg shuttle`).

#![allow(dead_code, unused_imports)] // not every suite needs everything

use faultless::AtomicEntry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod backend;
mod machine;
mod poison;
mod run;
mod world;

pub use backend::{Running, spawn};
pub use faultless::machine::X86;
pub use faultless::{Access, Rights, Sharing};
pub use machine::ModelMachine;
pub use poison::Poison;
pub use run::{Scenario, is_full, reach};
pub use world::{Backed, Pins, RO, Space, Worker, World, pages, rw};

/// A message from one thread to the others: what was done before is visible to whoever sees it raised.
#[derive(Clone)]
pub struct Flag(Arc<AtomicEntry>);

impl Flag {
    pub fn new() -> Self {
        Self(Arc::new(AtomicEntry::new(0)))
    }

    pub fn raise(&self) {
        self.0.store(1, Ordering::Release);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}
