//! mlock and its relatives, with and without the right to lock as much as one likes; mseal; limits of memory.
//!
//! Rows: AC-04, AC-06, MA-01, VM-06.

use crate::Lines;
use crate::alone::{Alone, alone, figure, raw, status};
use crate::stage::{KERNEL, Stage, TOP, number};
use faultless_guest::sys::{self, ANON, NONE, PAGE, RO, RW, SHARED_ANON};

/// `CAP_IPC_LOCK`.
const IPC_LOCK: u32 = 14;
const MLOCK_ONFAULT: usize = 1;
const MSEAL: i64 = 462;
const INFINITY: u64 = u64::MAX;

/// mlock, mlock2, munlock, mlockall, munlockall and MAP_LOCKED.
pub fn mlock(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, ranges);
    alone(stage, lines, |child| {
        child.drop_capability(IPC_LOCK);
        limited(child);
    });
    alone(stage, lines, |child| {
        child.drop_capability(IPC_LOCK);
        child.line(format_args!("no limit -> {}", number(child.limit(libc::RLIMIT_MEMLOCK, 0, 0))));
        let at = child.at(0);
        for (name, call, args) in [
            ("mlock", libc::SYS_mlock, [at, PAGE, 0]),
            ("mlock of nothing", libc::SYS_mlock, [at, 0, 0]),
            ("mlock2 with a bad flag", libc::SYS_mlock2, [at, PAGE, 2]),
            ("mlockall(FUTURE)", libc::SYS_mlockall, [2, 0, 0]),
            ("mlockall(ONFAULT)", libc::SYS_mlockall, [4, 0, 0]),
            ("munlock", libc::SYS_munlock, [at, PAGE, 0]),
            ("munlockall", libc::SYS_munlockall, [0, 0, 0]),
        ] {
            let _ = child.call(name, call, &args);
        }
        child.place("MAP_LOCKED", child.map(20, 1, RW, ANON | libc::MAP_LOCKED));
    });
    alone(stage, lines, future);
}

/// Every kind of range.
fn ranges(child: &Alone) {
    let at = |page| child.at(page);
    let cases = [
        ("two pages", at(0), 2 * PAGE),
        ("a byte over the border", at(1) + PAGE - 1, 2),
        ("over a hole", at(3), 3 * PAGE),
        ("no access", at(7), PAGE),
        ("a file", at(8), 4 * PAGE),
        ("a private file", at(12), 2 * PAGE),
        ("nothing", at(20), PAGE),
        ("nothing of nothing", at(20), 0),
        ("to the end of numbers", at(0), at(0).wrapping_neg()),
        ("as long as can be", at(0), usize::MAX),
        ("TOP", TOP, PAGE),
        ("KERNEL", KERNEL, PAGE),
    ];
    for (name, start, length) in cases {
        let _ = child.call(&format!("mlock of {name}"), libc::SYS_mlock, &[start, length]);
    }
    child.line(child.resident(0, 24));
    for (name, start, length) in cases {
        let _ = child.call(&format!("munlock of {name}"), libc::SYS_munlock, &[start, length]);
    }
    let _ = child.call("munlockall", libc::SYS_munlockall, &[]);
    child.stage.report.need("mmap", child.map(16, 8, RW, ANON));
    let _ = child.call("mlock2(ONFAULT)", libc::SYS_mlock2, &[at(16), 4 * PAGE, MLOCK_ONFAULT]);
    child.line(child.resident(16, 8));
    let _ = child.call("mlock2(0)", libc::SYS_mlock2, &[at(17), PAGE, 0]);
    let _ = child.call("mlock2(ONFAULT) again", libc::SYS_mlock2, &[at(17), PAGE, MLOCK_ONFAULT]);
    child.line(child.resident(16, 8));
    for (name, advice) in
        [("NORMAL", 0), ("DONTNEED", 4), ("FREE", 8), ("REMOVE", 9), ("COLD", 20), ("DONTNEED_LOCKED", 24)]
    {
        let _ = child.call(&format!("madvise({name})"), libc::SYS_madvise, &[at(16), PAGE, advice]);
    }
    for (name, flags) in [("ASYNC", 1), ("INVALIDATE", 2), ("SYNC", 4), ("SYNC|INVALIDATE", 6)] {
        let _ = child.call(&format!("msync({name})"), libc::SYS_msync, &[at(15), 3 * PAGE, flags]);
        let _ = child.call(&format!("msync({name}) over a hole"), libc::SYS_msync, &[at(13), 4 * PAGE, flags]);
    }
    let _ = child.call("munmap of locked memory", libc::SYS_munmap, &[at(16), PAGE]);
    let end = faultless_guest::child::run(|| i32::from(status("VmLck") != Some(0)));
    child.line(format_args!("a child's is not locked: {end:?}"));
    let _ = child.call("munlockall", libc::SYS_munlockall, &[]);
}

/// Four pages may be locked.
fn limited(child: &Alone) {
    let at = |page| child.at(page);
    child.line(format_args!("limit -> {}", number(child.limit(libc::RLIMIT_MEMLOCK, 4 * PAGE as u64 + 5, 1 << 20))));
    child.stage.report.need("mmap", child.map(0, 16, RW, ANON));
    for (name, call, args) in [
        ("mlock of 5", libc::SYS_mlock, [at(0), 5 * PAGE, 0]),
        ("mlock of 3", libc::SYS_mlock, [at(0), 3 * PAGE, 0]),
        ("mlock of 4 with these 3", libc::SYS_mlock, [at(0), 4 * PAGE, 0]),
        ("mlock of them again", libc::SYS_mlock, [at(0), 4 * PAGE, 0]),
        ("mlock of one more", libc::SYS_mlock, [at(8), PAGE, 0]),
        ("mlock that wraps", libc::SYS_mlock, [at(0), usize::MAX - 3 * PAGE, 0]),
        ("mlockall(CURRENT)", libc::SYS_mlockall, [1, 0, 0]),
        ("mlockall(8)", libc::SYS_mlockall, [8, 0, 0]),
        ("mlockall(0)", libc::SYS_mlockall, [0, 0, 0]),
        ("mlockall(FUTURE)", libc::SYS_mlockall, [2, 0, 0]),
    ] {
        let _ = child.call(name, call, &args);
    }
    child.place("mmap after MCL_FUTURE", child.map(20, 1, RW, ANON));
    child.place("over what is locked", child.map(0, 1, RW, ANON));
    // SAFETY: in the arena, where something is, so that nothing happens.
    let taken = unsafe { sys::mmap(at(0), PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0) };
    child.place("where something is", taken);
    let _ = child.call("mremap that grows", libc::SYS_mremap, &[at(3), PAGE, 2 * PAGE, 1]);
    let _ = child.call("munlockall", libc::SYS_munlockall, &[]);
    child.place("MAP_LOCKED of 5", child.map(0, 5, RW, ANON | libc::MAP_LOCKED));
    child.place("MAP_LOCKED of 4", child.map(0, 4, RW, ANON | libc::MAP_LOCKED));
    child.line(child.resident(0, 6));
    child.line(format_args!("to raise the limit -> {}", number(child.limit(libc::RLIMIT_MEMLOCK, 1 << 20, 1 << 20))));
    let _ = child.call("mlock of one more", libc::SYS_mlock, &[at(8), PAGE]);
}

/// What is mapped after mlockall.
fn future(child: &Alone) {
    let at = |page| child.at(page);
    let _ = raw(libc::SYS_mlockall, &[1]);
    child.line(child.resident(0, 24));
    let _ = child.call("munlockall", libc::SYS_munlockall, &[]);
    let _ = child.call("mlockall(FUTURE)", libc::SYS_mlockall, &[2]);
    for (name, prot, flags) in
        [("private", RW, ANON), ("read only", RO, ANON), ("no access", NONE, ANON), ("shared", RW, SHARED_ANON)]
    {
        child.stage.report.need("mmap", child.map(16, 2, prot, flags));
        child.line(format_args!("{name} after FUTURE: {} {:?}", child.resident(16, 2), status("VmLck")));
    }
    child.stage.report.need("mmap", child.map(16, 2, NONE, ANON));
    let _ = child.call("mprotect", libc::SYS_mprotect, &[at(16), PAGE, RW as usize]);
    child.line(child.resident(16, 2));
    let _ = child.call("mlockall(FUTURE|ONFAULT)", libc::SYS_mlockall, &[6]);
    child.stage.report.need("mmap", child.map(16, 2, RW, ANON));
    child.line(child.resident(16, 2));
    child.line(format_args!("mlockall(CURRENT|ONFAULT) -> {}", number(raw(libc::SYS_mlockall, &[5]))));
    child.stage.report.need("mmap", child.map(18, 2, RW, ANON));
    child.line(child.resident(16, 4));
    let _ = raw(libc::SYS_munlockall, &[]);
    child.line(format_args!("after munlockall: {:?}", status("VmLck")));
}

/// mseal: arguments, and what is refused afterwards.
pub fn mseal(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        let at = |page| child.at(page);
        for (name, args) in [
            ("unaligned", [at(0) + 1, PAGE, 0]),
            ("flags", [at(0), PAGE, 1]),
            ("flags in the upper half", [at(0), PAGE, 1 << 40]),
            ("nothing", [at(4), 0, 0]),
            ("a hole", [at(3), 2 * PAGE, 0]),
            ("a hole behind", [at(3), PAGE + 1, 0]),
            ("as long as can be", [at(0), usize::MAX, 0]),
            ("to the end of numbers", [at(0), at(0).wrapping_neg(), 0]),
            ("KERNEL", [KERNEL, PAGE, 0]),
            ("pages 1 and 2", [at(1), PAGE + 1, 0]),
            ("read only", [at(5), PAGE, 0]),
            ("again", [at(1), PAGE, 0]),
            ("shared file", [at(8), PAGE, 0]),
            ("private file", [at(12), PAGE, 0]),
        ] {
            let _ = child.call(&format!("mseal of {name}"), MSEAL, &args);
        }
        sealed(child);
    });
}

fn sealed(child: &Alone) {
    let at = |page| child.at(page);
    for (name, call, args) in [
        ("munmap", libc::SYS_munmap, vec![at(0), 4 * PAGE]),
        ("munmap of a part", libc::SYS_munmap, vec![at(2), PAGE]),
        ("munmap beside", libc::SYS_munmap, vec![at(3), PAGE]),
        ("mprotect to the same", libc::SYS_mprotect, vec![at(1), PAGE, RW as usize]),
        ("mprotect over it", libc::SYS_mprotect, vec![at(0), 3 * PAGE, RO as usize]),
        ("mprotect beside", libc::SYS_mprotect, vec![at(0), PAGE, RW as usize]),
        ("mremap that shrinks", libc::SYS_mremap, vec![at(1), 2 * PAGE, PAGE, 0]),
        ("mremap that grows", libc::SYS_mremap, vec![at(2), PAGE, 2 * PAGE, 1]),
        ("mremap that moves", libc::SYS_mremap, vec![at(1), PAGE, PAGE, 3, at(20)]),
        ("mremap onto it", libc::SYS_mremap, vec![at(0), PAGE, PAGE, 3, at(1)]),
        ("mlock", libc::SYS_mlock, vec![at(1), PAGE]),
        ("munlock", libc::SYS_munlock, vec![at(1), PAGE]),
        ("msync", libc::SYS_msync, vec![at(1), PAGE, 4]),
    ] {
        let _ = child.call(name, call, &args);
    }
    child.place("mmap over it", child.map(2, 1, RW, ANON));
    for page in [1, 5, 8, 12] {
        for (name, advice) in [("DONTNEED", 4), ("FREE", 8), ("DONTFORK", 10), ("WIPEONFORK", 18), ("DONTDUMP", 16)] {
            let _ =
                child.call(&format!("madvise({name}) of page {page}"), libc::SYS_madvise, &[at(page), PAGE, advice]);
        }
    }
    child.line(child.stage.look());
    let end = faultless_guest::child::run(|| match raw(libc::SYS_munmap, &[at(5), PAGE]) {
        Err(errno) => errno.0,
        Ok(_) => 0,
    });
    child.line(format_args!("munmap by a child: {end:?}"));
}

/// RLIMIT_AS, RLIMIT_DATA and vm.max_map_count.
pub fn limits(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        let pages = |name| status(name).unwrap_or(0) / 4;
        let size = pages("VmSize") * PAGE as u64;
        child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_AS, size + 8 * PAGE as u64, INFINITY));
        child.place("9 pages with room for 8", child.map(30, 9, RO, ANON));
        child.place("8 pages with room for 8", child.map(30, 8, RO, ANON));
        child.place("one more", child.map(40, 1, NONE, ANON));
        child.place("in place of others", child.map(30, 4, RW, ANON));
        let _ = child.call("mremap that grows", libc::SYS_mremap, &[child.at(30), PAGE, 2 * PAGE, 1]);
        let _ = child.call("mremap that keeps", libc::SYS_mremap, &[child.at(30), PAGE, PAGE, 5]);
        child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_AS, size, INFINITY));
        child.place("in place of others with less room", child.map(30, 4, RW, ANON));
        child.place("MAP_GROWSDOWN", child.map(50, 1, RW, ANON | libc::MAP_GROWSDOWN));
        child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_AS, INFINITY, INFINITY));
        child.place("without a limit", child.map(40, 9, RO, ANON));
    });
    alone(stage, lines, data);
    alone(stage, lines, areas);
}

fn data(child: &Alone) {
    let at = |page| child.at(page);
    child.stage.report.need("mmap", child.map(30, 9, RO, ANON));
    let data = status("VmData").unwrap_or(0) * 1024;
    child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_DATA, data + 4 * PAGE as u64, INFINITY));
    child.place("5 pages with room for 4", child.map(50, 5, RW, ANON));
    child.place("5 pages of a stack", child.map(50, 5, RW, ANON | libc::MAP_GROWSDOWN));
    child.place("5 shared pages", child.map(60, 5, RW, SHARED_ANON));
    child.place("4 pages", child.map(70, 4, RW, ANON));
    let _ = child.call("mprotect to RW", libc::SYS_mprotect, &[at(30), PAGE, RW as usize]);
    let _ = child.call("mprotect to RO", libc::SYS_mprotect, &[at(70), PAGE, RO as usize]);
    let _ = child.call("mprotect to RW", libc::SYS_mprotect, &[at(30), PAGE, RW as usize]);
    let _ = child.call("mprotect to RW of two", libc::SYS_mprotect, &[at(30), 2 * PAGE, RW as usize]);
    let _ = child.call("mremap that grows", libc::SYS_mremap, &[at(71), PAGE, 2 * PAGE, 1]);
    child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_DATA, 0, INFINITY));
    child.place("with a limit of 0", child.map(80, 1, RW, ANON));
    child.stage.report.need("setrlimit", child.limit(libc::RLIMIT_DATA, 0, 0));
    child.place("with a hard limit of 0", child.map(81, 1, RW, ANON));
}

/// Areas until there are too many.
fn areas(child: &Alone) {
    let most = figure("/proc/sys/vm/max_map_count").unwrap_or(0) as usize;
    let count = count_areas;
    // Far from the arena, which has not so much room.
    let base = child.at(0) + (1 << 36);
    let whole = 2 * most * PAGE;
    let fixed = ANON | libc::MAP_FIXED;
    // SAFETY: nothing is there.
    child.stage.report.need("mmap", unsafe { sys::mmap(base, whole, NONE, fixed | libc::MAP_NORESERVE, -1, 0) });
    if (most - count()) % 2 == 1 {
        // Each step makes two more: the last shall make them just as many as there may be.
        // SAFETY: nothing is there.
        child.stage.report.need("mmap", unsafe { sys::mmap(base - 2 * PAGE, PAGE, RO, fixed, -1, 0) });
    }
    let mut page = 1;
    let refused = loop {
        let got = raw(libc::SYS_mprotect, &[base + page * PAGE, PAGE, RO as usize]);
        if let Err(errno) = got {
            break errno;
        }
        page += 2;
    };
    child.line(format_args!("mprotect in the end: {refused}, too many by {}", count() as i64 - most as i64));
    let in_the_middle = base + (page + 10) * PAGE;
    let _ = child.call("munmap that splits", libc::SYS_munmap, &[in_the_middle, PAGE]);
    let _ = child.call("munmap at the end", libc::SYS_munmap, &[base + whole - PAGE, PAGE]);
    let _ = child.call("mlock that splits", libc::SYS_mlock, &[base + PAGE, 1]);
    let _ = child.call("madvise that splits", libc::SYS_madvise, &[in_the_middle, PAGE, 10]);
    let mut more = 0;
    let refused = loop {
        // SAFETY: nothing is there.
        let got = unsafe { sys::mmap(base + whole + 2 * (more + 1) * PAGE, PAGE, RO, fixed, -1, 0) };
        match got {
            Ok(_) if more < 9 => more += 1,
            Ok(_) => break "no error".to_owned(),
            Err(errno) => break errno.to_string(),
        }
    };
    child.line(format_args!("mmap: {refused}, too many by {}", count() as i64 - most as i64));
    let _ = child.call("mremap that moves", libc::SYS_mremap, &[base + whole + 2 * PAGE, PAGE, PAGE, 5]);
    let end = faultless_guest::child::run(|| 7);
    child.line(format_args!("fork: {end:?}"));
}

/// Lines of /proc/self/maps, without what is no mapping. Needs no memory, of which there may be none.
fn count_areas() -> usize {
    let path = c"/proc/self/maps".as_ptr() as usize;
    let Ok(fd) = raw(libc::SYS_openat, &[libc::AT_FDCWD as usize, path, 0, 0]) else { return 0 };
    let (mut lines, mut part, mut last) = (0, [0; 4096], [0; 10]);
    while let Ok(count @ 1..) = sys::read(fd as i32, &mut part) {
        for &byte in &part[..count] {
            lines += usize::from(byte == b'\n' && last != *b"[vsyscall]");
            last.rotate_left(1);
            last[9] = byte;
        }
    }
    sys::close(fd as i32);
    lines
}
