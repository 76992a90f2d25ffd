//! `mremap`.

use faultless::{
    AreaFlags, AreaInfo, Destination, Machine, PAGE_SIZE, PageRange, RemapError, RemapRequest, Rights, STACK_GUARD,
    Sharing, UnmapError, VirtAddr,
};
use linux_raw_sys::general as linux;

use crate::flags::{HUGE_PAGE, is_page, page_align};
use crate::memory::{AreaError, Growth, LOCKING};
use crate::{Caller, Errno};

/// The arguments of `mremap`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MremapArgs {
    /// The mapping's address.
    pub address: u64,
    /// Its length.
    pub old_length: u64,
    /// The length it shall have.
    pub new_length: u64,
    /// `MREMAP_*`.
    pub flags: u32,
    /// Where it shall be, with `MREMAP_FIXED`.
    pub new_address: u64,
}

/// Resizes or moves a mapping and returns where it is. A move to a fixed place that changes no length takes all
/// mappings of the range with it, and the holes between them, as Linux does since 6.17.
///
/// # Errors
///
/// `EINVAL`, `EFAULT`, `ENOMEM`, `EPERM`.
pub fn mremap<M: Machine>(caller: &mut Caller<'_, M>, args: MremapArgs) -> Result<u64, Errno> {
    let MremapArgs { address, flags, new_address, .. } = args;
    let (old, new) = (page_align(args.old_length), page_align(args.new_length));
    check(caller, &args, old, new)?;
    // Out of the list, in which areas are whole.
    let area = caller.find(|area| area.range.contains(VirtAddr::new(address)));
    let area = area.ok_or(Errno::EFAULT)?;
    if area.flags.contains(AreaFlags::SEALED) {
        return Err(Errno::EPERM);
    }
    if area.flags.contains(AreaFlags::HUGETLB) {
        return remap_large(caller, &args, old, new);
    }
    let locked = area.flags.contains(AreaFlags::LOCKED);
    let keep = flags & linux::MREMAP_DONTUNMAP != 0;
    let fixed = flags & linux::MREMAP_FIXED != 0;
    if fixed && old == new && old != 0 {
        return move_all(caller, address, old, new_address, keep);
    }
    if new < old {
        if fixed && new > area.range.end().as_u64() - address {
            return Err(Errno::EFAULT);
        }
        if fixed && has_sealed(caller, new_address, new) {
            return Err(Errno::EPERM); // before anything is cut
        }
        // Linux cuts the end off whatever is mapped there.
        cut(caller, address, new, old)?;
        if !fixed {
            return Ok(address);
        }
    }
    let old = old.min(new);
    if old == 0 && area.sharing == Sharing::Private {
        return Err(Errno::EINVAL);
    }
    // Before all limits.
    if (old != new || fixed || keep) && old > area.range.end().as_u64() - address {
        return Err(Errno::EFAULT);
    }
    let growth = if keep { new } else { new - old };
    if growth != 0 {
        if locked && !caller.may_lock(growth / PAGE_SIZE) {
            return Err(Errno::EAGAIN);
        }
        let is_data = area.sharing == Sharing::Private && area.rights.contains(Rights::WRITE);
        caller.check_limits(growth / PAGE_SIZE, if is_data { Growth::Data } else { Growth::Other })?;
    }
    let crowded = caller.is_crowded();
    if crowded && (fixed || keep) {
        return Err(Errno::ENOMEM);
    }
    let destination = match flags & linux::MREMAP_MAYMOVE {
        // Who has nearly as many areas as there may be does not move.
        _ if crowded => Destination::InPlace,
        0 => Destination::InPlace,
        _ if fixed || keep && is_free(caller, new_address, new) => Destination::Fixed(VirtAddr::new(new_address)),
        _ => Destination::Anywhere,
    };
    let addr = VirtAddr::new(address);
    let at = remap(caller, RemapRequest { addr, old_len: old, new_len: new, destination, keep })?;
    if locked && new > old {
        // What cannot be had now is left to later faults.
        let _ = caller.populate_locked(at + old, at + new);
    }
    Ok(at)
}

/// A mapping of large pages of the pool: lengths are rounded up to them, and it moves or shrinks, and no more.
fn remap_large<M: Machine>(caller: &mut Caller<'_, M>, args: &MremapArgs, old: u64, new: u64) -> Result<u64, Errno> {
    let round = |length: u64| length.checked_next_multiple_of(HUGE_PAGE).ok_or(Errno::EINVAL);
    let (old, new) = (round(old)?, round(new)?);
    let fixed = args.flags & linux::MREMAP_FIXED != 0;
    let aligned = args.address.is_multiple_of(HUGE_PAGE) && (!fixed || args.new_address.is_multiple_of(HUGE_PAGE));
    if !aligned || old == 0 || new > old || args.flags & linux::MREMAP_DONTUNMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let destination = if fixed { Destination::Fixed(VirtAddr::new(args.new_address)) } else { Destination::InPlace };
    let addr = VirtAddr::new(args.address);
    remap(caller, RemapRequest { addr, old_len: old, new_len: new, destination, keep: false })
}

fn remap<M: Machine>(caller: &mut Caller<'_, M>, request: RemapRequest) -> Result<u64, Errno> {
    match caller.memory.space.remap(caller.cpu, request) {
        Ok(at) => {
            if let (true, Ok(left)) = (request.keep, PageRange::with_len(request.addr, request.old_len)) {
                // What stays without its pages is not locked any more.
                let space = &caller.memory.space;
                let _ = space.set_flags(caller.cpu, left, AreaFlags::NONE, LOCKING, |_| true);
            }
            Ok(at.as_u64())
        }
        Err(RemapError::Invalid) => Err(Errno::EINVAL),
        Err(RemapError::Unmapped) => Err(Errno::EFAULT),
        Err(RemapError::NoMemory) => Err(Errno::ENOMEM),
        Err(RemapError::Sealed) => Err(Errno::EPERM),
    }
}

/// Moves each mapping of the range to its place in the range at `to`.
fn move_all<M: Machine>(
    caller: &mut Caller<'_, M>,
    address: u64,
    length: u64,
    to: u64,
    keep: bool,
) -> Result<u64, Errno> {
    let moved = caller.each_area(address, address.saturating_add(length), |caller, _, part| {
        let place = VirtAddr::new(to + (part.start().as_u64() - address));
        let (addr, len) = (part.start(), part.len());
        remap(caller, RemapRequest { addr, old_len: len, new_len: len, destination: Destination::Fixed(place), keep })?;
        Ok(())
    });
    // Holes are no error here.
    match moved {
        Ok(()) | Err(AreaError::Holes) => Ok(to),
        Err(AreaError::Stopped(errno)) => Err(errno),
    }
}

/// May a mapping go to this place, which is only a hint? Not into the gap below a stack.
fn is_free<M: Machine>(caller: &mut Caller<'_, M>, address: u64, length: u64) -> bool {
    let lowest = caller.memory.space.layout().lowest.as_u64();
    let Some(end) = address.checked_add(length).filter(|_| address >= lowest) else {
        return false;
    };
    // What lies further up does not count, not even a stack.
    let next = caller.find(|area| area.range.end().as_u64() > address);
    next.is_none_or(|area| {
        let gap = if area.flags.contains(AreaFlags::GROWS_DOWN) { STACK_GUARD } else { 0 };
        end <= area.range.start().as_u64().saturating_sub(gap)
    })
}

/// Is anything sealed in the range?
fn has_sealed<M: Machine>(caller: &mut Caller<'_, M>, address: u64, length: u64) -> bool {
    let end = address.saturating_add(length);
    let meets = |area: &AreaInfo<M>| area.range.start().as_u64() < end && address < area.range.end().as_u64();
    caller.find(|area| area.flags.contains(AreaFlags::SEALED) && meets(area)).is_some()
}

/// Unmaps what lies beyond the new length.
fn cut<M: Machine>(caller: &mut Caller<'_, M>, address: u64, new: u64, old: u64) -> Result<(), Errno> {
    let end = address.checked_add(old).filter(|end| *end <= caller.memory.end()).ok_or(Errno::EINVAL)?;
    let tail = PageRange::new(VirtAddr::new(address + new), VirtAddr::new(end)).map_err(|_| Errno::EINVAL)?;
    caller.memory.space.unmap(caller.cpu, tail).map_err(|error| match error {
        UnmapError::Sealed => Errno::EPERM,
        UnmapError::Invalid => Errno::EINVAL,
        UnmapError::NoMemory => Errno::ENOMEM,
    })
}

/// What needs no look at the mapping; lengths are rounded. Without `MREMAP_FIXED` the new address is a hint, and is
/// checked all the same.
fn check<M: Machine>(caller: &Caller<'_, M>, args: &MremapArgs, old: u64, new: u64) -> Result<(), Errno> {
    const KNOWN: u32 = linux::MREMAP_MAYMOVE | linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP;
    let MremapArgs { address, flags, new_address, .. } = *args;
    let end = caller.memory.end();
    if flags & !KNOWN != 0 || !is_page(address) || new == 0 || new > end {
        return Err(Errno::EINVAL);
    }
    if flags & (linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP) == 0 {
        return Ok(());
    }
    let silly = !is_page(new_address) || new_address > end - new;
    let without_move = flags & linux::MREMAP_MAYMOVE == 0;
    let unequal = flags & linux::MREMAP_DONTUNMAP != 0 && old != new;
    let overlaps = address.saturating_add(old) > new_address && new_address.saturating_add(new) > address;
    if silly || without_move || unequal || overlaps { Err(Errno::EINVAL) } else { Ok(()) }
}
