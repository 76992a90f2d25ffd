//! Framing of console input: the escape byte DLE and what it announces.
//!
//! Called by the console and by the host's tests. Pure.

/// Announces that the next byte is a word to the kernel.
const DLE: u8 = 0x10;

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A byte for whoever reads.
    Byte(u8),
    /// No more input will come.
    End,
    /// The user wants the program to stop.
    Interrupt,
}

/// Where in the stream we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framing {
    escaped: bool,
}

impl Framing {
    /// The start of the stream.
    pub const fn new() -> Framing {
        Framing { escaped: false }
    }

    /// Takes a byte of the stream. Unknown escapes are dropped: a newer sender may have more.
    pub fn take(&mut self, byte: u8) -> Option<Frame> {
        if !core::mem::take(&mut self.escaped) {
            self.escaped = byte == DLE;
            return (!self.escaped).then_some(Frame::Byte(byte));
        }
        match byte {
            DLE => Some(Frame::Byte(DLE)),
            b'E' => Some(Frame::End),
            b'C' => Some(Frame::Interrupt),
            _ => None,
        }
    }
}
