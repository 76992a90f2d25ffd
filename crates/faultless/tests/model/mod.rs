//! What the model suites share: a machine of model atomics, threads that work on it, and the harness.
//!
//! The code under test is the shipping core; only its atomics are the model checker's (`--cfg loom`, `--cfg shuttle`).

#![allow(dead_code, unused_imports)] // not every suite needs everything

mod backend;
mod machine;
mod run;
mod world;

pub use backend::spawn;
pub use faultless::machine::X86;
pub use faultless::{Access, Rights, Sharing};
pub use machine::ModelMachine;
pub use run::{Scenario, is_full, reach};
pub use world::{Backed, RO, Space, Worker, World, pages, rw};
