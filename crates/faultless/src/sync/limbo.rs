//! Limbo: things that were unlinked but may still be reached by sections that were active then. Protocol P8.
//!
//! Called by `space` and `engine` through `frame::CpuLocal`. Each CPU fills its own bag; a full bag is sealed with a
//! snapshot of all section words and emptied once every section in it has ended. At most two bags exist per CPU, so
//! the backlog is bounded (VM-10). Absent on purpose: a global epoch, which would be a line that all CPUs read.

use super::{Sections, mutant};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use core::mem;

/// Things per bag. Small in model builds so that bags fill.
#[cfg(not(any(loom, shuttle)))]
const BAG: usize = 64;
#[cfg(any(loom, shuttle))]
const BAG: usize = 8;

/// One CPU's retired things.
pub(crate) struct Limbo<T> {
    open: ArrayVec<T, BAG>,
    sealed: ArrayVec<T, BAG>,
    snapshot: Box<[u64]>,
}

impl<T> Limbo<T> {
    /// Empty bags for a machine of `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { open: ArrayVec::new(), sealed: ArrayVec::new(), snapshot: alloc::vec![0; cpus].into_boxed_slice() }
    }

    /// Retires `thing`. What may be freed now is handed to `free`.
    ///
    /// If both bags are full this waits for the sections of the sealed one; the caller therefore stands in no section.
    #[inline]
    pub(crate) fn retire(
        &mut self,
        thing: T,
        sections: &Sections,
        me: usize,
        barrier: impl Fn(),
        relax: impl Fn(),
        mut free: impl FnMut(T),
    ) {
        if mutant::is(mutant::Mutant::NoEpoch) {
            return free(thing);
        }
        if self.open.is_full() {
            self.make_room(sections, me, barrier, relax, &mut free);
        }
        self.open.push(thing);
    }

    /// Empties the open bag, which is full.
    #[inline(never)]
    fn make_room(
        &mut self,
        sections: &Sections,
        me: usize,
        barrier: impl Fn(),
        relax: impl Fn(),
        free: &mut impl FnMut(T),
    ) {
        while !self.sealed.is_empty() && !sections.has_passed(&self.snapshot) {
            relax();
            super::spin_hint();
        }
        self.turn(sections, me, barrier, free);
    }

    /// Frees the sealed bag, whose sections have passed, and seals the open one.
    fn turn(&mut self, sections: &Sections, me: usize, barrier: impl Fn(), free: &mut impl FnMut(T)) {
        self.sealed.drain(..).for_each(free);
        mem::swap(&mut self.open, &mut self.sealed);
        // The things in the bag were unlinked before; the barrier orders that before the look at the words.
        barrier();
        sections.snapshot(me, &mut self.snapshot);
    }

    /// Frees what can be freed without waiting. True if nothing is left.
    pub(crate) fn collect(
        &mut self,
        sections: &Sections,
        me: usize,
        barrier: impl Fn(),
        mut free: impl FnMut(T),
    ) -> bool {
        // Asked often, by CPUs that have nothing.
        if self.open.is_empty() && self.sealed.is_empty() {
            return true;
        }
        // Twice: the first turn seals what is open, the second frees it if nobody is inside.
        for _ in 0..2 {
            if !sections.has_passed(&self.snapshot) && !self.sealed.is_empty() {
                return false;
            }
            self.turn(sections, me, &barrier, &mut free);
        }
        self.open.is_empty() && self.sealed.is_empty()
    }
}
