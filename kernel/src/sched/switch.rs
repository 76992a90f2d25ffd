//! What changes on a CPU when it starts and stops working for a thread.

use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};

use super::{Thread, timers};
use crate::arch::{CpuLocal, UserContext, cpu, fpu, gdt};
use crate::process::Usage;
use crate::{clock, fs, machine};

/// Length of a time slice.
pub const SLICE: u64 = 10_000_000;

/// Makes `thread` current on this CPU.
pub(super) fn enter(local: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext) {
    let index = local.index();
    thread.cpu.store(index as u32, Ordering::Relaxed);
    // Pairs with the fence in `queue::kick`.
    fence(Ordering::SeqCst);
    machine::switch_memory(local, Some(thread.process.memory()));
    cpu::set_fs_base(context.fs_base);
    cpu::set_user_gs_base(context.gs_base);
    fpu::load(&mut context.fx);
    local.head.frame_top = context.frame_top();
    gdt::set_frame_top(index, context.frame_top());
    local.thread = Some(thread.clone());
    fs::note_running(thread.tid);
    local.stretch_start = cpu::timestamp();
    begin_slice(local, clock::monotonic());
}

/// Gives the current thread a full time slice.
pub(super) fn begin_slice(local: &mut CpuLocal, now: u64) {
    local.slice_end = now + SLICE;
    timers::arm(local.index(), Some(local.slice_end));
}

/// Completes the context of the current thread, so that any CPU can run it next. The memory stays
/// loaded: the next thread may use the same.
pub(super) fn leave(local: &mut CpuLocal, thread: &Thread, context: &mut UserContext) {
    fpu::save(&mut context.fx);
    end_user_stretch(local, thread);
    local.thread = None;
}

/// The time since the last call of one of these two was user time. Also counts the faults since
/// then: a system call may ask for them.
#[inline]
pub(crate) fn end_user_stretch(local: &mut CpuLocal, thread: &Thread) {
    Usage::add_own(&thread.usage.user, stretch(local));
    if local.minor_faults | local.major_faults != 0 {
        Usage::add_own(&thread.usage.minor, core::mem::take(&mut local.minor_faults));
        Usage::add_own(&thread.usage.major, core::mem::take(&mut local.major_faults));
    }
}

/// The time since the last call of one of these two was system time.
#[inline]
pub(crate) fn end_system_stretch(local: &mut CpuLocal, thread: &Thread) {
    Usage::add_own(&thread.usage.system, stretch(local));
}

#[inline]
fn stretch(local: &mut CpuLocal) -> u64 {
    let now = cpu::timestamp();
    let start = core::mem::replace(&mut local.stretch_start, now);
    // A counter that lags on another CPU cannot be: a stretch begins and ends on one CPU.
    clock::ticks_to_ns(now.saturating_sub(start))
}
