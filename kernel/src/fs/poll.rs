//! What a file is ready for.
//!
//! Called by `poll`, `select` and `epoll`. The bits are those of `poll(2)`.

use linux_raw_sys::general as linux;

/// A set of `POLL*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(pub u32);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// A read does not wait.
    pub const IN: Readiness = Readiness(linux::POLLIN | linux::POLLRDNORM);
    /// A write does not wait.
    pub const OUT: Readiness = Readiness(linux::POLLOUT | linux::POLLWRNORM);
    /// The other end is closed; always reported.
    pub const HUP: Readiness = Readiness(linux::POLLHUP);
    /// Writing is an error; always reported.
    pub const ERR: Readiness = Readiness(linux::POLLERR);
    /// Not an open file; always reported.
    pub const INVALID: Readiness = Readiness(linux::POLLNVAL);

    /// What is in either.
    pub const fn with(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// What of it a caller that asked for `wanted` gets.
    pub const fn wanted(self, wanted: u32) -> u32 {
        self.0 & (wanted | Self::HUP.0 | Self::ERR.0 | Self::INVALID.0)
    }
}
