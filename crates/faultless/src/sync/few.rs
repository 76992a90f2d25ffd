//! A list that mostly holds one thing: the first stays in place, more go to the heap.
//!
//! Called by `tree` and `area`: most operations change one stripe, and replace one area. Smaller than a small vector
//! where it is passed through, and adding to it can fail.

use super::NoMemory;
use alloc::vec::Vec;
use core::mem;

/// Things in the order in which they were added.
pub(crate) struct Few<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<T> Few<T> {
    /// None.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    /// Is there none?
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The one, if there is just one.
    #[inline]
    pub(crate) fn only(&self) -> Option<&T> {
        if self.more.is_empty() { self.first.as_ref() } else { None }
    }

    /// The first, if there are no more.
    #[inline]
    pub(crate) fn at_most_one(&self) -> Option<Option<&T>> {
        self.more.is_empty().then_some(self.first.as_ref())
    }

    /// Adds one and returns where it is now.
    #[inline]
    pub(crate) fn push(&mut self, thing: T) -> Result<&mut T, NoMemory> {
        if self.first.is_none() {
            return Ok(self.first.insert(thing));
        }
        self.push_more(thing)
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
        if let Some(first) = &mut self.first {
            visit(first);
        }
        self.more.iter_mut().for_each(visit);
    }

    /// Takes all of them out and hands them to `visit`.
    #[inline]
    pub(crate) fn take_each(&mut self, mut visit: impl FnMut(T)) {
        if let Some(first) = self.first.take() {
            visit(first);
        }
        if !self.more.is_empty() {
            mem::take(&mut self.more).into_iter().for_each(visit);
        }
    }
}
