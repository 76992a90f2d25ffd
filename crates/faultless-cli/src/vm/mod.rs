//! The machine that runs the guest: a QEMU process, its command line, its console, its end.
//!
//! | module     | answers                                                            |
//! |------------|--------------------------------------------------------------------|
//! | `qemu`     | which command line makes this machine                              |
//! | `image`    | where the kernel image is                                          |
//! | `console`  | how input is framed for the guest                                  |
//! | `terminal` | the user's terminal in raw mode and back                           |
//! | `session`  | one run of the process, with its streams, limits and signals       |
//! | `tether`   | how QEMU ends when this command is killed                          |
//! | `ending`   | what a finished run means                                          |
//!
//! Called by `commands`. Absent on purpose: what the guest's reports contain (`report`).

pub mod console;
pub mod ending;
pub mod error;
pub mod image;
pub mod qemu;
pub mod session;
pub mod terminal;
pub mod tether;
