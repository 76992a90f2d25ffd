//! `storm`: threads touch, map, unmap, protect and fork at once; every byte is checked.
//!
//! Each phase has its own file and its own arena. A phase either knows every byte in
//! advance, or checks a property that holds in each order of events. Not here: accesses
//! after munmap or mprotect returned while other CPUs hold old translations (`stale`).

mod churn;
mod forking;
mod rights;
mod touch;

use faultless_guest::args::{Args, opt};
use faultless_guest::probe;
use faultless_guest::report::Report;

/// Size and account of a run.
struct Storm {
    report: Report,
    threads: usize,
    pages: usize,
    rounds: usize,
}

impl Storm {
    /// Seed of round `round` of phase `phase`.
    fn seed(&self, phase: u64, round: usize) -> u64 {
        faultless_guest::rng::mix(self.report.seed() ^ (phase << 32 | round as u64))
    }
}

/// Name and body of a phase.
type Phase = (&'static str, fn(&Storm));

const PHASES: &[Phase] = &[
    ("disjoint", touch::disjoint),
    ("same", touch::same),
    ("churn", churn::churn),
    ("rights", rights::rights),
    ("neighbours", rights::neighbours),
    ("replace", rights::replace),
    ("fork", forking::fork),
];

fn main() {
    let args = Args::parse(
        "storm",
        "threads fault, map, unmap, protect and fork at once; every byte is checked",
        &[
            opt("threads", "4", "number of threads"),
            opt("pages", "128", "pages per phase (per thread in churn)"),
            opt("rounds", "8", "rounds of each phase"),
            opt("only", "all", "phases: disjoint,same,churn,rights,neighbours,replace,fork"),
        ],
    );
    let names: Vec<&str> = PHASES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let storm = Storm {
        threads: args.count("threads").max(2),
        pages: args.count("pages").max(16),
        rounds: args.count("rounds"),
        report: Report::new(&args),
    };
    probe::catch();
    for (name, phase) in PHASES.iter().filter(|(name, _)| args.wants(name)) {
        phase(&storm);
        storm.report.say(format_args!("{name}: {} rounds done", storm.rounds));
    }
    storm.report.finish();
}
