//! System calls: the table by number, and the calls that are about files, memory, time and the like.
//!
//! Called by the run loop. Each family has its file and names its calls in a list; those of the
//! machine half (processes, signals, futexes) are listed in `table`.
//!
//! A call that is not in the table is `ENOSYS` and counted, so that a report tells what a program
//! missed. A call that is in the table does what it says or fails: nothing is accepted and ignored
//! unless it is a hint by its own manual.

mod attributes;
mod call;
mod descriptors;
mod directories;
mod epoll;
mod identity;
mod io;
mod limits;
mod locks;
mod memory;
mod names;
mod open;
pub mod pidfd;
mod poll;
mod scheduling;
mod splice;
mod status;
mod system;
mod table;
mod time;
mod transfer;
mod userfault;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{CpuLocal, UserContext};
use crate::errno::{Errno, SysResult};
use crate::fs;
use crate::sched::{Outcome, Thread};
use call::Call;
use table::TABLE;
pub use time::sleep_interrupted;

/// How a call is executed.
#[derive(Clone, Copy)]
enum Handler {
    /// It finishes at once.
    Plain(fn(&mut Call<'_>) -> SysResult),
    /// It may have to wait, or changes registers.
    Full(fn(&mut Call<'_>) -> Outcome),
    /// It belongs to the machine half.
    Machine(fn(&Arc<Thread>, &mut CpuLocal, &mut UserContext) -> Outcome),
}

/// A list of calls by number.
type Calls = &'static [(u32, Handler)];

/// Numbers that are counted one by one when they are missing.
const COUNTED: usize = 512;
static MISSING: [AtomicU64; COUNTED] = [const { AtomicU64::new(0) }; COUNTED];

/// Executes the system call that the registers ask for.
pub fn dispatch(thread: &Arc<Thread>, cpu: &mut CpuLocal, regs: &mut UserContext) -> Outcome {
    fs::set_current(thread);
    let number = usize::try_from(regs.syscall_number()).unwrap_or(usize::MAX);
    match TABLE.get(number) {
        Some(Some(Handler::Plain(run))) => run(&mut Call { thread, cpu, regs }).into(),
        Some(Some(Handler::Full(run))) => run(&mut Call { thread, cpu, regs }),
        Some(Some(Handler::Machine(run))) => run(thread, cpu, regs),
        _ => {
            MISSING[number.min(COUNTED - 1)].fetch_add(1, Ordering::Relaxed);
            Errno::ENOSYS.into()
        }
    }
}

/// Tells which missing calls were asked for, and how often.
pub fn unknown_counts(mut visit: impl FnMut(&str, u64)) {
    for (number, count) in MISSING.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        if count != 0 {
            visit(names::name_of(number).unwrap_or("(no such number)"), count);
        }
    }
}
