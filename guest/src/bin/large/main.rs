//! `large`: transparent large pages, asked for by madvise. A program must not notice them but in smaps.
//!
//! Rows: HT-02, HT-03, HT-04, GU-10. Passes on Linux with `enabled` at `madvise` or `always`, if it has frames in a row.
//! Absent on purpose: hugetlb, which is asked for in other ways.

use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::child;
use faultless_guest::probe::{accerr, maperr};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, End, NONE, PAGE, RO, RW};

/// Pages of a large page.
const LARGE: usize = 512;

/// What all scenes share.
struct Large {
    report: Report,
    memory: Arena,
    /// Another place, for moves.
    other: Arena,
}

type Scene = (&'static str, fn(&Large));

const SCENES: &[Scene] = &[
    ("touch", touch),
    ("parts", parts),
    ("rights", rights),
    ("family", family),
    ("moves", moves),
    ("discard", discard),
    ("collapse", collapse),
    ("device", device),
    ("unasked", unasked),
    ("forbidden", forbidden),
];

fn main() {
    let args = Args::parse(
        "large",
        "large pages of anonymous memory",
        &[
            opt("rounds", "3", "rounds of all scenes"),
            opt(
                "only",
                "all",
                "scenes: touch,parts,rights,family,moves,discard,collapse,device,\
                                 unasked,forbidden",
            ),
        ],
    );
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let large =
        Large { report: Report::new(&args), memory: Arena::new(40, 4 * LARGE), other: Arena::new(41, 4 * LARGE) };
    faultless_guest::probe::catch();
    for _ in 0..args.count("rounds") {
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            scene(&large);
            for arena in [large.memory, large.other] {
                large.report.need("munmap", arena.unmap(0, arena.pages()));
            }
            large.report.say(name);
        }
    }
    large.report.finish();
}

impl Large {
    /// Maps memory for two large pages, asks for them, and fills a page of each.
    fn map(&self) {
        self.report.need("mmap", self.memory.map(0, 2 * LARGE, RW));
        self.report.need("madvise", self.advise(0, 2 * LARGE, libc::MADV_HUGEPAGE));
        self.memory.fill(3, 0x103);
        self.memory.fill(LARGE + 9, 0x209);
    }

    fn advise(&self, first: usize, pages: usize, advice: i32) -> sys::Result {
        let args = [self.memory.page_addr(first), pages * PAGE, advice as usize, 0, 0, 0];
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::call(libc::SYS_madvise, args) }
    }

    /// Pages in large pages, as smaps says.
    fn large_pages(&self, what: &str, want: usize) {
        self.report.same(what, self.large_now(), want);
    }

    fn large_now(&self) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let (mut inside, mut kib) = (false, 0);
        for line in text.lines() {
            let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
            if let Some(start) = start {
                let within = |arena: Arena| (arena.addr(0)..arena.addr(0) + arena.pages() * PAGE).contains(&start);
                inside = within(self.memory) || within(self.other);
            }
            let size = line.strip_prefix("AnonHugePages:").and_then(|size| size.trim().strip_suffix(" kB"));
            kib += size.filter(|_| inside).and_then(|size| size.parse().ok()).unwrap_or(0);
        }
        kib * 1024 / PAGE
    }

    fn verify(&self, what: &str, arena: Arena, page: usize, key: u64) {
        if let Err(wrong) = arena.verify(page, key) {
            self.report.fail(format!("{what}: page {page}: {wrong:?}"));
        }
        self.report.passed(1);
    }
}

/// The first store brings the whole large page, as one fault.
fn touch(large: &Large) {
    large.map();
    large.large_pages("after a store each", 2 * LARGE);
    large.verify("stored", large.memory, 3, 0x103);
    large.verify("beside", large.memory, 4, 0);
    large.verify("second", large.memory, LARGE + 9, 0x209);
    let before = minor_faults();
    (0..2 * LARGE).for_each(|page| large.memory.store(page * PAGE + 8, 7));
    large.report.same("faults of the other pages", minor_faults() - before, 0);
}

fn minor_faults() -> i64 {
    // SAFETY: all fields of an rusage are numbers.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: the call fills the struct it is given.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_minflt
}

/// A part goes: the rest stays, in small pages.
fn parts(large: &Large) {
    large.map();
    large.report.need("munmap", large.memory.unmap(100, 7));
    large.large_pages("after munmap of a part", LARGE);
    large.verify("before the hole", large.memory, 3, 0x103);
    large.report.same("load", large.memory.try_load(103 * PAGE), Err(maperr(large.memory.addr(103 * PAGE))));
    large.report.need("munmap", large.memory.unmap(LARGE, LARGE));
    large.large_pages("after munmap of a whole", 0);
    large.verify("the rest", large.memory, 3, 0x103);
}

fn rights(large: &Large) {
    large.map();
    let (report, memory) = (&large.report, large.memory);
    report.need("mprotect", memory.protect(0, LARGE, RO));
    report.same("store", memory.try_store(5 * PAGE, 1), Err(accerr(memory.addr(5 * PAGE))));
    report.need("mprotect", memory.protect(0, LARGE, NONE));
    report.same("load", memory.try_load(5 * PAGE), Err(accerr(memory.addr(5 * PAGE))));
    report.need("mprotect", memory.protect(0, LARGE, RW));
    large.verify("rights and back", memory, 3, 0x103);
    large.large_pages("rights of all of it", 2 * LARGE);
    report.need("mprotect", memory.protect(3, 1, RO));
    report.same("store", memory.try_store(3 * PAGE, 1), Err(accerr(memory.addr(3 * PAGE))));
    memory.store(4 * PAGE, 1);
    large.verify("rights of a part", memory, 3, 0x103);
    large.large_pages("rights of a part", LARGE);
}

/// Parent and child see each other's stores neither way.
fn family(large: &Large) {
    large.map();
    let memory = large.memory;
    let end = child::run(|| {
        memory.fill(3, 0x303);
        let right = memory.verify(3, 0x303).is_ok() && memory.verify(LARGE + 9, 0x209).is_ok();
        memory.store((LARGE + 10) * PAGE, 5);
        i32::from(!(right && memory.verify(4, 0).is_ok()))
    });
    large.report.same("child", end, End::Exit(0));
    large.verify("parent", memory, 3, 0x103);
    large.verify("parent", memory, LARGE + 10, 0);
    memory.fill(3, 0x404);
    large.verify("parent", memory, 3, 0x404);
    large.verify("parent", memory, LARGE + 9, 0x209);
}

fn moves(large: &Large) {
    large.map();
    let (report, from, to) = (&large.report, large.memory, large.other);
    let remap = |first: usize, pages: usize, target: usize| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let (old, new) = (from.page_addr(first), to.page_addr(target));
        // SAFETY: arenas hold no Rust object.
        unsafe { sys::call(libc::SYS_mremap, [old, pages * PAGE, pages * PAGE, flags as usize, new, 0]) }
    };
    report.need("mremap", remap(0, LARGE, 0));
    large.verify("moved whole", to, 3, 0x103);
    large.large_pages("moved whole", 2 * LARGE);
    report.need("mremap", remap(LARGE, LARGE, LARGE + 1));
    large.verify("moved by a page", to, LARGE + 10, 0x209);
    large.large_pages("moved by a page", LARGE);
    report.same("load", from.try_load(3 * PAGE), Err(maperr(from.addr(3 * PAGE))));
}

fn discard(large: &Large) {
    large.map();
    large.report.need("madvise", large.advise(0, LARGE, libc::MADV_DONTNEED));
    large.large_pages("discarded whole", LARGE);
    large.verify("discarded", large.memory, 3, 0);
    large.report.need("madvise", large.advise(LARGE + 9, 1, libc::MADV_DONTNEED));
    large.verify("discarded in part", large.memory, LARGE + 9, 0);
    large.large_pages("discarded in part", 0);
    large.report.need("madvise", large.advise(LARGE, LARGE, libc::MADV_NOHUGEPAGE));
    large.report.need("madvise", large.advise(LARGE, LARGE, libc::MADV_DONTNEED));
    large.memory.fill(LARGE, 0x501);
    large.large_pages("unwanted", 0);
}

/// Small pages become a large one.
fn collapse(large: &Large) {
    /// Since Linux 6.1.
    const MADV_COLLAPSE: i32 = 25;
    let (report, memory) = (&large.report, large.memory);
    report.need("mmap", memory.map(0, 2 * LARGE, RW));
    (0..LARGE).step_by(37).for_each(|page| memory.fill(page, 0x600 + page as u64));
    large.large_pages("nobody asked", 0);
    report.need("madvise", large.advise(0, LARGE, MADV_COLLAPSE));
    large.large_pages("collapsed", LARGE);
    (0..LARGE).step_by(37).for_each(|page| large.verify("collapsed", memory, page, 0x600 + page as u64));
    large.verify("collapsed, beside", memory, 1, 0);
    report.need("madvise", large.advise(0, LARGE, MADV_COLLAPSE));
    report.same("nothing there", large.advise(LARGE, LARGE, MADV_COLLAPSE), Err(sys::Errno(libc::EINVAL)));
    report.same("too short", large.advise(LARGE + 1, LARGE - 1, MADV_COLLAPSE), Ok(0));
}

/// A system call reads and writes inside a large page.
fn device(large: &Large) {
    large.map();
    let (reader, writer) = large.report.need("pipe", sys::pipe());
    let call = |number, fd: i32, page: usize| {
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::call(number, [fd as usize, large.memory.page_addr(page), PAGE, 0, 0, 0]) }
    };
    large.report.same("write", call(libc::SYS_write, writer, 3), Ok(PAGE));
    large.report.same("read", call(libc::SYS_read, reader, LARGE + 20), Ok(PAGE));
    large.verify("through a pipe", large.memory, LARGE + 20, 0x103);
    large.large_pages("after calls", 2 * LARGE);
    sys::close(reader);
    sys::close(writer);
}

/// Small pages of memory that wants large ones become one after a while, without a change of their bytes.
fn unasked(large: &Large) {
    const SLEEP: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
    let Ok(before) = std::fs::read_to_string(SLEEP) else { return };
    let (report, memory) = (&large.report, large.memory);
    report.need("mmap", memory.map(0, 2 * LARGE, RW));
    report.need("madvise", large.advise(0, 2 * LARGE, libc::MADV_NOHUGEPAGE));
    memory.fill(3, 0x103);
    memory.fill(7, 0x107);
    large.large_pages("small", 0);
    report.need("madvise", large.advise(0, 2 * LARGE, libc::MADV_HUGEPAGE));
    if std::fs::write(SLEEP, "1\n").is_err() {
        return; // not root
    }
    // Ends: a scan comes, or the program's time is over.
    while large.large_now() == 0 {
        let _ = sys::sleep_micros(1000);
    }
    report.check(std::fs::write(SLEEP, before.trim()).is_ok(), || "the time to sleep cannot be set back".into());
    large.large_pages("the first, the second is empty", LARGE);
    large.verify("after", memory, 3, 0x103);
    large.verify("after", memory, 7, 0x107);
}

/// A process without large pages, and its children; a program that is executed would be as well.
fn forbidden(large: &Large) {
    let report = &large.report;
    let prctl = |option: i32, args: [usize; 4]| {
        let [a, b, c, d] = args;
        // SAFETY: it changes a policy.
        unsafe { sys::call(libc::SYS_prctl, [option as usize, a, b, c, d, 0]) }
    };
    let (set, get) = (libc::PR_SET_THP_DISABLE, libc::PR_GET_THP_DISABLE);
    let end = child::run(|| {
        report.same("allowed", prctl(get, [0; 4]), Ok(0));
        report.same("no such argument", prctl(get, [1, 0, 0, 0]), Err(sys::Errno(libc::EINVAL)));
        report.same("nor this", prctl(set, [1, 0, 1, 0]), Err(sys::Errno(libc::EINVAL)));
        report.need("forbid", prctl(set, [1, 0, 0, 0]));
        large.map();
        large.large_pages("forbidden", 0);
        report.same("collapse", large.advise(0, 2 * LARGE, libc::MADV_COLLAPSE), Err(sys::Errno(libc::EINVAL)));
        let inherited = child::run(|| i32::from(prctl(get, [0; 4]) != Ok(1)));
        report.same("a child", inherited, End::Exit(0));
        report.need("allow", prctl(set, [0; 4]));
        report.need("collapse", large.advise(0, 2 * LARGE, libc::MADV_COLLAPSE));
        large.large_pages("allowed again", 2 * LARGE);
        0
    });
    report.same("its end", end, End::Exit(0));
}
