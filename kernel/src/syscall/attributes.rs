//! Changing what is known about a file: permissions, owners, times, size.
//!
//! Extended attributes are not supported: asking for one says so, and there are none to list.

use alloc::sync::Arc;

use faultless_linux::calls::{self, Allocation};
use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, F_SEAL_EXEC, Follow, Inode, MAX_SIZE, OpenFile, Stamp};
use crate::signal::{self, number};
use crate::uaccess;

pub(super) const CALLS: Calls = &[
    (linux::__NR_chmod, Plain(|call| chmod(call, linux::AT_FDCWD, 0, 0))),
    (linux::__NR_fchmod, Plain(fchmod)),
    (linux::__NR_fchmodat, Plain(|call| chmod(call, call.int(0), 1, 0))),
    (linux::__NR_fchmodat2, Plain(|call| chmod(call, call.int(0), 1, call.uint(3)))),
    (linux::__NR_chown, Plain(|call| chown(call, linux::AT_FDCWD, 0, 0))),
    (linux::__NR_lchown, Plain(|call| chown(call, linux::AT_FDCWD, 0, linux::AT_SYMLINK_NOFOLLOW))),
    (linux::__NR_fchown, Plain(fchown)),
    (linux::__NR_fchownat, Plain(|call| chown(call, call.int(0), 1, call.uint(4)))),
    (linux::__NR_utimensat, Plain(utimensat)),
    (linux::__NR_futimesat, Plain(futimesat)),
    (linux::__NR_utimes, Plain(utimes)),
    (linux::__NR_utime, Plain(utime)),
    (linux::__NR_truncate, Plain(truncate)),
    (linux::__NR_ftruncate, Plain(ftruncate)),
    (linux::__NR_fallocate, Plain(fallocate)),
    (linux::__NR_umask, Plain(|call| Ok(i64::from(call.process().fs().set_umask(call.uint(0)))))),
    (linux::__NR_fsync, Plain(fsync)),
    (linux::__NR_fdatasync, Plain(fsync)),
    (linux::__NR_syncfs, Plain(syncfs)),
    (linux::__NR_sync, Plain(|_| Ok(0))),
    (linux::__NR_fadvise64, Plain(fadvise)),
    (linux::__NR_readahead, Plain(readahead)),
    (linux::__NR_getxattr, Plain(|call| no_attribute(call, Follow::Last))),
    (linux::__NR_lgetxattr, Plain(|call| no_attribute(call, Follow::NotLast))),
    (linux::__NR_fgetxattr, Plain(no_attribute_of_file)),
    (linux::__NR_setxattr, Plain(|call| no_attribute(call, Follow::Last))),
    (linux::__NR_lsetxattr, Plain(|call| no_attribute(call, Follow::NotLast))),
    (linux::__NR_fsetxattr, Plain(no_attribute_of_file)),
    (linux::__NR_removexattr, Plain(|call| no_attribute(call, Follow::Last))),
    (linux::__NR_lremovexattr, Plain(|call| no_attribute(call, Follow::NotLast))),
    (linux::__NR_fremovexattr, Plain(no_attribute_of_file)),
    (linux::__NR_listxattr, Plain(|call| no_list(call, Follow::Last))),
    (linux::__NR_llistxattr, Plain(|call| no_list(call, Follow::NotLast))),
    (linux::__NR_flistxattr, Plain(|call| call.file(0).map(|_| 0))),
];

/// Flags of the calls that name a file by descriptor and path.
fn check_flags(flags: u32) -> Result<(), Errno> {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !known != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn chmod(call: &mut Call<'_>, directory: i32, path: usize, flags: u32) -> SysResult {
    check_flags(flags)?;
    let mode = call.uint(path + 1);
    let path = call.path(path)?;
    let inode = call.find(directory, &path, flags)?;
    set_permissions(&inode, mode)
}

fn fchmod(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    set_permissions(&file.inode, call.uint(1))
}

fn set_permissions(inode: &Inode, mode: u32) -> SysResult {
    if inode.is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    refuse_proc(inode)?;
    let mut attributes = inode.attributes.lock();
    let sealed = inode.data().is_some_and(|data| data.seals() & F_SEAL_EXEC != 0);
    if sealed && (attributes.permissions ^ mode) & 0o111 != 0 {
        return Err(Errno::EPERM);
    }
    attributes.permissions = mode & 0o7777;
    attributes.changed = Stamp::now();
    Ok(0)
}

/// What is computed at each look has no attributes to change.
fn refuse_proc(inode: &Inode) -> Result<(), Errno> {
    if matches!(inode.body, Body::Proc(_)) { Err(Errno::EPERM) } else { Ok(()) }
}

fn chown(call: &mut Call<'_>, directory: i32, path: usize, flags: u32) -> SysResult {
    check_flags(flags)?;
    let (uid, gid) = (call.uint(path + 1), call.uint(path + 2));
    let path = call.path(path)?;
    let inode = call.find(directory, &path, flags)?;
    set_owner(&inode, uid, gid)
}

fn fchown(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    set_owner(&file.inode, call.uint(1), call.uint(2))
}

fn set_owner(inode: &Inode, uid: u32, gid: u32) -> SysResult {
    const UNCHANGED: u32 = u32::MAX;
    const SET_ID: u32 = 0o6000;
    refuse_proc(inode)?;
    let is_regular = inode.data().is_some();
    let mut attributes = inode.attributes.lock();
    if uid != UNCHANGED {
        attributes.uid = uid;
    }
    if gid != UNCHANGED {
        attributes.gid = gid;
    }
    if is_regular && attributes.permissions & 0o111 != 0 {
        attributes.permissions &= !SET_ID;
    }
    attributes.changed = Stamp::now();
    Ok(0)
}

/// Access and modification time to set; none leaves one as it is.
type Times = [Option<Stamp>; 2];

fn set_times(inode: &Inode, [accessed, modified]: Times) -> SysResult {
    refuse_proc(inode)?;
    let mut attributes = inode.attributes.lock();
    attributes.accessed = accessed.unwrap_or(attributes.accessed);
    attributes.modified = modified.unwrap_or(attributes.modified);
    attributes.changed = Stamp::now();
    Ok(0)
}

fn utimensat(call: &mut Call<'_>) -> SysResult {
    let (path_at, times_at, flags) = (call.word(1), call.word(2), call.uint(3));
    let times = if times_at == 0 {
        [Some(Stamp::now()); 2]
    } else {
        let bytes: [u8; 32] = uaccess::read(call.cpu, times_at)?;
        [timespec(&bytes[..16])?, timespec(&bytes[16..])?]
    };
    if times == [None; 2] {
        // Nothing to do, so nothing is looked for either.
        return Ok(0);
    }
    check_flags(flags)?;
    let inode = if path_at == 0 {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        call.file(0)?.inode.clone()
    } else {
        let path = call.path(1)?;
        call.find(call.int(0), &path, flags)?
    };
    set_times(&inode, times)
}

/// A `struct timespec` with the two special values of its second half.
fn timespec(bytes: &[u8]) -> Result<Option<Stamp>, Errno> {
    const NOW: u64 = linux::UTIME_NOW as u64;
    const OMIT: u64 = linux::UTIME_OMIT as u64;
    let seconds = uaccess::word(bytes, 0).cast_signed();
    match uaccess::word(bytes, 8) {
        NOW => Ok(Some(Stamp::now())),
        OMIT => Ok(None),
        nanos if nanos < 1_000_000_000 => Ok(Some(Stamp { seconds, nanos: nanos as u32 })),
        _ => Err(Errno::EINVAL),
    }
}

/// A `struct timeval`.
fn timeval(bytes: &[u8]) -> Result<Option<Stamp>, Errno> {
    let seconds = uaccess::word(bytes, 0).cast_signed();
    match uaccess::word(bytes, 8) {
        micros if micros < 1_000_000 => Ok(Some(Stamp { seconds, nanos: micros as u32 * 1000 })),
        _ => Err(Errno::EINVAL),
    }
}

fn timevals(call: &mut Call<'_>, at: u64) -> Result<Times, Errno> {
    if at == 0 {
        return Ok([Some(Stamp::now()); 2]);
    }
    let bytes: [u8; 32] = uaccess::read(call.cpu, at)?;
    Ok([timeval(&bytes[..16])?, timeval(&bytes[16..])?])
}

fn futimesat(call: &mut Call<'_>) -> SysResult {
    let times_at = call.word(2);
    let times = timevals(call, times_at)?;
    let path = call.path(1)?;
    let inode = call.find(call.int(0), &path, 0)?;
    set_times(&inode, times)
}

fn utimes(call: &mut Call<'_>) -> SysResult {
    let times_at = call.word(1);
    let times = timevals(call, times_at)?;
    let path = call.path(0)?;
    let inode = call.find(linux::AT_FDCWD, &path, 0)?;
    set_times(&inode, times)
}

fn utime(call: &mut Call<'_>) -> SysResult {
    let times = match call.word(1) {
        0 => [Some(Stamp::now()); 2],
        at => {
            let bytes: [u8; 16] = uaccess::read(call.cpu, at)?;
            [0, 8].map(|n| Some(Stamp { seconds: uaccess::word(&bytes, n).cast_signed(), nanos: 0 }))
        }
    };
    let path = call.path(0)?;
    let inode = call.find(linux::AT_FDCWD, &path, 0)?;
    set_times(&inode, times)
}

fn truncate(call: &mut Call<'_>) -> SysResult {
    let size = u64::try_from(call.long(1)).map_err(|_| Errno::EINVAL)?;
    let path = call.path(0)?;
    let inode = call.find(linux::AT_FDCWD, &path, 0)?;
    if inode.is_directory() {
        return Err(Errno::EISDIR);
    }
    resize(call, &inode, size)
}

fn ftruncate(call: &mut Call<'_>) -> SysResult {
    let size = u64::try_from(call.long(1)).map_err(|_| Errno::EINVAL)?;
    let file = call.file(0)?;
    if !file.rights().write {
        return Err(Errno::EINVAL);
    }
    resize(call, &file.inode, size)
}

fn resize(call: &mut Call<'_>, inode: &Arc<Inode>, size: u64) -> SysResult {
    let data = inode.data().ok_or(Errno::EINVAL)?;
    if size > data.size() {
        check_size(call, size)?;
    }
    data.resize(inode, call.cpu, size)?;
    Ok(0)
}

/// Whether a file may become `size` bytes long; SIGXFSZ if the caller's limit is in the way.
fn check_size(call: &Call<'_>, size: u64) -> Result<(), Errno> {
    if size > call.limit(linux::RLIMIT_FSIZE) {
        signal::raise(call.thread, number::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    if size > MAX_SIZE { Err(Errno::EFBIG) } else { Ok(()) }
}

/// What tmpfs does: makes pages, or a hole. Its other modes are refused as tmpfs refuses them.
fn fallocate(call: &mut Call<'_>) -> SysResult {
    let (mode, offset, length) = (call.uint(1), call.long(2), call.long(3));
    let file = call.file(0)?;
    calls::check_fallocate(mode, offset, length)?;
    if !file.rights().write {
        return Err(Errno::EBADF);
    }
    let Some(data) = file.inode.data() else {
        return Err(if file.is_seekable() { Errno::ENODEV } else { Errno::ESPIPE });
    };
    let (what, start, end) = calls::allocation(mode, offset, length, MAX_SIZE)?;
    match what {
        Allocation::Extend => {
            if end > data.size() {
                check_size(call, end)?;
            }
            data.allocate(&file.inode, call.cpu, (start, end), false)?;
        }
        Allocation::KeepSize => data.allocate(&file.inode, call.cpu, (start, end), true)?,
        Allocation::PunchHole => data.punch(&file.inode, call.cpu, start, end)?,
    }
    Ok(0)
}

/// Contents live in memory and nowhere else: they are as safe as they will ever be.
fn fsync(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    match &file.inode.body {
        Body::Regular(_) | Body::Directory(_) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn syncfs(call: &mut Call<'_>) -> SysResult {
    call.files().get_open(call.int(0)).map(|_| 0)
}

/// A hint.
fn fadvise(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    if !file.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    if call.long(2) < 0 || call.uint(3) > linux::POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// A hint as well.
fn readahead(call: &mut Call<'_>) -> SysResult {
    let file: Arc<OpenFile> = call.file(0)?;
    if !file.rights().read {
        return Err(Errno::EBADF);
    }
    if file.inode.data().is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

fn no_attribute(call: &mut Call<'_>, follow: Follow) -> SysResult {
    no_list(call, follow)?;
    Err(Errno::EOPNOTSUPP)
}

fn no_attribute_of_file(call: &mut Call<'_>) -> SysResult {
    call.file(0)?;
    Err(Errno::EOPNOTSUPP)
}

fn no_list(call: &mut Call<'_>, follow: Follow) -> SysResult {
    let path = call.path(0)?;
    call.walk(linux::AT_FDCWD, &path, follow)?.existing()?;
    Ok(0)
}
