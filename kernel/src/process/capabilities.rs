//! Capabilities: kept and shown, and given up as on Linux.
//!
//! Called by `capget`, `capset` and /proc, and by who asks for one: to lock memory, to raise limits. There is one user,
//! who owns everything. A process has one set of them, where Linux has one a thread.

use crate::errno::Errno;

/// The three sets, one bit per capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What a program may keep when it is executed.
    pub inheritable: u64,
}

/// All but the one to map the lowest addresses.
const ALL: u64 = 0x1ff_ffff_ffff & !(1 << 17);

impl Capabilities {
    /// `CAP_IPC_LOCK`: to lock as much memory as one likes.
    pub const IPC_LOCK: u64 = 1 << 14;
    /// `CAP_SYS_RESOURCE`: to raise limits.
    pub const SYS_RESOURCE: u64 = 1 << 24;

    /// Those of root, which a program of root's has whatever there was before.
    pub const ROOT: Capabilities = Capabilities { effective: ALL, permitted: ALL, inheritable: 0 };

    /// Replaces them by `wanted`.
    ///
    /// # Errors
    ///
    /// `EPERM` for more than is permitted.
    pub fn change(&mut self, wanted: Capabilities) -> Result<(), Errno> {
        let grows = wanted.permitted & !self.permitted != 0
            || wanted.effective & !wanted.permitted != 0
            || wanted.inheritable & !(self.inheritable | ALL) != 0;
        if grows {
            return Err(Errno::EPERM);
        }
        *self = wanted;
        Ok(())
    }
}
