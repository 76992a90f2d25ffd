//! `shmget`, `shmat`, `shmdt`, `shmctl`.
//!
//! What a segment is, is in [`crate::shm`]. An attachment is a mapping like any other, so limits, seals and locking
//! apply to it as to `mmap`.

use alloc::sync::Arc;

use faultless::{PAGE_SIZE, PageRange, VirtAddr};
use faultless_linux::calls::{self, FileRights, MapFile, MapTarget, MmapArgs};
use linux_raw_sys::general as linux;

use super::as_caller;
use crate::errno::{Errno, SysResult};
use crate::fs::FileObject;
use crate::machine::KernelMachine;
use crate::shm::{self, MOST, MOST_BYTES, Segment};
use crate::syscall::call::Call;
use crate::uaccess::{self, Layout};

const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;
const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// A segment as something to be mapped.
struct Mappable {
    object: Arc<FileObject>,
    writable: bool,
}

impl MapFile<KernelMachine> for Mappable {
    fn rights(&self) -> FileRights {
        FileRights { read: true, write: self.writable }
    }

    fn is_regular(&self) -> bool {
        true
    }

    fn is_huge(&self) -> bool {
        self.object.is_large()
    }

    fn target(&self) -> Result<MapTarget<KernelMachine>, Errno> {
        Ok(MapTarget::Object(self.object.clone()))
    }
}

pub(in crate::syscall) fn shmget(call: &mut Call<'_>) -> SysResult {
    let pid = call.process().pid;
    let (key, size, flags) = (call.int(0), call.word(1), call.uint(2));
    shm::get_or_make(call.cpu, key, size, flags, pid).map(i64::from)
}

pub(in crate::syscall) fn shmat(call: &mut Call<'_>) -> SysResult {
    let (id, mut address, flags) = (call.int(0), call.word(1), call.uint(2));
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let offset = address % PAGE_SIZE;
    if offset != 0 {
        address -= offset;
        let lost = address == 0 && flags & SHM_REMAP != 0;
        if flags & SHM_RND == 0 || lost {
            return Err(Errno::EINVAL);
        }
    } else if address == 0 && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let segment = shm::find(id)?;
    let object = segment.object().ok_or(Errno::EINVAL)?;
    // Below a page, rounding leaves no address, which is a wish like any other then.
    let is_fixed = address != 0 || offset != 0;
    if is_fixed && flags & SHM_REMAP == 0 && !is_free(call, address, object.size()) {
        return Err(Errno::EINVAL);
    }
    let writable = flags & SHM_RDONLY == 0;
    let args = MmapArgs {
        address,
        length: segment.size,
        protection: linux::PROT_READ
            | if writable { linux::PROT_WRITE } else { 0 }
            | if flags & SHM_EXEC != 0 { linux::PROT_EXEC } else { 0 },
        flags: linux::MAP_SHARED | if is_fixed { linux::MAP_FIXED } else { 0 },
        offset: 0,
    };
    let id = object.id();
    let file = Mappable { object, writable };
    let at = as_caller(call, |caller| calls::mmap(caller, args, Some(&file)))?;
    shm::note(id, 0, call.process().pid);
    Ok(at.cast_signed())
}

/// Is nothing mapped there?
fn is_free(call: &mut Call<'_>, address: u64, size: u64) -> bool {
    let Some(end) = address.checked_add(size) else { return false };
    let mut free = true;
    call.process().memory().space().areas(&mut call.cpu.vm, |area| {
        free &= area.range.start().as_u64() >= end || area.range.end().as_u64() <= address;
    });
    free
}

/// A part of an attachment: where it is, and whose.
struct Piece {
    start: u64,
    end: u64,
    object: Arc<FileObject>,
}

/// Takes out what is left of the attachment that began at the address.
pub(in crate::syscall) fn shmdt(call: &mut Call<'_>) -> SysResult {
    let address = call.word(0);
    if !address.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let first = next_piece(call, address, address, None).ok_or(Errno::EINVAL)?;
    let stop = address.saturating_add(first.object.size().next_multiple_of(PAGE_SIZE));
    let object = first.object.clone();
    let mut piece = Some(first);
    // Ends: each round passes an area.
    while let Some(Piece { start, end, .. }) = piece.filter(|piece| piece.start < stop) {
        let range = PageRange::new(VirtAddr::new(start), VirtAddr::new(end)).map_err(|_| Errno::EINVAL)?;
        // What is sealed stays.
        let _ = call.process().memory().space().unmap(&mut call.cpu.vm, range);
        piece = next_piece(call, address, end, Some(&object));
    }
    shm::note(object.id(), 1, call.process().pid);
    Ok(0)
}

/// The first area from `from` on that shows a segment attached at `base`: that of `object`, or any.
fn next_piece(call: &mut Call<'_>, base: u64, from: u64, object: Option<&Arc<FileObject>>) -> Option<Piece> {
    let mut found = None;
    let memory = call.process().memory();
    memory.space().areas(&mut call.cpu.vm, |area| {
        let (start, end) = (area.range.start().as_u64(), area.range.end().as_u64());
        if found.is_some() || start < from {
            return;
        }
        let Some((shown, offset)) = &area.object else { return };
        let wanted = object.map_or_else(|| shm::is_segment(shown), |object| Arc::ptr_eq(object, shown));
        if wanted && start - base == *offset {
            found = Some(Piece { start, end, object: shown.clone() });
        }
    });
    found
}

pub(in crate::syscall) fn shmctl(call: &mut Call<'_>) -> SysResult {
    let (id, command, to) = (call.int(0), call.int(1), call.word(2));
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_INFO => limits(call, to),
        SHM_INFO => totals(call, to),
        IPC_STAT => show(call, &shm::find(id)?, to).map(|()| 0),
        SHM_STAT | SHM_STAT_ANY => {
            let segment = shm::at_place(id)?;
            show(call, &segment, to)?;
            Ok(i64::from(segment.id))
        }
        IPC_SET => {
            let bytes: [u8; 24] = uaccess::read(call.cpu, to)?;
            let owner = (uaccess::half(&bytes, 4), uaccess::half(&bytes, 8));
            shm::set(id, owner, uaccess::half(&bytes, 20)).map(|()| 0)
        }
        IPC_RMID => shm::remove(id).map(|()| 0),
        SHM_LOCK | SHM_UNLOCK => lock(call, id, command == SHM_LOCK),
        _ => Err(Errno::EINVAL),
    }
}

/// Locked segments are counted against nobody: nothing is taken away from programs.
fn lock(call: &Call<'_>, id: i32, locks: bool) -> SysResult {
    let segment = shm::find(id)?;
    let limit = call.limit(linux::RLIMIT_MEMLOCK);
    if locks && !call.process().may_lock() && segment.size > limit {
        return Err(if limit == 0 { Errno::EPERM } else { Errno::ENOMEM });
    }
    shm::set_locked(id, locks).map(|()| 0)
}

/// `struct shminfo64`.
fn limits(call: &mut Call<'_>, to: u64) -> SysResult {
    let layout = [MOST_BYTES, 1, MOST as u64, MOST as u64, MOST_BYTES].into_iter().fold(Layout::new(), Layout::u64);
    layout.zeroes(4 * 8).write(call.cpu, to)?;
    Ok(i64::from(shm::highest()))
}

/// `struct shm_info`.
fn totals(call: &mut Call<'_>, to: u64) -> SysResult {
    let all = shm::all();
    let pages: u64 = all.iter().map(Segment::pages).sum();
    let resident: u64 = all.iter().map(|segment| segment.resident() / PAGE_SIZE).sum();
    let layout = Layout::new().u64(all.len() as u64).u64(pages).u64(resident);
    layout.zeroes(3 * 8).write(call.cpu, to)?;
    Ok(i64::from(shm::highest()))
}

/// `struct shmid64_ds`.
fn show(call: &mut Call<'_>, segment: &Segment, to: u64) -> Result<(), Errno> {
    let (uid, gid) = segment.owner;
    let permissions = Layout::new()
        .u32(segment.key.cast_unsigned())
        .u32(uid)
        .u32(gid)
        .u32(0)
        .u32(0)
        .u32(segment.shown_mode())
        .u16(segment.sequence())
        .zeroes(6 + 2 * 8);
    let times = segment.times.into_iter().fold(permissions.u64(segment.size), Layout::u64);
    let processes = segment.processes.into_iter().fold(times, |layout, pid| layout.u32(pid.cast_unsigned()));
    processes.u64(segment.attached()).zeroes(2 * 8).write(call.cpu, to)
}
