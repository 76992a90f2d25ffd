//! What files may take of the kernel heap.
//!
//! Called when a file is created, opened, or a pipe made. The heap does not grow, and most allocations in
//! the kernel cannot fail gracefully: so users are refused (`ENOSPC`, `ENFILE`, smaller pipes) long
//! before it is full. The shares leave half of it to processes and mappings.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;

/// Heap that one named file may cost: inode, name, places in the indexes, object.
const BYTES_PER_NAME: usize = 2048;
/// Heap that one open file may cost besides.
const BYTES_PER_OPEN: usize = 2048;
/// The share of the heap that rings of pipes may take together.
const PIPE_SHARE: usize = 8;

/// A number of things with a limit.
struct Quota {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Quota {
    const fn new() -> Quota {
        Quota { used: AtomicUsize::new(0), limit: AtomicUsize::new(0) }
    }

    /// Adds `count` unless that passes the limit. Says whether it did.
    fn try_add(&self, count: usize) -> bool {
        let used = self.used.fetch_add(count, Ordering::Relaxed);
        let fits = used + count <= self.limit.load(Ordering::Relaxed);
        if !fits {
            self.used.fetch_sub(count, Ordering::Relaxed);
        }
        fits
    }

    fn subtract(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    fn figures(&self) -> (usize, usize) {
        (self.used.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }
}

static NAMED: Quota = Quota::new();
static OPEN: Quota = Quota::new();
static PIPES: Quota = Quota::new();

/// Sets the limits for a heap of this size.
pub fn init(heap_bytes: usize) {
    NAMED.limit.store(heap_bytes / 4 / BYTES_PER_NAME, Ordering::Relaxed);
    OPEN.limit.store(heap_bytes / 8 / BYTES_PER_OPEN, Ordering::Relaxed);
    PIPES.limit.store(heap_bytes / PIPE_SHARE, Ordering::Relaxed);
}

/// Accounts for a file that gets its first name.
///
/// # Errors
///
/// `ENOSPC`.
pub fn add_name() -> Result<(), Errno> {
    if NAMED.try_add(1) { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Accounts for a file that has no name any more.
pub fn remove_name() {
    NAMED.subtract(1);
}

/// Files that have a name, and how many may.
pub fn names() -> (usize, usize) {
    NAMED.figures()
}

/// Files that are open, and how many may be.
pub fn open_files() -> (usize, usize) {
    OPEN.figures()
}

/// An open file that is accounted for.
pub struct OpenTicket(());

impl OpenTicket {
    /// Accounts for one more.
    ///
    /// # Errors
    ///
    /// `ENFILE`.
    pub fn new() -> Result<OpenTicket, Errno> {
        if OPEN.try_add(1) { Ok(OpenTicket(())) } else { Err(Errno::ENFILE) }
    }
}

impl Drop for OpenTicket {
    fn drop(&mut self) {
        OPEN.subtract(1);
    }
}

/// Accounts for `bytes` that a pipe may hold. Says whether it may.
pub fn add_pipe_bytes(bytes: usize) -> bool {
    PIPES.try_add(bytes)
}

/// Gives `bytes` of a pipe back.
pub fn remove_pipe_bytes(bytes: usize) {
    PIPES.subtract(bytes);
}
