//! `flock`, and the lock commands of `fcntl`.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Full;
use super::call::Call;
use crate::errno::Errno;
use crate::fs::{LockKind, LockOwner, LockRecord, MAX_SIZE, OpenFile, lock_queue};
use crate::sched::Outcome;
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[(linux::__NR_flock, Full(flock))];

const READ: u16 = linux::F_RDLCK as u16;
const WRITE: u16 = linux::F_WRLCK as u16;
const UNLOCK: u16 = linux::F_UNLCK as u16;

/// What to do when somebody else holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Fail,
    Wait,
}

fn flock(call: &mut Call<'_>) -> Outcome {
    let operation = call.uint(1);
    let file = match call.file(0) {
        Ok(file) => file,
        Err(errno) => return errno.into(),
    };
    let kind = match operation & !linux::LOCK_NB {
        linux::LOCK_SH => Some(LockKind::Shared),
        linux::LOCK_EX => Some(LockKind::Exclusive),
        linux::LOCK_UN => None,
        _ => return Errno::EINVAL.into(),
    };
    let held = if operation & linux::LOCK_NB != 0 { Held::Fail } else { Held::Wait };
    let owner = LockOwner::Whole(Arc::as_ptr(&file) as usize);
    let record = LockRecord { start: 0, last: u64::MAX, kind: kind.unwrap_or(LockKind::Shared), owner };
    if kind.is_none() {
        return file.inode.locks.release(&record).map(|()| 0).into();
    }
    take(call, &file, record, held)
}

/// Takes a lock, waiting if that is wanted.
fn take(call: &Call<'_>, file: &OpenFile, record: LockRecord, held: Held) -> Outcome {
    for registered in [false, true] {
        if registered {
            lock_queue().register(call.thread);
        }
        match file.inode.locks.take(record) {
            Err(Errno::EAGAIN) if held == Held::Wait => {}
            other => return other.map(|()| 0).into(),
        }
    }
    Outcome::Block
}

/// The lock commands of `fcntl`; none for any other command.
pub(super) fn fcntl(call: &mut Call<'_>, file: &Arc<OpenFile>, command: u32) -> Option<Outcome> {
    let is_of_file = match command {
        linux::F_GETLK | linux::F_SETLK | linux::F_SETLKW => false,
        linux::F_OFD_GETLK | linux::F_OFD_SETLK | linux::F_OFD_SETLKW => true,
        _ => return None,
    };
    let owner =
        if is_of_file { LockOwner::Open(Arc::as_ptr(file) as usize) } else { call.files().owner(call.process().pid) };
    let steps = |call: &mut Call<'_>| match command {
        linux::F_GETLK | linux::F_OFD_GETLK => query(call, file, owner),
        linux::F_SETLK | linux::F_OFD_SETLK => set(call, file, owner, Held::Fail),
        _ => set(call, file, owner, Held::Wait),
    };
    Some(steps(call).unwrap_or_else(Outcome::from))
}

/// A `struct flock`, its range worked out. `kind` is none for `F_UNLCK`.
struct Request {
    kind: Option<LockKind>,
    record: LockRecord,
}

fn read(call: &mut Call<'_>, file: &OpenFile, owner: LockOwner) -> Result<Request, Errno> {
    let at = call.word(2);
    let bytes: [u8; 32] = uaccess::read(call.cpu, at)?;
    let (kind, whence) = (u16::from_le_bytes([bytes[0], bytes[1]]), u16::from_le_bytes([bytes[2], bytes[3]]));
    let (start, length) = (uaccess::word(&bytes, 8).cast_signed(), uaccess::word(&bytes, 16).cast_signed());
    if matches!(owner, LockOwner::Open(_)) && uaccess::half(&bytes, 24) != 0 {
        return Err(Errno::EINVAL);
    }
    let base = match u32::from(whence) {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => file.position(),
        linux::SEEK_END => file.inode.size(),
        _ => return Err(Errno::EINVAL),
    };
    let (start, last) = range(base, start, length)?;
    let kind = match kind {
        READ => Some(LockKind::Shared),
        WRITE => Some(LockKind::Exclusive),
        UNLOCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let record = LockRecord { start, last, kind: kind.unwrap_or(LockKind::Shared), owner };
    Ok(Request { kind, record })
}

/// First and last byte of `length` bytes at `start` from `base`; negative lengths go backwards, zero
/// means to the end of all files.
fn range(base: u64, start: i64, length: i64) -> Result<(u64, u64), Errno> {
    let overflow = Errno::EOVERFLOW;
    let start = base.cast_signed().checked_add(start).ok_or(overflow)?;
    let (start, last) = match length {
        0 => (start, MAX_SIZE.cast_signed()),
        length if length > 0 => (start, start.checked_add(length - 1).ok_or(overflow)?),
        length => (start.checked_add(length).ok_or(Errno::EINVAL)?, start - 1),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    Ok((start, u64::try_from(last).map_err(|_| Errno::EINVAL)?))
}

fn query(call: &mut Call<'_>, file: &OpenFile, owner: LockOwner) -> Result<Outcome, Errno> {
    let request = read(call, file, owner)?;
    if request.kind.is_none() && !matches!(owner, LockOwner::Open(_)) {
        return Err(Errno::EINVAL);
    }
    let at = call.word(2);
    let Some(found) = file.inode.locks.conflict(&request.record) else {
        uaccess::write(call.cpu, at, &UNLOCK.to_le_bytes())?;
        return Ok(Outcome::Done(0));
    };
    let kind = if found.kind == LockKind::Shared { READ } else { WRITE };
    let length = if found.last == MAX_SIZE { 0 } else { found.last - found.start + 1 };
    let pid = match found.owner {
        LockOwner::Table { pid, .. } => pid,
        _ => -1,
    };
    Layout::new().u16(kind).u16(0).u32(0).u64(found.start).u64(length).u32(pid.cast_unsigned()).write(call.cpu, at)?;
    Ok(Outcome::Done(0))
}

fn set(call: &mut Call<'_>, file: &OpenFile, owner: LockOwner, held: Held) -> Result<Outcome, Errno> {
    let request = read(call, file, owner)?;
    match request.kind {
        Some(LockKind::Shared) if !file.rights().read => Err(Errno::EBADF),
        Some(LockKind::Exclusive) if !file.rights().write => Err(Errno::EBADF),
        Some(_) => Ok(take(call, file, request.record, held)),
        None => Ok(file.inode.locks.release(&request.record).map(|()| 0).into()),
    }
}
