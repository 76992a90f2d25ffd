//! x86-64 paging entries as the processor's manual describes them: the walker's own decoder.
//!
//! Called by `walk`. Deliberately not `faultless::machine::Format`: a mistake in the codec must not hide behind the
//! same mistake in the MMU. Software's bits (9-11 and 52-62) are not looked at, as hardware does not.

use faultless::{FrameId, PAGE_SHIFT};

/// The value of one entry, at any level.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const LARGE: u64 = 1 << 7;
    const NO_EXECUTE: u64 = 1 << 63;
    /// Bits 12 to 51.
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// Does the processor use the entry at all?
    pub(crate) fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// Stores are permitted below.
    pub(crate) fn permits_write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// User mode may use what is below.
    pub(crate) fn permits_user(self) -> bool {
        self.0 & Self::USER != 0
    }

    /// Instruction fetches are permitted below.
    pub(crate) fn permits_execute(self) -> bool {
        self.0 & Self::NO_EXECUTE == 0
    }

    /// In an upper entry: a large page instead of a table. Nobody makes one here yet.
    pub(crate) fn is_large(self) -> bool {
        self.0 & Self::LARGE != 0
    }

    /// The page has been stored to since software cleared this.
    pub(crate) fn is_dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// The frame of the table or page.
    pub(crate) fn frame(self) -> FrameId {
        FrameId::new((self.0 & Self::ADDRESS) >> PAGE_SHIFT)
    }

    /// What the processor writes back when it has used the entry.
    pub(crate) fn used(self, store: bool) -> Self {
        Self(self.0 | Self::ACCESSED | if store { Self::DIRTY } else { 0 })
    }
}
