//! The gate: everything that must hold before a change lands, cheapest first.

use crate::job::Job;
use crate::step::Ledger;
use crate::{build, guest_tests, models, tidy};

/// Runs the gate.
pub fn run(ledger: &mut Ledger) {
    for (name, dir) in [("fmt", ""), ("fmt kernel", "kernel"), ("fmt guest", "guest")] {
        ledger.step(name, || Job::cargo(dir, &["fmt", "--all", "--check"]).run());
    }
    ledger.step("fmt kernel/hosted", || Job::cargo("", &["fmt", "--check", "--manifest-path", HOSTED]).run());
    clippy(ledger);
    ledger.step("tests", || Job::cargo("", &["test", "--workspace", "-j2"]).run());
    ledger.step("tests kernel", || {
        Job::cargo("", &["test", "-j2", "--manifest-path", HOSTED, "--target-dir", "target/kernel-hosted"]).run()
    });
    ledger.step("tests guest", || Job::cargo("guest", &["test", "-j2", "--target-dir", "target"]).run());
    ledger.step("docs", || {
        let job = Job::cargo("", &["doc", "--workspace", "--no-deps", "-j2"]);
        job.env("RUSTDOCFLAGS", "-D warnings").run()
    });
    build::kernel(ledger);
    build::guest(ledger);
    tidy::run(ledger);
    models::run(ledger, &models::Options::quick());
    guest_tests::run(ledger, &guest_tests::Options::quick());
}

/// The kernel's pure modules as a package for the host. Called from outside of `kernel/`, whose compiler flags must not
/// reach it. Its code is the kernel's and is linted there.
const HOSTED: &str = "kernel/hosted/Cargo.toml";

fn clippy(ledger: &mut Ledger) {
    let deny = ["--", "-D", "warnings"];
    ledger.step("clippy", || Job::cargo("", &["clippy", "--workspace", "--all-targets", "-j2"]).args(deny).run());
    // The kernel has no test targets; `--all-targets` would look for some.
    ledger
        .step("clippy kernel", || Job::cargo("kernel", &["clippy", "-j2", "--target-dir", "target"]).args(deny).run());
    ledger.step("clippy guest", || {
        Job::cargo("guest", &["clippy", "--all-targets", "-j2", "--target-dir", "target"]).args(deny).run()
    });
}
