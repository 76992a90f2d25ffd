//! One process looks at itself.

use super::look::{EXCLUSIVE, FILE, PRESENT, areas_in, areas_of, figures, in_pages, pagemap, sums, text, with};
use super::{PAGES, Views};
use faultless_guest::object::Object;
use faultless_guest::sys::{self, NONE, PAGE, RO, RW};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

const COUNTS: [&str; 8] =
    ["Rss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Anonymous", "Pss", "Swap"];

/// Written, only read, and untouched pages in smaps, pagemap and mincore.
pub fn pages(views: &Views) {
    let (arena, written) = views.written(7);
    let read: Vec<usize> = (3..PAGES).step_by(7).collect();
    read.iter().for_each(|page| views.report.same("a page of zeroes", arena.load(page * PAGE), 0));
    // Pages of zeroes count for nobody.
    views.report.same("smaps", of_first(views), [written, 0, 0, 0, written, written, written, 0]);
    views.report.same("exclusive", with(0, arena, PRESENT | EXCLUSIVE).len() as u64, written);
    views.report.same("present", with(0, arena, PRESENT).len(), written as usize + read.len());
    views.report.same("of a file", with(0, arena, FILE), Vec::new());
    let mut resident = [0_u8; PAGES];
    let args = [arena.addr(0), PAGES * PAGE, resident.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: `resident` has a byte for each page.
    views.report.need("mincore", unsafe { sys::call(libc::SYS_mincore, args) });
    let resident: Vec<usize> = (0..PAGES).filter(|&page| resident[page] & 1 != 0).collect();
    views.report.same("mincore", resident, with(0, arena, PRESENT));
    // Without rights the pages are still there.
    views.report.need("mprotect", arena.protect(0, PAGES, NONE));
    views.report.same("smaps of NONE", of_first(views)[0], written);
    views.report.same("exclusive in NONE", with(0, arena, PRESENT | EXCLUSIVE).len() as u64, written);
    let areas = areas_in(0, arena);
    views.report.same("areas", areas.len(), 1);
    views.report.same("rights", areas[0].rights.as_str(), "---p");
    views.report.check(areas[0].flags.iter().all(|flag| flag != "rd"), || format!("{:?}", areas[0].flags));
    views.report.same("size", areas[0].figures["Size"], (PAGES * PAGE / 1024) as u64);
    views.report.fold(written);
}

fn of_first(views: &Views) -> [u64; 8] {
    in_pages(&sums(0, views.arenas[0]), COUNTS)
}

/// smaps_rollup is the sum of smaps, and status agrees.
pub fn rollup(views: &Views) {
    let (_, written) = views.written(2);
    // Nothing may change between the two looks: no allocation, no page touched for the first time.
    let mut first = vec![1_u8; 1 << 20];
    let mut second = vec![1_u8; 1 << 14];
    let mut smaps = File::open("/proc/self/smaps").expect("smaps");
    let mut rollup = File::open("/proc/self/smaps_rollup").expect("smaps_rollup");
    let read = |file: &mut File, into: &mut [u8]| {
        let mut done = 0;
        while let Ok(count @ 1..) = file.read(&mut into[done..]) {
            done += count;
        }
        done
    };
    read(&mut rollup, &mut second);
    let (first_length, second_length) = (read(&mut smaps, &mut first), {
        let mut again = File::open("/proc/self/smaps_rollup").expect("smaps_rollup");
        read(&mut again, &mut second)
    });
    let areas = areas_of(core::str::from_utf8(&first[..first_length]).expect("text"));
    let rollup = core::str::from_utf8(&second[..second_length]).expect("text");
    let head = rollup.lines().next().expect("a line");
    views.report.check(head.ends_with(" ---p 00000000 00:00 0                          [rollup]"), || head.to_owned());
    let rollup = figures(rollup);
    for name in ["Rss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Anonymous", "LazyFree"] {
        let sum: u64 = areas.iter().map(|area| area.figures[name]).sum();
        views.report.same(name, rollup[name], sum);
    }
    // Each area's share was rounded down.
    let sum: u64 = areas.iter().map(|area| area.figures["Pss"]).sum();
    let rounding = areas.len() as u64;
    views.report.check((sum..=sum + rounding).contains(&rollup["Pss"]), || format!("Pss {} of {sum}", rollup["Pss"]));
    let kinds: u64 = ["Pss_Anon", "Pss_File", "Pss_Shmem"].iter().map(|name| rollup[*name]).sum();
    views.report.check((kinds..=kinds + 3).contains(&rollup["Pss"]), || format!("Pss by kind: {kinds}"));
    let status = figures(&text(0, "status"));
    views.report.same("VmRSS", status["VmRSS"], status["RssAnon"] + status["RssFile"] + status["RssShmem"]);
    views.report.check(status["RssAnon"] >= written * 4, || format!("RssAnon {}", status["RssAnon"]));
    views.report.fold(written);
}

/// Looking at what is not mapped makes no tables, and has an end.
pub fn holes(views: &Views) {
    let arena = views.arenas[0];
    let tables = || figures(&text(0, "status"))["VmPTE"];
    let before = tables();
    for gap in 1..8 {
        let entries = pagemap(0, arena.addr(gap << 35), 1 << 12);
        views.report.check(entries.iter().all(|entry| *entry == 0), || "an entry in a hole".to_owned());
    }
    views.report.same("tables", tables(), before);
    let file = File::open("/proc/self/pagemap").expect("pagemap");
    let mut bytes = [0; 64];
    let end = (1_u64 << 47) / PAGE as u64 * 8;
    views.report.same("at the end", file.read_at(&mut bytes, end).ok(), Some(0));
    views.report.same("before the end", file.read_at(&mut bytes, end - 16).ok(), Some(8));
    for (offset, length) in [(4, 8), (0, 12)] {
        let error = file.read_at(&mut bytes[..length], offset).err().and_then(|error| error.raw_os_error());
        views.report.same("part of an entry", error, Some(libc::EINVAL));
    }
    // A private mapping of no rights has an area, but no pages.
    views.report.need("mmap", arena.map(0, 16, NONE));
    views.report.same("no pages", with(0, arena, PRESENT), Vec::new());
}

/// Shared memory: each mapping of a page counts.
pub fn shared(views: &Views) {
    let object = views.report.need("object", Object::new(64 * PAGE));
    let [one, two] = views.arenas;
    views.report.need("mmap", one.map_as(0, 64, RW, libc::MAP_SHARED, object.fd, 0));
    (0..40).for_each(|page| one.store(page * PAGE, 1));
    let names = ["Rss", "Pss", "Private_Dirty", "Shared_Dirty", "Anonymous"];
    let shmem = || figures(&text(0, "status"))["RssShmem"];
    views.report.same("once", in_pages(&sums(0, one), names), [40, 40, 40, 0, 0]);
    let before = shmem();
    views.report.need("mmap", two.map_as(0, 64, RO, libc::MAP_SHARED, object.fd, 0));
    (0..10).for_each(|page| views.report.same("shared page", two.load(page * PAGE), 1));
    // Linux may have mapped neighbours too.
    let [rss, pss, _, _, _] = in_pages(&sums(0, two), names);
    views.report.check((10..=64).contains(&rss) && pss == rss.min(40) / 2 + rss.saturating_sub(40), || {
        format!("{rss} pages, a share of {pss}")
    });
    views.report.same("RssShmem", shmem() - before, rss * 4);
    views.report.check(with(0, one, FILE | PRESENT).len() == 40, || "pages of a file".to_owned());
    views.report.check(!with(0, one, EXCLUSIVE).contains(&0), || "mapped twice, and exclusive".to_owned());
    views.report.check(with(0, one, EXCLUSIVE).contains(&39) || rss > 39, || "mapped once".to_owned());
    // A private copy is anonymous, and the file's page is there no more.
    views.report.need("mmap", two.map_as(0, 64, RW, libc::MAP_PRIVATE, object.fd, 0));
    (0..5).for_each(|page| two.store(page * PAGE, 2));
    let [rss, _, private, _, anonymous] = in_pages(&sums(0, two), names);
    views.report.same("copies", (private, anonymous), (5, 5));
    views.report.check((5..=64).contains(&rss), || format!("{rss} pages"));
    views.report.same("the original", one.load(0), 1);
    let name = areas_in(0, one)[0].name.clone();
    views.report.check(name.ends_with(" (deleted)"), || name);
}

/// MADV_FREE: clean and lazy, until the next store.
pub fn lazy(views: &Views) {
    let (arena, written) = views.written(1);
    let advise = |pages| {
        let args = [arena.addr(0), pages * PAGE, libc::MADV_FREE as usize, 0, 0, 0];
        // SAFETY: an arena holds no Rust object.
        views.report.need("MADV_FREE", unsafe { sys::call(libc::SYS_madvise, args) });
    };
    let names = ["Rss", "Private_Clean", "Private_Dirty"];
    let check = |what: &str, free: u64| {
        let figures = sums(0, arena);
        views.report.same(what, in_pages(&figures, names), [written, free, written - free]);
        // Linux moves pages to that list in batches.
        let [lazy] = in_pages(&figures, ["LazyFree"]);
        let behind = if views.strict { 0 } else { 31.min(free) };
        views.report.check((free - behind..=free).contains(&lazy), || format!("{what}: {lazy} of {free} lazily free"));
    };
    check("before", 0);
    advise(100);
    check("free", 100);
    (0..30).for_each(|page| arena.store(page * PAGE, 5));
    check("kept", 70);
}

/// VmPeak, VmHWM and ru_maxrss keep the highest; clear_refs 5 starts VmHWM anew.
pub fn marks(views: &Views) {
    let (arena, written) = views.written(1);
    let status = || figures(&text(0, "status"));
    let high = status();
    let faults = usage().ru_minflt;
    views.report.need("munmap", arena.unmap(0, PAGES));
    let low = status();
    let released = PAGES as u64 * 4;
    views.report.check(low["VmSize"] + released <= high["VmSize"] + 64, || "VmSize".to_owned());
    views.report.check(low["VmPeak"] >= high["VmSize"], || format!("VmPeak {} {}", low["VmPeak"], high["VmSize"]));
    views.report.check(low["VmRSS"] < high["VmRSS"], || "VmRSS".to_owned());
    // Linux counts pages of threads in batches.
    views.report.check(low["VmHWM"] + 1024 >= high["VmRSS"], || format!("VmHWM {}", low["VmHWM"]));
    views.report.check(low["VmHWM"] >= low["VmRSS"] + released / 2, || format!("VmHWM {}", low["VmHWM"]));
    views.report.check(usage().ru_maxrss as u64 + 1024 >= high["VmRSS"], || "ru_maxrss".to_owned());
    super::look::clear_refs(0, 5);
    let anew = status();
    views.report.check(anew["VmHWM"] < low["VmHWM"] - released / 4, || format!("VmHWM {} anew", anew["VmHWM"]));
    views.report.check(anew["VmHWM"] + 64 >= anew["VmRSS"], || "VmHWM below VmRSS".to_owned());
    views.written(1);
    let more = usage().ru_minflt - faults;
    views.report.check(more as u64 >= written, || format!("{more} faults for {written} pages"));
    for wrong in ["0", "6", "x", ""] {
        let result = std::fs::write("/proc/self/clear_refs", wrong);
        // Nothing is written if there is nothing to write.
        let errno = result.err().and_then(|error| error.raw_os_error());
        views.report.same("clear_refs", errno, if wrong.is_empty() { None } else { Some(libc::EINVAL) });
    }
    let statm = text(0, "statm");
    let [total, resident]: [u64; 2] = core::array::from_fn(|index| {
        statm.split_whitespace().nth(index).and_then(|word| word.parse().ok()).expect("a number")
    });
    let now = status();
    views.report.check(total * 4 <= now["VmSize"] + 4096 && total * 4 + 4096 >= now["VmSize"], || statm.clone());
    views.report.check(resident * 4 <= now["VmRSS"] + 1024, || statm.clone());
}

fn usage() -> libc::rusage {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` has room for the answer.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(done, 0, "getrusage");
    usage
}

/// /proc/meminfo and /proc/vmstat: the lines are there, and where nobody else runs they are exact.
pub fn machine(views: &Views) {
    let meminfo = || figures(&std::fs::read_to_string("/proc/meminfo").expect("meminfo"));
    let vmstat = || -> std::collections::BTreeMap<String, u64> {
        let text = std::fs::read_to_string("/proc/vmstat").expect("vmstat");
        let pair = |line: &str| line.split_once(' ').map(|(name, count)| (name.to_owned(), count.parse().unwrap_or(0)));
        text.lines().filter_map(pair).collect()
    };
    let (before, events) = (meminfo(), vmstat());
    views.report.check(before["MemFree"] < before["MemTotal"], || "MemFree".to_owned());
    for name in ["MemAvailable", "Cached", "AnonPages", "Mapped", "Shmem", "PageTables", "SwapTotal", "Dirty"] {
        views.report.check(before.contains_key(name), || format!("no {name}"));
    }
    let (_, written) = views.written(1);
    let object = views.report.need("object", Object::new(64 * PAGE));
    (0..64).for_each(|page| views.report.same("write", object.fill(page, 3), Ok(PAGE)));
    let (after, later) = (meminfo(), vmstat());
    views.report.check(later["pgfault"] > events["pgfault"], || "pgfault".to_owned());
    for name in ["nr_free_pages", "nr_anon_pages", "nr_mapped", "nr_file_pages", "nr_shmem", "pgmajfault"] {
        views.report.check(later.contains_key(name), || format!("no {name}"));
    }
    if views.strict {
        let grown = |name: &str| after[name] - before[name];
        views.report.check((written * 4..written * 4 + 64).contains(&grown("AnonPages")), || "AnonPages".to_owned());
        views.report.same("Shmem", grown("Shmem"), 256);
        // Pages of this program may have come in meanwhile.
        views.report.check((256..512).contains(&grown("Cached")), || format!("Cached {}", grown("Cached")));
        let used = before["MemFree"] - after["MemFree"];
        let known = grown("AnonPages") + grown("Cached") + grown("PageTables");
        views.report.same("MemFree", used, known);
        views.report.same("nr_shmem", later["nr_shmem"] - events["nr_shmem"], 64);
        views.report.check(later["pgfault"] - events["pgfault"] >= written, || "pgfault".to_owned());
    }
}
