//! Reading and writing.
//!
//! A read or write that cannot go on waits, unless the file says not to: the thread registers with the
//! file, tries once more, and is parked. When it is woken the call is executed from the start.

use alloc::sync::Arc;

use faultless::Access;
use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::{Full, Plain};
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::fs::{At, Body, Device, MAX_SIZE, OpenFile};
use crate::sched::Outcome;
use crate::signal::{self, number};
use crate::uaccess::{Source, UserBuffer};

pub(super) const CALLS: Calls = &[
    (linux::__NR_read, Full(read)),
    (linux::__NR_write, Full(write)),
    (linux::__NR_pread64, Full(pread)),
    (linux::__NR_pwrite64, Full(pwrite)),
    (linux::__NR_readv, Full(readv)),
    (linux::__NR_writev, Full(writev)),
    (linux::__NR_preadv, Full(preadv)),
    (linux::__NR_pwritev, Full(pwritev)),
    (linux::__NR_preadv2, Full(preadv2)),
    (linux::__NR_pwritev2, Full(pwritev2)),
    (linux::__NR_lseek, Plain(lseek)),
];

/// Makes an `Outcome` of what a block of steps computes.
fn outcome(steps: impl FnOnce() -> Result<Outcome, Errno>) -> Outcome {
    steps().unwrap_or_else(Outcome::from)
}

fn read(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let file = call.file(0)?;
        let buffer = single(call, Access::Write)?;
        Ok(read_from(call, &file, buffer, At::Position))
    })
}

fn write(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let file = call.file(0)?;
        let buffer = single(call, Access::Read)?;
        Ok(write_to(call, &file, buffer, At::Position))
    })
}

fn pread(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset(call.long(3))?;
        let file = call.file(0)?;
        let buffer = single(call, Access::Write)?;
        Ok(read_from(call, &file, buffer, at))
    })
}

fn pwrite(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset(call.long(3))?;
        let file = call.file(0)?;
        let buffer = single(call, Access::Read)?;
        Ok(write_to(call, &file, buffer, at))
    })
}

fn readv(call: &mut Call<'_>) -> Outcome {
    read_vector(call, At::Position)
}

fn writev(call: &mut Call<'_>) -> Outcome {
    write_vector(call, At::Position)
}

fn preadv(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset(call.long(3))?;
        Ok(read_vector(call, at))
    })
}

fn pwritev(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset(call.long(3))?;
        Ok(write_vector(call, at))
    })
}

fn preadv2(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset_or_position(call)?;
        Ok(read_vector(call, at))
    })
}

fn pwritev2(call: &mut Call<'_>) -> Outcome {
    outcome(|| {
        let at = offset_or_position(call)?;
        Ok(write_vector(call, at))
    })
}

/// The offset of a positioned call.
fn offset(value: i64) -> Result<At, Errno> {
    u64::try_from(value).map(At::Offset).map_err(|_| Errno::EINVAL)
}

/// The offset of the calls for which -1 means the position. None of their flags is supported.
fn offset_or_position(call: &Call<'_>) -> Result<At, Errno> {
    if call.uint(5) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    match call.long(3) {
        -1 => Ok(At::Position),
        value => offset(value),
    }
}

/// The buffer of a call with one.
fn single(call: &mut Call<'_>, access: Access) -> Result<UserBuffer, Errno> {
    UserBuffer::new(call.word(1), call.word(2))?.brought_in(call.cpu, access)
}

fn read_vector(call: &mut Call<'_>, at: At) -> Outcome {
    outcome(|| {
        let file = call.file(0)?;
        let (array, count) = (call.word(1), call.word(2));
        let buffer = UserBuffer::from_vector(call.cpu, array, count)?.brought_in(call.cpu, Access::Write)?;
        Ok(read_from(call, &file, buffer, at))
    })
}

fn write_vector(call: &mut Call<'_>, at: At) -> Outcome {
    outcome(|| {
        let file = call.file(0)?;
        let (array, count) = (call.word(1), call.word(2));
        let buffer = UserBuffer::from_vector(call.cpu, array, count)?.brought_in(call.cpu, Access::Read)?;
        Ok(write_to(call, &file, buffer, at))
    })
}

/// Reads, waiting if need be.
fn read_from(call: &mut Call<'_>, file: &Arc<OpenFile>, mut to: UserBuffer, at: At) -> Outcome {
    for registered in [false, true] {
        if registered {
            file.register(call.thread);
        }
        match file.read(call.cpu, &mut to, at) {
            Err(Errno::EAGAIN) if !file.is_nonblocking() => {}
            // A background process that is about to be stopped: once more afterwards.
            Err(Errno::EINTR) => return Outcome::Block,
            result => return done(result),
        }
        if let Some(terminal) = file.terminal()
            && file.is_patience_over(call.restart())
        {
            return done(terminal.read_now(call.cpu, &mut to));
        }
    }
    Outcome::Block
}

/// Writes everything, waiting if need be.
pub(super) fn write_to(call: &mut Call<'_>, file: &Arc<OpenFile>, mut from: UserBuffer, at: At) -> Outcome {
    let limit = call.limit(linux::RLIMIT_FSIZE);
    from.skip(call.restart().progress);
    let mut registered = false;
    // Ends: each round makes progress, registers once, or leaves.
    loop {
        let result = file.write(call.cpu, &mut from, at, limit);
        let progress = call.restart().progress;
        match result {
            Ok(count) => {
                call.restart().progress = progress + count;
                if from.left() == 0 || count == 0 || !file.takes_parts() {
                    return done(Ok(progress + count));
                }
            }
            Err(Errno::EAGAIN) if file.is_nonblocking() => return finish(progress, Errno::EAGAIN),
            Err(Errno::EAGAIN) if registered => return Outcome::Block,
            Err(Errno::EAGAIN) => {
                file.register(call.thread);
                registered = true;
            }
            Err(Errno::EINTR) => return Outcome::Block,
            Err(errno) => {
                match errno {
                    Errno::EPIPE => signal::raise(call.thread, number::SIGPIPE),
                    Errno::EFBIG if limit < MAX_SIZE => signal::raise(call.thread, number::SIGXFSZ),
                    _ => {}
                }
                return finish(progress, errno);
            }
        }
    }
}

/// What was done before an error counts more than the error.
fn finish(progress: usize, errno: Errno) -> Outcome {
    if progress > 0 { done(Ok(progress)) } else { errno.into() }
}

fn done(result: Result<usize, Errno>) -> Outcome {
    result.map(|count| count as i64).into()
}

fn lseek(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    let (offset, whence) = (call.long(1), call.uint(2));
    match &file.inode.body {
        // There is no position, but asking for one is no error.
        Body::Event(_) | Body::Epoll(_) => return Ok(0),
        _ if !file.is_seekable() => return Err(Errno::ESPIPE),
        _ => {}
    }
    // The end is asked for before the position is locked: a size may need other locks.
    let size = file.inode.size();
    let kind = file.inode.kind();
    let is_window = matches!(file.inode.body, Body::Device(Device::Frames));
    file.with_position(|position| {
        let start = match (whence, kind) {
            // Other devices have no position worth the name.
            (_, linux::S_IFCHR) if !is_window => return Ok(0),
            (linux::SEEK_SET, _) => 0,
            (linux::SEEK_CUR, _) => *position,
            (linux::SEEK_END, linux::S_IFREG) if file.inode.data().is_some() => size,
            (linux::SEEK_END, linux::S_IFDIR) => u64::from(u32::MAX),
            (linux::SEEK_DATA | linux::SEEK_HOLE, linux::S_IFREG) => {
                let wanted = u64::try_from(offset).ok().filter(|&wanted| wanted < size);
                let wanted = wanted.ok_or(Errno::ENXIO)?;
                // Holes are not told apart from data: allowed, and true as far as reads go.
                *position = if whence == linux::SEEK_DATA { wanted } else { size };
                return Ok(position.cast_signed());
            }
            _ => return Err(Errno::EINVAL),
        };
        let target = start.checked_add_signed(offset).filter(|&target| target <= MAX_SIZE);
        *position = target.ok_or(Errno::EINVAL)?;
        Ok(position.cast_signed())
    })
}
