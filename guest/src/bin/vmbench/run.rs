//! Options, rounds, medians, and access to the memory that is measured.

use crate::out::{Hundredths, Out};
use crate::start::Words;
use crate::sys::{self, Errno, PAGE, RW, Result};
use core::arch::asm;
use core::fmt::Write;

/// Name and body of a row. A body reports through [`Bench::row`], maybe several lines.
pub type Row = (&'static str, fn(&mut Bench) -> Result<()>);

/// Most rounds.
const ROUNDS: usize = 33;

const HELP: &str = "vmbench: cost of memory operations, in time-stamp counter ticks\n
  -t rdtsc|clock  source of time; icount means rdtsc [rdtsc]
  -p MIB          memory for rows per page [16]
  -m MIB -M MIB   memory touched before fork, and a larger size [64, 256]
  -x MIB          largest memory for fork_call, 0 for none [512]
  -n COUNT        repetitions of rows per operation [1000]
  -r ROUNDS       rounds, of which the median counts, at most 33 [5]
  -V COUNT        unrelated mappings that are there all the time [0]
  --only NAMES    rows whose name begins like one of these, with commas [all]
  -v              print at once
  @               forget all before it (for a kernel that passes its own options to init)
";

/// What wrong content is reported as.
pub const BAD: Errno = Errno(u64::MAX);

/// Options and results.
pub struct Bench {
    out: Out,
    clock: bool,
    rounds: usize,
    /// Pages for rows per page.
    pub pages: usize,
    /// MiB touched before fork.
    pub mid: usize,
    /// MiB touched before fork, larger.
    pub big: usize,
    /// MiB for the largest `fork_call`.
    pub most: usize,
    /// Repetitions of rows per operation.
    pub ops: usize,
    strangers: usize,
    only: &'static str,
    init: bool,
    bad: bool,
    sum: u64,
}

impl Bench {
    /// Reads the command line. `Err` is the exit status.
    pub fn parse(words: Words) -> core::result::Result<Self, i32> {
        let mut bench = Self {
            out: Out::new(),
            clock: false,
            rounds: 5,
            pages: (16 << 20) / PAGE,
            mid: 64,
            big: 256,
            most: 512,
            ops: 1000,
            strangers: 0,
            only: "",
            init: false,
            bad: false,
            sum: 0,
        };
        let mut words = words.skip(1);
        let has_mark = words.clone().any(|word| word == "@");
        if has_mark {
            bench.init = words.by_ref().any(|word| word == "@");
        }
        while let Some(word) = words.next() {
            if word == "-v" {
                bench.out.eager = true;
            } else if bench.option(word, words.next()).is_none() {
                sys::write(HELP.as_bytes());
                return Err(2);
            }
        }
        Ok(bench)
    }

    fn option(&mut self, word: &str, value: Option<&'static str>) -> Option<()> {
        let value = value?;
        let number = value.parse::<usize>();
        match word {
            "-t" => self.clock = value == "clock",
            "-p" => self.pages = number.ok()?.clamp(1, 1 << 20) << 8,
            "-m" => self.mid = number.ok()?,
            "-M" => self.big = number.ok()?,
            "-x" => self.most = number.ok()?,
            "-n" => self.ops = number.ok()?.max(1),
            "-r" => self.rounds = number.ok()?.clamp(1, ROUNDS),
            "-V" => self.strangers = number.ok()?,
            "--only" => self.only = value,
            _ => return None,
        }
        Some(())
    }

    /// Sets up what is there during all rows, and prints the options.
    pub fn prepare(&mut self) {
        sys::no_huge_pages();
        for number in 0..self.strangers {
            // Different rights, so that they stay different areas.
            let prot = if number % 2 == 0 { RW } else { sys::RO };
            let _ = sys::mmap(PAGE, prot, sys::ANON, usize::MAX);
        }
        let time = if self.clock { "ns" } else { "tsc" };
        let (pages, mid, big, most) = (self.pages, self.mid, self.big, self.most);
        let (ops, rounds, strangers) = (self.ops, self.rounds, self.strangers);
        let _ = writeln!(
            self.out,
            "# vmbench unit={time} pages={pages} m={mid} M={big} x={most} n={ops} r={rounds} \
             V={strangers}"
        );
    }

    /// Runs `row` if it is wanted, and reports a refusal or wrong content.
    pub fn run(&mut self, row: &Row) {
        let (name, body) = row;
        let wanted = |word: &str| name.starts_with(word);
        if !self.only.is_empty() && !self.only.split(',').any(wanted) {
            return;
        }
        match body(self) {
            Ok(()) => {}
            Err(BAD) => {
                self.bad = true;
                let _ = writeln!(self.out, "{name} BAD");
            }
            Err(Errno(number)) => {
                let _ = writeln!(self.out, "{name} SKIP errno={number}");
            }
        }
    }

    /// Prints everything and gives the exit status.
    pub fn finish(mut self) -> i32 {
        let end = if self.bad { "failed" } else { "ok" };
        let sum = self.sum;
        let _ = writeln!(self.out, "checksum {sum:#018x}\nvmbench: {end}");
        self.out.flush();
        if self.init {
            sys::reboot_if_init();
        }
        i32::from(self.bad)
    }

    /// The time now, in ticks or nanoseconds.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        if self.clock { sys::clock() } else { ticks() }
    }

    /// One line: each round gives (ticks, units), after one round that does not count.
    pub fn row(&mut self, name: &str, per: &str, mut round: impl FnMut(&Self) -> Result<(u64, usize)>) -> Result<()> {
        round(self)?;
        let mut values = [0_u64; ROUNDS];
        for value in &mut values[..self.rounds] {
            let (ticks, units) = round(self)?;
            *value = ticks * 100 / units.max(1) as u64;
        }
        let values = &mut values[..self.rounds];
        values.sort_unstable();
        let [med, min, max] = [values[values.len() / 2], values[0], values[values.len() - 1]].map(Hundredths);
        let _ = writeln!(self.out, "{name} {med} {per} min {min} max {max}");
        Ok(())
    }

    /// Adds a verified value to the checksum.
    pub fn fold(&mut self, value: u64) {
        self.sum = self.sum.rotate_left(11) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The time-stamp counter. The fence keeps it behind what is measured on real processors.
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: SSE2 is part of the architecture.
    unsafe { core::arch::x86_64::_mm_lfence() };
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A mapping that is unmapped when it goes out of scope.
pub struct Memory {
    /// First address.
    pub addr: usize,
    /// Number of pages.
    pub pages: usize,
}

impl Memory {
    /// Fresh private memory.
    pub fn new(pages: usize) -> Result<Self> {
        Self::map(pages, sys::ANON, usize::MAX)
    }

    /// Any mapping, readable and writable.
    pub fn map(pages: usize, flags: usize, fd: usize) -> Result<Self> {
        let addr = sys::mmap(pages * PAGE, RW, flags, fd)?;
        Ok(Self { addr, pages })
    }

    /// Writes word 0 of page `page`.
    #[inline(always)]
    pub fn store(&self, page: usize, value: u64) {
        let addr = self.addr + page * PAGE;
        // SAFETY: the mapping holds no Rust object.
        unsafe { asm!("mov [{}], {}", in(reg) addr, in(reg) value, options(nostack, preserves_flags)) };
    }

    /// Reads word 0 of page `page`.
    #[inline(always)]
    pub fn load(&self, page: usize) -> u64 {
        let addr = self.addr + page * PAGE;
        let value: u64;
        // SAFETY: the mapping holds no Rust object.
        unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) addr, options(nostack, preserves_flags)) };
        value
    }

    /// Writes `seed + page` to each page.
    #[inline(never)]
    pub fn write_all(&self, seed: u64) {
        for page in 0..self.pages {
            self.store(page, seed + page as u64);
        }
    }

    /// Adds up word 0 of all pages.
    #[inline(never)]
    pub fn read_all(&self) -> u64 {
        (0..self.pages).fold(0, |sum, page| sum + self.load(page))
    }

    /// What `read_all` gives after `write_all(seed)`.
    pub const fn sum_of(&self, seed: u64) -> u64 {
        let pages = self.pages as u64;
        seed * pages + pages * (pages - 1) / 2
    }

    /// Fails unless the pages are as `write_all(seed)` left them.
    pub fn verify(&self, seed: u64) -> Result<()> {
        let right = (0..self.pages).all(|page| self.load(page) == seed + page as u64);
        if right { Ok(()) } else { Err(BAD) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = sys::munmap(self.addr, self.pages * PAGE);
    }
}
