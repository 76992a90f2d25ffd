//! Flushes that other CPUs ask of one CPU, kept until it looks.
//!
//! Called by `fast`. A short list under a lock that is held for a few instructions only; more than fits becomes one
//! flush of everything, which is always permitted.

use core::sync::atomic::{AtomicBool, Ordering};
use faultless::Flush;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MOST: usize = 8;

/// One CPU's mail.
#[derive(Debug)]
pub(super) struct Mail {
    has_come: AtomicBool,
    list: Mutex<List>,
}

/// What has been asked for.
#[derive(Debug)]
struct List {
    flushes: Vec<Flush>,
    /// More than the list holds: forget everything.
    all: bool,
}

/// One thing to do.
pub(super) enum Request<'a> {
    /// Forget what this says.
    Some(&'a Flush),
    /// Forget all translations.
    All,
}

impl Mail {
    /// None.
    pub(super) fn new() -> Self {
        let list = List { flushes: Vec::with_capacity(MOST), all: false };
        Self { has_come: AtomicBool::new(false), list: Mutex::new(list) }
    }

    /// Is there any? Exact after the barrier in `Seat::enter`.
    #[inline]
    pub(super) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Relaxed)
    }

    /// Asks for a flush.
    pub(super) fn put(&self, flush: &Flush) {
        let mut list = self.lock();
        if list.flushes.len() == MOST {
            list.all = true;
        } else {
            list.flushes.push(*flush);
        }
        // Relaxed: the heavy barrier follows.
        self.has_come.store(true, Ordering::Relaxed);
    }

    /// Hands out what was asked for.
    #[cold]
    pub(super) fn serve(&self, mut forget: impl FnMut(Request<'_>)) {
        let mut list = self.lock();
        if core::mem::take(&mut list.all) {
            forget(Request::All);
        }
        list.flushes.drain(..).for_each(|flush| forget(Request::Some(&flush)));
        self.has_come.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // A panic with the lock held leaves a list that is still right.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
