//! Runs of pages: first fit in a list ordered by address, neighbours merged when given back.
//!
//! Called for allocations above 8 KiB and when a size class grows; both are rare, and the list is
//! short because runs merge.

use core::ptr::null_mut;

const PAGE: usize = 4096;

/// The free runs of the heap's region.
pub struct Runs {
    first: *mut Run,
    total: usize,
    free: usize,
}

/// Header at the start of a free run.
struct Run {
    next: *mut Run,
    bytes: usize,
}

// SAFETY: the runs are plain memory; the lock around this makes access exclusive.
unsafe impl Send for Runs {}

impl Runs {
    /// No memory at all.
    pub const fn new() -> Runs {
        Runs { first: null_mut(), total: 0, free: 0 }
    }

    /// Starts with one run.
    pub fn init(&mut self, start: usize, bytes: usize) {
        assert!(self.total == 0, "the heap has one region");
        self.total = bytes & !(PAGE - 1);
        self.give(start, self.total);
    }

    /// Bytes of the region.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes in free runs.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Takes `bytes`, page aligned or more; null if no run is long enough.
    pub fn take(&mut self, bytes: usize, align: usize) -> *mut u8 {
        let bytes = bytes.next_multiple_of(PAGE);
        let align = align.max(PAGE);
        let mut link: *mut *mut Run = &raw mut self.first;
        loop {
            // SAFETY: `link` is the list head or the `next` of a free run.
            let run = unsafe { *link };
            if run.is_null() {
                return null_mut();
            }
            // SAFETY: runs in the list are free memory with a header.
            let run_bytes = unsafe { (*run).bytes };
            let start = (run as usize).next_multiple_of(align);
            let skipped = start - run as usize;
            if run_bytes >= skipped + bytes {
                self.cut(link, skipped, bytes);
                return start as *mut u8;
            }
            // SAFETY: as above.
            link = unsafe { &raw mut (*run).next };
        }
    }

    /// Takes `bytes` at offset `skipped` out of the run that `link` points to.
    fn cut(&mut self, link: *mut *mut Run, skipped: usize, bytes: usize) {
        // SAFETY: the caller found the run through this link.
        let run = unsafe { *link };
        // SAFETY: runs in the list have a header.
        let Run { next, bytes: total } = unsafe { run.read() };
        let rest = total - skipped - bytes;
        let after = if rest > 0 {
            let tail = (run as usize + skipped + bytes) as *mut Run;
            // SAFETY: the end of the run, which stays free.
            unsafe { tail.write(Run { next, bytes: rest }) };
            tail
        } else {
            next
        };
        if skipped > 0 {
            // SAFETY: the start of the run stays free, its header is rewritten.
            unsafe { run.write(Run { next: after, bytes: skipped }) };
        } else {
            // SAFETY: the link leads past what was taken.
            unsafe { *link = after };
        }
        self.free -= bytes;
    }

    /// Gives a run back.
    pub fn give(&mut self, start: usize, bytes: usize) {
        let bytes = bytes.next_multiple_of(PAGE);
        self.free += bytes;
        let mut before: *mut Run = null_mut();
        let mut after = self.first;
        while !after.is_null() && (after as usize) < start {
            before = after;
            // SAFETY: runs in the list have a header.
            after = unsafe { (*after).next };
        }
        let run = start as *mut Run;
        // SAFETY: the caller gives this memory up.
        unsafe { run.write(Run { next: after, bytes }) };
        merge(run);
        if before.is_null() {
            self.first = run;
        } else {
            // SAFETY: `before` is a run of the list.
            unsafe { (*before).next = run };
            merge(before);
        }
    }
}

/// Joins `run` with its successor if they touch.
fn merge(run: *mut Run) {
    // SAFETY: the caller's run has a header.
    let Run { next, bytes } = unsafe { run.read() };
    if !next.is_null() && run as usize + bytes == next as usize {
        // SAFETY: the successor is a run of the list.
        let joined = unsafe { next.read() };
        // SAFETY: the caller's run, now longer.
        unsafe { run.write(Run { next: joined.next, bytes: bytes + joined.bytes }) };
    }
}
