//! `sigs`: signals that memory causes, and signals around memory.
//!
//! Each part says exactly which signal, code, address and order it wants; what kills a
//! process is tried in a child. Rows: VM-04, VM-08, F-11, F-14, FL-01, TR-01, TB-04.
//! Absent on purpose: every bad address and offset (`badargs`), threads (`storm`).

mod bus;
mod handlers;
mod interrupt;
mod registers;
mod stack;

use faultless_guest::args::{Args, opt};
use faultless_guest::child::Note;
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::sys;

/// What all parts share.
struct Sigs {
    report: Report,
    note: Note,
}

type Part = (&'static str, fn(&Sigs));

const PARTS: &[Part] = &[
    ("bus", bus::behind_the_file),
    ("truncate", bus::truncate),
    ("stack", stack::growth),
    ("gap", stack::gap),
    ("overflow", stack::overflow),
    ("nothing", stack::nothing_left),
    ("barrier", handlers::barrier),
    ("nested", handlers::nested),
    ("deadly", handlers::deadly),
    ("masks", handlers::masks),
    ("registers", registers::registers),
    ("interrupt", interrupt::interrupt),
    ("restart", interrupt::restart),
    ("children", interrupt::children),
];

fn main() {
    let args = Args::parse(
        "sigs",
        "signals that memory causes, with exact code and address, and signals around it",
        &[
            opt("rounds", "2", "rounds of all parts"),
            opt(
                "only",
                "all",
                "parts: bus,truncate,stack,gap,overflow,nothing,barrier,nested,deadly,\
                 masks,registers,interrupt,restart,children",
            ),
        ],
    );
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let sigs = Sigs { report: Report::new(&args), note: Note::new() };
    for round in 0..args.count("rounds") {
        for (name, part) in PARTS.iter().filter(|(name, _)| args.wants(name)) {
            probe::catch();
            (0..64).for_each(|index| sigs.note.set(index, 0));
            part(&sigs);
            sigs.report.fold(faultless_guest::rng::mix(round as u64 ^ name.len() as u64));
            sigs.report.say(format_args!("{name} done"));
        }
    }
    sigs.report.finish();
}

/// Installs `handler` for `signal`, with `blocked` blocked while it runs.
fn on(signal: i32, handler: usize, flags: i32, blocked: &[i32]) {
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    for signal in blocked {
        // SAFETY: the mask is valid.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, *signal) };
    }
    // SAFETY: `action` is valid, and the handlers of this program are signal safe.
    let done = unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) };
    assert_eq!(done, 0, "sigaction");
}

/// Blocks or unblocks `signal` in this thread.
fn block(signal: i32, how: i32) {
    let mask = 1_u64 << (signal - 1);
    let args = [how as usize, &raw const mask as usize, 0, 8, 0, 0];
    // SAFETY: `mask` is a valid signal set.
    let done = unsafe { sys::call(libc::SYS_rt_sigprocmask, args) };
    assert_eq!(done, Ok(0), "sigprocmask");
}
