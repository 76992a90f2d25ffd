//! `mremap`.

use faultless::{Destination, Machine, PageRange, RemapError, RemapRequest, Rights, Sharing, VirtAddr};
use linux_raw_sys::general as linux;

use crate::flags::{is_page, page_align};
use crate::memory::Growth;
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

/// Resizes or moves a mapping and returns where it is.
///
/// # Errors
///
/// `EINVAL`, `EFAULT`, `ENOMEM`, `EPERM`.
pub fn mremap<M: Machine>(caller: &mut Caller<'_, M>, args: MremapArgs) -> Result<u64, Errno> {
    let MremapArgs { address, flags, new_address, .. } = args;
    let (old, new) = (page_align(args.old_length), page_align(args.new_length));
    check(caller, &args, old, new)?;
    let area = if address < caller.memory.end() {
        caller.memory.space.area_at(caller.cpu, VirtAddr::new(address))
    } else {
        None
    };
    let area = area.ok_or(Errno::EFAULT)?;
    if old == 0 && area.sharing == Sharing::Private {
        return Err(Errno::EINVAL);
    }
    let stays = flags & (linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP) == 0;
    if new < old {
        // Linux cuts the end off before it looks whether the rest is one mapping.
        cut(caller, address, new, old)?;
        if stays {
            return Ok(address);
        }
    }
    let old = old.min(new);
    let keep = flags & linux::MREMAP_DONTUNMAP != 0;
    let growth = if keep { new } else { new.saturating_sub(old) };
    if growth != 0 {
        let is_data = area.sharing == Sharing::Private && area.rights.contains(Rights::WRITE);
        caller.check_limits(growth, if is_data { Growth::Data } else { Growth::Other }, None)?;
    }
    let destination = if flags & linux::MREMAP_FIXED != 0 {
        Destination::Fixed(VirtAddr::new(new_address))
    } else if flags & linux::MREMAP_MAYMOVE != 0 {
        Destination::Anywhere
    } else {
        Destination::InPlace
    };
    let request = RemapRequest { addr: VirtAddr::new(address), old_len: old, new_len: new, destination, keep };
    match caller.memory.space.remap(caller.cpu, request) {
        Ok(at) => Ok(at.as_u64()),
        Err(RemapError::Invalid) => Err(Errno::EINVAL),
        Err(RemapError::Unmapped) => Err(Errno::EFAULT),
        Err(RemapError::NoMemory) => Err(Errno::ENOMEM),
        Err(RemapError::Sealed) => Err(Errno::EPERM),
    }
}

/// Unmaps what lies beyond the new length.
fn cut<M: Machine>(caller: &mut Caller<'_, M>, address: u64, new: u64, old: u64) -> Result<(), Errno> {
    let end = address.checked_add(old).filter(|end| *end <= caller.memory.end()).ok_or(Errno::EINVAL)?;
    let tail = PageRange::new(VirtAddr::new(address + new), VirtAddr::new(end)).map_err(|_| Errno::EINVAL)?;
    caller.memory.space.unmap(caller.cpu, tail).map_err(|_| Errno::ENOMEM)
}

/// What needs no look at the mapping; lengths are rounded.
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
    let new_address = if flags & linux::MREMAP_FIXED != 0 { new_address } else { 0 };
    let silly = !is_page(new_address) || new_address > end - new;
    let without_move = flags & linux::MREMAP_MAYMOVE == 0;
    let unequal = flags & linux::MREMAP_DONTUNMAP != 0 && old != new;
    let overlaps = flags & linux::MREMAP_FIXED != 0
        && address.saturating_add(old) > new_address
        && new_address.saturating_add(new) > address;
    if silly || without_move || unequal || overlaps { Err(Errno::EINVAL) } else { Ok(()) }
}
