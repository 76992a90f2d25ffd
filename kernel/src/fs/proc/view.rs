//! /proc/PID/mem and /proc/PID/pagemap: an address space as a file.
//!
//! Called by open files. Like Linux, an open file of this kind is about the space that the process had when it was
//! opened: `execve` gives it no new one, and when the space is gone there is nothing to read.
//!
//! Absent on purpose: a check of who may look. There is one user, and everything is his.

use alloc::sync::Arc;
use alloc::vec::Vec;

use faultless::{AccessError, VirtAddr};
use faultless_linux::pagemap::{ENTRY, Frames, pagemap};

use super::process::{self, ProcessFile};
use super::{Node, Part};
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::fs::inode::{Body, Inode};
use crate::heap;
use crate::process::Memory;
use crate::uaccess::{Sink, Source};

/// Bytes that are moved at a time.
const CHUNK: usize = 4096;

/// What an open file of this kind looks at.
pub struct View {
    kind: Kind,
    /// None for a process that had ended when it was opened.
    memory: Option<Arc<Memory>>,
}

enum Kind {
    Memory,
    Pagemap(Frames),
}

impl View {
    /// The view that opening `inode` gives, if it is a file of this kind.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the process is gone.
    pub fn of(inode: &Inode) -> Result<Option<View>, Errno> {
        let Body::Proc(Node::Process(owner, Part::File(file))) = &inode.body else {
            return Ok(None);
        };
        let kind = match file {
            ProcessFile::Mem => Kind::Memory,
            ProcessFile::Pagemap if process::is_administrator() => Kind::Pagemap(Frames::Shown),
            ProcessFile::Pagemap => Kind::Pagemap(Frames::Hidden),
            _ => return Ok(None),
        };
        Ok(Some(View { kind, memory: process::memory_of(*owner)? }))
    }

    /// The memory, if it is still in use.
    fn memory(&self) -> Option<&Memory> {
        self.memory.as_deref().filter(|memory| memory.is_used())
    }

    /// Reads what lies at `position`.
    ///
    /// # Errors
    ///
    /// `EIO` where nothing is mapped, `EINVAL` for parts of entries, `EFAULT`, `ENOMEM`.
    pub fn read(&self, cpu: &mut CpuLocal, position: u64, to: &mut dyn Sink) -> Result<usize, Errno> {
        let unaligned = !position.is_multiple_of(ENTRY) || !to.room().is_multiple_of(ENTRY as usize);
        match (&self.kind, self.memory()) {
            (Kind::Pagemap(_), _) if unaligned => Err(Errno::EINVAL),
            (_, None) => Ok(0),
            (Kind::Memory, Some(memory)) => read_memory(memory, cpu, position, to),
            (Kind::Pagemap(frames), Some(memory)) => read_entries(memory, cpu, position, *frames, to),
        }
    }

    /// Writes at `position`, as a debugger does: private memory need not be writable (GU-06).
    ///
    /// # Errors
    ///
    /// `EIO` where nothing is mapped, or what is shared is not writable; `EINVAL` for a pagemap; `EFAULT`, `ENOMEM`.
    pub fn write(&self, cpu: &mut CpuLocal, position: u64, from: &mut dyn Source) -> Result<usize, Errno> {
        match (&self.kind, self.memory()) {
            (Kind::Pagemap(_), _) => Err(Errno::EINVAL),
            (Kind::Memory, None) => Ok(0),
            (Kind::Memory, Some(memory)) => write_memory(memory, cpu, position, from),
        }
    }
}

fn buffer(wanted: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    heap::reserve(&mut bytes, wanted.min(CHUNK))?;
    bytes.resize(wanted.min(CHUNK), 0);
    Ok(bytes)
}

/// How far an access came.
fn reached(result: Result<(), AccessError>, wanted: usize) -> usize {
    result.map_or_else(|error| error.done, |()| wanted)
}

fn read_memory(memory: &Memory, cpu: &mut CpuLocal, position: u64, to: &mut dyn Sink) -> Result<usize, Errno> {
    let mut bytes = buffer(to.room())?;
    let mut done = 0;
    while to.room() > 0 {
        let part = to.room().min(CHUNK);
        let at = VirtAddr::new(position.saturating_add(done as u64));
        let got = reached(memory.space().read_forced(&mut cpu.vm, at, &mut bytes[..part]), part);
        if got == 0 {
            return if done == 0 { Err(Errno::EIO) } else { Ok(done) };
        }
        if to.put(cpu, &bytes[..got]) < got {
            return Err(Errno::EFAULT);
        }
        done += got;
    }
    Ok(done)
}

fn write_memory(memory: &Memory, cpu: &mut CpuLocal, position: u64, from: &mut dyn Source) -> Result<usize, Errno> {
    let mut bytes = buffer(from.left())?;
    let mut done = 0;
    while from.left() > 0 {
        let part = from.left().min(CHUNK);
        if from.take(cpu, &mut bytes[..part]) < part {
            return Err(Errno::EFAULT);
        }
        let at = VirtAddr::new(position.saturating_add(done as u64));
        let put = reached(memory.space().write_forced(&mut cpu.vm, at, &bytes[..part]), part);
        done += put;
        if done == 0 {
            return Err(Errno::EIO);
        }
        if put < part {
            break;
        }
    }
    Ok(done)
}

fn read_entries(
    memory: &Memory,
    cpu: &mut CpuLocal,
    position: u64,
    frames: Frames,
    to: &mut dyn Sink,
) -> Result<usize, Errno> {
    let mut done = 0;
    while to.room() > 0 {
        let mut entries = [0; CHUNK / ENTRY as usize / 4];
        let part = entries.len().min(to.room() / ENTRY as usize);
        let first = (position + done as u64) / ENTRY;
        let count = pagemap(memory.space(), &mut cpu.vm, first, frames, &mut entries[..part]);
        for entry in &entries[..count] {
            if to.put(cpu, &entry.to_le_bytes()) < ENTRY as usize {
                return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
            }
            done += ENTRY as usize;
        }
        if count < part {
            break;
        }
    }
    Ok(done)
}
