//! What the kernel tells about itself: the JSON lines of the report, and how it dies.
//!
//! A panic or an exception of kernel code writes to COM1 and to the debug console, stops the
//! other CPUs, and ends the emulator with a code that is not that of an orderly end.

mod end;

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

pub use end::{Frames, Program, exit};

use crate::arch::debug_port::{self, DebugConsole, End};
use crate::arch::trap::InterruptFrame;
use crate::arch::{UserContext, apic, cpu, serial};
use crate::errno::Errno;
use crate::sched::Thread;
use crate::signal::SigInfo;
use crate::sync::Lock;
use crate::{clock, machine};

/// Non-zero once a CPU dies; `entry.s` looks at it on each NMI.
#[unsafe(no_mangle)]
static panicking: AtomicU32 = AtomicU32::new(0);

/// COM1 without taking turns: whoever held the lock may be stopped for good.
struct LastWords;

impl Write for LastWords {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        serial::write_unlocked(text.as_bytes());
        Ok(())
    }
}

/// Escapes what JSON does not allow in a string.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                c if (c as u32) < 0x20 => write!(self.0, "\\u{:04x}", c as u32)?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Only the first CPU to die reports; one that dies while reporting stops at once.
fn begin_dying() {
    if panicking.swap(1, Ordering::Relaxed) != 0 {
        cpu::halt_for_ever();
    }
    apic::send_nmi_to_others();
}

/// Writes the message to both places and ends the machine.
fn die(message: core::fmt::Arguments<'_>) -> ! {
    // Errors of these writers cannot happen; there is nobody left to tell.
    let _ = writeln!(LastWords, "\nkernel panic: {message}");
    let _ = write!(DebugConsole, "{{\"event\":\"panic\",\"message\":\"");
    let _ = write!(Escaped(DebugConsole), "{message}");
    let _ = writeln!(DebugConsole, "\"}}");
    debug_port::exit(End::Panic)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin_dying();
    die(format_args!("{info}"))
}

/// An exception of kernel code that nothing handles.
pub fn fatal_exception(number: u64, code: u64, frame: &InterruptFrame, address: u64) -> ! {
    begin_dying();
    die(format_args!(
        "exception {number} (code {code:#x}) at {:#x}, rsp {:#x}, address {address:#x}",
        frame.rip, frame.rsp
    ))
}

/// Named by the precompiled core library, which is built to unwind; this kernel aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    cpu::halt_for_ever()
}

/// One line when the machine is up.
pub fn boot(cpus: usize) {
    let stats = machine::vm().stats();
    line(format_args!(
        "{{\"event\":\"boot\",\"cpus\":{cpus},\"frames\":{{\"total\":{},\"free\":{}}},\"ns\":{}}}",
        stats.total_frames,
        stats.free_frames,
        clock::monotonic()
    ));
}

/// The program could not be started at all: said on the console, and as a status the shell's way.
pub fn cannot_start(path: &[u8], errno: Errno) {
    let status = if errno == Errno::ENOENT { 127 } else { 126 };
    let _ = writeln!(LastWords, "{}: {errno:?}", alloc::string::String::from_utf8_lossy(path));
    line(format_args!("{{\"event\":\"exit\",\"status\":{status},\"signal\":null,\"report\":null}}"));
}

/// Nothing can be started for a reason outside of the kernel. The status is that of a program that
/// cannot be executed.
pub fn unusable(reason: &str) {
    let _ = writeln!(LastWords, "{reason}");
    line(format_args!("{{\"event\":\"error\",\"message\":\"{reason}\"}}"));
    line(format_args!("{{\"event\":\"exit\",\"status\":126,\"signal\":null,\"report\":null}}"));
}

/// One line at a time: CPUs take turns.
static LINES: Lock<()> = Lock::new(());

/// Writes one line to the debug console.
fn line(text: core::fmt::Arguments<'_>) {
    let _guard = LINES.lock();
    // The port takes everything.
    let _ = writeln!(DebugConsole, "{text}");
}

/// A fault ends a process: where it was and what it wanted.
pub fn fault_kills(thread: &Thread, context: &UserContext, info: SigInfo) {
    line(format_args!(
        "{{\"event\":\"fault\",\"pid\":{},\"signal\":{},\"code\":{},\"rip\":{},\"rsp\":{},\"address\":{},\"error\":{}}}",
        thread.process.pid, info.signal, info.code, context.rip, context.rsp, context.trap.address, context.trap.code,
    ));
}
