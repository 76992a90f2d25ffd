//! fork while other threads fault and write.
//!
//! A forker knows every byte of its own pages; of the pages that others write meanwhile
//! it knows their order: a writer fills a page word by word, so a snapshot of the page at
//! one instant holds words of at most two consecutive rounds, the newer ones first. And
//! nothing that was stored after fork returned may ever appear in the child.
//! Rows: FK-02, FK-03, FK-06, CW-01, CW-04, AN-02, TB-04.

use crate::Storm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use faultless_guest::arena::{Arena, absorb, digest};
use faultless_guest::child::Note;
use faultless_guest::crew::{Gate, crew};
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{self, End, PAGE, RW, WORDS};

/// Pages per forker and per writer.
const OWN: usize = 12;

/// How far a writer is. Both only grow.
#[derive(Default)]
struct Progress {
    begun: AtomicU64, // (A) round whose stores may have begun
    done: AtomicU64,  // (A) round whose stores are all done
}

struct Field<'s> {
    storm: &'s Storm,
    /// Pages of forkers, then pages of writers.
    arena: Arena,
    forkers: usize,
    writers: Vec<Progress>,
    notes: Vec<Note>,
    running: AtomicUsize, // (A) forkers not yet done
}

/// Half of the threads fork in loops, the other half write.
pub fn fork(storm: &Storm) {
    let forkers = (storm.threads / 4).max(1);
    let writers = storm.threads - forkers;
    let field = Field {
        storm,
        arena: Arena::new(6, OWN * storm.threads),
        forkers,
        writers: (0..writers).map(|_| Progress::default()).collect(),
        notes: (0..forkers).map(|_| Note::new()).collect(),
        running: AtomicUsize::new(forkers),
    };
    storm.report.need("mmap", field.arena.map(0, field.arena.pages(), RW));
    let gate = Gate::new(storm.threads);
    crew(storm.threads, |thread| {
        gate.wait();
        match thread.checked_sub(forkers) {
            None => field.fork_all(thread),
            Some(writer) => field.write_all(writer),
        }
    });
    storm.report.need("munmap", field.arena.unmap(0, field.arena.pages()));
}

impl Field<'_> {
    fn page_of_writer(&self, writer: usize, page: usize) -> usize {
        (self.forkers + writer) * OWN + page
    }

    /// Word `index` of page `page` in `round`, and back: the round can be told from a word.
    fn lock_word(page: usize, index: usize) -> u64 {
        mix((page << 16 | index) as u64) & !0xffff_ffff
    }

    fn write_all(&self, writer: usize) {
        let mut round = 0;
        while self.running.load(Ordering::Relaxed) > 0 {
            round += 1;
            // Pairs with the loads in `fork_one`: no store of this round is older.
            self.writers[writer].begun.store(round, Ordering::SeqCst);
            for page in (0..OWN).map(|page| self.page_of_writer(writer, page)) {
                for index in 0..WORDS {
                    let value = Self::lock_word(page, index) | round;
                    self.arena.store(page * PAGE + index * 8, value);
                }
            }
            // Pairs with the loads in `fork_one`: all stores of this round are older.
            self.writers[writer].done.store(round, Ordering::SeqCst);
        }
    }

    fn fork_all(&self, forker: usize) {
        for round in 0..self.storm.rounds {
            let seed = mix(self.storm.seed(7, round) ^ forker as u64) | 1;
            let own = self.arena.part(forker * OWN, OWN);
            (0..OWN).for_each(|page| own.fill(page, seed ^ (page as u64) << 8));
            self.fork_one(forker, own, seed);
            self.storm.report.fold(digest(seed));
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// One fork, what the child must find, and what the parent must keep.
    fn fork_one(&self, forker: usize, own: Arena, seed: u64) {
        let note = &self.notes[forker];
        (0..8).for_each(|index| note.set(index, 0));
        let mut done = [0_u64; 64];
        for (done, writer) in done.iter_mut().zip(&self.writers) {
            *done = writer.done.load(Ordering::SeqCst);
        }
        // SAFETY: `Child` neither allocates nor locks nor panics.
        let pid = self.storm.report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            let child = Child { field: self, note, own, seed, done };
            sys::exit(child.live());
        }
        for (index, writer) in self.writers.iter().enumerate().take(64) {
            note.set(64 + index, writer.begun.load(Ordering::SeqCst));
        }
        note.set(0, 1);
        let mut rng = Rng::new(seed);
        let mut keys: [u64; OWN] = core::array::from_fn(|page| seed ^ (page as u64) << 8);
        for (page, key) in keys.iter_mut().enumerate() {
            if rng.chance(1, 2) {
                *key = rng.next() | 1;
                own.fill(page, *key);
            }
        }
        self.verify(own, &keys, "before the child ended");
        let (_, end) = self.storm.report.need("wait", sys::wait(pid as i32));
        if end != End::Exit(0) {
            let words: [u64; 4] = core::array::from_fn(|index| note.get(1 + index));
            let what = "[what, where, got, want]";
            self.storm.report.fail(format_args!("child ended by {end:?}: {what} {words:x?}"));
        }
        self.verify(own, &keys, "after the child ended");
    }

    fn verify(&self, own: Arena, keys: &[u64; OWN], when: &str) {
        for (page, key) in keys.iter().enumerate() {
            if let Err(wrong) = own.verify(page, *key) {
                self.storm.report.fail(format_args!("forker's page {when}: {wrong:?}"));
            }
        }
        self.storm.report.passed(OWN * PAGE);
    }
}

/// The forked process: it has one thread, and may only load, store and call the kernel.
struct Child<'f> {
    field: &'f Field<'f>,
    note: &'f Note,
    own: Arena,
    seed: u64,
    /// Rounds that were complete before fork.
    done: [u64; 64],
}

impl Child<'_> {
    fn live(&self) -> i32 {
        let mine = (0..OWN).try_for_each(|page| self.own_page(page));
        let first = mine.and_then(|()| self.others());
        // The parent and its writers go on; the snapshot must not.
        let second = first.and_then(|sum| {
            (0..20).for_each(|_| sys::sched_yield());
            self.others().and_then(|again| self.expect(5, 0, again, sum))
        });
        let last = second.and_then(|()| self.write_own());
        i32::from(last.is_none())
    }

    fn expect(&self, what: u64, place: usize, got: u64, want: u64) -> Option<()> {
        if got == want {
            return Some(());
        }
        let words = [what, place as u64, got, want];
        words.iter().enumerate().for_each(|(index, word)| self.note.set(1 + index, *word));
        None
    }

    fn own_page(&self, page: usize) -> Option<()> {
        let key = self.seed ^ (page as u64) << 8;
        match self.own.verify(page, key) {
            Ok(()) => Some(()),
            Err(wrong) => self.expect(1, wrong.addr, wrong.got, wrong.want),
        }
    }

    /// Checks the writers' pages and gives a checksum of them.
    fn others(&self) -> Option<u64> {
        self.note.wait(0, 1);
        let mut sum = 0_u64;
        for writer in 0..self.field.writers.len().min(64) {
            let begun = self.note.get(64 + writer);
            for page in (0..OWN).map(|page| self.field.page_of_writer(writer, page)) {
                sum = absorb(sum, self.page_of(page, self.done[writer], begun)?);
            }
        }
        Some(sum)
    }

    fn page_of(&self, page: usize, done: u64, begun: u64) -> Option<u64> {
        let mut newer = begun;
        let mut sum = 0_u64;
        for index in 0..WORDS {
            let offset = page * PAGE + index * 8;
            let place = self.field.arena.addr(offset);
            let got = self.field.arena.load(offset);
            let round = got & 0xffff_ffff;
            sum = absorb(sum, got);
            let lock = if round == 0 { 0 } else { Field::lock_word(page, index) };
            self.expect(2, place, got ^ round, lock)?;
            // Of a round after fork's return, or older than what was complete before.
            self.expect(3, place, round, round.clamp(done, begun))?;
            // Not a prefix of one round followed by the round before.
            let oldest = if index == 0 { 0 } else { newer.saturating_sub(1) };
            self.expect(4, place, round, round.clamp(oldest, newer))?;
            newer = if index == 0 { round } else { newer };
        }
        self.falling(page)?;
        Some(sum)
    }

    /// Once the older round has begun in a page, no newer word may follow.
    fn falling(&self, page: usize) -> Option<()> {
        let mut last = u64::MAX;
        for offset in (page * PAGE..(page + 1) * PAGE).step_by(8) {
            let round = self.field.arena.load(offset) & 0xffff_ffff;
            self.expect(8, self.field.arena.addr(offset), round, round.min(last))?;
            last = round;
        }
        Some(())
    }

    /// The child's own stores land, and half of its pages can go.
    fn write_own(&self) -> Option<()> {
        let key = |page: usize| mix(self.seed ^ page as u64) | 1;
        (0..OWN).for_each(|page| self.own.fill(page, key(page)));
        self.own.unmap(OWN / 2, OWN / 2).ok()?;
        for page in 0..OWN / 2 {
            if let Err(wrong) = self.own.verify(page, key(page)) {
                return self.expect(6, wrong.addr, wrong.got, wrong.want);
            }
        }
        let gone = self.own.try_load(OWN / 2 * PAGE);
        self.expect(7, 0, u64::from(gone.is_ok()), 0)
    }
}
