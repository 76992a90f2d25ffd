//! faultless as an executor: a hosted machine, reached through `faultless-linux` as a kernel would.
//!
//! Called by `judge`. Processes move from CPU to CPU as the scenario goes on, so that a flush that misses one shows.
//! Absent on purpose: anything that knows better than the core. What the core cannot do yet is not in [`CALLS`], and is
//! not generated.

mod actor;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::accepted::follows;
use faultless::machine::Format;
use faultless::machine::format::{Leaf, Upper};
use faultless::{
    AreaFlags, AreaInfo, CpuId, FrameId, Layout, Limits, Machine, Object, PAGE_SIZE, PageKind, PageRange, PageWriter,
    Pager, PagerError, Rights, Sharing, VirtAddr, Vm,
};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Hostile, HostileConfig, Mmu};
use faultless_linux::text::{PageSums, Sizes, Text};
use faultless_linux::{Errno, Memory};
use linux_raw_sys::general as linux;

use crate::arena;
use crate::generate::Calls;
use crate::scenario::{MOST_PROCESSES, MOST_THREADS, Op, Scenario, initial_byte};
use crate::smaps::{self, Counts, Detail};
use crate::view::{Answer, Burst, Mapping, Outcome, Page, Rss, Source, View};
use actor::{Actor, refused};

/// The calls beyond the usual ones that the core has.
pub const CALLS: Calls = Calls {
    madvise: &[
        linux::MADV_NORMAL,
        linux::MADV_RANDOM,
        linux::MADV_SEQUENTIAL,
        linux::MADV_WILLNEED,
        linux::MADV_DONTNEED,
        linux::MADV_DONTNEED,
        linux::MADV_DONTNEED_LOCKED,
        linux::MADV_FREE,
        linux::MADV_REMOVE,
        linux::MADV_REMOVE,
        linux::MADV_DONTFORK,
        linux::MADV_DOFORK,
        linux::MADV_WIPEONFORK,
        linux::MADV_KEEPONFORK,
        linux::MADV_DONTDUMP,
        linux::MADV_DODUMP,
        linux::MADV_COLD,
        linux::MADV_HUGEPAGE,
        linux::MADV_NOHUGEPAGE,
        linux::MADV_POPULATE_READ,
        linux::MADV_POPULATE_WRITE,
    ],
    map_flags: &[linux::MAP_GROWSDOWN, linux::MAP_LOCKED],
    ..Calls::ALL
};

const FRAMES: u64 = 16_384;
/// As many as threads may work at a time.
const CPUS: usize = MOST_THREADS;
/// Steps after which a process goes on with another CPU.
const STAY: usize = 5;

/// Our side of one scenario.
pub struct Ours<M: Mmu> {
    cpus: Vec<HostedCpu<M>>,
    processes: Vec<Option<Memory<M>>>,
    /// Statuses of those that have ended, until they are waited for.
    statuses: Vec<Option<u8>>,
    files: Vec<Arc<Object<M>>>,
    vm: Vm<M>,
    steps: usize,
}

impl Ours<Fast> {
    /// On the fast machine.
    ///
    /// # Errors
    ///
    /// What the host says if it has no memory for it.
    pub fn fast(scenario: &Scenario) -> Result<Self, String> {
        let machine = Fast::new(FastConfig::new(FRAMES, CPUS)).map_err(|error| error.to_string())?;
        Self::new(machine, scenario)
    }
}

impl Ours<Hostile> {
    /// On the hostile machine; `seed` decides what it does.
    ///
    /// # Errors
    ///
    /// As [`Ours::fast`].
    pub fn hostile(scenario: &Scenario, seed: u64) -> Result<Self, String> {
        let machine = Hostile::new(HostileConfig::new(FRAMES, CPUS, seed)).map_err(|error| error.to_string())?;
        Self::new(machine, scenario)
    }
}

impl<M: Mmu> Ours<M> {
    fn new(machine: M, scenario: &Scenario) -> Result<Self, String> {
        let vm = Vm::new(machine).map_err(|error| format!("{error:?}"))?;
        let cpus: Result<Vec<_>, _> = (0..CPUS).map(|id| HostedCpu::new(&vm, CpuId::new(id as u32))).collect();
        let mut cpus = cpus.map_err(|error| format!("{error:?}"))?;
        let files = scenario.files.iter().zip(scenario.on_disk);
        let files: Result<Vec<_>, _> = files
            .map(|(size, on_disk)| match on_disk && crate::host::disk().is_some() {
                true => vm.new_file(*size, Arc::new(FirstContents), actor::ON_DISK),
                false => vm.new_memory(*size, "memfd"),
            })
            .collect();
        let files = files.map_err(|error| format!("{error:?}"))?;
        let layout = Layout {
            lowest: VirtAddr::new(crate::host::lowest_address()),
            stack_limit: crate::host::STACK_LIMIT,
            ..Layout::linux()
        };
        let space = vm.new_space(cpus[0].token(), layout).map_err(|error| format!("{error:?}"))?;
        space.set_brk(VirtAddr::new(arena::HEAP));
        space.set_limits(Limits { locked: crate::host::LOCK_LIMIT / PAGE_SIZE, ..Limits::NONE });
        let mut processes: Vec<_> = (0..MOST_PROCESSES).map(|_| None).collect();
        processes[0] = Some(Memory::new(space));
        Ok(Self { cpus, processes, statuses: vec![None; MOST_PROCESSES], files, vm, steps: 0 })
    }

    /// Executes a step of a living process.
    ///
    /// # Panics
    ///
    /// If the process does not live.
    pub fn step(&mut self, number: usize, op: &Op) -> Outcome {
        self.steps += 1;
        // Linux counts faults for who makes the call, the core for whose memory it is.
        let whose = match *op {
            Op::Peek { other, .. } | Op::Poke { other, .. } => other,
            _ => number,
        };
        let before = self.memory(whose).space.usage();
        let answer = self.answer(number, op);
        let Some(memory) = &self.processes[whose] else {
            return Outcome { answer, minor: 0, major: 0 };
        };
        let after = memory.space.usage();
        Outcome { answer, minor: after.minor - before.minor, major: after.major - before.major }
    }

    fn memory(&self, number: usize) -> &Memory<M> {
        self.processes[number].as_ref().unwrap_or_else(|| panic!("p{number} does not live"))
    }

    /// Who executes for a process now.
    fn actor(&mut self, number: usize) -> Actor<'_, M> {
        let cpu = &mut self.cpus[(number + self.steps / STAY) % CPUS];
        let memory = self.processes[number].as_ref().unwrap_or_else(|| panic!("p{number} does not live"));
        cpu.run(&memory.space);
        Actor { cpu, memory, files: &self.files }
    }

    fn answer(&mut self, number: usize, op: &Op) -> Answer {
        match *op {
            Op::Fork { child } => self.fork(number, child),
            Op::Exit { code } => self.exit(number, code),
            Op::Wait { child } => self.wait(child),
            Op::Peek { other, .. } | Op::Poke { other, .. } => {
                let (cpu, memory) = self.hands_and_memory(number, other);
                actor::transfer(cpu, memory, op)
            }
            op => self.actor(number).answer(&op),
        }
    }

    /// The CPU of a process, and another's memory.
    fn hands_and_memory(&mut self, number: usize, other: usize) -> (&mut HostedCpu<M>, &Memory<M>) {
        self.actor(number);
        let cpu = &mut self.cpus[(number + self.steps / STAY) % CPUS];
        let memory = self.processes[other].as_ref().unwrap_or_else(|| panic!("p{other} does not live"));
        (cpu, memory)
    }

    /// Executes steps of several threads of a process at the same time, each thread's on a CPU of its own.
    ///
    /// # Panics
    ///
    /// If the process does not live.
    pub fn burst(&mut self, number: usize, steps: &[(usize, Op)]) -> Burst {
        self.steps += 1;
        let memory = self.processes[number].as_ref().unwrap_or_else(|| panic!("p{number} does not live"));
        let (files, before) = (&self.files, memory.space.usage());
        let waiting = AtomicUsize::new(threads_of(steps));
        let mut answers: Vec<(usize, Answer)> = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (thread, cpu) in (1..=MOST_THREADS).zip(&mut self.cpus) {
                let own: Vec<_> = (0..steps.len()).filter(|index| steps[*index].0 == thread).collect();
                if !own.is_empty() {
                    let waiting = &waiting;
                    threads.push(scope.spawn(move || {
                        cpu.run(&memory.space);
                        meet(waiting);
                        let mut actor = Actor { cpu, memory, files };
                        own.iter().map(|index| (*index, actor.answer(&steps[*index].1))).collect::<Vec<_>>()
                    }));
                }
            }
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        answers.sort_by_key(|(index, _)| *index);
        let after = memory.space.usage();
        let answers = answers.into_iter().map(|(_, answer)| answer.in_burst()).collect();
        Burst { answers, minor: after.minor - before.minor, major: after.major - before.major }
    }

    fn fork(&mut self, number: usize, child: usize) -> Answer {
        let Actor { cpu, memory, .. } = self.actor(number);
        match memory.fork(cpu.token()) {
            Ok(memory) => {
                self.processes[child] = Some(memory);
                Answer::Value(0)
            }
            Err(errno) => refused(errno),
        }
    }

    fn exit(&mut self, number: usize, code: u8) -> Answer {
        if let Some(memory) = self.processes[number].take() {
            for cpu in &mut self.cpus {
                if cpu.space().is_some_and(|running| Arc::ptr_eq(running, &memory.space)) {
                    cpu.stop();
                }
            }
            memory.space.exit(self.cpus[number % CPUS].token());
            self.statuses[number] = Some(code);
        }
        Answer::Value(0)
    }

    fn wait(&mut self, child: usize) -> Answer {
        match (self.statuses[child].take(), &self.processes[child]) {
            (Some(code), _) => Answer::Value(u64::from(code) + 1),
            (None, Some(_)) => Answer::Value(0),
            (None, None) => refused(Errno::ECHILD),
        }
    }

    /// Who sees stores at this address; `None` if nothing is mapped there.
    pub fn sharing_at(&mut self, number: usize, at: u64) -> Option<Sharing> {
        let Actor { cpu, memory, .. } = self.actor(number);
        memory.space.area_at(cpu.token(), VirtAddr::new(at)).map(|area| area.sharing)
    }

    /// How many pages of files on a disk do mappings of the range show, and of which kinds are the mappings?
    pub fn shows_disk(&mut self, number: usize, at: u64, len: u64, wanted: impl Fn(Sharing) -> bool) -> u64 {
        let end = at.saturating_add(len);
        let mut pages = 0;
        let Actor { cpu, memory, .. } = self.actor(number);
        memory.space.areas(cpu.token(), |area| {
            let (from, to) = (area.range.start().as_u64().max(at), area.range.end().as_u64().min(end));
            let on_disk = area.object.is_some_and(|(object, _)| object.label() == actor::ON_DISK);
            if on_disk && wanted(area.sharing) && from < to {
                pages += (to - 1) / PAGE_SIZE - from / PAGE_SIZE + 1;
            }
        });
        pages
    }

    /// Would a store at the address, through a shared mapping, go behind the end of a file on a disk?
    pub fn is_past_end_on_disk(&mut self, number: usize, at: u64) -> bool {
        let Actor { cpu, memory, .. } = self.actor(number);
        let address = VirtAddr::new(at);
        let Some(area) = memory.space.area_at(cpu.token(), address) else { return false };
        let Some((object, _)) = area.object.filter(|(object, _)| object.label() == actor::ON_DISK) else {
            return false;
        };
        let index = memory.space.page_index_at(cpu.token(), address).unwrap_or(0);
        area.sharing == Sharing::Shared && index * PAGE_SIZE + at % PAGE_SIZE >= object.size()
    }

    /// Is the file on a disk?
    #[must_use]
    pub fn is_on_disk(&self, file: usize) -> bool {
        self.files[file].label() == actor::ON_DISK
    }

    /// Pages that the process has mapped.
    #[must_use]
    pub fn mapped_pages(&self, number: usize) -> u64 {
        self.memory(number).space.extent().pages
    }

    /// May it depend on the order of steps whether they lock too much?
    pub fn may_lock(&mut self, number: usize) -> bool {
        let space = &self.memory(number).space;
        space.default_flags().contains(AreaFlags::LOCKED) || space.extent().locked != 0
    }

    /// Has the process an area that grows when the memory below it is touched?
    pub fn grows(&mut self, number: usize) -> bool {
        let Actor { cpu, memory, .. } = self.actor(number);
        let mut grows = false;
        memory.space.areas(cpu.token(), |area| grows |= area.flags.contains(AreaFlags::GROWS_DOWN));
        grows
    }

    /// What the process's memory looks like.
    ///
    /// # Panics
    ///
    /// If the process does not live.
    pub fn view(&mut self, number: usize) -> View {
        let files: Vec<u64> = self.files.iter().map(|file| file.id()).collect();
        let (mut mappings, mut flags, mut seams) = (Vec::new(), Vec::new(), Vec::new());
        let Actor { cpu, memory, .. } = self.actor(number);
        memory.space.areas(cpu.token(), |area| {
            let may = |right, bit| if area.rights.contains(right) { bit } else { 0 };
            let source = area.object.as_ref().map_or(Source::Anonymous, |(object, _)| {
                files.iter().position(|id| *id == object.id()).map_or(Source::Shared(object.id()), Source::File)
            });
            let mapping = Mapping {
                start: area.range.start().as_u64(),
                end: area.range.end().as_u64(),
                prot: may(Rights::READ, 1) | may(Rights::WRITE, 2) | may(Rights::EXECUTE, 4),
                shared: area.sharing == Sharing::Shared,
                source,
                offset: area.object.as_ref().map_or(0, |(_, offset)| *offset),
            };
            flags.push(area.flags);
            mappings.push(mapping);
        });
        if flags.iter().any(|flags| flags.contains(AreaFlags::NONLINEAR)) {
            (mappings, seams) = self.in_linear_parts(number, mappings, &flags);
        }
        let usage = self.memory(number).space.usage();
        let rss =
            Rss { anon: usage.anon.cast_signed(), file: usage.file.cast_signed(), shmem: usage.shmem.cast_signed() };
        View { mappings, seams, pages: self.pages(number), rss }
    }

    /// What smaps and status say of the process's memory. Nonlinear areas and those of
    /// the same object beside them are left out: the host has others there.
    pub fn details(&mut self, number: usize) -> (Vec<Detail>, Counts) {
        let Actor { cpu, memory, .. } = self.actor(number);
        let mut areas = Vec::new();
        memory.space.areas(cpu.token(), |area| areas.push(area));
        let id = |area: &AreaInfo<M>| area.object.as_ref().map(|(object, _)| object.id());
        let nonlinear: Vec<_> = areas.iter().filter(|area| area.flags.contains(AreaFlags::NONLINEAR)).collect();
        let nonlinear: Vec<_> = nonlinear.into_iter().map(|area| (area.range, id(area))).collect();
        areas.retain(|area| {
            let meets = |range: PageRange| range.end() == area.range.start() || area.range.end() == range.start();
            let beside =
                |(range, other): &(PageRange, _)| *other == id(area) && (meets(*range) || *range == area.range);
            !nonlinear.iter().any(beside)
        });
        let mut text = Text::default();
        for area in &areas {
            let (start, end) = (area.range.start().as_u64(), area.range.end().as_u64());
            let inode = u8::from(area.object.is_some());
            text.0.extend_from_slice(format!("{start:x}-{end:x} ---- 0 0:0 {inode}\n").as_bytes());
            PageSums::of(&memory.space, cpu.token(), area).write_area(area, &mut text);
        }
        let mut status = Text::default();
        Sizes::of(memory, cpu.token()).write_status(&mut status);
        let words = |text: &Text| String::from_utf8_lossy(&text.0).into_owned();
        (smaps::areas(&words(&text)), smaps::status(&words(&status)))
    }

    /// The mappings, whose flags are given, with each nonlinear one as what Linux makes of it: one per run of pages
    /// (`nonlinear-area`). A run that goes on in the next area may be cut there on Linux as well.
    fn in_linear_parts(
        &mut self,
        number: usize,
        mappings: Vec<Mapping>,
        flags: &[AreaFlags],
    ) -> (Vec<Mapping>, Vec<u64>) {
        let (mut parts, mut seams): (Vec<Mapping>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut last_flags = AreaFlags::NONE;
        let Actor { cpu, memory, .. } = self.actor(number);
        for (mapping, flags) in mappings.into_iter().zip(flags) {
            let nonlinear = flags.contains(AreaFlags::NONLINEAR);
            let step = if nonlinear { PAGE_SIZE } else { mapping.end - mapping.start };
            let flags = flags.without(AreaFlags::NONLINEAR | AreaFlags::SOFT_DIRTY);
            let mut same_flags = std::mem::replace(&mut last_flags, flags) == flags;
            for start in (mapping.start..mapping.end).step_by(step as usize) {
                let index = nonlinear.then(|| memory.space.page_index_at(cpu.token(), VirtAddr::new(start))).flatten();
                let offset = index.map_or(mapping.offset, |index| index * PAGE_SIZE);
                let part = Mapping { start, end: start + step, offset, ..mapping };
                match parts.last_mut() {
                    Some(last) if part.shared && same_flags && follows(last, &part) => {
                        last.end = part.end;
                        seams.extend((start == mapping.start).then_some(start));
                    }
                    _ => parts.push(part),
                }
                same_flags = true;
            }
        }
        (parts, seams)
    }

    /// Does an operation on the range meet a nonlinear mapping?
    pub fn has_nonlinear(&mut self, number: usize, at: u64, len: u64) -> bool {
        self.has_flags(number, at, len, |flags| flags.contains(AreaFlags::NONLINEAR))
    }

    /// Does an operation on the range meet a mapping with flags that the predicate wants?
    pub fn has_flags(&mut self, number: usize, at: u64, len: u64, wanted: impl Fn(AreaFlags) -> bool) -> bool {
        let end = at.saturating_add(len);
        let mut found = false;
        let Actor { cpu, memory, .. } = self.actor(number);
        memory.space.areas(cpu.token(), |area| {
            let meets = area.range.start().as_u64() < end && at < area.range.end().as_u64();
            found |= meets && wanted(area.flags);
        });
        found
    }

    /// The pages of the arena, out of the page tables; of what kind they are, as the core says.
    fn pages(&mut self, number: usize) -> Vec<Page> {
        let mut pages = self.present_pages(number);
        let Actor { cpu, memory, .. } = self.actor(number);
        let Ok(range) = PageRange::new(VirtAddr::new(arena::START), VirtAddr::new(arena::END)) else { return pages };
        memory.space.pages(cpu.token(), range, |page| {
            let of_file = matches!(page.kind, PageKind::File | PageKind::Shmem);
            if let Some(page) = arena::page_of(page.addr.as_u64()).filter(|_| of_file) {
                pages[page] = Page::OfFile;
            }
        });
        pages
    }

    fn present_pages(&self, number: usize) -> Vec<Page> {
        let mut pages = vec![Page::Absent; arena::PAGES as usize];
        let root = self.memory(number).space.root();
        let leaf_bytes = PAGE_SIZE << M::Format::INDEX_BITS;
        let machine = self.vm.machine();
        for start in (arena::START..arena::END).step_by(leaf_bytes as usize) {
            let Some(leaf) = leaf_table(machine, root, start) else { continue };
            for (index, entry) in machine.table(leaf).iter().enumerate() {
                // Relaxed: nobody works meanwhile.
                let entry = M::Format::leaf(entry.load(Ordering::Relaxed));
                if let (Leaf::Page(..) | Leaf::None(..), Some(page)) =
                    (entry, arena::page_of(start + index as u64 * PAGE_SIZE))
                {
                    pages[page] = Page::Present;
                }
            }
        }
        pages
    }

    /// A digest per page of the arena, 0 where it is not `mapped` or cannot be read.
    pub fn digests(&mut self, number: usize, mapped: &[bool]) -> Vec<u64> {
        let cpu = self.actor(number).cpu;
        let mut page = [0; PAGE_SIZE as usize];
        let mut digest = |index: usize| match cpu.read(VirtAddr::new(arena::address_of(index)), &mut page) {
            Ok(()) => crate::host::page_digest(&page),
            Err(_) => 0,
        };
        (0..).zip(mapped).map(|(index, mapped)| if *mapped { digest(index) } else { 0 }).collect()
    }

    /// All processes end, and nothing may be left.
    ///
    /// # Errors
    ///
    /// What the recount found.
    pub fn finish(mut self) -> Result<(), String> {
        self.audit()?;
        (0..MOST_PROCESSES).for_each(|number| drop(self.exit(number, 0)));
        self.files.clear();
        for cpu in &mut self.cpus {
            cpu.token().collect();
        }
        self.vm.audit(self.cpus[0].token(), &[], &[]).map_err(|error| format!("after the end: {error}"))
    }

    /// Every counter against a recount.
    fn audit(&mut self) -> Result<(), String> {
        let mut objects: Vec<Arc<Object<M>>> = self.files.clone();
        let spaces: Vec<_> = self.processes.iter().flatten().map(|memory| Arc::clone(&memory.space)).collect();
        for space in &spaces {
            space.areas(self.cpus[0].token(), |area| {
                if let Some((object, _)) = area.object
                    && objects.iter().all(|known| known.id() != object.id())
                {
                    objects.push(object);
                }
            });
        }
        for cpu in &mut self.cpus {
            cpu.token().collect();
        }
        let spaces: Vec<_> = spaces.iter().map(|space| &**space).collect();
        let objects: Vec<_> = objects.iter().collect();
        self.vm.audit(self.cpus[0].token(), &spaces, &objects).map_err(|error| error.to_string())
    }
}

/// What files on a disk hold at the start.
struct FirstContents;

impl Pager for FirstContents {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        let bytes: Vec<u8> = (0..PAGE_SIZE).map(|offset| initial_byte(index * PAGE_SIZE + offset)).collect();
        page.write(0, &bytes);
        Ok(())
    }
}

/// How many threads have steps.
fn threads_of(steps: &[(usize, Op)]) -> usize {
    (1..=MOST_THREADS).filter(|thread| steps.iter().any(|(of, _)| of == thread)).count()
}

/// Waits until all threads are here. Spins: who sleeps is woken too late to meet the others.
fn meet(waiting: &AtomicUsize) {
    waiting.fetch_sub(1, Ordering::Relaxed);
    // Ends: all threads were made.
    while waiting.load(Ordering::Relaxed) != 0 {
        thread::yield_now();
    }
}

/// The leaf table for `address`, if there is one.
fn leaf_table<M: Machine>(machine: &M, root: FrameId, address: u64) -> Option<FrameId> {
    let mut table = root;
    for level in (1..M::Format::LEVELS).rev() {
        let shift = faultless::PAGE_SHIFT + M::Format::INDEX_BITS * level as u32;
        let index = (address >> shift) as usize & ((1 << M::Format::INDEX_BITS) - 1);
        // Relaxed: nobody works meanwhile.
        let entry = machine.table(table)[index].load(Ordering::Relaxed);
        match M::Format::upper(entry) {
            Upper::Table { frame, .. } => table = frame,
            _ => return None,
        }
    }
    Some(table)
}
