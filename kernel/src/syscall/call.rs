//! A system call being executed: for whom, where, with what.
//!
//! Passed to each of this room's functions. Integer arguments are cut to the width that their C type
//! has: what is in the upper half of a register is no part of an `int`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use crate::arch::{CpuLocal, UserContext};
use crate::errno::Errno;
use crate::fs::{self, FileTable, Follow, Inode, OpenFile, Place};
use crate::process::Process;
use crate::sched::{Restart, Thread};
use crate::uaccess;

/// A system call being executed.
pub struct Call<'a> {
    /// The caller.
    pub thread: &'a Arc<Thread>,
    /// The CPU it runs on.
    pub cpu: &'a mut CpuLocal,
    /// Its registers.
    pub regs: &'a mut UserContext,
}

impl Call<'_> {
    /// Argument `n` as an `unsigned long` or a pointer.
    pub fn word(&self, n: usize) -> u64 {
        self.regs.args()[n]
    }

    /// Argument `n` as a `long`.
    pub fn long(&self, n: usize) -> i64 {
        self.word(n).cast_signed()
    }

    /// Argument `n` as an `unsigned int`.
    pub fn uint(&self, n: usize) -> u32 {
        self.word(n) as u32
    }

    /// Argument `n` as an `int`.
    pub fn int(&self, n: usize) -> i32 {
        self.uint(n).cast_signed()
    }

    /// What the call remembers between its executions.
    pub fn restart(&mut self) -> &mut Restart {
        &mut self.regs.restart
    }

    /// The caller's process.
    pub fn process(&self) -> &Arc<Process> {
        &self.thread.process
    }

    /// The caller's soft limit.
    pub fn limit(&self, resource: u32) -> u64 {
        self.process().limit(resource as usize)
    }

    /// How many descriptors the caller may have.
    pub fn file_limit(&self) -> u64 {
        self.limit(linux::RLIMIT_NOFILE)
    }

    /// The caller's file table.
    pub fn files(&self) -> Arc<FileTable> {
        self.process().files()
    }

    /// The open file that argument `n` names; not one of `O_PATH`.
    pub fn file(&self, n: usize) -> Result<Arc<OpenFile>, Errno> {
        self.files().get_open(self.int(n))
    }

    /// The path that argument `n` points to.
    pub fn path(&mut self, n: usize) -> Result<Vec<u8>, Errno> {
        let at = self.word(n);
        uaccess::read_path(self.cpu, at)
    }

    /// Where relative paths start for directory descriptor `fd`.
    fn base(&self, fd: i32, path: &[u8]) -> Result<Arc<Inode>, Errno> {
        if fd == linux::AT_FDCWD || path.starts_with(b"/") {
            return Ok(self.process().fs().directory());
        }
        Ok(self.files().get(fd)?.inode.clone())
    }

    /// Walks a path from a directory descriptor.
    pub fn walk(&self, fd: i32, path: &[u8], follow: Follow) -> Result<Place<Arc<Inode>>, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let base = self.base(fd, path)?;
        fs::resolve(&self.process().fs(), &base, path, follow)
    }

    /// The file that a path names; with `AT_EMPTY_PATH` and an empty path, the descriptor's own.
    pub fn find(&self, fd: i32, path: &[u8], flags: u32) -> Result<Arc<Inode>, Errno> {
        if path.is_empty() && flags & linux::AT_EMPTY_PATH != 0 {
            return self.base(fd, path);
        }
        let follow = if flags & linux::AT_SYMLINK_NOFOLLOW != 0 { Follow::NotLast } else { Follow::Last };
        self.walk(fd, path, follow)?.existing()
    }
}
