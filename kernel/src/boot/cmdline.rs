//! Options of the kernel: `faultless.NAME=VALUE` words on the command line.

use crate::sync::Lock;

const MAX: usize = 1024;

struct Line {
    bytes: [u8; MAX],
    len: usize,
}

static LINE: Lock<Line> = Lock::new(Line { bytes: [0; MAX], len: 0 });

/// Keeps the command line.
pub fn store(line: &[u8]) {
    let mut kept = LINE.lock();
    kept.len = line.len().min(MAX);
    let len = kept.len;
    kept.bytes[..len].copy_from_slice(&line[..len]);
}

/// The value of the numeric option `name`, if it is there and is a number.
pub fn number(name: &str) -> Option<u64> {
    let line = LINE.lock();
    let text = core::str::from_utf8(&line.bytes[..line.len]).ok()?;
    let value = text.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    value.parse().ok()
}
