//! Advisory locks: `flock`, and the record locks of `fcntl` in both of their kinds.
//!
//! Called by the system calls, by file tables when a descriptor is closed, and by open files when they
//! end. A lock that is held by another owner is `EAGAIN`; the system call decides whether to wait.
//!
//! Whole-file locks and record locks do not see each other, as on Linux.
//!
//! Absent on purpose: the search for deadlocks (`EDEADLK`), leases.

use alloc::vec::Vec;

use crate::errno::Errno;
use crate::sched::WaitQueue;
use crate::sync::Lock;

/// Whose a lock is. Open files are named by their addresses: none of their locks outlives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A file table: record locks of `F_SETLK`.
    Table {
        /// Its number.
        id: u64,
        /// The process, for `F_GETLK`.
        pid: i32,
    },
    /// An open file: record locks of `F_OFD_SETLK`.
    Open(usize),
    /// An open file: `flock`.
    Whole(usize),
}

/// Who may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Other shared locks.
    Shared,
    /// Nobody.
    Exclusive,
}

/// A run of bytes with an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub last: u64,
    /// Who may hold it besides.
    pub kind: Kind,
    /// Whose it is.
    pub owner: Owner,
}

/// Most records of one file: each costs kernel heap.
const RECORDS_MAX: usize = 1024;

/// The locks of a file.
pub struct Locks(Lock<Vec<Record>>);

/// Woken whenever a lock is released; those who wait look whether it concerns them.
static RELEASED: WaitQueue = WaitQueue::new();

/// Where a thread waits for any lock.
pub fn queue() -> &'static WaitQueue {
    &RELEASED
}

impl Owner {
    /// Whether both are the same owner.
    fn is(self, other: Owner) -> bool {
        match (self, other) {
            (Owner::Table { id, .. }, Owner::Table { id: other, .. }) => id == other,
            _ => self == other,
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Owner::Whole(_))
    }
}

impl Record {
    fn meets(&self, other: &Record) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// Whether `other` keeps this one from being taken.
    fn conflicts(&self, other: &Record) -> bool {
        self.owner.is_whole() == other.owner.is_whole()
            && !self.owner.is(other.owner)
            && self.meets(other)
            && (self.kind == Kind::Exclusive || other.kind == Kind::Exclusive)
    }
}

impl Locks {
    /// No locks.
    pub const fn new() -> Locks {
        Locks(Lock::new(Vec::new()))
    }

    /// The lowest of the locks that keep `wanted` from being taken.
    pub fn conflict(&self, wanted: &Record) -> Option<Record> {
        self.0.lock().iter().filter(|held| wanted.conflicts(held)).min_by_key(|held| held.start).copied()
    }

    /// Takes a lock. What the owner held in the range before is replaced.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if another owner is in the way, `ENOLCK` if there are too many.
    pub fn take(&self, wanted: Record) -> Result<(), Errno> {
        let mut records = self.0.lock();
        if records.iter().any(|held| wanted.conflicts(held)) {
            return Err(Errno::EAGAIN);
        }
        if records.len() >= RECORDS_MAX {
            return Err(Errno::ENOLCK);
        }
        // A lock may be weakened by this, so whoever waits looks again.
        cut(&mut records, &wanted);
        records.push(wanted);
        drop(records);
        RELEASED.wake_all();
        Ok(())
    }

    /// Releases what the owner of `range` holds in it; its kind does not matter.
    ///
    /// # Errors
    ///
    /// `ENOLCK` if that would leave too many pieces.
    pub fn release(&self, range: &Record) -> Result<(), Errno> {
        let mut records = self.0.lock();
        if records.len() >= RECORDS_MAX {
            return Err(Errno::ENOLCK);
        }
        cut(&mut records, range);
        drop(records);
        RELEASED.wake_all();
        Ok(())
    }

    /// Releases everything of an owner that goes away.
    pub fn forget(&self, owner: Owner) {
        let mut records = self.0.lock();
        let before = records.len();
        records.retain(|held| !held.owner.is(owner));
        let released = records.len() < before;
        drop(records);
        if released {
            RELEASED.wake_all();
        }
    }
}

/// Cuts the range out of what its owner holds.
fn cut(records: &mut Vec<Record>, range: &Record) {
    let mut pieces = Vec::new();
    records.retain(|held| {
        let concerned = held.owner.is(range.owner) && held.meets(range);
        if concerned {
            if held.start < range.start {
                pieces.push(Record { last: range.start - 1, ..*held });
            }
            if held.last > range.last {
                pieces.push(Record { start: range.last + 1, ..*held });
            }
        }
        !concerned
    });
    records.append(&mut pieces);
}
