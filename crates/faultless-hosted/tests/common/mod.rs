//! What the test suites share: scripts of operations, their execution beside the oracle, shrinking, replay.
#![allow(dead_code)] // each suite uses a part

pub mod replay;
pub mod script;
pub mod storm;
pub mod twin;
