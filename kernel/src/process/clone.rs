//! fork, vfork, clone and clone3.
//!
//! The memory work is `Space::fork`, whose cost does not depend on what is mapped; the rest is a
//! handful of allocations. A `vfork` child shares its parent's memory and the parent waits: its
//! system call blocks until the child has executed a program or is gone.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use faultless::VirtAddr;
use linux_raw_sys::general as linux;

use super::limits::MemoryRights;
use super::table::{self, Refused};
use super::{Capabilities, Ending, Family, Memory, Process, Usage};
use crate::arch::user::{USER_END, copy_in, copy_out};
use crate::arch::{CpuLocal, UserContext, fpu};
use crate::clock;
use crate::errno::Errno;
use crate::fs::{self, OnExec};
use crate::sched::{self, Interrupt, Outcome, RestartKind, Thread, WaitQueue};
use crate::signal::{self, Actions, Alarm, ProcessSignals};
use crate::sync::Lock;
use crate::syscall::pidfd;

/// What `clone` is asked to do.
#[derive(Debug, Clone, Copy, Default)]
struct CloneArgs {
    flags: u64,
    exit_signal: i32,
    /// Stack pointer of the child; 0 keeps the parent's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
    /// Where `CLONE_PIDFD` puts the descriptor.
    pidfd: u64,
}

const VM: u64 = linux::CLONE_VM as u64;
const FS: u64 = linux::CLONE_FS as u64;
const FILES: u64 = linux::CLONE_FILES as u64;
const SIGHAND: u64 = linux::CLONE_SIGHAND as u64;
const VFORK: u64 = linux::CLONE_VFORK as u64;
const PIDFD: u64 = linux::CLONE_PIDFD as u64;
const DETACHED: u64 = linux::CLONE_DETACHED as u64;
const PARENT: u64 = linux::CLONE_PARENT as u64;
const THREAD: u64 = linux::CLONE_THREAD as u64;
const SETTLS: u64 = linux::CLONE_SETTLS as u64;
const PARENT_SETTID: u64 = linux::CLONE_PARENT_SETTID as u64;
const CHILD_CLEARTID: u64 = linux::CLONE_CHILD_CLEARTID as u64;
const CHILD_SETTID: u64 = linux::CLONE_CHILD_SETTID as u64;
/// Flags about things that do not exist here, so that sharing or not sharing them is the same:
/// semaphore undo lists, I/O contexts, tracers; and one that Linux ignores as well.
const WITHOUT_EFFECT: u64 =
    linux::CLONE_SYSVSEM as u64 | linux::CLONE_IO as u64 | linux::CLONE_UNTRACED as u64 | DETACHED;
const SUPPORTED: u64 = VM
    | FS
    | FILES
    | SIGHAND
    | VFORK
    | PIDFD
    | PARENT
    | THREAD
    | SETTLS
    | PARENT_SETTID
    | CHILD_CLEARTID
    | CHILD_SETTID
    | WITHOUT_EFFECT;

/// As many threads as there may be, all processes together.
const MOST_THREADS: usize = 32_768;

/// `fork()`.
pub fn sys_fork(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let args = CloneArgs { exit_signal: signal::number::SIGCHLD, ..CloneArgs::default() };
    clone(thread, cpu, context, args)
}

/// `vfork()`.
pub fn sys_vfork(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let args = CloneArgs { flags: VM | VFORK, exit_signal: signal::number::SIGCHLD, ..CloneArgs::default() };
    clone(thread, cpu, context, args)
}

/// `clone(flags, stack, parent_tid, child_tid, tls)`.
pub fn sys_clone(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [flags, stack, parent_tid, child_tid, tls, _] = context.args();
    let args = CloneArgs {
        flags: flags & !0xff,
        exit_signal: (flags & 0xff) as i32,
        stack,
        parent_tid,
        child_tid,
        tls,
        pidfd: parent_tid,
    };
    clone(thread, cpu, context, args)
}

/// `clone3(args, size)`.
pub fn sys_clone3(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    match read_clone3(cpu, context) {
        Ok(args) => clone(thread, cpu, context, args),
        Err(errno) => errno.into(),
    }
}

fn read_clone3(cpu: &mut CpuLocal, context: &UserContext) -> Result<CloneArgs, Errno> {
    /// flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
    const WORDS: usize = 11;
    const FIRST_VERSION: usize = 64;
    let [at, size, ..] = context.args();
    let size = size as usize;
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    if size > WORDS * 8 {
        return Err(Errno::E2BIG);
    }
    let mut bytes = [0; WORDS * 8];
    copy_in(cpu, at, &mut bytes[..size])?;
    let word = |n: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[n * 8 + i]));
    let (stack, stack_size) = (word(5), word(6));
    let wants_set_tid = word(9) != 0;
    let exit_signal = i32::try_from(word(4)).map_err(|_| Errno::EINVAL)?;
    if wants_set_tid || (stack == 0) != (stack_size == 0) || word(0) & 0xff != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(CloneArgs {
        flags: word(0),
        exit_signal,
        stack: stack.checked_add(stack_size).ok_or(Errno::EINVAL)?,
        parent_tid: word(3),
        child_tid: word(2),
        tls: word(7),
        pidfd: word(1),
    })
}

fn check(args: &CloneArgs) -> Result<(), Errno> {
    let has = |flag| args.flags & flag != 0;
    let known = args.flags & !SUPPORTED == 0;
    let consistent = (!has(THREAD) || has(SIGHAND)) && (!has(SIGHAND) || has(VM));
    // Of threads there are no descriptors, and the one of a process needs a place of its own in `clone`.
    let offered =
        !has(PIDFD) || !has(THREAD) && !has(DETACHED) && (args.pidfd != args.parent_tid || !has(PARENT_SETTID));
    let signal = args.exit_signal == 0 || signal::is_signal(args.exit_signal);
    let addresses = args.stack <= USER_END && (!has(SETTLS) || args.tls < USER_END);
    if !(known && consistent && offered && signal) {
        return Err(Errno::EINVAL);
    }
    if addresses { Ok(()) } else { Err(Errno::EPERM) }
}

fn clone(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext, args: CloneArgs) -> Outcome {
    if let RestartKind::Vfork(child) = &context.restart.kind {
        let child = child.clone();
        return wait_for_release(thread, &child);
    }
    let child = match check(&args).map_err(Failure::Error).and_then(|()| make_child(thread, cpu, context, &args)) {
        Ok(child) => child,
        Err(Failure::Again) => {
            // As if the call had not been made yet: signals first.
            context.rewind_syscall();
            thread.note_attention();
            return Outcome::Switched;
        }
        Err(Failure::Error(errno)) => return errno.into(),
    };
    let (tid, process) = (child.tid, child.process.clone());
    table::insert_thread(&child);
    sched::enqueue(child);
    if args.flags & VFORK != 0 {
        context.restart.interrupt = Interrupt::KillOnly;
        context.restart.kind = RestartKind::Vfork(process.clone());
        return wait_for_release(thread, &process);
    }
    Outcome::Done(i64::from(tid))
}

/// The parent's half of `vfork`.
fn wait_for_release(thread: &Arc<Thread>, child: &Arc<Process>) -> Outcome {
    child.released.register(thread);
    // Acquire pairs with the Release in `Process::release_parent`.
    if child.has_released.load(Ordering::Acquire) {
        // The child may have given the memory that was shared other limits.
        thread.process.apply_limits();
        return Outcome::Done(i64::from(child.pid));
    }
    Outcome::Block
}

/// Creates the thread, in this process or in a new one, but does not start it.
fn make_child(
    thread: &Arc<Thread>,
    cpu: &mut CpuLocal,
    context: &mut UserContext,
    args: &CloneArgs,
) -> Result<Arc<Thread>, Failure> {
    let has = |flag| args.flags & flag != 0;
    // The x87 registers are in the CPU: complete the context before it is copied.
    fpu::save(&mut context.fx);
    let mut child_context = context.child();
    if args.stack != 0 {
        child_context.rsp = args.stack;
    }
    if has(SETTLS) {
        child_context.fs_base = args.tls;
    }
    if table::counts().1 >= MOST_THREADS {
        return Err(Errno::EAGAIN.into());
    }
    let tid = table::new_id();
    if has(PARENT_SETTID) {
        copy_out(cpu, args.parent_tid, &tid.to_le_bytes()).map_err(Errno::from)?;
    }
    let process = if has(THREAD) { thread.process.clone() } else { new_process(thread, cpu, args, tid)? };
    let child = Thread::new(tid, process.clone(), child_context, thread.blocked());
    child.affinity.store(thread.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    child.cpu.store(cpu.index() as u32, Ordering::Relaxed);
    *child.name.lock() = *thread.name.lock();
    if has(CHILD_CLEARTID) {
        child.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
    }
    if !has(VM) || has(VFORK) {
        child.signals.lock().alternate = thread.signals.lock().alternate;
    }
    let memory = process.memory();
    if has(THREAD) {
        add_thread(&process, &child)?;
    } else {
        // Before anybody can see the process: what fails then can be taken back.
        let pidfd = if has(PIDFD) { Some(add_pidfd(thread, cpu, args, &process)) } else { None }.transpose();
        let added = pidfd.map_err(Failure::from).and_then(|pidfd| {
            add_process(&process, &child, thread, has(PARENT))
                .inspect_err(|_| _ = pidfd.map(|pidfd| thread.process.files().close(pidfd)))
        });
        if let Err(refused) = added {
            undo(&process, cpu);
            return Err(refused);
        }
    }
    if has(CHILD_SETTID) {
        // The child does not run yet; the memory is its own or the caller's, so it stays. Linux
        // ignores a bad address here, too: the child finds out by itself.
        let address = VirtAddr::new(args.child_tid);
        let _ = memory.space().write(&mut cpu.vm, address, &tid.to_le_bytes());
    }
    Ok(child)
}

/// Why there is no child.
enum Failure {
    /// A signal came first: make the call anew.
    Again,
    Error(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Error(errno)
    }
}

/// Adds a thread to its process, unless the process is ending.
fn add_thread(process: &Process, child: &Arc<Thread>) -> Result<(), Errno> {
    let mut threads = process.threads.lock();
    if process.ending.lock().reason.is_some() || process.is_executing() {
        return Err(Errno::EAGAIN);
    }
    process.memory().enter();
    threads.push(child.clone());
    Ok(())
}

/// Gives a new process its first thread and makes it visible.
fn add_process(process: &Arc<Process>, child: &Arc<Thread>, forker: &Thread, is_sibling: bool) -> Result<(), Failure> {
    process.threads.lock().push(child.clone());
    table::admit(process, forker, is_sibling).map_err(|refused| match refused {
        Refused::Interrupted => Failure::Again,
        // What Linux says when the first process of a namespace is gone.
        Refused::Closed => Errno::ENOMEM.into(),
    })
}

/// Gives the forker a descriptor of the new process.
fn add_pidfd(thread: &Thread, cpu: &mut CpuLocal, args: &CloneArgs, process: &Arc<Process>) -> Result<i32, Errno> {
    let (files, limit) = (thread.process.files(), thread.process.limit(linux::RLIMIT_NOFILE as usize));
    let number = files.add(pidfd::file_of(process, 0)?, OnExec::closing_if(true), 0, limit)?;
    copy_out(cpu, args.pidfd, &number.to_le_bytes()).inspect_err(|_| _ = files.close(number))?;
    Ok(number)
}

/// Takes a process apart that nobody has seen.
fn undo(process: &Process, cpu: &mut CpuLocal) {
    // The thread and its process hold each other.
    process.threads.lock().clear();
    process.memory().leave(cpu);
    process.close_files(cpu);
}

fn new_process(thread: &Thread, cpu: &mut CpuLocal, args: &CloneArgs, pid: i32) -> Result<Arc<Process>, Errno> {
    let has = |flag| args.flags & flag != 0;
    let parent = &thread.process;
    let memory = if has(VM) {
        let memory = parent.memory();
        memory.enter();
        memory
    } else {
        fork_memory(parent, cpu)?
    };
    let actions = parent.signals.lock().actions.clone();
    let actions = if has(SIGHAND) { actions } else { Actions::new(actions.all()) };
    let files = if has(FILES) { parent.files() } else { parent.files().fork() };
    let fs = if has(FS) { parent.fs() } else { parent.fs().fork() };
    Ok(Arc::new(Process {
        pid,
        // `table::admit` fills it in.
        family: Lock::new(Family::default()),
        group: AtomicI32::new(parent.group()),
        session: AtomicI32::new(parent.session()),
        memory: Lock::new(memory),
        files: Lock::new(Some(files)),
        fs: Lock::new(Some(fs)),
        threads: Lock::new(Vec::new()),
        signals: Lock::new(ProcessSignals { actions, ..ProcessSignals::default() }),
        alarm: Lock::new(Alarm::default()),
        ending: Lock::new(Ending::default()),
        child_events: WaitQueue::new(),
        thread_exits: WaitQueue::new(),
        ended: WaitQueue::new(),
        released: WaitQueue::new(),
        has_released: AtomicBool::new(!has(VFORK)),
        has_executed: AtomicBool::new(false),
        executing: AtomicI32::new(0),
        // A sibling is to its parent what its maker is.
        exit_signal: AtomicI32::new(if has(PARENT) {
            parent.exit_signal.load(Ordering::Relaxed)
        } else {
            args.exit_signal
        }),
        usage: Usage::default(),
        children_usage: Usage::default(),
        started: AtomicU64::new(clock::monotonic()),
        memory_rights: parent.memory_rights.clone(),
        capabilities: Lock::new(*parent.capabilities.lock()),
        limits: Lock::new(*parent.limits.lock()),
    }))
}

fn fork_memory(parent: &Process, cpu: &mut CpuLocal) -> Result<Arc<Memory>, Errno> {
    let memory = parent.memory();
    let forked = memory.linux.fork(&mut cpu.vm).inspect_err(|_| fs::settle_heirs(None))?;
    let child = Memory::new(forked, memory.image.clone());
    fs::settle_heirs(Some(&child));
    child.barriers.store(memory.barriers.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(child)
}

impl Process {
    /// A process without a parent, for the first program.
    pub(super) fn first(pid: i32, memory: Arc<Memory>) -> Process {
        Process {
            pid,
            family: Lock::new(Family { parent: Weak::new(), children: Vec::new() }),
            group: AtomicI32::new(pid),
            session: AtomicI32::new(pid),
            memory: Lock::new(memory),
            files: Lock::new(None),
            fs: Lock::new(None),
            threads: Lock::new(Vec::new()),
            signals: Lock::new(ProcessSignals::default()),
            alarm: Lock::new(Alarm::default()),
            ending: Lock::new(Ending::default()),
            child_events: WaitQueue::new(),
            thread_exits: WaitQueue::new(),
            ended: WaitQueue::new(),
            released: WaitQueue::new(),
            has_released: AtomicBool::new(true),
            has_executed: AtomicBool::new(false),
            executing: AtomicI32::new(0),
            exit_signal: AtomicI32::new(signal::number::SIGCHLD),
            usage: Usage::default(),
            children_usage: Usage::default(),
            started: AtomicU64::new(clock::monotonic()),
            memory_rights: MemoryRights::default(),
            capabilities: Lock::new(Capabilities::ROOT),
            limits: Lock::new(super::default_limits()),
        }
    }

    /// Lets a `vfork` parent go on: this process has left the shared memory.
    pub(super) fn release_parent(&self) {
        // Release pairs with the Acquire in `wait_for_release`.
        if !self.has_released.swap(true, Ordering::Release) {
            self.released.wake_all();
        }
    }
}
