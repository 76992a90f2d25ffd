//! The local APIC (xAPIC mode): interrupts between CPUs, and the timer.
//!
//! Called by the trap path (acknowledge), `tlb` and `sched` (kicks), `clock` (timer).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{MAX_CPUS, cpu, idt::vector};
use crate::boot::paging;

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const TIMER: usize = 0x320;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDER: usize = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_16: u32 = 0b0011;
const COMMAND_BUSY: u32 = 1 << 12;
const COMMAND_ASSERT: u32 = 1 << 14;
const INIT: u32 = 5 << 8;
const START_UP: u32 = 6 << 8;
const GLOBAL_ENABLE: u64 = 1 << 11;
const X2APIC_ENABLE: u64 = 1 << 10;

/// Virtual address of the registers; zero until `map`.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// APIC id per CPU index.
static IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Ticks of the timer per second at the divider in use.
///
/// The emulator's timer counts nanoseconds, which the calibration of the time stamp counter takes
/// as its reference.
pub const TIMER_HZ: u64 = 62_500_000;

/// Maps the registers at `physical`.
pub fn map(physical: u64) {
    REGISTERS.store(paging::map_device(physical), Ordering::Relaxed);
}

fn register(offset: usize) -> *mut u32 {
    (REGISTERS.load(Ordering::Relaxed) as usize + offset) as *mut u32
}

fn read(offset: usize) -> u32 {
    // SAFETY: `map` ran first; the registers are device memory behind no reference.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: usize, value: u32) {
    // SAFETY: as for `read`; the registers used here do not reach memory.
    unsafe { register(offset).write_volatile(value) }
}

/// Turns on this CPU's APIC, timer stopped.
pub fn init(index: usize) {
    let base = cpu::read_msr(cpu::MSR_APIC_BASE);
    assert!(base & X2APIC_ENABLE == 0, "started in x2APIC mode, which this kernel does not use");
    // SAFETY: enables the APIC at the address it has.
    unsafe { cpu::write_msr(cpu::MSR_APIC_BASE, base | GLOBAL_ENABLE) };
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, SOFTWARE_ENABLE | vector::SPURIOUS as u32);
    write(TIMER_DIVIDER, DIVIDE_BY_16);
    write(TIMER, vector::TIMER as u32);
    write(TIMER_INITIAL, 0);
    IDS[index].store(read(ID) >> 24, Ordering::Relaxed);
}

/// APIC id of this CPU.
pub fn id() -> u32 {
    read(ID) >> 24
}

/// APIC id of CPU `index`, once that has run `init`.
pub fn id_of(index: usize) -> u32 {
    IDS[index].load(Ordering::Relaxed)
}

/// Tells the APIC that the interrupt is handled.
pub fn acknowledge() {
    write(END_OF_INTERRUPT, 0);
}

/// Sends interrupt `number` to CPU `index`.
pub fn send(index: usize, number: u64) {
    command(id_of(index), COMMAND_ASSERT | number as u32);
}

/// Resets the CPU with this APIC id.
pub fn send_init(apic_id: u32) {
    command(apic_id, COMMAND_ASSERT | INIT);
}

/// Starts the CPU with this APIC id in real mode at `page << 12`.
pub fn send_start_up(apic_id: u32, page: u32) {
    command(apic_id, COMMAND_ASSERT | START_UP | page);
}

/// Non-maskable interrupt to all other CPUs, which then stand still if `panicking` is set.
pub fn send_nmi_to_others() {
    const NMI: u32 = 4 << 8;
    const ALL_BUT_SELF: u32 = 3 << 18;
    if REGISTERS.load(Ordering::Relaxed) != 0 {
        write(COMMAND_LOW, COMMAND_ASSERT | NMI | ALL_BUT_SELF);
    }
}

fn command(apic_id: u32, low: u32) {
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND_LOW, low);
    // Ends: delivery takes the hardware a bounded time; emulators deliver at once.
    while read(COMMAND_LOW) & COMMAND_BUSY != 0 {
        core::hint::spin_loop();
    }
}

/// Raises the timer interrupt on this CPU after `ticks` (at least one); replaces what was set.
pub fn set_timer(ticks: u32) {
    write(TIMER_INITIAL, ticks.max(1));
}

/// No timer interrupt until the next `set_timer`.
pub fn stop_timer() {
    write(TIMER_INITIAL, 0);
}

/// For calibration: lets the timer count down from the highest value without an interrupt.
pub fn start_free_run() {
    write(TIMER, MASKED | vector::TIMER as u32);
    write(TIMER_INITIAL, u32::MAX);
}

/// For calibration: what the timer is at.
pub fn timer_count() -> u32 {
    read(TIMER_CURRENT)
}

/// Ends `start_free_run`.
pub fn end_free_run() {
    write(TIMER_INITIAL, 0);
    write(TIMER, vector::TIMER as u32);
}
