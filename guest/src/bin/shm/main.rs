//! `shm`: memory shared between mappings, processes and file calls, and what must not be.
//!
//! Rows: FK-01, FK-02, FK-03, CW-01, CW-05, FL-01, F-14, VM-11, TR-01 (growth only).
//! Absent on purpose: truncation (`sigs`), threads (`storm`).

mod random;
mod scenes;

use core::cell::Cell;
use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::object::Object;
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, PAGE, RW};

/// What all scenes share.
struct Shm {
    report: Report,
    /// Number of the round, for the random scene.
    round: Cell<u64>,
    /// Three mappings of `pages` pages each.
    views: [Arena; 3],
    pages: usize,
    ops: usize,
    children: usize,
}

type Scene = (&'static str, fn(&Shm, &Object));

const SCENES: &[Scene] = &[
    ("views", scenes::views),
    ("calls", scenes::calls),
    ("private", scenes::private),
    ("inherit", scenes::inherit),
    ("count", scenes::count),
    ("persist", scenes::persist),
    ("self", scenes::own_file),
    ("futex", scenes::futex),
    ("grow", scenes::grow),
    ("random", random::random),
];

fn main() {
    let args = Args::parse(
        "shm",
        "memory shared between mappings, processes and file calls",
        &[
            opt("pages", "24", "pages of the file"),
            opt("ops", "600", "operations of the random scene"),
            opt("children", "4", "processes that share"),
            opt("rounds", "3", "rounds of all scenes"),
            opt(
                "only",
                "all",
                "scenes: views,calls,private,inherit,count,persist,self,futex,\
                 grow,random",
            ),
        ],
    );
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let pages = args.count("pages").clamp(4, 4096);
    let shm = Shm {
        report: Report::new(&args),
        round: Cell::new(0),
        views: [40, 41, 42].map(|slot| Arena::new(slot, pages)),
        pages,
        ops: args.count("ops"),
        children: args.count("children").clamp(1, 64),
    };
    probe::catch();
    for round in 0..args.count("rounds") {
        shm.round.set(round as u64);
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            // In turn a memfd and a file with a name, as far as the kernel has both.
            let object = if round % 2 == 0 {
                shm.report.need("object", Object::new(pages * PAGE))
            } else {
                let object = shm.report.need("file in /tmp", Object::in_tmp());
                shm.report.need("ftruncate", object.resize(pages * PAGE));
                object
            };
            scene(&shm, &object);
            for view in shm.views {
                shm.report.need("munmap", view.unmap(0, pages));
            }
            shm.report.say(format_args!("{name} on a {}", object.kind));
        }
    }
    shm.report.finish();
}

impl Shm {
    /// Maps all of `object` as view `view`, shared or private.
    fn map(&self, view: usize, object: &Object, flags: i32) -> Arena {
        let arena = self.views[view];
        self.report.need("mmap", arena.map_as(0, self.pages, RW, flags, object.fd, 0));
        arena
    }

    /// Page `page` of `arena` must hold the pattern of `key`.
    fn verify(&self, what: &str, arena: Arena, page: usize, key: u64) {
        if let Err(wrong) = arena.verify(page, key) {
            self.report.fail(format_args!("{what}, page {page}: {wrong:?}"));
        }
        self.report.passed(PAGE);
        self.report.fold(key ^ page as u64);
    }

    /// Page `page` of `object`, read with `pread`, must hold the pattern of `key`.
    fn verify_file(&self, what: &str, object: &Object, page: usize, key: u64) {
        let mut bytes = [0; PAGE];
        let read = object.read(page * PAGE, &mut bytes);
        self.report.same("pread", read, Ok(PAGE));
        let right = bytes == faultless_guest::object::bytes(key);
        self.report.check(right, || format!("{what}, page {page}: pread got other bytes"));
        self.report.fold(key ^ (page as u64) << 20);
    }

    /// Runs `body` in `self.children` processes at once and waits for them in reverse order.
    fn family(&self, body: impl Fn(usize) -> i32) {
        let pids: Vec<i32> = (0..self.children).map(|number| faultless_guest::child::spawn(|| body(number))).collect();
        for pid in pids.into_iter().rev() {
            let end = self.report.need("wait", sys::wait(pid));
            self.report.same("child", end, (pid, sys::End::Exit(0)));
        }
    }
}
