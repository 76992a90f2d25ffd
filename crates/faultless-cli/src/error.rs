//! Every way in which a command can fail: what happened, what to do next, and the exit code.
//!
//! Three kinds, each beside the code that raises it: the program and its files (`guest::error`), the machine that
//! should run it (`vm::error`), how the guest ended (`vm::ending`). Printed by the binary. Exit codes follow env(1),
//! timeout(1) and the shells, so that a program's own status stays recognisable: 124 timeout, 125 the command itself,
//! 126 not executable, 127 not found, 128+n ended by signal n.

use std::fmt;
use std::io;

use crate::guest::error::ProgramError;
use crate::vm::ending::GuestError;
use crate::vm::error::MachineError;

/// The exit code for failures of this command itself, as env(1) has it.
pub const EXIT_OWN_FAILURE: u8 = 125;

/// A failed command.
#[derive(Debug)]
pub enum Error {
    /// The program or its files are not what they should be.
    Program(ProgramError),
    /// QEMU or the kernel image cannot be had.
    Machine(MachineError),
    /// The guest ended otherwise than by its program's end.
    Guest(GuestError),
    /// Something on the host failed.
    Host {
        /// What was being done; completes the sentence "while ...".
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: a host operation that failed while `doing`.
    pub fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Host { doing, source }
    }

    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Program(error) => error.exit_code(),
            Error::Guest(error) => error.exit_code(),
            Error::Machine(_) | Error::Host { .. } => EXIT_OWN_FAILURE,
        }
    }

    /// A short fixed name of the failure, for JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Program(error) => error.kind(),
            Error::Machine(error) => error.kind(),
            Error::Guest(error) => error.kind(),
            Error::Host { .. } => "host",
        }
    }

    /// What the user can do about it, if anything is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Program(error) => error.help(),
            Error::Machine(error) => error.help(),
            Error::Guest(error) => error.help(),
            Error::Host { .. } => None,
        }
    }
}

impl From<ProgramError> for Error {
    fn from(error: ProgramError) -> Self {
        Error::Program(error)
    }
}

impl From<MachineError> for Error {
    fn from(error: MachineError) -> Self {
        Error::Machine(error)
    }
}

impl From<GuestError> for Error {
    fn from(error: GuestError) -> Self {
        Error::Guest(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Program(error) => error.fmt(f),
            Error::Machine(error) => error.fmt(f),
            Error::Guest(error) => error.fmt(f),
            Error::Host { doing, source } => write!(f, "while {doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Program(error) => Some(error),
            Error::Machine(error) => Some(error),
            Error::Guest(error) => Some(error),
            Error::Host { source, .. } => Some(source),
        }
    }
}

/// Paths for a message, one per line and indented.
pub(crate) fn listed(paths: &[std::path::PathBuf]) -> String {
    let lines = paths.iter().map(|path| format!("\n    {}", path.display()));
    lines.collect()
}

/// Another program's words for a message, indented, after a colon; nothing if it said nothing.
pub(crate) fn quoted(text: &str) -> String {
    let lines: String = text.trim().lines().map(|line| format!("\n    {line}")).collect();
    if lines.is_empty() { lines } else { format!(":{lines}") }
}
