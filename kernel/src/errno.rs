//! Linux error numbers as a type of their own.
//!
//! Used by every system call. The constants carry the names of the manual.

use linux_raw_sys::errno;

/// A Linux error number; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(u16);

/// What a system call that does not block computes.
pub type SysResult = Result<i64, Errno>;

impl Errno {
    /// The value a system call returns for this error: the negated number.
    pub fn as_return(self) -> i64 {
        -i64::from(self.0)
    }
}

/// Declares one associated constant per error number.
macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs)] // the names are the manual's
        #[allow(dead_code)] // a complete list is easier to keep than a used one
        impl Errno {
            $(pub const $name: Errno = Errno(errno::$name as u16);)*
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENODATA EOVERFLOW ELIBBAD ENOTSOCK EOPNOTSUPP EAFNOSUPPORT ETIMEDOUT
}
