//! The host's kernel as an executor: real processes, each with one thread, made by each other's `fork`.
//!
//! Called by `judge`. The tester tells a process what to do through shared memory (`channel`), the process does it and
//! catches what it raises (`child`, `probe`), and the tester looks at /proc/PID from outside. What Linux does besides
//! and is accepted as a difference (fault-around, file pages that fork leaves out) the processes undo themselves, so
//! that everything else can be compared exactly.

mod channel;
mod child;
mod files;
mod probe;
mod procfs;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::arena;
use crate::scenario::{MOST_PROCESSES, Op, Scenario};
use crate::smaps::{self, Counts, Detail};
use crate::view::{Answer, Burst, Mapping, Outcome, Page, Rss, Source, Trap, View};
use channel::{Channel, WORDS};
use child::code;
use files::Files;
pub use files::disk;
use files::name as file_name;

/// Most bytes of a growing stack: all of the arena.
pub const STACK_LIMIT: u64 = arena::SIZE;
/// Most bytes that a process of a scenario may lock.
pub const LOCK_LIMIT: u64 = 64 * arena::PAGE;
/// Longest that a step may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The host's side of one scenario.
pub struct Host {
    processes: Vec<Option<Process>>,
    /// All that were ever made and not waited for.
    made: Vec<i32>,
    files: Files,
    /// Was any area ever to be left out or wiped in children? Seldom, and looking is slow.
    may_keep: bool,
    channel: Box<Channel>,
    /// Does the heap of the first process begin where scenarios want it? Unknown until it is asked.
    has_heap: Option<bool>,
}

struct Process {
    pid: i32,
    /// Readable once the process has ended.
    ended: OwnedFd,
    views: procfs::Views,
    /// Resident pages that are not the arena's.
    base: Rss,
    /// What status says of the rest.
    base_status: Counts,
}

impl Host {
    /// The first process of a scenario, and its files.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn new(scenario: &Scenario) -> io::Result<Self> {
        become_subreaper()?;
        let files = Files::new(scenario)?;
        let processes = (0..MOST_PROCESSES).map(|_| None).collect();
        let channel = Box::new(Channel::new()?);
        let mut host = Self { processes, made: Vec::new(), files, channel, may_keep: false, has_heap: None };
        let pid = host.fork_first()?;
        host.adopt(0, pid)?;
        Ok(host)
    }

    fn fork_first(&mut self) -> io::Result<i32> {
        let tester = std::process::id().cast_signed();
        let layout = procfs::MmMap::own()?;
        self.channel.slot(0).reset();
        // SAFETY: the child calls nothing but `live`, which neither allocates nor takes a lock.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => child::live(&self.channel, 0, tester, &layout),
            pid => Ok(pid),
        }
    }

    /// A process was born: waits until it is ready.
    fn adopt(&mut self, number: usize, pid: i32) -> io::Result<()> {
        self.made.push(pid);
        if !self.channel.slot(number).wait_done(LIMIT) {
            return Err(lost(number));
        }
        let mut views = procfs::Views::open(pid)?;
        let (base, areas) = base_of(&mut views)?;
        let (mut base_status, own) = (views.status()?, smaps::contribution(&areas));
        own.iter().for_each(|(name, kilobytes)| *base_status.entry(name).or_default() -= kilobytes);
        let process = Process { pid, ended: pidfd(pid)?, views, base, base_status };
        self.processes[number] = Some(process);
        Ok(())
    }

    fn process(&mut self, number: usize) -> io::Result<&mut Process> {
        self.processes[number].as_mut().ok_or_else(|| lost(number))
    }

    /// Executes a step of a living process.
    ///
    /// # Errors
    ///
    /// What the host said, or that the process is lost; never what a call answered.
    pub fn step(&mut self, number: usize, op: &Op) -> io::Result<Outcome> {
        match *op {
            Op::Fork { child } => self.fork(number, child),
            Op::Exit { code } => self.exit(number, code),
            Op::Wait { child } => self.wait(number, child),
            Op::Map { flags, len, .. } if flags & FIXED == 0 => self.map_anywhere(number, op, len),
            Op::Remap { new, .. } => self.map_anywhere(number, op, new),
            Op::Read { .. } | Op::Resident { .. } | Op::Peek { .. } => self.read(number, op),
            op => {
                self.may_keep |= keeps(&op);
                if let Op::Write { value, .. } | Op::Poke { value, .. } = op {
                    self.channel.slot(number).fill(value);
                }
                self.measured(number, &self.command(number, &op))
            }
        }
    }

    /// Can scenarios move the break? Asked of the living process that is to do it. Not every kernel lets a program say
    /// where its heap is.
    ///
    /// # Errors
    ///
    /// As [`Host::step`].
    pub fn has_heap(&mut self, number: usize) -> io::Result<bool> {
        if let Some(has_heap) = self.has_heap {
            return Ok(has_heap);
        }
        // No heap was moved yet, so the process's is where the first one's was put.
        let now = self.step(number, &Op::Brk { to: 0 })?.answer;
        let has_heap = now == Answer::Value(arena::HEAP);
        self.has_heap = Some(has_heap);
        Ok(has_heap)
    }

    /// Sends a command and waits for its end.
    fn send(&mut self, number: usize, command: &[u64; WORDS]) -> io::Result<[u64; WORDS]> {
        let slot = self.channel.slot(number);
        slot.send(command);
        if !slot.wait_done(LIMIT) {
            return Err(lost(number));
        }
        Ok(std::array::from_fn(|index| slot.answer[index].load(Relaxed)))
    }

    /// Executes steps of several threads of a living process at the same time.
    ///
    /// # Errors
    ///
    /// As [`Host::step`].
    ///
    /// # Panics
    ///
    /// If there are more than [`MOST_BURST`](crate::scenario::MOST_BURST) steps.
    pub fn burst(&mut self, number: usize, steps: &[(usize, Op)]) -> io::Result<Burst> {
        self.may_keep |= steps.iter().any(|(_, op)| keeps(op));
        let slot = self.channel.slot(number);
        assert!(steps.len() <= slot.tasks().len(), "too many steps at a time");
        for ((thread, op), task) in steps.iter().zip(slot.tasks()) {
            let mut command = self.command_with(number, op, slot.buffer_address(*thread));
            (command[child::FILL], command[child::SUM]) = match *op {
                Op::Write { value, .. } => (u64::from(value) + 1, 0),
                Op::Read { .. } => (0, 1),
                Op::Resident { len, .. } => (0, len.div_ceil(arena::PAGE) + 1),
                _ => (0, 0),
            };
            task.thread.store(*thread as u64, Relaxed);
            task.command.iter().zip(command).for_each(|(word, value)| word.store(value, Relaxed));
        }
        let mut words = [0; WORDS];
        (words[child::CODE], words[child::ARGUMENTS]) = (code::BURST, steps.len() as u64);
        let sums = self.send(number, &words)?;
        let tasks = steps.iter().zip(self.channel.slot(number).tasks());
        let answers = tasks.map(|((_, op), task)| {
            let words: [u64; WORDS] = std::array::from_fn(|index| task.answer[index].load(Relaxed));
            match (answer_of(task.command[child::CODE].load(Relaxed), &words), op) {
                (Answer::Value(_), Op::Read { .. } | Op::Resident { .. }) => {
                    Answer::Digest(words[child::DIGEST_LEN] as usize, words[child::DIGEST])
                }
                (answer, _) => answer,
            }
        });
        Ok(Burst { answers: answers.collect(), minor: sums[child::MINOR], major: sums[child::MAJOR] })
    }

    /// Takes pages of files out of a process's page tables: what fault-around did during a burst.
    ///
    /// # Errors
    ///
    /// As [`Host::step`].
    pub fn drop_pages(&mut self, number: usize, pages: &[usize]) -> io::Result<()> {
        let mut bits = vec![0_u64; arena::PAGES as usize / 64];
        pages.iter().for_each(|page| bits[page / 64] |= 1 << (page % 64));
        self.channel.slot(number).set_words(&bits);
        let mut words = [0; WORDS];
        words[child::CODE] = code::DROP;
        self.send(number, &words).map(drop)
    }

    fn measured(&mut self, number: usize, command: &[u64; WORDS]) -> io::Result<Outcome> {
        let answer = self.send(number, command)?;
        let (minor, major) = (answer[child::MINOR], answer[child::MAJOR]);
        Ok(Outcome { answer: answer_of(command[child::CODE], &answer), minor, major })
    }

    /// The command for an operation that is one system call or access.
    fn command(&self, number: usize, op: &Op) -> [u64; WORDS] {
        self.command_with(number, op, self.channel.slot(number).bytes_address())
    }

    /// The same with its bytes at this address.
    fn command_with(&self, number: usize, op: &Op, bytes: u64) -> [u64; WORDS] {
        let fd = |file: usize| self.files.descriptor(file);
        let call = |number: i64, arguments: &[u64]| {
            let mut words = vec![number.cast_unsigned()];
            words.extend(arguments);
            (code::CALL, words)
        };
        let (code, arguments) = match *op {
            Op::Load { at, width } => (code::LOAD, vec![at, width.into()]),
            Op::Store { at, width, value } => (code::STORE, vec![at, width.into(), value]),
            Op::Map { at, len, prot, flags, file, offset } => {
                call(libc::SYS_mmap, &[at, len, prot.into(), flags.into(), self.files.mapped(file), offset])
            }
            Op::Unmap { at, len } => call(libc::SYS_munmap, &[at, len]),
            Op::Protect { at, len, prot } => call(libc::SYS_mprotect, &[at, len, prot]),
            Op::Truncate { file, size } => call(libc::SYS_ftruncate, &[fd(file), size.cast_unsigned()]),
            Op::Read { file, offset, len } => {
                call(libc::SYS_pread64, &[fd(file), bytes, len as u64, offset.cast_unsigned()])
            }
            Op::Write { file, offset, len, .. } => {
                call(libc::SYS_pwrite64, &[fd(file), bytes, len as u64, offset.cast_unsigned()])
            }
            Op::Advise { at, len, advice } => call(libc::SYS_madvise, &[at, len, advice.into()]),
            Op::Sync { at, len, flags } => call(libc::SYS_msync, &[at, len, flags.into()]),
            Op::Lock { at, len, flags } => call(libc::SYS_mlock2, &[at, len, flags.into()]),
            Op::Unlock { at, len } => call(libc::SYS_munlock, &[at, len]),
            Op::LockAll { flags } => call(libc::SYS_mlockall, &[flags.into()]),
            Op::UnlockAll => call(libc::SYS_munlockall, &[]),
            Op::Resident { at, len } => call(libc::SYS_mincore, &[at, len, bytes]),
            Op::Remap { at, old, new, flags, to } => call(libc::SYS_mremap, &[at, old, new, flags.into(), to]),
            Op::Nonlinear { at, len, page } => call(libc::SYS_remap_file_pages, &[at, len, 0, page, 0]),
            Op::Allocate { file, mode, offset, len } => {
                let (offset, len) = (offset.cast_unsigned(), len.cast_unsigned());
                call(libc::SYS_fallocate, &[fd(file), mode.into(), offset, len])
            }
            Op::Brk { to } => call(libc::SYS_brk, &[to]),
            Op::Seal { at, len, flags } => call(SYS_MSEAL, &[at, len, flags]),
            Op::Peek { other, at, len } => self.remote(libc::SYS_process_vm_readv, number, (other, at, len)),
            Op::Poke { other, at, len, .. } => self.remote(libc::SYS_process_vm_writev, number, (other, at, len)),
            Op::Fork { child } => (code::FORK, vec![child as u64]),
            Op::Exit { code } => (code::EXIT, vec![code.into()]),
            Op::Wait { child } => {
                let pid = self.processes[child].as_ref().map_or(-1, |process| i64::from(process.pid));
                call(libc::SYS_wait4, &[pid.cast_unsigned(), bytes, libc::WNOHANG as u64, 0])
            }
        };
        let mut words = [0; WORDS];
        words[child::CODE] = code;
        words[child::ARGUMENTS..][..arguments.len()].copy_from_slice(&arguments);
        (words[child::MAY_START], words[child::MAY_END]) = may_come_in(op);
        words
    }

    /// A transfer between the process's bytes and the memory of another. What the call reads of it lies in the slot.
    fn remote(&self, call: i64, number: usize, (other, at, len): (usize, u64, usize)) -> (u64, Vec<u64>) {
        let pid = self.processes[other].as_ref().map_or(-1, |process| i64::from(process.pid)).cast_unsigned();
        let slot = self.channel.slot(number);
        let vectors = slot.set_vectors([slot.bytes_address(), len as u64, at, len as u64]);
        (code::CALL, vec![call.cast_unsigned(), pid, vectors, 1, vectors + 16, 1, 0])
    }

    /// A call that leaves bytes in the slot.
    fn read(&mut self, number: usize, op: &Op) -> io::Result<Outcome> {
        let mut outcome = self.measured(number, &self.command(number, op))?;
        if let Answer::Value(count) = outcome.answer {
            let count = match *op {
                Op::Resident { len, .. } => len.div_ceil(arena::PAGE) as usize,
                _ => count as usize,
            };
            outcome.answer = Answer::Bytes(self.channel.slot(number).bytes(count));
        }
        Ok(outcome)
    }

    /// `mmap` or `mremap` that may go anywhere: outside of the arena it does not stay.
    fn map_anywhere(&mut self, number: usize, op: &Op, len: u64) -> io::Result<Outcome> {
        let mut outcome = self.measured(number, &self.command(number, op))?;
        if let Answer::Value(at) = outcome.answer
            && !arena::holds(at, len)
        {
            let unmap = self.command(number, &Op::Unmap { at, len });
            self.measured(number, &unmap)?;
            outcome.answer = Answer::Elsewhere;
        }
        Ok(outcome)
    }

    fn fork(&mut self, number: usize, child: usize) -> io::Result<Outcome> {
        let kept = if self.may_keep { self.kept_from_children(number)? } else { Vec::new() };
        self.channel.slot(child).reset();
        self.channel.slot(number).set_ranges(&kept);
        let answer = self.send(number, &self.command(number, &Op::Fork { child }))?;
        let pid = answer[child::RESULT].cast_signed();
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        self.adopt(child, pid as i32)?;
        Ok(nothing())
    }

    /// The areas that a child does not get or gets without their contents (MADV_DONTFORK, MADV_WIPEONFORK).
    fn kept_from_children(&mut self, number: usize) -> io::Result<Vec<(u64, u64)>> {
        let mut areas = self.process(number)?.views.smaps()?;
        areas.retain(|area| area.flags.contains("wf") || area.flags.contains("dc"));
        Ok(areas.iter().map(|area| (area.start, area.end)).collect())
    }

    fn exit(&mut self, number: usize, code: u8) -> io::Result<Outcome> {
        let command = self.command(number, &Op::Exit { code });
        self.channel.slot(number).send(&command);
        let mut poll = libc::pollfd { fd: self.process(number)?.ended.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = LIMIT.as_millis() as i32;
        // SAFETY: one valid entry.
        if unsafe { libc::poll(&raw mut poll, 1, limit) } != 1 {
            return Err(lost(number));
        }
        Ok(nothing())
    }

    /// The status that the parent gets; the child has ended.
    fn wait(&mut self, number: usize, child: usize) -> io::Result<Outcome> {
        let mut outcome = self.measured(number, &self.command(number, &Op::Wait { child }))?;
        if let Answer::Value(pid) = outcome.answer {
            self.made.retain(|made| *made as u64 != pid);
            let status = self.channel.slot(number).bytes(4);
            let status = i32::from_ne_bytes([status[0], status[1], status[2], status[3]]);
            outcome.answer = Answer::Value(if pid == 0 { 0 } else { (status >> 8 & 0xff) as u64 + 1 });
        }
        Ok(Outcome { answer: outcome.answer, ..nothing() })
    }

    /// What the process's memory looks like.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn view(&mut self, number: usize) -> io::Result<View> {
        let process = self.process(number)?;
        let (rss, base) = (process.views.rss()?, process.base);
        let (mut mappings, pages) = (process.views.mappings()?, process.views.pages()?);
        for mapping in &mut mappings {
            if let Source::Shared(name) = mapping.source {
                mapping.source = self.files.named(name).map_or(mapping.source, Source::File);
            }
        }
        let file = self.resident_on_disk(&mappings, &pages);
        let rss = Rss { anon: rss.anon - base.anon, file, shmem: rss.shmem - base.shmem };
        Ok(View { mappings, seams: Vec::new(), pages, rss })
    }

    /// How many pages of files on a disk are mapped: `RssFile` but for the tester's own program.
    fn resident_on_disk(&self, mappings: &[Mapping], pages: &[Page]) -> i64 {
        let on_disk = |mapping: &&Mapping| matches!(mapping.source, Source::File(file) if self.files.is_on_disk(file));
        let pages_of = |mapping: &Mapping| {
            let range = (mapping.start..mapping.end).step_by(arena::PAGE as usize);
            range.filter_map(arena::page_of).filter(|page| pages[*page] == Page::OfFile).count() as i64
        };
        mappings.iter().filter(on_disk).map(pages_of).sum()
    }

    /// What smaps and status say of the process's memory, and what of status is not about the arena.
    ///
    /// # Errors
    ///
    /// As [`Host::view`].
    pub fn details(&mut self, number: usize) -> io::Result<(Vec<Detail>, Counts, Counts)> {
        let process = self.process(number)?;
        Ok((process.views.smaps()?, process.views.status()?, process.base_status.clone()))
    }

    /// A digest per page of the arena, 0 where it is not `mapped` or cannot be read. Makes all that can be read resident.
    ///
    /// # Errors
    ///
    /// As [`Host::view`].
    pub fn digests(&mut self, number: usize, mapped: &[bool]) -> io::Result<Vec<u64>> {
        const PART: usize = 1024;
        let mut digests = Vec::new();
        // Ends: each round passes a run of pages.
        while digests.len() < mapped.len() {
            let first = digests.len();
            let run = mapped[first..].iter().take(PART).take_while(|is| **is == mapped[first]).count();
            if !mapped[first] {
                digests.extend(std::iter::repeat_n(0, run));
                continue;
            }
            let mut words = [0; WORDS];
            words[child::CODE] = code::DIGEST;
            (words[child::ARGUMENTS], words[child::ARGUMENTS + 1]) = (arena::address_of(first), run as u64);
            self.send(number, &words)?;
            let bytes = self.channel.slot(number).bytes(run * 8);
            digests.extend(bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())));
        }
        Ok(digests)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in &self.made {
            // SAFETY: a process that we made and nobody has waited for: the number is still its own.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        // Parents first: their children become ours when they have ended.
        for pid in self.made.drain(..) {
            reap(pid);
        }
    }
}

/// The lowest address that an ordinary process may map.
#[must_use]
pub fn lowest_address() -> u64 {
    static LOWEST: OnceLock<u64> = OnceLock::new();
    *LOWEST.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").unwrap_or_default();
        text.trim().parse::<u64>().map_or(0x1_0000, |lowest| lowest.next_multiple_of(arena::PAGE).max(arena::PAGE))
    })
}

/// One step of a digest.
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// The digest of a page, as `digests` has it.
#[must_use]
pub fn page_digest(page: &[u8]) -> u64 {
    let words = page.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
    words.fold(1, mix)
}

/// Does it make areas that a child does not get, or gets without their contents?
fn keeps(op: &Op) -> bool {
    use linux_raw_sys::general::{MADV_DONTFORK, MADV_WIPEONFORK};
    matches!(op, Op::Advise { advice: MADV_WIPEONFORK | MADV_DONTFORK, .. })
}

/// What the words of an answer say.
fn answer_of(code: u64, words: &[u64; WORDS]) -> Answer {
    let (signal, result) = (words[child::SIGNAL] as i32, words[child::RESULT]);
    match signal {
        0 if code == code::CALL && result.cast_signed() < 0 => Answer::Errno(-result.cast_signed() as i32),
        0 => Answer::Value(result),
        signal => Answer::Trap(Trap { signal, code: words[child::SIGNAL_CODE] as i32, address: words[child::ADDRESS] }),
    }
}

/// What the process has resident outside of the arena, and its areas inside.
fn base_of(views: &mut procfs::Views) -> io::Result<(Rss, Vec<Detail>)> {
    let (rss, areas) = (views.rss()?, views.smaps()?);
    let pages =
        |name, areas: &[Detail]| areas.iter().map(|area| area.counts.get(name).copied().unwrap_or(0)).sum::<i64>() / 4;
    let (anon, in_memory) = (pages("Anonymous", &areas), |area: &&Detail| !area.is_on_disk);
    let others: Vec<Detail> = areas.iter().filter(in_memory).cloned().collect();
    let shmem = pages("Rss", &others) - pages("Anonymous", &others);
    Ok((Rss { anon: rss.anon - anon, file: 0, shmem: rss.shmem - shmem }, areas))
}

/// `mseal`, since Linux 6.10.
const SYS_MSEAL: i64 = linux_raw_sys::general::__NR_mseal as i64;
/// Flags that fix the address of a mapping.
pub(crate) const FIXED: u32 = linux_raw_sys::general::MAP_FIXED | linux_raw_sys::general::MAP_FIXED_NOREPLACE;

/// Where an operation may make pages of files resident; what Linux adds around is fault-around.
fn may_come_in(op: &Op) -> (u64, u64) {
    let up = |at: u64, len: u64| at.saturating_add(len).checked_next_multiple_of(arena::PAGE).unwrap_or(u64::MAX);
    let down = |at: u64| at & !(arena::PAGE - 1);
    match *op {
        Op::Load { at, width } | Op::Store { at, width, .. } => (down(at), up(at, width.into())),
        Op::Peek { at, len, .. } | Op::Poke { at, len, .. } => (down(at), up(at, len as u64)),
        Op::Map { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Lock { at, len, .. }
        | Op::Protect { at, len, .. } => (down(at), up(at, len)),
        // Linux rounds the length down.
        Op::Nonlinear { at, len, .. } => (down(at), down(at).saturating_add(down(len))),
        Op::LockAll { .. } | Op::Brk { .. } => (arena::START, arena::END),
        // For `mremap` the process itself knows better.
        _ => (0, 0),
    }
}

fn nothing() -> Outcome {
    Outcome { answer: Answer::Value(0), minor: 0, major: 0 }
}

fn lost(number: usize) -> io::Error {
    io::Error::other(format!("process p{number} of the host is lost"))
}

/// Children of children that have ended become ours, so that they can be waited for.
fn become_subreaper() -> io::Result<()> {
    // SAFETY: changes nothing but who inherits orphans.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor, nothing else.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32)?;
    // SAFETY: nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for a process that was killed, once it is our child.
fn reap(pid: i32) {
    for _ in 0..2000 {
        // SAFETY: asks for no status.
        if unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } == pid {
            return;
        }
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            return;
        }
        // Its parent has not quite ended.
        std::thread::sleep(Duration::from_micros(200));
    }
}
