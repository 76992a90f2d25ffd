//! How input travels to the guest: bytes as they are, and what a byte stream cannot say, escaped.
//!
//! Called by `session`. The byte DLE (0x10) introduces an escape: `DLE DLE` is the byte itself, `DLE E` the end of
//! input. Output needs no framing: the serial line's bytes are the program's.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// The escape byte.
pub const DLE: u8 = 0x10;

/// The end of input.
pub const END: [u8; 2] = [DLE, b'E'];

/// What Ctrl-C types.
const CTRL_C: u8 = 0x03;

/// Two Ctrl-C closer than this end the guest.
const TWICE: Duration = Duration::from_secs(1);

/// Appends `bytes` to `out`, escaped.
pub fn frame(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte == DLE {
            out.push(DLE);
        }
        out.push(byte);
    }
}

/// Forwards everything from `input` to the guest and ends with the end of input. `look` sees each piece before it is
/// sent.
///
/// # Errors
///
/// What reading or writing gives. A guest that has ended shows as a broken pipe.
pub fn forward(input: &mut impl Read, guest: &mut impl Write, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = [0; 4096];
    let mut framed = Vec::new();
    loop {
        let length = match input.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        look(&piece[..length]);
        framed.clear();
        frame(&piece[..length], &mut framed);
        if length == 0 {
            framed.extend(END);
        }
        guest.write_all(&framed)?;
        guest.flush()?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Watches a terminal's input for a user who wants out: Ctrl-C twice within a second. A single one belongs to the
/// program, which may handle it.
#[derive(Debug, Default)]
pub struct Impatience {
    last: Option<Instant>,
}

impl Impatience {
    /// Whether the user wants out, now that `bytes` were typed at `now`.
    pub fn sees(&mut self, bytes: &[u8], now: Instant) -> bool {
        for &byte in bytes {
            if byte != CTRL_C {
                self.last = None;
                continue;
            }
            if self.last.is_some_and(|last| now.duration_since(last) <= TWICE) {
                return true;
            }
            self.last = Some(now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_byte_is_doubled_and_the_end_is_told() {
        let mut out = Vec::new();
        let mut seen = 0;
        forward(&mut &b"a\x10\x10b"[..], &mut out, |piece| seen += piece.len()).expect("written");
        assert_eq!(out, b"a\x10\x10\x10\x10b\x10E");
        assert_eq!(seen, 4);
    }

    #[test]
    fn nothing_at_all_is_only_an_end() {
        let mut out = Vec::new();
        forward(&mut io::empty(), &mut out, |_| ()).expect("written");
        assert_eq!(out, END);
    }

    #[test]
    fn every_byte_survives_framing() {
        let all: Vec<u8> = (0..=255).collect();
        let mut framed = Vec::new();
        frame(&all, &mut framed);
        let mut bytes = framed.iter();
        let mut back = Vec::new();
        while let Some(&byte) = bytes.next() {
            back.push(if byte == DLE { *bytes.next().expect("a pair") } else { byte });
        }
        assert_eq!(back, all);
    }

    #[test]
    fn only_two_quick_interrupts_mean_out() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut user = Impatience::default();
        assert!(!user.sees(b"\x03", start));
        assert!(!user.sees(b"\x03", after(5)));
        assert!(!user.sees(b"x", after(5)));
        assert!(!user.sees(b"\x03", after(5)));
        assert!(user.sees(b"\x03", after(6)));
        assert!(Impatience::default().sees(b"\x03\x03", start));
    }
}
