//! The text form of scenarios: one step per line, `#` starts a comment.
//!
//! Addresses in and around the arena are written as `+0x3000` from its start, others as numbers. `mmap` flags are
//! names joined by `|`; bits without a name are a number among them.

use super::{FILES, FileRef, MOST_BYTES, MOST_PROCESSES, MOST_THREADS, Op, Scenario, Step};
use crate::arena;
use linux_raw_sys::general as linux;
use std::fmt;

/// Why a text is no scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

/// Names of `MAP_*` bits.
pub(super) const MAP_NAMES: &[(&str, u32)] = &[
    ("shared", linux::MAP_SHARED),
    ("private", linux::MAP_PRIVATE),
    ("fixed", linux::MAP_FIXED),
    ("anon", linux::MAP_ANONYMOUS),
    ("32bit", linux::MAP_32BIT),
    ("growsdown", linux::MAP_GROWSDOWN),
    ("locked", linux::MAP_LOCKED),
    ("noreserve", linux::MAP_NORESERVE),
    ("populate", linux::MAP_POPULATE),
    ("nonblock", linux::MAP_NONBLOCK),
    ("stack", linux::MAP_STACK),
    ("hugetlb", linux::MAP_HUGETLB),
    ("noreplace", linux::MAP_FIXED_NOREPLACE),
];

/// Bits by name.
pub(super) struct Bits(pub(super) u32, pub(super) &'static [(&'static str, u32)]);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut words: Vec<String> = Vec::new();
        for (name, bit) in self.1.iter().filter(|(_, bit)| self.0 & bit != 0) {
            words.push((*name).to_owned());
            rest &= !bit;
        }
        if rest != 0 || words.is_empty() {
            words.push(format!("{rest:#x}"));
        }
        f.write_str(&words.join("|"))
    }
}

/// An address, from the arena's start if it is near.
pub(super) struct Address(pub(super) u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (arena::START..=arena::END + arena::SIZE).contains(&self.0) {
            write!(f, "+{:#x}", self.0 - arena::START)
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}

/// `rwx` with dashes, or a number if other bits are set.
pub(super) fn prot_text(prot: u64) -> String {
    if prot > 7 {
        return format!("{prot:#x}");
    }
    let letter = |bit: u64, letter| if prot & bit != 0 { letter } else { '-' };
    [letter(1, 'r'), letter(2, 'w'), letter(4, 'x')].iter().collect()
}

/// The words of one line.
struct Words<'t> {
    words: std::str::SplitWhitespace<'t>,
}

type Parsed<T> = Result<T, String>;

/// Reads a scenario.
pub(super) fn parse(text: &str) -> Result<Scenario, ParseError> {
    let mut scenario = Scenario::default();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default().trim();
        if !content.is_empty() {
            parse_line(content, &mut scenario).map_err(|what| ParseError { line, what })?;
        }
    }
    Ok(scenario)
}

fn parse_line(line: &str, scenario: &mut Scenario) -> Parsed<()> {
    let mut words = Words { words: line.split_whitespace() };
    if line.starts_with("files") {
        words.word()?;
        for (size, on_disk) in scenario.files.iter_mut().zip(&mut scenario.on_disk) {
            let word = words.word()?;
            let digits = word.strip_prefix("disk:");
            (*size, *on_disk) = (number(digits.unwrap_or(word))?, digits.is_some());
        }
    } else {
        let (process, thread) = words.who()?;
        let op = words.op()?;
        scenario.steps.push(Step { process, thread, op });
    }
    match words.words.next() {
        Some(more) => Err(format!("`{more}` is too much")),
        None => Ok(()),
    }
}

impl<'t> Words<'t> {
    fn word(&mut self) -> Parsed<&'t str> {
        self.words.next().ok_or_else(|| "something is missing at the end".to_owned())
    }

    fn number(&mut self) -> Parsed<u64> {
        number(self.word()?)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Parsed<T> {
        let word = self.word()?;
        T::try_from(number(word)?).map_err(|_| format!("{word} is too large"))
    }

    fn signed(&mut self) -> Parsed<i64> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is no number"))
    }

    fn address(&mut self) -> Parsed<u64> {
        let word = self.word()?;
        match word.strip_prefix('+') {
            Some(offset) => Ok(arena::START.wrapping_add(number(offset)?)),
            None => number(word),
        }
    }

    /// `p0`, or `p0.2` for the process's second thread besides its first.
    fn who(&mut self) -> Parsed<(usize, usize)> {
        let word = self.word()?;
        let (name, thread) = word.split_once('.').unwrap_or((word, "0"));
        let thread = thread.parse().ok().filter(|thread| *thread <= MOST_THREADS);
        Ok((process(name)?, thread.ok_or_else(|| format!("`{word}` is no thread"))?))
    }

    fn process(&mut self) -> Parsed<usize> {
        process(self.word()?)
    }

    fn file(&mut self) -> Parsed<usize> {
        let word = self.word()?;
        file(word, "file").ok_or_else(|| format!("`{word}` is no file"))
    }

    fn file_or_none(&mut self) -> Parsed<Option<FileRef>> {
        let word = self.word()?;
        let found = file(word, "file").map(|number| FileRef { number, read_only: false });
        let found = found.or_else(|| file(word, "ro").map(|number| FileRef { number, read_only: true }));
        match found {
            None if word != "none" => Err(format!("`{word}` is no file")),
            found => Ok(found),
        }
    }

    fn prot(&mut self) -> Parsed<u64> {
        let word = self.word()?;
        let letters: Option<u64> = (word.len() == 3)
            .then(|| {
                word.chars().zip([('r', 1), ('w', 2), ('x', 4)]).map(|(found, (letter, bit))| match found {
                    '-' => Some(0),
                    found if found == letter => Some(bit),
                    _ => None,
                })
            })
            .and_then(|bits| bits.sum());
        letters.map_or_else(|| number(word), Ok)
    }

    fn map_flags(&mut self) -> Parsed<u32> {
        let word = self.word()?;
        word.split('|').try_fold(0, |flags, part| {
            let named = MAP_NAMES.iter().find(|(name, _)| *name == part).map(|(_, bit)| *bit);
            let bits = match named {
                Some(bit) => bit,
                None => u32::try_from(number(part)?).map_err(|_| format!("{part} is too large"))?,
            };
            Ok(flags | bits)
        })
    }

    fn bytes(&mut self) -> Parsed<usize> {
        let len: usize = self.small()?;
        if len > MOST_BYTES { Err(format!("{len} bytes are more than {MOST_BYTES}")) } else { Ok(len) }
    }

    fn width(&mut self) -> Parsed<u8> {
        match self.small()? {
            width @ (1 | 2 | 4 | 8) => Ok(width),
            width => Err(format!("{width} is no width")),
        }
    }

    fn op(&mut self) -> Parsed<Op> {
        let name = self.word()?;
        self.memory_op(name)?.map_or_else(|| self.other_op(name), Ok)
    }

    /// Calls whose first argument is an address.
    fn memory_op(&mut self, name: &str) -> Parsed<Option<Op>> {
        const NAMES: [&str; 13] = [
            "mmap",
            "munmap",
            "mprotect",
            "load",
            "store",
            "madvise",
            "msync",
            "mlock2",
            "munlock",
            "mincore",
            "mremap",
            "remap_file_pages",
            "mseal",
        ];
        if !NAMES.contains(&name) {
            return Ok(None);
        }
        let at = self.address()?;
        Ok(Some(match name {
            "load" => Op::Load { at, width: self.width()? },
            "store" => Op::Store { at, width: self.width()?, value: self.number()? },
            name => {
                let len = self.number()?;
                match name {
                    "mmap" => Op::Map {
                        at,
                        len,
                        prot: u32::try_from(self.prot()?).map_err(|_| "protection is too large".to_owned())?,
                        flags: self.map_flags()?,
                        file: self.file_or_none()?,
                        offset: self.number()?,
                    },
                    "munmap" => Op::Unmap { at, len },
                    "mprotect" => Op::Protect { at, len, prot: self.prot()? },
                    "madvise" => Op::Advise { at, len, advice: self.small()? },
                    "msync" => Op::Sync { at, len, flags: self.small()? },
                    "mlock2" => Op::Lock { at, len, flags: self.small()? },
                    "mseal" => Op::Seal { at, len, flags: self.number()? },
                    "munlock" => Op::Unlock { at, len },
                    "mincore" => Op::Resident { at, len },
                    "mremap" => {
                        Op::Remap { at, old: len, new: self.number()?, flags: self.small()?, to: self.address()? }
                    }
                    "remap_file_pages" => Op::Nonlinear { at, len, page: self.number()? },
                    _ => return Ok(None),
                }
            }
        }))
    }

    fn other_op(&mut self, name: &str) -> Parsed<Op> {
        Ok(match name {
            "ftruncate" => Op::Truncate { file: self.file()?, size: self.signed()? },
            "pread" => Op::Read { file: self.file()?, offset: self.signed()?, len: self.bytes()? },
            "pwrite" => {
                Op::Write { file: self.file()?, offset: self.signed()?, len: self.bytes()?, value: self.small()? }
            }
            "fallocate" => {
                Op::Allocate { file: self.file()?, mode: self.small()?, offset: self.signed()?, len: self.signed()? }
            }
            "brk" => Op::Brk { to: self.address()? },
            "process_vm_readv" => Op::Peek { other: self.process()?, at: self.address()?, len: self.bytes()? },
            "process_vm_writev" => {
                Op::Poke { other: self.process()?, at: self.address()?, len: self.bytes()?, value: self.small()? }
            }
            "fork" => Op::Fork { child: self.process()? },
            "exit" => Op::Exit { code: self.small()? },
            "wait" => Op::Wait { child: self.process()? },
            "mlockall" => Op::LockAll { flags: self.small()? },
            "munlockall" => Op::UnlockAll,
            _ => return Err(format!("`{name}` is no call")),
        })
    }
}

fn process(word: &str) -> Parsed<usize> {
    let number = word.strip_prefix('p').and_then(|number| number.parse().ok());
    number.filter(|number| *number < MOST_PROCESSES).ok_or_else(|| format!("`{word}` is no process"))
}

fn file(word: &str, prefix: &str) -> Option<usize> {
    word.strip_prefix(prefix)?.parse().ok().filter(|number| *number < FILES)
}

fn number(word: &str) -> Parsed<u64> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("`{word}` is no number"))
}
