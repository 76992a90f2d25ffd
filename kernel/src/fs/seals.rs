//! Seals of `memfd_create` files: changes that are refused from some point on.
//!
//! Called by `fcntl`, `chmod` and `mmap`, and by writes and resizes. Files with names have the seal that forbids seals,
//! as on Linux's tmpfs.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;

use super::data::FileData;
use super::inode::Inode;
use crate::errno::Errno;

/// No change of what may be executed; not among the constants.
pub const F_SEAL_EXEC: u32 = 32;
/// No writing, by whatever way or by new ones.
const AGAINST_WRITES: u32 = linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE;
const KNOWN: u32 = linux::F_SEAL_SEAL | linux::F_SEAL_SHRINK | linux::F_SEAL_GROW | AGAINST_WRITES | F_SEAL_EXEC;

impl FileData {
    /// `F_GET_SEALS`.
    pub fn seals(&self) -> u32 {
        self.seals.load(Ordering::Relaxed)
    }

    /// The state in which `memfd_create` leaves a file.
    pub fn set_initial_seals(&self, seals: u32) {
        self.seals.store(seals, Ordering::Relaxed);
    }

    /// `F_ADD_SEALS`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown seals, `EPERM` if the seals are sealed, `EBUSY` for [`linux::F_SEAL_WRITE`] while there are
    /// shared mappings that may be written to; `ENOMEM`.
    pub fn add_seals(&self, inode: &Inode, mut seals: u32) -> Result<(), Errno> {
        if seals & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let _writing = self.writing.lock();
        let old = self.seals();
        if old & linux::F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if seals & F_SEAL_EXEC != 0 && inode.attributes.lock().permissions & 0o111 != 0 {
            // What may be executed is not to be changed afterwards.
            seals |= linux::F_SEAL_SHRINK | linux::F_SEAL_GROW | AGAINST_WRITES;
        }
        if seals & !old & linux::F_SEAL_WRITE != 0 {
            self.object(inode)?.deny_writers().map_err(|_| Errno::EBUSY)?;
        }
        self.seals.store(old | seals, Ordering::Relaxed);
        Ok(())
    }

    /// May new mappings not write?
    pub fn seals_writes(&self) -> bool {
        self.seals() & AGAINST_WRITES != 0
    }

    pub(super) fn check_write(&self, extends: bool) -> Result<(), Errno> {
        if self.seals_writes() { Err(Errno::EPERM) } else { self.check_growth(extends) }
    }

    pub(super) fn check_growth(&self, extends: bool) -> Result<(), Errno> {
        if extends && self.seals() & linux::F_SEAL_GROW != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    pub(super) fn check_resize(&self, old: u64, new: u64) -> Result<(), Errno> {
        let seals = self.seals();
        let grows = new > old && seals & linux::F_SEAL_GROW != 0;
        let shrinks = new < old && seals & linux::F_SEAL_SHRINK != 0;
        if grows || shrinks { Err(Errno::EPERM) } else { Ok(()) }
    }
}
