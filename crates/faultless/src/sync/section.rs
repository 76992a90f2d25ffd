//! Sections: the read side of everything that is not locked. Protocol P8.
//!
//! A fault, a remote access and a page-side visit each run inside a section of one space on one CPU. A section never
//! blocks. Two kinds of waiter look at the section words: a fork (and the generation wrap guard) waits for the
//! sections of its space; `Limbo` waits, without blocking anybody, until every section that might still stand in a
//! retired table or area has ended.
//!
//! A section word is `space << 33 | sequence << 1 | active`. One writer (the CPU), many readers.
//!
//! | waiter does | section does |
//! |---|---|
//! | changes the entries / unlinks; `heavy_barrier`; reads the words | writes its word; `light_barrier`; reads entries |
//!
//! Either the waiter sees the word, or the section sees the change. The pair of barriers is `fence(SeqCst)` on both
//! sides, or nothing here and an interrupt or membarrier there (the machine's choice).

use super::{AtomicU64, Ordering, mutant, spin_hint};
use alloc::boxed::Box;

const ACTIVE: u64 = 1;
const SEQUENCE: u64 = ((1 << 32) - 1) << 1;
const SPACE_SHIFT: u32 = 33;

/// One CPU's section word, alone in its cache line.
#[repr(align(128))]
pub(crate) struct Word(AtomicU64);

/// The section words of all CPUs.
pub(crate) struct Sections {
    words: Box<[Word]>,
}

impl Sections {
    /// Words for `cpus` CPUs, all outside.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { words: (0..cpus).map(|_| Word(AtomicU64::new(0))).collect() }
    }

    /// Enters a section of `space` on `cpu`; `barrier` is the machine's light barrier.
    #[inline]
    pub(crate) fn enter(&self, cpu: usize, space: u32, barrier: impl FnOnce()) -> Section<'_> {
        let word = &self.words[cpu].0;
        let last = word.load(Ordering::Relaxed);
        debug_assert!(last & ACTIVE == 0, "sections do not nest");
        let sequence = last.wrapping_add(2) & SEQUENCE;
        // Release, for the section before this one: a waiter that finds this word instead of the one it waited to see
        // end must see all that section did, and a plain store would end the release sequence of its end.
        let ordering = mutant::weaken(mutant::Mutant::RelaxedSectionEnter, Ordering::Release);
        word.store(u64::from(space) << SPACE_SHIFT | sequence | ACTIVE, ordering);
        barrier();
        Section { word }
    }

    /// Is a section of `space` active on a CPU other than `me`? The caller has issued the heavy barrier.
    pub(crate) fn is_active(&self, me: usize, space: u32) -> bool {
        self.words.iter().enumerate().any(|(cpu, word)| {
            // Acquire pairs with the Releases in `enter` and `Section::drop`: a section that is over, seen ended or
            // followed by another, has all its effects visible.
            let word = word.0.load(Ordering::Acquire);
            cpu != me && word & ACTIVE != 0 && word >> SPACE_SHIFT == u64::from(space)
        })
    }

    /// Waits until each section of `space` that was active on another CPU has ended. The caller has issued the heavy
    /// barrier, stands in no section and holds no table lock. Ends because sections never block.
    pub(crate) fn wait(&self, me: usize, space: u32, relax: impl Fn()) {
        for (cpu, word) in self.words.iter().enumerate() {
            // Acquire here and below pairs with the Releases in `enter` and `Section::drop`.
            let first = word.0.load(Ordering::Acquire);
            if cpu == me || first & ACTIVE == 0 || first >> SPACE_SHIFT != u64::from(space) {
                continue;
            }
            while word.0.load(Ordering::Acquire) == first {
                relax();
                spin_hint();
            }
        }
    }

    /// Remembers what every CPU is doing now; [`Sections::has_passed`] tells later whether all of it has ended.
    pub(crate) fn snapshot(&self, me: usize, into: &mut [u64]) {
        debug_assert_eq!(into.len(), self.words.len());
        for (cpu, (slot, word)) in into.iter_mut().zip(&self.words).enumerate() {
            // Acquire pairs with the Release in `Section::drop`.
            *slot = if cpu == me { 0 } else { word.0.load(Ordering::Acquire) };
        }
    }

    /// Has every section of the snapshot ended?
    pub(crate) fn has_passed(&self, snapshot: &[u64]) -> bool {
        snapshot
            .iter()
            .zip(&self.words)
            // Acquire pairs with the Releases in `enter` and `Section::drop`.
            .all(|(then, word)| then & ACTIVE == 0 || word.0.load(Ordering::Acquire) != *then)
    }

    /// Number of CPUs.
    pub(crate) fn cpus(&self) -> usize {
        self.words.len()
    }
}

/// Proof that this CPU stands in a section: what it reaches through entries and the index stays allocated.
pub(crate) struct Section<'a> {
    word: &'a AtomicU64,
}

impl Drop for Section<'_> {
    #[inline]
    fn drop(&mut self) {
        let word = self.word.load(Ordering::Relaxed);
        // Release: whoever sees the word change (Acquire, above) sees all that the section did.
        self.word.store(word & SEQUENCE, mutant::weaken(mutant::Mutant::RelaxedSectionEnd, Ordering::Release));
    }
}
