//! Rows about mmap, munmap, mprotect and madvise.

use crate::run::{BAD, Bench, Memory};
use crate::sys::{self, ANON, NONE, NORESERVE, PAGE, RO, RW, Result};

/// munmap of memory that was written to.
pub fn munmap_touched(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("munmap_touched", "page", |bench| {
        let memory = Memory::new(pages)?;
        memory.write_all(1);
        let start = bench.now();
        drop(memory);
        Ok((bench.now() - start, pages))
    })
}

/// mmap and munmap of a page that is not touched.
pub fn map_unmap(bench: &mut Bench) -> Result<()> {
    let ops = bench.ops;
    bench.row("map_unmap_1p", "op", |bench| {
        let start = bench.now();
        for _ in 0..ops {
            drop(Memory::new(1)?);
        }
        Ok((bench.now() - start, ops))
    })
}

/// mmap, write and munmap of a page.
pub fn map_touch_unmap(bench: &mut Bench) -> Result<()> {
    let ops = bench.ops;
    bench.row("map_touch_unmap_1p", "op", |bench| {
        let mut sum = 0;
        let start = bench.now();
        for turn in 0..ops {
            let memory = Memory::new(1)?;
            memory.store(0, turn as u64);
            sum += memory.load(0);
        }
        let time = bench.now() - start;
        if sum == (ops * (ops - 1) / 2) as u64 { Ok((time, ops)) } else { Err(BAD) }
    })
}

/// Pages of one TiB.
const TIB: usize = (1 << 40) / PAGE;

/// mmap and munmap of one TiB that is not touched.
pub fn sparse(bench: &mut Bench) -> Result<()> {
    let ops = bench.ops.div_ceil(10);
    bench.row("sparse_1t_map_unmap", "op", |bench| {
        let start = bench.now();
        for _ in 0..ops {
            drop(Memory::map(TIB, ANON | NORESERVE, usize::MAX)?);
        }
        Ok((bench.now() - start, ops))
    })
}

/// The same with a write to its first and its last page.
pub fn sparse_touch(bench: &mut Bench) -> Result<()> {
    let ops = bench.ops.div_ceil(10);
    bench.row("sparse_1t_touch2", "op", |bench| {
        let start = bench.now();
        for turn in 0..ops {
            let memory = Memory::map(TIB, ANON | NORESERVE, usize::MAX)?;
            memory.store(0, turn as u64);
            memory.store(TIB - 1, turn as u64);
            if memory.load(0) + memory.load(TIB - 1) != 2 * turn as u64 {
                return Err(BAD);
            }
        }
        Ok((bench.now() - start, ops))
    })
}

/// Rights of a page that is an area of its own: its neighbours never have the same.
pub fn mprotect_own(bench: &mut Bench) -> Result<()> {
    let memory = Memory::new(3)?;
    memory.write_all(9);
    sys::mprotect(memory.addr, PAGE, NONE)?;
    sys::mprotect(memory.addr + 2 * PAGE, PAGE, NONE)?;
    let (ops, page) = (bench.ops, memory.addr + PAGE);
    bench.row("mprotect_1p_own", "op", |bench| {
        let start = bench.now();
        for _ in 0..ops {
            sys::mprotect(page, PAGE, RO)?;
            sys::mprotect(page, PAGE, RW)?;
        }
        Ok((bench.now() - start, ops * 2))
    })?;
    if memory.load(1) == 10 { Ok(()) } else { Err(BAD) }
}

/// Rights of the middle page of an area: it splits, then it merges. Per call.
pub fn mprotect_split(bench: &mut Bench) -> Result<()> {
    split(bench, "mprotect_1p_split", false)
}

/// The same with a write afterwards. Per pair of calls and write.
pub fn mprotect_split_write(bench: &mut Bench) -> Result<()> {
    split(bench, "mprotect_1p_split_write", true)
}

fn split(bench: &mut Bench, name: &str, write: bool) -> Result<()> {
    let memory = Memory::new(3)?;
    memory.write_all(9);
    let (ops, page) = (bench.ops, memory.addr + PAGE);
    bench.row(name, "op", |bench| {
        let start = bench.now();
        for turn in 0..ops {
            sys::mprotect(page, PAGE, RO)?;
            sys::mprotect(page, PAGE, RW)?;
            if write {
                memory.store(1, turn as u64);
            }
        }
        Ok((bench.now() - start, if write { ops } else { ops * 2 }))
    })?;
    let want = if write { ops as u64 - 1 } else { 10 };
    if memory.load(1) == want { Ok(()) } else { Err(BAD) }
}

/// Rights of all of a touched region, to and fro. Per call and page.
pub fn mprotect_region(bench: &mut Bench) -> Result<()> {
    let memory = Memory::new(bench.pages)?;
    memory.write_all(4);
    let (addr, len) = (memory.addr, memory.pages * PAGE);
    bench.row("mprotect_region", "page", |bench| {
        let start = bench.now();
        for _ in 0..4 {
            sys::mprotect(addr, len, RO)?;
            sys::mprotect(addr, len, RW)?;
        }
        Ok((bench.now() - start, memory.pages * 8))
    })?;
    // Writing again after the rights came back.
    bench.row("mprotect_region_rewrite", "page", |bench| {
        sys::mprotect(addr, len, RO)?;
        sys::mprotect(addr, len, RW)?;
        let start = bench.now();
        memory.write_all(4);
        Ok((bench.now() - start, memory.pages))
    })?;
    memory.verify(4)?;
    bench.fold(memory.sum_of(4));
    Ok(())
}

/// MADV_DONTNEED of a touched region, and the writes after it.
pub fn dontneed(bench: &mut Bench) -> Result<()> {
    const DONTNEED: usize = 4;
    let memory = Memory::new(bench.pages)?;
    let (addr, len) = (memory.addr, memory.pages * PAGE);
    bench.row("dontneed_region", "page", |bench| {
        memory.write_all(6);
        let start = bench.now();
        sys::call3(sys::MADVISE, addr, len, DONTNEED)?;
        let time = bench.now() - start;
        if memory.read_all() == 0 { Ok((time, memory.pages)) } else { Err(BAD) }
    })?;
    bench.row("dontneed_refault", "page", |bench| {
        sys::call3(sys::MADVISE, addr, len, DONTNEED)?;
        let start = bench.now();
        memory.write_all(6);
        Ok((bench.now() - start, memory.pages))
    })?;
    memory.verify(6)
}
