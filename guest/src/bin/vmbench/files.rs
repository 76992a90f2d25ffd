//! Rows about mappings of files in memory.

use crate::run::{BAD, Bench, Memory};
use crate::sys::{self, PAGE, PRIVATE, Result, SHARED};

/// A file that is closed when it goes out of scope.
struct File {
    fd: usize,
    pages: usize,
}

impl File {
    fn new(pages: usize) -> Result<Self> {
        Ok(Self { fd: sys::memfd(pages * PAGE)?, pages })
    }

    /// A file all of whose pages are in memory.
    fn filled(pages: usize) -> Result<Self> {
        let file = Self::new(pages)?;
        file.map(SHARED)?.write_all(1);
        Ok(file)
    }

    fn map(&self, flags: usize) -> Result<Memory> {
        Memory::map(self.pages, flags, self.fd)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        sys::close(self.fd);
    }
}

/// First write through a shared mapping to a file that has no pages yet.
pub fn write_fault(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("memfd_write_fault", "page", |bench| {
        let file = File::new(pages)?;
        let memory = file.map(SHARED)?;
        let start = bench.now();
        memory.write_all(1);
        let time = bench.now() - start;
        memory.verify(1)?;
        Ok((time, pages))
    })
}

/// First write through a new shared mapping to pages that are in memory.
pub fn write_cached(bench: &mut Bench) -> Result<()> {
    let file = File::filled(bench.pages)?;
    bench.row("memfd_write_cached", "page", |bench| {
        let memory = file.map(SHARED)?;
        let start = bench.now();
        memory.write_all(2);
        let time = bench.now() - start;
        memory.verify(2)?;
        Ok((time, memory.pages))
    })?;
    file.map(SHARED)?.verify(2)?;
    bench.fold(file.pages as u64);
    Ok(())
}

/// First read through a new shared mapping of pages that are in memory.
pub fn read_cached(bench: &mut Bench) -> Result<()> {
    let file = File::filled(bench.pages)?;
    bench.row("memfd_read_cached", "page", |bench| {
        let memory = file.map(SHARED)?;
        let start = bench.now();
        let sum = memory.read_all();
        let time = bench.now() - start;
        if sum == memory.sum_of(1) { Ok((time, memory.pages)) } else { Err(BAD) }
    })
}

/// munmap of a shared mapping all of whose pages were read.
pub fn munmap(bench: &mut Bench) -> Result<()> {
    let file = File::filled(bench.pages)?;
    bench.row("memfd_munmap", "page", |bench| {
        let memory = file.map(SHARED)?;
        let sum = memory.read_all();
        let right = sum == memory.sum_of(1);
        let start = bench.now();
        drop(memory);
        let time = bench.now() - start;
        if right { Ok((time, file.pages)) } else { Err(BAD) }
    })
}

/// First write through a private mapping; the file must not notice.
pub fn private_cow(bench: &mut Bench) -> Result<()> {
    let file = File::filled(bench.pages)?;
    bench.row("memfd_private_cow", "page", |bench| {
        let memory = file.map(PRIVATE)?;
        let start = bench.now();
        memory.write_all(3);
        let time = bench.now() - start;
        memory.verify(3)?;
        Ok((time, memory.pages))
    })?;
    file.map(SHARED)?.verify(1)
}
