//! `mmap`.

use alloc::sync::Arc;
use faultless::{
    Access, AreaFlags, Backing, CommitPolicy, Machine, MapError, MapRequest, Object, PAGE_SIZE, PageRange, Placement,
    Rights, Sharing, VirtAddr,
};
use linux_raw_sys::general as linux;

use crate::flags::{HUGE_PAGE, area_flags_of, is_page, page_align, rights_of};
use crate::{Caller, Errno};

/// The flags that every kernel knew before `MAP_SHARED_VALIDATE`: the others are errors with it.
const LEGACY: u32 = linux::MAP_SHARED
    | linux::MAP_PRIVATE
    | linux::MAP_FIXED
    | linux::MAP_ANONYMOUS
    | linux::MAP_DENYWRITE
    | linux::MAP_EXECUTABLE
    | linux::MAP_UNINITIALIZED
    | linux::MAP_GROWSDOWN
    | linux::MAP_LOCKED
    | linux::MAP_NORESERVE
    | linux::MAP_POPULATE
    | linux::MAP_NONBLOCK
    | linux::MAP_STACK
    | linux::MAP_HUGETLB
    | linux::MAP_32BIT
    | linux::MAP_ABOVE4G
    | 21 << linux::MAP_HUGE_SHIFT
    | 30 << linux::MAP_HUGE_SHIFT;

/// Memory that may be taken away when memory is short; not among the constants yet.
const MAP_DROPPABLE: u32 = 8;

/// Largest size of a file, and so the end of what can be mapped of one.
const MAX_FILE: u64 = i64::MAX as u64;

/// The arguments of `mmap` but the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MmapArgs {
    /// Where, or a hint.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `PROT_*`.
    pub protection: u32,
    /// `MAP_*`.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
}

/// What a file was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRights {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
}

/// What a mapping of a file shows.
pub enum MapTarget<M: Machine> {
    /// The pages of an object.
    Object(Arc<Object<M>>),
    /// Zeroes, as of /dev/zero.
    Zero,
    /// Frames that the file's driver puts into the mapping: [`MapFile::fill`].
    Frames,
    /// Such files cannot be mapped.
    Unmappable,
}

/// An open file, as far as `mmap` asks.
pub trait MapFile<M: Machine> {
    /// What it was opened for.
    fn rights(&self) -> FileRights;

    /// Has it a size, which offsets must not pass?
    fn is_regular(&self) -> bool;

    /// Is it made of large pages (hugetlbfs)? Lengths are rounded up to them then.
    fn is_huge(&self) -> bool {
        false
    }

    /// Are stores forbidden to new mappings, whatever it was opened for (F_SEAL_WRITE, F_SEAL_FUTURE_WRITE)?
    fn seals_writes(&self) -> bool {
        false
    }

    /// What a mapping shows. Asked only once everything else is known to be right.
    ///
    /// # Errors
    ///
    /// What the file's owner says; `ENOMEM` for instance.
    fn target(&self) -> Result<MapTarget<M>, Errno>;

    /// Puts frames into `range`, a fresh mapping of [`MapTarget::Frames`] that shows the file from `offset` on. If that
    /// fails the mapping goes again.
    ///
    /// # Errors
    ///
    /// What the driver says: `EINVAL` where a private mapping cannot be filled whole, for instance.
    fn fill(&self, _caller: &mut Caller<'_, M>, _range: PageRange, _offset: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }
}

/// For callers that map no files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoFile {}

impl<M: Machine> MapFile<M> for NoFile {
    fn rights(&self) -> FileRights {
        match *self {}
    }

    fn is_regular(&self) -> bool {
        match *self {}
    }

    fn target(&self) -> Result<MapTarget<M>, Errno> {
        match *self {}
    }
}

/// What is behind the mapping, and what its flags came to.
struct Target<M: Machine> {
    backing: Backing<M>,
    sharing: Sharing,
    max_rights: Rights,
}

/// Maps memory and returns its address. `file` is what the descriptor names: `None` if there is no such open file.
///
/// # Errors
///
/// As Linux's, in its order. A failed call has changed nothing.
pub fn mmap<M: Machine>(
    caller: &mut Caller<'_, M>,
    args: MmapArgs,
    file: Option<&impl MapFile<M>>,
) -> Result<u64, Errno> {
    if !is_page(args.offset) {
        return Err(Errno::EINVAL);
    }
    let file = check_file(args.flags, file)?;
    let mut args = args;
    if file.map_or(is_huge(&args), MapFile::is_huge) {
        args.length = args.length.checked_next_multiple_of(HUGE_PAGE).ok_or(Errno::ENOMEM)?;
    }
    let args = check_range(caller, args)?;
    let target = match check_lock(caller, &args).and_then(|()| target_of(&args, file)) {
        Ok(target) => target,
        // Linux looks for what is in the way before it looks at limits and at the file.
        Err(_) if is_taken(caller, &args) => return Err(Errno::EEXIST),
        Err(errno) => return Err(errno),
    };
    let is_filled = matches!(target.backing, Backing::Frames);
    let start = map(caller, &args, target)?;
    if let Some(file) = file.filter(|_| is_filled) {
        fill(caller, &args, start, file)?;
    }
    Ok(start)
}

/// Lets the driver fill a fresh mapping of its frames; takes the mapping away again if it cannot.
fn fill<M: Machine>(
    caller: &mut Caller<'_, M>,
    args: &MmapArgs,
    start: u64,
    file: &impl MapFile<M>,
) -> Result<(), Errno> {
    let range = PageRange::with_len(VirtAddr::new(start), args.length).map_err(|_| Errno::EINVAL)?;
    file.fill(caller, range, args.offset).inspect_err(|_| {
        // It is whole and nobody knows it. What another thread has put in its place meanwhile is lost, as on Linux.
        let _ = caller.memory.space.unmap(caller.cpu, range);
    })
}

/// The file that is to be mapped; none for anonymous memory.
fn check_file<F>(flags: u32, file: Option<&F>) -> Result<Option<&F>, Errno> {
    let huge = flags & linux::MAP_HUGETLB != 0;
    if flags & linux::MAP_ANONYMOUS == 0 {
        let file = file.ok_or(Errno::EBADF)?;
        return if huge { Err(Errno::EINVAL) } else { Ok(Some(file)) };
    }
    if huge {
        return match flags >> linux::MAP_HUGE_SHIFT & linux::MAP_HUGE_MASK {
            0 | 21 => Ok(None),
            // A machine whose pool of pages of 1 GiB is empty.
            30 => Err(Errno::ENOMEM),
            _ => Err(Errno::EINVAL),
        };
    }
    Ok(None)
}

/// Is it anonymous memory of large pages that is asked for?
fn is_huge(args: &MmapArgs) -> bool {
    const HUGE: u32 = linux::MAP_ANONYMOUS | linux::MAP_HUGETLB;
    args.flags & HUGE == HUGE
}

/// Checks length, offset and address; the length comes back rounded, and so does an address that is only a hint.
fn check_range<M: Machine>(caller: &Caller<'_, M>, mut args: MmapArgs) -> Result<MmapArgs, Errno> {
    let lowest = caller.memory.space.layout().lowest.as_u64();
    let end = caller.memory.end();
    if args.length == 0 {
        return Err(Errno::EINVAL);
    }
    if args.flags & linux::MAP_FIXED_NOREPLACE != 0 {
        args.flags |= linux::MAP_FIXED;
    }
    let is_fixed = args.flags & linux::MAP_FIXED != 0;
    if !is_fixed {
        args.address &= !(PAGE_SIZE - 1);
        if args.address != 0 && args.address < lowest {
            args.address = lowest;
        }
    }
    // Linux checks the sum of offset and length in pages as well, which cannot wrap on 64 bits.
    args.length = page_align(args.length);
    if args.length == 0 || args.length > end {
        return Err(Errno::ENOMEM);
    }
    if is_fixed {
        // Linux takes an address that looks like an error for one, and returns it.
        let looks_like = u16::try_from(args.address.wrapping_neg()).ok().and_then(Errno::new);
        if let Some(errno) = looks_like {
            return Err(errno);
        }
        if args.address > end - args.length {
            return Err(Errno::ENOMEM);
        }
        if !is_page(args.address) {
            return Err(Errno::EINVAL);
        }
        if args.address < lowest {
            return Err(Errno::EPERM);
        }
    }
    Ok(args)
}

/// Whether the mapping must not replace anything, and something is there.
fn is_taken<M: Machine>(caller: &mut Caller<'_, M>, args: &MmapArgs) -> bool {
    if args.flags & linux::MAP_FIXED_NOREPLACE == 0 {
        return false;
    }
    match PageRange::with_len(VirtAddr::new(args.address), args.length) {
        Ok(range) => caller.find(|area| area.range.intersect(range).is_some()).is_some(),
        Err(_) => false,
    }
}

/// The flags that the mapping gets, besides those of its type.
fn all_flags<M: Machine>(caller: &Caller<'_, M>, args: &MmapArgs) -> AreaFlags {
    let mut flags = area_flags_of(args.flags);
    // Of the pool no more is promised than there is anyway.
    let is_exempt = !flags.contains(AreaFlags::NO_RESERVE) || is_huge(args);
    if !is_exempt && matches!(caller.cpu.vm().commit_policy(), CommitPolicy::Strict { .. }) {
        // Who promises no more than there is takes no one's word that it will not be used.
        flags = flags.without(AreaFlags::NO_RESERVE);
    }
    flags | caller.memory.space.default_flags()
}

/// May the mapping be locked, if it is to be?
fn check_lock<M: Machine>(caller: &Caller<'_, M>, args: &MmapArgs) -> Result<(), Errno> {
    let asks = args.flags & linux::MAP_LOCKED != 0;
    if asks && !caller.may_lock_any() {
        return Err(Errno::EPERM);
    }
    let locks = asks || caller.memory.space.default_flags().contains(AreaFlags::LOCKED);
    if locks && !caller.may_lock(args.length / PAGE_SIZE) { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// Checks the flags against the file, or without one.
fn target_of<M: Machine>(args: &MmapArgs, file: Option<&impl MapFile<M>>) -> Result<Target<M>, Errno> {
    match file {
        Some(file) => target_in_file(args, file),
        None => anonymous(args),
    }
}

fn anonymous<M: Machine>(args: &MmapArgs) -> Result<Target<M>, Errno> {
    if is_huge(args) {
        return huge(args);
    }
    let sharing = match args.flags & linux::MAP_TYPE {
        linux::MAP_SHARED if args.flags & linux::MAP_GROWSDOWN != 0 => return Err(Errno::EINVAL),
        linux::MAP_SHARED => Sharing::Shared,
        linux::MAP_PRIVATE => Sharing::Private,
        MAP_DROPPABLE if args.flags & (linux::MAP_LOCKED | linux::MAP_GROWSDOWN) == 0 => Sharing::Private,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Target { backing: Backing::Anonymous, sharing, max_rights: Rights::ALL })
}

/// Anonymous memory of large pages is a file of its own to Linux. Its object is made when everything else is right.
fn huge<M: Machine>(args: &MmapArgs) -> Result<Target<M>, Errno> {
    let sharing = match args.flags & linux::MAP_TYPE {
        linux::MAP_SHARED_VALIDATE if args.flags & !(LEGACY | linux::MAP_SHARED_VALIDATE) != 0 => {
            return Err(Errno::EOPNOTSUPP);
        }
        linux::MAP_SHARED | linux::MAP_SHARED_VALIDATE => Sharing::Shared,
        linux::MAP_PRIVATE => Sharing::Private,
        _ => return Err(Errno::EINVAL),
    };
    if args.flags & linux::MAP_GROWSDOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Target { backing: Backing::Anonymous, sharing, max_rights: Rights::ALL })
}

fn target_in_file<M: Machine>(args: &MmapArgs, file: &impl MapFile<M>) -> Result<Target<M>, Errno> {
    let MmapArgs { length, protection, flags, offset, .. } = *args;
    let too_far = length > MAX_FILE || offset > MAX_FILE - length;
    if too_far && file.is_regular() {
        return Err(Errno::EOVERFLOW);
    }
    let FileRights { read, write } = file.rights();
    let (sharing, max_rights) = match flags & linux::MAP_TYPE {
        kind @ (linux::MAP_SHARED | linux::MAP_SHARED_VALIDATE) => {
            if kind == linux::MAP_SHARED_VALIDATE && flags & !(LEGACY | linux::MAP_SHARED_VALIDATE) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if protection & linux::PROT_WRITE != 0 && !write {
                return Err(Errno::EACCES);
            }
            let sealed = file.seals_writes();
            if protection & linux::PROT_WRITE != 0 && sealed {
                return Err(Errno::EPERM);
            }
            let most = if write && !sealed { Rights::ALL } else { Rights::READ | Rights::EXECUTE };
            (Sharing::Shared, most)
        }
        linux::MAP_PRIVATE => (Sharing::Private, Rights::ALL),
        _ => return Err(Errno::EINVAL),
    };
    if !read {
        return Err(Errno::EACCES);
    }
    let backing = match file.target()? {
        MapTarget::Object(object) => Backing::Object { object, offset },
        MapTarget::Zero => Backing::Anonymous,
        MapTarget::Frames => Backing::Frames,
        MapTarget::Unmappable => return Err(Errno::ENODEV),
    };
    if flags & linux::MAP_GROWSDOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Target { backing, sharing, max_rights })
}

fn map<M: Machine>(caller: &mut Caller<'_, M>, args: &MmapArgs, target: Target<M>) -> Result<u64, Errno> {
    let rights = rights_of(args.protection);
    let is_fixed = args.flags & linux::MAP_FIXED != 0;
    let placement = match (is_fixed, args.address) {
        (true, _) if args.flags & linux::MAP_FIXED_NOREPLACE != 0 => Placement::FixedNoReplace,
        (true, _) => Placement::Fixed,
        (false, 0) => Placement::Anywhere,
        (false, _) => Placement::Hint,
    };
    let sharing = target.sharing;
    let mut flags = all_flags(caller, args);
    if args.flags & linux::MAP_TYPE == MAP_DROPPABLE {
        flags = flags | AreaFlags::DROPPABLE | AreaFlags::NO_RESERVE | AreaFlags::WIPE_ON_FORK | AreaFlags::NO_DUMP;
    }
    // Linux neither locks nor brings in what is raw; its driver fills it.
    let is_raw = matches!(target.backing, Backing::Frames);
    if is_raw {
        flags = flags.without(AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT);
    }
    let backing = if is_huge(args) {
        let object = caller.cpu.vm().new_huge_memory(args.length, "/anon_hugepage (deleted)");
        Backing::Object { object: object.map_err(|_| Errno::ENOMEM)?, offset: args.offset }
    } else {
        target.backing
    };
    let wanted = MapRequest {
        addr: VirtAddr::new(args.address),
        len: args.length,
        placement,
        rights,
        max_rights: target.max_rights,
        sharing,
        backing,
        flags,
    };
    let start = if args.flags & linux::MAP_32BIT != 0 && !is_fixed {
        map_low(caller, wanted)?
    } else {
        let mapped = caller.memory.space.map(caller.cpu, wanted);
        mapped.map_err(|error| {
            // Another thread may have locked what was left since that was checked.
            let too_much = flags.contains(AreaFlags::LOCKED) && !caller.may_lock(args.length / PAGE_SIZE);
            if error == MapError::NoMemory && too_much { Errno::EAGAIN } else { errno_of(error) }
        })?
    };
    let locks =
        flags.contains(AreaFlags::LOCKED) && !flags.intersects(AreaFlags::LOCKED_ON_FAULT | AreaFlags::DROPPABLE);
    let populates = args.flags & (linux::MAP_POPULATE | linux::MAP_NONBLOCK) == linux::MAP_POPULATE;
    if !is_raw && (locks || populates && !flags.contains(AreaFlags::LOCKED_ON_FAULT)) {
        populate(caller, start, args.length, rights, sharing);
    }
    Ok(start.as_u64())
}

/// `MAP_32BIT`: at the hint if that is low enough and free, else at the lowest free place of the second gigabyte.
fn map_low<M: Machine>(caller: &mut Caller<'_, M>, mut request: MapRequest<M>) -> Result<VirtAddr, Errno> {
    const LOW: u64 = 0x4000_0000;
    const HIGH: u64 = 0x8000_0000;
    request.placement = Placement::FixedNoReplace;
    let unit = match &request.backing {
        Backing::Object { object, .. } if object.is_large() => HUGE_PAGE,
        _ => PAGE_SIZE,
    };
    let hint = request.addr.as_u64().next_multiple_of(unit);
    let mut at = if hint != 0 && request.len <= HIGH && hint <= HIGH - request.len { hint } else { LOW };
    // Ends: each round moves up, past an area or because another thread was faster.
    while request.len <= HIGH && at <= HIGH - request.len {
        request.addr = VirtAddr::new(at);
        match caller.memory.space.map(caller.cpu, request.clone()) {
            Err(MapError::Exists) if at == hint => at = LOW,
            Err(MapError::Exists) => {
                let end = at + request.len;
                let blocking = caller.find(|area| area.range.start().as_u64() < end && area.range.end().as_u64() > at);
                at = blocking.map_or(at + PAGE_SIZE, |area| area.range.end().as_u64()).next_multiple_of(unit);
            }
            other => return other.map_err(errno_of),
        }
    }
    Err(Errno::ENOMEM)
}

fn errno_of(error: MapError) -> Errno {
    match error {
        MapError::Invalid => Errno::EINVAL,
        MapError::NoMemory => Errno::ENOMEM,
        MapError::NotPermitted => Errno::EPERM,
        MapError::Exists => Errno::EEXIST,
        MapError::Denied => Errno::EACCES,
        MapError::Overflow => Errno::EOVERFLOW,
    }
}

/// Touches each page of a fresh mapping. What cannot be had now is left to later faults.
fn populate<M: Machine>(caller: &mut Caller<'_, M>, start: VirtAddr, length: u64, rights: Rights, sharing: Sharing) {
    let access = match sharing {
        Sharing::Private if rights.contains(Rights::WRITE) => Access::Write,
        _ if rights.is_none() => return,
        // Whatever may be done at all, reading is among it on this architecture.
        _ => Access::Read,
    };
    for at in (0..length).step_by(PAGE_SIZE as usize) {
        let address = VirtAddr::new(start.as_u64() + at);
        if caller.memory.space.fault(caller.cpu, address, access).is_err() {
            return;
        }
    }
}
