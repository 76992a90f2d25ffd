//! System calls that are refused while the kernel heap is low.
//!
//! Called by the run loop before each call. What makes the kernel keep more memory than before
//! gets ENOMEM as long as `heap::is_low`; everything else, above all what gives memory back, goes
//! on. The reserve behind `is_low` covers what the remaining calls need for a moment.

use linux_raw_sys::general as linux;

/// Calls that keep memory of the kernel: processes, areas, open files, names.
const REFUSED: [u32; 44] = [
    linux::__NR_brk,
    linux::__NR_clone,
    linux::__NR_clone3,
    linux::__NR_creat,
    linux::__NR_dup,
    linux::__NR_dup2,
    linux::__NR_dup3,
    linux::__NR_epoll_create,
    linux::__NR_epoll_create1,
    linux::__NR_epoll_ctl,
    linux::__NR_eventfd,
    linux::__NR_eventfd2,
    linux::__NR_execve,
    linux::__NR_execveat,
    linux::__NR_fork,
    linux::__NR_link,
    linux::__NR_linkat,
    linux::__NR_memfd_create,
    linux::__NR_mkdir,
    linux::__NR_mkdirat,
    linux::__NR_mknod,
    linux::__NR_mknodat,
    linux::__NR_mmap,
    linux::__NR_mprotect,
    linux::__NR_mremap,
    linux::__NR_open,
    linux::__NR_openat,
    linux::__NR_openat2,
    linux::__NR_pipe,
    linux::__NR_pipe2,
    linux::__NR_poll,
    linux::__NR_ppoll,
    linux::__NR_pselect6,
    linux::__NR_rename,
    linux::__NR_renameat,
    linux::__NR_renameat2,
    linux::__NR_rt_sigqueueinfo,
    linux::__NR_select,
    linux::__NR_socket,
    linux::__NR_socketpair,
    linux::__NR_symlink,
    linux::__NR_symlinkat,
    linux::__NR_timer_create,
    linux::__NR_vfork,
];

const WORDS: usize = 8;

/// One bit per number.
static BITS: [u64; WORDS] = bits();

const fn bits() -> [u64; WORDS] {
    let mut bits = [0; WORDS];
    let mut n = 0;
    while n < REFUSED.len() {
        bits[REFUSED[n] as usize / 64] |= 1 << (REFUSED[n] % 64);
        n += 1;
    }
    bits
}

/// Whether the call with this number is refused while the heap is low.
pub(super) fn refuses(number: u64) -> bool {
    let word = usize::try_from(number / 64).ok().and_then(|n| BITS.get(n));
    word.is_some_and(|w| w & 1 << (number % 64) != 0)
}
