//! Memory that a CPU has retired but not freed yet, because another one might still have read it: who frees it, and when.
//!
//! Called by the run loop (when the CPU goes idle, when a slice ends, when another CPU asks) and by page faults that find
//! no frame. What is retired may be an area with the last reference to an object of any size: a CPU that keeps it while it
//! sleeps, or computes, keeps all of its pages.
//!
//! Absent on purpose: taking away what programs use.

use core::sync::atomic::{AtomicBool, Ordering};

use faultless::{Access, FaultError, Resolved, VirtAddr};

use crate::arch::idt::vector;
use crate::arch::local::{self, Padded};
use crate::arch::{CpuLocal, MAX_CPUS, apic};
use crate::sync::Spin;
use crate::{clock, sched};

/// How long an idle CPU sleeps before it tries again to free what others might still have read (ns).
pub const PAUSE: u64 = 2_000_000;
/// How long a fault that finds no frame waits for others to free theirs (ns). Longer than a slice of a busy host.
const PATIENCE: u64 = 100_000_000;

/// Somebody needs what these CPUs have retired. True until nothing is left.
static ASKED: [Padded<AtomicBool>; MAX_CPUS] = [const { Padded(AtomicBool::new(false)) }; MAX_CPUS];

/// Frees what this CPU has retired. True if nothing is left.
pub fn free_mine(local: &mut CpuLocal) -> bool {
    let all = local.vm.collect();
    if all {
        // Release pairs with the Acquire in `has_more`: the frames are free before that is said.
        ASKED[local.index()].0.store(false, Ordering::Release);
    }
    all
}

/// The same, if another CPU has asked for it.
#[inline]
pub fn free_if_asked(local: &mut CpuLocal) {
    // Relaxed: whoever asks sends an interrupt, too.
    if ASKED[local.index()].0.load(Ordering::Relaxed) {
        free_mine(local);
    }
}

/// A fault was refused. If it found no frame: has the other CPUs free what they have retired, and tries again until they
/// have.
///
/// # Errors
///
/// As a fault; [`FaultError::OutOfMemory`] if that did not help.
#[cold]
pub fn fault_again(
    local: &mut CpuLocal,
    address: u64,
    access: Access,
    refused: FaultError,
) -> Result<Resolved, FaultError> {
    let memory = local.memory.clone().filter(|_| refused == FaultError::OutOfMemory).ok_or(refused)?;
    ask_others();
    let deadline = clock::monotonic() + PATIENCE;
    let mut spin = Spin::new();
    // Ends: at the deadline at the latest.
    loop {
        let is_last = !has_more() || clock::monotonic() >= deadline;
        free_mine(local);
        let result = memory.space().fault(&mut local.vm, VirtAddr::new(address), access);
        if is_last || result != Err(FaultError::OutOfMemory) {
            return result;
        }
        spin.relax();
    }
}

fn ask_others() {
    let me = local::index();
    let online = sched::online_mask();
    for cpu in (0..MAX_CPUS).filter(|cpu| *cpu != me && online & 1 << cpu != 0) {
        ASKED[cpu].0.store(true, Ordering::Relaxed);
        apic::send(cpu, vector::KICK);
    }
}

/// Has any other CPU not freed all yet?
fn has_more() -> bool {
    let me = local::index();
    // Acquire: see `free_mine`.
    (0..MAX_CPUS).any(|cpu| cpu != me && ASKED[cpu].0.load(Ordering::Acquire))
}
