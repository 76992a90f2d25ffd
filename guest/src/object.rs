//! Files without a name, to map.
//!
//! Called by the programs that need shared or file-backed memory.

use crate::arena::word;
use crate::sys::{self, Errno, PAGE, WORDS};

/// A file of whole pages that is gone when its descriptor is closed.
#[derive(Debug)]
pub struct Object {
    /// Descriptor, open for reading and writing.
    pub fd: i32,
    /// Which call made it.
    pub kind: &'static str,
}

impl Object {
    /// A zeroed file of `len` bytes: a memfd, or where the kernel has none, an unlinked file
    /// in /tmp.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn new(len: usize) -> sys::Result<Self> {
        let name = c"guest".as_ptr() as usize;
        // SAFETY: the name is a C string.
        let object = match unsafe { sys::call(libc::SYS_memfd_create, [name, 0, 0, 0, 0, 0]) } {
            Ok(fd) => Self { fd: fd as i32, kind: "memfd" },
            Err(Errno(libc::ENOSYS)) => Self::in_tmp()?,
            Err(error) => return Err(error),
        };
        object.resize(len)?;
        Ok(object)
    }

    /// A file in /tmp whose name is removed at once.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn in_tmp() -> sys::Result<Self> {
        let name = format!("/tmp/guest-{}-{}\0", sys::getpid(), sys::gettid());
        let path = name.as_ptr() as usize;
        let flags = (libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as usize;
        let at = libc::AT_FDCWD as usize;
        // SAFETY: `path` is a C string.
        let fd = unsafe { sys::call(libc::SYS_openat, [at, path, flags, 0o600, 0, 0]) }?;
        // SAFETY: as above.
        unsafe { sys::call(libc::SYS_unlinkat, [at, path, 0, 0, 0, 0]) }?;
        Ok(Self { fd: fd as i32, kind: "file" })
    }

    /// Sets the length in bytes.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn resize(&self, len: usize) -> sys::Result {
        // SAFETY: mappings of the file exist in arenas only, where faults are expected.
        unsafe { sys::call(libc::SYS_ftruncate, [self.fd as usize, len, 0, 0, 0, 0]) }
    }

    /// Writes `data` at byte `offset` with `pwrite`.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn write(&self, offset: usize, data: &[u8]) -> sys::Result {
        let args = [self.fd as usize, data.as_ptr() as usize, data.len(), offset, 0, 0];
        // SAFETY: `data` is readable.
        unsafe { sys::call(libc::SYS_pwrite64, args) }
    }

    /// Reads into `data` from byte `offset` with `pread`.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn read(&self, offset: usize, data: &mut [u8]) -> sys::Result {
        let args = [self.fd as usize, data.as_mut_ptr() as usize, data.len(), offset, 0, 0];
        // SAFETY: `data` is writable.
        unsafe { sys::call(libc::SYS_pread64, args) }
    }

    /// Fills page `page` with the pattern of `key`, through `pwrite`.
    ///
    /// # Errors
    ///
    /// What the kernel returns.
    pub fn fill(&self, page: usize, key: u64) -> sys::Result {
        self.write(page * PAGE, &bytes(key))
    }
}

/// A page filled with the pattern of `key`.
#[must_use]
pub fn bytes(key: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for index in 0..WORDS {
        page[index * 8..][..8].copy_from_slice(&word(key, index).to_le_bytes());
    }
    page
}

impl Drop for Object {
    fn drop(&mut self) {
        sys::close(self.fd);
    }
}
