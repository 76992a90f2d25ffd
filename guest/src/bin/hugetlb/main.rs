//! `hugetlb`: large pages out of the pool, asked for by name: what is promised, what is refused, what is given back.
//!
//! Rows: HT-01, HT-02, HT-04. Sets `vm.nr_hugepages`, and puts it back. Passes on Linux for root; if there are not frames
//! enough in a row it says so, and passes. Absent on purpose: what a parent does to its children when the pool is empty,
//! in which the kernel of this repository differs from Linux.

mod files;
mod refusals;

use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::child;
use faultless_guest::probe::{accerr, adrerr, maperr};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, End, NONE, PAGE, RO, RW};

/// Pages of a large page.
const LARGE: usize = 512;
/// Large pages that the test needs.
const POOL: usize = 8;
/// Private memory of large pages.
const HUGE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
const SIZE: &str = "/proc/sys/vm/nr_hugepages";

/// What all scenes share.
struct Huge {
    report: Report,
    memory: Arena,
    /// Another place, for moves and second mappings.
    other: Arena,
    /// What the pool is like before a scene.
    before: Pool,
}

/// What /proc/meminfo says of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pool {
    total: usize,
    free: usize,
    reserved: usize,
}

type Scene = (&'static str, fn(&Huge));

const SCENES: &[Scene] = &[
    ("promises", promises),
    ("rights", rights),
    ("family", family),
    ("shared", shared),
    ("moves", moves),
    ("discard", discard),
    ("empty", empty),
    ("views", views),
    ("refusals", refusals::refusals),
    ("memfds", files::memfds),
    ("segments", files::segments),
];

fn main() {
    let args = Args::parse(
        "hugetlb",
        "large pages of the pool",
        &[
            opt("rounds", "2", "rounds of all scenes"),
            opt(
                "only",
                "all",
                "scenes: promises,rights,family,shared,moves,discard,empty,views,refusals,memfds,segments",
            ),
        ],
    );
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let old = std::fs::read_to_string(SIZE).unwrap_or_default();
    // Besides what others have and were promised.
    let others = pool();
    let wanted = others.total - others.free + others.reserved + POOL;
    let wanted = wanted.max(old.trim().parse().unwrap_or(0));
    let set = std::fs::write(SIZE, wanted.to_string());
    let mut huge = Huge {
        report: Report::new(&args),
        memory: Arena::new(42, 16 * LARGE),
        other: Arena::new(43, 16 * LARGE),
        before: pool(),
    };
    if set.is_err() || huge.before.free < huge.before.reserved + POOL {
        huge.report.say("no large pages here: nothing to test");
        let _ = std::fs::write(SIZE, old.trim());
        huge.report.finish();
    }
    faultless_guest::probe::catch();
    for _ in 0..args.count("rounds") {
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            huge.before = pool();
            scene(&huge);
            for arena in [huge.memory, huge.other] {
                huge.report.need("munmap", arena.unmap(0, arena.pages()));
            }
            huge.changed("at the end of the scene", 0, 0);
            huge.report.say(name);
        }
    }
    huge.report.check(std::fs::write(SIZE, old.trim()).is_ok(), || "the pool's size put back".into());
    huge.report.finish();
}

fn pool() -> Pool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
    };
    Pool { total: figure("HugePages_Total"), free: figure("HugePages_Free"), reserved: figure("HugePages_Rsvd") }
}

impl Huge {
    /// Maps so many large pages of private memory, or of what the flags say.
    fn map(&self, large: usize, flags: i32) {
        self.report.need("mmap", self.memory.map_as(0, large * LARGE, RW, flags, -1, 0));
    }

    /// So many pages are in use and promised by the scene.
    fn changed(&self, what: &str, used: usize, reserved: usize) {
        let now = pool();
        let got = (self.before.free as i64 - now.free as i64, now.reserved as i64 - self.before.reserved as i64);
        self.report.same(what, got, (used as i64, reserved as i64));
    }

    fn advise(&self, first: usize, pages: usize, advice: i32) -> sys::Result {
        let args = [self.memory.page_addr(first), pages * PAGE, advice as usize, 0, 0, 0];
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::call(libc::SYS_madvise, args) }
    }

    fn remap(&self, [from, old, new, to]: [usize; 4], flags: i32) -> sys::Result {
        let args = [self.memory.page_addr(from), old * PAGE, new * PAGE, flags as usize, self.other.page_addr(to), 0];
        // SAFETY: arenas hold no Rust object.
        unsafe { sys::call(libc::SYS_mremap, args) }
    }

    fn verify(&self, what: &str, arena: Arena, page: usize, key: u64) {
        if let Err(wrong) = arena.verify(page, key) {
            self.report.fail(format!("{what}: page {page}: {wrong:?}"));
        }
        self.report.passed(1);
    }
}

fn promises(huge: &Huge) {
    let memory = huge.memory;
    huge.map(4, HUGE);
    huge.changed("mapped", 0, 4);
    huge.verify("untouched", memory, 3, 0);
    huge.changed("read", 1, 3);
    memory.fill(LARGE + 7, 0x107);
    memory.fill(9, 0x109);
    huge.changed("stored", 2, 2);
    huge.report.need("munmap", memory.unmap(0, LARGE));
    huge.report.need("munmap", memory.unmap(3 * LARGE, LARGE));
    huge.changed("unmapped in part", 1, 1);
    huge.verify("the rest", memory, LARGE + 7, 0x107);
    huge.report.same("load", memory.try_load(9 * PAGE), Err(maperr(memory.addr(9 * PAGE))));
    huge.map(1, HUGE | libc::MAP_POPULATE);
    huge.changed("populated", 2, 1);
}

fn rights(huge: &Huge) {
    let (report, memory) = (&huge.report, huge.memory);
    huge.map(2, HUGE);
    memory.fill(5, 0x205);
    report.need("mprotect", memory.protect(0, 2 * LARGE, RO));
    report.same("store", memory.try_store(5 * PAGE, 1), Err(accerr(memory.addr(5 * PAGE))));
    report.need("mprotect", memory.protect(0, LARGE, NONE));
    report.same("load", memory.try_load(5 * PAGE), Err(accerr(memory.addr(5 * PAGE))));
    report.need("mprotect", memory.protect(0, 2 * LARGE, RW));
    huge.verify("rights and back", memory, 5, 0x205);
    memory.fill(5, 0x206);
    memory.fill(LARGE, 0x207);
    huge.changed("at last", 2, 0);
}

/// Parent and child see each other's stores neither way; the last one to store copies nothing.
fn family(huge: &Huge) {
    let memory = huge.memory;
    huge.map(2, HUGE);
    memory.fill(3, 0x303);
    memory.fill(LARGE + 9, 0x309);
    let end = child::run(|| {
        memory.fill(3, 0x403);
        let right = memory.verify(3, 0x403).is_ok() && memory.verify(LARGE + 9, 0x309).is_ok();
        memory.store((LARGE + 10) * PAGE, 5);
        i32::from(!(right && memory.verify(4, 0).is_ok()))
    });
    huge.report.same("child", end, End::Exit(0));
    huge.changed("the child's copies went with it", 2, 0);
    huge.verify("parent", memory, 3, 0x303);
    huge.verify("parent", memory, LARGE + 10, 0);
    memory.fill(3, 0x304);
    huge.verify("parent", memory, 3, 0x304);
    huge.changed("nothing copied", 2, 0);
}

fn shared(huge: &Huge) {
    let memory = huge.memory;
    huge.map(2, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | 21 << libc::MAP_HUGE_SHIFT);
    huge.changed("mapped", 0, 2);
    let end = child::run(|| {
        memory.fill(3, 0x503);
        memory.fill(LARGE, 0x504);
        0
    });
    huge.report.same("child", end, End::Exit(0));
    huge.verify("the child's", memory, 3, 0x503);
    huge.verify("the child's", memory, LARGE, 0x504);
    huge.changed("stored", 2, 0);
    huge.report.need("madvise", huge.advise(0, LARGE, libc::MADV_DONTNEED));
    huge.verify("let go, and kept", memory, 3, 0x503);
    huge.report.need("madvise", huge.advise(0, LARGE, libc::MADV_REMOVE));
    huge.verify("removed", memory, 3, 0);
    huge.verify("beside", memory, LARGE, 0x504);
}

fn moves(huge: &Huge) {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    huge.map(3, HUGE);
    huge.memory.fill(3, 0x603);
    huge.report.need("mremap", huge.remap([0, 3 * LARGE, 3 * LARGE, LARGE], flags));
    huge.changed("moved", 1, 2);
    huge.verify("moved", huge.other, LARGE + 3, 0x603);
    huge.report.same("load", huge.memory.try_load(3 * PAGE), Err(maperr(huge.memory.addr(3 * PAGE))));
    huge.other.fill(2 * LARGE, 0x604);
    huge.changed("the promise came along", 2, 1);
    huge.map(3, HUGE);
    huge.report.need("mremap", huge.remap([0, 3 * LARGE, LARGE + 1, 0], 0));
    huge.changed("shrunk to whole pages", 2, 3);
}

fn discard(huge: &Huge) {
    let (report, memory) = (&huge.report, huge.memory);
    huge.map(2, HUGE);
    memory.fill(3, 0x703);
    memory.fill(LARGE, 0x704);
    report.need("madvise", huge.advise(0, LARGE + 5, libc::MADV_DONTNEED));
    huge.changed("promised again", 1, 1);
    huge.verify("discarded", memory, 3, 0);
    huge.verify("a part stays", memory, LARGE, 0x704);
    report.need("madvise", huge.advise(0, 2 * LARGE, libc::MADV_DONTNEED));
    /// Since Linux 5.14.
    const MADV_POPULATE_WRITE: i32 = 23;
    report.need("madvise", huge.advise(1, LARGE, MADV_POPULATE_WRITE));
    huge.changed("populated", 2, 0);
}

/// Without a promise the pool may be empty.
fn empty(huge: &Huge) {
    let (report, memory) = (&huge.report, huge.memory);
    let spare = huge.before.free - huge.before.reserved;
    report.same("too many", memory.map_as(0, (spare + 1) * LARGE, RW, HUGE, -1, 0), Err(sys::Errno(libc::ENOMEM)));
    let other = huge.other;
    report.need("mmap", other.map_as(0, spare * LARGE, RW, HUGE, -1, 0));
    huge.map(1, HUGE | libc::MAP_NORESERVE);
    report.same("store", memory.try_store(8, 1), Err(adrerr(memory.addr(8))));
    report.same("load", memory.try_load(8), Err(adrerr(memory.addr(8))));
    (0..spare).for_each(|page| other.fill(page * LARGE, 0x800 + page as u64));
    huge.changed("all", spare, 0);
    report.need("munmap", other.unmap(0, LARGE));
    memory.fill(1, 0x901);
    (1..spare).for_each(|page| huge.verify("promised", other, page * LARGE, 0x800 + page as u64));
}

/// smaps and status tell them apart from resident memory.
fn views(huge: &Huge) {
    huge.map(2, HUGE);
    huge.memory.fill(0, 0xa00);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("HugetlbPages:")).unwrap_or_default();
    huge.report.same("status", line.split_whitespace().nth(1), Some("2048"));
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let start = format!("{:x}-", huge.memory.addr(0));
    let area: Vec<&str> = smaps.lines().skip_while(|line| !line.starts_with(&start)).take(25).collect();
    let value = |name: &str| {
        let line = area.iter().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_string()
    };
    huge.report
        .check(area.first().is_some_and(|line| line.ends_with("/anon_hugepage (deleted)")), || format!("{area:?}"));
    for (name, want) in
        [("KernelPageSize:", "2048"), ("MMUPageSize:", "2048"), ("Rss:", "0"), ("Private_Hugetlb:", "2048")]
    {
        huge.report.same(name, value(name).as_str(), want);
    }
    let mut seen = [0u8; 2 * LARGE];
    // SAFETY: an arena holds no Rust object, and the array takes a byte per page.
    let mincore = unsafe {
        let args = [huge.memory.addr(0), 2 * LARGE * PAGE, seen.as_mut_ptr() as usize, 0, 0, 0];
        sys::call(libc::SYS_mincore, args)
    };
    huge.report.need("mincore", mincore);
    huge.report.same("mincore", (seen[0] & 1, seen[LARGE - 1] & 1, seen[LARGE] & 1), (1, 1, 0));
}
