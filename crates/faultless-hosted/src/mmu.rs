//! What a hosted machine has beyond `faultless::Machine`: an MMU in software that its CPUs access memory through.
//!
//! Implemented by both faces, called by [`HostedCpu`](crate::HostedCpu). Absent on purpose: resolving faults.

use crate::arena::Arena;
use crate::walk::PageFault;
use faultless::{Access, CpuId, FrameId, Machine, VirtAddr};

/// A machine whose CPUs translate addresses in software.
///
/// Each CPU is used by one thread at a time: the one that holds its [`Cpu`](faultless::Cpu) token. Another thread that
/// acts as the same CPU gets wrong translations, not undefined behaviour.
pub trait Mmu: Machine {
    /// The memory behind it.
    fn arena(&self) -> &Arena;

    /// Gives the CPU another root table, or none; it forgets all translations of the one before.
    fn load_root(&self, cpu: CpuId, root: Option<FrameId>);

    /// Translates `address` as the CPU's hardware would (TLB, walk, accessed and dirty bits) and calls `then` with the
    /// frame and the offset in it. Until `then` has returned the CPU counts as using the translation: a flush of it
    /// waits. `then` must not call the machine.
    ///
    /// # Errors
    ///
    /// [`PageFault`], to be resolved by [`Space::fault`](faultless::Space::fault); `then` was not called.
    fn with_page<R>(
        &self,
        cpu: CpuId,
        address: VirtAddr,
        access: Access,
        then: impl FnOnce(&Arena, FrameId, usize) -> R,
    ) -> Result<R, PageFault>;
}
