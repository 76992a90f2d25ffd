//! The table of system calls by number, put together at compile time.

use linux_raw_sys::general as linux;

use super::Handler::{self, Machine};
use super::{
    Calls, attributes, descriptors, directories, epoll, identity, io, limits, locks, memory, open, pidfd, poll,
    scheduling, splice, status, system, time, transfer, userfault,
};
use crate::{futex, process, signal};

/// One more than the highest number in the table.
const SIZE: usize = 470;

/// The calls of the machine half.
const MACHINE: Calls = &[
    (linux::__NR_fork, Machine(process::sys_fork)),
    (linux::__NR_vfork, Machine(process::sys_vfork)),
    (linux::__NR_clone, Machine(process::sys_clone)),
    (linux::__NR_clone3, Machine(process::sys_clone3)),
    (linux::__NR_execve, Machine(process::sys_execve)),
    (linux::__NR_exit, Machine(process::sys_exit)),
    (linux::__NR_exit_group, Machine(process::sys_exit_group)),
    (linux::__NR_wait4, Machine(process::sys_wait4)),
    (linux::__NR_waitid, Machine(process::sys_waitid)),
    (linux::__NR_setpgid, Machine(process::sys_setpgid)),
    (linux::__NR_getpgid, Machine(process::sys_getpgid)),
    (linux::__NR_getsid, Machine(process::sys_getsid)),
    (linux::__NR_setsid, Machine(process::sys_setsid)),
    (linux::__NR_futex, Machine(futex::sys_futex)),
    (linux::__NR_alarm, Machine(signal::sys_alarm)),
    (linux::__NR_getitimer, Machine(signal::sys_getitimer)),
    (linux::__NR_setitimer, Machine(signal::sys_setitimer)),
    (linux::__NR_kill, Machine(signal::sys_kill)),
    (linux::__NR_tkill, Machine(signal::sys_tkill)),
    (linux::__NR_tgkill, Machine(signal::sys_tgkill)),
    (linux::__NR_pause, Machine(signal::sys_pause)),
    (linux::__NR_rt_sigaction, Machine(signal::sys_rt_sigaction)),
    (linux::__NR_rt_sigprocmask, Machine(signal::sys_rt_sigprocmask)),
    (linux::__NR_rt_sigpending, Machine(signal::sys_rt_sigpending)),
    (linux::__NR_rt_sigsuspend, Machine(signal::sys_rt_sigsuspend)),
    (linux::__NR_rt_sigtimedwait, Machine(signal::sys_rt_sigtimedwait)),
    (linux::__NR_rt_sigqueueinfo, Machine(signal::sys_rt_sigqueueinfo)),
    (linux::__NR_rt_sigreturn, Machine(signal::sys_rt_sigreturn)),
    (linux::__NR_sigaltstack, Machine(signal::sys_sigaltstack)),
];

const FAMILIES: &[Calls] = &[
    MACHINE,
    attributes::CALLS,
    descriptors::CALLS,
    directories::CALLS,
    epoll::CALLS,
    identity::CALLS,
    io::CALLS,
    limits::CALLS,
    locks::CALLS,
    memory::CALLS,
    open::CALLS,
    pidfd::CALLS,
    poll::CALLS,
    scheduling::CALLS,
    splice::CALLS,
    status::CALLS,
    system::CALLS,
    time::CALLS,
    transfer::CALLS,
    userfault::CALLS,
];

/// What to do for each number.
pub static TABLE: [Option<Handler>; SIZE] = build();

const fn build() -> [Option<Handler>; SIZE] {
    let mut table = [None; SIZE];
    let mut family = 0;
    while family < FAMILIES.len() {
        let calls = FAMILIES[family];
        let mut index = 0;
        while index < calls.len() {
            let (number, handler) = calls[index];
            assert!(table[number as usize].is_none(), "a call is listed twice");
            table[number as usize] = Some(handler);
            index += 1;
        }
        family += 1;
    }
    table
}
