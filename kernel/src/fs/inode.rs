//! Inodes: what a file is, whatever it is called.
//!
//! Called by the rest of `fs`. Letters: (I) fixed, (L) behind its lock.
//!
//! Lock order within the file system, outermost first: `namespace`, a directory's entries, everything
//! else an inode has. No two locks of the last kind are held at once.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general as linux;

use super::data::FileData;
use super::device::Device;
use super::directory::Directory;
use super::epoll::Epoll;
use super::event::EventCounter;
use super::locks::Locks;
use super::pipe::Pipe;
use super::userfault::Userfault;
use super::walk::{Link, Tree};
use super::{PATH_MAX, namespace, proc};
use crate::clock;
use crate::errno::Errno;
use crate::process::Process;
use crate::sync::Lock;

/// The device number of the one real file system, and of /proc.
pub const ROOT_DEVICE: u64 = 2;
/// See [`ROOT_DEVICE`].
pub const PROC_DEVICE: u64 = 3;

/// A point in time, as files have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: u32,
}

impl Stamp {
    /// The present.
    pub fn now() -> Stamp {
        let now = clock::realtime();
        Stamp { seconds: (now / clock::SECOND).cast_signed(), nanos: (now % clock::SECOND) as u32 }
    }
}

/// The attributes that `chmod` and its like change.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Permission bits with set-id and sticky bits: `07777`.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names; a directory has two and one per subdirectory.
    pub links: u32,
    /// Last access; kept as on a file system that is mounted `noatime`.
    pub accessed: Stamp,
    /// Last change of the contents by a system call.
    pub modified: Stamp,
    /// Last change of the contents or the attributes.
    pub changed: Stamp,
    /// Creation.
    pub created: Stamp,
}

/// What kind of file it is, and what that kind needs.
pub enum Body {
    /// A regular file.
    Regular(FileData),
    /// A directory.
    Directory(Lock<Directory>),
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A named or an anonymous pipe.
    Fifo(Arc<Pipe>),
    /// A character device.
    Device(Device),
    /// A block device or socket: a name that cannot be opened.
    Inert {
        /// `S_IFBLK` or `S_IFSOCK`.
        kind: u32,
        /// Device number, of a block device.
        number: u64,
    },
    /// Part of /proc.
    Proc(proc::Node),
    /// An `eventfd`.
    Event(EventCounter),
    /// A `userfaultfd`.
    Userfault(Arc<Userfault>),
    /// A process: what a `pidfd` names.
    Process(Arc<Process>),
    /// An `epoll` instance.
    Epoll(Epoll),
}

/// A file.
pub struct Inode {
    /// (I) Inode number.
    pub number: u64,
    /// (I) Device number of its file system.
    pub device: u64,
    /// (I) What it is.
    pub body: Body,
    /// (L) Who may do what, and times.
    pub attributes: Lock<Attributes>,
    /// (L) Advisory locks.
    pub locks: Locks,
    /// (L) The name it was last known by.
    place: Lock<Name>,
    /// (I) Itself.
    me: Weak<Inode>,
}

/// One name of a file.
#[derive(Default)]
struct Name {
    parent: Weak<Inode>,
    name: Box<[u8]>,
    gone: bool,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl Inode {
    /// A fresh file on the real file system that has no name yet.
    pub fn new(body: Body, permissions: u32) -> Arc<Inode> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Inode::with_number(body, permissions, number, ROOT_DEVICE)
    }

    /// A file with a given identity.
    pub fn with_number(body: Body, permissions: u32, number: u64, device: u64) -> Arc<Inode> {
        let now = Stamp::now();
        let attributes = Attributes {
            permissions,
            uid: 0,
            gid: 0,
            links: 0,
            accessed: now,
            modified: now,
            changed: now,
            created: now,
        };
        Arc::new_cyclic(|me| Inode {
            number,
            device,
            body,
            attributes: Lock::new(attributes),
            locks: Locks::new(),
            place: Lock::new(Name::default()),
            me: me.clone(),
        })
    }

    /// The type bits of `st_mode`.
    pub fn kind(&self) -> u32 {
        match &self.body {
            Body::Regular(_) => linux::S_IFREG,
            Body::Directory(_) => linux::S_IFDIR,
            Body::Symlink(_) => linux::S_IFLNK,
            Body::Fifo(_) => linux::S_IFIFO,
            Body::Device(device) => device.kind(),
            Body::Inert { kind, .. } => *kind,
            Body::Proc(node) => node.kind(),
            Body::Event(_) | Body::Epoll(_) | Body::Userfault(_) | Body::Process(_) => 0,
        }
    }

    /// `st_mode`.
    pub fn mode(&self) -> u32 {
        self.kind() | self.attributes.lock().permissions
    }

    /// `st_size`.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::Regular(data) => data.size(),
            Body::Symlink(target) => target.len() as u64,
            Body::Directory(entries) => entries.lock().size(),
            _ => 0,
        }
    }

    /// `st_rdev`.
    pub fn represented_device(&self) -> u64 {
        match &self.body {
            Body::Device(device) => device.number(),
            Body::Inert { number, .. } => *number,
            _ => 0,
        }
    }

    /// Its entries, if it is a real directory.
    pub fn entries(&self) -> Option<&Lock<Directory>> {
        match &self.body {
            Body::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Its contents, if it is a regular file.
    pub fn data(&self) -> Option<&FileData> {
        match &self.body {
            Body::Regular(data) => Some(data),
            _ => None,
        }
    }

    /// Whether it is a directory of any file system.
    pub fn is_directory(&self) -> bool {
        self.kind() == linux::S_IFDIR
    }

    /// Whether it is a symbolic link of any file system.
    pub fn is_symlink(&self) -> bool {
        self.kind() == linux::S_IFLNK
    }

    /// A counted reference to it.
    pub fn itself(&self) -> Arc<Inode> {
        // The caller's reference keeps the count above zero.
        self.me.upgrade().expect("an inode in use is alive")
    }

    /// A reference that does not keep it alive.
    pub fn downgrade(&self) -> Weak<Inode> {
        self.me.clone()
    }

    /// Notes that the contents changed now.
    pub fn touch(&self) {
        let now = Stamp::now();
        let mut attributes = self.attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
    }

    /// Notes the name it has from now on.
    pub fn set_name(&self, parent: &Inode, name: &[u8]) {
        *self.place.lock() = Name { parent: parent.me.clone(), name: name.into(), gone: false };
    }

    /// Gives a file that is in no directory a name for display.
    pub fn set_label(&self, label: &[u8]) {
        *self.place.lock() = Name { parent: Weak::new(), name: label.into(), gone: true };
    }

    /// Notes that `name` in `parent` is gone, if that is the name it was known by.
    pub fn forget_name(&self, parent: &Inode, name: &[u8]) {
        let mut place = self.place.lock();
        if core::ptr::eq(place.parent.as_ptr(), parent) && *place.name == *name {
            place.gone = true;
        }
    }

    /// Whether it has, or ever had, a name.
    pub fn is_named(&self) -> bool {
        !self.place.lock().name.is_empty()
    }

    /// The directory that holds it; itself if there is none.
    pub fn holder(&self) -> Arc<Inode> {
        let holder = self.place.lock().parent.upgrade();
        holder.unwrap_or_else(|| self.itself())
    }

    /// Absolute path as /proc shows it: with ` (deleted)` if the name is gone. Of one longer than
    /// `PATH_MAX` the first names are missing, and it still is longer than that.
    pub fn path(&self) -> Vec<u8> {
        if let Body::Proc(node) = &self.body {
            return node.path();
        }
        let mut parts = Vec::new();
        let mut length = 0;
        let mut gone = false;
        let mut here = self.itself();
        // Ends: directories form a tree, and its depth is finite.
        while !namespace::is_root(&here) && length <= PATH_MAX {
            let place = here.place.lock();
            gone |= place.gone;
            length += place.name.len() + 1;
            parts.push(place.name.clone());
            let parent = place.parent.upgrade();
            drop(place);
            match parent {
                Some(parent) => here = parent,
                None => break,
            }
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        if gone {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// What a symbolic link contains.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is none, and what /proc says.
    pub fn read_link(&self) -> Result<Vec<u8>, Errno> {
        match &self.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            Body::Proc(node) => node.read_link(),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Tree for Arc<Inode> {
    fn is_directory(&self) -> bool {
        Inode::is_directory(self)
    }

    fn child(&self, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        match &self.body {
            Body::Directory(entries) => entries.lock().get(name).ok_or(Errno::ENOENT),
            Body::Proc(node) => node.child(name),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn parent(&self) -> Arc<Inode> {
        match &self.body {
            Body::Proc(node) => node.parent().unwrap_or_else(|| self.holder()),
            _ => self.holder(),
        }
    }

    fn link(&self) -> Result<Option<Link<Arc<Inode>>>, Errno> {
        match &self.body {
            Body::Symlink(target) => Ok(Some(Link::Path(target.to_vec()))),
            Body::Proc(node) => node.link(),
            _ => Ok(None),
        }
    }

    fn is_same(&self, other: &Arc<Inode>) -> bool {
        Arc::ptr_eq(self, other)
    }
}
