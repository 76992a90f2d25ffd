//! Frames that the [`Vm`](crate::Vm) does not use: a promise in the form of a value.

use crate::addr::FrameId;

/// Consecutive frames that somebody vouches for: device memory, or RAM that was kept from the [`Vm`](crate::Vm). They may
/// be mapped for programs to read, and to write where the mapping says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawFrames {
    base: FrameId,
    count: u64,
}

impl RawFrames {
    /// Vouches for `count` frames from `base` on.
    ///
    /// # Safety
    ///
    /// No part of the [`Vm`](crate::Vm), nor anything else in the program that maps them, relies on what they hold: whoever
    /// runs in a space that maps them may read and write them at any time.
    #[must_use]
    pub const unsafe fn new(base: FrameId, count: u64) -> Self {
        Self { base, count }
    }

    /// The first frame.
    #[must_use]
    pub const fn base(self) -> FrameId {
        self.base
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count
    }

    /// The same without the first `count`, or without any.
    #[must_use]
    pub const fn skip(self, count: u64) -> Self {
        let count = if count < self.count { count } else { self.count };
        Self { base: FrameId::new(self.base.as_u64() + count), count: self.count - count }
    }

    /// The first `count` of them, or all.
    #[must_use]
    pub const fn take(self, count: u64) -> Self {
        Self { base: self.base, count: if count < self.count { count } else { self.count } }
    }
}
