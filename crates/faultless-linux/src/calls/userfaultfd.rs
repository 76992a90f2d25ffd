//! The requests of a `userfaultfd`, on the memory that it belongs to: ioctl_userfaultfd(2).
//!
//! Absent on purpose: the descriptor, its messages and the structures in user memory, which are the embedder's; the
//! features that [`FEATURES`] does not name.

use alloc::sync::Arc;
use alloc::vec;
use faultless::{
    Access, Fill, Machine, PAGE_SIZE, PageRange, Report, VirtAddr, WatchError, WatchModes, Watched, Watcher,
};
use linux_raw_sys::general as linux;

use crate::flags::is_page;
use crate::{Caller, Errno};

/// What works, of `UFFD_FEATURE_*`.
pub const FEATURES: u64 = (linux::UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | linux::UFFD_FEATURE_EVENT_FORK
    | linux::UFFD_FEATURE_EVENT_REMAP
    | linux::UFFD_FEATURE_EVENT_REMOVE
    | linux::UFFD_FEATURE_MISSING_SHMEM
    | linux::UFFD_FEATURE_EVENT_UNMAP
    | linux::UFFD_FEATURE_SIGBUS
    | linux::UFFD_FEATURE_THREAD_ID
    | linux::UFFD_FEATURE_MINOR_SHMEM
    | linux::UFFD_FEATURE_EXACT_ADDRESS
    | linux::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | linux::UFFD_FEATURE_WP_UNPOPULATED
    | linux::UFFD_FEATURE_POISON
    | linux::UFFD_FEATURE_MOVE) as u64;

/// The requests on the descriptor itself, as `UFFDIO_API` reports them.
pub const API_REQUESTS: u64 = 1 << linux::_UFFDIO_REGISTER | 1 << linux::_UFFDIO_UNREGISTER | 1 << linux::_UFFDIO_API;

/// The requests on a range.
const RANGE_REQUESTS: u64 = 1 << linux::_UFFDIO_WAKE
    | 1 << linux::_UFFDIO_COPY
    | 1 << linux::_UFFDIO_ZEROPAGE
    | 1 << linux::_UFFDIO_MOVE
    | 1 << linux::_UFFDIO_WRITEPROTECT
    | 1 << linux::_UFFDIO_CONTINUE
    | 1 << linux::_UFFDIO_POISON;

/// `mode` bits of the requests, which have the same places in all of them.
mod mode {
    pub(super) const DONT_WAKE: u64 = 1;
    /// Of `UFFDIO_COPY` and `UFFDIO_CONTINUE`.
    pub(super) const PROTECTED: u64 = 2;
    /// Of `UFFDIO_MOVE`.
    pub(super) const HOLES: u64 = 2;
    /// Of `UFFDIO_WRITEPROTECT`.
    pub(super) const PROTECT: u64 = 1;
    /// Of `UFFDIO_WRITEPROTECT`.
    pub(super) const PROTECT_DONT_WAKE: u64 = 2;
}

/// What is asked to be put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `UFFDIO_COPY`.
    Copy,
    /// `UFFDIO_ZEROPAGE`.
    Zeropage,
    /// `UFFDIO_CONTINUE`.
    Continue,
    /// `UFFDIO_POISON`.
    Poison,
}

/// How a request that works page by page ended: what its last field says, and what the call returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes, or the negated error number if there are none.
    pub field: i64,
    /// The result of the call.
    pub result: Result<(), Errno>,
}

impl Progress {
    fn of(done: u64, wanted: u64, stopped: Result<(), Errno>) -> Self {
        match stopped {
            Err(errno) if done == 0 => Self { field: errno.as_return(), result: Err(errno) },
            _ if done < wanted => Self { field: done.cast_signed(), result: Err(Errno::EAGAIN) },
            _ => Self { field: done.cast_signed(), result: Ok(()) },
        }
    }
}

/// The flags of a fault's message (`UFFD_PAGEFAULT_FLAG_*`).
#[must_use]
pub fn message_flags(report: &Report) -> u64 {
    let write = if report.access == Access::Write { linux::UFFD_PAGEFAULT_FLAG_WRITE } else { 0 };
    u64::from(match report.why {
        Watched::Missing => write,
        Watched::Minor => write | linux::UFFD_PAGEFAULT_FLAG_MINOR,
        Watched::Store => write | linux::UFFD_PAGEFAULT_FLAG_WP,
    })
}

/// The range of a request.
///
/// # Errors
///
/// `EINVAL`.
pub fn range<M: Machine>(caller: &Caller<'_, M>, start: u64, length: u64) -> Result<PageRange, Errno> {
    if !is_page(start) || !is_page(length) {
        return Err(Errno::EINVAL);
    }
    let range = PageRange::with_len(VirtAddr::new(start), length).map_err(|_| Errno::EINVAL)?;
    let layout = caller.memory.space.layout();
    if range.start() < layout.lowest || range.end() > layout.highest { Err(Errno::EINVAL) } else { Ok(range) }
}

/// `UFFDIO_REGISTER`. Returns the requests that the range takes.
///
/// # Errors
///
/// `EINVAL`, `EPERM`, `EBUSY`, `ENOMEM`.
pub fn register<M: Machine>(
    caller: &mut Caller<'_, M>,
    watcher: &Arc<dyn Watcher>,
    (start, length): (u64, u64),
    wanted: u64,
) -> Result<u64, Errno> {
    let has = |bit: u32| wanted & u64::from(bit) != 0;
    let modes = WatchModes {
        missing: has(linux::UFFDIO_REGISTER_MODE_MISSING),
        minor: has(linux::UFFDIO_REGISTER_MODE_MINOR),
        stores: has(linux::UFFDIO_REGISTER_MODE_WP),
    };
    let known =
        linux::UFFDIO_REGISTER_MODE_MISSING | linux::UFFDIO_REGISTER_MODE_MINOR | linux::UFFDIO_REGISTER_MODE_WP;
    if wanted == 0 || wanted & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range(caller, start, length)?;
    caller.memory.space.watch(caller.cpu, range, watcher, modes).map_err(errno_of)?;
    let without = |wanted: bool, request: u32| if wanted { 0 } else { 1 << request };
    Ok(RANGE_REQUESTS
        & !(without(modes.stores, linux::_UFFDIO_WRITEPROTECT) | without(modes.minor, linux::_UFFDIO_CONTINUE)))
}

/// `UFFDIO_UNREGISTER`.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`.
pub fn unregister<M: Machine>(caller: &mut Caller<'_, M>, start: u64, length: u64) -> Result<(), Errno> {
    let range = range(caller, start, length)?;
    caller.memory.space.unwatch(caller.cpu, range).map_err(errno_of)
}

/// `UFFDIO_COPY`, `ZEROPAGE`, `CONTINUE`, `POISON`: puts pages into the range, then wakes who waits for those that are in.
/// `bytes` fetches a page's worth of the source, given the offset from its start.
///
/// # Errors
///
/// `EINVAL` before anything is done.
pub fn fill<M: Machine>(
    caller: &mut Caller<'_, M>,
    watcher: &dyn Watcher,
    request: Request,
    range: PageRange,
    wanted: u64,
    mut bytes: impl FnMut(&mut Caller<'_, M>, u64, &mut [u8]) -> Result<(), Errno>,
) -> Result<Progress, Errno> {
    let marks = matches!(request, Request::Copy | Request::Continue);
    if wanted & !(mode::DONT_WAKE | if marks { mode::PROTECTED } else { 0 }) != 0 {
        return Err(Errno::EINVAL);
    }
    let marked = wanted & mode::PROTECTED != 0;
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut one = |caller: &mut Caller<'_, M>, offset: u64| {
        let at = VirtAddr::new(range.start().as_u64() + offset);
        let fill = match request {
            Request::Copy => {
                bytes(caller, offset, &mut page)?;
                Fill::Bytes(&page)
            }
            Request::Zeropage => Fill::Zeroes,
            Request::Continue => Fill::Cached,
            Request::Poison => Fill::Lost,
        };
        caller.memory.space.copy_in(caller.cpu, at, fill, marked).map_err(errno_of)
    };
    let (mut done, mut stopped) = (0, Ok(()));
    while done < range.len() && stopped.is_ok() {
        stopped = one(caller, done);
        done += if stopped.is_ok() { PAGE_SIZE } else { 0 };
    }
    if wanted & mode::DONT_WAKE == 0 {
        wake(watcher, range.start(), done);
    }
    Ok(Progress::of(done, range.len(), stopped))
}

/// `UFFDIO_WRITEPROTECT`.
///
/// # Errors
///
/// `EINVAL`, `ENOENT`, `ENOMEM`.
pub fn write_protect<M: Machine>(
    caller: &mut Caller<'_, M>,
    watcher: &dyn Watcher,
    (start, length): (u64, u64),
    wanted: u64,
) -> Result<(), Errno> {
    let range = range(caller, start, length)?;
    let both = mode::PROTECT | mode::PROTECT_DONT_WAKE;
    if wanted & !both != 0 || wanted == both {
        return Err(Errno::EINVAL);
    }
    caller.memory.space.mark(caller.cpu, range, wanted == mode::PROTECT).map_err(errno_of)?;
    if wanted == 0 {
        watcher.wake(range);
    }
    Ok(())
}

/// `UFFDIO_MOVE`.
///
/// # Errors
///
/// `EINVAL` before anything is done.
pub fn move_pages<M: Machine>(
    caller: &mut Caller<'_, M>,
    watcher: &Arc<dyn Watcher>,
    to: u64,
    from: u64,
    length: u64,
    wanted: u64,
) -> Result<Progress, Errno> {
    let to = range(caller, to, length)?;
    let from = range(caller, from, length)?;
    if wanted & !(mode::DONT_WAKE | mode::HOLES) != 0 {
        return Err(Errno::EINVAL);
    }
    let holes = wanted & mode::HOLES != 0;
    let (done, result) = caller.memory.space.move_in(caller.cpu, watcher, to, from.start(), holes);
    if wanted & mode::DONT_WAKE == 0 {
        wake(&**watcher, to.start(), done);
    }
    Ok(Progress::of(done, to.len(), result.map_err(errno_of)))
}

fn wake(watcher: &dyn Watcher, start: VirtAddr, length: u64) {
    if let Ok(range) = PageRange::with_len(start, length) {
        watcher.wake(range);
    }
}

fn errno_of(error: WatchError) -> Errno {
    match error {
        WatchError::Invalid => Errno::EINVAL,
        WatchError::ReadOnly => Errno::EPERM,
        WatchError::Busy => Errno::EBUSY,
        WatchError::Absent => Errno::ENOENT,
        WatchError::Exists => Errno::EEXIST,
        WatchError::NoPage => Errno::EFAULT,
        WatchError::NoMemory => Errno::ENOMEM,
    }
}
