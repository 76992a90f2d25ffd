//! Large pages, in public: the policy, and collapsing.

use super::{Cpu, Vm};
use crate::PageRange;
use crate::machine::Machine;
use crate::space::{CollapseError, Core, HugePages, Space};
use crate::sync::Ordering;

impl<M: Machine> Vm<M> {
    /// Which anonymous memory gets large pages from now on, where a large page's worth of frames in a row can be had.
    /// [`HugePages::Never`] at first. Pages that are there stay what they are.
    ///
    /// # Panics
    ///
    /// If the token belongs to another `Vm`.
    pub fn set_huge_pages(&self, cpu: &mut Cpu<M>, policy: HugePages) {
        let ctx = cpu.ctx_in(&self.memory);
        self.memory.set_huge_policy(policy as u8, || {
            // Operations under way have not reckoned with large pages; their faults must find none.
            let settled: Result<(), core::convert::Infallible> = self.registry.each(ctx, |core: &Core<M>| {
                core.wait_for_operations(ctx);
                Ok(())
            });
            match settled {
                Ok(()) => {}
            }
        });
    }

    /// The present policy.
    #[must_use]
    pub fn huge_pages(&self) -> HugePages {
        match self.memory.huge_policy() {
            0 => HugePages::Never,
            1 => HugePages::Advised,
            _ => HugePages::Always,
        }
    }

    /// Entries that map a large page; those of shared tables count once.
    #[must_use]
    pub fn huge_entries(&self) -> u64 {
        self.memory.huge_entries()
    }
}

impl<M: Machine> Space<M> {
    /// Allows or forbids large pages in this space and the children it will have, whatever the policy says
    /// (PR_SET_THP_DISABLE). Those that are there stay.
    pub fn set_huge_allowed(&self, allowed: bool) {
        // Relaxed: a policy, as `HugePages` is.
        self.core.no_huge.store(!allowed, Ordering::Relaxed);
    }

    /// See [`Space::set_huge_allowed`]; allowed at first.
    #[must_use]
    pub fn is_huge_allowed(&self) -> bool {
        !self.core.no_huge.load(Ordering::Relaxed)
    }

    /// Makes large pages of the whole large pages' worths of `range`, whatever the policy says (MADV_COLLAPSE). What is
    /// not there yet is zeroes afterwards, as it would be read.
    ///
    /// # Errors
    ///
    /// [`CollapseError`]: the last reason why some part is not a large page. The others are.
    pub fn collapse(&self, cpu: &mut Cpu<M>, range: PageRange) -> Result<(), CollapseError> {
        self.core.collapse(cpu.ctx_in(&self.core.memory), range)
    }
}
