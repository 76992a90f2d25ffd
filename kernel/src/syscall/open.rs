//! Making open files: `open` and its relatives, pipes, `memfd_create`, `eventfd`.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::{Full, Plain};
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::fs::{
    self, Body, Device, Ends, EventCounter, EventMode, F_SEAL_EXEC, FileData, FileTable, Follow, Inode, Last, OnExec,
    OpenFile, Pipe, Place, Rights, Spot,
};
use crate::sched::{Outcome, RestartKind};
use crate::uaccess;

pub(super) const CALLS: Calls = &[
    (linux::__NR_open, Full(open)),
    (linux::__NR_openat, Full(openat)),
    (linux::__NR_creat, Full(creat)),
    (linux::__NR_pipe, Plain(pipe)),
    (linux::__NR_pipe2, Plain(pipe2)),
    (linux::__NR_memfd_create, Plain(memfd_create)),
    (linux::__NR_eventfd, Plain(eventfd)),
    (linux::__NR_eventfd2, Plain(eventfd2)),
];

/// What `open` is asked for.
#[derive(Clone, Copy)]
struct Request {
    flags: u32,
    permissions: u32,
}

const TMPFILE: u32 = linux::__O_TMPFILE;
/// Flags that still count for a file opened with `O_PATH`.
const PATH_FLAGS: u32 = linux::O_PATH | linux::O_DIRECTORY | linux::O_NOFOLLOW | linux::O_CLOEXEC;

fn open(call: &mut Call<'_>) -> Outcome {
    let (flags, mode) = (call.uint(1), call.uint(2));
    open_at(call, linux::AT_FDCWD, 0, flags, mode)
}

fn openat(call: &mut Call<'_>) -> Outcome {
    let (directory, flags, mode) = (call.int(0), call.uint(2), call.uint(3));
    open_at(call, directory, 1, flags, mode)
}

fn creat(call: &mut Call<'_>) -> Outcome {
    let flags = linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC;
    let mode = call.uint(1);
    open_at(call, linux::AT_FDCWD, 0, flags, mode)
}

/// Opens the path that argument `path` points to.
fn open_at(call: &mut Call<'_>, directory: i32, path: usize, flags: u32, mode: u32) -> Outcome {
    let on_exec = OnExec::closing_if(flags & linux::O_CLOEXEC != 0);
    if let RestartKind::Open(file) = &call.regs.restart.kind {
        let file = file.clone();
        return wait_for_partner(call, file, on_exec);
    }
    match open_file(call, directory, path, flags, mode) {
        Err(errno) => errno.into(),
        Ok(file) if waits_for_partner(&file) => wait_for_partner(call, file, on_exec),
        Ok(file) => install(call, file, on_exec).into(),
    }
}

/// A descriptor for an open file.
pub(super) fn install(call: &Call<'_>, file: Arc<OpenFile>, on_exec: OnExec) -> SysResult {
    let number = call.files().add(file, on_exec, 0, call.file_limit())?;
    Ok(i64::from(number))
}

/// Whether `open` of this file waits for another: a FIFO opened for one direction.
fn waits_for_partner(file: &OpenFile) -> bool {
    let ends = file.ends();
    // Nobody waits for the end of an anonymous pipe that is opened once more through /proc.
    ends.reads != ends.writes && !file.is_nonblocking() && file.inode.is_named()
}

/// Waits until the other end of a FIFO is opened, if only for a moment.
fn wait_for_partner(call: &mut Call<'_>, file: Arc<OpenFile>, on_exec: OnExec) -> Outcome {
    if file.is_lonely() {
        file.register(call.thread);
        if file.is_lonely() {
            // The open file stays: it is what the other end waits for.
            call.restart().kind = RestartKind::Open(file);
            return Outcome::Block;
        }
    }
    install(call, file, on_exec).into()
}

/// Checks the flags and opens or creates the file.
fn open_file(call: &mut Call<'_>, directory: i32, path: usize, flags: u32, mode: u32) -> Result<Arc<OpenFile>, Errno> {
    let path_only = flags & linux::O_PATH != 0;
    let flags = if path_only { flags & PATH_FLAGS } else { flags };
    let temporary = flags & TMPFILE != 0;
    let rights = Rights::of_flags(flags);
    if temporary && (flags & linux::O_DIRECTORY == 0 || !rights.write || flags & linux::O_CREAT != 0) {
        return Err(Errno::EINVAL);
    }
    let path = call.path(path)?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    call.files().check_room(call.file_limit())?;
    let permissions = mode & 0o7777 & !call.process().fs().umask();
    let request = Request { flags, permissions };
    let exclusive = flags & linux::O_CREAT != 0 && flags & linux::O_EXCL != 0;
    let follow = if flags & linux::O_NOFOLLOW != 0 || exclusive { Follow::NotLast } else { Follow::Last };
    // Ends: it goes round only when somebody else has created the file in between.
    loop {
        let place = call.walk(directory, &path, follow)?;
        if temporary {
            return open_temporary(place, request);
        }
        match open_place(call, place, request) {
            Err(Errno::EEXIST) if !exclusive => {}
            other => return other,
        }
    }
}

fn open_place(call: &mut Call<'_>, place: Place<Arc<Inode>>, request: Request) -> Result<Arc<OpenFile>, Errno> {
    let creates = request.flags & linux::O_CREAT != 0;
    match place.found {
        Some(inode) => {
            if creates && request.flags & linux::O_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            open_existing(call, inode, request)
        }
        None if !creates => Err(Errno::ENOENT),
        None if place.slash => Err(Errno::EISDIR),
        None => {
            let Last::Name(name) = &place.last else { return Err(Errno::EISDIR) };
            if place.directory.entries().is_none() {
                return Err(Errno::ENOENT);
            }
            let inode = Inode::new(Body::Regular(FileData::new(&[])), request.permissions);
            fs::create(Spot { directory: &place.directory, name }, &inode)?;
            if request.flags & linux::O_DIRECT != 0 {
                return Err(Errno::EINVAL);
            }
            opened(inode, request.flags)
        }
    }
}

fn opened(inode: Arc<Inode>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    OpenFile::new(inode, flags | linux::O_LARGEFILE)
}

fn open_existing(call: &mut Call<'_>, inode: Arc<Inode>, request: Request) -> Result<Arc<OpenFile>, Errno> {
    let flags = request.flags;
    let rights = Rights::of_flags(flags);
    if rights.path {
        if flags & linux::O_DIRECTORY != 0 && !inode.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        return OpenFile::new(inode, flags);
    }
    let wants_write = rights.write || flags & linux::O_TRUNC != 0;
    if inode.is_symlink() {
        return Err(if flags & linux::O_DIRECTORY != 0 { Errno::ENOTDIR } else { Errno::ELOOP });
    }
    if inode.is_directory() && (wants_write || flags & linux::O_CREAT != 0) {
        return Err(Errno::EISDIR);
    }
    if flags & linux::O_DIRECTORY != 0 && !inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if flags & linux::O_DIRECT != 0 {
        // Contents are in the page cache and nowhere else.
        return Err(Errno::EINVAL);
    }
    check_body(call, &inode, flags)?;
    if let (Some(data), true) = (inode.data(), flags & linux::O_TRUNC != 0) {
        data.resize(&inode, call.cpu, 0)?;
    }
    opened(inode, flags)
}

/// Whether this kind of file can be opened in this way.
fn check_body(call: &Call<'_>, inode: &Inode, flags: u32) -> Result<(), Errno> {
    let rights = Rights::of_flags(flags);
    match &inode.body {
        Body::Inert { .. } | Body::Event(_) | Body::Epoll(_) => Err(Errno::ENXIO),
        Body::Userfault(_) | Body::Process(_) => Err(Errno::ENXIO),
        Body::Device(Device::Unknown(..)) => Err(Errno::ENXIO),
        Body::Device(device) => match device.terminal() {
            Some(terminal) => {
                let process = call.process();
                if *device == Device::ControllingTerminal {
                    return if terminal.controls(process) { Ok(()) } else { Err(Errno::ENXIO) };
                }
                if flags & linux::O_NOCTTY == 0 {
                    terminal.offer_control(process);
                }
                Ok(())
            }
            None => Ok(()),
        },
        Body::Proc(node) if rights.write && !node.is_writable() => Err(Errno::EACCES),
        Body::Fifo(pipe) => {
            let ends = Ends { reads: rights.read, writes: rights.write };
            let lonely = ends.writes && !ends.reads && !pipe.has_partner(ends);
            if lonely && flags & linux::O_NONBLOCK != 0 { Err(Errno::ENXIO) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// `O_TMPFILE`: a file without a name in the file system of a directory.
fn open_temporary(place: Place<Arc<Inode>>, request: Request) -> Result<Arc<OpenFile>, Errno> {
    let directory = place.existing()?;
    if !directory.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if directory.entries().is_none() {
        return Err(Errno::EOPNOTSUPP);
    }
    let inode = Inode::new(Body::Regular(FileData::new(&[])), request.permissions);
    opened(inode, request.flags)
}

fn pipe(call: &mut Call<'_>) -> SysResult {
    make_pipe(call, 0)
}

fn pipe2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    // Packet mode (`O_DIRECT`) is not offered.
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    make_pipe(call, flags)
}

fn make_pipe(call: &mut Call<'_>, flags: u32) -> SysResult {
    let inode = Inode::new(Body::Fifo(Arc::new(Pipe::new())), 0o600);
    let status = flags & linux::O_NONBLOCK;
    let read = OpenFile::new(inode.clone(), linux::O_RDONLY | status)?;
    let write = OpenFile::new(inode, linux::O_WRONLY | status)?;
    let on_exec = OnExec::closing_if(flags & linux::O_CLOEXEC != 0);
    let files = call.files();
    let limit = call.file_limit();
    let read = files.add(read, on_exec, 0, limit)?;
    let write = match files.add(write, on_exec, 0, limit) {
        Ok(write) => write,
        Err(errno) => return undo(&files, &[read], errno),
    };
    let numbers = uaccess::Layout::new().u32(read.cast_unsigned()).u32(write.cast_unsigned());
    let to = call.word(0);
    match numbers.write(call.cpu, to) {
        Ok(()) => Ok(0),
        Err(errno) => undo(&files, &[read, write], errno),
    }
}

/// Takes descriptors back that the caller will not hear of.
fn undo(files: &FileTable, numbers: &[i32], errno: Errno) -> SysResult {
    for &number in numbers {
        // Another thread may have closed it by guess: then it is gone as intended.
        let _ = files.close(number);
    }
    Err(errno)
}

fn memfd_create(call: &mut Call<'_>) -> SysResult {
    const NAME_MAX: usize = 249;
    let flags = call.uint(1);
    let huge = flags & linux::MFD_HUGETLB != 0;
    let sizes = if huge { linux::MFD_HUGETLB | linux::MFD_HUGE_MASK << linux::MFD_HUGE_SHIFT } else { 0 };
    let known = linux::MFD_CLOEXEC | linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC | sizes;
    let sealed = flags & linux::MFD_NOEXEC_SEAL != 0;
    if flags & !known != 0 || sealed && flags & linux::MFD_EXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let at = call.word(0);
    let name = crate::arch::user::cstr(call.cpu, at, NAME_MAX + 1)?;
    if name.len() > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let data = match flags >> linux::MFD_HUGE_SHIFT & linux::MFD_HUGE_MASK {
        0 | 21 if huge => FileData::new_huge(),
        // There are large pages of one size.
        _ if huge => return Err(Errno::ENODEV),
        _ => FileData::new(&[]),
    };
    if sealed {
        data.set_initial_seals(F_SEAL_EXEC);
    } else if flags & linux::MFD_ALLOW_SEALING != 0 {
        data.set_initial_seals(0);
    }
    let inode = Inode::new(Body::Regular(data), if sealed { 0o666 } else { 0o777 });
    inode.set_label(&[b"memfd:", &name[..]].concat());
    let on_exec = OnExec::closing_if(flags & linux::MFD_CLOEXEC != 0);
    install(call, OpenFile::new(inode, linux::O_RDWR | linux::O_LARGEFILE)?, on_exec)
}

fn eventfd(call: &mut Call<'_>) -> SysResult {
    make_event(call, 0)
}

fn eventfd2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    make_event(call, flags)
}

fn make_event(call: &mut Call<'_>, flags: u32) -> SysResult {
    if flags & !(linux::EFD_CLOEXEC | linux::EFD_NONBLOCK | linux::EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL);
    }
    let mode = if flags & linux::EFD_SEMAPHORE != 0 { EventMode::Semaphore } else { EventMode::Counter };
    let inode = Inode::new(Body::Event(EventCounter::new(call.uint(0), mode)), 0o600);
    let on_exec = OnExec::closing_if(flags & linux::EFD_CLOEXEC != 0);
    let status = flags & linux::EFD_NONBLOCK;
    install(call, OpenFile::new(inode, linux::O_RDWR | status)?, on_exec)
}

/// An epoll instance under a new descriptor.
pub(super) fn make_epoll(call: &mut Call<'_>, on_exec: OnExec) -> SysResult {
    let inode = Inode::new(Body::Epoll(fs::Epoll::new()), 0o600);
    install(call, OpenFile::new(inode, linux::O_RDWR)?, on_exec)
}

/// A directory, FIFO, device or whatever `mknod` makes.
pub(super) fn special_body(mode: u32, device: u64) -> Result<Body, Errno> {
    match mode & linux::S_IFMT {
        0 | linux::S_IFREG => Ok(Body::Regular(FileData::new(&[]))),
        linux::S_IFIFO => Ok(Body::Fifo(Arc::new(Pipe::new()))),
        linux::S_IFCHR => {
            let (major, minor) = fs::split_number(device);
            Ok(Body::Device(Device::of_number(major, minor)))
        }
        kind @ (linux::S_IFBLK | linux::S_IFSOCK) => Ok(Body::Inert { kind, number: device }),
        linux::S_IFDIR => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}
