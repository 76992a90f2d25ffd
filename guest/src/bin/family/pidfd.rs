//! Descriptors of processes, and handlers that two processes share.
//!
//! Called by `main`.

use faultless_guest::arena::Arena;
use faultless_guest::child;
use faultless_guest::probe::set_handler;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, End, Errno, PAGE, RW, Result};

const P_PIDFD: usize = 3;

fn call(number: i64, args: [usize; 6]) -> Result {
    // SAFETY: what the calls of this module point to is alive, and no memory of ours is unmapped.
    unsafe { sys::call(number, args) }
}

fn open(pid: i32, flags: usize) -> Result {
    call(libc::SYS_pidfd_open, [pid as usize, flags, 0, 0, 0, 0])
}

fn signal(fd: usize, signal: i32, flags: usize) -> Result {
    call(libc::SYS_pidfd_send_signal, [fd, signal as usize, 0, flags, 0, 0])
}

/// `waitid`: process, code and status.
fn wait(fd: usize, options: i32) -> Result<[i32; 3]> {
    let mut info = [0_i32; 32];
    let at = info.as_mut_ptr() as usize;
    call(libc::SYS_waitid, [P_PIDFD, fd, at, options as usize, 0, 0])?;
    Ok([info[4], info[2], info[6]])
}

fn ready(fd: usize, timeout: usize) -> Result<i16> {
    let mut file = libc::pollfd { fd: fd as i32, events: libc::POLLIN, revents: 0 };
    call(libc::SYS_poll, [(&raw mut file) as usize, 1, timeout, 0, 0, 0]).map(|_| file.revents)
}

fn advise(fd: usize, arena: Arena, advice: i32) -> Result {
    let run = [arena.page_addr(0), PAGE];
    call(libc::SYS_process_madvise, [fd, run.as_ptr() as usize, 1, advice as usize, 0, 0])
}

/// All that a descriptor is good for.
pub fn descriptors(report: &Report, _rounds: usize) {
    let arena = Arena::new(60, 2);
    report.need("mmap", arena.map(0, 2, RW));
    arena.store_byte(0, 1);
    let mut fd = -1_i32;
    let flags = (libc::CLONE_PIDFD | libc::SIGCHLD) as usize;
    let pid = report.need("clone", call(libc::SYS_clone, [flags, 0, (&raw mut fd) as usize, 0, 0, 0])) as i32;
    if pid == 0 {
        loop {
            sys::sched_yield();
        }
    }
    let fd = fd as usize;
    report.same("closed by execve", call(libc::SYS_fcntl, [fd, libc::F_GETFD as usize, 0, 0, 0, 0]), Ok(1));
    report.same("not ended", ready(fd, 0), Ok(0));
    report.same("nothing to wait for", wait(fd, libc::WEXITED | libc::WNOHANG), Ok([0; 3]));
    let other = report.need("pidfd_open", open(pid, libc::O_NONBLOCK as usize));
    report.same("would wait", wait(other, libc::WEXITED), Err(Errno(libc::EAGAIN)));
    report.same("cold", advise(fd, arena, libc::MADV_COLD), Ok(PAGE));
    report.same("will need", advise(other, arena, libc::MADV_WILLNEED), Ok(PAGE));
    report.same("not of others", advise(fd, arena, libc::MADV_DONTNEED), Err(Errno(libc::EINVAL)));
    let own = report.need("pidfd_open", open(sys::getpid(), 0));
    report.same("of oneself", advise(own, arena, libc::MADV_DONTNEED), Ok(PAGE));
    report.same("discarded", arena.load_byte(0), 0);
    report.same("is there", signal(fd, 0, 0), Ok(0));
    report.same("unknown flag", signal(fd, 0, 8), Err(Errno(libc::EINVAL)));
    report.same("two flags", signal(fd, 0, 3), Err(Errno(libc::EINVAL)));
    report.same("unknown signal", signal(fd, 65, 0), Err(Errno(libc::EINVAL)));
    report.need("SIGKILL", signal(fd, libc::SIGKILL, 0));
    report.same("ended", ready(fd, usize::MAX), Ok(libc::POLLIN));
    report.same("still a child", signal(fd, 0, 0), Ok(0));
    report.same("its end", wait(other, libc::WEXITED), Ok([pid, libc::CLD_KILLED, libc::SIGKILL]));
    report.same("waited for", signal(fd, 0, 0), Err(Errno(libc::ESRCH)));
    report.same("no child", wait(fd, libc::WEXITED), Err(Errno(libc::ECHILD)));
    report.same("nobody", open(pid, 0), Err(Errno(libc::ESRCH)));
    [fd, other, own].iter().for_each(|fd| sys::close(*fd as i32));
    refused(report);
    report.need("munmap", arena.unmap(0, 2));
}

fn refused(report: &Report) {
    let (from, to) = report.need("pipe", sys::pipe());
    let error = |errno| Err(Errno(errno));
    report.same("no process", open(0, 0), error(libc::EINVAL));
    report.same("open flag", open(sys::getpid(), 1 << 20), error(libc::EINVAL));
    report.same("signal to no descriptor", signal(999, 0, 0), error(libc::EBADF));
    report.same("signal to a pipe", signal(from as usize, 0, 0), error(libc::EBADF));
    report.same("wait for a pipe", wait(from as usize, libc::WEXITED).map(|_| 0), error(libc::EBADF));
    report.same("wait for no descriptor", wait(usize::MAX, libc::WEXITED).map(|_| 0), error(libc::EINVAL));
    let both = (libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID | libc::SIGCHLD) as usize;
    let mut place = 0_i32;
    let made = call(libc::SYS_clone, [both, 0, (&raw mut place) as usize, 0, 0, 0]);
    report.same("two answers in one place", made, error(libc::EINVAL));
    sys::close(from);
    sys::close(to);
}

/// A process that shares handlers with another: what the one sets, the other has; a fork has its own.
pub fn handlers(report: &Report, _rounds: usize) {
    let ignores = || {
        let mut action = [0_usize; 4];
        let at = action.as_mut_ptr() as usize;
        let args = [libc::SIGUSR2 as usize, 0, at, 8, 0, 0];
        call(libc::SYS_rt_sigaction, args).map(|_| action[0] == libc::SIG_IGN)
    };
    let end = child::run(|| {
        set_handler(libc::SIGUSR2, libc::SIG_IGN, 0);
        i32::from(ignores() != Ok(true))
    });
    report.same("a fork", (end, ignores()), (End::Exit(0), Ok(false)));
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_SIGHAND | libc::SIGCHLD) as usize;
    // The memory is shared, and so is the stack: as for vfork, the child goes before the parent comes.
    let pid = report.need("clone", call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])) as i32;
    if pid == 0 {
        set_handler(libc::SIGUSR2, libc::SIG_IGN, 0);
        sys::exit(0);
    }
    report.same("its end", sys::wait(pid), Ok((pid, End::Exit(0))));
    report.same("a sharer", ignores(), Ok(true));
    set_handler(libc::SIGUSR2, libc::SIG_DFL, 0);
    let without = (libc::CLONE_SIGHAND | libc::SIGCHLD) as usize;
    report.same("not without memory", call(libc::SYS_clone, [without, 0, 0, 0, 0, 0]), Err(Errno(libc::EINVAL)));
}
