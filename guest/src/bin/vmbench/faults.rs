//! Rows about single faults, and two about nothing, to calibrate.

use crate::run::{BAD, Bench, Memory};
use crate::sys::{self, Result};
use core::arch::asm;

/// A loop of two instructions.
pub fn calib_loop(bench: &mut Bench) -> Result<()> {
    const TURNS: usize = 1_000_000;
    bench.row("calib_loop", "iter", |bench| {
        let start = bench.now();
        // SAFETY: counts down a register.
        unsafe { asm!("2: dec {0}", "jnz 2b", inout(reg) TURNS => _, options(nostack)) };
        Ok((bench.now() - start, TURNS))
    })
}

/// A system call that does nothing.
pub fn getppid(bench: &mut Bench) -> Result<()> {
    bench.row("syscall_getppid", "op", |bench| {
        let start = bench.now();
        for _ in 0..10_000 {
            let _ = sys::call3(sys::GETPPID, 0, 0, 0);
        }
        Ok((bench.now() - start, 10_000))
    })
}

/// First write to untouched memory.
pub fn anon_write(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("anon_write_fault", "page", |bench| {
        let memory = Memory::new(pages)?;
        let start = bench.now();
        memory.write_all(1);
        let time = bench.now() - start;
        memory.verify(1)?;
        Ok((time, pages))
    })?;
    bench.fold(pages as u64);
    Ok(())
}

/// First read of untouched memory.
pub fn zero_read(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("zero_read_fault", "page", |bench| {
        let memory = Memory::new(pages)?;
        let start = bench.now();
        let sum = memory.read_all();
        let time = bench.now() - start;
        if sum == 0 { Ok((time, pages)) } else { Err(BAD) }
    })
}

/// First write to memory that has been read: only the write counts.
pub fn zero_then_write(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("zero_then_write_fault", "page", |bench| {
        let memory = Memory::new(pages)?;
        let sum = memory.read_all();
        let start = bench.now();
        memory.write_all(3);
        let time = bench.now() - start;
        memory.verify(3)?;
        if sum == 0 { Ok((time, pages)) } else { Err(BAD) }
    })?;
    bench.fold(pages as u64 + 3);
    Ok(())
}

/// First write to one page in each 2 MiB: a last-level table for each.
pub fn stride(bench: &mut Bench) -> Result<()> {
    const STRIDE: usize = 512;
    const TOUCHED: usize = 64;
    bench.row("stride2m_write_fault", "page", |bench| {
        let memory = Memory::map(STRIDE * TOUCHED, sys::ANON | sys::NORESERVE, usize::MAX)?;
        let start = bench.now();
        for page in 0..TOUCHED {
            memory.store(page * STRIDE, 7);
        }
        let time = bench.now() - start;
        let right = (0..TOUCHED).all(|page| memory.load(page * STRIDE) == 7);
        if right { Ok((time, TOUCHED)) } else { Err(BAD) }
    })
}
