//! Stores after mprotect, munmap or a MAP_FIXED replacement returned.
//!
//! A file is mapped twice: the hammering threads store through the first mapping, thread
//! 0 revokes that and watches the file through the second. Rows: TB-01, TB-04, VM-04,
//! VM-05, VM-06, F-09.

use crate::board::{Board, Hammer, RESTORING, WAYS, Way, slot};
use crate::{Hunt, Tally};
use faultless_guest::arena::Arena;
use faultless_guest::crew::{pause, pinned_crew};
use faultless_guest::object::Object;
use faultless_guest::rng::Rng;
use faultless_guest::sys::{NONE, PAGE, RO, RW};
use std::time::Instant;

/// One turn.
pub fn turn(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    let pages = hunt.pages;
    let object = hunt.report.need("object", Object::new(pages * PAGE));
    let (victim, witness) = (Arena::new(8, pages), Arena::new(9, pages));
    for arena in [victim, witness] {
        let flags = libc::MAP_SHARED;
        hunt.report.need("mmap", arena.map_as(0, pages, RW, flags, object.fd, 0));
    }
    let board = Board::default();
    pinned_crew(hunt.threads, |thread| {
        let rng = Rng::lane(hunt.seed(1, turn), thread as u64);
        if thread == 0 {
            let mut leader = Leader { hunt, tally, victim, witness, fd: object.fd, rng };
            leader.run(&board, end);
            board.over();
        } else {
            Hammer { hunt, tally, victim, thread, rng }.run(&board);
        }
    });
    for arena in [victim, witness] {
        hunt.report.need("munmap", arena.unmap(0, pages));
    }
}

struct Leader<'h> {
    hunt: &'h Hunt,
    tally: &'h Tally,
    victim: Arena,
    witness: Arena,
    fd: i32,
    rng: Rng,
}

impl Leader<'_> {
    fn run(&mut self, board: &Board, end: Instant) {
        let mut round = 0;
        while round == 0 || Instant::now() < end {
            let way = *self.rng.pick(&WAYS);
            let (first, count) = self.rng.range(self.hunt.pages, self.hunt.pages);
            board.announce(round, way, first, count);
            if !self.hunt.mutate {
                self.revoke(way, first, count);
            }
            board.revoked(round);
            self.observe(board, way, first, count);
            board.go(round, RESTORING);
            self.restore(way, first, count);
            round += 1;
            board.open(round);
            board.let_them_work(self.hunt.threads - 1);
            let mut turns = 0;
            (0..self.rng.below(200)).for_each(|_| pause(&mut turns));
        }
        Tally::add(&self.tally.calls, round);
    }

    fn revoke(&self, way: Way, first: usize, count: usize) {
        let done = match way {
            Way::ReadOnly => self.victim.protect(first, count, RO),
            Way::NoAccess => self.victim.protect(first, count, NONE),
            Way::Unmap => self.victim.unmap(first, count),
            Way::Replace => self.victim.map(first, count, RW),
        };
        self.hunt.report.need("revoking call", done);
    }

    fn restore(&self, way: Way, first: usize, count: usize) {
        let done = match way {
            Way::ReadOnly | Way::NoAccess => self.victim.protect(first, count, RW),
            Way::Unmap | Way::Replace => self.victim.map_as(first, count, RW, libc::MAP_SHARED, self.fd, first),
        };
        self.hunt.report.need("restoring call", done);
    }

    /// From now on no word of the revoked pages may change in the file.
    fn observe(&self, board: &Board, way: Way, first: usize, count: usize) {
        let slots = self.hunt.threads.min(64);
        let places = || (first..first + count).flat_map(|p| (1..slots).map(move |t| slot(p, t)));
        let before: Vec<u64> = places().map(|offset| self.witness.load(offset)).collect();
        board.let_them_work(slots - 1);
        let mut turns = 0;
        for _ in 0..self.hunt.settle {
            pause(&mut turns);
            for (offset, want) in places().zip(&before) {
                let got = self.witness.load(offset);
                if got != *want {
                    let what = "store after the call returned";
                    self.hunt
                        .violation(self.tally, || format!("{what}: {way:?}, offset {offset:#x}: {want} became {got}"));
                    return;
                }
            }
        }
    }
}
