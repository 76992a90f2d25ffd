//! Rights as all threads see them: what a call took away is gone for everybody when it
//! returned, and what it did not touch never fails.
//!
//! Rows: TB-04, VM-04, VM-05, VM-06, F-09, F-10.

use crate::Storm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use faultless_guest::arena::{Arena, word};
use faultless_guest::crew::{Gate, crew};
use faultless_guest::object::Object;
use faultless_guest::probe::{Probe, Trap, accerr, maperr};
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{NONE, PAGE, RO, RW};

/// What thread 0 does to the range before all threads try it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Protect(i32),
    Unmap,
    Map(i32),
}

const STEPS: &[Step] = &[
    Step::Protect(RO),
    Step::Protect(RW),
    Step::Unmap,
    Step::Map(RW),
    Step::Protect(NONE),
    Step::Protect(RO),
    Step::Unmap,
    Step::Map(RO),
    Step::Protect(RW),
    Step::Map(RW),
];

/// In step: one thread changes a range, then all threads load and store at random bytes
/// of it and must get exactly what the state demands, with the exact address.
pub fn rights(storm: &Storm) {
    let arena = Arena::new(3, storm.pages);
    storm.report.need("mmap", arena.map(0, storm.pages, RW));
    let gate = Gate::new(storm.threads);
    let range = [const { AtomicUsize::new(0) }; 2];
    crew(storm.threads, |thread| {
        let mut rng = Rng::lane(storm.seed(4, 0), thread as u64);
        for round in 0..storm.rounds {
            let mut leader = Rng::lane(storm.seed(4, round), 99);
            for step in STEPS {
                let (first, count) = leader.range(storm.pages, 32);
                if thread == 0 {
                    set(storm, arena, Step::Map(RW), 0, storm.pages);
                    set(storm, arena, *step, first, count);
                    // The gate orders these for the others.
                    range[0].store(first, Ordering::Relaxed);
                    range[1].store(count, Ordering::Relaxed);
                }
                gate.wait();
                let first = range[0].load(Ordering::Relaxed);
                let count = range[1].load(Ordering::Relaxed);
                for _ in 0..8 {
                    let page = first + rng.below(count);
                    try_page(storm, arena, *step, page * PAGE + rng.below(PAGE - 7));
                }
                gate.wait();
            }
        }
    });
    storm.report.need("munmap", arena.unmap(0, storm.pages));
}

fn set(storm: &Storm, arena: Arena, step: Step, first: usize, count: usize) {
    let done = match step {
        Step::Protect(prot) => arena.protect(first, count, prot),
        Step::Unmap => arena.unmap(first, count),
        Step::Map(prot) => arena.map(first, count, prot),
    };
    storm.report.need("change of rights", done);
}

fn try_page(storm: &Storm, arena: Arena, step: Step, offset: usize) {
    let addr = arena.addr(offset);
    let (load, store) = match step {
        Step::Unmap => (Some(maperr(addr)), Some(maperr(addr))),
        Step::Protect(NONE) | Step::Map(NONE) => (Some(accerr(addr)), Some(accerr(addr))),
        Step::Protect(RO) | Step::Map(RO) => (None, Some(accerr(addr))),
        Step::Protect(_) | Step::Map(_) => (None, None),
    };
    let loaded = arena.try_load(offset).map(|_| ());
    expect(storm, step, "load", loaded, load);
    expect(storm, step, "store", arena.try_store(offset, 0x5a5a), store);
}

fn expect(storm: &Storm, step: Step, what: &str, got: Probe<()>, want: Option<Trap>) {
    let right = got.err() == want;
    storm.report.check(right, || format!("{what} after {step:?}: got {got:?}, want {want:?}"));
}

/// Every third page is always mapped and used by all threads, while thread 0 protects,
/// unmaps and maps the pages between, so that areas split and merge around it.
pub fn neighbours(storm: &Storm) {
    let arena = Arena::new(4, storm.pages / 3 * 3);
    storm.report.need("mmap", arena.map(0, arena.pages(), RW));
    let end = AtomicU64::new(0);
    let gate = Gate::new(storm.threads);
    crew(storm.threads, |thread| {
        gate.wait();
        if thread == 0 {
            toggle(storm, arena);
            // Only ends the loops below.
            end.store(1, Ordering::Relaxed);
            return;
        }
        let mut rng = Rng::lane(storm.seed(5, 0), thread as u64);
        let mut written = [0_u64; 1024];
        while end.load(Ordering::Relaxed) == 0 {
            let stable = rng.below(arena.pages() / 3).min(written.len() - 1);
            let offset = (stable * 3 + 1) * PAGE + thread % 512 * 8;
            let got = arena.try_load(offset);
            storm.report.same("word of an always mapped page", got, Ok(written[stable]));
            written[stable] = rng.next();
            let stored = arena.try_store(offset, written[stable]);
            storm.report.same("store to an always mapped page", stored, Ok(()));
        }
    });
    storm.report.need("munmap", arena.unmap(0, arena.pages()));
}

fn toggle(storm: &Storm, arena: Arena) {
    let mut rng = Rng::new(storm.seed(5, 1));
    for _ in 0..storm.rounds * 512 {
        let group = rng.below(arena.pages() / 3) * 3;
        let page = group + if rng.chance(1, 2) { 0 } else { 2 };
        let step = *rng.pick(&[
            Step::Protect(RO),
            Step::Protect(RW),
            Step::Protect(NONE),
            Step::Unmap,
            Step::Map(RW),
            Step::Map(RO),
        ]);
        let done = match step {
            Step::Protect(prot) => arena.protect(page, 1, prot).or(Ok(0)), // may be a hole
            Step::Unmap => arena.unmap(page, 1),
            Step::Map(prot) => arena.map(page, 1, prot),
        };
        storm.report.need("toggle", done);
    }
    storm.report.passed(storm.rounds * 512);
}

/// Thread 0 replaces a range by MAP_FIXED, in turn with two files and zeroed memory. The
/// others load all the time: each word is that of the old or of the new mapping, and never
/// a signal; between two replacements it is exactly that of the current one.
pub fn replace(storm: &Storm) {
    let pages = storm.pages.min(32);
    let arena = Arena::new(5, pages);
    let files = [0, 1].map(|number| {
        let object = storm.report.need("object", Object::new(pages * PAGE));
        (0..pages).for_each(|page| {
            storm.report.need("pwrite", object.fill(page, file_key(storm, number, page)));
        });
        object
    });
    storm.report.need("mmap", arena.map(0, pages, RW));
    // Even: mapping `turn / 2` stands. Odd: it is about to be replaced.
    let turn = AtomicU64::new(0);
    let last = storm.rounds as u64 * 64;
    let gate = Gate::new(storm.threads);
    crew(storm.threads, |thread| {
        gate.wait();
        if thread == 0 {
            for number in 1..=last {
                // Pairs with the loads in `watch`, as does the next one.
                turn.store(number * 2 - 1, Ordering::SeqCst);
                put(storm, arena, &files, number);
                turn.store(number * 2, Ordering::SeqCst);
            }
            return;
        }
        let mut rng = Rng::lane(storm.seed(6, 0), thread as u64);
        while watch(storm, arena, &turn, &mut rng) < last * 2 {}
    });
    storm.report.need("munmap", arena.unmap(0, pages));
}

/// Mapping `number` is zeroed memory, file 0 or file 1.
fn put(storm: &Storm, arena: Arena, files: &[Object; 2], number: u64) {
    let pages = arena.pages();
    let done = match number % 3 {
        0 => arena.map(0, pages, RW),
        which => arena.map_as(0, pages, RO, libc::MAP_SHARED, files[which as usize - 1].fd, 0),
    };
    storm.report.need("MAP_FIXED", done);
}

fn watch(storm: &Storm, arena: Arena, turn: &AtomicU64, rng: &mut Rng) -> u64 {
    let (page, index) = (rng.below(arena.pages()), rng.below(PAGE / 8));
    // Both loads pair with the stores in `replace`: the load between them falls into what
    // they say.
    let before = turn.load(Ordering::SeqCst);
    let got = arena.try_load(page * PAGE + index * 8);
    let after = turn.load(Ordering::SeqCst);
    let allowed = (before / 2..=after.div_ceil(2)).take(3);
    let mut values = allowed.map(|number| content(storm, number, page, index));
    let right = got.is_ok_and(|got| values.any(|value| value == got));
    storm.report.check(right, || format!("replace, page {page}, word {index}, turns {before}..{after}: got {got:x?}"));
    after
}

fn content(storm: &Storm, number: u64, page: usize, index: usize) -> u64 {
    match number % 3 {
        0 => 0,
        which => word(file_key(storm, which as usize - 1, page), index),
    }
}

fn file_key(storm: &Storm, number: usize, page: usize) -> u64 {
    mix(storm.seed(6, number + 1) ^ page as u64) | 1
}
