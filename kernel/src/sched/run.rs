//! The loop that each CPU runs: pick a thread, run it in user mode, handle its traps.
//!
//! Before each entry to user mode it looks at two words: the thread's attention flag (signals,
//! kills) and the interrupts noted on this CPU (timer, console, kicks).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Interrupt, Outcome, Restart, RestartKind, Thread, Timer, pressure, queue, switch, timers};
use crate::arch::idt::vector;
use crate::arch::trap::{self, Leave, Noted, Trap};
use crate::arch::{CpuLocal, UserContext, cpu, enter_user};
use crate::errno::Errno;
use crate::signal::{self, Verdict};
use crate::{clock, fs, heap, khugepaged, machine, retired, start, syscall};
use faultless::FaultError;

/// Why a CPU stops working for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It waits.
    Parked,
    /// Another thread's turn.
    Preempted,
    /// It is gone.
    Exited,
}

/// Runs threads on this CPU for ever.
pub fn run(local: &mut CpuLocal) -> ! {
    let me = local.index();
    queue::set_online(me);
    loop {
        look_around(local);
        start::retire_if_over(local);
        if let Some(thread) = queue::next(me).or_else(|| idle(local)) {
            run_thread(local, &thread);
        }
    }
}

/// Looks for work, this CPU being announced as idle, and halts until something happens if there
/// is none. It halts on the kernel's own root: a space must be able to end while CPUs that once
/// used it sleep.
fn idle(local: &mut CpuLocal) -> Option<Arc<Thread>> {
    let me = local.index();
    machine::switch_memory(local, None);
    // What this CPU has retired would stay with it as long as it sleeps.
    let rest = (!retired::free_mine(local)).then(|| clock::monotonic() + retired::PAUSE);
    queue::announce_idle(me);
    // Whoever queues a thread for this CPU from here on sends an interrupt. Taking a lock may halt
    // for a moment and take that interrupt, which leaves a note: so the notes are looked at last.
    let found = queue::next(me);
    if found.is_none() {
        timers::arm(me, rest);
        if !trap::has_noted() {
            cpu::wait_for_interrupt();
        }
    }
    queue::end_idle(me);
    found
}

fn run_thread(local: &mut CpuLocal, thread: &Arc<Thread>) {
    // SAFETY: it came out of a run queue, so it is current here and nowhere else; the reference
    // ends before the thread is parked or queued again.
    let context = unsafe { thread.context_mut() };
    switch::enter(local, thread, context);
    if let Some(timer) = context.restart.timer.take() {
        timers::cancel(timer);
    }
    let why = stay(local, thread, context);
    if why == Why::Exited {
        local.thread = None;
        thread.set_dead();
        return;
    }
    switch::leave(local, thread, context);
    match why {
        Why::Parked => park(thread, context),
        _ => {
            thread.usage.involuntary.fetch_add(1, Ordering::Relaxed);
            queue::enqueue(thread.clone());
        }
    }
}

/// Parks the thread, its timer set; queues it instead if it was woken meanwhile.
fn park(thread: &Arc<Thread>, context: &mut UserContext) {
    thread.usage.voluntary.fetch_add(1, Ordering::Relaxed);
    if let Some(deadline) = context.restart.deadline {
        let timer = Timer::Wake(thread.clone(), thread.current_wait());
        context.restart.timer = Some(timers::schedule(deadline, timer));
    }
    if !thread.park() {
        queue::enqueue(thread.clone());
    }
}

/// Works for the thread until it has to give way.
fn stay(local: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext) -> Why {
    let mut leave = Leave::Full;
    if still_waits(thread, context) {
        return Why::Parked;
    }
    // Answered or interrupted: what waited is done again.
    context.waiter = None;
    loop {
        if thread.take_attention() {
            leave = Leave::Full;
            thread.begin_call();
            match signal::before_user(local, thread, context) {
                Verdict::Go => {}
                Verdict::Stop => return Why::Parked,
                Verdict::Exit => return Why::Exited,
            }
        }
        if context.restart.again {
            leave = Leave::Full;
            match system_call(local, thread, context) {
                Next::User => {}
                Next::Again => continue,
                Next::Give(why) => return why,
            }
        }
        if trap::has_noted() && look_around(local) || core::mem::take(&mut local.yield_now) {
            return Why::Preempted;
        }
        if thread.wants_attention() {
            continue;
        }
        match enter_user(local, context, leave) {
            Trap::Syscall => {
                leave = Leave::AfterSyscall;
                match system_call(local, thread, context) {
                    Next::User => {}
                    Next::Again => leave = Leave::Full,
                    Next::Give(why) => return why,
                }
            }
            other => {
                leave = Leave::Full;
                if other_trap(local, thread, context, other) == Then::Wait {
                    return Why::Parked;
                }
            }
        }
    }
}

/// What follows a system call.
enum Next {
    /// User mode.
    User,
    /// User mode with all registers, or a look at signals first.
    Again,
    /// The thread leaves this CPU.
    Give(Why),
}

fn system_call(local: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext) -> Next {
    thread.begin_call();
    switch::end_user_stretch(local, thread);
    let outcome = if let RestartKind::Caused(caused) = &context.restart.kind {
        caused.poll(thread).map_or(Outcome::Block, Outcome::Done)
    } else if heap::is_low() && pressure::refuses(context.syscall_number()) {
        Errno::ENOMEM.into()
    } else {
        let outcome = syscall::dispatch(thread, local, context);
        let outcome =
            if local.failed_fault.take().is_some() { after_report(thread, context, outcome) } else { outcome };
        after_events(thread, context, outcome)
    };
    let next = match outcome {
        Outcome::Done(value) => {
            context.set_result(value);
            end_call(thread, context);
            Next::User
        }
        Outcome::Switched => {
            end_call(thread, context);
            Next::Again
        }
        Outcome::Exit => return Next::Give(Why::Exited),
        Outcome::Block => {
            context.restart.again = true;
            if signal::is_interrupted(thread, context.restart.interrupt) {
                thread.note_attention();
                Next::Again
            } else {
                Next::Give(Why::Parked)
            }
        }
    };
    switch::end_system_stretch(local, thread);
    next
}

/// Forgets the state of a call that is over.
fn end_call(thread: &Thread, context: &mut UserContext) {
    if !context.restart.is_used() {
        return;
    }
    let restart = core::mem::take(&mut context.restart);
    if restart.interrupt == Interrupt::KillOnly {
        // Signals that came meanwhile were left alone.
        thread.note_attention();
    }
    if let Some(mask) = restart.saved_mask {
        thread.set_blocked(mask);
    }
}

/// What follows another trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// User mode, or what the thread's attention is wanted for.
    Go,
    /// The thread waits for an answer.
    Wait,
}

fn other_trap(local: &mut CpuLocal, thread: &Arc<Thread>, context: &mut UserContext, trap: Trap) -> Then {
    match trap {
        Trap::Interrupt(number) => trap::note_interrupt(number),
        Trap::PageFault => {
            if let Some((address, error)) = local.failed_fault.take() {
                if error == FaultError::Watched {
                    return wait_for_answer(thread, context);
                }
                context.note_trap(vector::PAGE_FAULT, address);
                signal::page_fault(local, thread, address, error);
            }
        }
        Trap::Exception(number) => {
            context.note_trap(number, 0);
            signal::exception(local, thread, context, number);
        }
        Trap::Syscall => {}
    }
    Then::Go
}

/// Has the thread wait until its access, which was reported, is answered.
fn wait_for_answer(thread: &Arc<Thread>, context: &mut UserContext) -> Then {
    let Some(waiter) = fs::take_waiting() else { return Then::Go };
    thread.begin_call();
    waiter.register(thread);
    // Looked at after the registration: a later answer, or signal, finds the thread registered or running.
    if waiter.is_over() || thread.wants_attention() {
        return Then::Go;
    }
    context.waiter = Some(waiter);
    Then::Wait
}

/// Must the thread go on waiting for the answer to its access? An answer wakes all who wait for the same descriptor; who
/// would repeat the access without need would have it reported twice.
fn still_waits(thread: &Arc<Thread>, context: &UserContext) -> bool {
    let Some(waiter) = &context.waiter else { return false };
    thread.begin_call();
    waiter.register(thread);
    !waiter.is_over() && !thread.wants_attention()
}

/// If the call has caused events of a `userfaultfd`, it returns when somebody has read them.
#[inline]
fn after_events(thread: &Arc<Thread>, context: &mut UserContext, outcome: Outcome) -> Outcome {
    let Outcome::Done(result) = outcome else { return outcome };
    let Some(caused) = fs::take_caused(result) else { return outcome };
    let done = caused.poll(thread);
    context.restart.interrupt = Interrupt::KillOnly;
    context.restart.kind = RestartKind::Caused(caused);
    done.map_or(Outcome::Block, Outcome::Done)
}

/// If an access to user memory by the call was reported, the call waits for the answer and is executed again. Not if it
/// has done a part: it returns that.
fn after_report(thread: &Arc<Thread>, context: &mut UserContext, outcome: Outcome) -> Outcome {
    let Some(waiter) = fs::take_waiting() else { return outcome };
    if outcome != Errno::EFAULT.into() || waiter.is_user_mode_only() {
        return outcome;
    }
    waiter.register(thread);
    if waiter.is_over() {
        // The answer came before the registration: wake ourselves, so that the call is executed again at once.
        super::wake(thread);
    }
    context.waiter = Some(waiter);
    context.restart.interrupt = Interrupt::KillOnly;
    Outcome::Block
}

/// Handles the interrupts noted on this CPU. Says whether the current thread's time is up and
/// another one waits.
fn look_around(local: &mut CpuLocal) -> bool {
    let me = local.index();
    let noted = trap::take_noted();
    if noted.contains(Noted::SERIAL) {
        // The console takes as much as it has room for; the rest holds the sender up.
        fs::console_input(local);
    }
    retired::free_if_asked(local);
    if !noted.contains(Noted::TIMER) {
        return false;
    }
    timers::expire(me);
    // Nor may it stay with a CPU whose threads compute.
    retired::free_mine(local);
    khugepaged::run_if_due(local);
    if local.thread.is_none() {
        return false;
    }
    let now = clock::monotonic();
    if now < local.slice_end {
        timers::arm(me, Some(local.slice_end));
        return false;
    }
    if queue::has_waiting(me) {
        return true;
    }
    switch::begin_slice(local, now);
    false
}

/// Makes the current thread give way to others when its system call is done.
pub fn request_yield(local: &mut CpuLocal) {
    local.yield_now = true;
}

impl Restart {
    /// Whether anything differs from a fresh call.
    fn is_used(&self) -> bool {
        self.again
            || self.deadline.is_some()
            || self.progress != 0
            || self.saved_mask.is_some()
            || self.interrupt != Interrupt::Restartable
            || !matches!(self.kind, RestartKind::None)
    }
}
