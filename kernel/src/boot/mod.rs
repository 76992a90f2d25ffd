//! From the first instruction in Rust to the first user program.
//!
//! `boot.s` calls [`kernel_main`] on the first CPU and `other_main` (in `smp`) on the others. The
//! order here matters and is the only place that knows it.

mod acpi;
pub mod cmdline;
pub mod memory;
pub mod paging;
mod pvh;
mod smp;

use core::arch::{asm, global_asm};

use crate::arch::{self, apic, cpu, idt, ioapic, local, serial};
use crate::{clock, heap};

global_asm!(include_str!("boot.s"), options(att_syntax));

pub use smp::release_others;

/// Entry of the first CPU, on the boot stack and the boot tables.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64) -> ! {
    local::init_early(0);
    serial::init();
    let info = pvh::read(start_info);
    cmdline::store(info.cmdline());
    assert!(cpu::has_smep_and_smap(), "this kernel needs SMEP and SMAP; start the emulator with -cpu max");
    let platform = acpi::read(info.rsdp);
    memory::init(&info);
    paging::init(&info);
    let (heap_start, heap_bytes) = memory::take_heap();
    heap::init(paging::physical_to_virtual(heap_start) as usize, heap_bytes as usize);
    apic::map(platform.local_apic);
    let count = platform.cpu_count().min(cmdline::number("faultless.cpus").unwrap_or(u64::MAX) as usize);
    smp::make_stacks(count);
    idt::fill();
    smp::set_plan(platform, count, info.module);
    on_stack(smp::stack_top(0), first_cpu, 0)
}

/// The first CPU on its own stack, the final tables loaded.
extern "C" fn first_cpu(_index: u64) -> ! {
    arch::init_cpu(0, smp::stack_top(0));
    apic::init(0);
    clock::init();
    let plan = smp::plan();
    if let Some(line) = plan.serial_line() {
        ioapic::route_serial(line);
    }
    let online = smp::start_others(plan);
    crate::start::first_cpu(online, plan.module())
}

/// Leaves the current stack for good.
fn on_stack(top: u64, then: extern "C" fn(u64) -> !, argument: u64) -> ! {
    // SAFETY: `top` is the end of a mapped stack that nobody uses yet, 16-byte aligned, and
    // `then` never returns.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {then}",
            "ud2",
            top = in(reg) top,
            then = in(reg) then,
            in("rdi") argument,
            options(noreturn),
        )
    }
}
