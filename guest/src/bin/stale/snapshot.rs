//! Stores that reach a forked child after fork returned in the parent.
//!
//! fork takes the right to write from all threads of the parent; a thread that keeps it in
//! its TLB writes into the child's memory. Rows: FK-02, FK-06, TB-04, CW-01.

use crate::board::slot;
use crate::{Hunt, Tally};
use core::sync::atomic::{AtomicBool, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::child::Note;
use faultless_guest::crew::pinned_crew;
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, ANON, End, RW, SHARED_ANON};
use std::time::Instant;

/// One turn.
pub fn turn(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    let arena = Arena::new(14, hunt.pages);
    let flags = if hunt.mutate { SHARED_ANON } else { ANON };
    hunt.report.need("mmap", arena.map_as(0, hunt.pages, RW, flags, -1, 0));
    let over = AtomicBool::new(false);
    pinned_crew(hunt.threads, |thread| {
        if thread == 0 {
            let mut forks = 0;
            while forks == 0 || Instant::now() < end {
                fork_one(hunt, tally, arena);
                forks += 1;
            }
            Tally::add(&tally.calls, forks);
            // Only ends the loops of the others.
            over.store(true, Ordering::Relaxed);
        } else {
            let rng = Rng::lane(hunt.seed(6, turn), thread as u64);
            pound(hunt, tally, arena, thread, &over, rng);
        }
    });
    hunt.report.need("munmap", arena.unmap(0, hunt.pages));
}

fn fork_one(hunt: &Hunt, tally: &Tally, arena: Arena) {
    let note = note();
    note.set(0, 0);
    // SAFETY: the child only loads, yields and exits.
    let pid = hunt.report.need("fork", unsafe { sys::fork() });
    if pid == 0 {
        sys::exit(child(hunt, arena, note));
    }
    note.set(0, 1);
    let (_, end) = hunt.report.need("wait", sys::wait(pid as i32));
    if end != End::Exit(0) {
        let [offset, got, want] = [1, 2, 3].map(|index| note.get(index));
        let text = format!("offset {offset:#x}: {want} became {got} in the child ({end:?})");
        hunt.violation(tally, || text);
    }
}

/// One page for all forks of the process. It is never given back.
fn note() -> &'static Note {
    static NOTE: std::sync::OnceLock<Note> = std::sync::OnceLock::new();
    NOTE.get_or_init(Note::new)
}

/// From the moment fork returned in the parent, nothing here may change.
fn child(hunt: &Hunt, arena: Arena, note: &Note) -> i32 {
    note.wait(0, 1);
    let mut before = [0_u64; 1024];
    let threads = hunt.threads.min(64);
    let places = || (0..hunt.pages).flat_map(|page| (1..threads).map(move |t| slot(page, t)));
    for (seen, offset) in before.iter_mut().zip(places()) {
        *seen = arena.load(offset);
    }
    for look in 0..hunt.settle {
        if look % 8 == 7 {
            sys::sched_yield();
        }
        for (seen, offset) in before.iter().zip(places()) {
            let got = arena.load(offset);
            if got != *seen {
                note.set(1, offset as u64);
                note.set(2, got);
                note.set(3, *seen);
                return 1;
            }
        }
    }
    0
}

/// Stores series, and checks that the last store of each is there: none may be lost in
/// the copy that fork makes necessary.
fn pound(hunt: &Hunt, tally: &Tally, arena: Arena, thread: usize, over: &AtomicBool, mut rng: Rng) {
    let mut next = 1;
    let mut stores = 0;
    while !over.load(Ordering::Relaxed) {
        let offset = slot(rng.below(hunt.pages), thread);
        let (after, end) = arena.hammer(offset, next, 100);
        let got = arena.load(offset);
        if end.is_err() || got != after - 1 {
            hunt.violation(tally, || format!("own store lost: {end:?}, {got}, want {}", after - 1));
        }
        stores += after - next;
        next = after;
    }
    Tally::add(&tally.accesses, stores);
}
