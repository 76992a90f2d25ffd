//! A list that mostly holds one thing: the first stays in place, more go to the heap.
//!
//! Called by `tree` and `area`: most operations change one stripe, and replace one area. Smaller than a small vector
//! where it is passed through, and adding to it can fail.

use super::NoMemory;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// Things in the order in which they were added.
pub(crate) struct Few<T> {
    first: ArrayVec<T, 1>,
    more: Vec<T>,
}

impl<T> Few<T> {
    /// None.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { first: ArrayVec::new_const(), more: Vec::new() }
    }

    /// Is there none?
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Adds one and returns where it is now.
    #[inline]
    pub(crate) fn push(&mut self, thing: T) -> Result<&mut T, NoMemory> {
        if !self.first.is_empty() {
            return self.push_more(thing);
        }
        self.first.push(thing);
        self.first.first_mut().ok_or(NoMemory)
    }

    #[cold]
    fn push_more(&mut self, thing: T) -> Result<&mut T, NoMemory> {
        self.more.try_reserve(1).map_err(|_| NoMemory)?;
        self.more.push(thing);
        self.more.last_mut().ok_or(NoMemory)
    }

    /// All of them.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }

    /// Hands all of them to `visit`.
    #[inline]
    pub(crate) fn each_mut(&mut self, mut visit: impl FnMut(&mut T)) {
        let (mut first, mut more) = (self.first.iter_mut(), self.more.iter_mut());
        // One place that calls: what is visited is mostly large, and then in line.
        while let Some(thing) = first.next().or_else(|| more.next()) {
            visit(thing);
        }
    }

    /// Takes all of them out and hands them to `visit`.
    #[inline]
    pub(crate) fn take_each(&mut self, mut visit: impl FnMut(T)) {
        // As `each_mut`.
        while let Some(thing) = self.first.pop().or_else(|| self.more.pop()) {
            visit(thing);
        }
    }
}
