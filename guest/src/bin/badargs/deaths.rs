//! Programs that die alone: each case in a child, with signal, `si_code` and `si_addr`.
//!
//! Rows: VM-04, F-11, F-13, F-14.

use crate::Lines;
use crate::stage::{KERNEL, NON_CANONICAL, Stage, TOP};
use core::arch::asm;
use faultless_guest::child::{self, Death, die_of};
use faultless_guest::probe::signal_name;
use faultless_guest::sys::{self, End, PAGE, RO};

/// An access of the dying child.
#[derive(Clone, Copy, Debug)]
enum Access {
    Load,
    Store,
    /// A locked addition.
    Add,
    /// `rep movsb` of 64 bytes that starts 16 bytes before the address.
    CopyTo,
    /// 16 bytes at once, 8 before the address.
    Wide,
    /// A jump.
    Run,
    /// A push with the stack pointer there.
    Push,
}

const ACCESSES: [Access; 7] =
    [Access::Load, Access::Store, Access::Add, Access::CopyTo, Access::Wide, Access::Run, Access::Push];

/// Each access at each kind of address.
pub fn deaths(stage: &mut Stage, lines: &mut Lines) {
    let arena = stage.arena;
    let places = [
        ("null", 0),
        ("hole", arena.addr(4 * PAGE)),
        ("read-only", arena.addr(5 * PAGE)),
        ("no access", arena.addr(7 * PAGE)),
        ("behind the file", arena.addr(13 * PAGE)),
        ("top of user space", TOP),
        ("kernel", KERNEL),
        ("kernel text", 0xffff_ffff_8100_0000),
        ("non-canonical", NON_CANONICAL),
        ("own text", deaths as *const () as usize & !(PAGE - 1)),
    ];
    stage.reset();
    // Page 13 lies behind the end of the file: three pages, mapped from the third on.
    stage.report.need("ftruncate", stage.file.resize(3 * PAGE));
    for (place, addr) in places {
        for access in ACCESSES {
            if !known(place, access) {
                continue;
            }
            let death = die_of(&stage.note, || {
                // SAFETY: in a child that is meant to die.
                unsafe { go_wrong(access, addr) }
            });
            lines.add(format_args!("{access:?} at {place}: {}", story(stage, death, addr)));
        }
    }
    stage.report.need("ftruncate", stage.file.resize(4 * PAGE));
    after_life(stage, lines);
}

/// Leaves out what depends on the processor or is no fault at all.
fn known(place: &str, access: Access) -> bool {
    match access {
        // The part before the address is in another page, whose state is another case.
        Access::CopyTo | Access::Wide => matches!(place, "hole" | "read-only"),
        // Processors differ in which instruction a bad jump or push is charged to.
        Access::Run => !matches!(place, "non-canonical" | "own text" | "behind the file"),
        Access::Push => matches!(place, "hole" | "read-only" | "no access" | "null"),
        Access::Load => !matches!(place, "own text" | "read-only"),
        // QEMU with one CPU does it as a load, which SIGBUS meets, and then a store.
        Access::Add => place != "behind the file",
        Access::Store => true,
    }
}

/// Makes the access; returns if nothing stopped it.
///
/// # Safety
///
/// Only in a child that is meant to die here, or for an address that may be used so.
unsafe fn go_wrong(access: Access, addr: usize) -> i32 {
    match access {
        // SAFETY: as the caller vouches; the same for all others.
        Access::Load => unsafe { asm!("mov {0}, [{0}]", inout(reg) addr => _) },
        // SAFETY: see above.
        Access::Store => unsafe { asm!("mov [{}], {:r}", in(reg) addr, in(reg) 1_u64) },
        // SAFETY: see above.
        Access::Add => unsafe { asm!("lock add qword ptr [{}], 1", in(reg) addr) },
        // SAFETY: see above.
        Access::Wide => unsafe { asm!("movups [{}], xmm0", in(reg) addr - 8) },
        // SAFETY: see above.
        Access::Run => unsafe { asm!("call {}", in(reg) addr, clobber_abi("C")) },
        // SAFETY: see above.
        Access::Push => unsafe { asm!("mov rsp, {}", "push rax", "ud2", in(reg) addr + 8) },
        Access::CopyTo => {
            let from = go_wrong as *const () as usize;
            // SAFETY: see above; the source is this program's text.
            unsafe {
                asm!("rep movsb", inout("rcx") 64_usize => _, inout("rsi") from => _,
                    inout("rdi") addr - 16 => _);
            }
        }
    }
    0
}

/// How the child ended, with the address relative to `base`.
fn story(stage: &Stage, death: Death, base: usize) -> String {
    let end = match death.end {
        End::Exit(status) => format!("exit {status}"),
        End::Signal(signal) => format!("killed by {}", signal_name(signal)),
    };
    let Some(trap) = death.trap else { return end };
    let text = format!("{trap:?}");
    let kind = text.split(' ').next().unwrap_or_default().to_owned();
    let addr = match trap.addr {
        0 => "0".to_owned(),
        addr if addr == death.rip => "the instruction".to_owned(),
        addr if addr == base => "the address".to_owned(),
        addr => stage.name(addr),
    };
    format!("{end}, {kind} at {addr}")
}

/// Instructions that trap for other reasons than memory.
pub fn traps(stage: &mut Stage, lines: &mut Lines) {
    // Twice, because a trap (unlike a fault) continues behind the instruction, and the
    // second time no handler is left.
    let cases: &[(&str, fn())] = &[
        // SAFETY: the child is meant to die of each of these.
        ("ud2", || unsafe { asm!("ud2") }),
        // SAFETY: as above.
        ("int3", || unsafe { asm!("int3", "int3") }),
        // SAFETY: as above.
        ("hlt", || unsafe { asm!("hlt") }),
        // SAFETY: as above.
        ("cli", || unsafe { asm!("cli") }),
        ("division by zero", || {
            // SAFETY: as above.
            unsafe { asm!("div {:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _) }
        }),
        ("load of a control register", || {
            // SAFETY: as above.
            unsafe { asm!("mov {}, cr3", out(reg) _) }
        }),
    ];
    for (name, body) in cases {
        let death = die_of(&stage.note, || {
            body();
            0
        });
        lines.add(format_args!("{name}: {}", story(stage, death, 1)));
    }
}

/// What remains after many deaths: this process, its memory, and exit codes.
fn after_life(stage: &Stage, lines: &mut Lines) {
    stage.reset();
    lines.add(format_args!("after that: {}", stage.look()));
    for status in [0, 1, 77, 255] {
        lines.add(format_args!("exit({status}): {:?}", child::run(|| status)));
    }
    lines.add(format_args!("exit(256): {:?}", child::run(|| 256)));
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1, libc::SIGSEGV, libc::SIGPIPE] {
        let end = child::run(|| {
            faultless_guest::probe::set_handler(libc::SIGSEGV, libc::SIG_DFL, 0);
            faultless_guest::probe::set_handler(libc::SIGPIPE, libc::SIG_DFL, 0);
            let _ = sys::kill(sys::getpid(), signal);
            0
        });
        lines.add(format_args!("kill(self, {}): {end:?}", signal_name(signal)));
    }
    let prot = RO | libc::PROT_EXEC;
    let arena = stage.arena;
    arena.store(0, 0x9090_9090_c3c3_9090);
    stage.report.need("mprotect", arena.protect(0, 1, prot));
    // SAFETY: the page holds `nop; nop; ret`.
    let end = child::run(|| unsafe { go_wrong(Access::Run, arena.addr(0)) });
    lines.add(format_args!("running what was written and made executable: {end:?}"));
}
