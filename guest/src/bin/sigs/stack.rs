//! The stack grows on demand to its limit, keeps its distance, and overflows politely.

use crate::{Sigs, block, on};
use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use faultless_guest::child;
use faultless_guest::probe::{self, SEGV_MAPERR};
use faultless_guest::sys::{self, ANON, End, Errno, PAGE, RW};

const MIB: usize = 1 << 20;

/// Distance that the stack keeps from what lies below: 256 pages.
const GAP: usize = 256 * PAGE;

/// Touches the stack downwards, page by page and in one jump, to exactly its limit.
pub fn growth(sigs: &Sigs) {
    for (limit, step) in [(MIB, PAGE), (2 * MIB, PAGE), (4 * MIB, 16 * PAGE), (3 * MIB, 3 * MIB)] {
        let end = child::run(|| {
            set_limit(limit);
            let top = stack_end();
            let lowest = sink(top, step);
            sigs.note.set(0, (top - lowest) as u64);
            0
        });
        sigs.report.same("child that grows its stack", end, End::Exit(0));
        // All limits are multiples of their steps, so the last step ends exactly there.
        sigs.report.same("size of the stack", sigs.note.get(0), limit as u64);
    }
}

/// Touches `top - step`, `top - 2 step`, …, from well below the part in use; gives the
/// lowest address that worked.
///
/// Ends the process with status 1 if the first refusal has another code or address, and
/// with status 3 if nothing worked.
fn sink(top: usize, step: usize) -> usize {
    let local = 0_u8;
    let used = top - &raw const local as usize + MIB / 16;
    let first = top - used.next_multiple_of(step);
    let mut next = first;
    loop {
        // SAFETY: below the part of the stack in use, where a store does no harm.
        match unsafe { probe::store(next + 24, 1) } {
            Ok(()) => next -= step,
            Err(_) if next == first => sys::exit(3),
            Err(trap) if trap == probe::maperr(next + 24) => return next + step,
            Err(_) => sys::exit(1),
        }
    }
}

/// A mapping below the stack keeps it from growing nearer than the gap.
pub fn gap(sigs: &Sigs) {
    let end = child::run(|| {
        let top = stack_end();
        let below = top - 4 * MIB;
        let flags = ANON | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: the flag refuses to replace anything.
        if unsafe { sys::mmap(below, PAGE, RW, flags, -1, 0) } != Ok(below) {
            return 2;
        }
        let lowest = sink(top, PAGE);
        sigs.note.set(0, (lowest - (below + PAGE)) as u64);
        0
    });
    sigs.report.same("child with a mapping below its stack", end, End::Exit(0));
    sigs.report.same("distance of the stack", sigs.note.get(0), GAP as u64);
}

/// End of the stack's area, from /proc/self/maps.
fn stack_end() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let line = maps.lines().find(|line| line.ends_with("[stack]")).expect("a [stack]");
    let range = line.split(' ').next().expect("a range");
    let end = range.split('-').nth(1).expect("two addresses");
    usize::from_str_radix(end, 16).expect("a hexadecimal number")
}

fn set_limit(bytes: usize) {
    let limit = [bytes as u64, bytes as u64];
    let args = [0, 3, limit.as_ptr() as usize, 0, 0, 0];
    // SAFETY: `limit` has the layout of a `struct rlimit64`; 3 is RLIMIT_STACK.
    let done = unsafe { sys::call(libc::SYS_prlimit64, args) };
    assert_eq!(done, Ok(0), "prlimit64");
}

/// Size of the alternate stack.
const ALT: usize = 16 * PAGE;

/// What the handler of an overflow saw. (A) Read by the same thread only.
static SEEN: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// Pushes until the stack ends, with and without an alternate stack for the handler.
pub fn overflow(sigs: &Sigs) {
    let end = child::run(|| {
        set_limit(MIB);
        push_until_fault()
    });
    sigs.report.same("overflow without alternate stack", end, End::Signal(libc::SIGSEGV));
    let end = child::run(|| {
        set_limit(MIB);
        let top = stack_end();
        let alt = use_alternate_stack();
        on(libc::SIGSEGV, on_overflow as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK, &[]);
        // More than once: after the return the alternate stack is free again.
        for turn in 1..=3 {
            push_until_fault();
            let [count, code, addr, local] = [0, 1, 2, 3].map(|i| SEEN[i].load(Ordering::Relaxed));
            let inside = (alt..alt + ALT).contains(&local);
            let low = addr < top - MIB && addr >= top - MIB - 8;
            if count != turn || code != SEGV_MAPERR as usize || !inside || !low {
                sys::print(1, &format!("sigs: overflow {turn}: {count} {code} {addr:#x} {inside}\n"));
                return 1;
            }
        }
        0
    });
    sigs.report.same("overflow with alternate stack", end, End::Exit(0));
    let end = child::run(|| {
        use_alternate_stack();
        on(libc::SIGUSR1, change_stack as *const () as usize, libc::SA_ONSTACK, &[]);
        let _ = sys::kill(sys::getpid(), libc::SIGUSR1);
        SEEN[0].load(Ordering::Relaxed) as i32
    });
    sigs.report.same("sigaltstack while it is in use", end, End::Exit(libc::EPERM));
}

/// Maps an alternate stack and registers it; gives its address.
fn use_alternate_stack() -> usize {
    // SAFETY: no address is asked for.
    let alt = unsafe { sys::mmap(0, ALT, RW, ANON, -1, 0) }.expect("an alternate stack");
    assert_eq!(set_alternate_stack(alt), Ok(0), "sigaltstack");
    alt
}

fn set_alternate_stack(alt: usize) -> sys::Result {
    // SAFETY: all-zero is a valid stack_t.
    let mut stack: libc::stack_t = unsafe { core::mem::zeroed() };
    stack.ss_sp = alt as *mut libc::c_void;
    stack.ss_size = ALT;
    let args = [&raw const stack as usize, 0, 0, 0, 0, 0];
    // SAFETY: `stack` describes memory that nothing else uses.
    unsafe { sys::call(libc::SYS_sigaltstack, args) }
}

/// Pushes words until the stack ends; the handler sends it to where r14 points.
fn push_until_fault() -> i32 {
    // SAFETY: the handler (or death) ends the loop, and rsp is put back. Everything below
    // rsp is free, and the block says that it uses the stack.
    unsafe {
        asm!(
            "mov r15, rsp",
            "lea r14, [rip + 3f]",
            "2: push rax",
            "jmp 2b",
            "3: mov rsp, r15",
            out("r14") _, out("r15") _,
        );
    }
    0
}

extern "C" fn on_overflow(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let local = 0_u8;
    // SAFETY: the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV carries an address.
    let addr = unsafe { info.si_addr() } as usize;
    // SAFETY: the kernel passes a valid context.
    let regs = unsafe { &mut (*context).uc_mcontext.gregs };
    regs[libc::REG_RIP as usize] = regs[libc::REG_R14 as usize];
    SEEN[0].fetch_add(1, Ordering::Relaxed);
    SEEN[1].store(info.si_code as usize, Ordering::Relaxed);
    SEEN[2].store(addr, Ordering::Relaxed);
    SEEN[3].store(&raw const local as usize, Ordering::Relaxed);
}

/// On the alternate stack it must not be replaced.
extern "C" fn change_stack(_: i32) {
    let number = match set_alternate_stack(0x1000) {
        Err(Errno(number)) => number as usize,
        Ok(_) => 0,
    };
    SEEN[0].store(number, Ordering::Relaxed);
}

/// A process that unmaps all it has, bit by bit, dies of the next instruction, whether its handler is blocked or has
/// nowhere to run.
pub fn nothing_left(sigs: &Sigs) {
    const TOP: usize = 0x7fff_ffff_f000;
    for blocks in [true, false] {
        for parts in [1, 2, 64] {
            let end = child::run(|| {
                if blocks {
                    block(libc::SIGSEGV, libc::SIG_BLOCK);
                }
                let len = TOP / PAGE / parts * PAGE;
                for part in (0..parts).rev() {
                    // The stack goes first, the program last.
                    // SAFETY: nothing runs afterwards: that is what the parent looks at.
                    let _ = unsafe { sys::munmap(part * len, TOP - part * len) };
                }
                0
            });
            sigs.report.same("end of a process without memory", end, End::Signal(libc::SIGSEGV));
        }
    }
}
