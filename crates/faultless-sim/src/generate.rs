//! Scenarios from a seed: weighted, fond of borders, now and then wrong.
//!
//! Called by `check` and tests. The generator knows which processes live, and nothing else: what is mapped where is
//! for the two sides to agree on. A few hot places per scenario make steps meet each other.

use crate::arena::{self, CHUNK, PAGE, PAGES};
use crate::scenario::{FILES, FileRef, MOST_BURST, MOST_PROCESSES, MOST_THREADS, Op, Scenario, Step};
use faultless_hosted::Rng;
use linux_raw_sys::general as linux;

/// Deepest a process may be below the first.
const MOST_DEPTH: usize = 4;

/// Calls that not every core has. What is not in here is not generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the names are the calls'
pub struct Calls {
    /// Advice for `madvise`.
    pub madvise: &'static [u32],
    /// Extra `MAP_*` flags.
    pub map_flags: &'static [u32],
    pub msync: bool,
    pub munlock: bool,
    pub mlock: bool,
    pub mincore: bool,
    pub mremap: bool,
    pub remap_file_pages: bool,
    pub brk: bool,
    pub mseal: bool,
    /// `process_vm_readv` and `process_vm_writev`.
    pub process_vm: bool,
    /// Files on a disk.
    pub disk: bool,
    /// Modes of `fallocate`.
    pub fallocate: &'static [u32],
}

impl Calls {
    /// Everything that scenarios can say.
    pub const ALL: Self = Self {
        madvise: &[
            linux::MADV_NORMAL,
            linux::MADV_RANDOM,
            linux::MADV_SEQUENTIAL,
            linux::MADV_WILLNEED,
            linux::MADV_DONTNEED,
            linux::MADV_FREE,
            linux::MADV_REMOVE,
            linux::MADV_DONTFORK,
            linux::MADV_DOFORK,
            linux::MADV_WIPEONFORK,
            linux::MADV_KEEPONFORK,
            linux::MADV_DONTDUMP,
            linux::MADV_DODUMP,
            linux::MADV_COLD,
            linux::MADV_PAGEOUT,
            linux::MADV_HUGEPAGE,
            linux::MADV_NOHUGEPAGE,
            linux::MADV_COLLAPSE,
            linux::MADV_POPULATE_READ,
            linux::MADV_POPULATE_WRITE,
            linux::MADV_DONTNEED_LOCKED,
        ],
        map_flags: &[linux::MAP_LOCKED, linux::MAP_GROWSDOWN],
        msync: true,
        munlock: true,
        mlock: true,
        mincore: true,
        mremap: true,
        remap_file_pages: true,
        brk: true,
        mseal: true,
        process_vm: true,
        disk: true,
        fallocate: &[
            0,
            linux::FALLOC_FL_KEEP_SIZE,
            linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE,
            linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE,
            linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE,
            linux::FALLOC_FL_PUNCH_HOLE,
            linux::FALLOC_FL_ZERO_RANGE,
            linux::FALLOC_FL_COLLAPSE_RANGE,
            linux::FALLOC_FL_INSERT_RANGE | linux::FALLOC_FL_KEEP_SIZE,
            linux::FALLOC_FL_UNSHARE_RANGE,
            1 << 20,
        ],
    };
}

/// What scenarios are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Steps.
    pub steps: usize,
    /// Most processes, the first included.
    pub processes: usize,
    /// Once in so many steps several threads work at the same time; 0 for never.
    pub bursts: u64,
    /// Calls that are used besides the usual ones.
    pub calls: Calls,
}

impl Shape {
    /// All calls, for tests of the text form.
    #[must_use]
    pub fn everything(steps: usize) -> Self {
        Self { steps, processes: MOST_PROCESSES, bursts: 20, calls: Calls::ALL }
    }
}

/// A scenario.
pub fn generate(rng: &mut Rng, shape: &Shape) -> Scenario {
    let files = std::array::from_fn(|_| file_size(rng));
    let on_disk = std::array::from_fn(|file| shape.calls.disk && file == 2 && rng.once_in(2));
    let mut maker = Maker { hot: std::array::from_fn(|_| hot_page(rng)), rng, shape, living: vec![(0, 0)], born: 1 };
    let mut steps = Vec::new();
    while steps.len() < shape.steps {
        maker.some_steps(&mut steps);
    }
    Scenario { files, on_disk, steps }
}

fn file_size(rng: &mut Rng) -> u64 {
    rng.below(9) * PAGE + rng.pick(&[0, 0, 0, 1, 100, 4095])
}

/// Near a border of tables, or anywhere.
fn hot_page(rng: &mut Rng) -> u64 {
    let heap = (arena::HEAP - arena::START) / PAGE + 4;
    let border = rng.pick(&[0, 512, heap, PAGES / 2, PAGES / 2, 1536, PAGES]);
    let page = if rng.once_in(4) { rng.below(PAGES) } else { border.saturating_sub(4) };
    page.min(PAGES - 12)
}

struct Maker<'a> {
    rng: &'a mut Rng,
    shape: &'a Shape,
    hot: [u64; 3],
    /// Processes with their depth.
    living: Vec<(usize, usize)>,
    born: usize,
}

impl Maker<'_> {
    /// One step, or those of several threads.
    fn some_steps(&mut self, steps: &mut Vec<Step>) {
        if self.shape.bursts != 0 && self.rng.once_in(self.shape.bursts) {
            let at = self.rng.below(self.living.len() as u64) as usize;
            let process = self.living[at].0;
            self.burst(process, steps);
        } else {
            let step = self.step();
            steps.push(step);
        }
    }

    /// Steps of some threads that work at the same time, each in chunks of its own.
    fn burst(&mut self, process: usize, steps: &mut Vec<Step>) {
        let threads = self.rng.range(2, MOST_THREADS as u64 + 1);
        let place = self.page() / CHUNK;
        for _ in 0..self.rng.range(4, MOST_BURST as u64 + 1) {
            let thread = self.rng.below(threads);
            // The thread's chunk next to the place, and sometimes its next.
            let turn = (place + MOST_THREADS as u64 - thread) / MOST_THREADS as u64 + self.rng.once_in(4) as u64;
            let chunk = (turn * MOST_THREADS as u64 + thread).min(PAGES / CHUNK - MOST_THREADS as u64 + thread);
            let op = self.op_in(chunk * CHUNK);
            steps.push(Step { process, thread: thread as usize + 1, op });
        }
    }

    /// An operation in the chunk that begins with this page.
    fn op_in(&mut self, first: u64) -> Op {
        let page = self.rng.below(CHUNK);
        let at = arena::START + (first + page) * PAGE;
        let len = self.rng.range(1, CHUNK - page + 1) * PAGE;
        let (offset, width) = (self.rng.below(PAGE / 8) * 8, self.rng.pick(&[1, 8]));
        let file = self.file();
        match self.rng.weighted(&[16, 8, 10, 24, 40, 8, 3, 4, 4]) {
            0 => self.map_at(at, len),
            1 => Op::Unmap { at, len },
            2 => Op::Protect { at, len, prot: self.protection().into() },
            3 => Op::Load { at: at + offset, width },
            4 => Op::Store { at: at + offset, width, value: self.rng.next() },
            5 if !self.shape.calls.madvise.is_empty() => {
                Op::Advise { at, len, advice: self.rng.pick(self.shape.calls.madvise) }
            }
            6 if self.shape.calls.mremap => {
                let to = arena::START + (first + self.rng.below(CHUNK)) * PAGE;
                Op::Remap { at, old: len, new: self.rng.range(1, 5) * PAGE, flags: self.rng.pick(&[0, 3, 3, 7]), to }
            }
            7 => match self.rng.below(4) {
                0 => Op::Truncate { file, size: self.offset().cast_signed() },
                1 => Op::Read { file, offset: self.offset().cast_signed(), len: self.bytes() },
                _ => {
                    let (offset, len) = (self.offset().cast_signed(), self.bytes());
                    Op::Write { file, offset, len, value: self.rng.range(1, 256) as u8 }
                }
            },
            8 if self.shape.calls.mincore => Op::Resident { at, len },
            _ => Op::Load { at: at + offset, width },
        }
    }

    /// A mapping at an address for one of several threads.
    fn map_at(&mut self, at: u64, len: u64) -> Op {
        let file = self.rng.once_in(3).then(|| FileRef { number: self.file(), read_only: false });
        let mut flags = if self.rng.once_in(6) { linux::MAP_FIXED_NOREPLACE } else { linux::MAP_FIXED };
        flags |= if self.rng.once_in(4) { linux::MAP_SHARED } else { linux::MAP_PRIVATE };
        flags |= if file.is_none() { linux::MAP_ANONYMOUS } else { 0 };
        flags |= if self.rng.once_in(6) { linux::MAP_POPULATE } else { 0 };
        let offset = if file.is_some() { self.rng.below(6) * PAGE } else { 0 };
        let prot = if self.rng.once_in(4) { self.protection() } else { 3 };
        Op::Map { at, len, prot, flags, file, offset }
    }

    fn step(&mut self) -> Step {
        let at = self.rng.below(self.living.len() as u64) as usize;
        let (process, depth) = self.living[at];
        let op = match self.rng.below(100) {
            0..4 if self.born < self.shape.processes && depth < MOST_DEPTH => self.fork(depth),
            4 if self.living.len() > 1 => {
                self.living.swap_remove(at);
                Op::Exit { code: self.rng.below(256) as u8 }
            }
            5 if self.born > 1 => Op::Wait { child: 1 + self.rng.below(self.born as u64 - 1) as usize },
            _ => self.op(),
        };
        Step::alone(process, op)
    }

    fn fork(&mut self, depth: usize) -> Op {
        let child = self.born;
        self.born += 1;
        self.living.push((child, depth + 1));
        Op::Fork { child }
    }

    fn op(&mut self) -> Op {
        match self.rng.weighted(&[20, 8, 10, 16, 24, 3, 3, 4, 12]) {
            0 => self.map(),
            1 => {
                let (at, len) = self.range();
                Op::Unmap { at, len }
            }
            2 => {
                let (at, len) = self.range();
                Op::Protect { at, len, prot: u64::from(self.protection()) | self.growth() }
            }
            3 => {
                let (at, width) = self.access();
                Op::Load { at, width }
            }
            4 => {
                let (at, width) = self.access();
                Op::Store { at, width, value: self.rng.next() }
            }
            5 => Op::Truncate { file: self.file(), size: self.offset().cast_signed() },
            6 => Op::Read { file: self.file(), offset: self.offset().cast_signed(), len: self.bytes() },
            7 => {
                let value = self.rng.range(1, 256) as u8;
                Op::Write { file: self.file(), offset: self.offset().cast_signed(), len: self.bytes(), value }
            }
            _ => self.other(),
        }
    }

    /// One of the calls that the shape allows; a load if it allows none.
    fn other(&mut self) -> Op {
        let calls = self.shape.calls;
        let (at, len) = self.range();
        for _ in 0..8 {
            match self.rng.below(13) {
                0..3 if !calls.madvise.is_empty() => {
                    return Op::Advise { at, len, advice: self.rng.pick(calls.madvise) };
                }
                3 if calls.msync => return Op::Sync { at, len, flags: self.rng.pick(&[1, 2, 4, 4, 5, 6, 0, 8]) },
                4 if calls.munlock => return Op::Unlock { at, len },
                5 if calls.mincore => return Op::Resident { at, len: len.min(512 * PAGE) },
                6 if calls.mremap => return self.remap(at, len),
                7 if calls.mlock => {
                    return match self.rng.below(6) {
                        0 => Op::LockAll { flags: self.rng.pick(&[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]) },
                        1 => Op::UnlockAll,
                        _ => Op::Lock { at, len, flags: self.rng.below(2) as u32 },
                    };
                }
                8 if calls.remap_file_pages => return Op::Nonlinear { at, len, page: self.rng.below(9) },
                9 if !calls.fallocate.is_empty() => {
                    let (offset, len) = (self.offset().cast_signed(), self.bytes() as i64);
                    return Op::Allocate { file: self.file(), mode: self.rng.pick(calls.fallocate), offset, len };
                }
                10 if calls.brk => return self.brk(),
                12 if calls.process_vm => return self.of_another(),
                // Seldom: what is sealed stays as it is.
                11 if calls.mseal && self.rng.once_in(6) => {
                    return Op::Seal { at, len, flags: u64::from(self.rng.once_in(20)) };
                }
                _ => {}
            }
        }
        let (at, width) = self.access();
        Op::Load { at, width }
    }

    /// A call on the memory of a living process, now and then the caller's own.
    fn of_another(&mut self) -> Op {
        let other = self.rng.below(self.living.len() as u64) as usize;
        let ((other, _), (at, _)) = (self.living[other], self.access());
        let len = self.bytes().min((arena::END - at) as usize);
        match self.rng.below(2) {
            0 => Op::Peek { other, at, len },
            _ => Op::Poke { other, at, len, value: self.rng.range(1, 256) as u8 },
        }
    }

    fn brk(&mut self) -> Op {
        let to = match self.rng.below(40) {
            0 => self.rng.pick(&[0, arena::HEAP - 1, 1 << 47, u64::MAX]),
            1..10 => arena::MIDDLE + self.rng.below(16) * PAGE,
            _ => arena::HEAP + self.rng.below(24) * PAGE,
        };
        Op::Brk { to: to.saturating_add(self.rng.pick(&[0, 0, 1, 100, 4095])) }
    }

    fn remap(&mut self, at: u64, old: u64) -> Op {
        let new = self.length();
        let flags = self.rng.pick(&[0, 1, 1, 3, 3, 3, 5, 7, 2, 8]);
        let (to, _) = self.range();
        let old = if self.rng.once_in(10) { 0 } else { old };
        Op::Remap { at, old, new, flags, to }
    }

    fn map(&mut self) -> Op {
        let (mut at, mut len) = self.range();
        let mut flags = match self.rng.below(8) {
            0 => linux::MAP_FIXED_NOREPLACE,
            1 => {
                at = at.wrapping_add(self.rng.below(2) * 123);
                0
            }
            _ => linux::MAP_FIXED,
        };
        let mut file = self.rng.once_in(2).then(|| FileRef { number: self.file(), read_only: self.rng.once_in(8) });
        flags |= if self.rng.once_in(3) { linux::MAP_SHARED } else { linux::MAP_PRIVATE };
        if file.is_none() {
            flags |= linux::MAP_ANONYMOUS;
        }
        if self.rng.once_in(8) {
            flags |= linux::MAP_POPULATE;
            len = len.min(64 * PAGE);
        }
        if self.rng.once_in(12) {
            flags |= self.rng.pick(&[linux::MAP_NORESERVE, linux::MAP_NONBLOCK, linux::MAP_STACK]);
        }
        if !self.shape.calls.map_flags.is_empty() && self.rng.once_in(10) {
            flags |= self.rng.pick(self.shape.calls.map_flags);
            if flags & linux::MAP_GROWSDOWN != 0 && !self.rng.once_in(8) {
                // Others are refused.
                flags = flags & !linux::MAP_SHARED | linux::MAP_PRIVATE | linux::MAP_ANONYMOUS;
                file = None;
            }
        }
        let mut offset = if file.is_some() { self.rng.below(6) * PAGE } else { 0 };
        let prot = if self.rng.once_in(2) { 3 } else { self.protection() };
        // One thing wrong at a time, and then sometimes another.
        match self.rng.below(150) {
            0 => len = 0,
            1 => len = self.rng.pick(&[u64::MAX, u64::MAX - PAGE, 1 << 47, 1 << 63]),
            2 => at = self.rng.pick(&[0, 8, PAGE, 1 << 47, u64::MAX - PAGE + 1, at.wrapping_add(8)]),
            3 => {
                let wrong = self.rng.pick(&[1, 100, 1 << 63, (1 << 63) - PAGE, u64::MAX - PAGE + 1]);
                offset = offset.wrapping_add(wrong);
            }
            4 => flags &= !linux::MAP_TYPE,
            5 => flags |= linux::MAP_TYPE,
            _ => {}
        }
        Op::Map { at, len, prot, flags, file, offset }
    }

    /// A range, seldom unaligned or nonsense.
    fn range(&mut self) -> (u64, u64) {
        let (at, len) = (arena::START + self.page() * PAGE, self.length());
        // Nothing outside the arena may be hit by a range that begins inside.
        let len = len.min(arena::END - at);
        match self.rng.below(100) {
            0 => (at + 8, len.saturating_sub(8).max(1)),
            1 => (at, 0),
            2 => (self.rng.pick(&[1 << 47, (1 << 47) - PAGE, 1 << 63, u64::MAX - PAGE + 1]), len),
            3 => (at, self.rng.pick(&[u64::MAX, u64::MAX - PAGE, 1 << 63])),
            _ => (at, len),
        }
    }

    fn page(&mut self) -> u64 {
        if self.rng.once_in(14) {
            return self.rng.below(PAGES);
        }
        let hot = self.rng.pick(&self.hot);
        hot + self.rng.below(12)
    }

    fn length(&mut self) -> u64 {
        let pages = match self.rng.below(40) {
            0 => self.rng.range(100, 1200),
            1 | 2 => self.rng.range(8, 40),
            _ => self.rng.range(1, 7),
        };
        if self.rng.once_in(10) { pages * PAGE - self.rng.pick(&[1, 7, 4000]) } else { pages * PAGE }
    }

    fn access(&mut self) -> (u64, u8) {
        let width = self.rng.pick(&[1, 2, 4, 8, 8, 8]);
        let offset = match self.rng.below(6) {
            0 => self.rng.below(PAGE),
            1 => PAGE - u64::from(width) + self.rng.below(u64::from(width)),
            2 => PAGE - 8,
            _ => self.rng.below(16) * 8,
        };
        (arena::START + self.page() * PAGE + offset, width)
    }

    fn protection(&mut self) -> u32 {
        self.rng.pick(&[0, 1, 1, 2, 3, 3, 3, 4, 5, 7])
    }

    /// Now and then what `mprotect` knows of areas that grow.
    fn growth(&mut self) -> u64 {
        let grows = self.shape.calls.map_flags.contains(&linux::MAP_GROWSDOWN) && self.rng.once_in(25);
        if grows { self.rng.pick(&[1, 1, 1, 2, 3]) * u64::from(linux::PROT_GROWSDOWN) } else { 0 }
    }

    fn file(&mut self) -> usize {
        self.rng.below(FILES as u64) as usize
    }

    fn offset(&mut self) -> u64 {
        if self.rng.once_in(60) {
            return self.rng.pick(&[u64::MAX, 1 << 63, (1 << 63) - 1]);
        }
        self.rng.below(9) * PAGE + self.rng.pick(&[0, 0, 1, 100, 4095])
    }

    fn bytes(&mut self) -> usize {
        self.rng.pick(&[0, 1, 8, 100, 4096, 5000, 9000])
    }
}
