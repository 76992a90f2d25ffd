//! `epoll`: a list of files to be polled together.
//!
//! Called by open files and the `epoll_*` calls. A wait looks at each file and registers with each of
//! them, as `poll` does; the list only saves passing it every time.
//!
//! Absent on purpose: edge triggering (`EPOLLET` is refused with `EINVAL`), nesting.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::file::OpenFile;
use crate::errno::Errno;
use crate::sched::{Thread, WaitQueue};
use crate::sync::Lock;

/// An epoll instance.
pub struct Epoll {
    watches: Lock<BTreeMap<Key, Watch>>,
    /// Woken when the list changes.
    changed: WaitQueue,
}

/// Watches belong to an open file and the number it was added by.
type Key = (i32, usize);

#[derive(Clone)]
struct Watch {
    file: Weak<OpenFile>,
    /// Wanted `EPOLL*` bits.
    events: u32,
    data: u64,
    /// `EPOLLONESHOT` has fired.
    spent: bool,
}

/// One line of an `epoll_wait` result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `EPOLL*` bits.
    pub events: u32,
    /// What the caller attached to the file.
    pub data: u64,
}

/// A change of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A new file.
    Add(Event),
    /// New bits for a known one.
    Modify(Event),
    /// Not any more.
    Delete,
}

const MAX_WATCHES: usize = 1 << 14;

impl Epoll {
    /// An empty list.
    pub const fn new() -> Epoll {
        Epoll { watches: Lock::new(BTreeMap::new()), changed: WaitQueue::new() }
    }

    /// Changes the list.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`, `ENOSPC`, `EINVAL` (edge triggering).
    pub fn control(&self, fd: i32, file: &Arc<OpenFile>, control: Control) -> Result<(), Errno> {
        let key = (fd, Arc::as_ptr(file) as usize);
        let mut watches = self.watches.lock();
        // A closed file's address may be used again.
        if watches.get(&key).is_some_and(|w| w.file.strong_count() == 0) {
            watches.remove(&key);
        }
        match control {
            Control::Add(event) => {
                if watches.contains_key(&key) {
                    return Err(Errno::EEXIST);
                }
                if watches.len() >= MAX_WATCHES {
                    return Err(Errno::ENOSPC);
                }
                watches.insert(key, Watch::new(file, event)?);
            }
            Control::Modify(event) => {
                let watch = watches.get_mut(&key).ok_or(Errno::ENOENT)?;
                *watch = Watch::new(file, event)?;
            }
            Control::Delete => {
                watches.remove(&key).ok_or(Errno::ENOENT)?;
            }
        }
        drop(watches);
        self.changed.wake_all();
        Ok(())
    }

    /// Registers `thread` for changes of any of the files.
    pub fn register(&self, thread: &Arc<Thread>) {
        self.changed.register(thread);
        for (_, watch) in self.snapshot() {
            if let Some(file) = watch.file.upgrade() {
                file.register(thread);
            }
        }
    }

    /// Up to `limit` files that are ready.
    pub fn ready(&self, limit: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, watch) in self.snapshot() {
            if events.len() == limit {
                break;
            }
            let Some(file) = watch.file.upgrade() else { continue };
            let now = if watch.spent { 0 } else { file.readiness().wanted(watch.events) };
            if now != 0 {
                events.push(Event { events: now, data: watch.data });
                if watch.events & linux::EPOLLONESHOT != 0 {
                    self.spend(key);
                }
            }
        }
        events
    }

    /// Whether any file is ready.
    pub fn is_ready(&self) -> bool {
        self.snapshot().iter().any(|(_, watch)| {
            let file = watch.file.upgrade();
            !watch.spent && file.is_some_and(|f| f.readiness().wanted(watch.events) != 0)
        })
    }

    fn spend(&self, key: Key) {
        if let Some(watch) = self.watches.lock().get_mut(&key) {
            watch.spent = true;
        }
    }

    /// The list without the files that are gone: looking at files needs their locks, not ours.
    fn snapshot(&self) -> Vec<(Key, Watch)> {
        let mut watches = self.watches.lock();
        watches.retain(|_, watch| watch.file.strong_count() > 0);
        watches.iter().map(|(key, watch)| (*key, watch.clone())).collect()
    }
}

impl Watch {
    fn new(file: &Arc<OpenFile>, event: Event) -> Result<Watch, Errno> {
        if event.events & (linux::EPOLLET | linux::EPOLLEXCLUSIVE) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Watch { file: Arc::downgrade(file), events: event.events, data: event.data, spent: false })
    }
}
