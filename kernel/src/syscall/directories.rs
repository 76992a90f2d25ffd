//! Directories and names: reading, creating, removing, renaming, and where the process is.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use super::open::special_body;
use crate::errno::{Errno, SysResult};
use crate::fs::{self, Body, FIRST_COOKIE, Follow, Inode, Last, NAME_MAX, Nameless, PATH_MAX, Place, Replace, Spot};
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_getdents64, Plain(getdents64)),
    (linux::__NR_getcwd, Plain(getcwd)),
    (linux::__NR_chdir, Plain(chdir)),
    (linux::__NR_fchdir, Plain(fchdir)),
    (linux::__NR_mkdir, Plain(|call| mkdir(call, linux::AT_FDCWD, 0))),
    (linux::__NR_mkdirat, Plain(|call| mkdir(call, call.int(0), 1))),
    (linux::__NR_mknod, Plain(|call| mknod(call, linux::AT_FDCWD, 0))),
    (linux::__NR_mknodat, Plain(|call| mknod(call, call.int(0), 1))),
    (linux::__NR_rmdir, Plain(|call| rmdir(call, linux::AT_FDCWD, 0))),
    (linux::__NR_unlink, Plain(|call| unlink(call, linux::AT_FDCWD, 0))),
    (linux::__NR_unlinkat, Plain(unlinkat)),
    (linux::__NR_symlink, Plain(|call| symlink(call, linux::AT_FDCWD, 1))),
    (linux::__NR_symlinkat, Plain(|call| symlink(call, call.int(1), 2))),
    (linux::__NR_link, Plain(|call| link(call, [linux::AT_FDCWD; 2], [0, 1], 0))),
    (linux::__NR_linkat, Plain(linkat)),
    (linux::__NR_rename, Plain(|call| rename(call, [linux::AT_FDCWD; 2], [0, 1], 0))),
    (linux::__NR_renameat, Plain(|call| rename(call, [call.int(0), call.int(2)], [1, 3], 0))),
    (linux::__NR_renameat2, Plain(renameat2)),
];

/// Bytes of a `struct linux_dirent64` before the name.
const ENTRY_HEADER: usize = 19;
/// Most bytes of entries collected per call.
const ENTRIES_MAX: usize = 32 << 10;

/// Entries being collected for `getdents64`.
struct Listing {
    bytes: Vec<u8>,
    limit: usize,
}

impl Listing {
    /// Adds an entry; `next` is the position after it. Says whether it fitted.
    fn add(&mut self, number: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let length = (ENTRY_HEADER + name.len() + 1).next_multiple_of(8);
        if self.bytes.len() + length > self.limit {
            return false;
        }
        let entry = Layout::new()
            .u64(number)
            .u64(next)
            .u16(length as u16)
            .bytes(&[(kind >> 12) as u8])
            .bytes(name)
            .zeroes(length - ENTRY_HEADER - name.len());
        self.bytes.extend_from_slice(entry.as_bytes());
        true
    }
}

fn getdents64(call: &mut Call<'_>) -> SysResult {
    let file = call.file(0)?;
    let directory = &file.inode;
    if !directory.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    let limit = (call.uint(2) as usize).min(ENTRIES_MAX);
    let mut listing = Listing { bytes: Vec::new(), limit };
    let to = call.word(1);
    let cpu = &mut *call.cpu;
    file.with_position(|position| {
        let complete = list(directory, position, &mut listing)?;
        if listing.bytes.is_empty() {
            return if complete { Ok(0) } else { Err(Errno::EINVAL) };
        }
        uaccess::write(cpu, to, &listing.bytes)?;
        Ok(listing.bytes.len() as i64)
    })
}

/// Lists entries from `position` on, which moves. Says whether there are no more.
fn list(directory: &Arc<Inode>, position: &mut u64, listing: &mut Listing) -> Result<bool, Errno> {
    if let Body::Directory(entries) = &directory.body
        && *position >= FIRST_COOKIE
        && entries.lock().is_gone()
    {
        return Ok(true);
    }
    if *position == 0 {
        if !listing.add(directory.number, 1, linux::S_IFDIR, b".") {
            return Ok(false);
        }
        *position = 1;
    }
    if *position == 1 {
        let parent = fs::parent_of(directory);
        if !listing.add(parent.number, FIRST_COOKIE, linux::S_IFDIR, b"..") {
            return Ok(false);
        }
        *position = FIRST_COOKIE;
    }
    match &directory.body {
        Body::Directory(entries) => {
            let entries = entries.lock();
            while let Some((at, name, inode)) = entries.entry_from(*position) {
                if !listing.add(inode.number, at + 1, inode.kind(), name) {
                    return Ok(false);
                }
                *position = at + 1;
            }
        }
        Body::Proc(node) => {
            for (index, entry) in node.entries()?.iter().enumerate() {
                let at = entry.position(index);
                if at < *position {
                    continue;
                }
                if !listing.add(entry.node.number(), at + 1, entry.node.kind(), &entry.name) {
                    return Ok(false);
                }
                *position = at + 1;
            }
        }
        _ => return Err(Errno::ENOTDIR),
    }
    Ok(true)
}

fn getcwd(call: &mut Call<'_>) -> SysResult {
    let directory = call.process().fs().directory();
    if directory.entries().is_some_and(|entries| entries.lock().is_gone()) {
        return Err(Errno::ENOENT);
    }
    let mut path = directory.path();
    path.push(0);
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if path.len() as u64 > call.word(1) {
        return Err(Errno::ERANGE);
    }
    let to = call.word(0);
    uaccess::write(call.cpu, to, &path)?;
    Ok(path.len() as i64)
}

fn chdir(call: &mut Call<'_>) -> SysResult {
    let path = call.path(0)?;
    let directory = call.walk(linux::AT_FDCWD, &path, Follow::Last)?.existing()?;
    enter(call, directory)
}

fn fchdir(call: &mut Call<'_>) -> SysResult {
    let file = call.files().get(call.int(0))?;
    enter(call, file.inode.clone())
}

fn enter(call: &Call<'_>, directory: Arc<Inode>) -> SysResult {
    if !directory.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    call.process().fs().set_directory(directory);
    Ok(0)
}

/// The place of a name that is to be created.
fn new_place(call: &mut Call<'_>, directory: i32, path: usize) -> Result<(Place<Arc<Inode>>, Vec<u8>), Errno> {
    let path = call.path(path)?;
    let place = call.walk(directory, &path, Follow::NotLast)?;
    match (&place.found, &place.last) {
        (None, Last::Name(name)) => {
            let name = name.clone();
            Ok((place, name))
        }
        _ => Err(Errno::EEXIST),
    }
}

fn masked(call: &Call<'_>, mode: u32) -> u32 {
    mode & 0o7777 & !call.process().fs().umask()
}

fn mkdir(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let mode = call.uint(path + 1) & 0o1777;
    let (place, name) = new_place(call, directory, path)?;
    let new = fs::new_directory(masked(call, mode));
    fs::create(Spot { directory: &place.directory, name: &name }, &new)?;
    Ok(0)
}

fn mknod(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let (mode, device) = (call.uint(path + 1), u64::from(call.uint(path + 2)));
    let (place, name) = new_place(call, directory, path)?;
    if place.slash {
        return Err(Errno::ENOENT);
    }
    let new = Inode::new(special_body(mode, device)?, masked(call, mode));
    fs::create(Spot { directory: &place.directory, name: &name }, &new)?;
    Ok(0)
}

fn symlink(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let target = call.path(0)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let (place, name) = new_place(call, directory, path)?;
    if place.slash {
        return Err(Errno::ENOENT);
    }
    let new = Inode::new(Body::Symlink(target.into()), 0o777);
    fs::create(Spot { directory: &place.directory, name: &name }, &new)?;
    Ok(0)
}

fn unlinkat(call: &mut Call<'_>) -> SysResult {
    match call.uint(2) {
        0 => unlink(call, call.int(0), 1),
        linux::AT_REMOVEDIR => rmdir(call, call.int(0), 1),
        _ => Err(Errno::EINVAL),
    }
}

fn unlink(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let path = call.path(path)?;
    let place = call.walk(directory, &path, Follow::NotLast)?;
    let Last::Name(name) = &place.last else {
        return Err(Errno::EISDIR);
    };
    if place.slash && place.found.as_ref().is_some_and(|inode| !inode.is_directory()) {
        return Err(Errno::ENOTDIR);
    }
    fs::unlink(Spot { directory: &place.directory, name })?;
    Ok(0)
}

fn rmdir(call: &mut Call<'_>, directory: i32, path: usize) -> SysResult {
    let path = call.path(path)?;
    let place = call.walk(directory, &path, Follow::NotLast)?;
    let name = match &place.last {
        Last::Name(name) => name,
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Dot if path.iter().all(|&b| b == b'/') => return Err(Errno::EBUSY),
        Last::Dot => return Err(Errno::EINVAL),
        Last::Jump => return Err(Errno::ENOTDIR),
    };
    fs::rmdir(Spot { directory: &place.directory, name })?;
    Ok(0)
}

fn linkat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(4);
    if flags & !(linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    link(call, [call.int(0), call.int(2)], [1, 3], flags)
}

fn link(call: &mut Call<'_>, directories: [i32; 2], paths: [usize; 2], flags: u32) -> SysResult {
    let old = call.path(paths[0])?;
    let nofollow = if flags & linux::AT_SYMLINK_FOLLOW != 0 { 0 } else { linux::AT_SYMLINK_NOFOLLOW };
    let inode = call.find(directories[0], &old, flags | nofollow)?;
    let (place, name) = new_place(call, directories[1], paths[1])?;
    if place.slash {
        return Err(Errno::ENOENT);
    }
    if inode.device != place.directory.device {
        return Err(Errno::EXDEV);
    }
    // A file that never had a name is one of O_TMPFILE.
    let nameless = if inode.is_named() { Nameless::Refuse } else { Nameless::Allow };
    fs::link(Spot { directory: &place.directory, name: &name }, &inode, nameless)?;
    Ok(0)
}

fn renameat2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(4);
    rename(call, [call.int(0), call.int(2)], [1, 3], flags)
}

fn rename(call: &mut Call<'_>, directories: [i32; 2], paths: [usize; 2], flags: u32) -> SysResult {
    if flags & !linux::RENAME_NOREPLACE != 0 {
        return Err(Errno::EINVAL);
    }
    let old = call.path(paths[0])?;
    let new = call.path(paths[1])?;
    let from = call.walk(directories[0], &old, Follow::NotLast)?;
    let to = call.walk(directories[1], &new, Follow::NotLast)?;
    if from.directory.device != to.directory.device {
        return Err(Errno::EXDEV);
    }
    let (Last::Name(old_name), Last::Name(new_name)) = (&from.last, &to.last) else {
        return Err(Errno::EBUSY);
    };
    let is_directory = from.found.as_ref().ok_or(Errno::ENOENT)?.is_directory();
    if to.slash && !is_directory {
        return Err(Errno::ENOTDIR);
    }
    let replace = if flags & linux::RENAME_NOREPLACE != 0 { Replace::No } else { Replace::Yes };
    debug_assert!(new_name.len() <= NAME_MAX);
    fs::rename(
        Spot { directory: &from.directory, name: old_name },
        Spot { directory: &to.directory, name: new_name },
        replace,
    )?;
    Ok(0)
}
