//! Calls on another process' memory: `process_vm_readv`, `process_vm_writev`, `process_madvise`.
//!
//! There is one user, root, who may look into everything.

use alloc::vec::Vec;

use faultless::VirtAddr;
use faultless_linux::calls;

use alloc::sync::Arc;
use faultless_linux::Caller;
use linux_raw_sys::general as linux;

use crate::arch::CpuLocal;
use crate::errno::{Errno, SysResult};
use crate::machine::KernelMachine;
use crate::process::table;
use crate::syscall::call::Call;
use crate::syscall::pidfd;
use crate::uaccess::{self, Sink, Source, UserBuffer};

/// Most elements of an array of `struct iovec`.
const MOST: u64 = 1024;
/// Bytes that are moved at a time, and less at the end of a remote page.
const CHUNK: u64 = faultless::PAGE_SIZE;

/// Runs of the other process' memory.
type Runs = Vec<(u64, u64)>;

pub(in crate::syscall) fn read(call: &mut Call<'_>) -> SysResult {
    transfer(call, |cpu, space, address, chunk, local| {
        let got = calls::read_remote(space, &mut cpu.vm, address, chunk);
        local.put(cpu, &chunk[..got])
    })
}

pub(in crate::syscall) fn write(call: &mut Call<'_>) -> SysResult {
    transfer(call, |cpu, space, address, chunk, local| {
        let got = local.take(cpu, chunk);
        calls::write_remote(space, &mut cpu.vm, address, &chunk[..got])
    })
}

/// Moves a chunk between the remote address and the local runs. Returns how many bytes were moved.
type Move = fn(&mut CpuLocal, &faultless::Space<KernelMachine>, VirtAddr, &mut [u8], &mut UserBuffer) -> usize;

fn transfer(call: &mut Call<'_>, step: Move) -> SysResult {
    let (pid, local, local_count) = (call.int(0), call.word(1), call.word(2));
    let (remote, remote_count, flags) = (call.word(3), call.word(4), call.word(5));
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut local = UserBuffer::from_vector(call.cpu, local, local_count)?;
    let left = |local: &UserBuffer| Source::left(local) as u64;
    if left(&local) == 0 {
        return Ok(0);
    }
    let runs = read_runs(call.cpu, remote, remote_count)?;
    if runs.iter().all(|(_, length)| *length == 0) {
        return Ok(0);
    }
    let process = table::find(pid).or_else(|| Some(table::find_thread(pid)?.process.clone()));
    let process = process.filter(|process| !process.is_zombie()).ok_or(Errno::ESRCH)?;
    let memory = process.memory();
    let mut buffer = [0; CHUNK as usize];
    let mut done = 0;
    for (start, length) in runs {
        let mut at = 0;
        // Ends: each round moves what it is asked to, or stops.
        while at < length && left(&local) != 0 {
            let address = start.checked_add(at).filter(|address| *address < memory.linux.end());
            let Some(address) = address else { return finish(done) };
            let part = (CHUNK - address % CHUNK).min(length - at).min(left(&local));
            let moved =
                step(call.cpu, memory.space(), VirtAddr::new(address), &mut buffer[..part as usize], &mut local);
            (at, done) = (at + moved as u64, done + moved as u64);
            if (moved as u64) < part {
                return finish(done);
            }
        }
    }
    Ok(done.cast_signed())
}

/// What was moved before an address failed; an error if that is nothing.
fn finish(done: u64) -> SysResult {
    if done == 0 { Err(Errno::EFAULT) } else { Ok(done.cast_signed()) }
}

/// An array of `struct iovec` whose addresses mean nothing here.
fn read_runs(cpu: &mut CpuLocal, array: u64, count: u64) -> Result<Runs, Errno> {
    if count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut runs = Vec::new();
    runs.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    for index in 0..count {
        let at = array.checked_add(index * 16).ok_or(Errno::EFAULT)?;
        let element: [u8; 16] = uaccess::read(cpu, at)?;
        let (address, length) = (uaccess::word(&element, 0), uaccess::word(&element, 8));
        if length.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        runs.push((address, length));
    }
    Ok(runs)
}

/// Advises about several ranges of a process' memory; returns how many bytes were dealt with.
pub(in crate::syscall) fn madvise(call: &mut Call<'_>) -> SysResult {
    /// What may be advised about the memory of others.
    const REMOTE: [u32; 4] = [linux::MADV_COLD, linux::MADV_PAGEOUT, linux::MADV_WILLNEED, linux::MADV_COLLAPSE];
    let (who, array, count) = (call.int(0), call.word(1), call.word(2));
    let (advice, flags) = (call.uint(3), call.uint(4));
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let runs = read_runs(call.cpu, array, count)?;
    if runs.iter().any(|(start, length)| UserBuffer::new(*start, *length).is_err()) {
        return Err(Errno::EFAULT);
    }
    let process = pidfd::process_of(call.process(), &call.files(), who)?;
    if process.is_zombie() {
        return Err(Errno::ESRCH);
    }
    let memory = process.memory();
    if !Arc::ptr_eq(&memory, &call.process().memory()) && !REMOTE.contains(&advice) {
        return Err(Errno::EINVAL);
    }
    let limits = call.process().call_limits();
    let mut done = 0;
    for (start, length) in runs {
        let caller = &mut Caller { memory: &memory.linux, cpu: &mut call.cpu.vm, limits };
        match calls::madvise(caller, start, length, advice) {
            Ok(()) => done += length,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done.cast_signed())
}
