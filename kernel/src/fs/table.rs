//! File tables: the numbers that a process calls its open files by.
//!
//! Called by system calls, `fork`, `execve` and the end of a process. A file that leaves a table is
//! dropped after the table's lock, because the end of a pipe wakes others.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::file::OpenFile;
use super::locks::Owner;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::sync::Lock;

/// No process gets more numbers than this, whatever its limits say.
pub const MAX_FILES: u64 = 65_536;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The open files of a process.
pub struct FileTable {
    /// Names the table as the owner of locks; its address changes when it is moved.
    id: u64,
    slots: Lock<Vec<Option<Slot>>>,
}

/// An open file and what belongs to its number alone.
#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    on_exec: OnExec,
}

/// What `execve` does to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExec {
    /// Leaves it open.
    Keep,
    /// Closes it (`FD_CLOEXEC`).
    Close,
}

impl OnExec {
    /// From a flag such as `O_CLOEXEC`.
    pub fn closing_if(flag: bool) -> OnExec {
        if flag { OnExec::Close } else { OnExec::Keep }
    }
}

impl FileTable {
    /// A table with these files from number 0 on.
    pub fn new(files: impl IntoIterator<Item = Arc<OpenFile>>) -> Arc<FileTable> {
        let slots = files.into_iter().map(|file| Some(Slot { file, on_exec: OnExec::Keep }));
        FileTable::with(slots.collect())
    }

    /// A table of its own with the same files.
    pub fn fork(&self) -> Arc<FileTable> {
        FileTable::with(self.slots.lock().clone())
    }

    fn with(slots: Vec<Option<Slot>>) -> Arc<FileTable> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(FileTable { id, slots: Lock::new(slots) })
    }

    /// The table as the owner of locks that process `pid` takes.
    pub fn owner(&self, pid: i32) -> Owner {
        Owner::Table { id: self.id, pid }
    }

    /// Closes what is not to survive `execve`.
    pub fn close_on_exec(&self, _cpu: &mut CpuLocal) {
        let mut closed = Vec::new();
        {
            let mut slots = self.slots.lock();
            for slot in slots.iter_mut() {
                if slot.as_ref().is_some_and(|s| s.on_exec == OnExec::Close) {
                    closed.extend(slot.take());
                }
            }
        }
        self.release(closed);
    }

    /// Closes everything.
    pub fn close_all(&self, _cpu: &mut CpuLocal) {
        let closed = core::mem::take(&mut *self.slots.lock());
        self.release(closed.into_iter().flatten());
    }

    /// Drops files that have left the table, and the record locks it had on them: closing any
    /// descriptor of a file ends all of them, as POSIX has it.
    fn release(&self, closed: impl IntoIterator<Item = Slot>) {
        let owner = self.owner(0);
        for slot in closed {
            slot.file.inode.locks.forget(owner);
        }
    }

    /// The file with this number, `O_PATH` files included.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let slots = self.slots.lock();
        let slot = usize::try_from(fd).ok().and_then(|fd| slots.get(fd)?.as_ref());
        slot.map(|s| s.file.clone()).ok_or(Errno::EBADF)
    }

    /// The file with this number, unless it was opened with `O_PATH`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn get_open(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let file = self.get(fd)?;
        if file.rights().path { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Gives `file` the lowest free number from `least` up, below `limit`.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn add(&self, file: Arc<OpenFile>, on_exec: OnExec, least: usize, limit: u64) -> Result<i32, Errno> {
        let mut slots = self.slots.lock();
        let free = slots.iter().skip(least).position(Option::is_none);
        let number = free.map_or(slots.len().max(least), |free| least + free);
        if number as u64 >= limit.min(MAX_FILES) {
            return Err(Errno::EMFILE);
        }
        if number >= slots.len() {
            let more = number + 1 - slots.len();
            slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            slots.resize(number + 1, None);
        }
        slots[number] = Some(Slot { file, on_exec });
        Ok(number as i32)
    }

    /// Whether a number below `limit` is free.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn check_room(&self, limit: u64) -> Result<(), Errno> {
        let slots = self.slots.lock();
        let limit = limit.min(MAX_FILES) as usize;
        let has_room = slots.len() < limit || slots.iter().take(limit).any(Option::is_none);
        if has_room { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Makes `number` mean `file`; what it meant before is closed.
    ///
    /// # Errors
    ///
    /// `EBADF` if the number is not below `limit`.
    pub fn put(&self, file: Arc<OpenFile>, on_exec: OnExec, number: i32, limit: u64) -> Result<(), Errno> {
        let index = usize::try_from(number).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit.min(MAX_FILES) {
            return Err(Errno::EBADF);
        }
        let old = {
            let mut slots = self.slots.lock();
            if index >= slots.len() {
                let more = index + 1 - slots.len();
                slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
                slots.resize(index + 1, None);
            }
            slots[index].replace(Slot { file, on_exec })
        };
        self.release(old);
        Ok(())
    }

    /// Frees a number.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let closed = {
            let mut slots = self.slots.lock();
            let slot = usize::try_from(fd).ok().and_then(|fd| slots.get_mut(fd));
            slot.and_then(Option::take)
        };
        self.release([closed.ok_or(Errno::EBADF)?]);
        Ok(())
    }

    /// Frees all numbers from `first` to `last`.
    pub fn close_range(&self, first: u32, last: u32) {
        let mut closed = Vec::new();
        {
            let mut slots = self.slots.lock();
            let end = slots.len().min(last as usize + 1);
            for slot in slots.iter_mut().take(end).skip(first as usize) {
                closed.extend(slot.take());
            }
        }
        self.release(closed);
    }

    /// Sets what `execve` does to all numbers from `first` to `last`.
    pub fn set_range_on_exec(&self, first: u32, last: u32, on_exec: OnExec) {
        let mut slots = self.slots.lock();
        let end = slots.len().min(last as usize + 1);
        for slot in slots.iter_mut().take(end).skip(first as usize).flatten() {
            slot.on_exec = on_exec;
        }
    }

    /// What `execve` does to a number.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn on_exec(&self, fd: i32) -> Result<OnExec, Errno> {
        let slots = self.slots.lock();
        let slot = usize::try_from(fd).ok().and_then(|fd| slots.get(fd)?.as_ref());
        slot.map(|s| s.on_exec).ok_or(Errno::EBADF)
    }

    /// Sets what `execve` does to a number.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn set_on_exec(&self, fd: i32, on_exec: OnExec) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let slot = usize::try_from(fd).ok().and_then(|fd| slots.get_mut(fd)?.as_mut());
        slot.ok_or(Errno::EBADF)?.on_exec = on_exec;
        Ok(())
    }

    /// The numbers in use.
    pub fn numbers(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        let used = slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.map(|(number, _)| number as i32).collect()
    }

    /// Places in the table (`FDSize` in /proc).
    pub fn size(&self) -> usize {
        self.slots.lock().len().next_power_of_two().max(64)
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        let closed = core::mem::take(self.slots.get_mut());
        self.release(closed.into_iter().flatten());
    }
}
