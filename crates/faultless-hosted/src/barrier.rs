//! The pair of barriers: cheap for those who do something often, dear for those who wait for them.
//!
//! Called by the fast face, for `faultless`'s sections and for its own accesses. With the host's
//! `membarrier(PRIVATE_EXPEDITED)` the light side only keeps the compiler from reordering and the heavy side
//! interrupts every CPU that runs this process; without it both are `fence(SeqCst)`.

use core::sync::atomic::{Ordering, compiler_fence, fence};
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

/// Which pair this host allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Barrier {
    /// Light is free, heavy is a system call.
    Membarrier,
    /// Both are fences.
    Fences,
}

impl Barrier {
    /// Registers this process, if the host can.
    pub(crate) fn register() -> Self {
        let can = membarrier_query().contains_command(MembarrierCommand::PrivateExpedited)
            && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        if can { Self::Membarrier } else { Self::Fences }
    }

    /// Orders what this CPU stored before what it loads after, as seen by whoever calls `heavy`.
    #[inline]
    pub(crate) fn light(self) {
        match self {
            // Pairs with the interrupt that `heavy` sends.
            Self::Membarrier => compiler_fence(Ordering::SeqCst),
            // Pairs with the fence in `heavy`.
            Self::Fences => fence(Ordering::SeqCst),
        }
    }

    /// The other side of `light`.
    pub(crate) fn heavy(self) {
        // Pairs with `light`. With membarrier the system call is a full barrier for this CPU as well, but the language
        // does not know that.
        fence(Ordering::SeqCst);
        if self == Self::Membarrier {
            membarrier(MembarrierCommand::PrivateExpedited).expect("this process is registered");
        }
    }
}
