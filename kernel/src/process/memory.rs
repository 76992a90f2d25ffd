//! The address space of a process and what /proc wants to know about the program in it.
//!
//! `vfork` and `clone(CLONE_VM)` children share it. It counts the threads that use it; when the
//! last one leaves, the space is torn down, on a CPU that has already loaded another root.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use faultless::Space;
use faultless_linux as linux;

use crate::arch::CpuLocal;
use crate::machine::{self, KernelMachine};

/// An address space with its users.
///
/// Letters: (I) fixed at creation, (A) atomic alone.
pub struct Memory {
    /// (I) The space, and what Linux keeps beside it. They take care of their own synchronisation.
    pub linux: linux::Memory<KernelMachine>,
    /// (A) Live threads that use it.
    users: AtomicUsize,
    /// (A) What `membarrier` was told of it.
    pub barriers: AtomicU32,
    /// (I) What `execve` put into it; forked memory shares it.
    pub image: Arc<Image>,
}

/// Facts about the program that was loaded.
#[derive(Default)]
pub struct Image {
    /// Absolute path of the executable.
    pub path: Vec<u8>,
    /// First byte of the argument strings on the stack, and one past the last.
    pub args: (u64, u64),
    /// The same of the environment strings.
    pub env: (u64, u64),
    /// Lowest code address, and one past the highest.
    pub code: (u64, u64),
    /// Stack pointer at the entry point.
    pub stack: u64,
    /// Auxiliary vector as bytes, for /proc/PID/auxv.
    pub auxv: Vec<u8>,
}

impl Memory {
    /// Wraps a memory that has one user.
    pub fn new(linux: linux::Memory<KernelMachine>, image: Arc<Image>) -> Arc<Memory> {
        Arc::new(Memory { linux, users: AtomicUsize::new(1), barriers: AtomicU32::new(0), image })
    }

    /// The space.
    pub fn space(&self) -> &Space<KernelMachine> {
        &self.linux.space
    }

    /// Does any thread use it?
    pub fn is_used(&self) -> bool {
        // Relaxed: the space says itself that it has been torn down.
        self.users.load(Ordering::Relaxed) != 0
    }

    /// One more thread uses it. The caller must be a user already.
    pub fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// A thread stops using it; the last one tears the space down.
    ///
    /// The calling CPU must have another root loaded.
    pub fn leave(&self, cpu: &mut CpuLocal) {
        // AcqRel: the last user sees all that the others did to the space (pairs with itself).
        if self.users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        machine::wait_until_unloaded(self.space().root());
        self.space().exit(&mut cpu.vm);
    }
}
