//! How many areas show an object, and whether stores may come through them (SysV shm's attach count, seals of memfds).
//!
//! Counted by `space` where areas come and go. Whoever forbids stores and whoever maps for them meet in one word: it
//! counts the areas that may store, or is negative while none may be made.

use super::Object;
use crate::machine::{Format, Machine};
use crate::sync::plain::Ordering::Relaxed;

/// Stores come through areas, so they cannot be forbidden.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HasWriters;

/// Keeps stores to an object permitted while an area that permits them is made.
pub(crate) struct WriterHold<'a, M: Machine>(&'a Object<M>);

impl<M: Machine> Object<M> {
    /// Areas that show it, in all spaces. One that a stripe border cuts counts as two.
    #[must_use]
    pub fn areas(&self) -> u64 {
        self.areas.load(Relaxed).max(0).cast_unsigned()
    }

    /// Pages in the cache, counted one by one.
    #[must_use]
    pub fn resident_pages(&self) -> u64 {
        let mut pages = 0;
        self.each_page(&mut |_, _| pages += 1);
        if self.is_large() { pages << M::Format::INDEX_BITS } else { pages }
    }

    /// Permits no more shared mappings through which stores may ever come
    /// ([`MapRequest::max_rights`](crate::MapRequest)), for good.
    ///
    /// # Errors
    ///
    /// [`HasWriters`] if there are such mappings now; then nothing has changed.
    pub fn deny_writers(&self) -> Result<(), HasWriters> {
        // Relaxed: one word says it all.
        let denied = self.writers.try_update(Relaxed, Relaxed, |writers| (writers <= 0).then_some(-1));
        if denied.is_ok() { Ok(()) } else { Err(HasWriters) }
    }

    /// Counts an area that may store before it is made; `None` if stores are forbidden.
    pub(crate) fn hold_writers(&self) -> Option<WriterHold<'_, M>> {
        let held = self.writers.try_update(Relaxed, Relaxed, |writers| (writers >= 0).then_some(writers + 1));
        held.is_ok().then_some(WriterHold(self))
    }

    /// Counts areas that come or go. Those that may store are counted only where one was before, or a hold is.
    pub(crate) fn note_areas(&self, areas: i64, may_store: bool) {
        self.areas.fetch_add(areas, Relaxed);
        if may_store {
            self.writers.fetch_add(areas, Relaxed);
        }
    }
}

impl<M: Machine> Drop for WriterHold<'_, M> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Relaxed);
    }
}
