//! Registers and instructions of the CPU, each as a function.
//!
//! Called by the other modules of `arch` and by `boot`. The functions that could break memory
//! safety are unsafe; reading registers, `hlt` and ports of devices without DMA are not.

use core::arch::asm;

const MSR_EFER: u32 = 0xc000_0080;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Base address and enable bits of the local APIC.
pub const MSR_APIC_BASE: u32 = 0x1b;

/// IF, DF, TF, AC, NT and IOPL are clear on entry by `syscall`.
const SYSCALL_FLAGS_CLEARED: u64 = 0x4_7700;
/// Kernel selectors in the middle, base of the user selectors on top: see `gdt`.
const STAR_SELECTORS: u64 = 0x0018_0008 << 32;

const CR4_UMIP: u64 = 1 << 11;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// Reads a port.
pub fn port_in(port: u16) -> u8 {
    let value: u8;
    // SAFETY: no device behind the ports used here reaches memory on its own.
    unsafe {
        asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a port.
pub fn port_out(port: u16, value: u8) {
    // SAFETY: as for `port_in`.
    unsafe {
        asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
}

/// Reads a model-specific register.
pub fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: all callers name registers that every 64-bit CPU has; reading has no side effect.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
///
/// The value must leave the kernel's assumptions about paging, segments and entries intact.
pub unsafe fn write_msr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: by the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// The `fs` base for user mode.
pub fn set_fs_base(base: u64) {
    debug_assert!(base >> 47 == 0, "callers check addresses that come from user mode");
    // SAFETY: the kernel never uses `fs`, and a canonical base raises no exception.
    unsafe { write_msr(MSR_FS_BASE, base) }
}

/// The `gs` base for user mode, which `swapgs` brings in.
pub fn set_user_gs_base(base: u64) {
    debug_assert!(base >> 47 == 0, "callers check addresses that come from user mode");
    // SAFETY: it becomes active only at the exit to user mode.
    unsafe { write_msr(MSR_KERNEL_GS_BASE, base) }
}

/// The `gs` base of the kernel: this CPU's `CpuHead`.
///
/// # Safety
///
/// `base` must be the address of a `CpuHead` that lives for ever and belongs to this CPU.
pub unsafe fn set_kernel_gs_base(base: u64) {
    // SAFETY: by the caller's promise.
    unsafe { write_msr(MSR_GS_BASE, base) }
}

/// Address that the last page fault was about.
pub fn fault_address() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Physical address of the root table in use.
pub fn root() -> u64 {
    let value: u64;
    // SAFETY: reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nostack, preserves_flags)) }
    value
}

/// Loads a root table and drops all translations of user addresses.
///
/// # Safety
///
/// `root` must be a root table whose kernel half is the kernel's.
pub unsafe fn set_root(root: u64) {
    // SAFETY: by the caller's promise all code and data of the kernel stay mapped. No `nomem`:
    // accesses to memory must not move across.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) }
}

/// Drops what this CPU caches for one page, upper-level entries included.
pub fn invalidate_page(address: u64) {
    // SAFETY: dropping a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) }
}

/// The time stamp counter.
pub fn timestamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading the counter has no effect.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) }
    u64::from(high) << 32 | u64::from(low)
}

/// Waits for an interrupt with interrupts on; they are off again afterwards.
///
/// An interrupt that arrives between a check made before and this call is not lost: `sti` takes
/// effect after the next instruction.
pub fn wait_for_interrupt() {
    // SAFETY: the handlers preserve what the C ABI says they must and take nothing that a waiter
    // may hold; all else, SSE registers included, is declared clobbered.
    unsafe { asm!("sti", "hlt", "cli", clobber_abi("C")) }
}

/// Stops this CPU for good.
pub fn halt_for_ever() -> ! {
    loop {
        // SAFETY: interrupts off and halted: nothing runs here any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// `cpuid`: eax, ebx, ecx, edx.
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, sub);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Whether the CPU has SMEP and SMAP, without which this kernel does not run.
pub fn has_smep_and_smap() -> bool {
    let needed = 1 << 7 | 1 << 20;
    cpuid(0, 0)[0] >= 7 && cpuid(7, 0)[1] & needed == needed
}

fn has_umip() -> bool {
    cpuid(7, 0)[2] & 1 << 2 != 0
}

/// Turns on the protections of this CPU.
pub fn enable_features() {
    let mut bits = CR4_SMEP | CR4_SMAP;
    if has_umip() {
        bits |= CR4_UMIP;
    }
    // SAFETY: the kernel runs no user code in supervisor mode, opens user access only in
    // `entry.s`, and the caller of this runs on kernel pages.
    unsafe {
        asm!("mov {t}, cr4", "or {t}, {bits}", "mov cr4, {t}", t = out(reg) _, bits = in(reg) bits, options(nostack));
    }
    debug_assert!(read_msr(MSR_EFER) & 1 << 11 != 0, "no-execute is on since boot.s");
}

/// Points `syscall` at its entry.
pub fn set_syscall_entry() {
    unsafe extern "C" {
        fn syscall_entry();
    }
    // SAFETY: the selectors are those of `gdt`.
    unsafe { write_msr(MSR_STAR, STAR_SELECTORS) }
    // SAFETY: `syscall_entry` is the code made for this.
    unsafe { write_msr(MSR_LSTAR, syscall_entry as *const () as u64) }
    // SAFETY: masks flags only.
    unsafe { write_msr(MSR_FMASK, SYSCALL_FLAGS_CLEARED) }
}

/// A word from the CPU's random number generator, if it has one and that is not exhausted.
pub fn hardware_random() -> Option<u64> {
    if cpuid(1, 0)[2] & 1 << 30 == 0 {
        return None;
    }
    let (value, ok): (u64, u8);
    // SAFETY: the instruction is there.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) }
    (ok != 0).then_some(value)
}
