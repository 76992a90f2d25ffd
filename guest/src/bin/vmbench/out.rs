//! Text that is kept until the end.

use crate::sys;
use core::fmt;

/// A buffer that goes to standard output when it is full or dropped.
pub struct Out {
    bytes: [u8; 8192],
    used: usize,
    /// Show each line at once.
    pub eager: bool,
}

impl Out {
    /// An empty buffer, all of whose pages have been touched.
    pub const fn new() -> Self {
        Self { bytes: [b' '; 8192], used: 0, eager: false }
    }

    /// Writes what there is.
    pub fn flush(&mut self) {
        sys::write(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        if self.eager {
            self.flush();
        }
        Ok(())
    }
}

/// A number of hundredths, printed with two decimals.
#[derive(Clone, Copy)]
pub struct Hundredths(pub u64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}
