//! Linux error numbers, and what a system call returns.
//!
//! Used by every system call.

pub use faultless_linux::Errno;

/// What a system call that does not block computes.
pub type SysResult = Result<i64, Errno>;
