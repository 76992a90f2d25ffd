//! The futex system call.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::{Key, Waiter, requeue, wake};
use crate::arch::user::{USER_END, compare_exchange32, copy_in, load32};
use crate::arch::{CpuLocal, UserContext};
use crate::clock::{self, SECOND};
use crate::errno::{Errno, SysResult};
use crate::sched::{Interrupt, Outcome, RestartKind, Thread};

const PRIVATE: u32 = linux::FUTEX_PRIVATE_FLAG;
const REALTIME: u32 = linux::FUTEX_CLOCK_REALTIME;
const ALL_BITS: u32 = u32::MAX;

/// The arguments, by their names in the manual.
struct Args {
    address: u64,
    operation: u32,
    value: u32,
    /// A time-out's address, or the second count.
    fourth: u64,
    address2: u64,
    value3: u32,
}

impl Args {
    fn is_private(&self) -> bool {
        self.operation & PRIVATE != 0
    }
}

/// `futex(address, operation, value, timeout or value2, address2, value3)`.
pub fn sys_futex(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [address, operation, value, fourth, address2, value3] = context.args();
    let args =
        Args { address, operation: operation as u32, value: value as u32, fourth, address2, value3: value3 as u32 };
    if !args.address.is_multiple_of(4) {
        return Errno::EINVAL.into();
    }
    let command = args.operation & !(PRIVATE | REALTIME);
    match command {
        linux::FUTEX_WAIT => wait(thread, cpu, context, &args, ALL_BITS),
        linux::FUTEX_WAIT_BITSET => wait(thread, cpu, context, &args, args.value3),
        linux::FUTEX_WAKE => wake_one_word(thread, cpu, &args, ALL_BITS).into(),
        linux::FUTEX_WAKE_BITSET => wake_one_word(thread, cpu, &args, args.value3).into(),
        linux::FUTEX_REQUEUE => move_waiters(thread, cpu, &args, None).into(),
        linux::FUTEX_CMP_REQUEUE => move_waiters(thread, cpu, &args, Some(args.value3)).into(),
        linux::FUTEX_WAKE_OP => wake_with_operation(thread, cpu, &args).into(),
        _ => Errno::ENOSYS.into(),
    }
}

fn wait(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext, args: &Args, bits: u32) -> Outcome {
    if let RestartKind::Futex(waiter) = &context.restart.kind {
        return go_on_waiting(&waiter.clone(), context);
    }
    match begin_waiting(thread, cpu, context, args, bits) {
        Ok(outcome) => outcome,
        Err(errno) => errno.into(),
    }
}

fn begin_waiting(
    thread: &Arc<Thread>,
    cpu: &mut CpuLocal,
    context: &mut UserContext,
    args: &Args,
    bits: u32,
) -> Result<Outcome, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = read_deadline(cpu, args)?;
    // First look without registering: the common case of a word that has changed already.
    if load32(cpu, args.address)? != args.value {
        return Err(Errno::EAGAIN);
    }
    let memory = thread.process.memory();
    let key = Key::of(cpu, &memory, args.address, args.is_private());
    let waiter = Waiter::register(thread, key, bits);
    match load32(cpu, args.address) {
        Ok(seen) if seen == args.value => {}
        other => {
            // Unless a waker was faster, this call has not waited.
            if !waiter.withdraw() {
                return Ok(Outcome::Done(0));
            }
            return Err(if other.is_ok() { Errno::EAGAIN } else { Errno::EFAULT });
        }
    }
    context.restart.deadline = deadline;
    context.restart.interrupt = match deadline {
        Some(_) => Interrupt::Fails,
        None => Interrupt::Restartable,
    };
    context.restart.kind = RestartKind::Futex(waiter);
    Ok(Outcome::Block)
}

fn go_on_waiting(waiter: &Waiter, context: &mut UserContext) -> Outcome {
    if waiter.is_woken() {
        return Outcome::Done(0);
    }
    match context.restart.deadline {
        Some(deadline) if clock::monotonic() >= deadline => {
            if waiter.withdraw() {
                Errno::ETIMEDOUT.into()
            } else {
                Outcome::Done(0)
            }
        }
        _ => Outcome::Block,
    }
}

/// The absolute monotonic time at which the wait ends.
fn read_deadline(cpu: &mut CpuLocal, args: &Args) -> Result<Option<u64>, Errno> {
    if args.fourth == 0 {
        return Ok(None);
    }
    let mut bytes = [0; 16];
    copy_in(cpu, args.fourth, &mut bytes)?;
    let word = |n: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[n * 8 + i]));
    let (seconds, ns) = (word(0), word(1));
    if ns >= SECOND || seconds.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let time = seconds.saturating_mul(SECOND).saturating_add(ns);
    let is_absolute = args.operation & !(PRIVATE | REALTIME) == linux::FUTEX_WAIT_BITSET;
    Ok(Some(if !is_absolute {
        clock::monotonic().saturating_add(time)
    } else if args.operation & REALTIME != 0 {
        time.saturating_sub(clock::realtime_offset())
    } else {
        time
    }))
}

/// The word at a multiple of 4, mapped or not.
///
/// # Errors
///
/// `EFAULT` for what cannot be the address of user memory.
fn key(thread: &Thread, cpu: &mut CpuLocal, args: &Args, address: u64) -> Result<Key, Errno> {
    if address >= USER_END {
        return Err(Errno::EFAULT);
    }
    let memory = thread.process.memory();
    Ok(Key::of(cpu, &memory, address, args.is_private()))
}

fn wake_one_word(thread: &Thread, cpu: &mut CpuLocal, args: &Args, bits: u32) -> SysResult {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(thread, cpu, args, args.address)?;
    Ok(wake(key, args.value as usize, bits) as i64)
}

fn move_waiters(thread: &Thread, cpu: &mut CpuLocal, args: &Args, expected: Option<u32>) -> SysResult {
    let (most_woken, most_moved) = (args.value.cast_signed(), (args.fourth as u32).cast_signed());
    if most_woken < 0 || most_moved < 0 || !args.address2.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let from = key(thread, cpu, args, args.address)?;
    let to = key(thread, cpu, args, args.address2)?;
    if let Some(expected) = expected
        && load32(cpu, args.address)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let woken = wake(from, most_woken as usize, ALL_BITS);
    let moved = requeue(from, to, most_moved as usize);
    // Plain REQUEUE counts the woken only.
    Ok(if expected.is_some() { woken + moved } else { woken } as i64)
}

/// FUTEX_WAKE_OP: changes the second word, wakes waiters of the first, and those of the second if
/// its old value compares as asked.
fn wake_with_operation(thread: &Thread, cpu: &mut CpuLocal, args: &Args) -> SysResult {
    if !args.address2.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    // Before the word is changed: a call that fails changes nothing.
    let first = key(thread, cpu, args, args.address)?;
    let second = key(thread, cpu, args, args.address2)?;
    let operation = WordOperation::decode(args.value3)?;
    // Ends: a failed exchange means that somebody else changed the word, which is their progress.
    let old = loop {
        let seen = load32(cpu, args.address2)?;
        if compare_exchange32(cpu, args.address2, seen, operation.apply(seen))? == seen {
            break seen;
        }
    };
    let mut woken = wake(first, args.value as usize, ALL_BITS);
    if operation.compares(old) {
        woken += wake(second, args.fourth as u32 as usize, ALL_BITS);
    }
    Ok(woken as i64)
}

/// The operation that `value3` of FUTEX_WAKE_OP encodes.
struct WordOperation {
    operation: u32,
    operand: u32,
    comparison: u32,
    comparand: i32,
}

impl WordOperation {
    fn decode(code: u32) -> Result<WordOperation, Errno> {
        const OPERAND_IS_SHIFT: u32 = 8;
        let sign_extended = |bits: u32| (bits << 20).cast_signed() >> 20;
        let operation = code >> 28;
        let mut operand = sign_extended(code >> 12 & 0xfff).cast_unsigned();
        if operation & OPERAND_IS_SHIFT != 0 {
            operand = 1_u32.checked_shl(operand).ok_or(Errno::EINVAL)?;
        }
        let decoded = WordOperation {
            operation: operation & !OPERAND_IS_SHIFT,
            operand,
            comparison: code >> 24 & 0xf,
            comparand: sign_extended(code & 0xfff),
        };
        if decoded.operation > 4 || decoded.comparison > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(decoded)
    }

    fn apply(&self, old: u32) -> u32 {
        match self.operation {
            0 => self.operand,
            1 => old.wrapping_add(self.operand),
            2 => old | self.operand,
            3 => old & !self.operand,
            _ => old ^ self.operand,
        }
    }

    fn compares(&self, old: u32) -> bool {
        let old = old.cast_signed();
        match self.comparison {
            0 => old == self.comparand,
            1 => old != self.comparand,
            2 => old < self.comparand,
            3 => old <= self.comparand,
            4 => old > self.comparand,
            _ => old >= self.comparand,
        }
    }
}
