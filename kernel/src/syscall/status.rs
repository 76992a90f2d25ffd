//! What is known about a file: `stat` and its relatives, access checks, links' targets, `statfs`.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::fs::{self, Body, FileData, Follow, HUGE_PAGE, Inode, PATH_MAX, PROC_DEVICE, Stamp};
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_stat, Plain(|call| stat(call, 0))),
    (linux::__NR_lstat, Plain(|call| stat(call, linux::AT_SYMLINK_NOFOLLOW))),
    (linux::__NR_fstat, Plain(fstat)),
    (linux::__NR_newfstatat, Plain(newfstatat)),
    (linux::__NR_statx, Plain(statx)),
    (linux::__NR_access, Plain(|call| access(call, linux::AT_FDCWD, 0, 0))),
    (linux::__NR_faccessat, Plain(|call| access(call, call.int(0), 1, 0))),
    (linux::__NR_faccessat2, Plain(faccessat2)),
    (linux::__NR_readlink, Plain(|call| readlink(call, linux::AT_FDCWD, 0))),
    (linux::__NR_readlinkat, Plain(|call| readlink(call, call.int(0), 1))),
    (linux::__NR_statfs, Plain(statfs)),
    (linux::__NR_fstatfs, Plain(fstatfs)),
];

const BLOCK: u64 = 4096;
/// `st_blocks` counts these.
const SECTOR: u64 = 512;

/// What all the forms of `stat` show.
struct Status {
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    pages: u64,
    accessed: Stamp,
    modified: Stamp,
    changed: Stamp,
    created: Stamp,
}

impl Status {
    fn of(inode: &Inode) -> Status {
        let size = inode.size();
        let kind = inode.kind();
        let attributes = *inode.attributes.lock();
        // What is in no directory by its nature has a link all the same: pipes, /proc.
        let nature = matches!(inode.body, Body::Proc(_) | Body::Fifo(_) | Body::Device(_));
        let links = if nature { attributes.links.max(1) } else { attributes.links };
        Status {
            mode: kind | attributes.permissions,
            links,
            uid: attributes.uid,
            gid: attributes.gid,
            size,
            pages: inode.data().map_or(0, FileData::pages),
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            created: attributes.created,
        }
    }

    /// Sectors that the contents take.
    fn sectors(&self) -> u64 {
        self.pages * (BLOCK / SECTOR)
    }
}

/// `struct stat`.
fn stat_layout(inode: &Inode) -> Layout {
    let status = Status::of(inode);
    let time = |layout: Layout, stamp: Stamp| layout.i64(stamp.seconds).u64(u64::from(stamp.nanos));
    let layout = Layout::new()
        .u64(inode.device)
        .u64(inode.number)
        .u64(u64::from(status.links))
        .u32(status.mode)
        .u32(status.uid)
        .u32(status.gid)
        .u32(0)
        .u64(inode.represented_device())
        .u64(status.size)
        .u64(BLOCK)
        .u64(status.sectors());
    let layout = time(layout, status.accessed);
    let layout = time(layout, status.modified);
    time(layout, status.changed).zeroes(24)
}

fn stat(call: &mut Call<'_>, flags: u32) -> SysResult {
    let path = call.path(0)?;
    let inode = call.find(linux::AT_FDCWD, &path, flags)?;
    let to = call.word(1);
    stat_layout(&inode).write(call.cpu, to)?;
    Ok(0)
}

fn fstat(call: &mut Call<'_>) -> SysResult {
    let file = call.files().get(call.int(0))?;
    let to = call.word(1);
    stat_layout(&file.inode).write(call.cpu, to)?;
    Ok(0)
}

fn newfstatat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(3);
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH | linux::AT_NO_AUTOMOUNT;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let path = call.path(1)?;
    let inode = call.find(call.int(0), &path, flags)?;
    let to = call.word(2);
    stat_layout(&inode).write(call.cpu, to)?;
    Ok(0)
}

fn statx(call: &mut Call<'_>) -> SysResult {
    let (flags, mask) = (call.uint(2), call.uint(3));
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH | linux::AT_NO_AUTOMOUNT | linux::AT_STATX_SYNC_TYPE;
    let sync = flags & linux::AT_STATX_SYNC_TYPE;
    if mask & linux::STATX__RESERVED != 0 || flags & !known != 0 || sync == linux::AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    // A null path with AT_EMPTY_PATH means the descriptor, as an empty one does.
    let path = match call.word(1) {
        0 if flags & linux::AT_EMPTY_PATH != 0 => alloc::vec::Vec::new(),
        _ => call.path(1)?,
    };
    let inode = call.find(call.int(0), &path, flags)?;
    let to = call.word(4);
    statx_layout(&inode).write(call.cpu, to)?;
    Ok(0)
}

/// `struct statx`.
fn statx_layout(inode: &Inode) -> Layout {
    let status = Status::of(inode);
    let time = |layout: Layout, stamp: Stamp| layout.i64(stamp.seconds).u32(stamp.nanos).u32(0);
    let device = |layout: Layout, number: u64| {
        let (major, minor) = fs::split_number(number);
        layout.u32(major).u32(minor)
    };
    let layout = Layout::new()
        .u32(linux::STATX_BASIC_STATS | linux::STATX_BTIME)
        .u32(BLOCK as u32)
        .u64(0)
        .u32(status.links)
        .u32(status.uid)
        .u32(status.gid)
        .u16(status.mode as u16)
        .u16(0)
        .u64(inode.number)
        .u64(status.size)
        .u64(status.sectors())
        .u64(0);
    let layout = time(layout, status.accessed);
    let layout = time(layout, status.created);
    let layout = time(layout, status.changed);
    let layout = time(layout, status.modified);
    let layout = device(layout, inode.represented_device());
    device(layout, inode.device).zeroes(256 - 144)
}

fn faccessat2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(3);
    let known = linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    access(call, call.int(0), 1, flags)
}

fn access(call: &mut Call<'_>, directory: i32, path: usize, flags: u32) -> SysResult {
    let mode = call.uint(path + 1);
    if mode & !(linux::R_OK | linux::W_OK | linux::X_OK) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = call.path(path)?;
    let inode = call.find(directory, &path, flags)?;
    // Root may do everything but execute what nobody may execute.
    let executable = inode.is_directory() || inode.mode() & 0o111 != 0;
    if mode & linux::X_OK != 0 && !executable {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

fn readlink(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let (to, size) = (call.word(path + 1), call.int(path + 2));
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = call.path(path)?;
    let inode = if path.is_empty() && directory != linux::AT_FDCWD {
        // A link that was itself opened with O_PATH.
        let inode = call.files().get(directory)?.inode.clone();
        if inode.is_symlink() { inode } else { return Err(Errno::ENOENT) }
    } else {
        call.walk(directory, &path, Follow::NotLast)?.existing()?
    };
    let target = inode.read_link()?;
    // With its end it would not fit where Linux builds it.
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let count = target.len().min(size as usize);
    uaccess::write(call.cpu, to, &target[..count])?;
    Ok(count as i64)
}

fn statfs(call: &mut Call<'_>) -> SysResult {
    let path = call.path(0)?;
    let inode = call.walk(linux::AT_FDCWD, &path, Follow::Last)?.existing()?;
    write_statfs(call, &inode)
}

fn fstatfs(call: &mut Call<'_>) -> SysResult {
    let inode = call.files().get(call.int(0))?.inode.clone();
    write_statfs(call, &inode)
}

/// `struct statfs` of the file system that holds `inode`.
fn write_statfs(call: &mut Call<'_>, inode: &Arc<Inode>) -> SysResult {
    const TMPFS: u64 = 0x0102_1994;
    const PROC: u64 = 0x9fa0;
    const HUGETLBFS: u64 = 0x9584_58f6;
    /// ST_VALID and ST_NOATIME.
    const FLAGS: u64 = 0x0020 | 0x0400;
    let is_proc = inode.device == PROC_DEVICE;
    let (kind, blocks, free) = match is_proc {
        true => (PROC, 0, 0),
        false => {
            let (free, total) = fs::frames();
            (TMPFS, total, free)
        }
    };
    if inode.data().is_some_and(FileData::is_huge) {
        let layout = [HUGETLBFS, HUGE_PAGE, 0, 0, 0, 0, 0, inode.device, 255, HUGE_PAGE, FLAGS];
        let layout = layout.into_iter().fold(Layout::new(), Layout::u64).zeroes(32);
        let to = call.word(1);
        return layout.write(call.cpu, to).map(|()| 0);
    }
    let (used, most) = if is_proc { (0, 0) } else { fs::file_count() };
    let layout = Layout::new()
        .u64(kind)
        .u64(BLOCK)
        .u64(blocks)
        .u64(free)
        .u64(free)
        .u64(most)
        .u64(most - used)
        .u64(inode.device)
        .u64(255)
        .u64(BLOCK)
        .u64(FLAGS)
        .zeroes(32);
    let to = call.word(1);
    layout.write(call.cpu, to)?;
    Ok(0)
}
