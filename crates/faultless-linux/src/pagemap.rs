//! The entries of /proc/PID/pagemap, and the values of /proc/PID/clear_refs.
//!
//! Called by whoever shows /proc. Absent on purpose: swapped pages, until there is swap.

use faultless::{AreaFlags, ClearRefs, Cpu, Machine, PAGE_SHIFT, PAGE_SIZE, PageKind, PageRange, Space, VirtAddr};

use crate::Errno;

/// Bytes of an entry.
pub const ENTRY: u64 = 8;
/// The page is there.
pub const PRESENT: u64 = 1 << 63;
/// It is swapped out.
pub const SWAPPED: u64 = 1 << 62;
/// It belongs to a file or to shared memory.
pub const FILE: u64 = 1 << 61;
/// It is mapped here only.
pub const EXCLUSIVE: u64 = 1 << 56;
/// It was stored to since that was last cleared.
pub const SOFT_DIRTY: u64 = 1 << 55;

/// Who may see frame numbers (CAP_SYS_ADMIN).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frames {
    /// Numbers as they are.
    Shown,
    /// Zero instead.
    Hidden,
}

/// Fills `into` with the entries of the pages from number `first` on, and says how many there are: fewer at the end of
/// the space. Makes no tables, whatever is not mapped.
pub fn pagemap<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, first: u64, frames: Frames, into: &mut [u64]) -> usize {
    let end = space.layout().highest.as_u64() >> PAGE_SHIFT;
    let count = end.saturating_sub(first).min(into.len() as u64);
    let into = &mut into[..count as usize];
    into.fill(0);
    let Ok(range) = PageRange::with_len(VirtAddr::new(first << PAGE_SHIFT), count << PAGE_SHIFT) else {
        return 0;
    };
    let index = |at: VirtAddr| ((at.as_u64() - range.start().as_u64()) / PAGE_SIZE) as usize;
    space.areas_in(cpu, range, |area| {
        if let Some(part) = area.range.intersect(range).filter(|_| area.flags.contains(AreaFlags::SOFT_DIRTY)) {
            into[index(part.start())..][..part.pages() as usize].fill(SOFT_DIRTY);
        }
    });
    space.pages(cpu, range, |page| {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let counts = !matches!(page.kind, PageKind::Zero | PageKind::Raw);
        into[index(page.addr)] |= PRESENT
            | flag(frames == Frames::Shown, page.frame.as_u64())
            | flag(page.soft_dirty, SOFT_DIRTY)
            | flag(counts && !page.is_shared(), EXCLUSIVE)
            | flag(matches!(page.kind, PageKind::File | PageKind::Shmem), FILE);
    });
    into.len()
}

/// Does what a number written to `clear_refs` says (proc(5)).
///
/// # Errors
///
/// `EINVAL` for what is no number from 1 to 5, `ENOMEM`.
pub fn clear_refs<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, value: &[u8]) -> Result<(), Errno> {
    let number = core::str::from_utf8(value.trim_ascii()).ok().and_then(|text| text.parse::<i32>().ok());
    let refs = match number {
        Some(1) => ClearRefs::Accessed,
        Some(2) => ClearRefs::AccessedAnon,
        Some(3) => ClearRefs::AccessedFile,
        Some(4) => ClearRefs::SoftDirty,
        Some(5) => {
            space.reset_peak();
            return Ok(());
        }
        _ => return Err(Errno::EINVAL),
    };
    space.clear_refs(cpu, refs).map_err(|_| Errno::ENOMEM)
}
