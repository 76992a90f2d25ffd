//! `userfaultfd` and its requests: the structures in user memory. What is checked is `faultless_linux`'s.

use alloc::sync::Arc;

use faultless_linux::calls::userfaultfd::{self as requests, Progress, Request};
use faultless_linux::{Caller, Limits};
use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl as request;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use super::open::install;
use crate::arch::{CpuLocal, user};
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, Inode, OnExec, OpenFile, Userfault};
use crate::machine::KernelMachine;
use crate::process::Memory;
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[(linux::__NR_userfaultfd, Plain(userfaultfd))];

/// Not in the list of constants.
const UFFDIO_POISON: u32 = 0xc020_aa08;
/// Not in the list of constants.
const UFFDIO_MOVE: u32 = 0xc028_aa05;

fn userfaultfd(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(0);
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK | linux::UFFD_USER_MODE_ONLY) != 0 {
        return Err(Errno::EINVAL);
    }
    let userfault = Userfault::new(&call.process().memory(), flags);
    let inode = Inode::new(Body::Userfault(userfault), 0o600);
    let on_exec = OnExec::closing_if(flags & linux::O_CLOEXEC != 0);
    install(call, OpenFile::new(inode, linux::O_RDONLY | flags & linux::O_NONBLOCK)?, on_exec)
}

/// A request on a `userfaultfd`.
pub(super) fn ioctl(call: &mut Call<'_>, userfault: &Arc<Userfault>, command: u32, at: u64) -> SysResult {
    if command != request::UFFDIO_API && !userfault.is_initialized() {
        return Err(Errno::EINVAL);
    }
    let cpu = &mut *call.cpu;
    match command {
        request::UFFDIO_API => api(cpu, userfault, at),
        request::UFFDIO_REGISTER => register(cpu, userfault, at),
        request::UFFDIO_UNREGISTER => {
            let [start, length] = words(cpu, at)?;
            with(cpu, userfault, Errno::ENOMEM, |caller| requests::unregister(caller, start, length))?;
            Ok(0)
        }
        request::UFFDIO_WAKE => wake(cpu, userfault, at),
        request::UFFDIO_COPY => copy(cpu, userfault, at),
        request::UFFDIO_ZEROPAGE => fill(cpu, userfault, at, Request::Zeropage),
        request::UFFDIO_CONTINUE => fill(cpu, userfault, at, Request::Continue),
        UFFDIO_POISON => fill(cpu, userfault, at, Request::Poison),
        request::UFFDIO_WRITEPROTECT => {
            let [start, length, mode] = words(cpu, at)?;
            if userfault.is_changing() {
                return Err(Errno::EAGAIN);
            }
            let watcher = userfault.watcher();
            with(cpu, userfault, Errno::ESRCH, |caller| {
                requests::write_protect(caller, &*watcher, (start, length), mode)
            })?;
            Ok(0)
        }
        UFFDIO_MOVE => move_pages(cpu, userfault, at),
        _ => Err(Errno::EINVAL),
    }
}

/// Reads words of a structure.
fn words<const N: usize>(cpu: &mut CpuLocal, at: u64) -> Result<[u64; N], Errno> {
    let mut words = [0; N];
    for (index, word) in words.iter_mut().enumerate() {
        *word = uaccess::read_u64(cpu, at.checked_add(8 * index as u64).ok_or(Errno::EFAULT)?)?;
    }
    Ok(words)
}

/// Runs a request on the memory that the descriptor belongs to.
fn with<T>(
    cpu: &mut CpuLocal,
    userfault: &Userfault,
    gone: Errno,
    then: impl FnOnce(&mut Caller<'_, KernelMachine>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let memory = userfault.memory().ok_or(gone)?;
    let limits = Limits::NONE;
    then(&mut Caller { memory: &memory.linux, cpu: &mut cpu.vm, limits })
}

fn api(cpu: &mut CpuLocal, userfault: &Userfault, at: u64) -> SysResult {
    let [version, features, _] = words(cpu, at)?;
    if version != u64::from(linux::UFFD_API) || features & !requests::FEATURES != 0 {
        Layout::new().zeroes(24).write(cpu, at)?;
        return Err(Errno::EINVAL);
    }
    Layout::new().u64(version).u64(requests::FEATURES).u64(requests::API_REQUESTS).write(cpu, at)?;
    if userfault.initialize(features) {
        return Ok(0);
    }
    Layout::new().zeroes(24).write(cpu, at)?;
    Err(Errno::EINVAL)
}

fn register(cpu: &mut CpuLocal, userfault: &Userfault, at: u64) -> SysResult {
    let [start, length, mode] = words(cpu, at)?;
    let watcher = userfault.watcher();
    let taken =
        with(cpu, userfault, Errno::ENOMEM, |caller| requests::register(caller, &watcher, (start, length), mode))?;
    uaccess::write(cpu, at + 24, &taken.to_le_bytes())?;
    Ok(0)
}

fn wake(cpu: &mut CpuLocal, userfault: &Userfault, at: u64) -> SysResult {
    let [start, length] = words(cpu, at)?;
    let watcher = userfault.watcher();
    with(cpu, userfault, Errno::ESRCH, |caller| {
        watcher.wake(requests::range(caller, start, length)?);
        Ok(0)
    })
}

/// What happened to the ranges must be read before anything is put into them.
fn wait_for_readers(cpu: &mut CpuLocal, userfault: &Userfault, field: u64) -> Result<(), Errno> {
    if !userfault.is_changing() {
        return Ok(());
    }
    uaccess::write(cpu, field, &Errno::EAGAIN.as_return().to_le_bytes())?;
    Err(Errno::EAGAIN)
}

/// Writes the last field of a structure, and returns what the call does.
fn finish(cpu: &mut CpuLocal, field: u64, progress: Progress) -> SysResult {
    uaccess::write(cpu, field, &progress.field.to_le_bytes())?;
    progress.result.map(|()| 0)
}

fn copy(cpu: &mut CpuLocal, userfault: &Userfault, at: u64) -> SysResult {
    let [to, from, length, mode] = words(cpu, at)?;
    wait_for_readers(cpu, userfault, at + 32)?;
    from.checked_add(length).ok_or(Errno::EINVAL)?;
    let memory = userfault.memory().ok_or(Errno::ESRCH)?;
    let progress = copy_pages(cpu, userfault, &memory, (to, from, length, mode))?;
    finish(cpu, at + 32, progress)
}

/// The source is in the caller's memory, the target in the descriptor's: one page of the one after the other.
fn copy_pages(
    cpu: &mut CpuLocal,
    userfault: &Userfault,
    memory: &Memory,
    (to, from, length, mode): (u64, u64, u64, u64),
) -> Result<Progress, Errno> {
    const PAGE: u64 = faultless::PAGE_SIZE;
    let (watcher, mut done, mut page) = (userfault.watcher(), 0, alloc::vec![0; PAGE as usize]);
    let limits = Limits::NONE;
    let whole = requests::range(&Caller { memory: &memory.linux, cpu: &mut cpu.vm, limits }, to, length)?;
    loop {
        let fetched = user::copy_in(cpu, from + done, &mut page).map_err(Errno::from);
        let caller = &mut Caller { memory: &memory.linux, cpu: &mut cpu.vm, limits };
        let range = requests::range(caller, to + done, PAGE)?;
        let step = requests::fill(caller, &*watcher, Request::Copy, range, mode, |_, _, bytes| {
            bytes.copy_from_slice(&page);
            fetched
        })?;
        match step.result {
            Err(_) if done > 0 => {
                return Ok(Progress { field: done.cast_signed(), result: Err(Errno::EAGAIN) });
            }
            Err(_) => return Ok(step),
            Ok(()) => done += PAGE,
        }
        if done == whole.len() {
            return Ok(Progress { field: done.cast_signed(), result: Ok(()) });
        }
    }
}

fn fill(cpu: &mut CpuLocal, userfault: &Userfault, at: u64, what: Request) -> SysResult {
    let [start, length, mode] = words(cpu, at)?;
    wait_for_readers(cpu, userfault, at + 24)?;
    let watcher = userfault.watcher();
    let progress = with(cpu, userfault, Errno::ESRCH, |caller| {
        let range = requests::range(caller, start, length)?;
        requests::fill(caller, &*watcher, what, range, mode, |_, _, _| Ok(()))
    })?;
    finish(cpu, at + 24, progress)
}

fn move_pages(cpu: &mut CpuLocal, userfault: &Userfault, at: u64) -> SysResult {
    let [to, from, length, mode] = words(cpu, at)?;
    wait_for_readers(cpu, userfault, at + 32)?;
    let watcher = userfault.watcher();
    let progress =
        with(cpu, userfault, Errno::ESRCH, |caller| requests::move_pages(caller, &watcher, to, from, length, mode))?;
    finish(cpu, at + 32, progress)
}
