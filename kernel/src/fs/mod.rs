//! The file system: one tree of files in memory, /proc, devices, pipes, and the tables of open files.
//!
//! Called by the system calls; by the machine half at boot ([`init`], [`first_tables`]), in `execve`
//! ([`open_executable`]), for console input, and at the end ([`shutdown`]).
//!
//! | file | what lives there |
//! |---|---|
//! | `cpio`, `manifest`, `unpack` | from the boot archive to the tree |
//! | `inode`, `directory`, `namespace` | files, their names, changes of names |
//! | `walk` | from a path to an inode |
//! | `data` | contents of regular files: faultless objects |
//! | `locks`, `quota`, `seals` | what keeps users from each other and from the heap |
//! | `pipe`, `device`, `tty`, `event`, `epoll`, `proc` | everything else that can be opened |
//! | `frames` | an example of a driver whose frames programs map |
//! | `file`, `table`, `context` | what a process holds of it |
//!
//! Nothing here waits. An operation that cannot go on is `EAGAIN`.
//!
//! Absent on purpose: users (everything runs as root), mounting, disks, sockets.

mod context;
mod cpio;
mod data;
mod device;
mod directory;
mod epoll;
mod event;
mod file;
pub mod frames;
mod inode;
mod locks;
mod manifest;
mod namespace;
mod pipe;
mod poll;
mod proc;
mod quota;
mod ring;
mod seals;
mod table;
mod tty;
mod unpack;
mod userfault;
mod walk;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use faultless::Machine;
use linux_raw_sys::general as linux;

pub use context::FsContext;
pub use data::{FileData, FileObject, HUGE_PAGE, MAX_SIZE};
pub use device::{Device, randomness, split_number};
pub use directory::FIRST_COOKIE;
pub use epoll::{Control, Epoll, Event};
pub use event::{EventCounter, EventMode};
pub use file::{At, CHANGEABLE, OpenFile, Rights};
pub use inode::{Body, Inode, PROC_DEVICE, Stamp};
pub use locks::{Kind as LockKind, Owner as LockOwner, Record as LockRecord, queue as lock_queue};
pub use manifest::Manifest;
pub use namespace::{Nameless, Replace, Spot, create, link, new_directory, rename, rmdir, unlink};
pub use pipe::{Ends, MAX_CAPACITY as MAX_PIPE_CAPACITY, Pipe};
pub use poll::Readiness;
pub use proc::{HOST_NAME, KERNEL_NAME, KERNEL_RELEASE, KERNEL_VERSION, set_current};
pub use seals::F_SEAL_EXEC;
pub use table::{FileTable, MAX_FILES, OnExec};
pub use tty::Tty;
pub use userfault::{Caused, Userfault, Waiter, bring_in, note_running, settle_heirs, take_caused, take_waiting};
pub use walk::{Follow, Last, NAME_MAX, PATH_MAX, Place};

use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::heap;
use crate::machine::{self, KernelMachine};
use crate::uaccess::KernelSink;

/// Where the archive says what to run.
const MANIFEST: &[u8] = b"/.faultless/manifest";
/// Longest manifest: twice what `execve` takes.
const MANIFEST_MAX: usize = 4 << 20;

/// A file that can be executed.
pub struct Executable {
    /// Its contents.
    pub object: Arc<faultless::Object<KernelMachine>>,
    /// Its absolute path.
    pub path: Vec<u8>,
}

/// Builds the tree from the boot archive and reads what to run.
///
/// # Errors
///
/// `EINVAL` for a malformed archive or manifest, `ENOENT` without a manifest, `ENOSPC`, `ENOMEM`.
pub fn init(cpu: &mut CpuLocal, archive: &'static [u8]) -> Result<Manifest, Errno> {
    quota::init(heap::usage().0);
    let root = namespace::new_directory(0o755);
    namespace::set_root(Some(root.clone()));
    unpack::unpack(&root, archive)?;
    furnish(&root)?;
    let inode = lookup(MANIFEST)?;
    let data = inode.data().ok_or(Errno::EINVAL)?;
    let mut text = KernelSink { bytes: Vec::new(), limit: MANIFEST_MAX };
    data.read(&inode, cpu, 0, &mut text)?;
    let manifest = Manifest::parse(&text.bytes).map_err(|_| Errno::EINVAL)?;
    if manifest.tty {
        tty::console().set_terminal();
    }
    if manifest.no_input {
        tty::console().end_input();
    }
    Ok(manifest)
}

/// The tables of the first process: the console as 0, 1 and 2.
///
/// # Panics
///
/// If not even these can be opened.
pub fn first_tables(_cpu: &mut CpuLocal, manifest: &Manifest) -> (Arc<FileTable>, Arc<FsContext>) {
    let open = |inode, flags| OpenFile::new(inode, flags).expect("nothing else is open yet");
    let files = if manifest.tty {
        let terminal = Inode::new(Body::Device(Device::of_number(5, 1)), 0o600);
        let terminal = lookup(b"/dev/console").unwrap_or(terminal);
        let file = open(terminal, linux::O_RDWR | linux::O_LARGEFILE);
        FileTable::new([file.clone(), file.clone(), file])
    } else {
        let stream = Inode::new(Body::Device(Device::Stream), 0o600);
        let output = open(stream.clone(), linux::O_WRONLY);
        FileTable::new([open(stream, linux::O_RDONLY), output.clone(), output])
    };
    let directory = lookup(&manifest.cwd).ok().filter(|inode| inode.is_directory());
    (files, FsContext::new(directory.unwrap_or_else(namespace::root)))
}

/// Drops all files that have a name, and with them their pages; and the pages of the driver.
pub fn shutdown(_cpu: &mut CpuLocal) {
    namespace::dismantle();
    frames::remove();
}

/// Takes what has come over the serial line.
pub fn console_input(_cpu: &mut CpuLocal) {
    tty::console().take_input();
}

/// The program file at `path`.
///
/// # Errors
///
/// `EACCES` unless it is a regular file that somebody may execute, and those of the walk.
pub fn open_executable(_cpu: &mut CpuLocal, context: &FsContext, path: &[u8]) -> Result<Executable, Errno> {
    let inode = resolve(context, &context.directory(), path, Follow::Last)?.existing()?;
    let data = inode.data().ok_or(Errno::EACCES)?;
    if inode.mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(Executable { object: data.object(&inode)?, path: inode.path() })
}

/// Walks `path` from `base` for a process with this context.
///
/// # Errors
///
/// Those of the walk.
pub fn resolve(
    context: &FsContext,
    base: &Arc<Inode>,
    path: &[u8],
    follow: Follow,
) -> Result<Place<Arc<Inode>>, Errno> {
    walk::walk(context.root(), base, path, follow)
}

/// The file at an absolute path, links followed.
fn lookup(path: &[u8]) -> Result<Arc<Inode>, Errno> {
    let root = namespace::root();
    walk::walk(&root, &root, path, Follow::Last)?.existing()
}

/// Free frames and all frames of the machine.
pub fn frames() -> (u64, u64) {
    let stats = machine::vm().stats();
    (stats.free_frames, stats.total_frames)
}

/// What /proc/PID/fd says an open file is.
fn describe(inode: &Inode) -> Vec<u8> {
    if inode.is_named() || inode.is_directory() || matches!(inode.body, Body::Proc(_)) {
        return inode.path();
    }
    let text = match &inode.body {
        Body::Fifo(_) | Body::Device(Device::Stream) => format!("pipe:[{}]", inode.number),
        Body::Userfault(_) => "anon_inode:[userfaultfd]".to_string(),
        Body::Event(_) => "anon_inode:[eventfd]".to_string(),
        Body::Epoll(_) => "anon_inode:[eventpoll]".to_string(),
        Body::Process(_) => "anon_inode:[pidfd]".to_string(),
        _ => format!("/#{} (deleted)", inode.number),
    };
    text.into_bytes()
}

/// The root of /proc.
fn proc_root() -> Arc<Inode> {
    lookup(b"/proc").unwrap_or_else(|_| namespace::root())
}

/// Adds what every program expects to find: /proc, /dev, /tmp, and the list of CPUs.
fn furnish(root: &Arc<Inode>) -> Result<(), Errno> {
    let dev = directory(root, b"dev", 0o755)?;
    directory(root, b"tmp", 0o1777)?;
    // Where C libraries keep shared memory and semaphores.
    directory(&dev, b"shm", 0o1777)?;
    for (name, major, minor, permissions) in [
        (&b"null"[..], 1, 3, 0o666),
        (b"zero", 1, 5, 0o666),
        (b"full", 1, 7, 0o666),
        (b"random", 1, 8, 0o666),
        (b"urandom", 1, 9, 0o666),
        (b"frames", frames::MAJOR, 0, 0o600),
        (b"tty", 5, 0, 0o666),
        (b"console", 5, 1, 0o600),
    ] {
        add(&dev, name, Inode::new(Body::Device(Device::of_number(major, minor)), permissions))?;
    }
    for (name, target) in [
        (&b"fd"[..], &b"/proc/self/fd"[..]),
        (b"stdin", b"/proc/self/fd/0"),
        (b"stdout", b"/proc/self/fd/1"),
        (b"stderr", b"/proc/self/fd/2"),
    ] {
        add(&dev, name, Inode::new(Body::Symlink(target.into()), 0o777))?;
    }
    if let Some(entries) = root.entries() {
        let proc = proc::Node::Root.inode();
        proc.set_name(root, b"proc");
        entries.lock().put(b"proc", proc);
    }
    let mut here = root.clone();
    for name in [&b"sys"[..], b"kernel", b"mm", b"transparent_hugepage"] {
        here = directory(&here, name, 0o755)?;
    }
    add(&here, b"enabled", proc::Node::HugePolicy.inode())?;
    add(&here, b"hpage_pmd_size", Inode::new(Body::Regular(FileData::new(b"2097152\n")), 0o444))?;
    here = root.clone();
    for name in [&b"sys"[..], b"kernel", b"mm", b"hugepages", b"hugepages-2048kB"] {
        here = directory(&here, name, 0o755)?;
    }
    for (name, file) in proc::HUGE_FILES {
        add(&here, name.as_bytes(), proc::Node::HugePool(file).inode())?;
    }
    here = root.clone();
    for name in [&b"sys"[..], b"devices", b"system", b"cpu"] {
        here = directory(&here, name, 0o755)?;
    }
    for cpu in 0..machine::vm().machine().cpus() {
        directory(&here, format!("cpu{cpu}").as_bytes(), 0o755)?;
    }
    for name in [&b"online"[..], b"possible", b"present"] {
        // Read once per boot and kept for good: the list lives as long as the file.
        let text: &'static [u8] = Box::leak(proc::cpu_list().into_boxed_slice());
        add(&here, name, Inode::new(Body::Regular(FileData::new(text)), 0o444))?;
    }
    Ok(())
}

/// The directory called `name`, made if it is missing.
fn directory(parent: &Arc<Inode>, name: &[u8], permissions: u32) -> Result<Arc<Inode>, Errno> {
    let found = parent.entries().ok_or(Errno::ENOTDIR)?.lock().get(name);
    match found {
        Some(found) if found.is_directory() => Ok(found),
        Some(_) => Err(Errno::ENOTDIR),
        None => {
            let new = namespace::new_directory(permissions);
            namespace::create(Spot { directory: parent, name }, &new)?;
            Ok(new)
        }
    }
}

/// Adds a file unless the archive has brought one of this name.
fn add(directory: &Arc<Inode>, name: &[u8], inode: Arc<Inode>) -> Result<(), Errno> {
    match namespace::create(Spot { directory, name }, &inode) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// The directory above `directory`.
pub fn parent_of(directory: &Arc<Inode>) -> Arc<Inode> {
    walk::Tree::parent(directory)
}

/// Bytes of console input that a program without a terminal has not read yet.
pub fn stream_length() -> usize {
    tty::console().stream_length()
}

/// Files that have a name, and how many may.
pub fn file_count() -> (u64, u64) {
    let (used, most) = quota::names();
    (used as u64, most.max(used) as u64)
}

/// Files that are open, and how many may be.
pub fn open_file_count() -> (usize, usize) {
    quota::open_files()
}
