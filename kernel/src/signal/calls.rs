//! The system calls about signals.

use alloc::sync::Arc;

use super::set::number::*;
use super::{Action, AlternateStack, Detail, SigInfo, SigSet, frame, is_signal, send};
use crate::arch::user::{copy_in, copy_out};
use crate::arch::{CpuLocal, UserContext};
use crate::clock;
use crate::errno::{Errno, SysResult};
use crate::process::{ExitStatus, Process, kill_group, table};
use crate::sched::{Interrupt, Outcome, Thread};

/// Size that callers must give for a signal set.
const SET_BYTES: u64 = 8;
const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;
const SS_AUTODISARM: u32 = 1 << 31;
const STACK_MIN: u64 = 2048;

fn read_words<const N: usize>(cpu: &mut CpuLocal, at: u64) -> Result<[u64; N], Errno> {
    let mut words = [0; N];
    for (n, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        copy_in(cpu, at + n as u64 * 8, &mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

fn write_words(cpu: &mut CpuLocal, at: u64, words: &[u64]) -> Result<(), Errno> {
    for (n, word) in words.iter().enumerate() {
        copy_out(cpu, at + n as u64 * 8, &word.to_le_bytes())?;
    }
    Ok(())
}

fn check_set_size(bytes: u64) -> Result<(), Errno> {
    if bytes == SET_BYTES { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `rt_sigaction(signal, action, old, set_size)`.
pub fn sys_rt_sigaction(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [signal, new, old, size, ..] = context.args();
    sigaction(thread, cpu, signal as i32, new, old, size).into()
}

fn sigaction(thread: &Thread, cpu: &mut CpuLocal, signal: i32, new: u64, old: u64, size: u64) -> SysResult {
    check_set_size(size)?;
    if !is_signal(signal) || new != 0 && matches!(signal, SIGKILL | SIGSTOP) {
        return Err(Errno::EINVAL);
    }
    let replacement = if new == 0 { None } else { Some(read_words::<4>(cpu, new)?) };
    let before = {
        let mut signals = thread.process.signals.lock();
        let before = signals.action(signal);
        if let Some([handler, flags, restorer, mask]) = replacement {
            let mask = SigSet::from_bits(mask).blockable();
            signals.actions.set(signal, Action { handler, flags, restorer, mask });
            if signals.ignores(signal) {
                signals.pending.discard(SigSet::of(signal));
            }
        }
        before
    };
    if old != 0 {
        write_words(cpu, old, &[before.handler, before.flags, before.restorer, before.mask.bits()])?;
    }
    Ok(0)
}

/// `rt_sigprocmask(how, set, old, set_size)`.
pub fn sys_rt_sigprocmask(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [how, new, old, size, ..] = context.args();
    sigprocmask(thread, cpu, how as i32, new, old, size).into()
}

fn sigprocmask(thread: &Thread, cpu: &mut CpuLocal, how: i32, new: u64, old: u64, size: u64) -> SysResult {
    const BLOCK: i32 = 0;
    const UNBLOCK: i32 = 1;
    const SET: i32 = 2;
    check_set_size(size)?;
    let before = thread.blocked();
    if new != 0 {
        let [bits] = read_words(cpu, new)?;
        let set = SigSet::from_bits(bits);
        thread.set_blocked(match how {
            BLOCK => before.with(set),
            UNBLOCK => before.without(set),
            SET => set,
            _ => return Err(Errno::EINVAL),
        });
    }
    if old != 0 {
        write_words(cpu, old, &[before.bits()])?;
    }
    Ok(0)
}

/// `rt_sigpending(set, set_size)`.
pub fn sys_rt_sigpending(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [at, size, ..] = context.args();
    let own = thread.signals.lock().pending.set();
    let shared = thread.process.signals.lock().pending.set();
    let pending = own.with(shared).and(thread.blocked());
    check_set_size(size).and_then(|()| write_words(cpu, at, &[pending.bits()])).map(|()| 0).into()
}

/// `rt_sigsuspend(mask, set_size)`.
pub fn sys_rt_sigsuspend(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [at, size, ..] = context.args();
    if !context.restart.again {
        let mask = match check_set_size(size).and_then(|()| read_words(cpu, at)) {
            Ok([bits]) => SigSet::from_bits(bits),
            Err(errno) => return errno.into(),
        };
        context.restart.saved_mask = Some(thread.blocked());
        context.restart.interrupt = Interrupt::Fails;
        thread.set_blocked(mask);
    }
    Outcome::Block
}

/// `pause()`.
pub fn sys_pause(_thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    context.restart.interrupt = Interrupt::Fails;
    Outcome::Block
}

/// `rt_sigtimedwait(set, info, timeout, set_size)`.
pub fn sys_rt_sigtimedwait(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    match sigtimedwait(thread, cpu, context) {
        Ok(Some(signal)) => {
            thread.set_awaited(SigSet::EMPTY);
            Outcome::Done(i64::from(signal))
        }
        Ok(None) => Outcome::Block,
        Err(errno) => {
            thread.set_awaited(SigSet::EMPTY);
            errno.into()
        }
    }
}

fn sigtimedwait(thread: &Thread, cpu: &mut CpuLocal, context: &mut UserContext) -> Result<Option<i32>, Errno> {
    let [set, info_at, timeout, size, ..] = context.args();
    check_set_size(size)?;
    let [bits] = read_words(cpu, set)?;
    let wanted = SigSet::from_bits(bits).blockable();
    if !context.restart.again {
        context.restart.interrupt = Interrupt::Fails;
        if timeout != 0 {
            let [seconds, ns] = read_words(cpu, timeout)?;
            if ns >= clock::SECOND || seconds.cast_signed() < 0 {
                return Err(Errno::EINVAL);
            }
            let wait = seconds.saturating_mul(clock::SECOND).saturating_add(ns);
            context.restart.deadline = Some(clock::monotonic().saturating_add(wait));
        }
    }
    // From here on senders wake this thread although it blocks the signals.
    thread.set_awaited(wanted);
    let own = thread.signals.lock().pending.take(wanted);
    let info = own.or_else(|| thread.process.signals.lock().pending.take(wanted));
    if let Some(info) = info {
        if info_at != 0 {
            copy_out(cpu, info_at, &frame::info_bytes(info))?;
        }
        return Ok(Some(info.signal));
    }
    match context.restart.deadline {
        Some(deadline) if clock::monotonic() >= deadline => Err(Errno::EAGAIN),
        _ => Ok(None),
    }
}

/// `rt_sigreturn()`.
pub fn sys_rt_sigreturn(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    match frame::pop(cpu, context) {
        Ok(restored) => {
            thread.set_blocked(restored.mask);
            let (base, flags, size) = restored.stack;
            let usable = flags & SS_DISABLE == 0;
            thread.signals.lock().alternate =
                AlternateStack { base, size: if usable { size } else { 0 }, flags: flags & SS_AUTODISARM };
        }
        Err(_) => kill_group(&thread.process, ExitStatus::Killed(SIGSEGV)),
    }
    Outcome::Switched
}

/// `sigaltstack(new, old)`.
pub fn sys_sigaltstack(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [new, old, ..] = context.args();
    sigaltstack(thread, cpu, context.rsp, new, old).into()
}

fn sigaltstack(thread: &Thread, cpu: &mut CpuLocal, rsp: u64, new: u64, old: u64) -> SysResult {
    let before = thread.signals.lock().alternate;
    if new != 0 {
        let [base, flags, size] = read_words(cpu, new)?;
        let flags = flags as u32;
        if before.contains(rsp) {
            return Err(Errno::EPERM);
        }
        thread.signals.lock().alternate = match flags & !SS_AUTODISARM {
            SS_DISABLE => AlternateStack::default(),
            0 | SS_ONSTACK if size < STACK_MIN => return Err(Errno::ENOMEM),
            0 | SS_ONSTACK => AlternateStack { base, size, flags: flags & SS_AUTODISARM },
            _ => return Err(Errno::EINVAL),
        };
    }
    if old != 0 {
        write_words(cpu, old, &[before.base, u64::from(before.state(rsp)), before.size])?;
    }
    Ok(0)
}

/// `kill(pid, signal)`.
pub fn sys_kill(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [pid, signal, ..] = context.args();
    kill(&thread.process, pid as i32, signal as i32).into()
}

fn kill(sender: &Arc<Process>, pid: i32, signal: i32) -> SysResult {
    if signal != 0 && !is_signal(signal) {
        return Err(Errno::EINVAL);
    }
    let send = |target: &Arc<Process>| {
        if signal != 0 {
            send::send_process(target, SigInfo::user(signal, sender.pid));
        }
    };
    let mut count = 0;
    match pid {
        0 => count = table::for_group(sender.group(), send),
        -1 => table::for_each(|target| {
            if target.pid != 1 && target.pid != sender.pid {
                send(target);
                count += 1;
            }
        }),
        pid if pid < 0 => count = table::for_group(pid.wrapping_neg(), send),
        pid => {
            let target = table::find(pid);
            target.iter().for_each(send);
            count = usize::from(target.is_some());
        }
    }
    if count == 0 { Err(Errno::ESRCH) } else { Ok(0) }
}

/// `tkill(tid, signal)`.
pub fn sys_tkill(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [tid, signal, ..] = context.args();
    thread_kill(&thread.process, None, tid as i32, signal as i32).into()
}

/// `tgkill(pid, tid, signal)`.
pub fn sys_tgkill(thread: &Arc<Thread>, _cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [pid, tid, signal, ..] = context.args();
    thread_kill(&thread.process, Some(pid as i32), tid as i32, signal as i32).into()
}

/// `SI_TKILL`.
pub const TKILL: i32 = -6;

fn thread_kill(sender: &Process, pid: Option<i32>, tid: i32, signal: i32) -> SysResult {
    if tid <= 0 || pid.is_some_and(|p| p <= 0) || signal != 0 && !is_signal(signal) {
        return Err(Errno::EINVAL);
    }
    let target = table::find_thread(tid).ok_or(Errno::ESRCH)?;
    if pid.is_some_and(|p| p != target.process.pid) {
        return Err(Errno::ESRCH);
    }
    if signal != 0 {
        let detail = Detail::Sender { pid: sender.pid, value: 0 };
        send::send_thread(&target, SigInfo { signal, code: TKILL, detail }).map_err(|_| Errno::EAGAIN)?;
    }
    Ok(0)
}

/// `rt_sigqueueinfo(pid, signal, info)`.
pub fn sys_rt_sigqueueinfo(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [pid, signal, at, ..] = context.args();
    queue_info(thread, cpu, pid as i32, signal as i32, at).into()
}

fn queue_info(thread: &Thread, cpu: &mut CpuLocal, pid: i32, signal: i32, at: u64) -> SysResult {
    let [_, code, sender, value] = read_words(cpu, at)?;
    let code = code as i32;
    if !is_signal(signal) {
        return Err(Errno::EINVAL);
    }
    // Only the kernel and `kill` use codes from zero up; `tkill` has its own.
    if code >= 0 && pid != thread.process.pid {
        return Err(Errno::EPERM);
    }
    let target = table::find(pid).ok_or(Errno::ESRCH)?;
    let detail = Detail::Sender { pid: sender as i32, value };
    send::queue_process(&target, SigInfo { signal, code, detail }).map_err(|_| Errno::EAGAIN)?;
    Ok(0)
}
