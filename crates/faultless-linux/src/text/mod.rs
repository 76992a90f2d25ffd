//! The memory files of /proc/PID, in Linux's exact format.
//!
//! | file | text |
//! |---|---|
//! | `maps` | `maps`: a line per area |
//! | `sizes` | `statm`, and the memory lines of `status` |
//! | `smaps` | `smaps` and `smaps_rollup`: what an area's pages are |
//!
//! Called by whoever shows /proc. Absent on purpose: names. Which path an object has, and where heap and stack are,
//! the embedder says.

mod maps;
mod sizes;
mod smaps;

pub use maps::{MapLine, line_of};
pub use sizes::Sizes;
pub use smaps::{PageSums, vm_flags};

use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Text under construction. Paths and names are bytes, so this is not a `String`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Text(pub Vec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Text {
    /// Appends formatted text; nothing here fails.
    pub fn add(&mut self, arguments: fmt::Arguments<'_>) {
        let _ = self.write_fmt(arguments);
    }
}

/// Appends to a [`Text`] as `write!` does.
#[macro_export]
macro_rules! put {
    ($text:expr, $($arguments:tt)*) => { $text.add(format_args!($($arguments)*)) };
}
pub use put;

#[cfg(test)]
mod tests;
