//! How much memory programs were promised, and how much may be (Linux's overcommit).
//!
//! Called by `space` where areas change, and by `object` for memory that is promised by its size. Promises are pages that
//! a program may store to without asking again; whether there is a frame for each is the policy's business. Faults do not
//! look here.

use crate::sync::NoMemory;
use crate::sync::plain::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

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

/// The promises of one machine. Alone in its cache line; all parts alone atomic.
#[repr(align(64))]
pub(crate) struct Commit {
    pages: AtomicI64,
    mode: AtomicU8,
    limit: AtomicU64,
    reserve: AtomicU64,
    total: u64, // fixed
}

impl Commit {
    /// Nothing promised yet, of `total` frames; everything may be.
    pub(super) fn new(total: u64) -> Self {
        let (limit, reserve) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { pages: AtomicI64::new(0), mode: AtomicU8::new(ALWAYS), limit, reserve, total }
    }

    /// Changes what later promises may be.
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
        self.pages.load(Relaxed).max(0).cast_unsigned()
    }

    /// Could one request for so many pages be granted?
    pub(crate) fn allows_one(&self, pages: u64) -> bool {
        pages <= self.total || self.mode.load(Relaxed) != HEURISTIC
    }

    /// Promises `pages` more to a space that maps `mapped`, as one request.
    pub(crate) fn promise(&self, pages: u64, mapped: u64) -> Result<(), NoMemory> {
        if self.allows_one(pages) { self.promise_sum(pages, mapped) } else { Err(NoMemory) }
    }

    /// The same for the sum of several requests, each of which was looked at.
    pub(crate) fn promise_sum(&self, pages: u64, mapped: u64) -> Result<(), NoMemory> {
        let now = self.pages.fetch_add(pages.cast_signed(), Relaxed) + pages.cast_signed();
        if let CommitPolicy::Strict { limit, reserve } = self.policy()
            && now.max(0).cast_unsigned() >= limit.saturating_sub(reserve.min(mapped / 32))
        {
            self.adjust(-pages.cast_signed());
            return Err(NoMemory);
        }
        Ok(())
    }

    /// Counts without a look at the policy: what is given back, or was allowed before.
    pub(crate) fn adjust(&self, pages: i64) {
        if pages != 0 {
            self.pages.fetch_add(pages, Relaxed);
        }
    }
}
