//! What the entry code calls, and how the run loop enters user mode.
//!
//! The fast path of the whole system is [`user_page_fault`]: from the trap straight into
//! `Space::fault` of the space that is loaded, found through `gs` without a lock, and back.

use core::sync::atomic::{AtomicU64, Ordering};

use faultless::{Access, Resolved, VirtAddr};

use super::idt::vector;
use super::local::{self, Padded};
use super::{CpuLocal, MAX_CPUS, apic, cpu, tlb, user};
use crate::{report, retired};

/// Why user mode was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// A system call.
    Syscall,
    /// A page fault that faultless refused: see `CpuLocal::failed_fault`.
    PageFault,
    /// Another exception; its error code is in the context.
    Exception(u64),
    /// A device or another CPU wants something.
    Interrupt(u64),
}

/// How to leave for user mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// All registers as the context says.
    Full,
    /// `rcx` and `r11` may be lost: right after a system call.
    AfterSyscall,
}

/// The words that the CPU pushes at a trap.
#[repr(C)]
pub struct InterruptFrame {
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const SYSCALL_TRAP: u64 = 256;

mod error_code {
    pub const WRITE: u64 = 1 << 1;
    pub const RESERVED_BIT: u64 = 1 << 3;
    pub const FETCH: u64 = 1 << 4;
}

/// Runs user code with `context` until it traps.
///
/// The context must be the one that `sched` made this CPU's frame point to, and its `rip` a user
/// address.
pub fn enter_user(_cpu: &mut CpuLocal, context: &mut super::UserContext, leave: Leave) -> Trap {
    unsafe extern "C" {
        fn enter_user(context: *mut core::ffi::c_void, fast: u64) -> u64;
    }
    debug_assert!(context.rip < user::USER_END);
    let fast = u64::from(leave == Leave::AfterSyscall);
    // SAFETY: selectors and flags in a context are user mode's, the scheduler has loaded the
    // thread's root and frame top, and both `&mut` are lent to the trap handlers meanwhile.
    let number = unsafe { enter_user(core::ptr::from_mut(context).cast(), fast) };
    match number {
        SYSCALL_TRAP => Trap::Syscall,
        vector::PAGE_FAULT => Trap::PageFault,
        n if n >= vector::FIRST_INTERRUPT => Trap::Interrupt(n),
        n => Trap::Exception(n),
    }
}

fn access_of(code: u64) -> Access {
    if code & error_code::FETCH != 0 {
        Access::Execute
    } else if code & error_code::WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// A page fault of user code. Returns whether it is resolved and the CPU can go straight back: not if it has waited for
/// something and taken an interrupt meanwhile, which only the run loop looks at. The timer goes off once; missed here,
/// the thread would keep the CPU for ever.
#[unsafe(no_mangle)]
extern "C" fn user_page_fault(cpu: &mut CpuLocal, address: u64, code: u64) -> bool {
    if code & error_code::RESERVED_BIT != 0 {
        panic!("a page table entry of the space has a reserved bit set, at {address:#x}");
    }
    let Some(memory) = &cpu.memory else {
        panic!("user mode without a space");
    };
    let access = access_of(code);
    let resolved = match memory.space().fault(&mut cpu.vm, VirtAddr::new(address), access) {
        Err(error) => retired::fault_again(cpu, address, access, error),
        done => done,
    };
    match resolved {
        Ok(Resolved::Minor) => cpu.minor_faults += 1,
        Ok(Resolved::Major) => cpu.major_faults += 1,
        Err(error) => {
            cpu.failed_fault = Some((address, error));
            return false;
        }
    }
    !has_noted()
}

/// A page fault of kernel code: an access to user memory, or the end.
#[unsafe(no_mangle)]
extern "C" fn kernel_page_fault(address: u64, code: u64, frame: &mut InterruptFrame) {
    let local = local::current();
    // SAFETY: a fault in a user copy is the only one expected, and those lend their exclusive
    // `&mut CpuLocal` to this handler; on any other fault nothing continues.
    let handled = !local.is_null() && user::handle_fault(unsafe { &mut *local }, address, access_of(code), frame);
    if !handled {
        report::fatal_exception(vector::PAGE_FAULT, code, frame, address);
    }
}

/// Any other trap of kernel code: an interrupt in a wait, or the end.
#[unsafe(no_mangle)]
extern "C" fn kernel_trap(number: u64, frame: &InterruptFrame, code: u64) {
    if number < vector::FIRST_INTERRUPT {
        report::fatal_exception(number, code, frame, cpu::fault_address());
    }
    note_interrupt(number);
}

/// Double faults and machine checks, on their own stack.
#[unsafe(no_mangle)]
extern "C" fn fatal_trap(number: u64, rip: u64, rsp: u64, address: u64) -> ! {
    let frame = InterruptFrame { rip, cs: 0, rflags: 0, rsp, ss: 0 };
    report::fatal_exception(number, 0, &frame, address)
}

/// Interrupts that were acknowledged and that the run loop has not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted(u64);

impl Noted {
    /// The timer went off.
    pub const TIMER: Noted = Noted(1);
    /// COM1 has received something.
    pub const SERIAL: Noted = Noted(2);
    /// Another CPU wants this one to look around.
    pub const KICK: Noted = Noted(4);

    /// Whether `other` is among them.
    pub fn contains(self, other: Noted) -> bool {
        self.0 & other.0 != 0
    }
}

static NOTED: [Padded<AtomicU64>; MAX_CPUS] = [const { Padded(AtomicU64::new(0)) }; MAX_CPUS];

fn note(what: Noted) {
    NOTED[local::index()].0.fetch_or(what.0, Ordering::Relaxed);
}

/// Whether [`take_noted`] would find something. A plain load, for the way back to user mode.
pub fn has_noted() -> bool {
    NOTED[local::index()].0.load(Ordering::Relaxed) != 0
}

/// What was noted on this CPU since the last call.
pub fn take_noted() -> Noted {
    Noted(NOTED[local::index()].0.swap(0, Ordering::Relaxed))
}

/// Acknowledges an interrupt and does the part of it that cannot wait. What it is about is looked
/// at by the run loop, which runs before user mode does.
pub fn note_interrupt(number: u64) {
    match number {
        vector::SHOOTDOWN => tlb::serve(),
        vector::TIMER => note(Noted::TIMER),
        vector::SERIAL => note(Noted::SERIAL),
        vector::KICK => note(Noted::KICK),
        _ => {}
    }
    if number != vector::SPURIOUS {
        apic::acknowledge();
    }
}
