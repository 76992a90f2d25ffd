//! Segments and task state, one set per CPU.
//!
//! The order of the descriptors is what `syscall`/`sysret` want: kernel code, kernel data, (32-bit
//! user code,) user data, user code. Stacks: RSP0 points into the running thread's `UserContext`;
//! IST2 is for NMI, IST3 for double faults and machine checks.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::MAX_CPUS;

/// IST slot of the NMI.
pub const IST_NMI: u8 = 2;
/// IST slot of double fault and machine check.
pub const IST_FATAL: u8 = 3;

const KERNEL_CODE: u64 = 0x00af_9b00_0000_ffff;
const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
const USER_CODE32: u64 = 0x00cf_fb00_0000_ffff;
const USER_DATA: u64 = 0x00cf_f300_0000_ffff;
const USER_CODE: u64 = 0x00af_fb00_0000_ffff;
const TSS_SELECTOR: u16 = 0x30;

/// The NMI's code uses no stack beyond what the CPU pushes.
const NMI_STACK: usize = 256;
const FATAL_STACK: usize = 8192;

#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

#[repr(C, align(16))]
struct Tables {
    gdt: [u64; 8],
    tss: TaskState,
}

#[repr(C, align(16))]
struct Stacks {
    nmi: UnsafeCell<[u8; NMI_STACK]>,
    fatal: UnsafeCell<[u8; FATAL_STACK]>,
}

struct AllStacks([Stacks; MAX_CPUS]);

// SAFETY: only the CPU an element belongs to uses it, as a stack.
unsafe impl Sync for AllStacks {}

static STACKS: AllStacks = AllStacks(
    [const { Stacks { nmi: UnsafeCell::new([0; NMI_STACK]), fatal: UnsafeCell::new([0; FATAL_STACK]) } }; MAX_CPUS],
);

struct AllTables([UnsafeCell<Tables>; MAX_CPUS]);

// SAFETY: each CPU uses only its own element.
unsafe impl Sync for AllTables {}

static TABLES: AllTables = AllTables(
    [const {
        UnsafeCell::new(Tables {
            gdt: [0, KERNEL_CODE, KERNEL_DATA, USER_CODE32, USER_DATA, USER_CODE, 0, 0],
            tss: TaskState {
                reserved0: 0,
                rsp: [0; 3],
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                io_map: size_of::<TaskState>() as u16,
            },
        })
    }; MAX_CPUS],
);

/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
pub struct TablePointer {
    pub limit: u16,
    pub base: u64,
}

/// Loads the segments and the task register of CPU `index`, which must be the one this runs on.
pub fn load(index: usize, stack_top: u64) {
    let tables = TABLES.0[index].get();
    // SAFETY: only this CPU uses this element, and only here; the CPU itself reads it.
    let tables = unsafe { &mut *tables };
    tables.tss.rsp[0] = stack_top;
    tables.tss.ist[usize::from(IST_NMI) - 1] = end_of(&raw const STACKS.0[index].nmi as u64, NMI_STACK);
    tables.tss.ist[usize::from(IST_FATAL) - 1] = end_of(&raw const STACKS.0[index].fatal as u64, FATAL_STACK);
    let base = core::ptr::from_ref(&tables.tss) as u64;
    tables.gdt[6] = tss_low(base);
    tables.gdt[7] = base >> 32;
    let pointer = TablePointer { limit: (size_of_val(&tables.gdt) - 1) as u16, base: tables.gdt.as_ptr() as u64 };
    // SAFETY: the table is static and has the descriptors that the selectors below name.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) }
    reload_segments();
    // SAFETY: descriptor 6 is the task state filled in above.
    unsafe { asm!("ltr {0:x}", in(reg) TSS_SELECTOR, options(nostack)) }
}

/// Where the CPU switches to on a trap from user mode. It must be this CPU's.
pub fn set_frame_top(index: usize, top: u64) {
    let tables = TABLES.0[index].get();
    // SAFETY: in bounds of the element, no reference is made.
    let rsp0 = unsafe { &raw mut (*tables).tss.rsp[0] };
    // SAFETY: only this CPU writes its task state, by this raw store; the CPU reads it at traps.
    unsafe { rsp0.write_unaligned(top) }
}

fn end_of(start: u64, bytes: usize) -> u64 {
    (start + bytes as u64) & !15
}

fn tss_low(base: u64) -> u64 {
    let limit = (size_of::<TaskState>() - 1) as u64;
    let available_tss = 0x89 << 40;
    limit | (base & 0xff_ffff) << 16 | available_tss | (base >> 24 & 0xff) << 56
}

fn reload_segments() {
    // SAFETY: the selectors name flat kernel segments of the table loaded before. `fs` and `gs`
    // stay as they are: loading a selector would clear their bases.
    unsafe {
        asm!(
            "push 0x08",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov {t:e}, 0x10",
            "mov ds, {t:e}",
            "mov es, {t:e}",
            "mov ss, {t:e}",
            t = out(reg) _,
        );
    }
}
