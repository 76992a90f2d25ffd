//! COM1: the console, both ways, raw bytes.
//!
//! Output waits for room in the transmitter (the FIFO takes 16 bytes at once). Input raises an
//! interrupt; [`take_input`] collects what the receiver has.

use super::cpu::{port_in, port_out};
use crate::sync::Lock;

const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;

/// FIFOs on and emptied; an interrupt at 14 received bytes, or when fewer have waited for the time of four.
const FIFO: u8 = 0xc7;
const RECEIVED: u8 = 1;
const ROOM: u8 = 1 << 5;
const FIFO_SIZE: usize = 16;

/// Writers one at a time, so that lines of different CPUs do not mix within a call.
static OUTPUT: Lock<()> = Lock::new(());

/// Sets 115200 baud, 8 bits, no parity, FIFOs on, interrupts off.
pub fn init() {
    port_out(INTERRUPT_ENABLE, 0);
    port_out(LINE_CONTROL, 0x80);
    port_out(COM1, 1);
    port_out(COM1 + 1, 0);
    port_out(LINE_CONTROL, 3);
    port_out(FIFO_CONTROL, FIFO);
    port_out(MODEM_CONTROL, 0x0b);
}

/// Raises interrupts for what is received from now on.
pub fn enable_interrupt() {
    port_out(INTERRUPT_ENABLE, 1);
}

/// Writes all of `bytes`.
pub fn write(bytes: &[u8]) {
    let _guard = OUTPUT.lock();
    write_unlocked(bytes);
}

/// Writes without taking turns, for a kernel that is about to die.
pub fn write_unlocked(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO_SIZE) {
        while port_in(LINE_STATUS) & ROOM == 0 {
            core::hint::spin_loop();
        }
        for &byte in chunk {
            port_out(COM1, byte);
        }
    }
}

/// Takes received bytes into `buffer` and says how many.
pub fn take_input(buffer: &mut [u8]) -> usize {
    let mut count = 0;
    while count < buffer.len() && port_in(LINE_STATUS) & RECEIVED != 0 {
        buffer[count] = port_in(COM1);
        count += 1;
    }
    count
}
