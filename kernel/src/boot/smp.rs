//! Kernel stacks, and the start of the other CPUs.
//!
//! They are started one by one: the trampoline takes its stack and number from two words that
//! the first CPU writes before each start. A started CPU sets itself up, says so, and halts until
//! the kernel is ready for it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::acpi::Platform;
use super::pvh::Region;
use super::{memory, on_stack, paging};
use crate::arch::ioapic::Line;
use crate::arch::{self, MAX_CPUS, apic, cpu, local};
use crate::clock;
use crate::sync::Lock;

const STACK_BYTES: u64 = 128 << 10;
/// Distance of stacks; the rest is the guard.
const STACK_STRIDE: u64 = 256 << 10;
const TRAMPOLINE: u64 = 0x8000;

/// Physical start of each CPU's stack: the other CPUs begin on it through the window of the boot
/// tables, which know nothing of the mapping with guards.
static STACK_FRAMES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// CPUs that have set themselves up.
static READY: AtomicUsize = AtomicUsize::new(0);

/// Set once the others may go on to the scheduler.
static GO: AtomicUsize = AtomicUsize::new(0);

/// What `first_cpu` needs from before the change of stacks.
#[derive(Clone, Copy)]
pub struct Plan {
    platform: Platform,
    count: usize,
    module: Option<Region>,
}

static PLAN: Lock<Option<Plan>> = Lock::new(None);

impl Plan {
    /// Where COM1's interrupt arrives.
    pub fn serial_line(&self) -> Option<Line> {
        self.platform.serial
    }

    /// The archive: physical start and end.
    pub fn module(&self) -> Option<(u64, u64)> {
        self.module.map(|m| (m.start, m.end))
    }
}

/// Keeps the plan for `first_cpu`.
pub fn set_plan(platform: Platform, count: usize, module: Option<Region>) {
    *PLAN.lock() = Some(Plan { platform, count, module });
}

/// The plan kept by `set_plan`.
pub fn plan() -> Plan {
    PLAN.lock().expect("set before the stacks changed")
}

/// Makes the stacks of `count` CPUs.
pub fn make_stacks(count: usize) {
    for (index, frames) in STACK_FRAMES.iter().enumerate().take(count) {
        let physical = memory::take(STACK_BYTES);
        frames.store(physical, Ordering::Relaxed);
        paging::map_stack(stack_top(index) - STACK_BYTES, physical, STACK_BYTES);
    }
}

/// Top of the stack of CPU `index`.
pub fn stack_top(index: usize) -> u64 {
    paging::STACKS + (index as u64 + 1) * STACK_STRIDE
}

/// Starts the other CPUs of the plan. Returns how many are online, this one included.
pub fn start_others(plan: Plan) -> usize {
    install_trampoline();
    let me = apic::id();
    let mut online = 1;
    for &id in plan.platform.ids().iter().filter(|&&id| id != me) {
        if online >= plan.count {
            break;
        }
        if start(id, online) {
            online += 1;
        }
    }
    online
}

/// Lets the other CPUs go on, `count` in all.
pub fn release_others(count: usize) {
    // Pairs with the Acquire in `other_cpu`: all that the first CPU has set up is visible.
    GO.store(1, Ordering::Release);
    for index in 1..count {
        apic::send(index, crate::arch::idt::vector::KICK);
    }
}

fn install_trampoline() {
    unsafe extern "C" {
        safe static ap_trampoline: u8;
        safe static ap_trampoline_end: u8;
    }
    let from = &raw const ap_trampoline;
    let bytes = &raw const ap_trampoline_end as usize - from as usize;
    let to = paging::physical_to_virtual(TRAMPOLINE) as *mut u8;
    // SAFETY: the page is low memory that nobody else uses, and the code is that long.
    unsafe { core::ptr::copy_nonoverlapping(from, to, bytes) }
}

fn start(id: u32, index: usize) -> bool {
    unsafe extern "C" {
        safe static ap_stack: u8;
        safe static ap_index: u8;
    }
    const MILLISECOND: u64 = 1_000_000;
    let stack = paging::physical_to_virtual(STACK_FRAMES[index].load(Ordering::Relaxed)) + STACK_BYTES;
    set_boot_word(&raw const ap_stack as u64, stack);
    set_boot_word(&raw const ap_index as u64, index as u64);
    let before = READY.load(Ordering::Acquire);
    apic::send_init(id);
    pause(MILLISECOND / 5);
    apic::send_start_up(id, (TRAMPOLINE >> 12) as u32);
    // A loaded host may take long to run the new CPU at all. Ends: by the clock.
    let deadline = clock::monotonic() + 2000 * MILLISECOND;
    // Pairs with the Release in `other_cpu`.
    while READY.load(Ordering::Acquire) == before {
        if clock::monotonic() > deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// The words lie in the boot part of the image, which only the window shows now.
fn set_boot_word(physical: u64, value: u64) {
    // SAFETY: the address of one of the two words; no CPU is starting right now.
    unsafe { (paging::physical_to_virtual(physical) as *mut u64).write_volatile(value) }
}

fn pause(ns: u64) {
    let end = clock::monotonic() + ns;
    while clock::monotonic() < end {
        core::hint::spin_loop();
    }
}

/// Entry of another CPU, from `boot.s`.
#[unsafe(no_mangle)]
extern "C" fn other_main(index: u64) -> ! {
    local::init_early(index as usize);
    paging::load_kernel_root();
    on_stack(stack_top(index as usize), other_cpu, index)
}

extern "C" fn other_cpu(index: u64) -> ! {
    let index = index as usize;
    arch::init_cpu(index, stack_top(index));
    apic::init(index);
    // Pairs with the Acquire in `start`: the boot words may be reused.
    READY.fetch_add(1, Ordering::Release);
    // Pairs with the Release in `release_others`.
    while GO.load(Ordering::Acquire) == 0 {
        cpu::wait_for_interrupt();
    }
    crate::start::other_cpu(index)
}
