//! `vmbench`: what one memory operation costs, in instructions or nanoseconds.
//!
//! Freestanding (no std, no libc, fixed addresses), so that start-up and layout are the
//! same on each kernel. Reads the time-stamp counter itself: under QEMU's `-icount shift=0`
//! a tick is an instruction. One line per row, `NAME VALUE PER` with the median of the
//! rounds, then least and most; `NAME SKIP errno=N` where a call is refused, `NAME BAD`
//! where memory is wrong (exit status 1). Output comes at the end, because the interrupts
//! of a serial line would land in the next row.
//! Absent on purpose: threads, huge pages, string instructions (they count per iteration).

#![no_std]
#![no_main]

mod faults;
mod files;
mod forks;
mod maps;
mod out;
mod run;
mod start;
mod sys;

use run::{Bench, Row};

/// All rows in the order of the report.
const ROWS: &[Row] = &[
    ("calib_loop", faults::calib_loop),
    ("syscall_getppid", faults::getppid),
    ("anon_write_fault", faults::anon_write),
    ("zero_read_fault", faults::zero_read),
    ("zero_then_write_fault", faults::zero_then_write),
    ("stride2m_write_fault", faults::stride),
    ("cow_copy_fault", forks::cow_copy),
    ("cow_reuse_fault", forks::cow_reuse),
    ("first_write_after_fork", forks::first_write),
    ("fork_exit_wait", forks::fork_exit_wait),
    ("fork_call", forks::fork_call),
    ("munmap_touched", maps::munmap_touched),
    ("map_unmap_1p", maps::map_unmap),
    ("map_touch_unmap_1p", maps::map_touch_unmap),
    ("sparse_1t_map_unmap", maps::sparse),
    ("sparse_1t_touch2", maps::sparse_touch),
    ("mprotect_1p_own", maps::mprotect_own),
    ("mprotect_1p_split", maps::mprotect_split),
    ("mprotect_1p_split_write", maps::mprotect_split_write),
    ("mprotect_region", maps::mprotect_region),
    ("dontneed_region", maps::dontneed),
    ("memfd_write_fault", files::write_fault),
    ("memfd_write_cached", files::write_cached),
    ("memfd_read_cached", files::read_cached),
    ("memfd_munmap", files::munmap),
    ("memfd_private_cow", files::private_cow),
];

/// Called by the entry code with the stack as the kernel left it.
fn main(words: start::Words) -> i32 {
    let mut bench = match Bench::parse(words) {
        Ok(bench) => bench,
        Err(status) => return status,
    };
    bench.prepare();
    for row in ROWS {
        bench.run(row);
    }
    bench.finish()
}
