//! From the boot archive to the tree of files.
//!
//! Called once, by [`super::init`]. Contents are not copied: a file is a slice of the archive until it is
//! used. Directories that no member creates are made as needed.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::cpio::{Entries, Entry};
use super::data::FileData;
use super::device::{Device, device_number};
use super::inode::{Body, Inode, Stamp};
use super::namespace::{self, Nameless, Spot};
use super::pipe::Pipe;
use crate::errno::Errno;

/// Device and inode number of a member.
type Identity = (u32, u32, u32);
/// Files with several names.
type Links = BTreeMap<Identity, Arc<Inode>>;
/// What is in files with several names.
type Contents = BTreeMap<Identity, &'static [u8]>;

/// Creates everything in `archive` below `root`.
///
/// # Errors
///
/// `EINVAL` if the archive is malformed, `ENOSPC` if it has too many members.
pub fn unpack(root: &Arc<Inode>, archive: &'static [u8]) -> Result<(), Errno> {
    let contents = contents_of_links(archive)?;
    let mut links = Links::new();
    for entry in Entries::new(archive) {
        let entry = entry.map_err(|_| Errno::EINVAL)?;
        place(root, &entry, &contents, &mut links)?;
    }
    Ok(())
}

/// Of several links only one need carry the contents, and it may be the last.
fn contents_of_links(archive: &'static [u8]) -> Result<Contents, Errno> {
    let mut contents = BTreeMap::new();
    for entry in Entries::new(archive) {
        let entry = entry.map_err(|_| Errno::EINVAL)?;
        if entry.links > 1 && !entry.data.is_empty() {
            contents.insert(entry.identity, entry.data);
        }
    }
    Ok(contents)
}

fn place(root: &Arc<Inode>, entry: &Entry<'static>, contents: &Contents, links: &mut Links) -> Result<(), Errno> {
    let mut parts = entry.name.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".");
    let Some(mut name) = parts.next() else {
        set_attributes(root, entry);
        return Ok(());
    };
    let mut directory = root.clone();
    for next in parts {
        directory = directory_in(&directory, name)?;
        name = next;
    }
    if name == b".." {
        return Err(Errno::EINVAL);
    }
    let spot = Spot { directory: &directory, name };
    let is_directory = entry.mode & linux::S_IFMT == linux::S_IFDIR;
    if is_directory {
        let made = directory_in(&directory, name)?;
        set_attributes(&made, entry);
        return Ok(());
    }
    // The last member of a name wins, as it would when unpacked on a running system.
    match namespace::unlink(spot) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    if let Some(inode) = links.get(&entry.identity).filter(|_| entry.links > 1) {
        return namespace::link(spot, inode, Nameless::Refuse);
    }
    let data = contents.get(&entry.identity).filter(|_| entry.links > 1);
    let inode = Inode::new(body_of(entry, data.unwrap_or(&entry.data)), 0);
    namespace::create(spot, &inode)?;
    set_attributes(&inode, entry);
    if entry.links > 1 {
        links.insert(entry.identity, inode);
    }
    Ok(())
}

/// The directory called `name`, made if there is none.
fn directory_in(parent: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
    if name == b".." {
        return Err(Errno::EINVAL);
    }
    let entries = parent.entries().ok_or(Errno::ENOTDIR)?;
    if let Some(found) = entries.lock().get(name) {
        return if found.is_directory() { Ok(found) } else { Err(Errno::ENOTDIR) };
    }
    let directory = namespace::new_directory(0o755);
    namespace::create(Spot { directory: parent, name }, &directory)?;
    Ok(directory)
}

fn body_of(entry: &Entry<'static>, data: &'static [u8]) -> Body {
    let (major, minor) = entry.device;
    match entry.mode & linux::S_IFMT {
        linux::S_IFLNK => Body::Symlink(entry.data.into()),
        linux::S_IFCHR => Body::Device(Device::of_number(major, minor)),
        linux::S_IFIFO => Body::Fifo(Arc::new(Pipe::new())),
        kind @ (linux::S_IFBLK | linux::S_IFSOCK) => Body::Inert { kind, number: device_number(major, minor) },
        _ => Body::Regular(FileData::new(data)),
    }
}

fn set_attributes(inode: &Inode, entry: &Entry<'_>) {
    let stamp = Stamp { seconds: i64::from(entry.mtime), nanos: 0 };
    let mut attributes = inode.attributes.lock();
    attributes.permissions = entry.mode & 0o7777;
    attributes.uid = entry.uid;
    attributes.gid = entry.gid;
    attributes.modified = stamp;
    attributes.accessed = stamp;
    attributes.changed = stamp;
}
