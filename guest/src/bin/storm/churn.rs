//! Random mmap, munmap, mprotect, MAP_FIXED replacement and brk, each thread against its
//! own record of what it should see.
//!
//! Slices of the threads adjoin, so areas of different threads merge and split while the
//! others fault. Rows: VM-01, VM-02, VM-04, VM-05, VM-06, TB-04, F-10, F-15, AN-02.

use crate::Storm;
use faultless_guest::arena::{Arena, digest};
use faultless_guest::crew::{Gate, crew};
use faultless_guest::probe::{Trap, accerr, maperr};
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, ANON, Errno, NONE, PAGE, RO, RW};

/// What one page should be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Page {
    Hole,
    Mapped { prot: i32, key: u64 },
}

/// Longest range of one operation, in pages.
const LONGEST: usize = 24;

/// Each thread runs `rounds * 64` operations on its slice and verifies all of it.
pub fn churn(storm: &Storm) {
    let slice = storm.pages;
    let arena = Arena::new(2, slice * storm.threads);
    let gate = Gate::new(storm.threads);
    crew(storm.threads, |thread| {
        let mut slice = Slice::new(storm, arena.part(thread * slice, slice), thread);
        let mut heap = Heap::default();
        // From here to the last gate no thread allocates, so the break is thread 0's alone.
        gate.wait();
        for _ in 0..storm.rounds {
            (0..64).for_each(|_| slice.step());
            if thread == 0 {
                heap.step(storm, &mut slice.rng);
            }
            slice.verify_all();
        }
        if thread == 0 {
            heap.end(storm);
        }
        gate.wait();
        storm.report.need("munmap", slice.arena.unmap(0, slice.pages.len()));
    });
}

struct Slice<'s> {
    storm: &'s Storm,
    arena: Arena,
    thread: usize,
    rng: Rng,
    pages: Vec<Page>,
}

impl<'s> Slice<'s> {
    fn new(storm: &'s Storm, arena: Arena, thread: usize) -> Self {
        let rng = Rng::lane(storm.seed(3, 0), thread as u64);
        Self { storm, arena, thread, rng, pages: vec![Page::Hole; arena.pages()] }
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..3 => self.map(),
            3..5 => self.unmap(),
            5..8 => self.protect(),
            8..13 => self.write(),
            13..15 => self.read(),
            _ => self.elsewhere(),
        }
    }

    fn map(&mut self) {
        let (first, count) = self.rng.range(self.pages.len(), LONGEST);
        let prot = *self.rng.pick(&[RW, RW, RW, RO, NONE]);
        let got = self.arena.map(first, count, prot);
        self.storm.report.same("mmap", got, Ok(self.arena.page_addr(first)));
        self.pages[first..][..count].fill(Page::Mapped { prot, key: 0 });
    }

    fn unmap(&mut self) {
        let (first, count) = self.rng.range(self.pages.len(), LONGEST);
        self.storm.report.same("munmap", self.arena.unmap(first, count), Ok(0));
        self.pages[first..][..count].fill(Page::Hole);
    }

    /// mprotect changes everything up to the first hole and then says ENOMEM.
    fn protect(&mut self) {
        let (first, count) = self.rng.range(self.pages.len(), LONGEST);
        let new = *self.rng.pick(&[RW, RO, NONE]);
        let range = &mut self.pages[first..][..count];
        let hole = range.iter().position(|page| *page == Page::Hole);
        for page in &mut range[..hole.unwrap_or(count)] {
            if let Page::Mapped { prot, .. } = page {
                *prot = new;
            }
        }
        let want = if hole.is_some() { Err(Errno(libc::ENOMEM)) } else { Ok(0) };
        self.storm.report.same("mprotect", self.arena.protect(first, count, new), want);
    }

    /// Fills a page, or meets the signal its state demands at a random byte.
    fn write(&mut self) {
        let page = self.rng.below(self.pages.len());
        if let Page::Mapped { prot: RW, key } = &mut self.pages[page] {
            *key = self.rng.next() | 1;
            self.arena.fill(page, *key);
            return;
        }
        let offset = page * PAGE + self.rng.below(PAGE);
        let want = self.trap(page, offset);
        self.storm.report.same("store", self.arena.try_store(offset, 0), Err(want));
    }

    fn read(&mut self) {
        let page = self.rng.below(self.pages.len());
        self.verify(page);
    }

    /// Compares all bytes of a page, or meets the signal its state demands.
    fn verify(&mut self, page: usize) {
        if let Page::Mapped { prot: RW | RO, key } = self.pages[page] {
            if let Err(wrong) = self.arena.verify(page, key) {
                let thread = self.thread;
                self.storm.report.fail(format_args!("churn, thread {thread}: {wrong:?}"));
            }
            self.storm.report.passed(PAGE);
            self.storm.report.fold(digest(key));
            return;
        }
        let offset = page * PAGE + self.rng.below(PAGE);
        let want = self.trap(page, offset);
        self.storm.report.same("load", self.arena.try_load(offset), Err(want));
    }

    fn verify_all(&mut self) {
        (0..self.pages.len()).for_each(|page| self.verify(page));
    }

    fn trap(&self, page: usize, offset: usize) -> Trap {
        let addr = self.arena.addr(offset);
        match self.pages[page] {
            Page::Hole => maperr(addr),
            Page::Mapped { .. } => accerr(addr),
        }
    }

    /// A mapping where the kernel likes it, which must lie outside all arenas and be new.
    fn elsewhere(&mut self) {
        let count = 1 + self.rng.below(8);
        // SAFETY: no address is asked for, so nothing is replaced.
        let addr = unsafe { sys::mmap(0, count * PAGE, RW, ANON, -1, 0) };
        let addr = self.storm.report.need("mmap anywhere", addr);
        let key = self.rng.next() | 1;
        for word in (addr..addr + count * PAGE).step_by(512) {
            // SAFETY: the mapping is this thread's own.
            let old = unsafe { (word as *const u64).read_volatile() };
            self.storm.report.same("fresh word", old, 0);
            // SAFETY: as above.
            unsafe { (word as *mut u64).write_volatile(key ^ word as u64) };
        }
        for word in (addr..addr + count * PAGE).step_by(512) {
            // SAFETY: as above.
            let got = unsafe { (word as *const u64).read_volatile() };
            self.storm.report.same("own word", got, key ^ word as u64);
        }
        // SAFETY: the mapping is this thread's own.
        let done = unsafe { sys::munmap(addr, count * PAGE) };
        self.storm.report.same("munmap", done, Ok(0));
    }
}

/// The program break above where libc left it. It is put back before libc can notice.
#[derive(Default)]
struct Heap {
    start: usize,
    /// Keys of the pages above `start`; 0 is a page of zeroes.
    keys: [u64; Self::MOST],
    len: usize,
}

impl Heap {
    const MOST: usize = 32;

    fn step(&mut self, storm: &Storm, rng: &mut Rng) {
        if self.start == 0 {
            // SAFETY: asks only.
            self.start = unsafe { sys::brk(0) }.next_multiple_of(PAGE);
        }
        let len = rng.below(Self::MOST + 1);
        self.resize(storm, len);
        for page in 0..self.len {
            self.verify(storm, page);
            if rng.chance(1, 2) {
                self.keys[page] = rng.next() | 1;
                self.each_word(page, |key, index, addr| {
                    let value = faultless_guest::arena::word(key, index);
                    // SAFETY: below the break, and nobody allocates (see `churn`).
                    unsafe { (addr as *mut u64).write_volatile(value) };
                });
            }
            self.verify(storm, page);
        }
        // SAFETY: above the break there is nothing, which is what the probe finds out.
        let above = unsafe { faultless_guest::probe::load(self.start + self.len * PAGE) };
        let want = maperr(self.start + self.len * PAGE);
        storm.report.same("load above the break", above, Err(want));
    }

    fn resize(&mut self, storm: &Storm, len: usize) {
        let to = self.start + len * PAGE;
        // SAFETY: only pages above libc's break come and go.
        storm.report.same("brk", unsafe { sys::brk(to) }, to);
        self.keys[len.min(self.len)..].fill(0);
        self.len = len;
    }

    fn verify(&self, storm: &Storm, page: usize) {
        self.each_word(page, |key, index, addr| {
            // SAFETY: below the break.
            let got = unsafe { (addr as *const u64).read_volatile() };
            let want = faultless_guest::arena::word(key, index);
            if got != want {
                storm.report.fail(format_args!("brk at {addr:#x}: got {got:#x}, want {want:#x}"));
            }
        });
        storm.report.passed(PAGE);
    }

    fn each_word(&self, page: usize, visit: impl Fn(u64, usize, usize)) {
        let addr = self.start + page * PAGE;
        (0..sys::WORDS).for_each(|index| visit(self.keys[page], index, addr + index * 8));
    }

    fn end(&mut self, storm: &Storm) {
        if self.start != 0 {
            self.resize(storm, 0);
        }
    }
}
