//! Stores into frames that were freed and serve another mapping by now.
//!
//! Private memory is unmapped under the hammering threads, and new memory is mapped
//! elsewhere, which is likely to get the same frames: a store through an old translation
//! shows up there. Rows: TB-01, TB-03, VM-04, AN-02.

use crate::board::{Board, Hammer, RESTORING, Way};
use crate::{Hunt, Tally};
use faultless_guest::arena::Arena;
use faultless_guest::crew::{pause, pinned_crew};
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{PAGE, RW};
use std::time::Instant;

/// One turn.
pub fn turn(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    let (victim, heir) = (Arena::new(10, hunt.pages), Arena::new(11, hunt.pages));
    hunt.report.need("mmap", victim.map(0, hunt.pages, RW));
    let board = Board::default();
    pinned_crew(hunt.threads, |thread| {
        let rng = Rng::lane(hunt.seed(2, turn), thread as u64);
        if thread == 0 {
            let rounds = lead(hunt, tally, &board, [victim, heir], rng, end);
            Tally::add(&tally.calls, rounds);
            board.over();
        } else {
            Hammer { hunt, tally, victim, thread, rng }.run(&board);
        }
    });
    hunt.report.need("munmap", victim.unmap(0, hunt.pages));
}

fn lead(hunt: &Hunt, tally: &Tally, board: &Board, [victim, heir]: [Arena; 2], mut rng: Rng, end: Instant) -> u64 {
    let pages = hunt.pages;
    let mut round = 0;
    while round == 0 || Instant::now() < end {
        board.announce(round, Way::Unmap, 0, pages);
        if !hunt.mutate {
            hunt.report.need("munmap", victim.unmap(0, pages));
        }
        board.revoked(round);
        hunt.report.need("mmap", heir.map(0, pages, RW));
        board.let_them_work(hunt.threads - 1);
        inherit(hunt, tally, heir, round);
        hunt.report.need("munmap", heir.unmap(0, pages));
        board.go(round, RESTORING);
        hunt.report.need("mmap", victim.map(0, pages, RW));
        round += 1;
        board.open(round);
        board.let_them_work(hunt.threads - 1);
        let mut turns = 0;
        (0..rng.below(200)).for_each(|_| pause(&mut turns));
    }
    round
}

/// The new memory must be zeroed, and then keep what is written there.
fn inherit(hunt: &Hunt, tally: &Tally, heir: Arena, round: u64) {
    let mark = mix(round) | 1;
    for page in 0..hunt.pages {
        // The first access is a store, so that the page gets a frame of its own at once.
        heir.store(page * PAGE, mark);
        heir.store(page * PAGE, 0);
        judge(hunt, tally, heir, page, 0);
        heir.fill(page, mark);
    }
    let mut turns = 0;
    for _ in 0..hunt.settle {
        pause(&mut turns);
        (0..hunt.pages).for_each(|page| judge(hunt, tally, heir, page, mark));
    }
}

fn judge(hunt: &Hunt, tally: &Tally, heir: Arena, page: usize, key: u64) {
    if let Err(wrong) = heir.verify(page, key) {
        hunt.violation(tally, || format!("frame of other memory changed: {wrong:?}"));
    }
}
