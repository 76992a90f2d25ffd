//! Loads of old data after memory was replaced by fresh memory.
//!
//! Thread 0 fills pages, then unmaps and maps them anew (two calls or one MAP_FIXED). Who
//! knows that the call returned must read zeroes. Rows: TB-01, VM-03, VM-06, AN-01.

use crate::{Hunt, Tally};
use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::arena::{Arena, word};
use faultless_guest::crew::{pause, pinned_crew};
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{PAGE, RW, WORDS};
use std::time::Instant;

/// Low two bits of the step: pages hold `key(round)`.
const FILLED: u64 = 0;
/// Anything may be there, also nothing.
const CHANGING: u64 = 1;
/// Pages hold zeroes.
const FRESH: u64 = 2;
/// The step when all is over.
const OVER: u64 = u64::MAX;

/// One turn.
pub fn turn(hunt: &Hunt, tally: &Tally, turn: u64, end: Instant) {
    let arena = Arena::new(12, hunt.pages);
    hunt.report.need("mmap", arena.map(0, hunt.pages, RW));
    let seed = hunt.seed(3, turn);
    (0..hunt.pages).for_each(|page| arena.fill(page, key(seed, 0, page)));
    let step = AtomicU64::new(FILLED);
    pinned_crew(hunt.threads, |thread| {
        let rng = Rng::lane(seed, thread as u64);
        if thread == 0 {
            let rounds = lead(hunt, arena, &step, seed, rng, end);
            Tally::add(&tally.calls, rounds);
            step.store(OVER, Ordering::SeqCst);
        } else {
            watch(hunt, tally, arena, &step, seed, rng);
        }
    });
    hunt.report.need("munmap", arena.unmap(0, hunt.pages));
}

fn key(seed: u64, round: u64, page: usize) -> u64 {
    mix(seed ^ (round << 16) ^ page as u64) | 1
}

fn lead(hunt: &Hunt, arena: Arena, step: &AtomicU64, seed: u64, mut rng: Rng, end: Instant) -> u64 {
    let mut round = 0;
    // SeqCst: pairs with the loads in `watch`, and is visible before the kernel is entered.
    let go = |round: u64, place: u64| step.store(round << 2 | place, Ordering::SeqCst);
    let mut turns = 0;
    while round == 0 || Instant::now() < end {
        go(round, CHANGING);
        if !hunt.mutate {
            if rng.chance(1, 2) {
                hunt.report.need("munmap", arena.unmap(0, hunt.pages));
            }
            hunt.report.need("mmap", arena.map(0, hunt.pages, RW));
        }
        go(round, FRESH);
        (0..hunt.settle + rng.below(100)).for_each(|_| pause(&mut turns));
        go(round, CHANGING);
        round += 1;
        (0..hunt.pages).for_each(|page| arena.fill(page, key(seed, round, page)));
        go(round, FILLED);
        (0..rng.below(200)).for_each(|_| pause(&mut turns));
    }
    round
}

fn watch(hunt: &Hunt, tally: &Tally, arena: Arena, step: &AtomicU64, seed: u64, mut rng: Rng) {
    let mut turns = 0;
    let mut loads = 0;
    loop {
        // Both loads pair with `go`: an unchanged step covers the access between them.
        let before = step.load(Ordering::SeqCst);
        if before == OVER {
            break;
        }
        let (page, index) = (rng.below(hunt.pages), rng.below(WORDS));
        let got = arena.try_load(page * PAGE + index * 8);
        let after = step.load(Ordering::SeqCst);
        let want = match before & 3 {
            FILLED => word(key(seed, before >> 2, page), index),
            FRESH => 0,
            _ => {
                pause(&mut turns);
                continue;
            }
        };
        loads += 1;
        if before == after && got != Ok(want) {
            let place = if want == 0 { "fresh" } else { "filled" };
            hunt.violation(tally, || format!("{place} page {page}: {got:x?}, want {want:#x}"));
        }
        Tally::add(&tally.faults, u64::from(got.is_err()));
    }
    Tally::add(&tally.accesses, loads);
}
