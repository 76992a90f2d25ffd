//! `views`: what /proc says about memory, and what it lets one do to it.
//!
//! Rows: AC-01, AC-02, AC-04, GU-02, GU-06, FK-03. Every program must pass on Linux; what only holds where nobody else
//! runs, or where the kernel has soft-dirty bits, is checked with `--strict yes`.
//! Absent on purpose: swap, huge pages.

mod debugger;
mod family;
mod look;
mod own;
mod soft;

use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::probe;
use faultless_guest::report::Report;

/// What all scenes share.
struct Views {
    report: Report,
    /// Two ranges of `PAGES` pages each.
    arenas: [Arena; 2],
    strict: bool,
}

/// Pages of an arena: more than a table, so that forks share some and copy others.
const PAGES: usize = 700;

type Scene = (&'static str, fn(&Views));

const SCENES: &[Scene] = &[
    ("pages", own::pages),
    ("rollup", own::rollup),
    ("holes", own::holes),
    ("shared", own::shared),
    ("lazy", own::lazy),
    ("marks", own::marks),
    ("machine", own::machine),
    ("family", family::family),
    ("tree", family::tree),
    ("debugger", debugger::debugger),
    ("other", debugger::other),
    ("soft", soft::soft),
    ("inherit", soft::inherit),
    ("referenced", soft::referenced),
];

fn main() {
    let args = Args::parse(
        "views",
        "what /proc says about memory",
        &[
            opt("strict", "no", "yes: nobody else runs, and the kernel has soft-dirty bits"),
            opt("rounds", "2", "rounds of all scenes"),
            opt("only", "all", "scenes, for example pages,family"),
        ],
    );
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let arenas = [44, 45].map(|slot| Arena::new(slot, PAGES));
    let views = Views { report: Report::new(&args), arenas, strict: args.text("strict") == "yes" };
    probe::catch();
    for _ in 0..args.count("rounds") {
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            scene(&views);
            for arena in views.arenas {
                views.report.need("munmap", arena.unmap(0, PAGES));
            }
            views.report.say(name);
        }
    }
    views.report.finish();
}

impl Views {
    /// Maps private memory over the first arena and stores to every `step`-th page.
    fn written(&self, step: usize) -> (Arena, u64) {
        let arena = self.arenas[0];
        self.report.need("mmap", arena.map(0, PAGES, faultless_guest::sys::RW));
        let pages: Vec<usize> = (0..PAGES).step_by(step).collect();
        pages.iter().for_each(|page| arena.store(page * 4096, 1 + *page as u64));
        (arena, pages.len() as u64)
    }
}
