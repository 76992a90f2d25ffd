//! `membarrier`: memory barriers on the CPUs that run a process, or on all.
//!
//! An interrupt to every other CPU, whose answer is a barrier there, serves every kind: more CPUs take part than need be.
//! The kind that synchronises instruction fetches has them load their root table again, which serialises, if it is that
//! of the process; who comes to run it later loads it too. Absent on purpose, and therefore `EINVAL`: restartable
//! sequences.

use core::sync::atomic::Ordering;

use faultless::{CpuId, CpuSet, Flush, FrameId, Scope};

use crate::arch::tlb;
use crate::errno::{Errno, SysResult};
use crate::sched;
use crate::syscall::call::Call;

const QUERY: u32 = 0;
const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 1 << 1;
const REGISTER_GLOBAL: u32 = 1 << 2;
const PRIVATE: u32 = 1 << 3;
const REGISTER_PRIVATE: u32 = 1 << 4;
const SYNC_CORE: u32 = 1 << 5;
const REGISTER_SYNC_CORE: u32 = 1 << 6;
const REGISTRATIONS: u32 = 1 << 9;
const ALL: u32 = GLOBAL
    | GLOBAL_EXPEDITED
    | REGISTER_GLOBAL
    | PRIVATE
    | REGISTER_PRIVATE
    | SYNC_CORE
    | REGISTER_SYNC_CORE
    | REGISTRATIONS;

pub(in crate::syscall) fn membarrier(call: &mut Call<'_>) -> SysResult {
    let (command, flags) = (call.uint(0), call.uint(1));
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let memory = call.process().memory();
    // Relaxed: a thread that registered orders its own later calls; others learn of it by other means.
    let registered = memory.barriers.load(Ordering::Relaxed);
    match command {
        QUERY => return Ok(i64::from(ALL)),
        REGISTRATIONS => return Ok(i64::from(registered)),
        REGISTER_GLOBAL | REGISTER_PRIVATE | REGISTER_SYNC_CORE => {
            memory.barriers.fetch_or(command, Ordering::Relaxed);
        }
        GLOBAL | GLOBAL_EXPEDITED => interrupt(call, None),
        PRIVATE | SYNC_CORE if registered & command << 1 == 0 => return Err(Errno::EPERM),
        PRIVATE => interrupt(call, None),
        SYNC_CORE => interrupt(call, Some(memory.space().root())),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Has all other CPUs take part, and those that run `root` load it again.
fn interrupt(call: &Call<'_>, root: Option<FrameId>) {
    let me = call.cpu.index();
    let others = sched::online_mask() & !(1 << me);
    let mut targets = CpuSet::new();
    (0..64).filter(|cpu| others >> cpu & 1 != 0).for_each(|cpu| targets.insert(CpuId::new(cpu)));
    if others != 0 {
        // No space has the root table at frame 0, which is never handed over.
        tlb::flush_remote(&targets, &Flush { root: root.unwrap_or(FrameId::new(0)), scope: Scope::All });
    }
    core::sync::atomic::fence(Ordering::SeqCst);
}
