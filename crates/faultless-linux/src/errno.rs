//! Linux error numbers as a type of their own. The constants carry the names of the manual.

use core::fmt;
use linux_raw_sys::errno;

/// A Linux error number; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

impl Errno {
    /// The error of this number, if it can be one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if matches!(number, 1..4096) { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The value a system call returns for this error: the negated number.
    #[must_use]
    pub fn as_return(self) -> i64 {
        -i64::from(self.0)
    }
}

/// Declares one associated constant per error number, and their names.
macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs)] // the names are the manual's
        impl Errno {
            $(pub const $name: Errno = Errno(errno::$name as u16);)*

            /// The manual's name, for the numbers that have a constant here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Errno::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENODATA EOVERFLOW ELIBBAD ENOTSOCK EOPNOTSUPP EAFNOSUPPORT ETIMEDOUT EHWPOISON
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn numbers_are_those_of_the_headers() {
        assert_eq!((Errno::EINVAL.number(), Errno::ENOMEM.as_return()), (22, -12));
        assert_eq!((Errno::new(0), Errno::new(4096)), (None, None));
        assert_eq!(format!("{} {}", Errno::EEXIST, Errno(999)), "EEXIST errno 999");
    }
}
