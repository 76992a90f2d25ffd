//! What a program can make the kernel remember, and what the kernel says when it is too much.
//!
//! Called by `main`; each part runs in a child, which keeps what it changes to itself.

use std::ffi::CString;

use faultless_guest::child;
use faultless_guest::probe::set_handler;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, ANON, End, Errno, NONE, PAGE, RW};

fn in_child(report: &Report, body: impl FnOnce() -> i32) {
    report.same("end of a child", child::run(body), End::Exit(0));
}

extern "C" fn nothing(_signal: i32) {}

/// A handled signal comes while the parent waits in `vfork`: it must wait as well.
pub fn interrupt_vfork(report: &Report, rounds: usize) {
    let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as usize;
    let note = child::Note::new();
    set_handler(libc::SIGUSR1, nothing as *const () as usize, 0);
    let parent = sys::getpid();
    for round in 1..=rounds as u64 {
        // SAFETY: memory is not shared, so this is a fork whose parent waits.
        let pid = report.need("clone", unsafe { sys::call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) });
        if pid == 0 {
            let sent = sys::kill(parent, libc::SIGUSR1).is_ok();
            // Time in which a parent that does not wait would show.
            let _ = sys::sleep_micros(2000);
            note.set(0, round);
            sys::exit(i32::from(!sent));
        }
        report.same("what the child did before vfork returned", note.get(0), round);
        report.same("end of the child", sys::wait(pid as i32), Ok((pid as i32, End::Exit(0))));
    }
}

/// `sigqueue` of a signal that is blocked, until there is no room; then `kill`, which needs none.
pub fn queue_signals(report: &Report, _rounds: usize) {
    const LIMIT: u64 = 64;
    in_child(report, || {
        let all = u64::MAX;
        let at = &raw const all as usize;
        // SAFETY: it reads eight bytes, which are there.
        report.need("mask", unsafe { sys::call(libc::SYS_rt_sigprocmask, [0, at, 0, 8, 0, 0]) });
        let limits = [LIMIT, LIMIT];
        let place = limits.as_ptr() as usize;
        // SAFETY: it reads two words, which are there.
        let set = unsafe { sys::call(libc::SYS_setrlimit, [libc::RLIMIT_SIGPENDING as usize, place, 0, 0, 0, 0]) };
        report.need("setrlimit", set);
        // si_signo, si_errno, si_code = SI_QUEUE; pid and uid; value.
        let mut info = [0_i32; 32];
        info[2] = -1;
        let (me, to) = (sys::getpid() as usize, info.as_ptr() as usize);
        // SAFETY: the kernel reads a siginfo, which is there.
        let send = || unsafe { sys::call(libc::SYS_rt_sigqueueinfo, [me, 40, to, 0, 0, 0]) };
        let sent = (0..=LIMIT).map(|_| send()).take_while(Result::is_ok).count() as u64;
        // Others of this user may have some as well.
        report.check(sent <= LIMIT, || format!("{sent} signals queued with a limit of {LIMIT}"));
        report.same("one too many", send(), Err(Errno(libc::EAGAIN)));
        report.same("kill needs no room", sys::kill(me as i32, 41), Ok(0));
        0
    });
}

/// Several processes execute a program with as many strings as are allowed, and with too many.
pub fn pass_strings(report: &Report, _rounds: usize) {
    let path = CString::new("/proc/self/exe").expect("no zero in it");
    let words = ["family", "--help"].map(|word| CString::new(word).expect("no zero in it"));
    let args: Vec<usize> = words.iter().map(|word| word.as_ptr() as usize).chain([0]).collect();
    let short = CString::new("x").expect("no zero in it");
    let long = CString::new("y".repeat(100_000)).expect("no zero in it");
    let env = |text: &CString, count: usize| -> Vec<usize> {
        core::iter::repeat_n(text.as_ptr() as usize, count).chain([0]).collect()
    };
    let execute = |env: &[usize]| {
        let list = [path.as_ptr() as usize, args.as_ptr() as usize, env.as_ptr() as usize, 0, 0, 0];
        // SAFETY: all of it is terminated and outlives the call.
        unsafe { sys::call(libc::SYS_execve, list) }
    };
    let most = env(&short, 200_000);
    let children: Vec<i32> = (0..6)
        .map(|_| {
            child::spawn(|| {
                sys::close(1);
                i32::from(execute(&most).is_err())
            })
        })
        .collect();
    for pid in children {
        let (_, end) = report.need("wait", sys::wait(pid));
        report.same("a program with many strings", end, End::Exit(0));
    }
    let too_many = Err(Errno(libc::E2BIG));
    report.same("short strings", execute(&env(&short, 250_000)), too_many);
    report.same("long strings", execute(&env(&long, 100)), too_many);
}

/// Many areas, one check of a range among them, and all of them as text.
pub fn make_areas(report: &Report, _rounds: usize) {
    const PAGES: usize = 30_000;
    in_child(report, || {
        // SAFETY: no address is asked for, so nothing is replaced.
        let at = report.need("mmap", unsafe { sys::mmap(0, PAGES * PAGE, NONE, ANON, -1, 0) });
        for page in (0..PAGES).step_by(2) {
            // SAFETY: nobody uses these pages.
            report.need("mprotect", unsafe { sys::mprotect(at + page * PAGE, PAGE, RW) });
        }
        for call in [libc::SYS_madvise, libc::SYS_msync] {
            let advice = if call == libc::SYS_msync { libc::MS_SYNC } else { libc::MADV_NORMAL };
            // SAFETY: neither changes what is in the pages.
            let done = unsafe { sys::call(call, [at + 3 * PAGE, 9 * PAGE, advice as usize, 0, 0, 0]) };
            report.same("a call on some of many areas", done, Ok(0));
        }
        let lines = std::fs::read("/proc/self/maps").expect("maps").iter().filter(|&&b| b == b'\n').count();
        report.check(lines >= PAGES, || format!("{lines} lines for {PAGES} areas"));
        0
    });
}

/// A working directory whose path is too long to be told.
pub fn go_deep(report: &Report, _rounds: usize) {
    const LEVELS: usize = 30;
    in_child(report, || {
        let name = format!("{}-{}", "deep".repeat(40), sys::getpid());
        let enter = |to: &str| std::env::set_current_dir(to).is_ok();
        let mut right = enter("/tmp");
        for _ in 0..LEVELS {
            right &= std::fs::create_dir(&name).is_ok() && enter(&name);
        }
        report.check(right, || "directories cannot be made".into());
        let error = std::fs::read_link("/proc/self/cwd").err().and_then(|e| e.raw_os_error());
        for _ in 0..LEVELS {
            right &= enter("..") && std::fs::remove_dir(&name).is_ok();
        }
        report.check(right, || "directories cannot be removed".into());
        report.same("path of a deep directory", error, Some(libc::ENAMETOOLONG));
        0
    });
}
