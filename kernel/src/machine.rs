//! The machine that faultless runs on: page tables of this CPU, RAM through the physmap, TLBs.
//!
//! Called by faultless, and by `sched` to change the space that a CPU has loaded.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use faultless::machine::X86_64;
use faultless::{AtomicEntry, CpuId, CpuSet, Flush, FrameId, FrameRange, Machine, Vm};

use crate::arch::local::Padded;
use crate::arch::{self, CpuLocal, MAX_CPUS, cpu, tlb};
use crate::boot::paging;
use crate::process::Memory;
use crate::sync::Spin;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// How long this CPU has been waiting inside faultless.
struct Wait {
    last_round: AtomicU64,
    rounds: AtomicU64,
}

static WAITS: [Padded<Wait>; MAX_CPUS] =
    [const { Padded(Wait { last_round: AtomicU64::new(0), rounds: AtomicU64::new(0) }) }; MAX_CPUS];

/// The one memory subsystem of this kernel, set once at boot.
struct TheVm(UnsafeCell<Option<Vm<KernelMachine>>>);

// SAFETY: written once by `install` before any other CPU is released, only read afterwards.
unsafe impl Sync for TheVm {}

static VM: TheVm = TheVm(UnsafeCell::new(None));

/// Sets what [`vm`] returns.
///
/// # Safety
///
/// Once, before other CPUs run the scheduler.
pub unsafe fn install(vm: Vm<KernelMachine>) {
    // SAFETY: nobody else accesses it yet, by the caller's promise.
    unsafe { *VM.0.get() = Some(vm) }
}

/// The memory subsystem.
///
/// # Panics
///
/// Before [`install`].
pub fn vm() -> &'static Vm<KernelMachine> {
    // SAFETY: not written any more.
    let vm = unsafe { &*VM.0.get() };
    vm.as_ref().expect("installed at boot")
}

/// What faultless knows of the hardware.
pub struct KernelMachine {
    cpus: usize,
    ram: Vec<FrameRange>,
}

impl KernelMachine {
    /// A machine of `cpus` CPUs that gives all of `ram` away.
    pub fn new(cpus: usize, ram: Vec<FrameRange>) -> KernelMachine {
        KernelMachine { cpus, ram }
    }
}

/// Where the physmap shows `frame`.
fn address(frame: FrameId) -> *mut u8 {
    paging::physical_to_virtual(frame.as_u64() * PAGE as u64) as *mut u8
}

// SAFETY: the physmap shows all RAM for ever, at one address per frame; flushes do what `tlb` says
// and `flush_remote` returns after the acknowledgements.
unsafe impl Machine for KernelMachine {
    type Format = X86_64;

    fn cpus(&self) -> usize {
        self.cpus
    }

    fn ram(&self) -> &[FrameRange] {
        &self.ram
    }

    #[inline]
    fn table(&self, frame: FrameId) -> &[AtomicEntry] {
        // SAFETY: a frame of RAM, mapped for ever; faultless calls this for its tables only, which
        // it and the MMU access by atomic operations.
        unsafe { core::slice::from_raw_parts(address(frame).cast(), WORDS) }
    }

    #[inline]
    fn zero(&self, frame: FrameId) {
        // SAFETY: faultless owns the frame and nobody else accesses it now.
        unsafe {
            asm!(
                "rep stosq",
                inout("rdi") address(frame) => _,
                inout("rcx") WORDS => _,
                in("rax") 0,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline]
    fn copy(&self, from: FrameId, to: FrameId) {
        // SAFETY: faultless owns both frames; the source may change meanwhile, which a string
        // move of words tolerates.
        unsafe {
            asm!(
                "rep movsq",
                inout("rsi") address(from) => _,
                inout("rdi") address(to) => _,
                inout("rcx") WORDS => _,
                options(nostack, preserves_flags),
            );
        }
    }

    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= PAGE);
        // SAFETY: inside the frame. User code may write to it meanwhile: this is a copy of bytes
        // by a string move in assembly, not an access through a reference.
        unsafe { copy_bytes(address(frame).wrapping_add(offset), into.as_mut_ptr(), into.len()) }
    }

    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= PAGE);
        // SAFETY: as for `read`.
        unsafe { copy_bytes(from.as_ptr(), address(frame).wrapping_add(offset), from.len()) }
    }

    fn flush_local(&self, _cpu: CpuId, flush: &Flush) {
        tlb::flush_local(flush);
    }

    fn flush_remote(&self, _cpu: CpuId, targets: &CpuSet, flush: &Flush) {
        tlb::flush_remote(targets, flush);
    }

    fn relax(&self, cpu: CpuId) {
        /// Rounds further apart than this (in counter ticks) belong to different waits.
        const SAME_WAIT: u64 = 50_000;
        const BUSY_ROUNDS: u64 = 256;
        tlb::serve();
        // Both words are this CPU's own; they are atomic only to be in a static.
        let wait = &WAITS[cpu.as_usize()].0;
        let now = cpu::timestamp();
        let last = wait.last_round.swap(now, Ordering::Relaxed);
        if now.wrapping_sub(last) > SAME_WAIT {
            wait.rounds.store(0, Ordering::Relaxed);
        }
        if wait.rounds.fetch_add(1, Ordering::Relaxed) > BUSY_ROUNDS {
            // Why: see `sync::Spin`.
            arch::nap();
            wait.last_round.store(cpu::timestamp(), Ordering::Relaxed);
        }
    }

    fn init_root(&self, root: FrameId) {
        let table = self.table(root);
        paging::fill_root(|index, value| {
            table[index].store(value, Ordering::Relaxed);
        });
    }
}

/// Copies bytes in words as far as that goes.
///
/// # Safety
///
/// Both must be valid for `bytes`.
unsafe fn copy_bytes(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {tail:e}",
            "rep movsb",
            tail = in(reg) bytes % 8,
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") bytes / 8 => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Makes `memory` the one this CPU runs on; none means the kernel's own root.
///
/// Order (faultless' contract): activate before the root is loaded, deactivate after another is.
pub fn switch_memory(local: &mut CpuLocal, memory: Option<Arc<Memory>>) {
    let same = match (&local.memory, &memory) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if same {
        return;
    }
    let root = match &memory {
        Some(new) => {
            new.space().activate(&mut local.vm);
            new.space().root()
        }
        None => paging::kernel_root(),
    };
    // SAFETY: the kernel half of each root was filled by `init_root`; the kernel's has it too.
    unsafe { cpu::set_root(root.as_u64() * PAGE as u64) };
    if let Some(old) = core::mem::replace(&mut local.memory, memory) {
        old.space().deactivate(&mut local.vm);
    }
    // Only now, so that who waits for the old root waits for the deactivation too.
    tlb::note_loaded(root);
}

/// Waits until no other CPU has `root` loaded, or is on its way from it to another.
pub fn wait_until_unloaded(root: FrameId) {
    let mut spin = Spin::new();
    // Ends: nobody runs a thread of this space any more, and a CPU that still has it loaded is
    // on its way to another thread or to idle.
    while tlb::is_loaded_elsewhere(root) {
        spin.relax();
    }
}
