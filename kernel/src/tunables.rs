//! What root may set in /proc/sys/vm: how much memory may be promised, how many areas a process may have.
//!
//! Called by /proc, at boot, and where processes get their limits. The figures of Linux's documentation
//! (proc_sys_vm(5), overcommit-accounting): with mode 2, `overcommit_ratio` percent of all memory may be promised, or
//! `overcommit_kbytes` if that is not zero; setting one clears the other. A process leaves a 32nd of what it maps to
//! others, `user_reserve_kbytes` at most. Not here: the reserve for root, which every process of this kernel is.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use faultless::CommitPolicy;

use crate::errno::Errno;
use crate::machine;
use crate::process::table;

static MODE: AtomicU64 = AtomicU64::new(0);
static RATIO: AtomicU64 = AtomicU64::new(50);
static KBYTES: AtomicU64 = AtomicU64::new(0);
static RESERVE: AtomicU64 = AtomicU64::new(0);
static MAP_COUNT: AtomicU64 = AtomicU64::new(65_530);

/// KiB in a page.
const PAGE_KIB: u64 = faultless::PAGE_SIZE / 1024;

/// Sets what Linux begins with.
pub fn init() {
    // Three percent of what is free, 128 MiB at most.
    let free = machine::vm().stats().free_frames * PAGE_KIB;
    RESERVE.store((free / 32).min(128 << 10), Relaxed);
    apply();
}

/// `vm.max_map_count`: areas that a process may have.
pub fn max_map_count() -> u64 {
    MAP_COUNT.load(Relaxed)
}

/// How many pages mode 2 lets all processes together have.
pub fn commit_limit() -> u64 {
    match KBYTES.load(Relaxed) {
        0 => u64::try_from(u128::from(machine::vm().stats().total_frames) * u128::from(RATIO.load(Relaxed)) / 100)
            .unwrap_or(u64::MAX),
        kbytes => kbytes / PAGE_KIB,
    }
}

/// The value of a file below /proc/sys/vm that can be set.
pub fn get(path: &str) -> Option<u64> {
    find(path).map(|value| value.load(Relaxed))
}

/// Sets the value of a file below /proc/sys/vm.
///
/// # Errors
///
/// `EACCES` if it cannot be set, `EINVAL` if it cannot be that.
pub fn set(path: &str, value: u64) -> Result<(), Errno> {
    let place = find(path).ok_or(Errno::EACCES)?;
    let most = match path {
        "vm/overcommit_memory" => 2,
        "vm/overcommit_ratio" | "vm/max_map_count" => i32::MAX as u64,
        _ => u64::MAX / 1024,
    };
    if value > most {
        return Err(Errno::EINVAL);
    }
    place.store(value, Relaxed);
    match path {
        "vm/overcommit_ratio" => KBYTES.store(0, Relaxed),
        "vm/overcommit_kbytes" => RATIO.store(0, Relaxed),
        "vm/max_map_count" => table::all().iter().for_each(|process| process.apply_limits()),
        _ => {}
    }
    apply();
    Ok(())
}

fn find(path: &str) -> Option<&'static AtomicU64> {
    Some(match path {
        "vm/overcommit_memory" => &MODE,
        "vm/overcommit_ratio" => &RATIO,
        "vm/overcommit_kbytes" => &KBYTES,
        "vm/user_reserve_kbytes" => &RESERVE,
        "vm/max_map_count" => &MAP_COUNT,
        _ => return None,
    })
}

fn apply() {
    machine::vm().set_commit_policy(match MODE.load(Relaxed) {
        0 => CommitPolicy::Heuristic,
        1 => CommitPolicy::Always,
        _ => CommitPolicy::Strict { limit: commit_limit(), reserve: RESERVE.load(Relaxed) / PAGE_KIB },
    });
}
