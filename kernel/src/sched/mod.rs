//! Threads on CPUs: run queues, waiting, timers, and the loop that runs user code.
//!
//! One kernel stack per CPU and no switch of kernel stacks: [`run`] enters user mode and gets
//! control back at each trap. A system call that cannot finish registers its thread on
//! [`WaitQueue`]s (and/or sets a deadline in [`Restart`]) and returns [`Outcome::Block`]. The
//! thread is parked, and when something wakes it **the system call is executed again from the
//! start**, with [`Restart`] telling it what it had done before.
//!
//! How a blocking call is written, so that no wake-up is lost:
//!
//! 1. look whether it can finish now; if so, finish;
//! 2. register on the wait queue;
//! 3. look again (the event may have come between 1 and 2), then return `Block`.
//!
//! A signal that comes in ends the wait too; see [`Interrupt`].
//!
//! Absent on purpose: priorities, nice levels, real-time classes.

mod pressure;
mod queue;
mod restart;
mod run;
mod switch;
mod thread;
mod timers;
mod wait;

pub use queue::{enqueue, kick, online_mask, wake};
pub use restart::{Interrupt, Restart, RestartKind};
pub use run::{request_yield, run};
pub use switch::SLICE;
pub(crate) use switch::{end_system_stretch, end_user_stretch};
pub use thread::{Thread, ThreadState};
pub use timers::{Timer, TimerId, cancel, schedule};
pub use wait::WaitQueue;

/// What executing a system call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Finished: this value goes to `rax`.
    Done(i64),
    /// Not finished: park the thread and execute the call again when it is woken.
    Block,
    /// The thread is gone.
    Exit,
    /// The registers were replaced (execve, sigreturn): `rax` is already what it should be.
    Switched,
}

impl From<crate::errno::SysResult> for Outcome {
    fn from(result: crate::errno::SysResult) -> Outcome {
        match result {
            Ok(value) => Outcome::Done(value),
            Err(errno) => Outcome::Done(errno.as_return()),
        }
    }
}

impl From<crate::errno::Errno> for Outcome {
    fn from(errno: crate::errno::Errno) -> Outcome {
        Outcome::Done(errno.as_return())
    }
}
