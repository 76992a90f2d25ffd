//! The pure modules of the kernel, compiled for the host.
//!
//! Called by the tests beside it and by nothing else. The kernel itself is built without a test
//! harness and with its own linker flags, which Cargo takes from the directory it is started in: so
//! start this one outside of `kernel/`, as in `cargo test --manifest-path kernel/hosted/Cargo.toml`.
//!
//! The modules are those of the kernel, file by file; their `super` and `crate` is this one.
#![no_std]

extern crate alloc;

#[path = "../../src/heap/classes.rs"]
pub mod classes;
#[path = "../../src/fs/cpio.rs"]
pub mod cpio;
#[path = "../../src/fs/tty/discipline.rs"]
pub mod discipline;
#[path = "../../src/process/elf.rs"]
pub mod elf;
#[path = "../../src/errno.rs"]
pub mod errno;
#[path = "../../src/fs/tty/framing.rs"]
pub mod framing;
#[path = "../../src/fs/manifest.rs"]
pub mod manifest;
#[path = "../../src/syscall/names.rs"]
pub mod names;
#[path = "../../src/fs/ring.rs"]
pub mod ring;
#[path = "../../src/heap/runs.rs"]
pub mod runs;
#[path = "../../src/signal/set.rs"]
pub mod set;
#[path = "../../src/heap/slabs.rs"]
pub mod slabs;
#[path = "../../src/process/stack.rs"]
pub mod stack;
#[path = "../../src/fs/tty/termios.rs"]
pub mod termios;
#[allow(unused_imports)] // its macro is for its siblings in the kernel
#[path = "../../src/fs/proc/text.rs"]
pub mod text;
#[path = "../../src/fs/walk.rs"]
pub mod walk;

/// What `elf` finds beside it in the kernel.
pub mod exec {
    /// Size of a page.
    pub const PAGE: u64 = 4096;
}

/// What `slabs` finds above it in the kernel.
pub struct Block {
    next: *mut Block,
}
