//! Whole operations under shuttle: several CPUs do everything at once to a family of spaces, in random schedules.
//!
//! Each thread owns one page of the space it works in and knows what must be in it; it looks at the pages of the others
//! too. Forked spaces get threads of their own, and fork again. At the end everything is recounted.
#![cfg(shuttle)]

mod model;

use faultless::machine::Format;
use model::*;
use shuttle::rand::{Rng, thread_rng};
use std::sync::Arc;
use std::sync::Mutex as Plain;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

type TwoLevels = X86<2, 2, 2>;
type OneBit = X86<2, 2, 1>;
type ThreeLevels = X86<3, 1, 2>;

/// CPUs, and so threads over the life of one execution.
const CPUS: usize = 6;
/// Threads in the first space.
const THREADS: usize = 2;

/// What all threads share.
struct Family<F: Format> {
    world: World<F>,
    /// CPUs that no thread has yet.
    idle: Plain<Vec<Worker<F>>>,
    spaces: Plain<Vec<Space<F>>>,
    /// An object of one page that is truncated at some time; all spaces that were forked before map it.
    object: Backed<F>,
    object_page: u64,
    truncations: AtomicUsize,
    truncated: AtomicUsize,
}

/// What a thread believes of its page.
#[derive(Clone, Copy)]
struct Own {
    page: u64,
    words: [u64; 2],
    mapped: bool,
    writable: bool,
    /// Stored to since this thread last asked for that, alone in its space.
    stored: bool,
}

/// One thread's view.
struct Actor<F: Format> {
    family: Arc<Family<F>>,
    worker: Worker<F>,
    space: Space<F>,
    own: Own,
    depth: usize,
    /// Alone in its space: what it once saw of the other pages stays.
    seen: [Option<Option<u64>>; 16],
    children: Vec<Running<Worker<F>>>,
}

impl<F: Format> Actor<F> {
    fn act(&mut self) {
        match thread_rng().gen_range(0..100) {
            0..=29 => self.store(),
            30..=44 => self.look(),
            45..=56 => self.look_around(),
            57..=66 => self.map_or_unmap(),
            67..=76 => self.protect(),
            77..=80 => self.replace(),
            81..=87 => self.fork(),
            88..=92 => self.read_object(),
            93..=95 => self.truncate(),
            96..=97 => self.reach_in(),
            _ => self.watch(),
        }
    }

    fn store(&mut self) {
        let word = thread_rng().gen_range(0..2);
        let value = self.own.words[word] + 1;
        let done = self.worker.write(&self.space, self.own.page, word, value);
        assert_eq!(done, self.own.mapped && self.own.writable, "a store was refused, or done against the rights");
        if done {
            self.own.words[word] = value;
            self.own.stored = true;
        }
    }

    fn look(&mut self) {
        for word in 0..2 {
            let expected = self.own.mapped.then_some(self.own.words[word]);
            assert_eq!(self.worker.read(&self.space, self.own.page, word), expected, "my page has other contents");
        }
    }

    fn look_around(&mut self) {
        let page = thread_rng().gen_range(0..THREADS as u64);
        if page == self.own.page {
            return;
        }
        let seen = self.worker.read(&self.space, page, 0);
        if self.depth > 0 {
            let before = *self.seen[page as usize].get_or_insert(seen);
            assert_eq!(seen, before, "a page of a space with one thread changed under it");
        }
    }

    fn map_or_unmap(&mut self) {
        if self.own.mapped {
            self.worker.unmap(&self.space, self.own.page, 1);
            self.worker.assert_gone(&self.space, self.own.page);
            (self.own.mapped, self.own.stored) = (false, false);
        } else {
            self.worker.map(&self.space, self.own.page, 1, rw());
            self.own = Own { words: [0; 2], mapped: true, writable: true, stored: false, ..self.own };
        }
    }

    fn protect(&mut self) {
        if !self.own.mapped {
            return;
        }
        self.own.writable = !self.own.writable;
        self.worker.protect(&self.space, self.own.page, 1, if self.own.writable { rw() } else { RO });
        if !self.own.writable {
            self.worker.assert_read_only(&self.space, self.own.page);
        }
    }

    /// MAP_FIXED over whatever is there.
    fn replace(&mut self) {
        self.worker.map(&self.space, self.own.page, 1, rw());
        self.own = Own { words: [0; 2], mapped: true, writable: true, stored: false, ..self.own };
    }

    fn fork(&mut self) {
        let idle = || self.family.idle.lock().expect("no panic is survived").pop();
        let Some(mut worker) = (self.depth < 2).then(idle).flatten() else {
            return;
        };
        let child = self.worker.fork(&self.space);
        self.family.spaces.lock().expect("no panic is survived").push(child.clone());
        let (family, own, depth) = (Arc::clone(&self.family), self.own, self.depth + 1);
        self.children.push(spawn(move || {
            worker.run(&child);
            let own = Own { stored: false, ..own };
            let actor = Actor { family, worker, space: child, own, depth, seen: [None; 16], children: Vec::new() };
            actor.live(4)
        }));
    }

    fn read_object(&mut self) {
        let over = self.family.truncated.load(SeqCst) == 1;
        let seen = self.worker.read(&self.space, self.family.object_page, 0);
        assert!(!over || seen.is_none(), "a page beyond the end");
        assert!(seen.is_none() || seen == Some(33), "the object has other contents");
    }

    fn truncate(&mut self) {
        if self.family.truncations.fetch_add(1, SeqCst) == 0 {
            let object = Arc::clone(&self.family.object);
            self.worker.resize(&object, 0);
            self.family.truncated.store(1, SeqCst);
        }
    }

    /// An access through the tables, as a debugger's.
    fn reach_in(&mut self) {
        let expected = self.own.mapped.then_some(self.own.words[0]);
        assert_eq!(self.worker.inspect(&self.space, self.own.page, 0), expected, "my page has other contents");
        if self.own.mapped && self.own.writable {
            self.own.words[0] += 1;
            assert!(self.worker.store(&self.space, self.own.page, 0, self.own.words[0]));
            self.own.stored = true;
        }
    }

    /// Clears the soft-dirty bits. Stores before it need not be told any more, those after it must be.
    fn watch(&mut self) {
        if self.depth > 0 && self.own.stored {
            assert!(self.worker.is_soft(&self.space, self.own.page), "a store that nobody tells");
        }
        self.worker.clear_soft(&self.space);
        self.own.stored = false;
    }

    /// Acts, looks a last time, and gives the CPU back.
    fn live(mut self, acts: usize) -> Worker<F> {
        for _ in 0..acts {
            self.act();
        }
        self.look();
        self.watch();
        self.worker.leave(&self.space);
        if self.depth > 0 && thread_rng().gen_bool(0.5) {
            self.worker.exit(&self.space);
            let gone = self.space.id();
            self.family.spaces.lock().expect("no panic is survived").retain(|space| space.id() != gone);
        }
        self.worker.cpu.collect();
        for child in self.children {
            let worker = child.join();
            self.family.idle.lock().expect("no panic is survived").push(worker);
        }
        self.worker
    }
}

static OPERATIONS: AtomicU64 = AtomicU64::new(0);

fn mix<F: Format>() {
    let (world, workers) = World::<F>::new::<CPUS>(96);
    let mut idle: Vec<_> = workers.into();
    let mut first = idle.remove(0);
    let object = first.object(1, 33);
    let space = first.space();
    let object_page = THREADS as u64;
    for page in 0..THREADS as u64 {
        // Rights differ from the object's only in kind: each page is an area of its own once it was protected.
        first.map(&space, page, 1, rw());
    }
    first.map_object(&space, object_page, 1, RO, Sharing::Private, &object, 0);
    let family = Arc::new(Family {
        world,
        idle: Plain::new(idle),
        spaces: Plain::new(vec![space.clone()]),
        object,
        object_page,
        truncations: AtomicUsize::new(0),
        truncated: AtomicUsize::new(0),
    });
    let second = family.idle.lock().expect("no panic is survived").remove(0);
    let start = |mut worker: Worker<F>, page| {
        worker.run(&space);
        let own = Own { page, words: [0; 2], mapped: true, writable: true, stored: false };
        let (family, space) = (Arc::clone(&family), space.clone());
        Actor { family, worker, space, own, depth: 0, seen: [None; 16], children: Vec::new() }
    };
    let (one, two) = (start(first, 0), start(second, 1));
    let running = spawn(move || two.live(8));
    let mut workers = vec![one.live(8)];
    workers.push(running.join());
    OPERATIONS.fetch_add(16, SeqCst);
    finish(family, workers);
}

/// Recounts with the spaces that are left, takes them down, and recounts again.
fn finish<F: Format>(family: Arc<Family<F>>, mut workers: Vec<Worker<F>>) {
    workers.append(&mut family.idle.lock().expect("no panic is survived"));
    let spaces = std::mem::take(&mut *family.spaces.lock().expect("no panic is survived"));
    let mut workers: [Worker<F>; CPUS] = workers.try_into().unwrap_or_else(|_| panic!("a worker is missing"));
    workers = family.world.recount(workers, &spaces.iter().collect::<Vec<_>>(), &[&family.object]);
    for space in &spaces {
        workers[0].exit(space);
    }
    family.world.recount(workers, &[], &[&family.object]);
}

scenario! {
    /// Two levels, two bits of generation.
    two_levels (3, 3)
    catches [
        NoDeadCheck, DeadCheckFirst, FreeBeforeFlush, NoShootdown, NoFreeze, NoForkGrace, NoForkFlush,
        CopyKeepsExclusive,
    ]
    { mix::<TwoLevels>() }
}

scenario! {
    /// One bit: each narrowing meets the wrap guard.
    one_bit (3, 3)
    catches [FreeBeforeFlush]
    { mix::<OneBit>() }
}

scenario! {
    /// Three levels of tables with two entries each.
    three_levels (3, 3)
    catches [NoDeadCheck, NoFreeze, NoForkGrace, CopyKeepsExclusive, TakeWithoutLock, NoEpoch]
    { mix::<ThreeLevels>() }
}
