//! Protection keys, as Linux answers where the CPU has none: no key can be had, and there is none to name.

use faultless::Machine;

use super::mprotect;
use crate::{Caller, Errno};

/// There are no keys.
///
/// # Errors
///
/// `EINVAL`, always.
pub fn pkey_alloc() -> Result<u32, Errno> {
    Err(Errno::EINVAL)
}

/// No key was given out.
///
/// # Errors
///
/// `EINVAL`, always.
pub fn pkey_free() -> Result<(), Errno> {
    Err(Errno::EINVAL)
}

/// `mprotect` for a key of -1, which is none.
///
/// # Errors
///
/// As `mprotect`; `EINVAL` for a key.
pub fn pkey_mprotect<M: Machine>(
    caller: &mut Caller<'_, M>,
    start: u64,
    length: u64,
    protection: u64,
    key: i32,
) -> Result<(), Errno> {
    mprotect::protect_with(caller, start, length, protection, key)
}
