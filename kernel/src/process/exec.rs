//! `execve`: find the file, load it into a new space, leave the old one.
//!
//! Up to the point of no return everything happens beside the running program, so an error leaves
//! it as it was. Other threads of the process are ended before the new space is made.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use faultless::{
    AreaFlags, Backing, Layout, Limits, MapRequest, Object, PageRange, Placement, Rights, Sharing, Space, VirtAddr,
};

use super::elf::{self, Elf, Segment};
use super::memory::Image;
use super::stack::{self, Strings};
use super::{Capabilities, DEFAULT_STACK_LIMIT, Memory, Process, default_limits, exit, limits, table};
use crate::arch::user::{self, copy_in, cstr};
use crate::arch::{CpuLocal, UserContext, context, cpu, fpu};
use crate::errno::Errno;
use crate::fs::{self, FileTable, FsContext};
use crate::machine::{self, KernelMachine};
use crate::sched::{self, Interrupt, Outcome, Thread, end_system_stretch};
use crate::signal::SigSet;
use crate::signal::number::SIGCHLD;
use crate::{heap, random};

/// Size of a page.
pub const PAGE: u64 = faultless::PAGE_SIZE;

/// Where the stack ends.
const STACK_TOP: u64 = user::USER_END;
/// Stack below the strings that is mapped from the start; it grows on demand.
const STACK_RESERVE: u64 = 128 << 10;
/// Where relocatable programs go, as on Linux without randomisation.
const PROGRAM_BASE: u64 = 0x5555_5555_4000;
/// Bounds of what arguments and environment may take, as on Linux.
const ARGS_LEAST: u64 = 128 << 10;
const ARGS_MOST: u64 = 6 << 20;
/// Index of the stack's limit among the resource limits.
const RLIMIT_STACK: usize = 3;
const STRING_MAX: usize = 128 << 10;
const PATH_MAX: usize = 4096;
/// Scripts whose interpreter is a script whose interpreter ...
const SCRIPT_DEPTH: usize = 4;

/// A program to run.
pub struct ExecRequest {
    /// Path of the file.
    pub path: Vec<u8>,
    /// Arguments, the name first.
    pub args: Strings,
    /// Environment.
    pub env: Strings,
}

/// `execve(path, argv, envp)`.
pub fn sys_execve(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [path, argv, envp, ..] = context.args();
    let request = read_request(cpu, &thread.process, path, argv, envp);
    match request.and_then(|r| execute(thread, cpu, context, r)) {
        Ok(outcome) => outcome,
        Err(errno) => {
            thread.process.executing.store(0, Ordering::Relaxed);
            errno.into()
        }
    }
}

fn read_request(cpu: &mut CpuLocal, process: &Process, path: u64, argv: u64, envp: u64) -> Result<ExecRequest, Errno> {
    let path = cstr(cpu, path, PATH_MAX)?;
    match path.len() {
        0 => return Err(Errno::ENOENT),
        PATH_MAX => return Err(Errno::ENAMETOOLONG),
        _ => {}
    }
    let mut room = args_max(process);
    let args = read_strings(cpu, argv, &mut room)?;
    let env = read_strings(cpu, envp, &mut room)?;
    Ok(ExecRequest { path, args, env })
}

/// The most that arguments and environment may take: a quarter of the stack, within bounds.
fn args_max(process: &Process) -> usize {
    let quarter = process.limit(RLIMIT_STACK) / 4;
    quarter.clamp(ARGS_LEAST, ARGS_MOST) as usize
}

/// Reads a list of strings that must fit into `room`, of which it takes what it needs.
fn read_strings(cpu: &mut CpuLocal, list: u64, room: &mut usize) -> Result<Strings, Errno> {
    let mut strings = Strings::default();
    // A null list is an empty one, as on Linux. Ends: by the limit at the latest.
    if list == 0 {
        return Ok(strings);
    }
    loop {
        let mut word = [0; 8];
        let place = (strings.count() as u64 * 8).checked_add(list).ok_or(Errno::EFAULT)?;
        copy_in(cpu, place, &mut word)?;
        let at = u64::from_le_bytes(word);
        if at == 0 {
            return Ok(strings);
        }
        let text = cstr(cpu, at, STRING_MAX)?;
        let size = text.len() + 1 + word.len();
        if text.len() == STRING_MAX || size > *room {
            return Err(Errno::E2BIG);
        }
        *room -= size;
        heap::reserve(strings.bytes_mut(), text.len() + 1)?;
        strings.push(&text).map_err(|_| Errno::ENOMEM)?;
    }
}

/// An executable file that was opened and looked at.
type Loadable = (Elf, Arc<Object<KernelMachine>>);

/// The program, its interpreter if it has one, and what they are called with.
struct Program {
    elf: Elf,
    object: Arc<Object<KernelMachine>>,
    interpreter: Option<Loadable>,
    /// Absolute path of the file.
    path: Vec<u8>,
    /// As it was asked for: AT_EXECFN and the thread's name.
    name: Vec<u8>,
    args: Strings,
    env: Strings,
}

fn execute(
    thread: &Arc<Thread>,
    cpu: &mut CpuLocal,
    context: &mut UserContext,
    request: ExecRequest,
) -> Result<Outcome, Errno> {
    let program = find_program(cpu, &thread.process.fs(), request)?;
    if !others_are_gone(thread) {
        context.restart.interrupt = Interrupt::KillOnly;
        return Ok(Outcome::Block);
    }
    let stack_limit = thread.process.limit(RLIMIT_STACK);
    let (memory, entry) = load(cpu, &program, stack_limit, thread.process.memory_limits())?;
    exit::leave_memory_behind(thread, cpu);
    let old = core::mem::replace(&mut *thread.process.memory.lock(), memory.clone());
    memory.space().set_huge_allowed(old.space().is_huge_allowed());
    machine::switch_memory(cpu, Some(memory.clone()));
    old.leave(cpu);
    become_program(thread, cpu, &program);
    let fresh = UserContext::new(entry, memory.image.stack);
    if thread.tid != thread.process.pid {
        take_first_place(thread, cpu, fresh);
        return Ok(Outcome::Exit);
    }
    *context = fresh;
    cpu::set_fs_base(0);
    cpu::set_user_gs_base(0);
    fpu::load(&mut context.fx);
    // Signals that came while it waited for other threads were left alone.
    thread.note_attention();
    Ok(Outcome::Switched)
}

/// After `execve` the only thread has the process' id, whichever of its threads called: another
/// thread object with that id goes on, and the calling one, which the caller ends, is no more.
fn take_first_place(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: UserContext) {
    let process = &thread.process;
    end_system_stretch(cpu, thread);
    let first = Thread::new(process.pid, process.clone(), context, thread.blocked());
    first.affinity.store(thread.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    first.cpu.store(cpu.index() as u32, Ordering::Relaxed);
    *first.name.lock() = *thread.name.lock();
    first.signals.lock().pending = core::mem::take(&mut thread.signals.lock().pending);
    table::remove_thread(thread.tid);
    table::insert_thread(&first);
    {
        let mut threads = process.threads.lock();
        process.usage.add(thread.usage.totals());
        threads.clear();
        threads.push(first.clone());
    }
    first.note_attention();
    sched::enqueue(first);
}

/// Ends the other threads of the process. Says whether there are none left; if not, the calling
/// thread is registered for the next one to go.
fn others_are_gone(thread: &Arc<Thread>) -> bool {
    let process = &thread.process;
    process.executing.store(thread.tid, Ordering::Relaxed);
    process.thread_exits.register(thread);
    let others: Vec<_> = {
        let threads = process.threads.lock();
        threads.iter().filter(|t| t.tid != thread.tid).cloned().collect()
    };
    for other in &others {
        other.note_attention();
        sched::kick(other);
    }
    others.is_empty()
}

/// What changes in the process when a program takes over.
fn become_program(thread: &Arc<Thread>, cpu: &mut CpuLocal, program: &Program) {
    let process = &thread.process;
    process.files().close_on_exec(cpu);
    process.signals.lock().for_exec();
    thread.signals.lock().alternate = Default::default();
    set_name(thread, &program.name);
    process.has_executed.store(true, Ordering::Relaxed);
    let inheritable = process.capabilities.lock().inheritable;
    *process.capabilities.lock() = Capabilities { inheritable, ..Capabilities::ROOT };
    process.apply_limits();
    process.exit_signal.store(SIGCHLD, Ordering::Relaxed);
    process.executing.store(0, Ordering::Relaxed);
    process.release_parent();
}

fn set_name(thread: &Thread, path: &[u8]) {
    let base = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let mut name = [0; 16];
    let length = base.len().min(15);
    name[..length].copy_from_slice(&base[..length]);
    *thread.name.lock() = name;
}

/// Opens the file, following `#!` lines, and the interpreter it names.
fn find_program(cpu: &mut CpuLocal, fs: &FsContext, request: ExecRequest) -> Result<Program, Errno> {
    let ExecRequest { path: name, mut args, env } = request;
    let mut path = name.clone();
    for _ in 0..=SCRIPT_DEPTH {
        let file = fs::open_executable(cpu, fs, &path)?;
        let head = read_head(cpu, &file.object)?;
        if let Some(line) = head.strip_prefix(b"#!") {
            let (interpreter, argument) = split_script_line(line).ok_or(Errno::ENOEXEC)?;
            // It comes before the path, which replaces the program's own name for itself.
            let argument = argument.iter().map(Vec::as_slice);
            let front: Vec<&[u8]> = [&*interpreter].into_iter().chain(argument).chain([&*path]).collect();
            args.replace_first(&front).map_err(|_| Errno::ENOMEM)?;
            path = interpreter;
            continue;
        }
        let elf = elf::parse(&head).map_err(|_| Errno::ENOEXEC)?;
        let interpreter = open_interpreter(cpu, fs, &elf, &file.object)?;
        return Ok(Program { elf, object: file.object, interpreter, path: file.path, name, args, env });
    }
    Err(Errno::ELOOP)
}

fn read_head(cpu: &mut CpuLocal, object: &Object<KernelMachine>) -> Result<Vec<u8>, Errno> {
    let mut head = alloc::vec![0; PAGE as usize];
    let count = object.read(&mut cpu.vm, 0, &mut head).map_err(|_| Errno::EIO)?;
    head.truncate(count);
    Ok(head)
}

/// Interpreter and optional argument of a line that follows `#!`.
fn split_script_line(line: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    const LINE_MAX: usize = 254;
    let line = &line[..line.len().min(LINE_MAX)];
    let end = line.iter().position(|&b| b == b'\n')?;
    let line = line[..end].trim_ascii();
    let split = line.iter().position(|&b| b == b' ' || b == b'\t').unwrap_or(line.len());
    let argument = line[split..].trim_ascii();
    let interpreter = line[..split].to_vec();
    (!interpreter.is_empty()).then_some((interpreter, (!argument.is_empty()).then(|| argument.to_vec())))
}

fn open_interpreter(
    cpu: &mut CpuLocal,
    fs: &FsContext,
    elf: &Elf,
    object: &Object<KernelMachine>,
) -> Result<Option<Loadable>, Errno> {
    let Some((offset, length)) = elf.interpreter else {
        return Ok(None);
    };
    let mut path = alloc::vec![0; length as usize];
    object.read(&mut cpu.vm, offset, &mut path).map_err(|_| Errno::EIO)?;
    let file = fs::open_executable(cpu, fs, &path)?;
    let head = read_head(cpu, &file.object)?;
    let elf = elf::parse(&head).map_err(|_| Errno::ELIBBAD)?;
    Ok(Some((elf, file.object)))
}

/// Makes the new memory. Returns it with the address to start at.
fn load(cpu: &mut CpuLocal, program: &Program, stack_limit: u64, limits: Limits) -> Result<(Arc<Memory>, u64), Errno> {
    let vm = machine::vm();
    let layout = Layout { stack_limit, ..Layout::linux() };
    let space = vm.new_space(&mut cpu.vm, layout).map_err(|_| Errno::ENOMEM)?;
    space.set_limits(limits);
    match fill(cpu, &space, program) {
        Ok((image, entry)) => Ok((Memory::new(faultless_linux::Memory::new(space), Arc::new(image)), entry)),
        Err(errno) => {
            space.exit(&mut cpu.vm);
            Err(errno)
        }
    }
}

fn fill(cpu: &mut CpuLocal, space: &Space<KernelMachine>, program: &Program) -> Result<(Image, u64), Errno> {
    let elf = &program.elf;
    let base = if elf.relocatable { PROGRAM_BASE - elf.segments[0].start() } else { 0 };
    map_segments(cpu, space, elf, &program.object, base)?;
    let end = elf.segments.iter().map(|s| base + s.end()).max().unwrap_or(base);
    space.set_brk(VirtAddr::new(end));
    let mut entry = base + elf.entry;
    let mut interpreter_base = 0;
    if let Some((interpreter, object)) = &program.interpreter {
        interpreter_base = place(cpu, space, interpreter)?;
        map_segments(cpu, space, interpreter, object, interpreter_base)?;
        entry = interpreter_base + interpreter.entry;
    }
    if entry >= user::USER_END {
        return Err(Errno::ENOEXEC);
    }
    let auxv = auxiliary(elf, base, interpreter_base);
    let (args, env) = (&program.args, &program.env);
    if !heap::affords(args.size() + env.size()) {
        return Err(Errno::ENOMEM);
    }
    let content = stack::Content { args, env, file: &program.name, random: random::bytes(), auxv: &auxv };
    let built = stack::build(STACK_TOP, &content).map_err(|_| Errno::ENOMEM)?;
    map_stack(cpu, space, built.pointer)?;
    space.write(&mut cpu.vm, VirtAddr::new(built.pointer), &built.bytes).map_err(|_| Errno::ENOMEM)?;
    let code = elf.segments.iter().find(|s| s.flags & 1 != 0).unwrap_or(&elf.segments[0]);
    let image = Image {
        path: program.path.clone(),
        args: built.args,
        env: built.env,
        code: (base + code.start(), base + code.end()),
        stack: built.pointer,
        auxv: built.auxv,
    };
    Ok((image, entry))
}

fn auxiliary(elf: &Elf, base: u64, interpreter_base: u64) -> [(u64, u64); 16] {
    let features = cpu::cpuid(1, 0)[3];
    let headers = if elf.headers_address == 0 { 0 } else { base + elf.headers_address };
    [
        (16, u64::from(features)),       // AT_HWCAP
        (6, PAGE),                       // AT_PAGESZ
        (17, 100),                       // AT_CLKTCK
        (3, headers),                    // AT_PHDR
        (4, elf::HEADER_SIZE),           // AT_PHENT
        (5, elf.headers_count),          // AT_PHNUM
        (7, interpreter_base),           // AT_BASE
        (8, 0),                          // AT_FLAGS
        (9, base + elf.entry),           // AT_ENTRY
        (11, 0),                         // AT_UID
        (12, 0),                         // AT_EUID
        (13, 0),                         // AT_GID
        (14, 0),                         // AT_EGID
        (23, 0),                         // AT_SECURE
        (26, 0),                         // AT_HWCAP2
        (51, context::SIGNAL_STACK_MIN), // AT_MINSIGSTKSZ
    ]
}

/// Finds room for a relocatable file. Returns what to add to its addresses.
fn place(cpu: &mut CpuLocal, space: &Space<KernelMachine>, elf: &Elf) -> Result<u64, Errno> {
    if !elf.relocatable {
        return Ok(0);
    }
    let first = elf.segments[0].start();
    let bytes = elf.segments.iter().map(Segment::end).max().unwrap_or(first) - first;
    // Reserve it all in one piece, then make room for the real mappings: nobody else maps here yet.
    let mut request = anonymous(0, bytes, Rights::NONE);
    request.placement = Placement::Anywhere;
    let at = space.map(&mut cpu.vm, request).map_err(|_| Errno::ENOMEM)?;
    let range = PageRange::with_len(at, bytes).map_err(|_| Errno::ENOEXEC)?;
    space.unmap(&mut cpu.vm, range).map_err(|_| Errno::ENOMEM)?;
    Ok(at.as_u64().wrapping_sub(first))
}

fn map_segments(
    cpu: &mut CpuLocal,
    space: &Space<KernelMachine>,
    elf: &Elf,
    object: &Arc<Object<KernelMachine>>,
    base: u64,
) -> Result<(), Errno> {
    for segment in &elf.segments {
        let address = segment.address.wrapping_add(base);
        map_segment(cpu, space, segment, object, address)?;
    }
    Ok(())
}

fn map_segment(
    cpu: &mut CpuLocal,
    space: &Space<KernelMachine>,
    segment: &Segment,
    object: &Arc<Object<KernelMachine>>,
    address: u64,
) -> Result<(), Errno> {
    let start = address & !(PAGE - 1);
    let rights = rights_of(segment.flags);
    let file_end = address + segment.file_bytes;
    let memory_end = (address + segment.memory_bytes).next_multiple_of(PAGE);
    let mapped_end = if segment.file_bytes == 0 { start } else { file_end.next_multiple_of(PAGE) };
    if mapped_end > start {
        let mut request = anonymous(start, mapped_end - start, rights);
        request.backing = Backing::Object { object: object.clone(), offset: segment.offset & !(PAGE - 1) };
        space.map(&mut cpu.vm, request).map_err(|_| Errno::ENOMEM)?;
    }
    if memory_end > mapped_end {
        let request = anonymous(mapped_end, memory_end - mapped_end, rights);
        space.map(&mut cpu.vm, request).map_err(|_| Errno::ENOMEM)?;
    }
    let tail = (mapped_end - file_end) as usize;
    if segment.memory_bytes > segment.file_bytes && mapped_end > start && tail > 0 && rights.contains(Rights::WRITE) {
        let zeros = [0; PAGE as usize];
        space.write(&mut cpu.vm, VirtAddr::new(file_end), &zeros[..tail]).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

fn map_stack(cpu: &mut CpuLocal, space: &Space<KernelMachine>, pointer: u64) -> Result<(), Errno> {
    // The limit bounds the reserve, too, but what has to be written has its place.
    let lowest = STACK_TOP.saturating_sub(space.layout().stack_limit);
    let start = (pointer - STACK_RESERVE).max(lowest).min(pointer) & !(PAGE - 1);
    let mut request = anonymous(start, STACK_TOP - start, Rights::READ | Rights::WRITE);
    request.flags = AreaFlags::GROWS_DOWN | AreaFlags::STACK;
    space.map(&mut cpu.vm, request).map_err(|_| Errno::ENOMEM)?;
    Ok(())
}

fn anonymous(address: u64, bytes: u64, rights: Rights) -> MapRequest<KernelMachine> {
    MapRequest {
        addr: VirtAddr::new(address),
        len: bytes,
        placement: Placement::Fixed,
        rights,
        max_rights: Rights::READ | Rights::WRITE | Rights::EXECUTE,
        sharing: Sharing::Private,
        backing: Backing::Anonymous,
        flags: AreaFlags::NONE,
    }
}

fn rights_of(flags: u32) -> Rights {
    let part = |bit: u32, right: Rights| if flags & bit != 0 { right } else { Rights::NONE };
    part(1, Rights::EXECUTE) | part(2, Rights::WRITE) | part(4, Rights::READ)
}

/// Creates the first process and queues its thread.
pub fn spawn_first(
    cpu: &mut CpuLocal,
    request: ExecRequest,
    files: Arc<FileTable>,
    fs_context: Arc<FsContext>,
) -> Result<Arc<Process>, Errno> {
    let program = find_program(cpu, &fs_context, request)?;
    let limits = limits::memory_limits(&default_limits(), true);
    let (memory, entry) = load(cpu, &program, DEFAULT_STACK_LIMIT, limits)?;
    let pid = table::new_id();
    let process = Arc::new(Process::first(pid, memory.clone()));
    *process.files.lock() = Some(files);
    *process.fs.lock() = Some(fs_context);
    process.has_executed.store(true, Ordering::Relaxed);
    let context = UserContext::new(entry, memory.image.stack);
    let thread = Thread::new(pid, process.clone(), context, SigSet::EMPTY);
    set_name(&thread, &program.name);
    process.threads.lock().push(thread.clone());
    table::insert(process.clone());
    table::insert_thread(&thread);
    sched::enqueue(thread);
    Ok(process)
}
