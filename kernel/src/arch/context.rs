//! The state of a thread in user mode, in the layout that `entry.s` pushes and pops.
//!
//! Called by the run loop, system calls and signal delivery. A thread that is not running on
//! a CPU has all of its user state here. While it runs, or while the kernel works for it, the
//! x87 registers and MXCSR stay in the CPU (see `fpu`); the SSE registers are here.

use core::mem::offset_of;

use crate::fs::Waiter;
use crate::sched::Restart;

/// `cs` of user code and `ss` of user data: see `gdt`.
pub const USER_CS: u64 = 0x2b;
/// Selector of user data and stack.
pub const USER_SS: u64 = 0x23;
/// `rflags` that a fresh thread starts with: interrupts on.
pub const RFLAGS_FRESH: u64 = 0x202;
/// Flags that user code may set for itself, by `sigreturn` for example.
pub const RFLAGS_USER: u64 = 0x0024_4dd5;

/// The least stack that a signal frame needs (AT_MINSIGSTKSZ).
pub const SIGNAL_STACK_MIN: u64 = 2048;

/// Registers of a thread and what the kernel keeps with them.
///
/// `entry.s` knows the offsets of everything up to `fx`; [`offsets_hold`] checks them.
#[repr(C, align(16))]
pub struct UserContext {
    pad: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// System call: its number as it was at entry. Exception: the error code.
    pub code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    /// x87, MXCSR and SSE registers in the layout of `fxsave`.
    pub fx: FxArea,
    /// Base of `fs`: the thread pointer.
    pub fs_base: u64,
    /// Base of `gs` as user code sees it.
    pub gs_base: u64,
    /// The last exception, for signal frames.
    pub trap: LastTrap,
    /// Progress of a system call that blocked and is executed again.
    pub restart: Restart,
    /// The answer that its last access waits for.
    pub waiter: Option<Waiter>,
}

/// What signal frames say about the exception before them.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastTrap {
    /// Vector.
    pub number: u64,
    /// Error code.
    pub code: u64,
    /// Address of a page fault.
    pub address: u64,
}

/// The 512 bytes of `fxsave`.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct FxArea(pub [u8; 512]);

impl FxArea {
    /// Control words as a fresh Linux process finds them: all exceptions masked.
    pub const FRESH: FxArea = {
        let mut area = [0; 512];
        // x87 control word 0x037f, MXCSR 0x1f80, both little endian.
        area[0] = 0x7f;
        area[1] = 0x03;
        area[24] = 0x80;
        area[25] = 0x1f;
        FxArea(area)
    };
}

impl UserContext {
    /// A context that starts at `rip` with `rsp` and everything else clear.
    pub fn new(rip: u64, rsp: u64) -> UserContext {
        UserContext {
            pad: 0,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            code: 0,
            rip,
            cs: USER_CS,
            rflags: RFLAGS_FRESH,
            rsp,
            ss: USER_SS,
            fx: FxArea::FRESH,
            fs_base: 0,
            gs_base: 0,
            trap: LastTrap::default(),
            restart: Restart::default(),
            waiter: None,
        }
    }

    /// The registers for a child of `fork` or `clone`: a copy with nothing in progress.
    pub fn child(&self) -> UserContext {
        UserContext { rax: 0, restart: Restart::default(), waiter: None, ..*self }
    }

    /// The number of the system call being executed.
    pub fn syscall_number(&self) -> u64 {
        self.code
    }

    /// The six arguments of a system call.
    pub fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// Sets the result that user code finds in `rax`.
    pub fn set_result(&mut self, value: i64) {
        self.rax = value.cast_unsigned();
    }

    /// Goes back to the system call instruction, for a restart after a signal handler.
    pub fn rewind_syscall(&mut self) {
        self.rax = self.code;
        self.rip -= 2;
    }

    /// Keeps what `entry.s` left about an exception.
    pub fn note_trap(&mut self, number: u64, address: u64) {
        self.trap = LastTrap { number, code: self.code, address };
    }

    /// Where the CPU pushes the interrupt frame: one past `ss`.
    pub fn frame_top(&self) -> u64 {
        core::ptr::from_ref(&self.fx) as u64
    }
}

/// Compile-time check of the offsets that `entry.s` has as constants.
const fn offsets_hold() -> bool {
    offset_of!(UserContext, r15) == 8
        && offset_of!(UserContext, r11) == 56
        && offset_of!(UserContext, rdi) == 120
        && offset_of!(UserContext, code) == 128
        && offset_of!(UserContext, ss) == 168
        && offset_of!(UserContext, fx) == 176
}
const _: () = assert!(offsets_hold());
