//! The initial stack: strings, auxiliary vector, environment, arguments, count.
//!
//! Pure: builds the bytes for a given top address; `exec` writes them.

use alloc::vec::Vec;

/// What goes onto the stack.
pub struct Content<'c> {
    /// Argument strings, without terminators.
    pub args: &'c [Vec<u8>],
    /// Environment strings, without terminators.
    pub env: &'c [Vec<u8>],
    /// Path of the executed file.
    pub file: &'c [u8],
    /// Sixteen random bytes.
    pub random: [u8; 16],
    /// Auxiliary vector without its pointers and its end.
    pub auxv: &'c [(u64, u64)],
}

/// A built stack.
pub struct Built {
    /// Its bytes, ending at the top address.
    pub bytes: Vec<u8>,
    /// Stack pointer; the bytes start there.
    pub pointer: u64,
    /// Start and end of the argument strings.
    pub args: (u64, u64),
    /// Start and end of the environment strings.
    pub env: (u64, u64),
    /// The auxiliary vector as it is in memory.
    pub auxv: Vec<u8>,
}

const AT_NULL: u64 = 0;
const AT_PLATFORM: u64 = 15;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const PLATFORM: &[u8] = b"x86_64";

/// Strings and where they end up.
struct Strings {
    bytes: Vec<u8>,
    base: u64,
}

impl Strings {
    fn push(&mut self, text: &[u8]) -> u64 {
        let at = self.end();
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        at
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }
}

/// Bytes that strings take, and words that their pointers take: the limit of `execve` counts both.
pub fn size_of(args: &[Vec<u8>], env: &[Vec<u8>]) -> usize {
    args.iter().chain(env).map(|s| s.len() + 1 + 8).sum()
}

/// Builds the stack that ends at `top`, which must be 16-byte aligned.
pub fn build(top: u64, content: &Content<'_>) -> Built {
    // Strings first, in ascending order, so that arguments and environment are adjacent as tools
    // that overwrite them expect.
    let strings_size = content.args.iter().chain(content.env).map(|s| s.len() + 1).sum::<usize>()
        + content.file.len()
        + 1
        + PLATFORM.len()
        + 1
        + content.random.len();
    // One word of zero on top, as on Linux.
    let base = (top - 8 - strings_size as u64) & !15;
    let mut strings = Strings { bytes: Vec::with_capacity(strings_size + 32), base };
    let args: Vec<u64> = content.args.iter().map(|s| strings.push(s)).collect();
    let args_range = (base, strings.end());
    let env: Vec<u64> = content.env.iter().map(|s| strings.push(s)).collect();
    let env_range = (args_range.1, strings.end());
    let file = strings.push(content.file);
    let platform = strings.push(PLATFORM);
    let random = strings.end();
    strings.bytes.extend_from_slice(&content.random);
    strings.bytes.resize((top - base) as usize, 0);

    let mut auxv = Vec::new();
    let pointers = [(AT_PLATFORM, platform), (AT_RANDOM, random), (AT_EXECFN, file), (AT_NULL, 0)];
    for &(key, value) in content.auxv.iter().chain(&pointers) {
        auxv.extend_from_slice(&key.to_le_bytes());
        auxv.extend_from_slice(&value.to_le_bytes());
    }
    let words = 1 + args.len() + 1 + env.len() + 1;
    let pointer = (base - auxv.len() as u64 - words as u64 * 8) & !15;
    let mut bytes = Vec::with_capacity((top - pointer) as usize);
    let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    word(args.len() as u64);
    args.iter().copied().chain([0]).chain(env.iter().copied()).chain([0]).for_each(&mut word);
    bytes.extend_from_slice(&auxv);
    bytes.resize((base - pointer) as usize, 0);
    bytes.extend_from_slice(&strings.bytes);
    Built { bytes, pointer, args: args_range, env: env_range, auxv }
}
