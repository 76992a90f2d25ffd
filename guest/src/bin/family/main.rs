//! `family`: processes that come and go while signals, ends and waits pass among them.
//!
//! What must hold however it falls out: a signal to a group reaches those being forked, nobody
//! outlives the first process, a child finds a parent or none, the last thread decides the exit code,
//! and what a program can make the kernel remember has a limit. Nothing depends on a duration: whoever
//! escapes is found because it does all that it was given to do.

mod legacy;
mod limits;
mod pidfd;

use core::sync::atomic::{AtomicU32, Ordering};

use faultless_guest::args::{Args, opt};
use faultless_guest::child::{self, Note};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, End, Errno};

/// Word of the note: forks made in a chain.
const FORKS: usize = 0;
/// What a chain would come to if nobody ended it.
const CHAIN: u64 = 5000;
/// After this many forks it is under way.
const UNDER_WAY: u64 = 20;

const PARTS: [&str; 11] =
    ["group", "sibling", "exit", "kind", "vfork", "queue", "strings", "areas", "deep", "pidfd", "handlers"];

fn main() {
    let args = Args::parse(
        "family",
        "processes that come and go while signals, ends and waits pass among them",
        &[
            opt("rounds", "10", "how often each race is run"),
            opt("fill", "0", "MiB that processes fill one after the other at the end"),
            opt("leave", "0", "chains of forks that are left behind at the end"),
            opt("only", "all", "parts: group,sibling,exit,kind,vfork,queue,strings,areas,deep,pidfd,handlers"),
        ],
    );
    args.known_parts(&PARTS);
    let report = Report::new(&args);
    let rounds = args.count("rounds");
    let parts: [fn(&Report, usize); 11] = [
        kill_groups,
        make_siblings,
        exit_at_once,
        wait_by_kind,
        limits::interrupt_vfork,
        limits::queue_signals,
        limits::pass_strings,
        limits::make_areas,
        limits::go_deep,
        pidfd::descriptors,
        pidfd::handlers,
    ];
    for (name, part) in PARTS.iter().zip(parts) {
        if args.wants(name) {
            part(&report, rounds);
        }
    }
    legacy::inherit_memory(&report, rounds, args.count("fill"));
    let note = Note::new();
    for _ in 0..args.count("leave") {
        child::spawn(|| {
            let end = chain(&note);
            if note.get(FORKS) >= CHAIN {
                report.fail("a chain of forks outlived the first process");
            }
            end
        });
    }
    if args.count("leave") > 0 {
        note.wait(FORKS, UNDER_WAY);
    }
    report.finish();
}

/// Forks, and the parent goes, again and again: there always is one, and it never is an old one.
fn chain(note: &Note) -> i32 {
    while note.add(FORKS, 1) < CHAIN {
        // SAFETY: this program has one thread here.
        match unsafe { sys::fork() } {
            Ok(0) => {}
            _ => return 0,
        }
    }
    0
}

fn set_group(pid: i32, group: i32) {
    // The child may have done it, and be gone already.
    // SAFETY: groups have nothing to do with memory.
    let _ = unsafe { sys::call(libc::SYS_setpgid, [pid as usize, group as usize, 0, 0, 0, 0]) };
}

/// SIGKILL to a group whose only member is always about to be replaced by its child.
fn kill_groups(report: &Report, rounds: usize) {
    for _ in 0..rounds {
        let note = Note::new();
        let leader = child::spawn(|| {
            set_group(0, 0);
            chain(&note)
        });
        set_group(leader, leader);
        note.wait(FORKS, UNDER_WAY);
        report.need("kill", sys::kill(-leader, libc::SIGKILL));
        report.need("wait", sys::wait(leader));
        // Ends: the chain has a bound even if it escapes.
        while sys::kill(-leader, 0).is_ok() {
            sys::sched_yield();
        }
        let forks = note.get(FORKS);
        report.check(forks < CHAIN, || "a child escaped the signal to its group".into());
    }
}

/// A parent ends while its child makes siblings of itself. If one of them is forgotten, it stays as a
/// zombie, and the machine does not end.
fn make_siblings(report: &Report, rounds: usize) {
    const FLAGS: usize = libc::CLONE_PARENT as usize | libc::SIGCHLD as usize;
    for round in 0..rounds * 10 {
        let end = child::run(|| {
            child::spawn(|| {
                for _ in 0..30 {
                    // SAFETY: a fork, in effect; the program has one thread.
                    if unsafe { sys::call(libc::SYS_clone, [FLAGS, 0, 0, 0, 0, 0]) } == Ok(0) {
                        sys::exit(0);
                    }
                }
                0
            });
            // However long that takes.
            let _ = sys::sleep_micros(round as u64 * 37 % 700);
            0
        });
        report.same("the parent's end", end, End::Exit(0));
    }
}

/// Both threads of a process call `exit` with the same code.
fn exit_at_once(report: &Report, rounds: usize) {
    static MET: AtomicU32 = AtomicU32::new(0);
    fn meet_and_exit() -> ! {
        // Relaxed: it is only about the moment.
        MET.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0_u32;
        while MET.load(Ordering::Relaxed) < 2 {
            // The closer together the better, but one CPU must do as well.
            spins += 1;
            if spins.is_multiple_of(1 << 14) {
                sys::sched_yield();
            }
        }
        loop {
            // SAFETY: the thread ends; its stack is used by nobody.
            let _ = unsafe { sys::call(libc::SYS_exit, [5, 0, 0, 0, 0, 0]) };
        }
    }
    for _ in 0..rounds * 20 {
        let end = child::run(|| {
            std::thread::spawn(|| meet_and_exit());
            meet_and_exit()
        });
        report.same("code of two threads that exit at once", end, End::Exit(5));
    }
}

fn wait_with(pid: i32, options: i32) -> sys::Result {
    // SAFETY: without a place for the status nothing is written.
    unsafe { sys::call(libc::SYS_wait4, [pid as usize, 0, options as usize, 0, 0, 0]) }
}

/// `waitpid` sees children by the signal that they send.
fn wait_by_kind(report: &Report, _rounds: usize) {
    let spawn = |signal: i32| {
        // SAFETY: a fork, in effect; the program has one thread.
        let pid = report.need("clone", unsafe { sys::call(libc::SYS_clone, [signal as usize, 0, 0, 0, 0, 0]) });
        if pid == 0 {
            sys::exit(0);
        }
        pid as i32
    };
    let none = Err(Errno(libc::ECHILD));
    for signal in [0, libc::SIGWINCH] {
        let odd = spawn(signal);
        report.same("wait for a clone child", wait_with(odd, 0), none);
        report.same("wait with __WCLONE", wait_with(odd, libc::__WCLONE), Ok(odd as usize));
    }
    let usual = spawn(libc::SIGCHLD);
    report.same("wait with __WCLONE for a usual child", wait_with(usual, libc::__WCLONE), none);
    report.same("wait with __WALL", wait_with(usual, libc::__WALL), Ok(usual as usize));
}
