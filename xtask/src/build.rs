//! Builds of what is not part of the workspace: the kernel and the guest programs.
//!
//! Called by the tasks of the same names and by `ci`. Each is built from its own directory, because cargo takes the
//! flags from the configuration below the current one, and into its own target directory.

use crate::job::Job;
use crate::step::Ledger;

/// Names of the steps, for those that need them.
pub const KERNEL: &str = "kernel build";
/// As above.
pub const GUEST: &str = "guest programs build";

/// Builds the kernel image.
pub fn kernel(ledger: &mut Ledger) {
    ledger.step(KERNEL, || Job::cargo("kernel", &["build", "--release", "-j2", "--target-dir", "target"]).run());
}

/// Builds the guest programs.
pub fn guest(ledger: &mut Ledger) {
    ledger.step(GUEST, || Job::cargo("guest", &["build", "--release", "-j2", "--target-dir", "target"]).run());
}
