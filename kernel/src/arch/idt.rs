//! The interrupt descriptor table, one for all CPUs, and the vectors in use.

use core::arch::asm;

use super::gdt::{IST_FATAL, IST_NMI, TablePointer};
use crate::sync::Lock;

/// Exceptions that concern more than one module.
pub mod vector {
    pub const DIVIDE: u64 = 0;
    pub const DEBUG: u64 = 1;
    pub const BREAKPOINT: u64 = 3;
    pub const OVERFLOW: u64 = 4;
    pub const INVALID_OPCODE: u64 = 6;
    pub const PAGE_FAULT: u64 = 14;
    pub const X87: u64 = 16;
    pub const ALIGNMENT: u64 = 17;
    pub const SIMD: u64 = 19;
    /// First vector that is an interrupt.
    pub const FIRST_INTERRUPT: u64 = 32;
    /// COM1, through the I/O APIC.
    pub const SERIAL: u64 = 0x24;
    /// Local APIC timer.
    pub const TIMER: u64 = 0xf0;
    /// Look at the run queue, at attention flags, or just wake up.
    pub const KICK: u64 = 0xf1;
    /// Serve TLB shootdowns.
    pub const SHOOTDOWN: u64 = 0xf2;
    /// Spurious interrupt of the local APIC; not to be acknowledged.
    pub const SPURIOUS: u64 = 0xff;
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(C, align(16))]
struct Idt([Gate; 256]);

static IDT: Lock<Idt> = Lock::new(Idt([Gate { low: 0, high: 0 }; 256]));

const KERNEL_CODE_SELECTOR: u64 = 0x08;
const INTERRUPT_GATE: u64 = 0x8e00;
const STUB_SIZE: u64 = 16;

impl Gate {
    fn new(entry: u64, ist: u8, privilege: u64) -> Gate {
        let low = entry & 0xffff
            | KERNEL_CODE_SELECTOR << 16
            | u64::from(ist) << 32
            | (INTERRUPT_GATE | privilege << 13) << 32
            | (entry >> 16 & 0xffff) << 48;
        Gate { low, high: entry >> 32 }
    }
}

/// Fills the table; the first CPU does this once.
pub fn fill() {
    unsafe extern "C" {
        static trap_stubs: u8;
        static page_fault_stub: u8;
    }
    let stubs = &raw const trap_stubs as u64;
    let mut idt = IDT.lock();
    for (n, gate) in (0..).zip(idt.0.iter_mut()) {
        let entry = match n {
            vector::PAGE_FAULT => &raw const page_fault_stub as u64,
            _ => stubs + n * STUB_SIZE,
        };
        let ist = match n {
            2 => IST_NMI,
            8 | 18 => IST_FATAL,
            _ => 0,
        };
        // `int3` and `into` are instructions that user code may execute.
        let privilege = if matches!(n, vector::BREAKPOINT | vector::OVERFLOW) { 3 } else { 0 };
        *gate = Gate::new(entry, ist, privilege);
    }
}

/// Makes this CPU use the table.
pub fn load() {
    let pointer = TablePointer { limit: (size_of::<Idt>() - 1) as u16, base: core::ptr::from_ref(&*IDT.lock()) as u64 };
    // SAFETY: the table is static, filled, and not changed any more.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) }
}
