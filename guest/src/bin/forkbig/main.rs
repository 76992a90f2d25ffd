//! `forkbig`: fork of a program that has touched much memory.
//!
//! Prints the time-stamp counter's difference over the fork call in the parent (under
//! `-icount shift=0` these are instructions, plus what else ran on the CPU meanwhile).
//! The child verifies its snapshot before and after the parent writes everywhere; then the
//! parent verifies its own. With `--rss 1` both compare RssAnon of /proc/self/status with
//! what they touched, and page faults with what getrusage counted.
//! Rows: FK-01, FK-02, CW-01, SH-01, SH-02, SH-05, AC-01, AC-04, AC-05.

use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::child::Note;
use faultless_guest::report::Report;
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{self, End, PAGE, RW};

/// The parent has written everywhere.
const WRITTEN: usize = 0;
/// First wrong word the child saw: address, then value.
const WRONG: usize = 1;
/// RssAnon of the child in pages.
const CHILD_RSS: usize = 3;

struct Big {
    report: Report,
    arena: Arena,
    note: Note,
    /// Words per page that are written and verified; the others stay zero.
    words: usize,
    /// Share of pages the child looks at: one of `sample`.
    sample: usize,
    rss: bool,
    /// Pages by which a figure of the kernel may differ from the exact one.
    slack: u64,
    /// Most ticks that a fork call may take; 0: any.
    most: u64,
}

fn main() {
    let args = Args::parse(
        "forkbig",
        "fork of a program that has touched much memory",
        &[
            opt("size", "256M", "bytes to touch"),
            opt("rounds", "3", "forks"),
            opt("words", "2", "words per page that are written and verified, 1 to 512"),
            opt("sample", "16", "the child verifies one of so many pages, but always the last"),
            opt("rss", "0", "1: compare memory and fault figures of the kernel"),
            opt(
                "most",
                "0",
                "most ticks of the time-stamp counter for a fork call, 0: any (instructions under -icount)",
            ),
            opt("slack", "256", "pages a figure may be off (the program itself has some too)"),
        ],
    );
    let pages = args.count("size") / PAGE;
    let big = Big {
        report: Report::new(&args),
        arena: Arena::new(33, pages.max(1)),
        note: Note::new(),
        words: args.count("words").clamp(1, 512),
        sample: args.count("sample").max(1),
        rss: args.number("rss") == 1,
        slack: args.number("slack"),
        most: args.number("most"),
    };
    big.prepare();
    for round in 0..args.count("rounds") {
        big.fork(mix(big.report.seed() ^ round as u64));
    }
    big.report.finish();
}

impl Big {
    fn prepare(&self) {
        self.report.need("mmap", self.arena.map(0, self.arena.pages(), RW));
        let (addr, len) = (self.arena.addr(0), self.arena.pages() * PAGE);
        // Linux would use huge pages if it is set up to; a kernel without them may refuse.
        let args = [addr, len, libc::MADV_NOHUGEPAGE as usize, 0, 0, 0];
        // SAFETY: advice about pages of the arena.
        let _ = unsafe { sys::call(libc::SYS_madvise, args) };
        let before = minor_faults();
        self.write(0);
        self.report.say(format_args!("{} pages touched", self.arena.pages()));
        self.figure("page faults of the first touch", minor_faults() - before);
        self.figure("RssAnon after the first touch", anonymous(self));
    }

    /// Fails if `--rss` was given and `got` is not close to the number of pages.
    fn figure(&self, what: &str, got: u64) {
        let want = self.arena.pages() as u64;
        if self.rss {
            self.report.check(got.abs_diff(want) <= self.slack, || format!("{what}: {got} pages, want {want}"));
            let slack = self.slack;
            self.report.say(format_args!("{what}: {want} pages, give or take {slack}"));
        }
    }

    /// Words at random places of each page, the same for all rounds.
    fn places(&self, page: usize) -> impl Iterator<Item = usize> {
        let mut rng = Rng::lane(self.report.seed(), page as u64);
        let all = self.words == 512;
        (0..self.words).map(move |word| page * PAGE + if all { word } else { rng.below(512) } * 8)
    }

    /// A value depends on its place only, so the same place twice is no trouble.
    const fn value(seed: u64, offset: usize) -> u64 {
        mix(seed ^ ((offset as u64) << 8)) | 1
    }

    fn write(&self, seed: u64) {
        for offset in (0..self.arena.pages()).flat_map(|page| self.places(page)) {
            self.arena.store(offset, Self::value(seed, offset));
        }
    }

    /// First word that is not of `seed`, among pages `0, step, …` and the last one.
    fn wrong(&self, seed: u64, step: usize) -> Option<(usize, u64)> {
        let last = self.arena.pages() - 1;
        let pages = (0..last).step_by(step).chain([last]);
        let mut places = pages.flat_map(|page| self.places(page));
        let bad = |offset: &usize| self.arena.load(*offset) != Self::value(seed, *offset);
        places.find(bad).map(|offset| (self.arena.addr(offset), self.arena.load(offset)))
    }

    fn fork(&self, seed: u64) {
        self.write(seed);
        (0..8).for_each(|index| self.note.set(index, 0));
        let start = counter();
        // SAFETY: this program has one thread.
        let pid = self.report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            self.child(seed);
        }
        let cost = counter() - start;
        let most = self.most;
        self.report.check(most == 0 || cost <= most, || format!("fork took {cost} ticks, at most {most} are allowed"));
        self.write(!seed);
        self.note.set(WRITTEN, 1);
        let (_, end) = self.report.need("wait", sys::wait(pid as i32));
        if end != End::Exit(0) {
            let [addr, got] = [WRONG, WRONG + 1].map(|index| self.note.get(index));
            self.report.fail(format_args!("child ended by {end:?}, at {addr:#x}: {got:#x}"));
        }
        if let Some((addr, got)) = self.wrong(!seed, 1) {
            self.report.fail(format_args!("parent, at {addr:#x}: got {got:#x}"));
        }
        self.report.passed(self.arena.pages() * self.words);
        self.report.fold(seed);
        self.figure("RssAnon of the child", self.note.get(CHILD_RSS));
        self.figure("RssAnon of the parent after writing", anonymous(self));
        let size = (self.arena.pages() * PAGE) >> 20;
        self.report.say(format_args!("fork with {size} MiB touched: {cost} cycles in the parent"));
    }

    fn child(&self, seed: u64) -> ! {
        let before = self.wrong(seed, self.sample);
        self.note.set(CHILD_RSS, if self.rss { anonymous(self) } else { 0 });
        self.note.wait(WRITTEN, 1);
        let Some((addr, got)) = before.or_else(|| self.wrong(seed, self.sample)) else {
            sys::exit(0);
        };
        self.note.set(WRONG, addr as u64);
        self.note.set(WRONG + 1, got);
        sys::exit(1);
    }
}

/// The time-stamp counter; instructions under `-icount shift=0`.
fn counter() -> u64 {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Page faults of this process without I/O, as getrusage counts them.
fn minor_faults() -> u64 {
    let mut usage = [0_u64; 18];
    // SAFETY: `usage` has the size of a `struct rusage`.
    let got = unsafe { sys::call(libc::SYS_getrusage, [0, usage.as_mut_ptr() as usize, 0, 0, 0, 0]) };
    // Two times of two words each, four sizes, then `ru_minflt`.
    got.map_or(0, |_| usage[8])
}

/// RssAnon of this process in pages; 0 if nobody wants to know.
fn anonymous(big: &Big) -> u64 {
    if !big.rss {
        return 0;
    }
    let path = c"/proc/self/status".as_ptr() as usize;
    // SAFETY: the path is a C string.
    let fd = unsafe { sys::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, 0, 0, 0, 0]) };
    let fd = big.report.need("open /proc/self/status", fd) as i32;
    let mut text = [0_u8; 4096];
    let length = big.report.need("read /proc/self/status", sys::read(fd, &mut text));
    sys::close(fd);
    let text = core::str::from_utf8(&text[..length]).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let kib = number.unwrap_or_else(|| big.report.fail("no RssAnon in /proc/self/status"));
    kib / (PAGE as u64 / 1024)
}
