//! Everything that names the hardware: registers, tables of the CPU, traps, interrupt
//! controllers, ports, and access to user memory.
//!
//! Called by all of the kernel; knows of the rest only what a trap has to call.

pub mod apic;
pub mod context;
pub mod cpu;
pub mod debug_port;
pub mod fpu;
pub(crate) mod gdt;
pub mod idt;
pub mod ioapic;
pub mod local;
pub mod rtc;
pub mod serial;
pub mod tlb;
pub mod trap;
pub mod user;

pub use context::UserContext;
pub use local::{CpuLocal, MAX_CPUS};
pub use trap::enter_user;

use core::arch::global_asm;

global_asm!(include_str!("entry.s"), options(att_syntax));

/// Prepares the CPU this runs on: descriptor tables, control registers, system call entry.
///
/// The `gs` base must already point to the CPU's [`local::CpuHead`].
pub fn init_cpu(index: usize, stack_top: u64) {
    gdt::load(index, stack_top);
    idt::load();
    cpu::enable_features();
    cpu::set_syscall_entry();
}

/// Halts this CPU for a moment, or until an interrupt.
///
/// Interrupts are served meanwhile: shootdowns at once, all others are noted for the run loop. The
/// timer is used up by this; the note that it leaves makes the run loop set it anew.
pub fn nap() {
    /// 30 us: a few times what a halt and a wake-up cost under emulation.
    const TICKS: u32 = (apic::TIMER_HZ * 30 / 1_000_000) as u32;
    apic::set_timer(TICKS);
    cpu::wait_for_interrupt();
}
