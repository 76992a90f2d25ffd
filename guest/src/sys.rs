//! System calls without libc in between: no errno, no locks, no allocation, so that they
//! are allowed in a child forked from a program with threads.
//!
//! Called by everything. Absent on purpose: policy; a caller decides what a failure means.
//! Programs that judge results print [`Errno`] by name.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::AtomicU32;

/// Size of a page of the only architecture these programs know.
pub const PAGE: usize = 4096;
/// Eight-byte words in a page.
pub const WORDS: usize = PAGE / 8;

/// Read and write.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// Read only.
pub const RO: i32 = libc::PROT_READ;
/// No access.
pub const NONE: i32 = libc::PROT_NONE;
/// Private anonymous memory.
pub const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
/// Shared anonymous memory.
pub const SHARED_ANON: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// A positive error number as the kernel gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().find(|(number, _)| *number == self.0);
        match known {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "E{}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::EBADF, "EBADF"),
    (libc::EBUSY, "EBUSY"),
    (libc::ECHILD, "ECHILD"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EPIPE, "EPIPE"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

/// Result of a system call.
pub type Result<T = usize> = core::result::Result<T, Errno>;

/// Any system call.
///
/// # Errors
///
/// What the kernel returns.
///
/// # Safety
///
/// The call must not take away or change memory that Rust objects live in, nor anything
/// else the rest of the program relies on.
#[inline]
pub unsafe fn call(number: i64, a: [usize; 6]) -> Result {
    let value: isize;
    // SAFETY: the caller vouches for what the call does; the kernel preserves everything
    // but rax, rcx, r11 and what the arguments point to.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => value,
             in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
             in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(value as usize) }
}

/// `mmap` with the arguments of the system call.
///
/// # Errors
///
/// What the kernel returns.
///
/// # Safety
///
/// A fixed address must not lie over memory the program uses.
#[inline]
pub unsafe fn mmap(addr: usize, len: usize, prot: i32, flags: i32, fd: i32, offset: usize) -> Result {
    let args = [addr, len, prot as usize, flags as usize, fd as usize, offset];
    // SAFETY: the caller vouches for the range.
    unsafe { call(libc::SYS_mmap, args) }
}

/// `munmap`.
///
/// # Errors
///
/// What the kernel returns.
///
/// # Safety
///
/// The range must hold no memory the program uses afterwards.
#[inline]
pub unsafe fn munmap(addr: usize, len: usize) -> Result {
    // SAFETY: the caller vouches for the range.
    unsafe { call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]) }
}

/// `mprotect`.
///
/// # Errors
///
/// What the kernel returns.
///
/// # Safety
///
/// The range must hold no memory that is used in ways `prot` forbids.
#[inline]
pub unsafe fn mprotect(addr: usize, len: usize, prot: i32) -> Result {
    // SAFETY: the caller vouches for the range.
    unsafe { call(libc::SYS_mprotect, [addr, len, prot as usize, 0, 0, 0]) }
}

/// `brk` as the kernel has it: the break after the call, also when it refused.
///
/// # Safety
///
/// Memory above `to` is gone, so nothing there may be in use; see `storm` for how libc's
/// allocator is kept out of the way.
#[inline]
#[must_use]
pub unsafe fn brk(to: usize) -> usize {
    // SAFETY: the caller vouches for the range.
    unsafe { call(libc::SYS_brk, [to, 0, 0, 0, 0, 0]) }.unwrap_or(0)
}

/// `fork` without libc's handlers. `Ok(0)` in the child.
///
/// # Errors
///
/// What the kernel returns.
///
/// # Safety
///
/// If the program has other threads, the child must not allocate, lock or print through
/// std before it ends with [`exit`].
pub unsafe fn fork() -> Result {
    // SAFETY: the caller keeps to the rules of a forked child.
    unsafe { call(libc::SYS_fork, [0; 6]) }
}

/// Ends the process at once: no destructors, no handlers.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: the process ends; nothing runs afterwards.
        let _ = unsafe { call(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

impl End {
    const fn decode(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exit((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }
}

/// Waits for child `pid` (or any with -1) and says who ended and how.
///
/// # Errors
///
/// What the kernel returns; an interrupted wait is taken up again.
pub fn wait(pid: i32) -> Result<(i32, End)> {
    let mut status = 0_i32;
    let args = [pid as usize, &raw mut status as usize, 0, 0, 0, 0];
    loop {
        // SAFETY: `status` is a valid place for the status.
        match unsafe { call(libc::SYS_wait4, args) } {
            Ok(who) => return Ok((who as i32, End::decode(status))),
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends `signal` to `pid`.
///
/// # Errors
///
/// What the kernel returns.
pub fn kill(pid: i32, signal: i32) -> Result {
    // SAFETY: signals touch no memory of this program but through its own handlers.
    unsafe { call(libc::SYS_kill, [pid as usize, signal as usize, 0, 0, 0, 0]) }
}

/// Number of this process.
#[must_use]
pub fn getpid() -> i32 {
    // SAFETY: no side effect.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as i32
}

/// Number of this thread.
#[must_use]
pub fn gettid() -> i32 {
    // SAFETY: no side effect.
    unsafe { call(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as i32
}

/// Lets another thread run.
pub fn sched_yield() {
    // SAFETY: no side effect on memory.
    let _ = unsafe { call(libc::SYS_sched_yield, [0; 6]) };
}

/// Sleeps while `word` is `value`, or shorter: the caller looks again.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    const WAIT_PRIVATE: usize = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let args = [word.as_ptr() as usize, WAIT_PRIVATE, value as usize, 0, 0, 0];
    // SAFETY: the kernel only reads the word.
    let _ = unsafe { call(libc::SYS_futex, args) };
}

/// Wakes all threads of this process that sleep on `word`.
pub fn futex_wake(word: &AtomicU32) {
    const WAKE_PRIVATE: usize = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    let args = [word.as_ptr() as usize, WAKE_PRIVATE, i32::MAX as usize, 0, 0, 0];
    // SAFETY: the kernel uses the address only as a name.
    let _ = unsafe { call(libc::SYS_futex, args) };
}

/// Sleeps for `micros` microseconds, or until a signal arrives.
///
/// # Errors
///
/// `EINTR` when a handler ran.
pub fn sleep_micros(micros: u64) -> Result {
    let time = [micros / 1_000_000, micros % 1_000_000 * 1000];
    // SAFETY: `time` has the layout of a timespec.
    unsafe { call(libc::SYS_nanosleep, [time.as_ptr() as usize, 0, 0, 0, 0, 0]) }
}

/// Writes all of `text` to file descriptor `fd`, as far as that works.
pub fn print(fd: i32, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(fd, rest) {
            Ok(0) | Err(_) => return,
            Ok(written) => rest = &rest[written..],
        }
    }
}

/// `write`.
///
/// # Errors
///
/// What the kernel returns.
pub fn write(fd: i32, data: &[u8]) -> Result {
    let args = [fd as usize, data.as_ptr() as usize, data.len(), 0, 0, 0];
    // SAFETY: `data` is readable memory of that length.
    unsafe { call(libc::SYS_write, args) }
}

/// `read`.
///
/// # Errors
///
/// What the kernel returns.
pub fn read(fd: i32, data: &mut [u8]) -> Result {
    let args = [fd as usize, data.as_mut_ptr() as usize, data.len(), 0, 0, 0];
    // SAFETY: `data` is writable memory of that length.
    unsafe { call(libc::SYS_read, args) }
}

/// A pipe: (reading end, writing end).
///
/// # Errors
///
/// What the kernel returns.
pub fn pipe() -> Result<(i32, i32)> {
    let mut ends = [0_i32; 2];
    // SAFETY: `ends` has room for two descriptors.
    unsafe { call(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) }?;
    Ok((ends[0], ends[1]))
}

/// Closes `fd`.
pub fn close(fd: i32) {
    // SAFETY: callers close only descriptors that this crate opened itself.
    let _ = unsafe { call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) };
}
