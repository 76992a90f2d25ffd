//! Accesses that may fault: the signal comes back as a value instead of a death.
//!
//! Called by `child`. The accesses are in one block of assembly; the handler for SIGSEGV and SIGBUS recognises its
//! instructions by address and continues behind them. Any other fault ends the process, and the tester sees that.

use std::arch::global_asm;

/// What an access leaves behind. `signal` 0 means that it went through.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(super) struct Found {
    pub(super) signal: u64,  // offset 0
    pub(super) code: u64,    // offset 8
    pub(super) address: u64, // offset 16
    pub(super) value: u64,   // offset 24
}

// rdi: address, rsi: value, rdx: where the result goes. The handler sets rax, r8 and r9 and continues at `caught`.
global_asm!(
    "faultless_sim_begin:",
    "faultless_sim_load1:",
    "  movzx esi, byte ptr [rdi]",
    "  jmp faultless_sim_done",
    "faultless_sim_load2:",
    "  movzx esi, word ptr [rdi]",
    "  jmp faultless_sim_done",
    "faultless_sim_load4:",
    "  mov esi, dword ptr [rdi]",
    "  jmp faultless_sim_done",
    "faultless_sim_load8:",
    "  mov rsi, qword ptr [rdi]",
    "  jmp faultless_sim_done",
    "faultless_sim_store1:",
    "  mov byte ptr [rdi], sil",
    "  jmp faultless_sim_done",
    "faultless_sim_store2:",
    "  mov word ptr [rdi], si",
    "  jmp faultless_sim_done",
    "faultless_sim_store4:",
    "  mov dword ptr [rdi], esi",
    "  jmp faultless_sim_done",
    "faultless_sim_store8:",
    "  mov qword ptr [rdi], rsi",
    "  jmp faultless_sim_done",
    "faultless_sim_end:",
    "faultless_sim_done:",
    "  mov qword ptr [rdx], 0",
    "  mov qword ptr [rdx + 24], rsi",
    "  ret",
    "faultless_sim_caught:",
    "  mov qword ptr [rdx], rax",
    "  mov qword ptr [rdx + 8], r8",
    "  mov qword ptr [rdx + 16], r9",
    "  ret",
);

type Access = unsafe extern "C" fn(address: u64, value: u64, found: *mut Found);

unsafe extern "C" {
    fn faultless_sim_begin();
    fn faultless_sim_end();
    fn faultless_sim_caught();
    fn faultless_sim_load1(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_load2(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_load4(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_load8(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_store1(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_store2(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_store4(address: u64, value: u64, found: *mut Found);
    fn faultless_sim_store8(address: u64, value: u64, found: *mut Found);
}

/// Loads a word of `width` bytes.
///
/// # Safety
///
/// [`catch`] was called, and no Rust object lies at `address`.
pub(super) unsafe fn load(address: u64, width: u64) -> Found {
    let access: Access = match width {
        1 => faultless_sim_load1,
        2 => faultless_sim_load2,
        4 => faultless_sim_load4,
        _ => faultless_sim_load8,
    };
    let mut found = Found::default();
    // SAFETY: `found` is valid; a fault at `address` is caught.
    unsafe { access(address, 0, &raw mut found) };
    found
}

/// Stores a word of `width` bytes.
///
/// # Safety
///
/// As [`load`].
pub(super) unsafe fn store(address: u64, width: u64, value: u64) -> Found {
    let access: Access = match width {
        1 => faultless_sim_store1,
        2 => faultless_sim_store2,
        4 => faultless_sim_store4,
        _ => faultless_sim_store8,
    };
    let mut found = Found::default();
    // SAFETY: `found` is valid; a fault at `address` is caught, and else nobody's memory is written.
    unsafe { access(address, value, &raw mut found) };
    found.value = 0;
    found
}

/// Installs the handler.
pub(super) fn catch() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the action is valid, and the handler is signal safe: it changes registers.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid context to a SA_SIGINFO handler.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    // SAFETY: and a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS carry an address.
    let address = unsafe { info.si_addr() } as i64;
    let instruction = registers[libc::REG_RIP as usize] as usize;
    let accesses = faultless_sim_begin as *const () as usize..faultless_sim_end as *const () as usize;
    if !accesses.contains(&instruction) {
        // SAFETY: ends the process, which is a child of the tester; nothing is left to keep in order.
        unsafe { libc::_exit(super::child::LOST) };
    }
    registers[libc::REG_RAX as usize] = i64::from(signal);
    registers[libc::REG_R8 as usize] = i64::from(info.si_code);
    registers[libc::REG_R9 as usize] = address;
    registers[libc::REG_RIP as usize] = faultless_sim_caught as *const () as i64;
}
