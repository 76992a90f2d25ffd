//! Descriptors: closing, copying, `fcntl`, `ioctl`.
//!
//! Absent on purpose: leases, signals on input.

use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl as request;

use super::Handler::{Full, Plain};
use super::call::Call;
use super::{Calls, locks};
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, CHANGEABLE, Device, OnExec, OpenFile};
use crate::sched::Outcome;
use crate::uaccess;

pub(super) const CALLS: Calls = &[
    (linux::__NR_close, Plain(close)),
    (linux::__NR_close_range, Plain(close_range)),
    (linux::__NR_dup, Plain(dup)),
    (linux::__NR_dup2, Plain(dup2)),
    (linux::__NR_dup3, Plain(dup3)),
    (linux::__NR_fcntl, Full(fcntl)),
    (linux::__NR_ioctl, Plain(ioctl)),
];

fn close(call: &mut Call<'_>) -> SysResult {
    call.files().close(call.int(0))?;
    Ok(0)
}

/// Not in the list of constants.
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

fn close_range(call: &mut Call<'_>) -> SysResult {
    let (first, last, flags) = (call.uint(0), call.uint(1), call.uint(2));
    // CLOSE_RANGE_UNSHARE would need a table of the thread's own.
    if first > last || flags & !CLOSE_RANGE_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        call.files().set_range_on_exec(first, last, OnExec::Close);
    } else {
        call.files().close_range(first, last);
    }
    Ok(0)
}

fn dup(call: &mut Call<'_>) -> SysResult {
    copy(call, 0, OnExec::Keep)
}

/// The lowest free number from `least` up for the file that argument 0 names.
fn copy(call: &Call<'_>, least: usize, on_exec: OnExec) -> SysResult {
    let files = call.files();
    let file = files.get(call.int(0))?;
    let number = files.add(file, on_exec, least, call.file_limit())?;
    Ok(i64::from(number))
}

fn dup2(call: &mut Call<'_>) -> SysResult {
    let (old, new) = (call.int(0), call.int(1));
    if old == new {
        call.files().get(old)?;
        return Ok(i64::from(new));
    }
    replace(call, old, new, OnExec::Keep)
}

fn dup3(call: &mut Call<'_>) -> SysResult {
    let (old, new, flags) = (call.int(0), call.int(1), call.uint(2));
    if flags & !linux::O_CLOEXEC != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    replace(call, old, new, OnExec::closing_if(flags != 0))
}

fn replace(call: &Call<'_>, old: i32, new: i32, on_exec: OnExec) -> SysResult {
    let files = call.files();
    // A new number out of range is found before an old one that is not open.
    if u64::from(new.cast_unsigned()) >= call.file_limit() {
        return Err(Errno::EBADF);
    }
    let file = files.get(old)?;
    files.put(file, on_exec, new, call.file_limit())?;
    Ok(i64::from(new))
}

fn fcntl(call: &mut Call<'_>) -> Outcome {
    let command = call.uint(1);
    match call.file(0) {
        Ok(file) => locks::fcntl(call, &file, command).unwrap_or_else(|| control(call).into()),
        // It may be a file of O_PATH, which some commands take.
        Err(_) => control(call).into(),
    }
}

fn control(call: &Call<'_>) -> SysResult {
    let files = call.files();
    let (fd, command, argument) = (call.int(0), call.uint(1), call.word(2));
    let file = files.get(fd)?;
    match command {
        linux::F_DUPFD | linux::F_DUPFD_CLOEXEC => {
            let least = u64::from(argument as u32);
            if least >= call.file_limit() {
                return Err(Errno::EINVAL);
            }
            copy(call, least as usize, OnExec::closing_if(command == linux::F_DUPFD_CLOEXEC))
        }
        linux::F_GETFD => Ok(i64::from(files.on_exec(fd)? == OnExec::Close)),
        linux::F_SETFD => {
            let closes = argument as u32 & linux::FD_CLOEXEC != 0;
            files.set_on_exec(fd, OnExec::closing_if(closes))?;
            Ok(0)
        }
        linux::F_GETFL => Ok(i64::from(file.flags())),
        _ if file.rights().path => Err(Errno::EBADF),
        linux::F_SETFL => set_flags(&file, argument as u32),
        _ => on_file(&file, command, argument),
    }
}

fn set_flags(file: &OpenFile, flags: u32) -> SysResult {
    // Asynchronous and direct input and output are not offered; the rest cannot be changed.
    if flags & (linux::FASYNC | linux::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    file.set_flags(flags & CHANGEABLE);
    Ok(0)
}

fn on_file(file: &OpenFile, command: u32, argument: u64) -> SysResult {
    match (&file.inode.body, command) {
        (Body::Fifo(pipe), linux::F_GETPIPE_SZ) => Ok(pipe.capacity() as i64),
        (Body::Fifo(pipe), linux::F_SETPIPE_SZ) => Ok(pipe.set_capacity(argument as u32)? as i64),
        (_, linux::F_GETPIPE_SZ | linux::F_SETPIPE_SZ) => Err(Errno::EBADF),
        (Body::Regular(data), linux::F_GET_SEALS) => Ok(i64::from(data.seals())),
        (Body::Regular(_), linux::F_ADD_SEALS) if !file.rights().write => Err(Errno::EPERM),
        (Body::Regular(data), linux::F_ADD_SEALS) => data.add_seals(&file.inode, argument as u32).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

fn ioctl(call: &mut Call<'_>) -> SysResult {
    let (fd, command, argument) = (call.int(0), call.uint(1), call.word(2));
    let file = call.file(0)?;
    match command {
        request::FIOCLEX => call.files().set_on_exec(fd, OnExec::Close).map(|()| 0),
        request::FIONCLEX => call.files().set_on_exec(fd, OnExec::Keep).map(|()| 0),
        request::FIONBIO => {
            let on = uaccess::read_u32(call.cpu, argument)? != 0;
            let flags = file.flags() & !linux::O_NONBLOCK;
            file.set_flags(flags | if on { linux::O_NONBLOCK } else { 0 });
            Ok(0)
        }
        _ => match (&file.inode.body, file.terminal()) {
            (_, Some(terminal)) => terminal.ioctl(call.cpu, command, argument),
            (Body::Userfault(userfault), _) => super::userfault::ioctl(call, userfault, command, argument),
            (Body::Fifo(pipe), _) if command == request::FIONREAD => put_count(call, argument, pipe.len() as u64),
            (Body::Device(Device::Stream), _) if command == request::FIONREAD => {
                put_count(call, argument, crate::fs::stream_length() as u64)
            }
            (Body::Regular(data), _) if command == request::FIONREAD => {
                put_count(call, argument, data.size().saturating_sub(file.position()))
            }
            _ => Err(Errno::ENOTTY),
        },
    }
}

fn put_count(call: &mut Call<'_>, to: u64, count: u64) -> SysResult {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    uaccess::write(call.cpu, to, &count.to_le_bytes())?;
    Ok(0)
}
