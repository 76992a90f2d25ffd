//! One process's program on one CPU: executes accesses and the calls that `faultless_linux` has, as a kernel would.
//!
//! Called by `ours`, by several threads at a time. Absent on purpose: making and ending processes.

use std::sync::Arc;

use faultless::{Access, Cpu, FaultError, Machine, Object, ObjectError, PAGE_SIZE, VirtAddr};
use faultless_hosted::{HostedCpu, Mmu};
use faultless_linux::calls::{
    self, Allocation, FileRights, MapFile, MapTarget, MmapArgs, MremapArgs, RemapFilePagesArgs,
};
use faultless_linux::{Caller, Errno, Limits, Memory};
use linux_raw_sys::general as linux;

use crate::arena;
use crate::scenario::{FileRef, Op};
use crate::view::{Answer, Trap};

/// Largest size of a file in memory.
const MAX_FILE: u64 = i64::MAX as u64;
/// Largest size of a file of ext4, whose blocks are pages here: as many as their numbers have room for.
const MAX_ON_DISK: u64 = u32::MAX as u64 * PAGE_SIZE;
/// What files on a disk are called.
pub(super) const ON_DISK: &str = "disk";

/// What an ordinary process has, with little memory to lock.
const LIMITS: Limits = Limits { locked: crate::host::LOCK_LIMIT, may_lock: false, ..Limits::NONE };

/// Who executes, and for whom.
pub(super) struct Actor<'a, M: Mmu> {
    /// It runs the process's space.
    pub(super) cpu: &'a mut HostedCpu<M>,
    pub(super) memory: &'a Memory<M>,
    pub(super) files: &'a [Arc<Object<M>>],
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

impl<M: Mmu> Actor<'_, M> {
    fn call<T>(&mut self, then: impl FnOnce(&mut Caller<'_, M>) -> Result<T, Errno>) -> Result<T, Errno> {
        then(&mut Caller { memory: self.memory, cpu: self.cpu.token(), limits: LIMITS })
    }

    /// Executes one operation; those that make and end processes are not among them.
    pub(super) fn answer(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Load { at, width } => self.load(at, width),
            Op::Store { at, width, value } => self.store(at, width, value),
            Op::Map { .. } => self.map(op),
            Op::Truncate { .. } | Op::Read { .. } | Op::Write { .. } | Op::Allocate { .. } => self.file_call(op),
            Op::Resident { at, len } => self.resident(at, len),
            Op::Remap { .. } => self.remap(op),
            Op::Brk { to } => self.call(|caller| Ok(calls::brk(caller, to))).map_or_else(refused, Answer::Value),
            op => done(self.call(|caller| memory_call(caller, &op))),
        }
    }

    fn map(&mut self, op: &Op) -> Answer {
        let Op::Map { at, len, prot, flags, file, offset } = *op else {
            return Answer::Errno(0);
        };
        let args = MmapArgs { address: at, length: len, protection: prot, flags, offset };
        let files = self.files;
        let open = file.map(|FileRef { number, read_only }| Open { object: &files[number], read_only });
        let result = self.call(|caller| {
            let start = calls::mmap(caller, args, open.as_ref())?;
            if flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) == 0 && !arena::holds(start, len) {
                calls::munmap(caller, start, len)?;
                return Ok(None);
            }
            Ok(Some(start))
        });
        placed(result)
    }

    fn resident(&mut self, at: u64, len: u64) -> Answer {
        let mut found = Vec::new();
        for part in 0.. {
            match self.call(|caller| calls::mincore(caller, at, len, part)) {
                Ok(Some(bytes)) => found.extend(bytes),
                Ok(None) => break,
                Err(errno) => return refused(errno),
            }
        }
        Answer::Bytes(found)
    }

    fn remap(&mut self, op: &Op) -> Answer {
        let Op::Remap { at, old, new, flags, to } = *op else {
            return Answer::Errno(0);
        };
        let args = MremapArgs { address: at, old_length: old, new_length: new, flags, new_address: to };
        let result = self.call(|caller| {
            let start = calls::mremap(caller, args)?;
            if !arena::holds(start, new) {
                calls::munmap(caller, start, new)?;
                return Ok(None);
            }
            Ok(Some(start))
        });
        placed(result)
    }

    fn file_call(&mut self, op: &Op) -> Answer {
        let files = self.files;
        let cpu = self.cpu.token();
        let most = |file: usize| if files[file].label() == ON_DISK { MAX_ON_DISK } else { MAX_FILE };
        let result = match *op {
            Op::Truncate { size, .. } if size < 0 => Err(Errno::EINVAL),
            Op::Truncate { file, size } if size.cast_unsigned() > most(file) => Err(Errno::EFBIG),
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
            Op::Write { file, offset, .. } if offset.cast_unsigned() >= most(file) => Err(Errno::EFBIG),
            Op::Write { file, offset, len, value } => {
                let len = (len as u64).min(most(file) - offset.cast_unsigned()) as usize;
                let count = files[file].write(cpu, offset.cast_unsigned(), &vec![value; len]).map_err(errno_of);
                count.map(|count| Answer::Value(count as u64))
            }
            Op::Allocate { file, mode, offset, len } => calls::check_fallocate(mode, offset, len)
                .and_then(|()| calls::allocation(mode, offset, len, most(file)))
                .and_then(|wanted| allocate(cpu, &files[file], wanted).map_err(errno_of))
                .map(|()| Answer::Value(0)),
            _ => Err(Errno::ENOSYS),
        };
        result.unwrap_or_else(refused)
    }

    fn load(&mut self, at: u64, width: u8) -> Answer {
        let (cpu, memory) = (&mut *self.cpu, self.memory);
        if let Err(trap) = reach(cpu, memory, at, width, Access::Read) {
            return Answer::Trap(trap);
        }
        let mut bytes = [0; 8];
        match cpu.read(VirtAddr::new(at), &mut bytes[..usize::from(width)]) {
            Ok(()) => Answer::Value(u64::from_le_bytes(bytes)),
            Err(error) => Answer::Trap(trap_of(at, error.fault)),
        }
    }

    fn store(&mut self, at: u64, width: u8, value: u64) -> Answer {
        let (cpu, memory) = (&mut *self.cpu, self.memory);
        if let Err(trap) = reach(cpu, memory, at, width, Access::Write) {
            return Answer::Trap(trap);
        }
        match cpu.write(VirtAddr::new(at), &value.to_le_bytes()[..usize::from(width)]) {
            Ok(()) => Answer::Value(0),
            Err(error) => Answer::Trap(trap_of(at, error.fault)),
        }
    }
}

/// Makes pages of a file, or a hole.
fn allocate<M: Machine>(
    cpu: &mut Cpu<M>,
    file: &Arc<Object<M>>,
    (what, start, end): (Allocation, u64, u64),
) -> Result<(), ObjectError> {
    if what == Allocation::PunchHole {
        let end = if file.label() == ON_DISK { end_on_disk(start, end, file.size()) } else { end };
        return if start < end { file.punch_hole(cpu, start, end - start) } else { Ok(()) };
    }
    // What a file on a disk gets is blocks, not pages.
    let pages = if file.label() == ON_DISK { 0..0 } else { start / PAGE_SIZE..end.div_ceil(PAGE_SIZE) };
    for page in pages {
        file.make_resident(cpu, page * PAGE_SIZE)?;
    }
    if what == Allocation::Extend && end > file.size() { file.resize(cpu, end) } else { Ok(()) }
}

/// Where ext4 ends a hole: one that goes on behind the end of the file takes the last page whole, and one that begins there
/// is none.
fn end_on_disk(start: u64, end: u64, size: u64) -> u64 {
    match size {
        _ if start >= size => start,
        _ if end > size => end.max(size.next_multiple_of(PAGE_SIZE)),
        _ => end,
    }
}

/// `process_vm_readv` and `process_vm_writev`: bytes of another process's memory, page by page, by any CPU.
pub(super) fn transfer<M: Mmu>(cpu: &mut HostedCpu<M>, memory: &Memory<M>, op: &Op) -> Answer {
    let (at, mut bytes, writes) = match *op {
        Op::Peek { at, len, .. } => (at, vec![0; len], false),
        Op::Poke { at, len, value, .. } => (at, vec![value; len], true),
        _ => return refused(Errno::ENOSYS),
    };
    let address = VirtAddr::new(at);
    let done = match writes {
        true => calls::write_remote(&memory.space, cpu.token(), address, &bytes),
        false => calls::read_remote(&memory.space, cpu.token(), address, &mut bytes),
    };
    if done == 0 && !bytes.is_empty() {
        return refused(Errno::EFAULT);
    }
    bytes.truncate(done);
    if writes { Answer::Value(done as u64) } else { Answer::Bytes(bytes) }
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
        Op::Seal { at, len, flags } => calls::mseal(caller, at, len, flags),
        Op::Nonlinear { at, len, page } => {
            calls::remap_file_pages(caller, RemapFilePagesArgs { start: at, size: len, page, ..Default::default() })
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn done(result: Result<(), Errno>) -> Answer {
    result.map_or_else(refused, |()| Answer::Value(0))
}

/// The answer of a call that places a mapping: none if the place was outside of the arena.
fn placed(result: Result<Option<u64>, Errno>) -> Answer {
    match result {
        Ok(Some(start)) => Answer::Value(start),
        Ok(None) => Answer::Elsewhere,
        Err(errno) => refused(errno),
    }
}

pub(super) fn refused(errno: Errno) -> Answer {
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
