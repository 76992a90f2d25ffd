//! What goes into the guest: which files a program needs, and the archive that carries them.
//!
//! | module     | answers                                                            |
//! |------------|--------------------------------------------------------------------|
//! | `root`     | where a guest path really is, with every symbolic link on the way  |
//! | `elf`      | what one ELF image asks for                                        |
//! | `script`   | what a `#!` line asks for                                          |
//! | `libraries`| which files the dynamic linker would load                          |
//! | `tree`     | the guest's files before they are written                          |
//! | `archive`  | the tree as a newc cpio archive                                    |
//! | `manifest` | what the kernel is told to run                                     |
//! | `prepare`  | all of the above for one command line                              |
//!
//! Called by `commands`. Absent on purpose: QEMU, and file systems other than the initial archive.

pub mod archive;
pub mod elf;
pub mod error;
pub mod libraries;
pub mod manifest;
pub mod prepare;
pub mod root;
pub mod script;
pub mod tree;
