//! Moving data in memory that others write at the same time: guests race, and a copy may be thrown away afterwards.
//!
//! A data race on memory of the language is undefined behaviour. The arena is not the language's memory: it is a
//! mapping that only machine instructions reach. On x86-64 each function is one instruction in inline assembly, for
//! which the compiler assumes nothing but that memory may have changed; there a load acquires and a store releases,
//! as the architecture orders them. Elsewhere each access is volatile, byte by byte or word by word, which is what
//! other virtual-machine monitors rely on for guest memory.
//!
//! All functions are unsafe for the same two reasons: (1) the bytes named lie in a mapping that is valid for the
//! access; (2) source and target do not overlap.

#[cfg(not(target_arch = "x86_64"))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::*;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::*;
