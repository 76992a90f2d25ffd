//! System calls, as few and as thin as possible: they are what is measured.

use core::arch::asm;

/// A positive error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u64);

/// Result of a call.
pub type Result<T = usize> = core::result::Result<T, Errno>;

pub const PAGE: usize = 4096;
pub const RW: usize = 3;
pub const RO: usize = 1;
pub const NONE: usize = 0;
/// Private anonymous memory.
pub const ANON: usize = 0x22;
/// Shared mapping of a file.
pub const SHARED: usize = 0x01;
/// Private mapping of a file.
pub const PRIVATE: usize = 0x02;
/// No memory is promised.
pub const NORESERVE: usize = 0x4000;

pub const CLOSE: usize = 3;
pub const MPROTECT: usize = 10;
pub const MUNMAP: usize = 11;
pub const MADVISE: usize = 28;
pub const GETPPID: usize = 110;
const READ: usize = 0;
const WRITE: usize = 1;
const MMAP: usize = 9;
const GETPID: usize = 39;
const FORK: usize = 57;
const WAIT4: usize = 61;
const FTRUNCATE: usize = 77;
const PRCTL: usize = 157;
const REBOOT: usize = 169;
const CLOCK_GETTIME: usize = 228;
const EXIT_GROUP: usize = 231;
const PIPE2: usize = 293;
const MEMFD_CREATE: usize = 319;

/// Any system call. Everything here touches only what this program mapped to measure.
#[inline(always)]
fn call(number: usize, a: [usize; 6]) -> Result {
    let value: isize;
    // SAFETY: callers pass addresses of mappings that hold no Rust object, or of locals
    // that live through the call.
    unsafe {
        asm!("syscall", inlateout("rax") number => value, in("rdi") a[0], in("rsi") a[1],
             in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if (-4095..0).contains(&value) { Err(Errno(-value as u64)) } else { Ok(value as usize) }
}

/// A call with up to three arguments.
#[inline(always)]
pub fn call3(number: usize, a: usize, b: usize, c: usize) -> Result {
    call(number, [a, b, c, 0, 0, 0])
}

/// Maps memory where the kernel likes it.
pub fn mmap(len: usize, prot: usize, flags: usize, fd: usize) -> Result {
    call(MMAP, [0, len, prot, flags, fd, 0])
}

/// Unmaps memory.
pub fn munmap(addr: usize, len: usize) -> Result {
    call3(MUNMAP, addr, len, 0)
}

/// Changes rights.
pub fn mprotect(addr: usize, len: usize, prot: usize) -> Result {
    call3(MPROTECT, addr, len, prot)
}

/// A file without a name, `len` bytes long.
pub fn memfd(len: usize) -> Result {
    let fd = call3(MEMFD_CREATE, c"vmbench".as_ptr() as usize, 0, 0)?;
    call3(FTRUNCATE, fd, len, 0)?;
    Ok(fd)
}

/// Forks; 0 in the child.
#[inline(always)]
pub fn fork() -> Result {
    call(FORK, [0; 6])
}

/// Waits for child `pid`; gives its raw status.
pub fn wait(pid: usize) -> Result<u32> {
    let mut status = 0_u32;
    call(WAIT4, [pid, &raw mut status as usize, 0, 0, 0, 0])?;
    Ok(status)
}

/// A pipe: (reading end, writing end).
pub fn pipe() -> Result<(usize, usize)> {
    let mut ends = [0_u32; 2];
    call3(PIPE2, ends.as_mut_ptr() as usize, 0, 0)?;
    Ok((ends[0] as usize, ends[1] as usize))
}

/// Reads one byte; waits for it.
pub fn read_byte(fd: usize) -> Result {
    let mut byte = 0_u8;
    call3(READ, fd, &raw mut byte as usize, 1)
}

/// Closes a descriptor.
pub fn close(fd: usize) {
    let _ = call3(CLOSE, fd, 0, 0);
}

/// Writes to standard output.
pub fn write(mut text: &[u8]) {
    while !text.is_empty() {
        match call3(WRITE, 1, text.as_ptr() as usize, text.len()) {
            Ok(written) if written > 0 => text = &text[written..],
            _ => return,
        }
    }
}

/// Monotonic time in nanoseconds.
pub fn clock() -> u64 {
    let mut time = [0_u64; 2];
    let _ = call3(CLOCK_GETTIME, 1, time.as_mut_ptr() as usize, 0);
    time[0] * 1_000_000_000 + time[1]
}

/// Asks that no huge pages be used in this process; who has none may refuse.
pub fn no_huge_pages() {
    const PR_SET_THP_DISABLE: usize = 41;
    let _ = call(PRCTL, [PR_SET_THP_DISABLE, 1, 0, 0, 0, 0]);
}

/// Restarts the machine if this is its first process (with `-no-reboot` QEMU ends).
pub fn reboot_if_init() {
    if call(GETPID, [0; 6]) == Ok(1) {
        let _ = call3(REBOOT, 0xfee1_dead, 672_274_793, 0x0123_4567);
    }
}

/// Ends the process.
pub fn exit(status: i32) -> ! {
    loop {
        let _ = call3(EXIT_GROUP, status as usize, 0, 0);
    }
}
