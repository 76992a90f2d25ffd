//! Accesses that may fault: the fault comes back as a value instead of a death.
//!
//! Called through [`crate::arena::Arena`], and directly for wild pointers. The accesses are
//! in one block of assembly; the handler for SIGSEGV and SIGBUS recognises its instructions
//! by address and continues behind them (no siglongjmp, so it works in any thread and in
//! forked children). Any other fault is reported and ends the process.
//! Absent on purpose: jumps to bad addresses; those are tried in children that die.

use crate::report::die;
use core::arch::global_asm;
use core::fmt;

/// A signal caused by one access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// SIGSEGV or SIGBUS.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: usize,
}

/// Value of an access, or the signal it caused.
pub type Probe<T> = Result<T, Trap>;

/// Nothing is mapped there.
#[must_use]
pub const fn maperr(addr: usize) -> Trap {
    Trap { signal: libc::SIGSEGV, code: SEGV_MAPERR, addr }
}

/// The mapping does not allow the access.
#[must_use]
pub const fn accerr(addr: usize) -> Trap {
    Trap { signal: libc::SIGSEGV, code: SEGV_ACCERR, addr }
}

/// Behind the end of the mapped file.
#[must_use]
pub const fn adrerr(addr: usize) -> Trap {
    Trap { signal: libc::SIGBUS, code: BUS_ADRERR, addr }
}

/// `si_code`: no mapping.
pub const SEGV_MAPERR: i32 = 1;
/// `si_code`: mapping without the right.
pub const SEGV_ACCERR: i32 = 2;
/// `si_code` of SIGBUS: no object behind the mapping.
pub const BUS_ADRERR: i32 = 2;
/// `si_code`: sent by the kernel without an address (as for a non-canonical pointer).
pub const SI_KERNEL: i32 = 0x80;

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = signal_name(self.signal);
        let code = match (self.signal, self.code) {
            (_, SI_KERNEL) => "SI_KERNEL",
            (libc::SIGSEGV, SEGV_MAPERR) => "MAPERR",
            (libc::SIGSEGV, SEGV_ACCERR) => "ACCERR",
            (libc::SIGBUS, BUS_ADRERR) => "ADRERR",
            (_, code) => return write!(f, "{name}/{code} at {:#x}", self.addr),
        };
        write!(f, "{name}/{code} at {:#x}", self.addr)
    }
}

/// Name of the signals the programs meet.
#[must_use]
pub const fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGABRT => "SIGABRT",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        _ => "signal",
    }
}

/// What an access leaves behind. `signal` 0 means that it went through.
#[repr(C)]
#[derive(Default)]
struct Outcome {
    signal: u64, // offset 0
    code: u64,   // offset 8
    addr: u64,   // offset 16
    value: u64,  // offset 24
}

// The handler sets rax, r9 and r10 and continues at `guest_probe_caught`. rcx is the
// `Outcome` in every probe, and rsi holds its value when it faults.
global_asm!(
    "guest_probe_begin:",
    "guest_probe_load:",
    "  mov rsi, [rdi]",
    "  jmp guest_probe_done",
    "guest_probe_store:",
    "  mov [rdi], rsi",
    "  jmp guest_probe_done",
    "guest_probe_load_byte:",
    "  movzx esi, byte ptr [rdi]",
    "  jmp guest_probe_done",
    "guest_probe_store_byte:",
    "  mov [rdi], sil",
    "  jmp guest_probe_done",
    "guest_probe_hammer:",
    "2: mov [rdi], rsi",
    "  inc rsi",
    "  dec rdx",
    "  jnz 2b",
    "guest_probe_end:",
    "guest_probe_done:",
    "  mov qword ptr [rcx], 0",
    "  mov [rcx + 24], rsi",
    "  ret",
    "guest_probe_caught:",
    "  mov [rcx], rax",
    "  mov [rcx + 8], r9",
    "  mov [rcx + 16], r10",
    "  mov [rcx + 24], rsi",
    "  ret",
);

unsafe extern "C" {
    fn guest_probe_begin();
    fn guest_probe_end();
    fn guest_probe_caught();
    fn guest_probe_load(addr: usize, value: u64, count: u64, out: *mut Outcome);
    fn guest_probe_store(addr: usize, value: u64, count: u64, out: *mut Outcome);
    fn guest_probe_load_byte(addr: usize, value: u64, count: u64, out: *mut Outcome);
    fn guest_probe_store_byte(addr: usize, value: u64, count: u64, out: *mut Outcome);
    fn guest_probe_hammer(addr: usize, value: u64, count: u64, out: *mut Outcome);
}

impl Outcome {
    const fn probe(&self) -> Probe<u64> {
        if self.signal == 0 {
            return Ok(self.value);
        }
        let addr = self.addr as usize;
        Err(Trap { signal: self.signal as i32, code: self.code as i32, addr })
    }
}

/// Reads the word at `addr`.
///
/// # Errors
///
/// The signal it caused.
///
/// # Safety
///
/// [`catch`] must have been called. `addr` is outside Rust objects, or readable.
pub unsafe fn load(addr: usize) -> Probe<u64> {
    let mut out = Outcome::default();
    // SAFETY: `out` is valid, and the caller vouches for `addr`.
    unsafe { guest_probe_load(addr, 0, 0, &raw mut out) };
    out.probe()
}

/// Writes the word at `addr`.
///
/// # Errors
///
/// The signal it caused.
///
/// # Safety
///
/// [`catch`] must have been called. `addr` is outside Rust objects.
pub unsafe fn store(addr: usize, value: u64) -> Probe<()> {
    let mut out = Outcome::default();
    // SAFETY: `out` is valid, and the caller vouches for `addr`.
    unsafe { guest_probe_store(addr, value, 0, &raw mut out) };
    out.probe().map(|_| ())
}

/// Reads the byte at `addr`.
///
/// # Errors
///
/// The signal it caused.
///
/// # Safety
///
/// [`catch`] must have been called. `addr` is outside Rust objects, or readable.
pub unsafe fn load_byte(addr: usize) -> Probe<u8> {
    let mut out = Outcome::default();
    // SAFETY: `out` is valid, and the caller vouches for `addr`.
    unsafe { guest_probe_load_byte(addr, 0, 0, &raw mut out) };
    out.probe().map(|value| value as u8)
}

/// Writes the byte at `addr`.
///
/// # Errors
///
/// The signal it caused.
///
/// # Safety
///
/// [`catch`] must have been called. `addr` is outside Rust objects.
pub unsafe fn store_byte(addr: usize, value: u8) -> Probe<()> {
    let mut out = Outcome::default();
    // SAFETY: `out` is valid, and the caller vouches for `addr`.
    unsafe { guest_probe_store_byte(addr, u64::from(value), 0, &raw mut out) };
    out.probe().map(|_| ())
}

/// Writes `start`, `start + 1`, … to the word at `addr`, `count` times (at least once).
/// Gives the value that would have come next, and the signal that ended the series.
///
/// # Safety
///
/// [`catch`] must have been called. `addr` is outside Rust objects.
pub unsafe fn hammer(addr: usize, start: u64, count: u64) -> (u64, Probe<()>) {
    let mut out = Outcome::default();
    // SAFETY: `out` is valid, and the caller vouches for `addr`.
    unsafe { guest_probe_hammer(addr, start, count.max(1), &raw mut out) };
    (out.value, out.probe().map(|_| ()))
}

/// Installs the handler; programs that probe call it first.
pub fn catch() {
    set_handler(libc::SIGSEGV, on_fault as *const () as usize, libc::SA_SIGINFO);
    set_handler(libc::SIGBUS, on_fault as *const () as usize, libc::SA_SIGINFO);
}

/// Installs `handler` (or `SIG_DFL`, `SIG_IGN`) for `signal` with an empty mask.
pub fn set_handler(signal: i32, handler: usize, flags: i32) {
    // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` is valid, and the handlers of these programs are signal safe.
    let done = unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) };
    assert_eq!(done, 0, "sigaction");
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid context to a SA_SIGINFO handler.
    let regs = unsafe { &mut (*context).uc_mcontext.gregs };
    // SAFETY: and a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS of the kernel carry an address.
    let addr = unsafe { info.si_addr() } as usize;
    let rip = regs[libc::REG_RIP as usize] as usize;
    let begin = guest_probe_begin as *const () as usize;
    let end = guest_probe_end as *const () as usize;
    if !(begin..end).contains(&rip) {
        unexpected(Trap { signal, code: info.si_code, addr }, rip);
    }
    regs[libc::REG_RAX as usize] = i64::from(signal);
    regs[libc::REG_R9 as usize] = i64::from(info.si_code);
    regs[libc::REG_R10 as usize] = addr as i64;
    regs[libc::REG_RIP as usize] = guest_probe_caught as *const () as i64;
}

/// Reports a fault that no test expects and ends the process. Formats without allocation.
fn unexpected(trap: Trap, rip: usize) -> ! {
    use core::fmt::Write;
    let mut text = Line { bytes: [0; 160], used: 0 };
    let begin = guest_probe_begin as *const () as usize;
    let off = rip.wrapping_sub(begin) as isize;
    let _ = writeln!(text, "FAIL unexpected {trap:?}, rip {rip:#x} (probes {off:+#x})");
    die(core::str::from_utf8(&text.bytes[..text.used]).unwrap_or("FAIL unexpected fault\n"))
}

/// A line of text on the stack.
struct Line {
    bytes: [u8; 160],
    used: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.used;
        let part = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.used..][..part.len()].copy_from_slice(part);
        self.used += part.len();
        Ok(())
    }
}
