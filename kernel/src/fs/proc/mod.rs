//! /proc: a tree that is computed at each look.
//!
//! Called through inodes. An inode of /proc holds a [`Node`], which says what it is; nothing is kept
//! between looks, and a process that ends takes its part of the tree with it.
//!
//! Absent on purpose: files that would need what this kernel does not keep (`io`, `schedstat`, ...): they do not
//! exist, rather than being empty.

mod areas;
mod process;
mod system;
mod text;
mod view;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::directory::FIRST_COOKIE;
use super::inode::{Body, Inode, PROC_DEVICE};
use super::walk::Link;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::khugepaged::Figure;
use crate::process::table;
use crate::tunables;
use crate::uaccess::Source;
pub use process::set_current;
use process::{ProcessFile, ProcessLink};
pub use system::{HOST_NAME, HUGE_FILES, HugeFile, KERNEL_NAME, KERNEL_RELEASE, KERNEL_VERSION, cpu_list};
use system::{NR_HUGEPAGES, SYS, SYSTEM, SystemFile};
pub use view::View;

/// A place in /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// /proc itself.
    Root,
    /// A file about the machine.
    System(SystemFile),
    /// /proc/self
    SelfLink,
    /// /proc/thread-self
    ThreadSelfLink,
    /// /proc/mounts
    MountsLink,
    /// /proc/sys or a directory below, by its path there.
    SysDirectory(&'static str),
    /// A file below /proc/sys, by its index in the table.
    SysFile(usize),
    /// /proc/sysvipc
    IpcDirectory,
    /// /proc/sysvipc/shm
    IpcShm,
    /// Which memory gets large pages: a file of /sys, made as those of /proc are.
    HugePolicy,
    /// A figure of who collapses pages, in /sys too.
    Collapser(Figure),
    /// A figure of the pool of large pages, in /sys too.
    HugePool(HugeFile),
    /// Something that belongs to a process or a thread.
    Process(Owner, Part),
}

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: i32,
    /// Thread id; none for the process as a whole.
    pub tid: Option<i32>,
}

/// What of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// /proc/PID
    Directory,
    /// A file in it.
    File(ProcessFile),
    /// A symbolic link in it.
    Link(ProcessLink),
    /// /proc/PID/fd
    Descriptors,
    /// /proc/PID/fd/N
    Descriptor(i32),
    /// /proc/PID/fdinfo
    DescriptorInfos,
    /// /proc/PID/fdinfo/N
    DescriptorInfo(i32),
    /// /proc/PID/task
    Tasks,
}

/// An entry of a directory.
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub node: Node,
}

impl Entry {
    /// Where a reader of the directory finds it. What comes and goes has a place of its own, so that a
    /// reader who closes descriptors on the way misses none.
    pub fn position(&self, index: usize) -> u64 {
        /// Processes come after everything else in the root.
        const PROCESSES: u64 = 1 << 10;
        FIRST_COOKIE
            + match self.node {
                Node::Process(_, Part::Descriptor(fd) | Part::DescriptorInfo(fd)) => u64::from(fd.cast_unsigned()),
                Node::Process(Owner { tid: Some(tid), .. }, Part::Directory) => u64::from(tid.cast_unsigned()),
                Node::Process(Owner { pid, .. }, Part::Directory) => PROCESSES + u64::from(pid.cast_unsigned()),
                _ => index as u64,
            }
    }
}

fn entry(name: impl Into<Vec<u8>>, node: Node) -> Entry {
    Entry { name: name.into(), node }
}

impl Node {
    /// The inode of this place.
    pub fn inode(self) -> Arc<Inode> {
        Inode::with_number(Body::Proc(self), self.permissions(), self.number(), PROC_DEVICE)
    }

    /// An inode number that stays the same from look to look.
    pub fn number(self) -> u64 {
        const SYSTEM_BASE: u64 = 16;
        const SYS_BASE: u64 = 64;
        match self {
            Node::Root => 1,
            Node::SelfLink => 2,
            Node::ThreadSelfLink => 3,
            Node::MountsLink => 4,
            Node::IpcDirectory => 5,
            Node::IpcShm => 6,
            Node::HugePolicy => 7,
            Node::Collapser(figure) => 16 + figure as u64,
            Node::HugePool(file) => 8 + file as u64,
            Node::System(file) => SYSTEM_BASE + file as u64,
            Node::SysFile(index) => SYS_BASE + index as u64,
            Node::SysDirectory(path) => {
                path.bytes().fold(1 << 16, |sum, byte| sum * 31 + u64::from(byte)) & 0xffff_ffff
            }
            Node::Process(owner, part) => {
                let id = owner.tid.unwrap_or(owner.pid).cast_unsigned();
                let thread = u64::from(owner.tid.is_some());
                u64::from(id) << 34 | thread << 33 | 1 << 32 | part.number()
            }
        }
    }

    /// The type bits of `st_mode`.
    pub fn kind(self) -> u32 {
        match self {
            Node::Root | Node::SysDirectory(_) | Node::IpcDirectory => linux::S_IFDIR,
            Node::SelfLink | Node::ThreadSelfLink | Node::MountsLink => linux::S_IFLNK,
            Node::System(_) | Node::SysFile(_) | Node::IpcShm | Node::HugePolicy => linux::S_IFREG,
            Node::HugePool(_) | Node::Collapser(_) => linux::S_IFREG,
            Node::Process(_, part) => match part {
                Part::Directory | Part::Descriptors | Part::DescriptorInfos | Part::Tasks => linux::S_IFDIR,
                Part::Link(_) | Part::Descriptor(_) => linux::S_IFLNK,
                Part::File(_) | Part::DescriptorInfo(_) => linux::S_IFREG,
            },
        }
    }

    fn permissions(self) -> u32 {
        match self {
            Node::Process(_, Part::Descriptors | Part::DescriptorInfos) => 0o500,
            Node::Process(_, Part::Descriptor(_)) => 0o700,
            Node::Process(_, Part::File(file)) => file.permissions(),
            Node::HugePolicy => 0o644,
            Node::HugePool(file) if file.is_writable() => 0o644,
            Node::Collapser(figure) if figure.is_writable() => 0o644,
            Node::SysFile(index) if SYS[index].0 == NR_HUGEPAGES => 0o644,
            Node::SysFile(index) if tunables::get(SYS[index].0).is_some() => 0o644,
            node => match node.kind() {
                linux::S_IFDIR => 0o555,
                linux::S_IFLNK => 0o777,
                _ => 0o444,
            },
        }
    }

    /// Path for display.
    pub fn path(self) -> Vec<u8> {
        let path = match self {
            Node::Root => "/proc".to_string(),
            Node::SelfLink => "/proc/self".to_string(),
            Node::ThreadSelfLink => "/proc/thread-self".to_string(),
            Node::MountsLink => "/proc/mounts".to_string(),
            Node::System(file) => {
                let name = SYSTEM.iter().find(|(_, f)| *f == file).map_or("", |(name, _)| name);
                format!("/proc/{name}")
            }
            Node::IpcDirectory => "/proc/sysvipc".to_string(),
            Node::IpcShm => "/proc/sysvipc/shm".to_string(),
            Node::HugePolicy => "/sys/kernel/mm/transparent_hugepage/enabled".to_string(),
            Node::Collapser(figure) => {
                format!("/sys/kernel/mm/transparent_hugepage/khugepaged/{}", figure.name())
            }
            Node::HugePool(file) => format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{}", file.name()),
            Node::SysDirectory("") => "/proc/sys".to_string(),
            Node::SysDirectory(path) => format!("/proc/sys/{path}"),
            Node::SysFile(index) => format!("/proc/sys/{}", SYS[index].0),
            Node::Process(owner, part) => {
                let base = match owner.tid {
                    Some(tid) => format!("/proc/{}/task/{tid}", owner.pid),
                    None => format!("/proc/{}", owner.pid),
                };
                match part.name() {
                    name if name.is_empty() => base,
                    name => format!("{base}/{name}"),
                }
            }
        };
        path.into_bytes()
    }

    /// The directory above, unless that is not part of /proc.
    pub fn parent(self) -> Option<Arc<Inode>> {
        let parent = match self {
            Node::Root => return None,
            Node::SysDirectory(path) if !path.is_empty() => {
                Node::SysDirectory(path.rsplit_once('/').map_or("", |(above, _)| above))
            }
            Node::SysFile(index) => Node::SysDirectory(SYS[index].0.rsplit_once('/').map_or("", |(above, _)| above)),
            Node::Process(owner, Part::Directory) => match owner.tid {
                Some(_) => Node::Process(Owner { pid: owner.pid, tid: None }, Part::Tasks),
                None => Node::Root,
            },
            Node::Process(owner, part) => Node::Process(owner, part.above()),
            Node::IpcShm => Node::IpcDirectory,
            _ => Node::Root,
        };
        if parent == Node::Root { Some(super::proc_root()) } else { Some(parent.inode()) }
    }

    /// The child called `name`.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`.
    pub fn child(self, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        if self.kind() != linux::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let number = || number_of(name).ok_or(Errno::ENOENT);
        let node = match self {
            Node::Root => match number_of(name) {
                // Threads can be looked up by id although they are not listed.
                Some(id) => process::directory_of(id)?,
                None => self.listed(name)?,
            },
            Node::Process(owner, Part::Descriptors) => {
                let fd = process::check_descriptor(owner, number()?)?;
                Node::Process(owner, Part::Descriptor(fd))
            }
            Node::Process(owner, Part::DescriptorInfos) => {
                let fd = process::check_descriptor(owner, number()?)?;
                Node::Process(owner, Part::DescriptorInfo(fd))
            }
            Node::Process(owner, Part::Tasks) => process::task_of(owner, number()?)?,
            _ => self.listed(name)?,
        };
        Ok(node.inode())
    }

    fn listed(self, name: &[u8]) -> Result<Node, Errno> {
        let mut entries = self.entries()?.into_iter();
        entries.find(|e| e.name == name).map(|e| e.node).ok_or(Errno::ENOENT)
    }

    /// The entries of a directory, without `.` and `..`, by position.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `ENOENT` if the process is gone.
    pub fn entries(self) -> Result<Vec<Entry>, Errno> {
        match self {
            Node::Root => Ok(root_entries()),
            Node::SysDirectory(path) => Ok(sys_entries(path)),
            Node::IpcDirectory => Ok(alloc::vec![entry("shm", Node::IpcShm)]),
            Node::Process(owner, part) => process::entries(owner, part),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What a symbolic link contains.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is none, `ENOENT` if what it leads to is gone.
    pub fn read_link(self) -> Result<Vec<u8>, Errno> {
        match self {
            Node::SelfLink => Ok(format!("{}", process::current()?.pid).into_bytes()),
            Node::ThreadSelfLink => {
                let owner = process::current()?;
                let tid = owner.tid.unwrap_or(owner.pid);
                Ok(format!("{}/task/{tid}", owner.pid).into_bytes())
            }
            Node::MountsLink => Ok(b"self/mounts".to_vec()),
            Node::Process(owner, Part::Link(link)) => Ok(process::target(owner, link)?.path()),
            Node::Process(owner, Part::Descriptor(fd)) => Ok(super::describe(&process::open_file(owner, fd)?.inode)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    ///
    /// As [`Node::read_link`].
    pub fn link(self) -> Result<Option<Link<Arc<Inode>>>, Errno> {
        Ok(Some(match self {
            Node::SelfLink | Node::ThreadSelfLink | Node::MountsLink => Link::Path(self.read_link()?),
            Node::Process(owner, Part::Link(link)) => Link::Node(process::target(owner, link)?),
            Node::Process(owner, Part::Descriptor(fd)) => Link::Node(process::open_file(owner, fd)?.inode.clone()),
            _ => return Ok(None),
        }))
    }

    /// The contents of a file.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the process is gone, `EISDIR`.
    pub fn text(self, cpu: &mut CpuLocal) -> Result<Vec<u8>, Errno> {
        match self {
            Node::System(file) => file.text(),
            Node::IpcShm => Ok(system::shm_segments()),
            Node::HugePolicy => Ok(system::huge_policy()),
            Node::HugePool(file) => Ok(file.text()),
            Node::Collapser(figure) => Ok(format!("{}\n", figure.value()).into_bytes()),
            Node::SysFile(index) => {
                let mut text = text::Text::default();
                SYS[index].1(&mut text);
                Ok(text.0)
            }
            Node::Process(owner, Part::File(file)) => process::text(cpu, owner, file),
            Node::Process(owner, Part::DescriptorInfo(fd)) => process::descriptor_info(owner, fd),
            _ => Err(Errno::EISDIR),
        }
    }

    /// Changes what a file stands for.
    ///
    /// # Errors
    ///
    /// `EACCES` for all that cannot be changed, `EFAULT`, `ESRCH`.
    pub fn write(self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        match self {
            Node::Process(owner, Part::File(file)) => process::write(cpu, owner, file, from),
            Node::SysFile(index) => system::write_sys(cpu, index, from),
            Node::HugePolicy => system::write_huge_policy(cpu, from),
            Node::HugePool(file) => file.write(cpu, from),
            Node::Collapser(figure) => system::write_figure(figure, cpu, from),
            _ => Err(Errno::EACCES),
        }
    }

    /// Whether it can be opened for writing.
    pub fn is_writable(self) -> bool {
        self.permissions() & 0o200 != 0
    }
}

impl Part {
    fn number(self) -> u64 {
        const DESCRIPTOR: u64 = 1 << 20;
        const INFO: u64 = 1 << 21;
        match self {
            Part::Directory => 1,
            Part::Descriptors => 2,
            Part::DescriptorInfos => 3,
            Part::Tasks => 4,
            Part::File(file) => 16 + file as u64,
            Part::Link(link) => 64 + link as u64,
            Part::Descriptor(fd) => DESCRIPTOR + u64::from(fd.cast_unsigned()),
            Part::DescriptorInfo(fd) => INFO + u64::from(fd.cast_unsigned()),
        }
    }

    /// The directory it is in.
    fn above(self) -> Part {
        match self {
            Part::Descriptor(_) => Part::Descriptors,
            Part::DescriptorInfo(_) => Part::DescriptorInfos,
            _ => Part::Directory,
        }
    }

    fn name(self) -> String {
        match self {
            Part::Directory => String::new(),
            Part::Descriptors => "fd".to_string(),
            Part::DescriptorInfos => "fdinfo".to_string(),
            Part::Tasks => "task".to_string(),
            Part::File(file) => file.name().to_string(),
            Part::Link(link) => link.name().to_string(),
            Part::Descriptor(fd) => format!("fd/{fd}"),
            Part::DescriptorInfo(fd) => format!("fdinfo/{fd}"),
        }
    }
}

fn root_entries() -> Vec<Entry> {
    let files = SYSTEM.iter().map(|&(name, file)| entry(name, Node::System(file)));
    let mut entries: Vec<Entry> = files.collect();
    entries.push(entry("self", Node::SelfLink));
    entries.push(entry("thread-self", Node::ThreadSelfLink));
    entries.push(entry("mounts", Node::MountsLink));
    entries.push(entry("sys", Node::SysDirectory("")));
    entries.push(entry("sysvipc", Node::IpcDirectory));
    for process in table::all() {
        let owner = Owner { pid: process.pid, tid: None };
        entries.push(entry(format!("{}", process.pid), Node::Process(owner, Part::Directory)));
    }
    entries
}

fn sys_entries(directory: &'static str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, (path, _)) in SYS.iter().enumerate() {
        let below = match directory {
            "" => Some(*path),
            directory => path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(below) = below else { continue };
        let new = match below.split_once('/') {
            None => entry(below, Node::SysFile(index)),
            Some((name, _)) => {
                let end = path.len() - below.len() + name.len();
                entry(name, Node::SysDirectory(&path[..end]))
            }
        };
        // The table is sorted: entries of a directory are neighbours.
        if entries.last().is_none_or(|last| last.name != new.name) {
            entries.push(new);
        }
    }
    entries
}

/// A decimal number without leading zeroes.
fn number_of(name: &[u8]) -> Option<i32> {
    if name.first() == Some(&b'0') && name.len() > 1 || name.first() == Some(&b'+') {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok().filter(|&number: &i32| number >= 0)
}
