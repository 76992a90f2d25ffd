//! Anonymous memory of the host's own kernel, to compare with. Called by the benchmark only.

use core::ptr::NonNull;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const PAGE: usize = 4096;

/// Fresh private anonymous memory, in small pages.
#[derive(Debug)]
pub struct Scratch {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: the mapping belongs to the value, whichever thread has it.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Maps `pages` pages that nobody has touched.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn new(pages: usize) -> Result<Self, Errno> {
        let (len, rights) = (pages * PAGE, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(core::ptr::null_mut(), len, rights, MapFlags::PRIVATE) }?;
        let scratch = Self { base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?, pages };
        // SAFETY: our own mapping; the advice changes no contents. A kernel without huge pages refuses: all the same.
        let _ = unsafe { madvise(base, len, Advice::LinuxNoHugepage) };
        Ok(scratch)
    }

    /// Stores `value` into the first word of each page.
    pub fn touch(&mut self, value: u64) {
        for page in 0..self.pages {
            // SAFETY: inside the mapping.
            let at = unsafe { self.base.as_ptr().add(page * PAGE) };
            // SAFETY: mapped read-write, aligned, and nobody else knows the memory.
            unsafe { at.cast::<u64>().write_volatile(value) };
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no borrow of it is ever given out.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.pages * PAGE) };
        debug_assert!(result.is_ok(), "the memory was mapped");
    }
}
