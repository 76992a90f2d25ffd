//! System V shared memory: the segments, whoever attaches them.
//!
//! Called by the system calls, /proc, and at the end of the machine. A segment is a memory object of faultless whose size
//! counts as promised. How often it is attached is how many areas show the object, which the core counts; so a segment
//! that is marked for removal is gone in the moment the last area is. Its pages go with the object, which the areas keep
//! alive. Absent on purpose: owners other than root.

use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use crate::arch::CpuLocal;
use crate::clock;
use crate::errno::Errno;
use crate::fs::FileObject;
use crate::machine;
use crate::sync::Lock;

/// Most segments.
pub const MOST: usize = 4096;
/// Largest segment, and most bytes and pages of all.
pub const MOST_BYTES: u64 = u64::MAX - (1 << 24);
/// Ids count up to this before places are used again.
const CYCLE: usize = 64;
/// What `shmctl` marks a locked segment with, and one that is about to go.
pub const LOCKED: u32 = 0o2000;
const DOOMED: u32 = 0o1000;

/// The memory of a segment.
#[derive(Clone)]
enum Store {
    /// Kept by the segment.
    Kept(Arc<FileObject>),
    /// Kept by who has it attached: the segment is marked for removal.
    Doomed(Weak<FileObject>),
}

/// A segment.
#[derive(Clone)]
pub struct Segment {
    /// Its key; 0 if it is private or marked for removal.
    pub key: i32,
    /// Its id.
    pub id: i32,
    /// Its size as asked for.
    pub size: u64,
    /// Permission bits and [`LOCKED`].
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// When it was last attached, detached, and changed: seconds since 1970.
    pub times: [u64; 3],
    /// Who made it, and who attached or detached it last.
    pub processes: [i32; 2],
    store: Store,
    object: u64,
}

/// All segments by place; an id is a sequence number times [`PLACES`] and the place.
struct Table {
    segments: Vec<Option<Segment>>,
    sequence: u32,
    /// The place used last.
    last: usize,
}

const PLACES: i32 = 1 << 15;

static TABLE: Lock<Table> = Lock::new(Table { segments: Vec::new(), sequence: 0, last: usize::MAX });

impl Segment {
    /// The object, unless the last to keep it is gone.
    pub fn object(&self) -> Option<Arc<FileObject>> {
        match &self.store {
            Store::Kept(object) => Some(object.clone()),
            Store::Doomed(object) => object.upgrade().filter(|object| object.areas() != 0),
        }
    }

    /// How many areas show it.
    pub fn attached(&self) -> u64 {
        self.object().map_or(0, |object| object.areas())
    }

    /// Bytes of it that are in memory.
    pub fn resident(&self) -> u64 {
        self.object().map_or(0, |object| object.resident_pages() * faultless::PAGE_SIZE)
    }

    /// Its mode as `shmctl` shows it.
    pub fn shown_mode(&self) -> u32 {
        let doomed = if matches!(self.store, Store::Doomed(_)) { DOOMED } else { 0 };
        self.mode | doomed
    }

    /// The sequence number in its id.
    pub fn sequence(&self) -> u16 {
        (self.id / PLACES) as u16
    }

    /// Pages of its size.
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(faultless::PAGE_SIZE)
    }
}

impl Table {
    /// Forgets segments that were marked for removal and are attached no more.
    fn purge(&mut self) {
        for place in &mut self.segments {
            if place.as_ref().is_some_and(|segment| segment.object().is_none()) {
                *place = None;
            }
        }
    }

    /// A free place, in turn.
    fn place(&mut self) -> Result<usize, Errno> {
        let used = self.segments.iter().flatten().count();
        let cycle = CYCLE.max(used * 3 / 2 + 1).min(MOST);
        let next = self.last.wrapping_add(1);
        let free = |place: &usize| self.segments.get(*place).is_none_or(Option::is_none);
        let found = (next..cycle).find(free).or_else(|| (0..cycle.min(next)).find(free));
        let place = found.ok_or(Errno::ENOSPC)?;
        if self.last != usize::MAX && place <= self.last {
            self.sequence = (self.sequence + 1) % (i32::MAX / PLACES).cast_unsigned();
        }
        if place >= self.segments.len() {
            let more = place + 1 - self.segments.len();
            self.segments.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            self.segments.resize(place + 1, None);
        }
        self.last = place;
        Ok(place)
    }

    /// The segment with this id.
    fn get(&mut self, id: i32) -> Result<&mut Segment, Errno> {
        self.purge();
        let place = usize::try_from(id % PLACES).map_err(|_| Errno::EINVAL)?;
        let segment = self.segments.get_mut(place).and_then(Option::as_mut).ok_or(Errno::EINVAL)?;
        if segment.id == id { Ok(segment) } else { Err(Errno::EINVAL) }
    }
}

fn now() -> u64 {
    clock::realtime() / clock::SECOND
}

/// `shmget`: the id of the segment with this key, which is made if it shall be.
///
/// # Errors
///
/// `ENOENT`, `EEXIST`, `EINVAL` (size), `ENOSPC` (too many), `ENOMEM`.
pub fn get_or_make(cpu: &mut CpuLocal, key: i32, size: u64, flags: u32, pid: i32) -> Result<i32, Errno> {
    let mut table = TABLE.lock();
    table.purge();
    let existing = table.segments.iter().flatten().find(|segment| key != 0 && segment.key == key);
    match existing {
        Some(_) if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL => Err(Errno::EEXIST),
        Some(segment) if segment.size < size => Err(Errno::EINVAL),
        Some(segment) => Ok(segment.id),
        None if key != 0 && flags & IPC_CREAT == 0 => Err(Errno::ENOENT),
        None => make(cpu, &mut table, key, size, flags, pid),
    }
}

fn make(cpu: &mut CpuLocal, table: &mut Table, key: i32, size: u64, flags: u32, pid: i32) -> Result<i32, Errno> {
    if size == 0 || size > MOST_BYTES {
        return Err(Errno::EINVAL);
    }
    if size > i64::MAX as u64 {
        return Err(if flags & SHM_HUGETLB != 0 { Errno::ENOMEM } else { Errno::EINVAL });
    }
    let vm = machine::vm();
    let label = format!("/SYSV{:08x} (deleted)", key.cast_unsigned());
    let strict = matches!(vm.commit_policy(), faultless::CommitPolicy::Strict { .. });
    let made = if flags & SHM_HUGETLB != 0 {
        match flags >> SHM_HUGE_SHIFT & SHM_HUGE_MASK {
            0 | 21 if flags & SHM_NORESERVE != 0 => vm.new_huge_memory(size, &label),
            0 | 21 => vm.new_promised_huge_memory(&mut cpu.vm, size, &label),
            // The pool of pages of 1 GiB is empty.
            30 => return Err(Errno::ENOMEM),
            _ => return Err(Errno::EINVAL),
        }
    } else if flags & SHM_NORESERVE != 0 && !strict {
        vm.new_memory(size, &label)
    } else {
        vm.new_promised_memory(size, &label)
    };
    let object = made.map_err(|_| Errno::ENOMEM)?;
    let place = table.place()?;
    let id = (table.sequence * PLACES.cast_unsigned()).cast_signed() + place as i32;
    table.segments[place] = Some(Segment {
        key,
        id,
        size,
        mode: flags & 0o777,
        owner: (0, 0),
        times: [0, 0, now()],
        processes: [pid, 0],
        object: object.id(),
        store: Store::Kept(object),
    });
    Ok(id)
}

/// Not in the list of constants.
const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const SHM_HUGETLB: u32 = 0o4000;
const SHM_NORESERVE: u32 = 0o10000;
const SHM_HUGE_SHIFT: u32 = 26;
const SHM_HUGE_MASK: u32 = 0x3f;

/// A segment as it is now.
///
/// # Errors
///
/// `EINVAL` if there is none with this id.
pub fn find(id: i32) -> Result<Segment, Errno> {
    TABLE.lock().get(id).cloned()
}

/// The segment at a place, for tools that list them all.
///
/// # Errors
///
/// `EINVAL` if there is none.
pub fn at_place(place: i32) -> Result<Segment, Errno> {
    let mut table = TABLE.lock();
    table.purge();
    let place = usize::try_from(place % PLACES).map_err(|_| Errno::EINVAL)?;
    table.segments.get(place).cloned().flatten().ok_or(Errno::EINVAL)
}

/// All segments, by place.
pub fn all() -> Vec<Segment> {
    let mut table = TABLE.lock();
    table.purge();
    table.segments.iter().flatten().cloned().collect()
}

/// The highest place in use; 0 if there is none.
pub fn highest() -> i32 {
    let mut table = TABLE.lock();
    table.purge();
    table.segments.iter().rposition(Option::is_some).map_or(0, |place| place as i32)
}

/// Is an object the memory of a segment?
pub fn is_segment(object: &FileObject) -> bool {
    object.label().starts_with("/SYSV")
}

/// The id of the segment whose memory the object with this id is.
pub fn id_of(object: u64) -> Option<i32> {
    TABLE.lock().segments.iter().flatten().find(|segment| segment.object == object).map(|segment| segment.id)
}

/// Notes that a process attached (0) or detached (1) the segment with this object.
pub fn note(object: u64, what: usize, pid: i32) {
    let mut table = TABLE.lock();
    if let Some(segment) = table.segments.iter_mut().flatten().find(|segment| segment.object == object) {
        segment.times[what] = now();
        segment.processes[1] = pid;
    }
}

/// `IPC_SET`.
///
/// # Errors
///
/// `EINVAL` if there is no such segment.
pub fn set(id: i32, owner: (u32, u32), mode: u32) -> Result<(), Errno> {
    let mut table = TABLE.lock();
    let segment = table.get(id)?;
    segment.owner = owner;
    segment.mode = segment.mode & !0o777 | mode & 0o777;
    segment.times[2] = now();
    Ok(())
}

/// `SHM_LOCK` and `SHM_UNLOCK`.
///
/// # Errors
///
/// `EINVAL` if there is no such segment.
pub fn set_locked(id: i32, locked: bool) -> Result<(), Errno> {
    let mut table = TABLE.lock();
    let segment = table.get(id)?;
    segment.mode = if locked { segment.mode | LOCKED } else { segment.mode & !LOCKED };
    Ok(())
}

/// `IPC_RMID`: it goes with its last attachment, or now.
///
/// # Errors
///
/// `EINVAL` if there is no such segment.
pub fn remove(id: i32) -> Result<(), Errno> {
    let mut table = TABLE.lock();
    let segment = table.get(id)?;
    segment.key = 0;
    if let Store::Kept(object) = &segment.store {
        segment.store = Store::Doomed(Arc::downgrade(object));
    }
    table.purge();
    Ok(())
}

/// Drops all segments: the machine stops.
pub fn shutdown() {
    TABLE.lock().segments.clear();
}
