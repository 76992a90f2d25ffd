//! How the revoking thread tells the hammering threads what to expect, and what they do.
//!
//! Called by `revoke` and `recycle`. A hammering thread judges an access only if the board
//! stood still around it, so no order of events is taken for a violation by mistake.

use crate::{Hunt, Tally};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::crew::pause;
use faultless_guest::probe::{Probe, accerr, maperr};
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, PAGE};

/// How rights go away.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u64)]
pub enum Way {
    /// mprotect to read only.
    ReadOnly,
    /// mprotect to no access.
    NoAccess,
    /// munmap.
    Unmap,
    /// MAP_FIXED by other memory, which may be written.
    Replace,
}

/// All ways.
pub const WAYS: [Way; 4] = [Way::ReadOnly, Way::NoAccess, Way::Unmap, Way::Replace];

/// Place of thread 0, in the low two bits of the step: all pages may be written.
pub const OPEN: u64 = 0;
/// The call may have begun.
pub const REVOKING: u64 = 1;
/// The call has returned.
pub const REVOKED: u64 = 2;
/// The call that gives the range back may have begun.
pub const RESTORING: u64 = 3;
/// The step when all is over.
const OVER: u64 = u64::MAX;

/// Stores to one page in a row.
const SERIES: u64 = 1000;
/// Stores that each thread tries in each round while the range is revoked.
const TRIES: u32 = 16;

/// What thread 0 tells the others.
#[derive(Default)]
pub struct Board {
    step: AtomicU64,   // (A) pairs with itself: what is below belongs to the step
    way: AtomicU64,    // (A) fixed from REVOKING to RESTORING, as the next two
    first: AtomicU64,  // (A) first page of the range
    count: AtomicU64,  // (A) its length
    bell: AtomicU32,   // (A) rings when a round is opened; who is done with one sleeps on it
    worked: AtomicU64, // (A) series or tries since the last step
}

impl Board {
    /// The current step.
    pub fn at(&self) -> u64 {
        // Pairs with `go`.
        self.step.load(Ordering::SeqCst)
    }

    /// Goes to `place` of `round`.
    pub fn go(&self, round: u64, place: u64) {
        // SeqCst, so that it is visible before thread 0 enters the kernel.
        self.step.store(round << 2 | place, Ordering::SeqCst);
    }

    /// Opens `round` and wakes everybody up.
    pub fn open(&self, round: u64) {
        self.worked.store(0, Ordering::Relaxed);
        self.go(round, OPEN);
        self.ring();
    }

    /// Ends the game.
    pub fn over(&self) {
        // Pairs with `at`.
        self.step.store(OVER, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        // SeqCst, as the store to `step` before it: see `sleep`.
        self.bell.fetch_add(1, Ordering::SeqCst);
        sys::futex_wake(&self.bell);
    }

    /// The call has returned: the others may try.
    pub fn revoked(&self, round: u64) {
        self.worked.store(0, Ordering::Relaxed);
        self.go(round, REVOKED);
    }

    /// Gives the others time to fill their TLBs, or to try what is revoked: until there
    /// were as many series or tries as there are threads, but not for ever.
    pub fn let_them_work(&self, threads: usize) {
        let mut turns = 0;
        while turns < 2000 && self.worked.load(Ordering::Relaxed) < threads as u64 {
            pause(&mut turns);
        }
    }

    /// Sleeps until the round of `step` is over.
    fn sleep(&self, step: u64) {
        loop {
            // Before `step` is looked at: if that is old, the bell has yet to ring.
            let bell = self.bell.load(Ordering::SeqCst);
            if self.at() >> 2 != step >> 2 {
                return;
            }
            sys::futex_wait(&self.bell, bell);
        }
    }

    /// Goes to `REVOKING` of `round` for a range of pages.
    pub fn announce(&self, round: u64, way: Way, first: usize, count: usize) {
        self.way.store(way as u64, Ordering::Relaxed);
        self.first.store(first as u64, Ordering::Relaxed);
        self.count.store(count as u64, Ordering::Relaxed);
        self.go(round, REVOKING);
    }

    fn way(&self) -> Way {
        WAYS[self.way.load(Ordering::Relaxed) as usize]
    }

    fn hits(&self, page: usize) -> bool {
        let first = self.first.load(Ordering::Relaxed) as usize;
        let count = self.count.load(Ordering::Relaxed) as usize;
        (first..first + count).contains(&page)
    }
}

/// Each thread has a word of its own in each page.
pub const fn slot(page: usize, thread: usize) -> usize {
    page * PAGE + thread % 64 * 64
}

/// A thread that stores and judges.
pub struct Hammer<'h> {
    /// Size of the game.
    pub hunt: &'h Hunt,
    /// Its account.
    pub tally: &'h Tally,
    /// The memory that is taken away.
    pub victim: Arena,
    /// Number of this thread.
    pub thread: usize,
    /// Its decisions.
    pub rng: Rng,
}

impl Hammer<'_> {
    /// Stores until the game is over.
    pub fn run(&mut self, board: &Board) {
        let (mut next, mut tries, mut turns) = (1, 0, 0);
        loop {
            let step = board.at();
            match step & 3 {
                _ if step == OVER => return,
                OPEN => {
                    next = self.pound(board, step, next);
                    tries = 0;
                }
                REVOKED if tries < TRIES => {
                    self.try_revoked(board, step);
                    tries += 1;
                }
                // Awake, because to sleep would empty the TLB.
                REVOKING => pause(&mut turns),
                _ => board.sleep(step),
            }
        }
    }

    /// Stores a series to one page. A signal is right only if the page is being revoked.
    fn pound(&mut self, board: &Board, step: u64, start: u64) -> u64 {
        let page = self.rng.below(self.hunt.pages);
        let (next, end) = self.victim.hammer(slot(page, self.thread), start, SERIES);
        Tally::add(&self.tally.accesses, next - start);
        board.worked.fetch_add(1, Ordering::Relaxed);
        if end.is_err() {
            Tally::add(&self.tally.faults, 1);
            // A board that still stands at `step` has begun nothing yet.
            let now = board.at();
            let want = if now == step { Ok(()) } else { self.expected(board, page) };
            // Later in the same round the range is what it was at the fault.
            if board.at() >> 2 == step >> 2 && end != want {
                self.hunt.violation(self.tally, || format!("pounding: {end:?}, want {want:?}"));
            }
            // The page may not be touched again before the call has returned.
            let mut turns = 0;
            while board.at() == step || board.at() == step + 1 {
                pause(&mut turns);
            }
        }
        next
    }

    /// While the range is revoked each store into it must meet its signal.
    fn try_revoked(&mut self, board: &Board, step: u64) {
        let page = self.rng.below(self.hunt.pages);
        let want = self.expected(board, page);
        let got = self.victim.try_store(slot(page, self.thread), u64::MAX);
        board.worked.fetch_add(1, Ordering::Relaxed);
        // Judged only if the range was still revoked after the store.
        if board.at() == step && got != want {
            self.hunt.violation(self.tally, || format!("revoked: {got:?}, want {want:?}"));
        }
        Tally::add(&self.tally.accesses, 1);
        Tally::add(&self.tally.faults, u64::from(got.is_err()));
        let mut turns = 0;
        (0..8).for_each(|_| pause(&mut turns));
    }

    /// What a store to `page` meets between REVOKING and RESTORING of this round.
    fn expected(&self, board: &Board, page: usize) -> Probe<()> {
        let addr = self.victim.addr(slot(page, self.thread));
        match (board.hits(page), board.way()) {
            (true, Way::ReadOnly | Way::NoAccess) => Err(accerr(addr)),
            (true, Way::Unmap) => Err(maperr(addr)),
            _ => Ok(()),
        }
    }
}
