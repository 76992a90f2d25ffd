//! First touches: of pages of one's own, and of the same page by all threads at once.
//!
//! Rows: F-03, F-05, F-06, F-10, AN-01, AN-02, AN-04, CW-01, CW-04.

use crate::Storm;
use faultless_guest::arena::{Arena, digest, word};
use faultless_guest::child::Note;
use faultless_guest::crew::{Gate, crew};
use faultless_guest::object::Object;
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{self, ANON, End, PAGE, RW, SHARED_ANON};

/// Thread `t` fills pages `t`, `t + T`, …; neighbouring pages have different writers, so
/// all threads work in the same tables. Then each thread verifies another one's pages.
pub fn disjoint(storm: &Storm) {
    let arena = Arena::new(0, storm.pages);
    for round in 0..storm.rounds {
        let seed = storm.seed(1, round);
        storm.report.need("mmap", arena.map(0, storm.pages, RW));
        let gate = Gate::new(storm.threads);
        crew(storm.threads, |thread| {
            gate.wait();
            touch_own(storm, arena, thread, seed, round % 2 == 1);
            gate.wait();
            let other = (thread + 1) % storm.threads;
            verify_own(storm, arena, other, seed);
        });
        storm.report.need("munmap", arena.unmap(0, storm.pages));
    }
}

fn own_pages(storm: &Storm, thread: usize) -> Vec<usize> {
    (thread..storm.pages).step_by(storm.threads).collect()
}

fn touch_own(storm: &Storm, arena: Arena, thread: usize, seed: u64, read_first: bool) {
    let mut rng = Rng::lane(seed, thread as u64);
    let mut pages = own_pages(storm, thread);
    rng.shuffle(&mut pages);
    for page in pages {
        let offset = page * PAGE + rng.below(PAGE / 8) * 8;
        if read_first {
            storm.report.same("untouched word", arena.load(offset), 0);
        }
        arena.fill(page, key(seed, page));
    }
}

fn verify_own(storm: &Storm, arena: Arena, thread: usize, seed: u64) {
    for page in own_pages(storm, thread) {
        let key = key(seed, page);
        if let Err(wrong) = arena.verify(page, key) {
            storm.report.fail(format_args!("disjoint, page {page}: {wrong:?}"));
        }
        storm.report.passed(PAGE);
        storm.report.fold(digest(key));
    }
}

fn key(seed: u64, page: usize) -> u64 {
    mix(seed ^ page as u64) | 1
}

/// What is there before all threads write to one page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    ZeroRead,
    SharedAnon,
    PrivateFile,
    /// Filled, and a child forked that keeps the old bytes.
    Forked,
    /// Filled, and the child that shared it has exited again.
    ForkedAndGone,
}

const BEFORE: [Before; 6] =
    [Before::Nothing, Before::Forked, Before::ZeroRead, Before::SharedAnon, Before::PrivateFile, Before::ForkedAndGone];

/// All threads write to the same page at the same moment, each its own bytes. Exactly one
/// frame may come out of that, with the bytes of all.
pub fn same(storm: &Storm) {
    let pages = storm.pages.min(32);
    let arena = Arena::new(1, pages);
    let object = storm.report.need("object", Object::new(pages * PAGE));
    let note = Note::new();
    for round in 0..storm.rounds {
        for before in BEFORE {
            let seed = storm.seed(2, round) | 1;
            prepare(storm, arena, before, &object, seed);
            let child = matches!(before, Before::Forked | Before::ForkedAndGone)
                .then(|| Keeper::start(storm, arena, &note, seed));
            if before == Before::ForkedAndGone {
                child.as_ref().inspect(|child| child.finish(storm));
            }
            write_together(storm, arena, before, seed);
            if before == Before::Forked {
                child.as_ref().inspect(|child| child.finish(storm));
            }
            storm.report.need("munmap", arena.unmap(0, pages));
        }
    }
}

fn prepare(storm: &Storm, arena: Arena, before: Before, object: &Object, seed: u64) {
    let (flags, fd) = match before {
        Before::SharedAnon => (SHARED_ANON, -1),
        Before::PrivateFile => (libc::MAP_PRIVATE, object.fd),
        _ => (ANON, -1),
    };
    let pages = arena.pages();
    for page in 0..pages {
        if before == Before::PrivateFile {
            storm.report.need("pwrite", object.fill(page, old_key(before, seed)));
        }
    }
    storm.report.need("mmap", arena.map_as(0, pages, RW, flags, fd, 0));
    for page in 0..pages {
        match before {
            Before::ZeroRead => storm.report.same("untouched", arena.load(page * PAGE), 0),
            Before::Forked | Before::ForkedAndGone => arena.fill(page, old_key(before, seed)),
            _ => {}
        }
    }
}

const fn old_key(before: Before, seed: u64) -> u64 {
    match before {
        Before::Nothing | Before::ZeroRead | Before::SharedAnon => 0,
        _ => seed,
    }
}

/// Each thread writes every byte `k` with `k % T == thread` but those with `k % 61 == 0`,
/// which must keep their old value: a copy that came too late would lose one or the other.
fn write_together(storm: &Storm, arena: Arena, before: Before, seed: u64) {
    let gate = Gate::new(storm.threads);
    let value = |page: usize, offset: usize| mix(seed ^ (page << 20 | offset) as u64) as u8;
    crew(storm.threads, |thread| {
        for page in 0..arena.pages() {
            // Not before each page: a barrier costs more than the pages after it.
            if page % 8 == 0 {
                gate.wait();
            }
            for offset in (thread..PAGE).step_by(storm.threads).filter(|o| o % 61 != 0) {
                arena.store_byte(page * PAGE + offset, value(page, offset));
            }
        }
        gate.wait();
        for page in (thread..arena.pages()).step_by(storm.threads) {
            for offset in 0..PAGE {
                let old = word(old_key(before, seed), offset / 8).to_le_bytes()[offset % 8];
                let want = if offset % 61 == 0 { old } else { value(page, offset) };
                let got = arena.load_byte(page * PAGE + offset);
                if got != want {
                    let what = format!("same ({before:?}), page {page}, byte {offset}");
                    storm.report.fail(format_args!("{what}: got {got:#x}, want {want:#x}"));
                }
            }
            storm.report.passed(PAGE);
            storm.report.fold(seed ^ page as u64);
        }
    });
}

/// A child that keeps its snapshot of `arena` until told, then verifies every byte of it.
struct Keeper<'n> {
    pid: i32,
    note: &'n Note,
}

impl<'n> Keeper<'n> {
    fn start(storm: &Storm, arena: Arena, note: &'n Note, seed: u64) -> Self {
        note.set(0, 0);
        // SAFETY: the child only loads, yields and exits.
        let pid = storm.report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            note.wait(0, 1);
            let right = (0..arena.pages()).all(|page| arena.verify(page, seed).is_ok());
            sys::exit(i32::from(!right));
        }
        Self { pid: pid as i32, note }
    }

    fn finish(&self, storm: &Storm) {
        self.note.set(0, 1);
        let (_, end) = storm.report.need("wait", sys::wait(self.pid));
        storm.report.same("child that keeps its snapshot", end, End::Exit(0));
    }
}
