//! What the guest programs share: arenas, probing accesses, children, seeds and reports.
//!
//! The programs are ordinary static Linux executables. Linux is their judge: each must pass
//! on the host first, and then means the same inside the kernel of this repository.
//! `vmbench` uses none of this; it runs without std.

pub mod arena;
pub mod args;
pub mod child;
pub mod crew;
pub mod object;
pub mod probe;
pub mod report;
pub mod rng;
pub mod sys;

#[cfg(test)]
mod tests;
