//! Seals of `memfd_create` files: changes that are refused from some point on.
//!
//! Called by `fcntl`, and by writes and resizes. Seals against writing need the count of writable
//! shared mappings, which nobody keeps here, so they are refused with `EINVAL` as on kernels that do
//! not know them.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;

use super::data::FileData;
use crate::errno::Errno;

const KNOWN: u32 = linux::F_SEAL_SEAL | linux::F_SEAL_SHRINK | linux::F_SEAL_GROW;

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
    /// `EINVAL` for seals that are not supported, `EPERM` if the seals are sealed.
    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        if seals & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let _writing = self.writing.lock();
        let old = self.seals();
        if old & linux::F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        self.seals.store(old | seals, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn check_write(&self, extends: bool) -> Result<(), Errno> {
        if extends && self.seals() & linux::F_SEAL_GROW != 0 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    pub(super) fn check_resize(&self, old: u64, new: u64) -> Result<(), Errno> {
        let seals = self.seals();
        let grows = new > old && seals & linux::F_SEAL_GROW != 0;
        let shrinks = new < old && seals & linux::F_SEAL_SHRINK != 0;
        if grows || shrinks { Err(Errno::EPERM) } else { Ok(()) }
    }
}
