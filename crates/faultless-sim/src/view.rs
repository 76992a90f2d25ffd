//! What is compared: the outcome of a step, and what a process's memory looks like.
//!
//! Filled by `host` and `ours`, compared by `judge`. Absent on purpose: who is right.

use std::fmt;

/// A signal that an access raised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// SIGSEGV or SIGBUS.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.signal, self.code) {
            (libc::SIGSEGV, 1) => "SIGSEGV/MAPERR",
            (libc::SIGSEGV, 2) => "SIGSEGV/ACCERR",
            (libc::SIGBUS, 2) => "SIGBUS/ADRERR",
            (signal, code) => return write!(f, "signal {signal}/{code} at {:#x}", self.address),
        };
        write!(f, "{name} at {:#x}", self.address)
    }
}

/// What a step answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// What the call returned, or what was loaded.
    Value(u64),
    /// Bytes that were read.
    Bytes(Vec<u8>),
    /// How many bytes were read, and their digest: what a thread tells while others work.
    Digest(usize, u64),
    /// `mmap` without `MAP_FIXED` chose a place outside of the arena; the mapping was removed again.
    Elsewhere,
    /// The call failed.
    Errno(i32),
    /// The access raised a signal.
    Trap(Trap),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Value(value) => write!(f, "{value:#x}"),
            Answer::Bytes(bytes) => write!(f, "{} bytes of digest {:#x}", bytes.len(), digest(bytes)),
            Answer::Digest(len, sum) => write!(f, "{len} bytes of digest {sum:#x}"),
            Answer::Elsewhere => f.write_str("a place outside of the arena"),
            Answer::Errno(number) => {
                let errno = u16::try_from(*number).ok().and_then(faultless_linux::Errno::new);
                match errno {
                    Some(errno) => write!(f, "{errno}"),
                    None => write!(f, "errno {number}"),
                }
            }
            Answer::Trap(trap) => trap.fmt(f),
        }
    }
}

/// A number that changes with any byte.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new();
    bytes.iter().for_each(|byte| digest.add(*byte));
    digest.sum()
}

/// [`digest`], byte by byte.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// One more byte.
    pub const fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
    }

    /// The number.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.0
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// The same as a thread tells it.
    #[must_use]
    pub fn in_burst(self) -> Self {
        match self {
            Answer::Bytes(bytes) => Answer::Digest(bytes.len(), digest(&bytes)),
            answer => answer,
        }
    }
}

/// What several threads of a process did at the same time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Burst {
    /// What each step answered, in the order of the scenario.
    pub answers: Vec<Answer>,
    /// Minor faults of all.
    pub minor: u64,
    /// Major faults of all.
    pub major: u64,
}

/// A step's outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What it answered.
    pub answer: Answer,
    /// Minor faults it took.
    pub minor: u64,
    /// Major faults it took.
    pub major: u64,
}

/// What is mapped, for the list of mappings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// Private anonymous memory.
    Anonymous,
    /// A file of the scenario.
    File(usize),
    /// Shared anonymous memory, by a number that only one side knows.
    Shared(u64),
}

/// One mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// Who sees the stores.
    pub shared: bool,
    /// What is mapped.
    pub source: Source,
    /// From which byte of it; 0 for anonymous memory.
    pub offset: u64,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit, letter| if self.prot & bit != 0 { letter } else { '-' };
        let at = |address: u64| address.wrapping_sub(crate::arena::START);
        write!(
            f,
            "+{:#x}-+{:#x} {}{}{}",
            at(self.start),
            at(self.end),
            letter(1, 'r'),
            letter(2, 'w'),
            letter(4, 'x')
        )?;
        write!(f, "{} {:?}+{:#x}", if self.shared { 's' } else { 'p' }, self.source, self.offset)
    }
}

/// What is known about a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Page {
    /// Nothing is there.
    #[default]
    Absent,
    /// A page is mapped: anonymous memory, or the page of zeroes.
    Present,
    /// A page of a file or of shared memory is mapped.
    OfFile,
    /// It is in the swap.
    Swapped,
}

/// Resident pages by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rss {
    /// `RssAnon`.
    pub anon: i64,
    /// `RssFile`.
    pub file: i64,
    /// `RssShmem`.
    pub shmem: i64,
}

/// What a process's memory looks like, in the arena.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// The mappings, ascending.
    pub mappings: Vec<Mapping>,
    /// Where one of the mappings is really two, so that the other side may show two as well.
    pub seams: Vec<u64>,
    /// The pages.
    pub pages: Vec<Page>,
    /// Resident pages by kind.
    pub rss: Rss,
}
