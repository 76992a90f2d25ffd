//! `madvise`.

use faultless::{
    AdviseError, AreaFlags, AreaInfo, CollapseError, FaultError, Machine, PageRange, Populate, Rights, Sharing,
    VirtAddr,
};
use linux_raw_sys::general as linux;

use crate::flags::{is_page, page_align};
use crate::{Caller, Errno};

/// What is advised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Advice {
    /// A hint: it is checked, and nothing depends on it.
    Hint,
    /// The same, refused by locked memory.
    Cold,
    /// Flags to set and to clear.
    Flags(AreaFlags, AreaFlags),
    /// Contents for parents only; private anonymous memory.
    WipeOnFork,
    Discard {
        locked_too: bool,
    },
    FreeLazily,
    Remove,
    Collapse,
    Populate(Populate),
}

impl Advice {
    /// Does it lose contents, here or for children?
    fn discards(self) -> bool {
        match self {
            Self::Discard { .. } | Self::FreeLazily | Self::Remove | Self::WipeOnFork => true,
            Self::Flags(set, _) => set.contains(AreaFlags::NO_FORK),
            Self::Hint | Self::Cold | Self::Collapse | Self::Populate(_) => false,
        }
    }
}

/// Could the program not have lost the contents by storing? Sealed memory keeps them then.
fn is_frozen<M: Machine>(area: &AreaInfo<M>) -> bool {
    area.object.is_none() && area.sharing == Sharing::Private && !area.rights.contains(Rights::WRITE)
}

/// The advice of a number; `None` for what the core does not do (and Linux's own unknowns).
fn advice_of(number: u32) -> Option<Advice> {
    use Advice::{Discard, Flags, FreeLazily, Hint, Remove, WipeOnFork};
    const NONE: AreaFlags = AreaFlags::NONE;
    Some(match number {
        linux::MADV_NORMAL => Flags(NONE, AreaFlags::RANDOM | AreaFlags::SEQUENTIAL),
        linux::MADV_RANDOM => Flags(AreaFlags::RANDOM, AreaFlags::SEQUENTIAL),
        linux::MADV_SEQUENTIAL => Flags(AreaFlags::SEQUENTIAL, AreaFlags::RANDOM),
        linux::MADV_WILLNEED => Hint,
        linux::MADV_COLD => Advice::Cold,
        linux::MADV_DONTNEED => Discard { locked_too: false },
        linux::MADV_DONTNEED_LOCKED => Discard { locked_too: true },
        linux::MADV_FREE => FreeLazily,
        linux::MADV_REMOVE => Remove,
        linux::MADV_DONTFORK => Flags(AreaFlags::NO_FORK, NONE),
        linux::MADV_DOFORK => Flags(NONE, AreaFlags::NO_FORK),
        linux::MADV_WIPEONFORK => WipeOnFork,
        linux::MADV_KEEPONFORK => Flags(NONE, AreaFlags::WIPE_ON_FORK),
        linux::MADV_DONTDUMP => Flags(AreaFlags::NO_DUMP, NONE),
        linux::MADV_DODUMP => Flags(NONE, AreaFlags::NO_DUMP),
        linux::MADV_HUGEPAGE => Flags(AreaFlags::HUGE, AreaFlags::NO_HUGE),
        linux::MADV_NOHUGEPAGE => Flags(AreaFlags::NO_HUGE, AreaFlags::HUGE),
        linux::MADV_COLLAPSE => Advice::Collapse,
        linux::MADV_POPULATE_READ => Advice::Populate(Populate::Read),
        linux::MADV_POPULATE_WRITE => Advice::Populate(Populate::Write),
        _ => return None,
    })
}

/// Advises about the range, area by area: what comes before an area that refuses is done, and so is what lies around a
/// hole, which is reported at the end.
///
/// Hints without effect: `WILLNEED` and `COLD` (nothing is read ahead or aged yet). Refused until the core has them:
/// `PAGEOUT`, `MERGEABLE`, `HWPOISON`, `SOFT_OFFLINE`.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`, `EACCES`, `EFAULT`, `EAGAIN`, `EPERM` (sealed).
pub fn madvise<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64, advice: u32) -> Result<(), Errno> {
    let advice = advice_of(advice).ok_or(Errno::EINVAL)?;
    let rounded = page_align(length);
    if !is_page(start) || length != 0 && rounded == 0 {
        return Err(Errno::EINVAL);
    }
    let end = start.wrapping_add(rounded);
    if end < start {
        return Err(Errno::EINVAL);
    }
    if end == start {
        return Ok(());
    }
    match advice {
        Advice::Populate(how) => populate(caller, start, end, how),
        advice => Ok(caller.each_area(start, end, |caller, area, part| advise(caller, advice, area, part))?),
    }
}

/// Advises about a part of one area.
fn advise<M: Machine>(
    caller: &mut Caller<'_, M>,
    advice: Advice,
    area: &AreaInfo<M>,
    part: PageRange,
) -> Result<(), Errno> {
    let space = &caller.memory.space;
    if area.flags.contains(AreaFlags::SEALED) && advice.discards() && is_frozen(area) {
        return Err(Errno::EPERM);
    }
    let droppable = area.flags.contains(AreaFlags::DROPPABLE);
    match advice {
        Advice::Hint | Advice::Populate(_) => Ok(()),
        Advice::Cold if area.flags.intersects(AreaFlags::LOCKED | AreaFlags::RAW | AreaFlags::HUGETLB) => {
            Err(Errno::EINVAL)
        }
        Advice::Cold => Ok(()),
        // What may be lost at any time is kept neither for children nor for dumps.
        Advice::Flags(_, clear) if droppable && clear.intersects(AreaFlags::WIPE_ON_FORK | AreaFlags::NO_DUMP) => {
            Err(Errno::EINVAL)
        }
        Advice::Flags(set, clear) => space.set_flags(caller.cpu, part, set, clear, |_| true).map_err(errno_of),
        Advice::WipeOnFork if area.object.is_some() || area.sharing == Sharing::Shared => Err(Errno::EINVAL),
        Advice::WipeOnFork => {
            let wipe = AreaFlags::WIPE_ON_FORK;
            space.set_flags(caller.cpu, part, wipe, AreaFlags::NONE, |_| true).map_err(errno_of)
        }
        Advice::Discard { locked_too } => space.discard(caller.cpu, part, locked_too).map_err(errno_of),
        Advice::FreeLazily => space.free_lazily(caller.cpu, part).map_err(errno_of),
        Advice::Remove => remove(caller, area, part),
        Advice::Collapse => space.collapse(caller.cpu, part).map_err(collapse_errno),
    }
}

/// `MADV_REMOVE`: a hole in the object, which must be one that the mapping could write.
fn remove<M: Machine>(caller: &mut Caller<'_, M>, area: &AreaInfo<M>, part: PageRange) -> Result<(), Errno> {
    let (object, offset) = area.object.as_ref().ok_or(Errno::EINVAL)?;
    // Nonlinear: as Linux did while it had such mappings (NL-03).
    if area.flags.intersects(AreaFlags::LOCKED | AreaFlags::NONLINEAR) {
        return Err(Errno::EINVAL);
    }
    if area.sharing != Sharing::Shared || !area.max_rights.contains(Rights::WRITE) {
        return Err(Errno::EACCES);
    }
    caller.memory.space.tell_removed(caller.cpu, part);
    let offset = offset + (part.start().as_u64() - area.range.start().as_u64());
    object.punch_hole(caller.cpu, offset, part.len()).map_err(|_| Errno::ENOMEM)
}

/// Brings pages in, up to the first that cannot be had. Unlike an access, it asks for the very right.
fn populate<M: Machine>(caller: &mut Caller<'_, M>, start: u64, end: u64, how: Populate) -> Result<(), Errno> {
    let right = if how == Populate::Write { Rights::WRITE } else { Rights::READ };
    let mut at = start;
    // Ends: each round passes an area.
    while at < end {
        let area =
            if at < caller.memory.end() { caller.memory.space.area_at(caller.cpu, VirtAddr::new(at)) } else { None };
        let area = area.ok_or(Errno::ENOMEM)?;
        if !area.rights.contains(right) {
            return Err(Errno::EINVAL);
        }
        let stop = area.range.end().as_u64().min(end);
        let part = PageRange::new(VirtAddr::new(at), VirtAddr::new(stop)).map_err(|_| Errno::EINVAL)?;
        caller.memory.space.populate(caller.cpu, part, how).map_err(|error| match error.fault {
            FaultError::Denied => Errno::EINVAL,
            FaultError::Bus | FaultError::Watched => Errno::EFAULT,
            FaultError::Unmapped | FaultError::OutOfMemory => Errno::ENOMEM,
        })?;
        at = stop;
    }
    Ok(())
}

fn collapse_errno(error: CollapseError) -> Errno {
    match error {
        CollapseError::Unmapped | CollapseError::NoMemory => Errno::ENOMEM,
        CollapseError::Invalid => Errno::EINVAL,
        CollapseError::Busy => Errno::EAGAIN,
    }
}

fn errno_of(error: AdviseError) -> Errno {
    match error {
        AdviseError::Unmapped => Errno::ENOMEM,
        AdviseError::Refused(_) => Errno::EINVAL,
        AdviseError::NoMemory(_) => Errno::EAGAIN,
    }
}
