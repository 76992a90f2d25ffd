//! System calls with pointers to everything but memory.
//!
//! One line per call: what it returns for each kind of pointer. Rows: F-14, F-15.

use crate::Lines;
use crate::stage::{KERNEL, NON_CANONICAL, Stage, TOP, number};
use faultless_guest::sys::{self, PAGE, Result};

/// One call: gets the pointer under test.
type Call = fn(&Stage, usize) -> Result;

fn raw(number: i64, args: [usize; 6]) -> Result {
    // SAFETY: pointers under test lie in the arena or are refused by the kernel; the other
    // arguments ask for nothing that this program relies on.
    unsafe { sys::call(number, args) }
}

const AT: usize = libc::AT_FDCWD as usize;

const CALLS: &[(&str, Call)] = &[
    ("write(file)", |s, p| raw(libc::SYS_pwrite64, [s.file.fd as usize, p, 64, 0, 0, 0])),
    ("read(file)", |s, p| raw(libc::SYS_pread64, [s.file.fd as usize, p, 64, 0, 0, 0])),
    ("write(pipe)", |s, p| through_pipe(s, libc::SYS_write, p)),
    ("read(pipe)", |s, p| through_pipe(s, libc::SYS_read, p)),
    ("writev", |s, p| raw(libc::SYS_writev, [s.write_only as usize, p, 1, 0, 0, 0])),
    ("pipe2", |_, p| raw(libc::SYS_pipe2, [p, 0, 0, 0, 0, 0])),
    ("openat", |_, p| raw(libc::SYS_openat, [AT, p, 0, 0, 0, 0])),
    ("execve", |_, p| raw(libc::SYS_execve, [p, 0, 0, 0, 0, 0])),
    ("newfstatat", |_, p| raw(libc::SYS_newfstatat, [AT, c"/".as_ptr() as usize, p, 0, 0, 0])),
    ("fstat", |s, p| raw(libc::SYS_fstat, [s.file.fd as usize, p, 0, 0, 0, 0])),
    ("uname", |_, p| raw(libc::SYS_uname, [p, 0, 0, 0, 0, 0])),
    ("clock_gettime", |_, p| raw(libc::SYS_clock_gettime, [1, p, 0, 0, 0, 0])),
    ("nanosleep", |_, p| raw(libc::SYS_nanosleep, [p, 0, 0, 0, 0, 0])),
    ("getrusage", |_, p| raw(libc::SYS_getrusage, [0, p, 0, 0, 0, 0])),
    ("times", |_, p| raw(libc::SYS_times, [p, 0, 0, 0, 0, 0]).map(|_| 0)),
    ("getrandom", |_, p| raw(libc::SYS_getrandom, [p, 16, 0, 0, 0, 0])),
    ("rt_sigaction new", |_, p| raw(libc::SYS_rt_sigaction, [12, p, 0, 8, 0, 0])),
    ("rt_sigaction old", |_, p| raw(libc::SYS_rt_sigaction, [12, 0, p, 8, 0, 0])),
    ("rt_sigprocmask new", |_, p| raw(libc::SYS_rt_sigprocmask, [0, p, 0, 8, 0, 0])),
    ("rt_sigprocmask old", |_, p| raw(libc::SYS_rt_sigprocmask, [0, 0, p, 8, 0, 0])),
    ("sigaltstack old", |_, p| raw(libc::SYS_sigaltstack, [0, p, 0, 0, 0, 0])),
    ("futex wait", |_, p| raw(libc::SYS_futex, [p, 128, 1, 0, 0, 0])),
    ("arch_prctl get fs", |_, p| raw(libc::SYS_arch_prctl, [0x1003, p, 0, 0, 0, 0])),
    ("prlimit64 old", |_, p| raw(libc::SYS_prlimit64, [0, 3, 0, p, 0, 0])),
    ("poll", |_, p| raw(libc::SYS_poll, [p, 1, 0, 0, 0, 0]).map(|_| 0)),
    ("getcwd", |_, p| raw(libc::SYS_getcwd, [p, 512, 0, 0, 0, 0]).map(|_| 0)),
    ("wait4", |_, p| after_child(p)),
];

/// 64 bytes through a pipe of their own: into it from `ptr`, or out of it to `ptr`.
fn through_pipe(stage: &Stage, call: i64, ptr: usize) -> Result {
    let (out, into) = stage.report.need("pipe", sys::pipe());
    let end = if call == libc::SYS_read {
        stage.report.need("write", sys::write(into, &[7; 64]));
        out
    } else {
        into
    };
    let got = raw(call, [end as usize, ptr, 64, 0, 0, 0]);
    [out, into].into_iter().for_each(sys::close);
    got
}

/// The status of a child that has ended goes to `ptr`.
fn after_child(ptr: usize) -> Result {
    let pid = faultless_guest::child::spawn(|| 0);
    raw(libc::SYS_wait4, [pid as usize, ptr, 0, 0, 0, 0]).map(|got| usize::from(got != pid as usize))
}

/// Each call with each kind of pointer.
pub fn pointers(stage: &mut Stage, lines: &mut Lines) {
    let arena = stage.arena;
    let places = [
        ("memory", arena.addr(0)),
        ("null", 0),
        ("hole", arena.page_addr(4)),
        ("read-only", arena.page_addr(5)),
        ("no access", arena.page_addr(7)),
        ("behind the file", arena.page_addr(13)),
        ("border", arena.page_addr(4) - 4),
        ("top", TOP),
        ("below top", TOP - 2),
        ("kernel", KERNEL),
        ("non-canonical", NON_CANONICAL),
        ("-1", usize::MAX),
    ];
    for (name, call) in CALLS {
        let mut line = String::new();
        for (place, ptr) in places.iter().filter(|(place, _)| known(name, place)) {
            stage.reset();
            stage.report.need("ftruncate", stage.file.resize(3 * PAGE));
            (0..64).for_each(|word| arena.store(word * 8, 0));
            line = format!("{line} {place}={}", number(call(stage, *ptr)));
            stage.report.need("ftruncate", stage.file.resize(4 * PAGE));
        }
        lines.add(format_args!("{name}:{line}"));
    }
}

/// Leaves out what is no error, and what may be done in part (see [`partial`]).
fn known(call: &str, place: &str) -> bool {
    let streams = ["write(file)", "read(file)", "write(pipe)", "read(pipe)", "getrandom"];
    match place {
        "border" => !streams.contains(&call) && !matches!(call, "futex wait" | "poll" | "getcwd"),
        // The last bytes of the stack lie there without ASLR: an empty string.
        "below top" => !matches!(call, "openat" | "execve" | "getcwd"),
        "memory" => !matches!(call, "pipe2" | "execve" | "openat"),
        "read-only" => !matches!(call, "openat" | "execve" | "nanosleep" | "poll" | "writev"),
        "null" => !matches!(call, "times" | "wait4") && !call.contains("new") || call == "newfstatat",
        _ => true,
    }
}

/// Transfers that end in the middle: what was possible is done and counted.
pub fn partial(stage: &mut Stage, lines: &mut Lines) {
    let border = stage.arena.page_addr(4);
    for before in [1, 8, 100] {
        for (name, call) in CALLS.iter().filter(|(name, _)| name.ends_with("(file)")) {
            stage.reset();
            let got = number(call(stage, border - before));
            lines.add(format_args!("{name}, {before} of 64 bytes possible -> {got}"));
        }
    }
    stage.reset();
    let got = number(raw(libc::SYS_getrandom, [border - 8, 16, 0, 0, 0, 0]));
    lines.add(format_args!("getrandom, 8 of 16 bytes possible -> {got}"));
}
