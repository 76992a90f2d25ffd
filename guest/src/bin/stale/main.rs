//! `stale`: hunts stores and loads through translations that should be gone.
//!
//! One thread takes rights or memory away, all others hammer on it. After the call
//! returned, nothing may change any more and nothing old may be read. Each hunt runs in
//! short turns until `--seconds` are over; the number of violations must be 0.
//! `--mutate skip` leaves the revoking call out, which each hunt must notice: a test of
//! the test. Not here: contents in general (`storm`).

mod board;
mod cow;
mod fresh;
mod recycle;
mod revoke;
mod snapshot;

use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::args::{Args, opt};
use faultless_guest::crew::cpus;
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::rng::mix;
use std::time::{Duration, Instant};

/// What all hunts share.
struct Hunt {
    report: Report,
    /// Thread 0 revokes, the others hammer.
    threads: usize,
    pages: usize,
    /// How often thread 0 looks again after a call returned.
    settle: usize,
    /// Leaves the revoking call out.
    mutate: bool,
    turn: Duration,
}

/// Totals of one hunt. (A) atomic alone.
#[derive(Default)]
struct Tally {
    calls: AtomicU64,      // (A) revocations judged
    accesses: AtomicU64,   // (A) loads or stores of the hammering threads
    faults: AtomicU64,     // (A) signals they met
    violations: AtomicU64, // (A)
}

impl Tally {
    fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }
}

impl Hunt {
    /// Seed of part `part` in turn `turn`.
    fn seed(&self, part: u64, turn: u64) -> u64 {
        mix(self.report.seed() ^ (part << 40) ^ turn)
    }

    /// Counts a violation and says where, the first few times.
    fn violation(&self, tally: &Tally, what: impl FnOnce() -> String) {
        if tally.violations.fetch_add(1, Ordering::Relaxed) < 5 {
            self.report.say(format_args!("VIOLATION {}", what()));
        }
    }
}

/// Name and body; a body gets the number of its turn and when to end.
type Kind = (&'static str, fn(&Hunt, &Tally, u64, Instant));

const KINDS: &[Kind] = &[
    ("revoke", revoke::turn),
    ("recycle", recycle::turn),
    ("fresh", fresh::turn),
    ("cow", cow::turn),
    ("reuse", cow::turn_reuse),
    ("fork", snapshot::turn),
];

fn main() {
    let args = Args::parse(
        "stale",
        "hunts stores and loads through stale translations; violations must be 0",
        &[
            opt("seconds", "6", "how long to hunt, all kinds together"),
            opt("threads", "0", "threads; 0 is one per CPU, at least 2"),
            opt("pages", "16", "pages that change hands"),
            opt("settle", "40", "looks at the memory after each call"),
            opt("turn", "250", "milliseconds per turn of one kind"),
            opt("only", "all", "kinds: revoke,recycle,fresh,cow,reuse,fork"),
            opt("mutate", "none", "skip: leave the call out, to see that it is noticed"),
        ],
    );
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let threads = args.count("threads");
    let hunt = Hunt {
        threads: if threads == 0 { cpus().clamp(2, 64) } else { threads.clamp(2, 64) },
        pages: args.count("pages").clamp(2, 512),
        settle: args.count("settle"),
        mutate: args.text("mutate") == "skip",
        turn: Duration::from_millis(args.number("turn")),
        report: Report::new(&args),
    };
    probe::catch();
    hunt.run(&args);
}

impl Hunt {
    fn run(self, args: &Args) -> ! {
        let end = Instant::now() + Duration::from_secs(args.number("seconds"));
        let kinds: Vec<&Kind> = KINDS.iter().filter(|(name, _)| args.wants(name)).collect();
        let tallies: Vec<Tally> = kinds.iter().map(|_| Tally::default()).collect();
        let mut turn = 0;
        while turn == 0 || Instant::now() < end {
            for ((_, body), tally) in kinds.iter().zip(&tallies) {
                body(&self, tally, turn, Instant::now() + self.turn);
            }
            turn += 1;
        }
        let mut violations = 0;
        for ((name, _), tally) in kinds.iter().zip(&tallies) {
            violations += self.account(name, tally);
        }
        if violations > 0 {
            self.report.fail(format_args!("{violations} violations"));
        }
        self.report.finish();
    }

    fn account(&self, name: &str, tally: &Tally) -> u64 {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = read(&tally.calls);
        let violations = read(&tally.violations);
        self.report.passed(calls as usize);
        self.report.fold(mix(calls));
        self.report.say(format_args!(
            "{name}: {} threads, {calls} calls, {} accesses, {} faults, {violations} violations",
            self.threads,
            read(&tally.accesses),
            read(&tally.faults),
        ));
        // A hunt without prey would prove nothing.
        self.report.check(calls > 0, || format!("{name}: no call was judged"));
        violations
    }
}
