//! Collapsing unasked: from time to time, small pages of memory that wants large ones become large pages.
//!
//! Called by the run loop when the timer has gone off, between threads' stretches of user mode: no fault waits for it but
//! those of the range that is being collapsed. The figures are below /sys/kernel/mm/transparent_hugepage/khugepaged. Absent
//! on purpose: limits on how empty a range may be (as by Linux's defaults, one page is enough), and any look at age.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use faultless::{AreaFlags, AreaInfo, HugePages, PageRange, Sharing, VirtAddr};

use crate::arch::CpuLocal;
use crate::clock;
use crate::machine::{self, KernelMachine};
use crate::process::{Memory, table};
use crate::sched::{self, Timer, TimerId};
use crate::sync::Lock;

/// Bytes of a large page.
const LARGE: u64 = 2 << 20;
/// Pages of one.
const PAGES: u64 = 512;
/// Most pages of a range that others have too, as Linux's `max_ptes_shared` is at first.
const MOST_SHARED: u64 = PAGES / 2;

/// A figure that can be read, and perhaps set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Pages to look at before each sleep.
    PagesToScan,
    /// How long to sleep.
    SleepMillis,
    /// Large pages made.
    Collapsed,
    /// How often all memory was looked at.
    FullScans,
}

/// All of them, by name.
pub const FIGURES: [(&str, Figure); 4] = [
    ("pages_to_scan", Figure::PagesToScan),
    ("scan_sleep_millisecs", Figure::SleepMillis),
    ("pages_collapsed", Figure::Collapsed),
    ("full_scans", Figure::FullScans),
];

/// In the order of [`FIGURES`].
static VALUES: [AtomicU64; 4] = [AtomicU64::new(4096), AtomicU64::new(10_000), AtomicU64::new(0), AtomicU64::new(0)];

/// The timer has gone off.
static IS_DUE: AtomicBool = AtomicBool::new(false);

struct Round {
    timer: Option<TimerId>,
    /// The process, and the address in it, from which the next scan goes on.
    next: (i32, u64),
}

static ROUND: Lock<Round> = Lock::new(Round { timer: None, next: (0, 0) });

impl Figure {
    /// Its value now.
    pub fn value(self) -> u64 {
        VALUES[self as usize].load(Ordering::Relaxed)
    }

    /// May it be set?
    pub fn is_writable(self) -> bool {
        matches!(self, Figure::PagesToScan | Figure::SleepMillis)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        FIGURES[self as usize].0
    }

    /// Sets it. A new time to sleep begins with a scan.
    pub fn set(self, value: u64) {
        VALUES[self as usize].store(value, Ordering::Relaxed);
        if self == Figure::SleepMillis {
            set_timer(clock::monotonic());
        }
    }

    fn add(self, more: u64) {
        VALUES[self as usize].fetch_add(more, Ordering::Relaxed);
    }
}

/// Sets the timer for the first scan.
pub fn start() {
    sleep();
}

fn sleep() {
    const MILLISECOND: u64 = 1_000_000;
    set_timer(clock::monotonic().saturating_add(Figure::SleepMillis.value().saturating_mul(MILLISECOND)));
}

fn set_timer(deadline: u64) {
    let mut round = ROUND.lock();
    if let Some(timer) = round.timer.take() {
        sched::cancel(timer);
    }
    round.timer = Some(sched::schedule(deadline, Timer::Collapse));
}

/// The timer has gone off.
pub fn note_due() {
    IS_DUE.store(true, Ordering::Relaxed);
}

/// Scans if it is time to.
pub fn run_if_due(cpu: &mut CpuLocal) {
    if !IS_DUE.load(Ordering::Relaxed) || !IS_DUE.swap(false, Ordering::Relaxed) {
        return;
    }
    if machine::vm().huge_pages() != HugePages::Never {
        scan(cpu);
    }
    sleep();
}

/// Looks at as many pages as it may, from where the last scan ended.
fn scan(cpu: &mut CpuLocal) {
    let mut budget = Figure::PagesToScan.value();
    let (first, mut from) = ROUND.lock().next;
    for process in table::all().into_iter().filter(|process| process.pid >= first) {
        let memory = process.memory();
        if process.pid != first {
            from = 0;
        }
        if process.is_zombie() || !memory.space().is_huge_allowed() {
            continue;
        }
        for start in candidates(cpu, &memory, from) {
            if budget == 0 {
                ROUND.lock().next = (process.pid, start);
                return;
            }
            // With fewer than a large page's worth, too, a scan gets on.
            budget = budget.saturating_sub(PAGES);
            collapse(cpu, &memory, start);
        }
    }
    ROUND.lock().next = (0, 0);
    Figure::FullScans.add(1);
}

/// Where large pages could be, from `from` on.
fn candidates(cpu: &mut CpuLocal, memory: &Arc<Memory>, from: u64) -> Vec<u64> {
    let always = machine::vm().huge_pages() == HugePages::Always;
    let mut starts = Vec::new();
    memory.space().areas(&mut cpu.vm, |area| {
        if !wants_large(&area, always) {
            return;
        }
        let low = area.range.start().as_u64().max(from).next_multiple_of(LARGE);
        let high = area.range.end().as_u64() / LARGE * LARGE;
        // Without room, the rest is for a later scan.
        for start in (low..high).step_by(LARGE as usize) {
            if starts.try_reserve(1).is_err() {
                return;
            }
            starts.push(start);
        }
    });
    starts
}

fn wants_large(area: &AreaInfo<KernelMachine>, always: bool) -> bool {
    let wanted = area.flags.contains(AreaFlags::HUGE) || always && !area.flags.contains(AreaFlags::NO_HUGE);
    let refused = AreaFlags::GROWS_DOWN | AreaFlags::RAW | AreaFlags::HUGETLB;
    let private = area.object.is_none() && area.sharing == Sharing::Private;
    wanted && private && !area.rights.is_none() && !area.flags.intersects(refused)
}

fn collapse(cpu: &mut CpuLocal, memory: &Memory, start: u64) {
    let Ok(range) = PageRange::with_len(VirtAddr::new(start), LARGE) else { return };
    let (mut resident, mut shared, mut is_large) = (0, 0, false);
    memory.space().pages(&mut cpu.vm, range, |page| {
        resident += 1;
        shared += u64::from(page.is_shared());
        is_large |= page.large;
    });
    // What changes meanwhile is looked at again there: areas, pins, who watches.
    if resident != 0 && shared <= MOST_SHARED && !is_large && memory.space().collapse(&mut cpu.vm, range).is_ok() {
        Figure::Collapsed.add(1);
    }
}
