//! Time: a monotonic clock from the time stamp counter, and the time of day on top of it.
//!
//! Called by timers, accounting and the time system calls. The counter is calibrated once at boot
//! against the local APIC's timer, which runs at a known rate under the emulator (the 8254 is not
//! there on every machine type). The counters of the CPUs are taken as synchronous.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{apic, cpu, rtc};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Counter value that is time zero.
static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per counter tick, times 2^32.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Time of day at time zero, ns since 1970.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Calibrates the clock. The first CPU does this once, its APIC being on.
///
/// The state is plain numbers written before the other CPUs start, hence `Relaxed`.
pub fn init() {
    let hz = calibrate();
    START.store(cpu::timestamp(), Ordering::Relaxed);
    SCALE.store(((u128::from(SECOND) << 32) / u128::from(hz)) as u64, Ordering::Relaxed);
    EPOCH.store(rtc::unix_seconds() * SECOND, Ordering::Relaxed);
}

/// Nanoseconds since boot.
#[inline]
pub fn monotonic() -> u64 {
    let ticks = cpu::timestamp().wrapping_sub(START.load(Ordering::Relaxed));
    // A counter that lags on another CPU must not wrap to the far future.
    let ticks = if ticks.cast_signed() < 0 { 0 } else { ticks };
    ticks_to_ns(ticks)
}

/// Counter ticks as nanoseconds.
#[inline]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since 1970.
pub fn realtime() -> u64 {
    EPOCH.load(Ordering::Relaxed) + monotonic()
}

/// What to add to monotonic time to get the time of day.
pub fn realtime_offset() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Counter ticks per second.
///
/// Both ends are read several times and the tightest pair is used: a host that takes the CPU away
/// between two reads would otherwise spoil the result.
fn calibrate() -> u64 {
    /// A hundredth of a second.
    const SPAN: u64 = apic::TIMER_HZ / 100;
    apic::start_free_run();
    let (start_timer, start_tsc) = paired_read();
    while u64::from(start_timer - apic::timer_count()) < SPAN {
        core::hint::spin_loop();
    }
    let (end_timer, end_tsc) = paired_read();
    apic::end_free_run();
    let timer_ticks = u64::from(start_timer - end_timer);
    let tsc_ticks = u128::from(end_tsc - start_tsc);
    (tsc_ticks * u128::from(apic::TIMER_HZ) / u128::from(timer_ticks)) as u64
}

fn paired_read() -> (u32, u64) {
    let mut best = (0, 0);
    let mut tightest = u64::MAX;
    for _ in 0..8 {
        let before = cpu::timestamp();
        let timer = apic::timer_count();
        let after = cpu::timestamp();
        if after - before < tightest {
            tightest = after - before;
            best = (timer, before + (after - before) / 2);
        }
    }
    best
}

/// Makes this CPU's timer go off at `deadline` (monotonic), or as near before it as it reaches.
pub fn arm(deadline: u64) {
    let wait = deadline.saturating_sub(monotonic());
    let ticks = u128::from(wait) * u128::from(apic::TIMER_HZ) / u128::from(SECOND);
    apic::set_timer(u32::try_from(ticks).unwrap_or(u32::MAX));
}
