//! One file per subcommand. Each takes its parsed options and returns the exit code.
//!
//! Called by the binary.

pub mod check;
pub mod replay;
pub mod run;
