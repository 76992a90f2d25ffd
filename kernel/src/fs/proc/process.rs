//! /proc/PID and /proc/PID/task/TID: what a process shows of itself.
//!
//! Called by the tree in [`super`]. Each look finds the process anew; one that has ended meanwhile
//! is `ENOENT` to lookups and `ESRCH` to reads, as on Linux.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use faultless::VirtAddr;
use faultless_linux::pagemap;

use super::super::file::OpenFile;
use super::super::inode::Inode;
use super::super::{namespace, tty};
use super::areas::{self, Detail};
use super::system::TICK;
use super::text::{Facts, Sizes, Text, put, write_limit};
use super::{Entry, Node, Owner, Part, entry};
use crate::arch::local::{self, Padded};
use crate::arch::{CpuLocal, MAX_CPUS};
use crate::errno::Errno;
use crate::heap;
use crate::process::{Memory, Process, table};
use crate::sched::{Thread, ThreadState};
use crate::uaccess::Source;

/// A file in /proc/PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the files'
pub enum ProcessFile {
    Maps,
    Smaps,
    SmapsRollup,
    Mem,
    Pagemap,
    ClearRefs,
    Status,
    Statm,
    Stat,
    Cmdline,
    Environ,
    Auxv,
    Comm,
    Limits,
    Mounts,
    Mountinfo,
    OomScore,
    OomScoreAdj,
    Personality,
}

/// The files in /proc/PID.
const FILES: &[(&str, ProcessFile)] = &[
    ("auxv", ProcessFile::Auxv),
    ("clear_refs", ProcessFile::ClearRefs),
    ("cmdline", ProcessFile::Cmdline),
    ("comm", ProcessFile::Comm),
    ("environ", ProcessFile::Environ),
    ("limits", ProcessFile::Limits),
    ("maps", ProcessFile::Maps),
    ("mem", ProcessFile::Mem),
    ("mountinfo", ProcessFile::Mountinfo),
    ("mounts", ProcessFile::Mounts),
    ("oom_score", ProcessFile::OomScore),
    ("oom_score_adj", ProcessFile::OomScoreAdj),
    ("pagemap", ProcessFile::Pagemap),
    ("personality", ProcessFile::Personality),
    ("smaps", ProcessFile::Smaps),
    ("smaps_rollup", ProcessFile::SmapsRollup),
    ("stat", ProcessFile::Stat),
    ("statm", ProcessFile::Statm),
    ("status", ProcessFile::Status),
];

/// A symbolic link in /proc/PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the links'
pub enum ProcessLink {
    Cwd,
    Exe,
    Root,
}

const LINKS: &[(&str, ProcessLink)] =
    &[("cwd", ProcessLink::Cwd), ("exe", ProcessLink::Exe), ("root", ProcessLink::Root)];

/// Most bytes of arguments or environment that are shown.
const STRINGS_MAX: usize = 6 << 20;

impl ProcessFile {
    /// The file's name.
    pub fn name(self) -> &'static str {
        FILES.iter().find(|(_, file)| *file == self).map_or("", |(name, _)| name)
    }

    /// The permission bits.
    pub fn permissions(self) -> u32 {
        match self {
            ProcessFile::Environ | ProcessFile::Auxv | ProcessFile::Personality | ProcessFile::Pagemap => 0o400,
            ProcessFile::Mem => 0o600,
            ProcessFile::ClearRefs => 0o200,
            ProcessFile::Comm => 0o644,
            _ => 0o444,
        }
    }
}

impl ProcessLink {
    /// The link's name.
    pub fn name(self) -> &'static str {
        LINKS.iter().find(|(_, link)| *link == self).map_or("", |(name, _)| name)
    }
}

/// Process (upper half) and thread (lower half) that each CPU works for.
static CURRENT: [Padded<AtomicU64>; MAX_CPUS] = [const { Padded(AtomicU64::new(0)) }; MAX_CPUS];

/// Notes for whom this CPU executes a system call: /proc/self is about that one.
pub fn set_current(thread: &Thread) {
    let ids = u64::from(thread.process.pid.cast_unsigned()) << 32 | u64::from(thread.tid.cast_unsigned());
    // Relaxed: only this CPU reads it.
    CURRENT[local::index()].0.store(ids, Ordering::Relaxed);
}

/// Process and thread that the system call is for.
///
/// # Errors
///
/// `ENOENT` outside of system calls.
pub fn current() -> Result<Owner, Errno> {
    let ids = CURRENT[local::index()].0.load(Ordering::Relaxed);
    if ids == 0 {
        return Err(Errno::ENOENT);
    }
    Ok(Owner { pid: (ids >> 32) as i32, tid: Some(ids as i32) })
}

/// The memory of a process; none if it has ended.
pub fn memory_of(owner: Owner) -> Result<Option<Arc<Memory>>, Errno> {
    let process = find(owner).map_err(|_| Errno::ESRCH)?;
    Ok((!process.is_zombie()).then(|| process.memory()))
}

/// May the process that this CPU works for see frame numbers (CAP_SYS_ADMIN)?
pub fn is_administrator() -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    let process = current().and_then(find);
    process.is_ok_and(|process| process.capabilities.lock().effective & SYS_ADMIN != 0)
}

fn find(owner: Owner) -> Result<Arc<Process>, Errno> {
    let process = table::find(owner.pid).ok_or(Errno::ENOENT)?;
    if let Some(tid) = owner.tid {
        let thread = table::find_thread(tid).ok_or(Errno::ENOENT)?;
        if thread.process.pid != owner.pid {
            return Err(Errno::ENOENT);
        }
    }
    Ok(process)
}

/// The thread a directory is about; none if the process is a zombie.
fn thread_of(owner: Owner, process: &Process) -> Option<Arc<Thread>> {
    match owner.tid {
        Some(tid) => table::find_thread(tid),
        None => process.first_thread(),
    }
}

/// The directory of a process, or of a thread by its own id.
pub fn directory_of(id: i32) -> Result<Node, Errno> {
    let pid = match table::find(id) {
        Some(process) => process.pid,
        None => table::find_thread(id).ok_or(Errno::ENOENT)?.process.pid,
    };
    Ok(Node::Process(Owner { pid, tid: None }, Part::Directory))
}

/// The directory of one thread of a process.
pub fn task_of(owner: Owner, tid: i32) -> Result<Node, Errno> {
    let owner = Owner { pid: owner.pid, tid: Some(tid) };
    find(owner)?;
    Ok(Node::Process(owner, Part::Directory))
}

/// The open file behind a descriptor.
pub fn open_file(owner: Owner, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let files = find(owner)?.try_files().ok_or(Errno::ENOENT)?;
    files.get(fd).map_err(|_| Errno::ENOENT)
}

/// Whether a process has this descriptor.
pub fn check_descriptor(owner: Owner, fd: i32) -> Result<i32, Errno> {
    open_file(owner, fd).map(|_| fd)
}

/// The entries of a directory of a process.
pub fn entries(owner: Owner, part: Part) -> Result<Vec<Entry>, Errno> {
    let process = find(owner)?;
    let numbers = || process.try_files().map_or(Vec::new(), |files| files.numbers());
    let named = |number: i32, node| entry(format!("{number}"), node);
    Ok(match part {
        Part::Directory => directory_entries(owner),
        Part::Descriptors => {
            let node = |fd| Node::Process(owner, Part::Descriptor(fd));
            numbers().into_iter().map(|fd| named(fd, node(fd))).collect()
        }
        Part::DescriptorInfos => {
            let node = |fd| Node::Process(owner, Part::DescriptorInfo(fd));
            numbers().into_iter().map(|fd| named(fd, node(fd))).collect()
        }
        Part::Tasks => {
            let mut threads = process.threads.lock().clone();
            threads.sort_by_key(|thread| thread.tid);
            let node = |tid| Node::Process(Owner { pid: owner.pid, tid: Some(tid) }, Part::Directory);
            threads.iter().map(|t| named(t.tid, node(t.tid))).collect()
        }
        _ => return Err(Errno::ENOTDIR),
    })
}

fn directory_entries(owner: Owner) -> Vec<Entry> {
    let node = |part| Node::Process(owner, part);
    let files = FILES.iter().map(|&(name, file)| entry(name, node(Part::File(file))));
    let links = LINKS.iter().map(|&(name, link)| entry(name, node(Part::Link(link))));
    let mut entries: Vec<Entry> = files.chain(links).collect();
    entries.push(entry("fd", node(Part::Descriptors)));
    entries.push(entry("fdinfo", node(Part::DescriptorInfos)));
    if owner.tid.is_none() {
        entries.push(entry("task", node(Part::Tasks)));
    }
    entries
}

/// What a symbolic link leads to.
pub fn target(owner: Owner, link: ProcessLink) -> Result<Arc<Inode>, Errno> {
    let process = find(owner)?;
    match link {
        ProcessLink::Root => Ok(namespace::root()),
        ProcessLink::Cwd => process.try_fs().map(|fs| fs.directory()).ok_or(Errno::ENOENT),
        ProcessLink::Exe if process.is_zombie() => Err(Errno::ENOENT),
        ProcessLink::Exe => {
            let memory = process.memory();
            super::super::lookup(&memory.image.path)
        }
    }
}

/// The contents of a file.
pub fn text(cpu: &mut CpuLocal, owner: Owner, file: ProcessFile) -> Result<Vec<u8>, Errno> {
    let process = find(owner).map_err(|_| Errno::ESRCH)?;
    let memory = (!process.is_zombie()).then(|| process.memory());
    let mut text = Text::default();
    match (file, &memory) {
        (ProcessFile::Stat | ProcessFile::Status | ProcessFile::Statm, memory) => {
            let sizes = memory.as_ref().map(|memory| sizes(cpu, memory));
            let facts = facts(owner, &process, memory.as_deref());
            match file {
                ProcessFile::Stat => facts.write_stat(sizes.as_ref(), &mut text),
                ProcessFile::Status => facts.write_status(sizes.as_ref(), &mut text),
                _ => sizes.unwrap_or_default().write_statm(&mut text),
            }
        }
        (ProcessFile::Maps, Some(memory)) => areas::write(cpu, memory, Detail::Lines, &mut text)?,
        (ProcessFile::Smaps, Some(memory)) => areas::write(cpu, memory, Detail::Pages, &mut text)?,
        (ProcessFile::SmapsRollup, Some(memory)) => areas::write_rollup(cpu, memory, &mut text)?,
        (ProcessFile::SmapsRollup, None) => return Err(Errno::ESRCH),
        // Those two are no text: their open files have a view.
        (ProcessFile::ClearRefs | ProcessFile::Mem | ProcessFile::Pagemap, _) => return Err(Errno::EINVAL),
        (ProcessFile::Cmdline, Some(memory)) => text.0 = strings(cpu, memory, memory.image.args)?,
        (ProcessFile::Environ, Some(memory)) => text.0 = strings(cpu, memory, memory.image.env)?,
        (ProcessFile::Auxv, Some(memory)) => text.0.extend_from_slice(&memory.image.auxv),
        (ProcessFile::Comm, _) => {
            text.0 = name(owner, &process);
            text.0.push(b'\n');
        }
        (ProcessFile::Limits, _) => write_limits(&process, &mut text),
        (ProcessFile::Mounts, _) => put!(text, "tmpfs / tmpfs rw,noatime 0 0\nproc /proc proc rw 0 0\n"),
        (ProcessFile::Mountinfo, _) => {
            put!(text, "1 0 0:2 / / rw,noatime - tmpfs tmpfs rw\n2 1 0:3 / /proc rw - proc proc rw\n")
        }
        (ProcessFile::OomScore | ProcessFile::OomScoreAdj, _) => put!(text, "0\n"),
        (ProcessFile::Personality, _) => put!(text, "00000000\n"),
        (_, None) => {}
    }
    Ok(text.0)
}

/// Takes what is written to a file.
pub fn write(cpu: &mut CpuLocal, owner: Owner, file: ProcessFile, from: &mut dyn Source) -> Result<usize, Errno> {
    let process = find(owner).map_err(|_| Errno::ESRCH)?;
    match file {
        ProcessFile::Comm => set_name(cpu, owner, &process, from),
        ProcessFile::ClearRefs => clear_refs(cpu, &process, from),
        _ => Err(Errno::EACCES),
    }
}

/// Clears what the number says. Linux looks at no more than the first twelve bytes.
fn clear_refs(cpu: &mut CpuLocal, process: &Process, from: &mut dyn Source) -> Result<usize, Errno> {
    let count = from.left();
    let mut value = [0; 12];
    let part = count.min(value.len());
    if from.take(cpu, &mut value[..part]) < part {
        return Err(Errno::EFAULT);
    }
    let memory = (!process.is_zombie()).then(|| process.memory());
    match memory {
        Some(memory) => pagemap::clear_refs(memory.space(), &mut cpu.vm, &value[..part])?,
        None => return Err(Errno::ESRCH),
    }
    Ok(count)
}

fn set_name(cpu: &mut CpuLocal, owner: Owner, process: &Process, from: &mut dyn Source) -> Result<usize, Errno> {
    const NAME: usize = 15;
    let thread = thread_of(owner, process).ok_or(Errno::ESRCH)?;
    let count = from.left();
    let mut name = [0; 16];
    let part = count.min(NAME);
    if from.take(cpu, &mut name[..part]) < part {
        return Err(Errno::EFAULT);
    }
    if let Some(end) = name.iter().position(|&b| b == b'\n') {
        name[end..].fill(0);
    }
    *thread.name.lock() = name;
    Ok(count)
}

fn name(owner: Owner, process: &Process) -> Vec<u8> {
    let name = thread_of(owner, process).map(|thread| *thread.name.lock());
    let name = name.unwrap_or_default();
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    name[..end].to_vec()
}

fn strings(cpu: &mut CpuLocal, memory: &Memory, (start, end): (u64, u64)) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(end.saturating_sub(start)).map_or(STRINGS_MAX, |l| l.min(STRINGS_MAX));
    let mut bytes = Vec::new();
    heap::reserve(&mut bytes, length)?;
    bytes.resize(length, 0);
    // A program may have unmapped its arguments: then there is nothing to show.
    match memory.space().read(&mut cpu.vm, VirtAddr::new(start), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Ok(Vec::new()),
    }
}

fn facts(owner: Owner, process: &Process, memory: Option<&Memory>) -> Facts {
    let thread = thread_of(owner, process);
    let capabilities = *process.capabilities.lock();
    let usage = match (owner.tid, &thread) {
        (Some(_), Some(thread)) => thread.usage.totals(),
        _ => process.total_usage(),
    };
    let children = process.children_usage.totals();
    let (ignored, caught) = signal_sets(process);
    let own = thread.as_ref().map_or(0, |t| t.signals.lock().pending.set().bits());
    let shared = process.signals.lock().pending.set().bits();
    let blocked = thread.as_ref().map_or(0, |t| t.blocked().bits());
    let image = memory.map(|memory| memory.image.clone()).unwrap_or_default();
    let brk = memory.map_or(0, |memory| memory.space().brk_range().0.as_u64());
    Facts {
        tid: owner.tid.unwrap_or(owner.pid),
        pid: owner.pid,
        parent: process.parent_pid(),
        group: process.group(),
        session: process.session(),
        name: name(owner, process),
        state: state(process, thread.as_deref()),
        terminal: tty::console().of_process(process),
        faults: [usage.minor, children.minor, usage.major, children.major],
        ticks: [usage.user, usage.system, children.user, children.system].map(|ns| ns / TICK),
        threads: process.threads.lock().len(),
        capabilities: [capabilities.inheritable, capabilities.permitted, capabilities.effective],
        queued: (crate::signal::queued(), process.limit(linux_raw_sys::general::RLIMIT_SIGPENDING as usize)),
        started: process.started.load(Ordering::Relaxed) / TICK,
        resident_limit: process.limit(linux_raw_sys::general::RLIMIT_RSS as usize),
        code: image.code,
        stack: image.stack,
        heap: brk,
        args: image.args,
        env: image.env,
        signals: [own, shared, blocked, ignored, caught],
        exit_signal: process.exit_signal.load(Ordering::Relaxed),
        cpu: thread.as_ref().map_or(0, |t| t.cpu.load(Ordering::Relaxed)),
        affinity: thread.as_ref().map_or(0, |t| t.affinity.load(Ordering::Relaxed)) & crate::sched::online_mask(),
        exit_code: process.ending.lock().reason.map_or(0, |reason| reason.wait_status()),
        umask: process.try_fs().map_or(0, |fs| fs.umask()),
        file_places: process.try_files().map_or(0, |files| files.size()),
        switches: (usage.voluntary, usage.involuntary),
    }
}

fn state(process: &Process, thread: Option<&Thread>) -> char {
    let ending = *process.ending.lock();
    if ending.zombie {
        return 'Z';
    }
    if ending.stopped.is_some() {
        return 'T';
    }
    match thread.map(Thread::state) {
        Some(ThreadState::Running | ThreadState::Notified) => 'R',
        Some(ThreadState::Parked) => 'S',
        Some(ThreadState::Dead) | None => 'X',
    }
}

/// Signals that are ignored, and those that have a handler.
fn signal_sets(process: &Process) -> (u64, u64) {
    let signals = process.signals.lock();
    let mut sets = (0, 0);
    for (index, action) in signals.actions.all().iter().enumerate() {
        match action.handler {
            0 => {}
            1 => sets.0 |= 1 << index,
            _ => sets.1 |= 1 << index,
        }
    }
    sets
}

fn sizes(cpu: &mut CpuLocal, memory: &Memory) -> Sizes {
    let code = memory.image.code;
    let text = (code.1.next_multiple_of(4096) - code.0 / 4096 * 4096) / 4096;
    Sizes { text, ..Sizes::of(&memory.linux, &mut cpu.vm) }
}

fn write_limits(process: &Process, text: &mut Text) {
    const LIMITS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let limits = *process.limits.lock();
    put!(text, "{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), limit) in LIMITS.into_iter().zip(limits) {
        write_limit(name, unit, limit, text);
    }
}

/// /proc/PID/fdinfo/N
pub fn descriptor_info(owner: Owner, fd: i32) -> Result<Vec<u8>, Errno> {
    let file = open_file(owner, fd)?;
    let mut text = Text::default();
    put!(text, "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t1\nino:\t{}\n", file.position(), file.flags(), file.inode.number);
    Ok(text.0)
}
