//! The I/O APIC: brings COM1's interrupt to the first CPU. All other lines stay masked.

use super::idt::vector;
use super::{apic, cpu};
use crate::boot::paging;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const FIRST_REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;

/// Where an interrupt line arrives.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Physical address of the I/O APIC.
    pub ioapic: u64,
    /// Input of that I/O APIC.
    pub input: u32,
}

/// Silences the old interrupt controllers and routes `line` (edge triggered, active high, as ISA
/// lines are) to the CPU that calls.
pub fn route_serial(line: Line) {
    mask_legacy();
    let base = paging::map_device(line.ioapic);
    let inputs = (read(base, VERSION) >> 16 & 0xff) + 1;
    for input in 0..inputs {
        write(base, FIRST_REDIRECTION + 2 * input, MASKED);
    }
    if line.input < inputs {
        write(base, FIRST_REDIRECTION + 2 * line.input + 1, apic::id() << 24);
        write(base, FIRST_REDIRECTION + 2 * line.input, vector::SERIAL as u32);
    }
}

/// Masks both 8259s; where they do not exist the writes go nowhere.
fn mask_legacy() {
    cpu::port_out(0x21, 0xff);
    cpu::port_out(0xa1, 0xff);
}

fn read(base: u64, register: u32) -> u32 {
    select(base, register);
    // SAFETY: the window of the mapped device.
    unsafe { ((base as usize + WINDOW) as *const u32).read_volatile() }
}

fn write(base: u64, register: u32, value: u32) {
    select(base, register);
    // SAFETY: the window of the mapped device; redirection entries name vectors of the IDT.
    unsafe { ((base as usize + WINDOW) as *mut u32).write_volatile(value) }
}

fn select(base: u64, register: u32) {
    // SAFETY: the selector of the mapped device; it has no other effect.
    unsafe { ((base as usize + SELECT) as *mut u32).write_volatile(register) }
}
