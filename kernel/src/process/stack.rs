//! Arguments and environment, and the initial stack that they go to with the auxiliary vector.
//!
//! Pure: builds the bytes for a given top address; `exec` writes them. Lists of strings are kept in
//! one piece each, so that they cost what their bytes are and not an allocation a string.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Strings one after the other, each with a zero at its end.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// The bytes, for who makes room in them.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a string.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn push(&mut self, text: &[u8]) -> Result<(), TryReserveError> {
        self.bytes.try_reserve(text.len() + 1)?;
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// Replaces the first string, if there is one, by several.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn replace_first(&mut self, by: &[&[u8]]) -> Result<(), TryReserveError> {
        let mut fresh = Strings::default();
        let first = self.bytes.iter().position(|&b| b == 0).map_or(0, |end| end + 1);
        let room = by.iter().map(|text| text.len() + 1).sum::<usize>() + self.bytes.len() - first;
        fresh.bytes.try_reserve_exact(room)?;
        for text in by {
            fresh.push(text)?;
        }
        fresh.bytes.extend_from_slice(&self.bytes[first..]);
        fresh.count += self.count.saturating_sub(1);
        *self = fresh;
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes that they take on the stack, with the words that point to them.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.count * WORD
    }

    /// Address of each if they begin at `base`.
    fn addresses(&self, base: u64) -> impl Iterator<Item = u64> + '_ {
        let mut at = base;
        self.bytes.split_inclusive(|&b| b == 0).map(move |text| {
            let here = at;
            at += text.len() as u64;
            here
        })
    }
}

/// What goes onto the stack.
pub struct Content<'c> {
    /// Argument strings.
    pub args: &'c Strings,
    /// Environment strings.
    pub env: &'c Strings,
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

const WORD: usize = 8;
const AT_NULL: u64 = 0;
const AT_PLATFORM: u64 = 15;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const PLATFORM: &[u8] = b"x86_64";

/// Builds the stack that ends at `top`, which must be 16-byte aligned.
///
/// # Errors
///
/// If there is no memory.
pub fn build(top: u64, content: &Content<'_>) -> Result<Built, TryReserveError> {
    let Content { args, env, file, random, auxv } = content;
    // Strings in ascending order, so that arguments and environment are adjacent as tools that
    // overwrite them expect.
    let strings = args.bytes.len() + env.bytes.len() + file.len() + 1 + PLATFORM.len() + 1 + random.len();
    // One word of zero on top, as on Linux.
    let base = (top - WORD as u64 - strings as u64) & !15;
    let args_range = (base, base + args.bytes.len() as u64);
    let env_range = (args_range.1, args_range.1 + env.bytes.len() as u64);
    let platform_at = env_range.1 + file.len() as u64 + 1;
    let random_at = platform_at + PLATFORM.len() as u64 + 1;
    let pointers = [(AT_PLATFORM, platform_at), (AT_RANDOM, random_at), (AT_EXECFN, env_range.1), (AT_NULL, 0)];
    let mut aux_bytes = Vec::new();
    for &(key, value) in auxv.iter().chain(&pointers) {
        aux_bytes.extend_from_slice(&key.to_le_bytes());
        aux_bytes.extend_from_slice(&value.to_le_bytes());
    }
    let words = 1 + args.count + 1 + env.count + 1;
    let pointer = (base - (aux_bytes.len() + words * WORD) as u64) & !15;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact((top - pointer) as usize)?;
    let numbers = core::iter::once(args.count as u64);
    let lists = args.addresses(base).chain([0]).chain(env.addresses(args_range.1)).chain([0]);
    numbers.chain(lists).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes.extend_from_slice(&aux_bytes);
    bytes.resize((base - pointer) as usize, 0);
    for part in [&args.bytes, &env.bytes, *file, &[0], PLATFORM, &[0], random] {
        bytes.extend_from_slice(part);
    }
    bytes.resize((top - pointer) as usize, 0);
    Ok(Built { bytes, pointer, args: args_range, env: env_range, auxv: aux_bytes })
}
