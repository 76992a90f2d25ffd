//! Open files: an inode with a position and flags.
//!
//! Called by system calls through file tables. Reads and writes never wait: what cannot go on is
//! `EAGAIN`, and [`OpenFile::register`] says where to wait.
//!
//! Letters: (I) fixed, (A) atomic alone, (L) behind its lock.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general as linux;

use super::data::{MAX_SIZE, WriteAt};
use super::device::Device;
use super::frames;
use super::inode::{Body, Inode};
use super::locks::Owner;
use super::pipe::Ends;
use super::poll::Readiness;
use super::proc::View;
use super::quota::OpenTicket;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::heap;
use crate::sched::{Restart, Thread};
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};

/// Flags that `fcntl(F_SETFL)` changes.
pub const CHANGEABLE: u32 = linux::O_APPEND | linux::O_NONBLOCK;
/// Flags that `fcntl(F_GETFL)` shows besides the access mode.
const SHOWN: u32 = linux::O_APPEND
    | linux::O_NONBLOCK
    | linux::O_DIRECTORY
    | linux::O_NOFOLLOW
    | linux::O_PATH
    | linux::O_DSYNC
    | linux::O_SYNC
    | linux::O_NOATIME
    | linux::__O_TMPFILE
    | linux::O_LARGEFILE;

/// An open file description.
pub struct OpenFile {
    /// (I) The file.
    pub inode: Arc<Inode>,
    /// (I) What it was opened for.
    rights: Rights,
    /// (A) `O_*` as `F_GETFL` shows them.
    flags: AtomicU32,
    /// (I) Of a FIFO whose other end was not open: how often it had been when this end was opened.
    partner_opens: Option<u64>,
    /// (I) Of /proc/PID/mem and pagemap: what it looks at.
    view: Option<View>,
    /// (L) The position, and the text of a /proc file as of its last read from the beginning.
    cursor: Lock<Cursor>,
    /// (I) Its place among all open files.
    _ticket: OpenTicket,
}

/// What a file was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Nothing but naming it (`O_PATH`).
    pub path: bool,
}

#[derive(Default)]
struct Cursor {
    position: u64,
    text: Vec<u8>,
}

impl Rights {
    /// As the flags of `open` say.
    pub fn of_flags(flags: u32) -> Rights {
        let path = flags & linux::O_PATH != 0;
        let mode = flags & linux::O_ACCMODE;
        Rights {
            read: !path && (mode == linux::O_RDONLY || mode == linux::O_RDWR),
            write: !path && (mode == linux::O_WRONLY || mode == linux::O_RDWR),
            path,
        }
    }

    /// Which ends of a pipe these are.
    pub fn ends(self) -> Ends {
        Ends { reads: self.read, writes: self.write }
    }
}

/// Where a read or write happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At the file's position, which moves.
    Position,
    /// At an offset of the caller's (`pread`).
    Offset(u64),
}

impl OpenFile {
    /// Opens `inode`. Waiting for the other end of a FIFO is the caller's affair.
    ///
    /// # Errors
    ///
    /// `ENFILE`; `ESRCH` for the memory of a process that is gone.
    pub fn new(inode: Arc<Inode>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
        let ticket = OpenTicket::new()?;
        let rights = Rights::of_flags(flags);
        let view = if rights.path { None } else { View::of(&inode)? };
        let partner_opens = match &inode.body {
            Body::Fifo(pipe) if !rights.path => pipe.open(rights.ends()),
            _ => None,
        };
        Ok(Arc::new(OpenFile {
            inode,
            rights,
            flags: AtomicU32::new(flags & (SHOWN | linux::O_ACCMODE)),
            partner_opens,
            view,
            cursor: Lock::new(Cursor::default()),
            _ticket: ticket,
        }))
    }

    /// What it was opened for.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Its flags as `F_GETFL` shows them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// `F_SETFL`.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags() & !CHANGEABLE;
        self.flags.store(kept | (flags & CHANGEABLE), Ordering::Relaxed);
    }

    /// Whether waiting is not wanted.
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & linux::O_NONBLOCK != 0
    }

    /// Which ends of a pipe it has.
    pub fn ends(&self) -> Ends {
        self.rights.ends()
    }

    /// Whether it is an end of a pipe whose other end has not been opened since this one was.
    pub fn is_lonely(&self) -> bool {
        match (&self.inode.body, self.partner_opens) {
            (Body::Fifo(pipe), Some(opens)) => pipe.is_lonely(self.ends(), opens),
            _ => false,
        }
    }

    /// Whether it has a position.
    pub fn is_seekable(&self) -> bool {
        match &self.inode.body {
            Body::Regular(_) | Body::Directory(_) | Body::Proc(_) | Body::Symlink(_) => true,
            Body::Device(device) => device.is_seekable(),
            Body::Fifo(_) | Body::Inert { .. } | Body::Event(_) | Body::Epoll(_) => false,
            Body::Userfault(_) | Body::Process(_) => false,
        }
    }

    /// Whether a write may take a part and have to wait for the rest to fit.
    pub fn takes_parts(&self) -> bool {
        match &self.inode.body {
            Body::Fifo(_) => true,
            Body::Device(device) => device.is_console(),
            _ => false,
        }
    }

    /// The terminal, if it is one.
    pub fn terminal(&self) -> Option<&'static super::Tty> {
        match &self.inode.body {
            Body::Device(device) => device.terminal(),
            _ => None,
        }
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EISDIR`, `EINVAL`, `ESPIPE`, `EAGAIN`, and those of the file.
    pub fn read(&self, cpu: &mut CpuLocal, to: &mut dyn Sink, at: At) -> Result<usize, Errno> {
        if !self.rights.read {
            return Err(Errno::EBADF);
        }
        if at != At::Position && !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        check_range(at, to.room())?;
        if let Some(view) = &self.view {
            return self.at(at, |position, _| view.read(cpu, position, to));
        }
        match &self.inode.body {
            Body::Regular(data) => self.at(at, |position, _| data.read(&self.inode, cpu, position, to)),
            Body::Proc(node) if !self.inode.is_directory() => self.at(at, |position, text| {
                if position == 0 || text.is_empty() {
                    // It stays with the open file, and there can be many of those.
                    if heap::is_low() {
                        return Err(Errno::ENOMEM);
                    }
                    *text = node.text(cpu)?;
                }
                copy_text(cpu, text, position, to)
            }),
            Body::Directory(_) | Body::Proc(_) => Err(Errno::EISDIR),
            Body::Fifo(pipe) => pipe.read(cpu, to),
            Body::Device(Device::Frames) => self.at(at, |position, _| frames::read(cpu, position, to)),
            Body::Device(device) => device.read(cpu, to),
            Body::Event(counter) => counter.read(cpu, to),
            Body::Userfault(userfault) => userfault.read(cpu, to),
            Body::Symlink(_) | Body::Inert { .. } | Body::Epoll(_) | Body::Process(_) => Err(Errno::EINVAL),
        }
    }

    /// Writes, but not beyond `limit` bytes of file size.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL`, `ESPIPE`, `EAGAIN`, and those of the file.
    pub fn write(&self, cpu: &mut CpuLocal, from: &mut dyn Source, at: At, limit: u64) -> Result<usize, Errno> {
        if !self.rights.write {
            return Err(Errno::EBADF);
        }
        if at != At::Position && !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        check_range(at, from.left())?;
        if let Some(view) = &self.view {
            return self.at(at, |position, _| view.write(cpu, position, from));
        }
        match &self.inode.body {
            Body::Regular(_) => self.write_data(cpu, from, at, limit),
            Body::Proc(node) => node.write(cpu, from),
            Body::Fifo(pipe) => pipe.write(cpu, from),
            Body::Device(Device::Frames) => self.at(at, |position, _| frames::write(cpu, position, from)),
            Body::Device(device) => device.write(cpu, from),
            Body::Event(counter) => counter.write(cpu, from),
            Body::Directory(_) | Body::Symlink(_) | Body::Inert { .. } | Body::Epoll(_) => Err(Errno::EINVAL),
            Body::Userfault(_) | Body::Process(_) => Err(Errno::EINVAL),
        }
    }

    fn write_data(&self, cpu: &mut CpuLocal, from: &mut dyn Source, at: At, limit: u64) -> Result<usize, Errno> {
        let data = self.inode.data().ok_or(Errno::EINVAL)?;
        let appends = self.flags() & linux::O_APPEND != 0;
        let place = |offset| if appends { WriteAt::End } else { WriteAt::Offset(offset) };
        match at {
            At::Offset(offset) => Ok(data.write(&self.inode, cpu, place(offset), limit, from)?.1),
            At::Position => {
                let mut cursor = self.cursor.lock();
                let at = place(cursor.position);
                let (start, count) = data.write(&self.inode, cpu, at, limit, from)?;
                cursor.position = start + count as u64;
                Ok(count)
            }
        }
    }

    /// Runs `read` (or a write) at the position, which then moves by what it returns, or at an offset.
    fn at(&self, at: At, read: impl FnOnce(u64, &mut Vec<u8>) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mut cursor = self.cursor.lock();
        let position = match at {
            At::Position => cursor.position,
            At::Offset(offset) => offset,
        };
        let count = read(position, &mut cursor.text)?;
        if at == At::Position {
            cursor.position += count as u64;
        }
        Ok(count)
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.cursor.lock().position
    }

    /// Runs `change` on the position.
    ///
    /// # Errors
    ///
    /// Those of `change`.
    pub fn with_position<R>(&self, change: impl FnOnce(&mut u64) -> Result<R, Errno>) -> Result<R, Errno> {
        change(&mut self.cursor.lock().position)
    }

    /// What it is ready for.
    pub fn readiness(&self) -> Readiness {
        match &self.inode.body {
            Body::Fifo(pipe) => pipe.readiness(self.ends()),
            Body::Device(device) => device.readiness(),
            Body::Event(counter) => counter.readiness(),
            Body::Userfault(userfault) => userfault.readiness(self.is_nonblocking()),
            Body::Process(process) if process.is_zombie() => Readiness::IN,
            Body::Process(_) => Readiness::NONE,
            Body::Epoll(epoll) if epoll.is_ready() => Readiness::IN,
            Body::Epoll(_) => Readiness::NONE,
            _ => Readiness::IN.with(Readiness::OUT),
        }
    }

    /// Registers `thread` for whatever may change its readiness.
    pub fn register(&self, thread: &Arc<Thread>) {
        match &self.inode.body {
            Body::Fifo(pipe) => {
                for queue in pipe.queues(self.ends()).into_iter().flatten() {
                    queue.register(thread);
                }
            }
            Body::Device(device) if device.is_console() => {
                super::tty::console().register(thread);
            }
            Body::Event(counter) => counter.queue().register(thread),
            Body::Userfault(userfault) => userfault.queue().register(thread),
            Body::Process(process) => process.ended.register(thread),
            Body::Epoll(epoll) => epoll.register(thread),
            _ => {}
        }
    }

    /// Whether a read that has waited is to return what there is: the time that a raw terminal waits is
    /// up. Sets the deadline of the call if there is such a time.
    pub fn is_patience_over(&self, restart: &mut Restart) -> bool {
        self.terminal().is_some_and(|tty| tty.is_patience_over(restart))
    }
}

/// Whether a transfer of `length` bytes stays within the offsets that there are.
fn check_range(at: At, length: usize) -> Result<(), Errno> {
    match at {
        At::Offset(offset) if offset > MAX_SIZE - (length as u64).min(MAX_SIZE) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// Copies what of `text` lies at `position`.
fn copy_text(cpu: &mut CpuLocal, text: &[u8], position: u64, to: &mut dyn Sink) -> Result<usize, Errno> {
    let start = usize::try_from(position).map_or(text.len(), |p| p.min(text.len()));
    let part = &text[start..];
    let part = &part[..part.len().min(to.room())];
    let put = to.put(cpu, part);
    if put == 0 && !part.is_empty() { Err(Errno::EFAULT) } else { Ok(put) }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let (Body::Fifo(pipe), false) = (&self.inode.body, self.rights.path) {
            pipe.close(self.ends());
        }
        if let Body::Userfault(userfault) = &self.inode.body {
            userfault.close();
        }
        // The address that locks know this file by is free for another one from here on.
        let at = core::ptr::from_ref(self) as usize;
        self.inode.locks.forget(Owner::Whole(at));
        self.inode.locks.forget(Owner::Open(at));
    }
}
