//! Scenarios: system calls and accesses of several processes, as data and as text.
//!
//! Called by all rooms above. Any part of a scenario is a scenario: what a process does before it was forked or after
//! it has ended is left out on both sides, so that steps can be dropped at will.

use std::fmt;

mod parse;

pub use parse::ParseError;

/// Most processes of a scenario.
pub const MOST_PROCESSES: usize = 8;
/// Files of a scenario, each a memfd, or a file on a disk.
pub const FILES: usize = 3;
/// Threads of a process besides the first, which makes them.
pub const MOST_THREADS: usize = 4;
/// Most steps that threads make at the same time.
pub const MOST_BURST: usize = 32;
/// Most bytes that one read or write of a file moves.
pub const MOST_BYTES: usize = 12_288;

/// A file as an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRef {
    /// Which.
    pub number: usize,
    /// Through a descriptor that may only read.
    pub read_only: bool,
}

/// One system call or access. Addresses and lengths are as passed, right or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are the arguments
pub enum Op {
    Map { at: u64, len: u64, prot: u32, flags: u32, file: Option<FileRef>, offset: u64 },
    Unmap { at: u64, len: u64 },
    Protect { at: u64, len: u64, prot: u64 },
    Load { at: u64, width: u8 },
    Store { at: u64, width: u8, value: u64 },
    Truncate { file: usize, size: i64 },
    Read { file: usize, offset: i64, len: usize },
    Write { file: usize, offset: i64, len: usize, value: u8 },
    Fork { child: usize },
    Exit { code: u8 },
    Wait { child: usize },
    Advise { at: u64, len: u64, advice: u32 },
    Sync { at: u64, len: u64, flags: u32 },
    Lock { at: u64, len: u64, flags: u32 },
    Unlock { at: u64, len: u64 },
    LockAll { flags: u32 },
    UnlockAll,
    Resident { at: u64, len: u64 },
    Remap { at: u64, old: u64, new: u64, flags: u32, to: u64 },
    Nonlinear { at: u64, len: u64, page: u64 },
    Allocate { file: usize, mode: u32, offset: i64, len: i64 },
    Brk { to: u64 },
    Seal { at: u64, len: u64, flags: u64 },
    Peek { other: usize, at: u64, len: usize },
    Poke { other: usize, at: u64, len: usize, value: u8 },
}

/// A step of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Who: 0 is there from the start.
    pub process: usize,
    /// By which thread: 0 is the first, alone. Steps of one process by other threads that follow each other are made
    /// at the same time, each thread's in order.
    pub thread: usize,
    /// What.
    pub op: Op,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scenario {
    /// Sizes of the files at the start, in bytes.
    pub files: [u64; FILES],
    /// Which of them are on a disk: with contents at the start, and pages that count as a file's.
    pub on_disk: [bool; FILES],
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// What a file on a disk has at the start at this offset.
#[must_use]
pub fn initial_byte(offset: u64) -> u8 {
    ((offset / 4096 + 1) * 29 + offset % 256) as u8
}

impl Step {
    /// A step of a process's first thread.
    #[must_use]
    pub fn alone(process: usize, op: Op) -> Self {
        Self { process, thread: 0, op }
    }
}

impl Scenario {
    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// [`ParseError`] names the line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |on_disk| if on_disk { "disk:" } else { "" };
        let files = self.files.iter().zip(self.on_disk);
        let sizes: Vec<String> = files.map(|(size, on_disk)| format!("{}{size:#x}", place(on_disk))).collect();
        writeln!(f, "files {}", sizes.join(" "))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.thread {
            0 => write!(f, "p{} {}", self.process, self.op),
            thread => write!(f, "p{}.{thread} {}", self.process, self.op),
        }
    }
}

impl Op {
    /// The name of the call in the text.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Map { .. } => "mmap",
            Op::Unmap { .. } => "munmap",
            Op::Protect { .. } => "mprotect",
            Op::Load { .. } => "load",
            Op::Store { .. } => "store",
            Op::Truncate { .. } => "ftruncate",
            Op::Read { .. } => "pread",
            Op::Write { .. } => "pwrite",
            Op::Fork { .. } => "fork",
            Op::Exit { .. } => "exit",
            Op::Wait { .. } => "wait",
            Op::Advise { .. } => "madvise",
            Op::Sync { .. } => "msync",
            Op::Lock { .. } => "mlock2",
            Op::Unlock { .. } => "munlock",
            Op::LockAll { .. } => "mlockall",
            Op::UnlockAll => "munlockall",
            Op::Resident { .. } => "mincore",
            Op::Remap { .. } => "mremap",
            Op::Nonlinear { .. } => "remap_file_pages",
            Op::Allocate { .. } => "fallocate",
            Op::Brk { .. } => "brk",
            Op::Seal { .. } => "mseal",
            Op::Peek { .. } => "process_vm_readv",
            Op::Poke { .. } => "process_vm_writev",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use parse::{Address, Bits, MAP_NAMES, prot_text};
        write!(f, "{}", self.name())?;
        match *self {
            Op::Map { at, len, prot, flags, file, offset } => {
                write!(f, " {} {len:#x} {} {}", Address(at), prot_text(prot.into()), Bits(flags, MAP_NAMES))?;
                match file {
                    Some(FileRef { number, read_only }) => {
                        write!(f, " {}{number} {offset:#x}", if read_only { "ro" } else { "file" })
                    }
                    None => write!(f, " none {offset:#x}"),
                }
            }
            Op::Unmap { at, len } | Op::Unlock { at, len } | Op::Resident { at, len } => {
                write!(f, " {} {len:#x}", Address(at))
            }
            Op::Protect { at, len, prot } => write!(f, " {} {len:#x} {}", Address(at), prot_text(prot)),
            Op::Load { at, width } => write!(f, " {} {width}", Address(at)),
            Op::Store { at, width, value } => write!(f, " {} {width} {value:#x}", Address(at)),
            Op::Truncate { file, size } => write!(f, " file{file} {size}"),
            Op::Read { file, offset, len } => write!(f, " file{file} {offset} {len}"),
            Op::Write { file, offset, len, value } => write!(f, " file{file} {offset} {len} {value}"),
            Op::Fork { child } | Op::Wait { child } => write!(f, " p{child}"),
            Op::Exit { code } => write!(f, " {code}"),
            Op::Advise { at, len, advice } => write!(f, " {} {len:#x} {advice}", Address(at)),
            Op::Sync { at, len, flags } | Op::Lock { at, len, flags } => {
                write!(f, " {} {len:#x} {flags}", Address(at))
            }
            Op::Seal { at, len, flags } => write!(f, " {} {len:#x} {flags}", Address(at)),
            Op::LockAll { flags } => write!(f, " {flags}"),
            Op::UnlockAll => Ok(()),
            Op::Remap { at, old, new, flags, to } => {
                write!(f, " {} {old:#x} {new:#x} {flags} {}", Address(at), Address(to))
            }
            Op::Nonlinear { at, len, page } => write!(f, " {} {len:#x} {page}", Address(at)),
            Op::Brk { to } => write!(f, " {}", Address(to)),
            Op::Allocate { file, mode, offset, len } => write!(f, " file{file} {mode} {offset} {len}"),
            Op::Peek { other, at, len } => write!(f, " p{other} {} {len}", Address(at)),
            Op::Poke { other, at, len, value } => write!(f, " p{other} {} {len} {value}", Address(at)),
        }
    }
}

#[cfg(test)]
mod tests;
