//! faultless as an executor: a hosted machine, reached through `faultless-linux` as a kernel would.
//!
//! Called by `judge`. Processes move from CPU to CPU as the scenario goes on, so that a flush that misses one shows.
//! Absent on purpose: anything that knows better than the core. What the core cannot do yet is not in [`CALLS`], and is
//! not generated.

use std::sync::Arc;

use crate::accepted::follows;
use faultless::machine::Format;
use faultless::machine::format::{Leaf, Upper};
use faultless::{
    Access, AreaFlags, CpuId, FaultError, FrameId, Layout, Machine, Object, ObjectError, PAGE_SIZE, Rights, Sharing,
    VirtAddr, Vm,
};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Hostile, HostileConfig, Mmu};
use faultless_linux::calls::{self, FileRights, MapFile, MapTarget, MmapArgs, MremapArgs, RemapFilePagesArgs};
use faultless_linux::{Caller, Errno, Limits, Memory};
use linux_raw_sys::general as linux;

use crate::arena;
use crate::generate::Calls;
use crate::scenario::{FileRef, MOST_PROCESSES, Op, Scenario};
use crate::view::{Answer, Mapping, Outcome, Page, Rss, Source, Trap, View};

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
        linux::MADV_NOHUGEPAGE,
        linux::MADV_POPULATE_READ,
        linux::MADV_POPULATE_WRITE,
    ],
    map_flags: &[],
    msync: true,
    munlock: true,
    mlock: false,
    mincore: true,
    mremap: true,
    remap_file_pages: true,
    fallocate: &[linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE],
};

const FRAMES: u64 = 16_384;
const CPUS: usize = 3;
/// Steps after which a process goes on with another CPU.
const STAY: usize = 5;
/// Largest size of a file.
const MAX_FILE: u64 = i64::MAX as u64;

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

/// An open file of a scenario.
struct Open<'a, M: Machine> {
    object: &'a Arc<Object<M>>,
    read_only: bool,
}

impl<M: Machine> MapFile<M> for Open<'_, M> {
    fn rights(&self) -> FileRights {
        FileRights { read: true, write: !self.read_only }
    }

    fn is_regular(&self) -> bool {
        true
    }

    fn target(&self) -> Result<MapTarget<M>, Errno> {
        Ok(MapTarget::Object(Arc::clone(self.object)))
    }
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
        let files: Result<Vec<_>, _> = scenario.files.iter().map(|size| vm.new_memory(*size, "memfd")).collect();
        let files = files.map_err(|error| format!("{error:?}"))?;
        let layout = Layout { lowest: VirtAddr::new(crate::host::lowest_address()), ..Layout::linux() };
        let space = vm.new_space(cpus[0].token(), layout).map_err(|error| format!("{error:?}"))?;
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
        let before = self.memory(number).space.usage();
        let answer = self.answer(number, op);
        let Some(memory) = &self.processes[number] else {
            return Outcome { answer, minor: 0, major: 0 };
        };
        let after = memory.space.usage();
        Outcome { answer, minor: after.minor - before.minor, major: after.major - before.major }
    }

    fn memory(&self, number: usize) -> &Memory<M> {
        self.processes[number].as_ref().unwrap_or_else(|| panic!("p{number} does not live"))
    }

    /// The CPU that executes for a process now; it runs its space.
    fn cpu_of(&mut self, number: usize) -> (&mut HostedCpu<M>, &Memory<M>) {
        let cpu = (number + self.steps / STAY) % CPUS;
        let memory = self.processes[number].as_ref().unwrap_or_else(|| panic!("p{number} does not live"));
        let cpu = &mut self.cpus[cpu];
        cpu.run(&memory.space);
        (cpu, memory)
    }

    fn call<T>(
        &mut self,
        number: usize,
        then: impl FnOnce(&mut Caller<'_, M>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (cpu, memory) = self.cpu_of(number);
        then(&mut Caller { memory, cpu: cpu.token(), limits: Limits::NONE })
    }

    fn answer(&mut self, number: usize, op: &Op) -> Answer {
        match *op {
            Op::Load { at, width } => self.load(number, at, width),
            Op::Store { at, width, value } => self.store(number, at, width, value),
            Op::Map { .. } => self.map(number, op),
            Op::Truncate { .. } | Op::Read { .. } | Op::Write { .. } | Op::Allocate { .. } => {
                self.file_call(number, op)
            }
            Op::Resident { at, len } => self.resident(number, at, len),
            Op::Remap { .. } => self.remap(number, op),
            Op::Fork { child } => self.fork(number, child),
            Op::Exit { code } => self.exit(number, code),
            Op::Wait { child } => self.wait(child),
            op => done(self.call(number, |caller| memory_call(caller, &op))),
        }
    }

    fn map(&mut self, number: usize, op: &Op) -> Answer {
        let Op::Map { at, len, prot, flags, file, offset } = *op else {
            return Answer::Errno(0);
        };
        let args = MmapArgs { address: at, length: len, protection: prot, flags, offset };
        let objects = self.files.clone();
        let open = file.map(|FileRef { number, read_only }| Open { object: &objects[number], read_only });
        let result = self.call(number, |caller| {
            let start = calls::mmap(caller, args, open.as_ref())?;
            if flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) == 0 && !arena::holds(start, len) {
                calls::munmap(caller, start, len)?;
                return Ok(None);
            }
            Ok(Some(start))
        });
        match result {
            Ok(Some(start)) => Answer::Value(start),
            Ok(None) => Answer::Elsewhere,
            Err(errno) => refused(errno),
        }
    }

    fn resident(&mut self, number: usize, at: u64, len: u64) -> Answer {
        let mut found = Vec::new();
        for part in 0.. {
            match self.call(number, |caller| calls::mincore(caller, at, len, part)) {
                Ok(Some(bytes)) => found.extend(bytes),
                Ok(None) => break,
                Err(errno) => return refused(errno),
            }
        }
        Answer::Bytes(found)
    }

    fn remap(&mut self, number: usize, op: &Op) -> Answer {
        let Op::Remap { at, old, new, flags, to } = *op else {
            return Answer::Errno(0);
        };
        let args = MremapArgs { address: at, old_length: old, new_length: new, flags, new_address: to };
        let result = self.call(number, |caller| {
            let start = calls::mremap(caller, args)?;
            if !arena::holds(start, new) {
                calls::munmap(caller, start, new)?;
                return Ok(None);
            }
            Ok(Some(start))
        });
        match result {
            Ok(Some(start)) => Answer::Value(start),
            Ok(None) => Answer::Elsewhere,
            Err(errno) => refused(errno),
        }
    }

    fn file_call(&mut self, number: usize, op: &Op) -> Answer {
        let files = self.files.clone();
        let (cpu, _) = self.cpu_of(number);
        let cpu = cpu.token();
        let result = match *op {
            Op::Truncate { size, .. } if size < 0 => Err(Errno::EINVAL),
            Op::Truncate { file, size } => {
                files[file].resize(cpu, size.cast_unsigned()).map(|()| Answer::Value(0)).map_err(errno_of)
            }
            Op::Read { offset, len, .. } | Op::Write { offset, len, .. }
                if offset < 0 || offset.checked_add(len as i64).is_none() =>
            {
                Err(Errno::EINVAL)
            }
            Op::Read { file, offset, len } => {
                let mut bytes = vec![0; len];
                let count = files[file].read(cpu, offset.cast_unsigned(), &mut bytes).map_err(errno_of);
                count.map(|count| Answer::Bytes(bytes[..count].to_vec()))
            }
            Op::Write { len: 0, .. } => Ok(Answer::Value(0)),
            Op::Write { offset, .. } if offset.cast_unsigned() >= MAX_FILE => Err(Errno::EFBIG),
            Op::Write { file, offset, len, value } => {
                let len = (len as u64).min(MAX_FILE - offset.cast_unsigned()) as usize;
                let count = files[file].write(cpu, offset.cast_unsigned(), &vec![value; len]).map_err(errno_of);
                count.map(|count| Answer::Value(count as u64))
            }
            Op::Allocate { offset, len, .. } if offset < 0 || len <= 0 => Err(Errno::EINVAL),
            Op::Allocate { offset, len, .. } if offset.checked_add(len).is_none() => Err(Errno::EFBIG),
            Op::Allocate { file, offset, len, .. } => {
                let hole = files[file].punch_hole(cpu, offset.cast_unsigned(), len.cast_unsigned());
                hole.map(|()| Answer::Value(0)).map_err(errno_of)
            }
            _ => Err(Errno::ENOSYS),
        };
        result.unwrap_or_else(refused)
    }

    fn load(&mut self, number: usize, at: u64, width: u8) -> Answer {
        let (cpu, memory) = self.cpu_of(number);
        if let Err(trap) = reach(cpu, memory, at, width, Access::Read) {
            return Answer::Trap(trap);
        }
        let mut bytes = [0; 8];
        match cpu.read(VirtAddr::new(at), &mut bytes[..usize::from(width)]) {
            Ok(()) => Answer::Value(u64::from_le_bytes(bytes)),
            Err(error) => Answer::Trap(trap_of(at, error.fault)),
        }
    }

    fn store(&mut self, number: usize, at: u64, width: u8, value: u64) -> Answer {
        let (cpu, memory) = self.cpu_of(number);
        if let Err(trap) = reach(cpu, memory, at, width, Access::Write) {
            return Answer::Trap(trap);
        }
        match cpu.write(VirtAddr::new(at), &value.to_le_bytes()[..usize::from(width)]) {
            Ok(()) => Answer::Value(0),
            Err(error) => Answer::Trap(trap_of(at, error.fault)),
        }
    }

    fn fork(&mut self, number: usize, child: usize) -> Answer {
        let (cpu, memory) = self.cpu_of(number);
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
        let (cpu, memory) = self.cpu_of(number);
        memory.space.area_at(cpu.token(), VirtAddr::new(at)).map(|area| area.sharing)
    }

    /// What the process's memory looks like.
    ///
    /// # Panics
    ///
    /// If the process does not live.
    pub fn view(&mut self, number: usize) -> View {
        let files: Vec<u64> = self.files.iter().map(|file| file.id()).collect();
        let (mut mappings, mut flags) = (Vec::new(), Vec::new());
        let (cpu, memory) = self.cpu_of(number);
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
            mappings = self.in_linear_parts(number, mappings, &flags);
        }
        let usage = self.memory(number).space.usage();
        let rss =
            Rss { anon: usage.anon.cast_signed(), file: usage.file.cast_signed(), shmem: usage.shmem.cast_signed() };
        View { mappings, pages: self.pages(number), rss }
    }

    /// The mappings, whose flags are given, with each nonlinear one as what Linux makes of it: one per run of pages
    /// (`nonlinear-area`).
    fn in_linear_parts(&mut self, number: usize, mappings: Vec<Mapping>, flags: &[AreaFlags]) -> Vec<Mapping> {
        let mut parts: Vec<Mapping> = Vec::new();
        let mut last_flags = AreaFlags::NONE;
        let (cpu, memory) = self.cpu_of(number);
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
                    Some(last) if part.shared && same_flags && follows(last, &part) => last.end = part.end,
                    _ => parts.push(part),
                }
                same_flags = true;
            }
        }
        parts
    }

    /// Does an operation on the range meet a nonlinear mapping?
    pub fn has_nonlinear(&mut self, number: usize, at: u64, len: u64) -> bool {
        self.has_flags(number, at, len, |flags| flags.contains(AreaFlags::NONLINEAR))
    }

    /// Does an operation on the range meet a mapping with flags that the predicate wants?
    pub fn has_flags(&mut self, number: usize, at: u64, len: u64, wanted: impl Fn(AreaFlags) -> bool) -> bool {
        let end = at.saturating_add(len);
        let mut found = false;
        let (cpu, memory) = self.cpu_of(number);
        memory.space.areas(cpu.token(), |area| {
            let meets = area.range.start().as_u64() < end && at < area.range.end().as_u64();
            found |= meets && wanted(area.flags);
        });
        found
    }

    /// The pages of the arena, out of the page tables.
    fn pages(&self, number: usize) -> Vec<Page> {
        let mut pages = vec![Page::Absent; arena::PAGES as usize];
        let root = self.memory(number).space.root();
        let leaf_bytes = PAGE_SIZE << M::Format::INDEX_BITS;
        let machine = self.vm.machine();
        for start in (arena::START..arena::END).step_by(leaf_bytes as usize) {
            let Some(leaf) = leaf_table(machine, root, start) else { continue };
            for (index, entry) in machine.table(leaf).iter().enumerate() {
                // Relaxed: nobody works meanwhile.
                let entry = M::Format::leaf(entry.load(std::sync::atomic::Ordering::Relaxed));
                if let (Leaf::Page(..) | Leaf::None(..), Some(page)) =
                    (entry, arena::page_of(start + index as u64 * PAGE_SIZE))
                {
                    pages[page] = Page::Present;
                }
            }
        }
        pages
    }

    /// A digest per page of the arena, 0 where it cannot be read.
    pub fn digests(&mut self, number: usize) -> Vec<u64> {
        let (cpu, _) = self.cpu_of(number);
        let mut page = [0; PAGE_SIZE as usize];
        let digest = |index| match cpu.read(VirtAddr::new(arena::address_of(index)), &mut page) {
            Ok(()) => crate::host::page_digest(&page),
            Err(_) => 0,
        };
        (0..arena::PAGES as usize).map(digest).collect()
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

/// Calls on a range that have their file in `faultless_linux::calls`; the rest of scenarios is not generated.
fn memory_call<M: Machine>(caller: &mut Caller<'_, M>, op: &Op) -> Result<(), Errno> {
    match *op {
        Op::Unmap { at, len } => calls::munmap(caller, at, len),
        Op::Protect { at, len, prot } => calls::mprotect(caller, at, len, prot),
        Op::Advise { at, len, advice } => calls::madvise(caller, at, len, advice),
        Op::Sync { at, len, flags } => calls::msync(caller, at, len, flags),
        Op::Lock { at, len, flags } => calls::mlock2(caller, at, len, flags),
        Op::Unlock { at, len } => calls::munlock(caller, at, len),
        Op::LockAll { flags } => calls::mlockall(caller, flags),
        Op::UnlockAll => calls::munlockall(caller),
        Op::Nonlinear { at, len, page } => {
            calls::remap_file_pages(caller, RemapFilePagesArgs { start: at, size: len, page, ..Default::default() })
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn done(result: Result<(), Errno>) -> Answer {
    result.map_or_else(refused, |()| Answer::Value(0))
}

fn refused(errno: Errno) -> Answer {
    Answer::Errno(errno.number().into())
}

fn errno_of(error: ObjectError) -> Errno {
    match error {
        ObjectError::OutOfMemory => Errno::ENOMEM,
        ObjectError::Io => Errno::EIO,
        ObjectError::TooBig => Errno::EFBIG,
    }
}

/// Makes each page that the word touches accessible before any of it moves, as a processor does: faults come page by
/// page, and a store that crosses into a bad page stores nothing.
fn reach<M: Mmu>(cpu: &mut HostedCpu<M>, memory: &Memory<M>, at: u64, width: u8, access: Access) -> Result<(), Trap> {
    let last = at + u64::from(width) - 1;
    let second = (last & !(PAGE_SIZE - 1) > at).then_some(last & !(PAGE_SIZE - 1));
    for address in [Some(at), second].into_iter().flatten() {
        let address = VirtAddr::new(address);
        let id = cpu.token().id();
        // Ends: faultless promises progress for each resolved fault (F-16).
        while cpu.token().vm().machine().with_page(id, address, access, |_, _, _| ()).is_err() {
            let resolved = memory.space.fault(cpu.token(), address, access);
            resolved.map_err(|fault| trap_of(address.as_u64(), fault))?;
        }
    }
    Ok(())
}

fn trap_of(address: u64, fault: FaultError) -> Trap {
    let (signal, code) = match fault {
        FaultError::Unmapped => (libc::SIGSEGV, 1),
        FaultError::Denied => (libc::SIGSEGV, 2),
        FaultError::Bus => (libc::SIGBUS, 2),
        // A kernel would look for a victim; a scenario never needs that much.
        // Nor does anybody watch.
        FaultError::OutOfMemory | FaultError::Watched => (libc::SIGKILL, 0),
    };
    Trap { signal, code, address }
}

/// The leaf table for `address`, if there is one.
fn leaf_table<M: Machine>(machine: &M, root: FrameId, address: u64) -> Option<FrameId> {
    let mut table = root;
    for level in (1..M::Format::LEVELS).rev() {
        let shift = faultless::PAGE_SHIFT + M::Format::INDEX_BITS * level as u32;
        let index = (address >> shift) as usize & ((1 << M::Format::INDEX_BITS) - 1);
        // Relaxed: nobody works meanwhile.
        let entry = machine.table(table)[index].load(std::sync::atomic::Ordering::Relaxed);
        match M::Format::upper(entry) {
            Upper::Table { frame, .. } => table = frame,
            _ => return None,
        }
    }
    Some(table)
}
