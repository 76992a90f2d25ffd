//! Rows about fork and what it leaves to be done.

use crate::run::{BAD, Bench, Memory};
use crate::sys::{self, Result};
use core::fmt::Write;

/// A child that sleeps until it is dropped, so that everything stays shared.
struct Sleeper {
    pid: usize,
    wake: usize,
}

impl Sleeper {
    fn start() -> Result<Self> {
        let (sleep, wake) = sys::pipe()?;
        let pid = sys::fork()?;
        if pid == 0 {
            sys::close(wake);
            let _ = sys::read_byte(sleep);
            sys::exit(0);
        }
        sys::close(sleep);
        Ok(Self { pid, wake })
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        sys::close(self.wake);
        let _ = sys::wait(self.pid);
    }
}

/// First write to pages that a living child shares.
pub fn cow_copy(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("cow_copy_fault", "page", |bench| {
        let memory = Memory::new(pages)?;
        memory.write_all(1);
        let _child = Sleeper::start()?;
        let start = bench.now();
        memory.write_all(2);
        let time = bench.now() - start;
        memory.verify(2)?;
        Ok((time, pages))
    })?;
    bench.fold(pages as u64);
    Ok(())
}

/// First write to pages that a child shared, which is gone.
pub fn cow_reuse(bench: &mut Bench) -> Result<()> {
    let pages = bench.pages;
    bench.row("cow_reuse_fault", "page", |bench| {
        let memory = Memory::new(pages)?;
        memory.write_all(1);
        drop(Sleeper::start()?);
        let start = bench.now();
        memory.write_all(2);
        let time = bench.now() - start;
        memory.verify(2)?;
        Ok((time, pages))
    })?;
    bench.fold(pages as u64 + 1);
    Ok(())
}

/// The first write to each page after fork, timed one by one: mean and worst.
pub fn first_write(bench: &mut Bench) -> Result<()> {
    let pages = (bench.mid << 20) / sys::PAGE;
    let worst = |bench: &Bench, memory: &Memory| {
        let mut worst = 0;
        for page in 0..memory.pages {
            let start = bench.now();
            memory.store(page, 2 + page as u64);
            worst = worst.max(bench.now() - start);
        }
        worst
    };
    if pages == 0 {
        return Ok(());
    }
    bench.row("first_write_after_fork_mean", "page", |bench| {
        let memory = Memory::new(pages)?;
        memory.write_all(1);
        let _child = Sleeper::start()?;
        let start = bench.now();
        memory.write_all(2);
        let time = bench.now() - start;
        memory.verify(2)?;
        Ok((time, pages))
    })?;
    bench.row("first_write_after_fork_worst", "op", |bench| {
        let memory = Memory::new(pages)?;
        memory.write_all(1);
        let _child = Sleeper::start()?;
        let worst = worst(bench, &memory);
        memory.verify(2)?;
        Ok((worst, 1))
    })
}

/// A name with a size in MiB.
struct Name {
    bytes: [u8; 40],
    used: usize,
}

impl Name {
    fn new(stem: &str, mib: usize) -> Self {
        let mut name = Self { bytes: [0; 40], used: 0 };
        let _ = write!(name, "{stem}_{mib}m");
        name
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("?")
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.used..self.used + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}

/// Memory of `mib` MiB, all touched; nothing for 0.
fn touched(mib: usize) -> Result<Option<Memory>> {
    if mib == 0 {
        return Ok(None);
    }
    let memory = Memory::new((mib << 20) / sys::PAGE)?;
    memory.write_all(5);
    Ok(Some(memory))
}

/// The first size, and of the others those that are neither 0 nor the one before.
fn sizes(all: [usize; 4]) -> impl Iterator<Item = usize> {
    let fresh = move |index: &usize| *index == 0 || (all[*index] != 0 && all[*index] != all[index - 1]);
    (0..all.len()).filter(fresh).map(move |index| all[index])
}

/// fork, exit of the child at once, and wait.
pub fn fork_exit_wait(bench: &mut Bench) -> Result<()> {
    for mib in sizes([0, bench.mid, bench.big, 0]) {
        let memory = touched(mib)?;
        bench.row(Name::new("fork_exit_wait", mib).as_str(), "op", |bench| {
            let start = bench.now();
            let pid = sys::fork()?;
            if pid == 0 {
                sys::exit(0);
            }
            let status = sys::wait(pid)?;
            let time = bench.now() - start;
            if status == 0 { Ok((time, 1)) } else { Err(BAD) }
        })?;
        verify(bench, memory)?;
    }
    Ok(())
}

/// The fork call alone, in the parent. The child sleeps, so that it cannot run in between
/// on one CPU for longer than it takes to get there.
pub fn fork_call(bench: &mut Bench) -> Result<()> {
    for mib in sizes([0, bench.mid, bench.big, bench.most]) {
        let memory = touched(mib)?;
        bench.row(Name::new("fork_call", mib).as_str(), "op", |bench| {
            let (sleep, wake) = sys::pipe()?;
            let start = bench.now();
            let pid = sys::fork()?;
            if pid == 0 {
                sys::close(wake);
                let _ = sys::read_byte(sleep);
                sys::exit(0);
            }
            let time = bench.now() - start;
            sys::close(sleep);
            sys::close(wake);
            let status = sys::wait(pid)?;
            if status == 0 { Ok((time, 1)) } else { Err(BAD) }
        })?;
        verify(bench, memory)?;
    }
    Ok(())
}

fn verify(bench: &mut Bench, memory: Option<Memory>) -> Result<()> {
    if let Some(memory) = memory {
        memory.verify(5)?;
        bench.fold(memory.sum_of(5));
    }
    Ok(())
}
