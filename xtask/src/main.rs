//! Development tasks: `cargo xtask ci` is the gate, the others are its parts.
//!
//! Everything runs with at most two jobs, prints each step's name and time, and names the command that repeats a
//! failure. Absent on purpose: anything that downloads or installs; that is the business of `.ci/run`.

#![forbid(unsafe_code)]

mod build;
mod ci;
mod guest_tests;
mod job;
mod models;
mod step;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use step::Ledger;

/// Development tasks of the faultless workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that must hold before a change lands
    Ci,
    /// Build the kernel image
    Kernel,
    /// Build the guest programs
    Guest,
    /// Check the house rules that a machine can check
    Tidy,
    /// Run the model-checking suites
    Models(models::Options),
    /// Run programs on the kernel in QEMU
    GuestTests(guest_tests::Options),
}

fn main() -> ExitCode {
    let mut ledger = Ledger::default();
    match Cli::parse().task {
        Task::Ci => ci::run(&mut ledger),
        Task::Kernel => build::kernel(&mut ledger),
        Task::Guest => build::guest(&mut ledger),
        Task::Tidy => tidy::run(&mut ledger),
        Task::Models(options) => models::run(&mut ledger, &options),
        Task::GuestTests(options) => guest_tests::build_and_run(&mut ledger, &options),
    }
    ledger.close()
}
