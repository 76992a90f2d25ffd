//! `fallocate`, as far as it needs no file: which requests there are, and what tmpfs makes of them.
//!
//! Who has the file makes the pages. Absent on purpose: what other file systems can do besides.

use linux_raw_sys::general as linux;

use crate::Errno;

/// Zeroes that are written; not among the constants yet.
const WRITE_ZEROES: u32 = 0x80;

/// What is to be done with a range of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocation {
    /// There shall be pages, and the file ends behind them at least.
    Extend,
    /// There shall be pages, also behind the end of the file, which stays where it is.
    KeepSize,
    /// Zeroes instead of pages.
    PunchHole,
}

/// Is it a request that some file system could grant? Asked before the file is looked at.
///
/// # Errors
///
/// `EINVAL` (the range), `EOPNOTSUPP` (the mode).
pub fn check_fallocate(mode: u32, offset: i64, length: i64) -> Result<(), Errno> {
    if offset < 0 || length <= 0 {
        return Err(Errno::EINVAL);
    }
    let keeps_size = mode & linux::FALLOC_FL_KEEP_SIZE != 0;
    let known = match mode & !linux::FALLOC_FL_KEEP_SIZE {
        0 | linux::FALLOC_FL_UNSHARE_RANGE | linux::FALLOC_FL_ZERO_RANGE => true,
        linux::FALLOC_FL_PUNCH_HOLE => keeps_size,
        linux::FALLOC_FL_COLLAPSE_RANGE | linux::FALLOC_FL_INSERT_RANGE | WRITE_ZEROES => !keeps_size,
        _ => false,
    };
    if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// What tmpfs is to do, and in which bytes, in a file of at most `most` bytes. The request was checked.
///
/// # Errors
///
/// `EFBIG`, `EOPNOTSUPP` (a mode that tmpfs does not have).
pub fn allocation(mode: u32, offset: i64, length: i64, most: u64) -> Result<(Allocation, u64, u64), Errno> {
    let end = offset.checked_add(length).ok_or(Errno::EFBIG)?.cast_unsigned();
    if end > most {
        return Err(Errno::EFBIG);
    }
    let keeps_size = mode & linux::FALLOC_FL_KEEP_SIZE != 0;
    let what = match mode & !linux::FALLOC_FL_KEEP_SIZE {
        0 if keeps_size => Allocation::KeepSize,
        0 => Allocation::Extend,
        linux::FALLOC_FL_PUNCH_HOLE => Allocation::PunchHole,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    Ok((what, offset.cast_unsigned(), end))
}
