//! Copy-on-write never shows two truths for one address (CW-04).
//!
//! A child keeps the pages shared. `turn`: thread 0 writes through a new copy and raises a
//! flag; who had the old page in its TLB and sees the flag must see the new data.
//! `turn_reuse`: after the copy the child owns the old frame alone and writes to it in
//! place; no thread of the parent may ever see that. Rows: CW-01, CW-04, CW-05, TB-04.

use crate::{Hunt, Tally};
use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::child::Note;
use faultless_guest::crew::{Gate, pause, pinned_crew};
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, ANON, End, PAGE, RW, SHARED_ANON};
use std::time::Instant;

/// What pages hold before and after thread 0 wrote, and what the child writes.
const OLD: u64 = 0x0101_0101;
const NEW: u64 = 0x0202_0202;
const CHILD: u64 = 0x0303_0303;

/// Word of the note: pages the parent is done with. Only grows.
const WRITTEN: usize = 0;
/// Word of the note: pages the child has written to.
const ANSWERED: usize = 1;

/// A litmus: what everybody shares.
struct Litmus<'h> {
    hunt: &'h Hunt,
    tally: &'h Tally,
    arena: Arena,
    note: &'h Note,
    gate: Gate,
    /// Number of the page that holds new data, plus one. (A)
    flag: AtomicU64,
    /// The child writes too.
    child_writes: bool,
}

/// One turn of the flag litmus.
pub fn turn(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    rounds(hunt, tally, turn, end, false);
}

/// One turn of the litmus about reuse.
pub fn turn_reuse(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    rounds(hunt, tally, turn, end, true);
}

fn rounds(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant, child_writes: bool) {
    let arena = Arena::new(13, hunt.pages);
    let note = note();
    let mut round = 0;
    while round == 0 || Instant::now() < end {
        // The mutant of the second litmus shares what should be private.
        let shared = hunt.mutate && child_writes;
        let flags = if shared { SHARED_ANON } else { ANON };
        hunt.report.need("mmap", arena.map_as(0, hunt.pages, RW, flags, -1, 0));
        (0..hunt.pages * 2).for_each(|half| arena.store(half * PAGE / 2, OLD));
        note.set(WRITTEN, 0);
        note.set(ANSWERED, 0);
        let flag = AtomicU64::new(0);
        let gate = Gate::new(hunt.threads);
        let litmus = Litmus { hunt, tally, arena, note, gate, flag, child_writes };
        litmus.round(hunt.seed(4, turn << 20 | round));
        hunt.report.need("munmap", arena.unmap(0, hunt.pages));
        round += 1;
    }
}

/// One page for all rounds of the process. It is never given back.
fn note() -> &'static Note {
    static NOTE: std::sync::OnceLock<Note> = std::sync::OnceLock::new();
    NOTE.get_or_init(Note::new)
}

impl Litmus<'_> {
    fn round(&self, seed: u64) {
        // SAFETY: the child only loads, stores, yields and exits.
        let pid = self.hunt.report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            sys::exit(self.child());
        }
        pinned_crew(self.hunt.threads, |thread| {
            let mut rng = Rng::lane(seed, thread as u64);
            for page in 0..self.hunt.pages {
                self.gate.wait();
                if thread == 0 {
                    self.write(page, &mut rng);
                } else {
                    self.read(page);
                }
            }
        });
        self.note.set(WRITTEN, u64::MAX);
        let (_, end) = self.hunt.report.need("wait", sys::wait(pid as i32));
        if end != End::Exit(0) {
            self.hunt.violation(self.tally, || format!("child ended by {end:?}"));
        }
        Tally::add(&self.tally.calls, self.hunt.pages as u64);
    }

    /// Thread 0: lets the others load the old page for a while, then writes.
    fn write(&self, page: usize, rng: &mut Rng) {
        let mut turns = 0;
        (0..rng.below(300)).for_each(|_| pause(&mut turns));
        let raise = || self.flag.store(page as u64 + 1, Ordering::SeqCst);
        if self.hunt.mutate && !self.child_writes {
            raise();
            (0..200).for_each(|_| pause(&mut turns));
        }
        self.arena.store(page * PAGE, NEW);
        // Pairs with the load in `read`: who sees the flag must see the word.
        raise();
        self.note.set(WRITTEN, page as u64 + 1);
        if self.child_writes {
            // Ends when the child has answered. One killed by a signal leaves this to whoever
            // limits the time of the whole program.
            while self.note.get(ANSWERED) <= page as u64 {
                pause(&mut turns);
            }
        }
    }

    /// Loads the page until the flag is up (and the child has written, if it does).
    fn read(&self, page: usize) {
        let done = page as u64 + 1;
        let mut loads = 0;
        loop {
            // Both before the load of the data; `flag` pairs with `write`.
            let last = !self.child_writes || self.note.get(ANSWERED) >= done;
            let raised = self.flag.load(Ordering::SeqCst) >= done;
            let got = self.arena.load(page * PAGE);
            let other = self.arena.load(page * PAGE + PAGE / 2);
            loads += 1;
            let right = got == NEW || (got == OLD && !raised);
            if !right || other != OLD {
                let what = "mixed view of a page";
                self.hunt.violation(self.tally, || format!("{what} {page}: {got:#x} and {other:#x}, flag {raised}"));
                break;
            }
            if raised && last {
                break;
            }
            if loads % 256 == 0 {
                sys::sched_yield();
            }
        }
        Tally::add(&self.tally.accesses, loads);
    }

    /// The child keeps its old pages; in the second litmus it also writes to them.
    fn child(&self) -> i32 {
        for page in 0..self.hunt.pages {
            self.note.wait(WRITTEN, page as u64 + 1);
            let kept = self.arena.load(page * PAGE) == OLD;
            if self.child_writes {
                self.arena.store(page * PAGE, CHILD);
                self.arena.store(page * PAGE + PAGE / 2, CHILD);
                self.note.set(ANSWERED, page as u64 + 1);
            }
            if !kept {
                self.note.set(ANSWERED, u64::MAX);
                return 1;
            }
        }
        0
    }
}
