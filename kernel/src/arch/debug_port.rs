//! The two ports that exist only under the emulator: debug console and exit device.
//!
//! The report goes to the debug console, one JSON object per line; the exit device ends the
//! emulator with status `value << 1 | 1`.

use super::cpu::{halt_for_ever, port_out};

const DEBUG_CONSOLE: u16 = 0xe9;
const EXIT: u16 = 0xf4;
const EXIT_ORDERLY: u8 = 0x10;
const EXIT_PANIC: u8 = 0x11;

/// Formatted output to the debug console.
pub struct DebugConsole;

impl core::fmt::Write for DebugConsole {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            port_out(DEBUG_CONSOLE, byte);
        }
        Ok(())
    }
}

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program ended; its status is in the report.
    Orderly,
    /// The kernel failed.
    Panic,
}

/// Ends the emulator.
pub fn exit(end: End) -> ! {
    let code = match end {
        End::Orderly => EXIT_ORDERLY,
        End::Panic => EXIT_PANIC,
    };
    // The device is four bytes wide on the usual command line; a byte write is enough.
    port_out(EXIT, code);
    halt_for_ever()
}
