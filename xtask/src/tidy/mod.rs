//! The house rules that a machine can check cheaply.
//!
//! | module      | rules                                                                                      |
//! |-------------|--------------------------------------------------------------------------------------------|
//! | `shape`     | functions of at most 70 lines, files of at most 600 without tests, a `//!` header each      |
//! | `words`     | no postponed work in comments, no path of the machine that built something                  |
//! | `rooms`     | in `crates/faultless`: imports go down, atomics through `sync`, `unsafe` where it is allowed |
//! | `protocols` | each `P<n>` cited in code has its page in docs/protocols, and each page is cited             |
//! | `redzone`   | nothing in the kernel image uses the red zone, which an interrupt would overwrite            |
//!
//! Called by `cargo xtask tidy` and by `ci`. Formatting and lints are rustfmt's and clippy's.

mod protocols;
mod redzone;
mod rooms;
mod shape;
mod source;
mod words;

use std::fmt;

use crate::build;
use crate::step::{Failure, Ledger, Tally};
use crate::workspace;
use source::Source;

/// One place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the source tree.
    path: String,
    /// The line, or 0 for the file as a whole.
    line: usize,
    /// What is wrong, and what to do.
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

/// Looks at all sources for one kind of finding.
type Rule = fn(&[Source]) -> Vec<Finding>;

/// Checks everything.
pub fn run(ledger: &mut Ledger) {
    ledger.step("tidy", || {
        let sources = source::all().map_err(|error| Failure { what: error.to_string(), repeat: REPEAT.into() })?;
        let rules: [Rule; 4] = [shape::check, words::check, rooms::check, protocols::check];
        let findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(&sources)).collect();
        println!("{} files", sources.len());
        report(findings)
    });
    if workspace::kernel_image().is_file() {
        ledger.step_after(&[build::KERNEL], "tidy: red zone", || report(redzone::check()?));
    } else {
        let what = "there is no kernel image to look into".into();
        ledger.step_after(&[build::KERNEL], "tidy: red zone", || {
            Err(Failure { what, repeat: format!("cargo xtask kernel && {REPEAT}") })
        });
    }
}

const REPEAT: &str = "cargo xtask tidy";

fn report(mut findings: Vec<Finding>) -> Result<Tally, Failure> {
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(Tally::ONE),
        count => Err(Failure { what: format!("{count} places break a house rule"), repeat: REPEAT.into() }),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}
