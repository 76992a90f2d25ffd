//! What belongs to one CPU.
//!
//! Two kinds. [`CpuLocal`] is passed as `&mut` through the kernel, from the run loop down: who
//! holds it is this CPU and nobody else. `CpuHead`, its first part, is what `entry.s` and
//! [`index`] find through `gs`, also before there is a `CpuLocal`. What other CPUs may look at is
//! in `static` tables of the modules it concerns (`tlb`, `sched::queue`, ...), indexed by CPU.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;

use faultless::{Cpu, CpuId, FaultError};

use super::cpu;
use crate::machine::KernelMachine;
use crate::process::Memory;
use crate::sched::Thread;

/// The most CPUs this kernel uses: one bit each in a word.
pub const MAX_CPUS: usize = 64;

/// Keeps neighbours in a table indexed by CPU off each other's cache lines.
#[repr(align(64))]
pub struct Padded<T>(pub T);

/// The words that `entry.s` reaches through `gs`.
#[repr(C)]
pub struct CpuHead {
    /// gs:0, the `CpuLocal` this is part of.
    local: *mut CpuLocal,
    /// gs:8, kernel stack pointer while user mode runs.
    kernel_rsp: u64,
    /// gs:16, end of the interrupt frame in the running thread's context.
    pub frame_top: u64,
    /// gs:24, for `entry.s`.
    scratch: u64,
    /// gs:32, this CPU's index.
    index: u64,
}

/// The state of the CPU that the kernel code runs on.
#[repr(C)]
pub struct CpuLocal {
    /// For `entry.s`.
    pub head: CpuHead,
    /// Its number.
    pub id: CpuId,
    /// The token for calls into faultless.
    pub vm: Cpu<KernelMachine>,
    /// The memory whose root is loaded; none means the kernel's own root.
    pub memory: Option<Arc<Memory>>,
    /// The thread that this CPU runs or works for.
    pub thread: Option<Arc<Thread>>,
    /// The last page fault that faultless did not resolve: address and reason.
    pub failed_fault: Option<(u64, FaultError)>,
    /// Faults of the current thread that the fast path resolved; added to its usage at a switch.
    pub minor_faults: u64,
    /// The same for faults that had to fetch their page.
    pub major_faults: u64,
    /// When the current thread's time slice ends (`clock::monotonic`).
    pub slice_end: u64,
    /// The current thread wants to give way to others.
    pub yield_now: bool,
    /// When the current stretch of user or system time began (time stamp counter).
    pub stretch_start: u64,
}

const _: () = assert!(offset_of!(CpuLocal, head) == 0 && offset_of!(CpuHead, frame_top) == 16);
const _: () = assert!(offset_of!(CpuHead, index) == 32);

/// Heads that serve until the `CpuLocal`s exist.
struct EarlyHeads([UnsafeCell<CpuHead>; MAX_CPUS]);

// SAFETY: each CPU uses only its own element.
unsafe impl Sync for EarlyHeads {}

static EARLY_HEADS: EarlyHeads = EarlyHeads(
    [const { UnsafeCell::new(CpuHead { local: core::ptr::null_mut(), kernel_rsp: 0, frame_top: 0, scratch: 0, index: 0 }) };
        MAX_CPUS],
);

/// Makes [`index`] work on this CPU, the first thing each CPU does in Rust.
pub fn init_early(index: usize) {
    let head = EARLY_HEADS.0[index].get();
    // SAFETY: only this CPU uses this element, and no reference to it exists yet.
    unsafe { (*head).index = index as u64 };
    // SAFETY: statics live for ever, and the element is this CPU's.
    unsafe { cpu::set_kernel_gs_base(head as u64) }
}

/// The index of the CPU this runs on.
#[inline]
pub fn index() -> usize {
    let index: u64;
    // SAFETY: `init_early` was the first thing this CPU did, so `gs` points to a head. Not
    // `pure`, as nothing is gained: threads of control never change CPU inside the kernel.
    unsafe {
        asm!("mov {}, gs:[32]", out(reg) index, options(nostack, preserves_flags, readonly));
    }
    index as usize
}

impl CpuLocal {
    /// Creates the state of the CPU this runs on and makes `gs` point to it.
    pub fn install(vm: Cpu<KernelMachine>) -> &'static mut CpuLocal {
        let index = index();
        let local = Box::leak(Box::new(CpuLocal {
            head: CpuHead {
                local: core::ptr::null_mut(),
                kernel_rsp: 0,
                frame_top: 0,
                scratch: 0,
                index: index as u64,
            },
            id: CpuId::new(index as u32),
            vm,
            memory: None,
            thread: None,
            failed_fault: None,
            minor_faults: 0,
            major_faults: 0,
            slice_end: 0,
            yield_now: false,
            stretch_start: 0,
        }));
        local.head.local = local;
        // SAFETY: the box is leaked, so it lives for ever, and it is this CPU's.
        unsafe { cpu::set_kernel_gs_base(core::ptr::from_mut(local) as u64) };
        local
    }

    /// This CPU's index in tables.
    pub fn index(&self) -> usize {
        self.head.index as usize
    }

    /// The running thread.
    ///
    /// # Panics
    ///
    /// If the CPU works for none.
    pub fn current(&self) -> &Arc<Thread> {
        self.thread.as_ref().expect("called only while a thread is current")
    }
}

/// The `CpuLocal` of the CPU this runs on; null before [`CpuLocal::install`].
pub(super) fn current() -> *mut CpuLocal {
    let local: *mut CpuLocal;
    // SAFETY: `gs` points to a head since `init_early`.
    unsafe { asm!("mov {}, gs:[0]", out(reg) local, options(nostack, preserves_flags, readonly)) }
    local
}
