//! `mmap`.

use alloc::sync::Arc;

use faultless::{
    Access, AreaFlags, Backing, MapError, MapRequest, PAGE_SIZE, PageRange, Placement, Rights, Sharing, VirtAddr,
};
use linux_raw_sys::general as linux;

use super::{Growth, check_limits, each_area, page_align, rights_of};
use crate::arch::user::USER_END;
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, Device, MAX_SIZE, OpenFile};
use crate::machine::KernelMachine;
use crate::syscall::call::Call;

/// Lowest address that may be mapped (`/proc/sys/vm/mmap_min_addr`).
const MIN_ADDRESS: u64 = 0x1_0000;
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
const TYPE: u32 = linux::MAP_TYPE;

/// The arguments, cut and rounded.
#[derive(Clone, Copy)]
struct Request {
    address: u64,
    length: u64,
    protection: u32,
    flags: u32,
    offset: u64,
}

/// What is behind the mapping, and what its flags came to.
struct Target {
    backing: Backing<KernelMachine>,
    sharing: Sharing,
    max_rights: Rights,
}

pub(in crate::syscall) fn mmap(call: &mut Call<'_>) -> SysResult {
    let request = Request {
        address: call.word(0),
        length: call.word(1),
        protection: call.uint(2),
        flags: call.uint(3),
        offset: call.word(5),
    };
    if !request.offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let file = file_of(call, request.flags)?;
    let request = check_range(request)?;
    let target = match target_of(&request, file.as_deref()) {
        Ok(target) => target,
        Err(errno) if is_taken(call, &request) => {
            // Linux looks for what is in the way before it looks at the file.
            let _ = errno;
            return Err(Errno::EEXIST);
        }
        Err(errno) => return Err(errno),
    };
    map(call, &request, target)
}

/// The file that is to be mapped; none for anonymous memory.
fn file_of(call: &Call<'_>, flags: u32) -> Result<Option<Arc<OpenFile>>, Errno> {
    let huge = flags & linux::MAP_HUGETLB != 0;
    if flags & linux::MAP_ANONYMOUS == 0 {
        let file = call.file(4)?;
        return if huge { Err(Errno::EINVAL) } else { Ok(Some(file)) };
    }
    if huge {
        // A machine whose pools of huge pages (2 MiB and 1 GiB) are empty.
        let size = flags >> linux::MAP_HUGE_SHIFT & linux::MAP_HUGE_MASK;
        return Err(if matches!(size, 0 | 21 | 30) { Errno::ENOMEM } else { Errno::EINVAL });
    }
    Ok(None)
}

/// Checks length, offset and address; the length comes back rounded, and so does an address that is
/// only a hint.
fn check_range(mut request: Request) -> Result<Request, Errno> {
    if request.length == 0 {
        return Err(Errno::EINVAL);
    }
    if request.flags & linux::MAP_FIXED_NOREPLACE != 0 {
        request.flags |= linux::MAP_FIXED;
    }
    let is_fixed = request.flags & linux::MAP_FIXED != 0;
    if !is_fixed {
        request.address &= !(PAGE_SIZE - 1);
        if request.address != 0 && request.address < MIN_ADDRESS {
            request.address = MIN_ADDRESS;
        }
    }
    request.length = page_align(request.length);
    if request.length == 0 {
        return Err(Errno::ENOMEM);
    }
    // Linux checks the sum of offset and length in pages here, which cannot wrap on 64 bits.
    if request.length > USER_END {
        return Err(Errno::ENOMEM);
    }
    if is_fixed {
        if request.address > USER_END - request.length {
            return Err(Errno::ENOMEM);
        }
        if !request.address.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if request.address < MIN_ADDRESS {
            return Err(Errno::EPERM);
        }
    }
    Ok(request)
}

/// Whether the mapping must not replace anything, and something is there.
fn is_taken(call: &mut Call<'_>, request: &Request) -> bool {
    if request.flags & linux::MAP_FIXED_NOREPLACE == 0 {
        return false;
    }
    match PageRange::with_len(VirtAddr::new(request.address), request.length) {
        Ok(range) => {
            let mut taken = false;
            each_area(call, |area| taken |= area.range.intersect(range).is_some());
            taken
        }
        Err(_) => false,
    }
}

/// Checks the flags against the file, or without one.
fn target_of(request: &Request, file: Option<&OpenFile>) -> Result<Target, Errno> {
    if request.flags & linux::MAP_LOCKED != 0 {
        // Nobody may lock memory: the limit is zero.
        return Err(Errno::EPERM);
    }
    match file {
        Some(file) => target_in_file(request, file),
        None => anonymous(request),
    }
}

fn anonymous(request: &Request) -> Result<Target, Errno> {
    let sharing = match request.flags & TYPE {
        linux::MAP_SHARED if request.flags & linux::MAP_GROWSDOWN != 0 => return Err(Errno::EINVAL),
        linux::MAP_SHARED => Sharing::Shared,
        linux::MAP_PRIVATE => Sharing::Private,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Target { backing: Backing::Anonymous, sharing, max_rights: Rights::ALL })
}

fn target_in_file(request: &Request, file: &OpenFile) -> Result<Target, Errno> {
    let Request { length, protection, flags, offset, .. } = *request;
    let too_far = length > MAX_SIZE || offset > MAX_SIZE - length;
    if too_far && matches!(file.inode.body, Body::Regular(_)) {
        return Err(Errno::EOVERFLOW);
    }
    let writable = file.rights().write;
    let (sharing, max_rights) = match flags & TYPE {
        kind @ (linux::MAP_SHARED | linux::MAP_SHARED_VALIDATE) => {
            if kind == linux::MAP_SHARED_VALIDATE && flags & !(LEGACY | linux::MAP_SHARED_VALIDATE) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if protection & linux::PROT_WRITE != 0 && !writable {
                return Err(Errno::EACCES);
            }
            let most = if writable { Rights::ALL } else { Rights::READ | Rights::EXECUTE };
            (Sharing::Shared, most)
        }
        linux::MAP_PRIVATE => (Sharing::Private, Rights::ALL),
        _ => return Err(Errno::EINVAL),
    };
    if !file.rights().read {
        return Err(Errno::EACCES);
    }
    let backing = match &file.inode.body {
        Body::Regular(data) => Backing::Object { object: data.object(&file.inode)?, offset },
        Body::Device(Device::Zero) => Backing::Anonymous,
        _ => return Err(Errno::ENODEV),
    };
    if flags & linux::MAP_GROWSDOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Target { backing, sharing, max_rights })
}

fn map(call: &mut Call<'_>, request: &Request, target: Target) -> SysResult {
    let rights = rights_of(request.protection);
    let is_fixed = request.flags & linux::MAP_FIXED != 0;
    let placement = match (is_fixed, request.address) {
        (true, _) if request.flags & linux::MAP_FIXED_NOREPLACE != 0 => Placement::FixedNoReplace,
        (true, _) => Placement::Fixed,
        (false, 0) => Placement::Anywhere,
        (false, _) => Placement::Hint,
    };
    let sharing = target.sharing;
    let is_data = rights.contains(Rights::WRITE) && sharing == Sharing::Private;
    let growth = if is_data { Growth::Data } else { Growth::Other };
    let replaced = match placement {
        Placement::Fixed => PageRange::with_len(VirtAddr::new(request.address), request.length).ok(),
        _ => None,
    };
    check_limits(call, request.length, growth, replaced)?;
    let wanted = MapRequest {
        addr: VirtAddr::new(request.address),
        len: request.length,
        placement,
        rights,
        max_rights: target.max_rights,
        sharing,
        backing: target.backing,
        flags: flags_of(request.flags),
    };
    let low = request.flags & linux::MAP_32BIT != 0 && !is_fixed;
    let start = if low {
        map_low(call, wanted)?
    } else {
        let memory = call.process().memory();
        memory.space.map(&mut call.cpu.vm, wanted).map_err(errno_of)?
    };
    if request.flags & (linux::MAP_POPULATE | linux::MAP_NONBLOCK) == linux::MAP_POPULATE {
        populate(call, start, request.length, rights, sharing);
    }
    Ok(start.as_u64().cast_signed())
}

/// `MAP_32BIT`: at the hint if that is low enough and free, else at the lowest free place of the second
/// gigabyte.
fn map_low(call: &mut Call<'_>, mut request: MapRequest<KernelMachine>) -> Result<VirtAddr, Errno> {
    const LOW: u64 = 0x4000_0000;
    const HIGH: u64 = 0x8000_0000;
    request.placement = Placement::FixedNoReplace;
    let memory = call.process().memory();
    let hint = request.addr.as_u64();
    let mut at = if hint != 0 && request.len <= HIGH && hint <= HIGH - request.len { hint } else { LOW };
    // Ends: each round moves up, past an area or because another thread was faster.
    while request.len <= HIGH && at <= HIGH - request.len {
        request.addr = VirtAddr::new(at);
        match memory.space.map(&mut call.cpu.vm, request.clone()) {
            Err(MapError::Exists) if at == hint => at = LOW,
            Err(MapError::Exists) => {
                let end = at + request.len;
                let mut next = None;
                each_area(call, |area| {
                    let (start, area_end) = (area.range.start().as_u64(), area.range.end().as_u64());
                    if start < end && area_end > at {
                        next = Some(next.map_or(area_end, |n: u64| n.min(area_end)));
                    }
                });
                at = next.unwrap_or(at + PAGE_SIZE);
            }
            other => return other.map_err(errno_of),
        }
    }
    Err(Errno::ENOMEM)
}

fn flags_of(flags: u32) -> AreaFlags {
    let part = |bit, flag| if flags & bit != 0 { flag } else { AreaFlags::NONE };
    part(linux::MAP_GROWSDOWN, AreaFlags::GROWS_DOWN) | part(linux::MAP_NORESERVE, AreaFlags::NO_RESERVE)
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
fn populate(call: &mut Call<'_>, start: VirtAddr, length: u64, rights: Rights, sharing: Sharing) {
    let access = match sharing {
        Sharing::Private if rights.contains(Rights::WRITE) => Access::Write,
        _ if rights.contains(Rights::READ) => Access::Read,
        _ if rights.contains(Rights::EXECUTE) => Access::Execute,
        _ => return,
    };
    let memory = call.process().memory();
    for at in (0..length).step_by(PAGE_SIZE as usize) {
        let address = VirtAddr::new(start.as_u64() + at);
        if memory.space.fault(&mut call.cpu.vm, address, access).is_err() {
            return;
        }
    }
}
