//! Consumption of CPU time and faults, per thread, process and reaped children.
//!
//! Read by `getrusage`, `times`, `wait4` and /proc. Time in page faults that the fast path
//! resolves counts as user time: reading the clock twice per fault would cost more than it tells.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counters that only grow. Each is atomic alone; a reader may see them at different moments.
#[derive(Default)]
pub struct Usage {
    /// User time, ns.
    pub user: AtomicU64,
    /// System time, ns.
    pub system: AtomicU64,
    /// Faults resolved without input or output.
    pub minor: AtomicU64,
    /// Faults that had to fetch their page.
    pub major: AtomicU64,
    /// Switches because the thread waited.
    pub voluntary: AtomicU64,
    /// Switches because its time was up.
    pub involuntary: AtomicU64,
    /// Highest resident size in pages; taken as a maximum, not a sum.
    pub peak: AtomicU64,
}

/// A copy of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of `Usage`
pub struct UsageTotals {
    pub user: u64,
    pub system: u64,
    pub minor: u64,
    pub major: u64,
    pub voluntary: u64,
    pub involuntary: u64,
    pub peak: u64,
}

impl Usage {
    /// Adds to a counter of the thread that runs on this CPU: nobody else writes it, so no locked
    /// operation is needed.
    #[inline]
    pub(crate) fn add_own(counter: &AtomicU64, amount: u64) {
        counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn totals(&self) -> UsageTotals {
        UsageTotals {
            user: self.user.load(Ordering::Relaxed),
            system: self.system.load(Ordering::Relaxed),
            minor: self.minor.load(Ordering::Relaxed),
            major: self.major.load(Ordering::Relaxed),
            voluntary: self.voluntary.load(Ordering::Relaxed),
            involuntary: self.involuntary.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
        }
    }

    /// Adds what somebody else consumed.
    pub fn add(&self, other: UsageTotals) {
        self.user.fetch_add(other.user, Ordering::Relaxed);
        self.system.fetch_add(other.system, Ordering::Relaxed);
        self.minor.fetch_add(other.minor, Ordering::Relaxed);
        self.major.fetch_add(other.major, Ordering::Relaxed);
        self.voluntary.fetch_add(other.voluntary, Ordering::Relaxed);
        self.involuntary.fetch_add(other.involuntary, Ordering::Relaxed);
        self.peak.fetch_max(other.peak, Ordering::Relaxed);
    }
}

impl core::ops::Add for UsageTotals {
    type Output = UsageTotals;

    fn add(self, other: UsageTotals) -> UsageTotals {
        UsageTotals {
            user: self.user + other.user,
            system: self.system + other.system,
            minor: self.minor + other.minor,
            major: self.major + other.major,
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
            peak: self.peak.max(other.peak),
        }
    }
}
