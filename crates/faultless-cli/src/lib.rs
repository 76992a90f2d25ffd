//! The `faultless` command, as a library that its binary and its tests call.
//!
//! `faultless run` boots the bare-metal kernel in QEMU with one unmodified Linux program. The rooms, lowest first:
//!
//! | room       | lives there                                                                |
//! |------------|----------------------------------------------------------------------------|
//! | `units`    | sizes as people write them                                                 |
//! | `error`    | every way a run can fail, with what to do next and the exit code           |
//! | `guest`    | what goes into the guest: ELF facts, libraries, file tree, archive         |
//! | `vm`       | the QEMU process: command line, console framing, supervision               |
//! | `report`   | what the guest said about itself: events, table, JSON document             |
//! | `args`     | the command line                                                           |
//! | `commands` | one file per subcommand                                                    |
//!
//! Absent on purpose: any knowledge of particular programs. What a program needs beyond its libraries is named by
//! the user with `--file`.

#![forbid(unsafe_code)]

pub mod args;
pub mod commands;
pub mod error;
pub mod guest;
pub mod report;
pub mod units;
pub mod vm;
