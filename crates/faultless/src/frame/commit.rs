//! How much memory programs were promised, and how much may be (Linux's overcommit).
//!
//! Called by `space` where areas change, and by `object` for memory that is promised by its size. Promises are pages that
//! a program may store to without asking again; whether there is a frame for each is the policy's business. Faults do not
//! look here.
//!
//! Each CPU counts in a line of its own as long as nothing is refused for the sum: operations on disjoint memory share
//! no line that one of them writes. Under the strict policy all count in one word, whose order says who was too late.

use crate::sync::plain::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use crate::sync::{Gauge, NoMemory};
use alloc::boxed::Box;

/// What may be promised (vm.overcommit_memory).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitPolicy {
    /// Everything but a single request for more than the machine has (mode 0).
    Heuristic,
    /// Everything (mode 1).
    Always,
    /// Less than `limit` pages in all; a space that maps much leaves a part of that to others: a 32nd of what it maps, at
    /// most `reserve` pages (mode 2).
    Strict {
        /// Pages.
        limit: u64,
        /// Pages.
        reserve: u64,
    },
}

const HEURISTIC: u8 = 0;
const ALWAYS: u8 = 1;
const STRICT: u8 = 2;

/// The promises of one machine; all parts alone atomic. What was promised is the sum of `shared` and `parts`.
pub(crate) struct Commit {
    shared: Alone<AtomicI64>,
    parts: Box<[Alone<Gauge>]>, // each written by its CPU only
    mode: AtomicU8,
    limit: AtomicU64,
    reserve: AtomicU64,
    total: u64, // fixed
}

/// Alone in its cache line.
#[repr(align(64))]
#[derive(Default)]
struct Alone<T>(T);

impl Commit {
    /// Nothing promised yet, of `total` frames, to any of `cpus` CPUs; everything may be.
    pub(super) fn new(total: u64, cpus: usize) -> Self {
        let (limit, reserve) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let parts = (0..cpus).map(|_| Alone::default()).collect();
        Self { shared: Alone::default(), parts, mode: AtomicU8::new(ALWAYS), limit, reserve, total }
    }

    /// Changes what later promises may be. Calls that are under way may go by what was before.
    pub(crate) fn set_policy(&self, policy: CommitPolicy) {
        let mode = match policy {
            CommitPolicy::Heuristic => HEURISTIC,
            CommitPolicy::Always => ALWAYS,
            CommitPolicy::Strict { limit, reserve } => {
                self.limit.store(limit, Relaxed);
                self.reserve.store(reserve, Relaxed);
                STRICT
            }
        };
        self.mode.store(mode, Relaxed);
    }

    /// What may be promised now.
    pub(crate) fn policy(&self) -> CommitPolicy {
        match self.mode.load(Relaxed) {
            HEURISTIC => CommitPolicy::Heuristic,
            ALWAYS => CommitPolicy::Always,
            _ => CommitPolicy::Strict { limit: self.limit.load(Relaxed), reserve: self.reserve.load(Relaxed) },
        }
    }

    /// Pages promised.
    pub(crate) fn pages(&self) -> u64 {
        (self.shared.0.load(Relaxed) + self.parts()).max(0).cast_unsigned()
    }

    fn parts(&self) -> i64 {
        self.parts.iter().map(|part| part.0.get()).sum()
    }

    /// Could one request for so many pages be granted?
    pub(crate) fn allows_one(&self, pages: u64) -> bool {
        pages <= self.total || self.mode.load(Relaxed) != HEURISTIC
    }

    /// Promises `pages` more to a space that maps what `mapped` says, as one request. `cpu` is the CPU that does it, if
    /// one is at hand.
    #[inline]
    pub(crate) fn promise(&self, cpu: Option<usize>, pages: u64, mapped: impl FnOnce() -> u64) -> Result<(), NoMemory> {
        if self.allows_one(pages) { self.promise_sum(cpu, pages, mapped) } else { Err(NoMemory) }
    }

    /// The same for the sum of several requests, each of which was looked at.
    #[inline]
    pub(crate) fn promise_sum(
        &self,
        cpu: Option<usize>,
        pages: u64,
        mapped: impl FnOnce() -> u64,
    ) -> Result<(), NoMemory> {
        if self.is_strict() {
            return self.promise_strictly(pages, mapped());
        }
        self.adjust(cpu, pages.cast_signed());
        Ok(())
    }

    #[cold]
    fn promise_strictly(&self, pages: u64, mapped: u64) -> Result<(), NoMemory> {
        let shared = self.shared.0.fetch_add(pages.cast_signed(), Relaxed) + pages.cast_signed();
        let now = (shared + self.parts()).max(0).cast_unsigned();
        if let CommitPolicy::Strict { limit, reserve } = self.policy()
            && now >= limit.saturating_sub(reserve.min(mapped / 32))
        {
            self.shared.0.fetch_sub(pages.cast_signed(), Relaxed);
            return Err(NoMemory);
        }
        Ok(())
    }

    #[inline]
    fn is_strict(&self) -> bool {
        self.mode.load(Relaxed) == STRICT
    }

    /// Counts without a look at the policy: what is given back, or was allowed before.
    #[inline]
    pub(crate) fn adjust(&self, cpu: Option<usize>, pages: i64) {
        match cpu {
            Some(cpu) if !self.is_strict() => self.parts[cpu].0.add(pages),
            _ => {
                self.shared.0.fetch_add(pages, Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
