//! A CPU as a program sees it: loads, stores and instruction fetches that fault and are repeated, and a root register.
//!
//! Called by embedders and tests, one thread per CPU. The order of a context switch is the whole trick of this file:
//! the new space learns of the CPU before its tables are walked, the old one forgets it after the last translation.

use crate::arena::{Arena, Word};
use crate::mmu::Mmu;
use crate::walk::PageFault;
use core::fmt;
use faultless::{Access, AccessError, Cpu, CpuError, CpuId, FaultError, FrameId, PAGE_SIZE, Space, VirtAddr, Vm};
use std::sync::Arc;

/// One CPU of a hosted machine and the space that it runs.
pub struct HostedCpu<M: Mmu> {
    token: Cpu<M>,
    space: Option<Arc<Space<M>>>,
}

impl<M: Mmu> HostedCpu<M> {
    /// Takes the token of CPU `id`; no space runs yet.
    ///
    /// # Errors
    ///
    /// [`CpuError`] if there is no such CPU or somebody has it.
    pub fn new(vm: &Vm<M>, id: CpuId) -> Result<Self, CpuError> {
        Ok(Self { token: vm.cpu(id)?, space: None })
    }

    /// The token, for operations on spaces and objects: this CPU's system calls.
    pub fn token(&mut self) -> &mut Cpu<M> {
        &mut self.token
    }

    /// The space that runs.
    #[must_use]
    pub fn space(&self) -> Option<&Arc<Space<M>>> {
        self.space.as_ref()
    }

    /// Runs `space` from now on.
    pub fn run(&mut self, space: &Arc<Space<M>>) {
        if self.space.as_ref().is_some_and(|running| Arc::ptr_eq(running, space)) {
            return;
        }
        space.activate(&mut self.token);
        self.load_root(Some(space.root()));
        if let Some(old) = self.space.replace(Arc::clone(space)) {
            old.deactivate(&mut self.token);
        }
    }

    /// Runs nothing from now on.
    pub fn stop(&mut self) {
        if let Some(old) = self.space.take() {
            self.load_root(None);
            old.deactivate(&mut self.token);
        }
    }

    fn load_root(&mut self, root: Option<FrameId>) {
        self.token.vm().machine().load_root(self.token.id(), root);
    }

    /// Loads a word.
    ///
    /// # Errors
    ///
    /// What the program is told if it may not.
    ///
    /// # Panics
    ///
    /// If the page tables are corrupt, as a processor would stop with a machine check.
    #[inline]
    pub fn load<W: Word>(&mut self, address: VirtAddr) -> Result<W, FaultError> {
        if fits::<W>(address) {
            return self.access(address, Access::Read, |arena, frame, offset| arena.load(frame, offset));
        }
        let mut bytes = [0; 8];
        self.read(address, &mut bytes[..size_of::<W>()]).map_err(|error| error.fault)?;
        Ok(W::from_bytes(bytes))
    }

    /// Stores a word. One that crosses a page border may be stored in part if the second page cannot be stored to.
    ///
    /// # Errors
    ///
    /// What the program is told if it may not.
    ///
    /// # Panics
    ///
    /// As [`HostedCpu::load`].
    #[inline]
    pub fn store<W: Word>(&mut self, address: VirtAddr, value: W) -> Result<(), FaultError> {
        if fits::<W>(address) {
            return self.access(address, Access::Write, |arena, frame, offset| arena.store(frame, offset, value));
        }
        self.write(address, &value.to_bytes()[..size_of::<W>()]).map_err(|error| error.fault)
    }

    /// Fetches the instruction byte at `address`.
    ///
    /// # Errors
    ///
    /// What the program is told if it may not.
    ///
    /// # Panics
    ///
    /// As [`HostedCpu::load`].
    pub fn execute(&mut self, address: VirtAddr) -> Result<u8, FaultError> {
        self.access(address, Access::Execute, |arena, frame, offset| arena.load(frame, offset))
    }

    /// Loads bytes, page by page.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says how far it came.
    ///
    /// # Panics
    ///
    /// As [`HostedCpu::load`].
    pub fn read(&mut self, address: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        let len = into.len();
        self.pieces(address, len, |cpu, at, from, to| {
            cpu.access(at, Access::Read, |arena, frame, offset| arena.read(frame, offset, &mut into[from..to]))
        })
    }

    /// Stores bytes, page by page.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says how far it came.
    ///
    /// # Panics
    ///
    /// As [`HostedCpu::load`].
    pub fn write(&mut self, address: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        self.pieces(address, from.len(), |cpu, at, start, end| {
            cpu.access(at, Access::Write, |arena, frame, offset| arena.write(frame, offset, &from[start..end]))
        })
    }

    fn pieces(
        &mut self,
        address: VirtAddr,
        len: usize,
        mut piece: impl FnMut(&mut Self, VirtAddr, usize, usize) -> Result<(), FaultError>,
    ) -> Result<(), AccessError> {
        let mut done = 0;
        while done < len {
            let at = address.checked_add(done as u64).ok_or(AccessError { done, fault: FaultError::Unmapped })?;
            let end = len.min(done + PAGE_SIZE as usize - at.page_offset());
            piece(self, at, done, end).map_err(|fault| AccessError { done, fault })?;
            done = end;
        }
        Ok(())
    }

    /// One access inside a page: repeated after each fault that was resolved.
    #[inline]
    fn access<R>(
        &mut self,
        address: VirtAddr,
        access: Access,
        mut then: impl FnMut(&Arena, FrameId, usize) -> R,
    ) -> Result<R, FaultError> {
        // Ends: `faultless` promises progress for each resolved fault (F-16).
        let mut rounds = 0u32;
        loop {
            rounds += 1;
            debug_assert!(rounds < MOST_ROUNDS, "no progress: {access:?} at {address:?} faults again and again");
            match self.token.vm().machine().with_page(self.token.id(), address, access, &mut then) {
                Ok(result) => return Ok(result),
                Err(fault) => self.resolve(fault, address, access)?,
            }
        }
    }

    #[cold]
    fn resolve(&mut self, fault: PageFault, address: VirtAddr, access: Access) -> Result<(), FaultError> {
        if let PageFault::Malformed { entry, level } = fault {
            panic!("corrupt page table: entry {entry:#x} at level {level} on the way to {address:?}");
        }
        let space = self.space.as_ref().ok_or(FaultError::Unmapped)?;
        space.fault(&mut self.token, address, access).map(drop)
    }
}

impl<M: Mmu> Drop for HostedCpu<M> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<M: Mmu> fmt::Debug for HostedCpu<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedCpu").field("id", &self.token.id()).field("space", &self.space).finish()
    }
}

/// More faults than one access can meet by bad luck. Checked in debug builds.
const MOST_ROUNDS: u32 = 100_000;

/// Does a word at `address` stay in its page?
#[inline]
fn fits<W: Word>(address: VirtAddr) -> bool {
    address.page_offset() + size_of::<W>() <= PAGE_SIZE as usize
}
