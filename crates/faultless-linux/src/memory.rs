//! One process's memory as Linux sees it, and who makes a call on it.

use alloc::sync::Arc;
use core::fmt;
use faultless::{AreaFlags, AreaInfo, Cpu, ForkError, Machine, PageRange, Rights, Sharing, Space, VirtAddr};

use crate::Errno;

/// The memory of one process. Threads and `vfork` children share it.
///
/// What Linux keeps per memory besides the space itself belongs here; today that is nothing: the core keeps the break,
/// what is locked, and what later mappings are to be.
pub struct Memory<M: Machine> {
    /// The space. It takes care of its own synchronisation.
    pub space: Arc<Space<M>>,
}

impl<M: Machine> Memory<M> {
    /// The memory around a space.
    #[must_use]
    pub fn new(space: Space<M>) -> Self {
        Self { space: Arc::new(space) }
    }

    /// The memory of a child process.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn fork(&self, cpu: &mut Cpu<M>) -> Result<Self, Errno> {
        match self.space.fork(cpu) {
            Ok(space) => Ok(Self::new(space)),
            Err(ForkError::NoMemory | ForkError::Exited) => Err(Errno::ENOMEM),
        }
    }

    /// One past the highest address that a program may use.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.space.layout().highest.as_u64()
    }
}

impl<M: Machine> fmt::Debug for Memory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("space", &self.space).finish()
    }
}

/// The flags of areas that say how they are locked.
pub(crate) const LOCKING: AreaFlags = AreaFlags::LOCKED.union(AreaFlags::LOCKED_ON_FAULT);

/// What a process may do that its space does not know: see [`faultless::Limits`] for the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `RLIMIT_DATA`, bytes: the heap alone may not become larger, whatever else there is.
    pub data: u64,
    /// `RLIMIT_MEMLOCK`, bytes.
    pub locked: u64,
    /// `CAP_IPC_LOCK`: `locked` does not count.
    pub may_lock: bool,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { data: u64::MAX, locked: u64::MAX, may_lock: true };
}

/// A process in a memory call.
pub struct Caller<'a, M: Machine> {
    /// Its memory.
    pub memory: &'a Memory<M>,
    /// The CPU that executes the call.
    pub cpu: &'a mut Cpu<M>,
    /// The process's limits.
    pub limits: Limits,
}

/// Why not all of a range was dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AreaError {
    /// Parts are not mapped; all that is was dealt with.
    Holes,
    /// An area refused; those before it were dealt with.
    Stopped(Errno),
}

/// As for the calls that pass over holes and report them.
impl From<AreaError> for Errno {
    fn from(error: AreaError) -> Self {
        match error {
            AreaError::Holes => Errno::ENOMEM,
            AreaError::Stopped(errno) => errno,
        }
    }
}

/// What a new mapping counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Growth {
    /// Private and writable: `RLIMIT_DATA` applies.
    Data,
    /// Anything else.
    Other,
}

impl<M: Machine> Caller<'_, M> {
    /// Visits the areas, ascending and whole. Nothing is collected: a program may have very many.
    pub(crate) fn each(&mut self, visit: impl FnMut(AreaInfo<M>)) {
        self.memory.space.areas(self.cpu, visit);
    }

    /// The first area that is `wanted`.
    pub(crate) fn find(&mut self, mut wanted: impl FnMut(&AreaInfo<M>) -> bool) -> Option<AreaInfo<M>> {
        let mut found = None;
        self.each(|area| {
            if found.is_none() && wanted(&area) {
                found = Some(area);
            }
        });
        found
    }

    /// `ENOMEM` unless all of `start..end` is mapped.
    pub(crate) fn check_mapped(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        // Ends: each round passes one area.
        while at < end {
            if at >= self.memory.end() {
                return Err(Errno::ENOMEM);
            }
            let area = self.memory.space.area_at(self.cpu, VirtAddr::new(at)).ok_or(Errno::ENOMEM)?;
            at = area.range.end().as_u64();
        }
        Ok(())
    }

    /// Calls `then` with each area that `start..end` meets and the part of it. What comes before an error is done; holes
    /// are passed over and are an error at the end.
    pub(crate) fn each_area(
        &mut self,
        start: u64,
        end: u64,
        mut then: impl FnMut(&mut Self, &AreaInfo<M>, PageRange) -> Result<(), Errno>,
    ) -> Result<(), AreaError> {
        let (mut at, mut holes) = (start, false);
        // Ends: each round passes an area or a hole.
        while at < end {
            let area =
                if at < self.memory.end() { self.memory.space.area_at(self.cpu, VirtAddr::new(at)) } else { None };
            let Some(area) = area else {
                holes = true;
                let next = self.find(|area| area.range.start().as_u64() > at);
                at = next.map_or(end, |area| area.range.start().as_u64());
                continue;
            };
            let stop = area.range.end().as_u64().min(end);
            let part = PageRange::new(VirtAddr::new(at), VirtAddr::new(stop));
            let part = part.map_err(|_| AreaError::Stopped(Errno::EINVAL))?;
            then(self, &area, part).map_err(AreaError::Stopped)?;
            at = stop;
        }
        if holes { Err(AreaError::Holes) } else { Ok(()) }
    }

    /// `ENOMEM` if `pages` more may not be mapped. The space looks again when it maps them.
    pub(crate) fn check_limits(&self, pages: u64, growth: Growth) -> Result<(), Errno> {
        let (extent, limits) = (self.memory.space.extent(), self.memory.space.limits());
        let exceeds = |now: u64, most| now.saturating_add(pages) > most;
        let too_much =
            exceeds(extent.pages, limits.pages) || growth == Growth::Data && exceeds(extent.data, limits.data);
        if too_much { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Has it so many areas that Linux would not move one, for fear of having to split others?
    pub(crate) fn is_crowded(&self) -> bool {
        let (extent, limits) = (self.memory.space.extent(), self.memory.space.limits());
        extent.areas >= limits.areas.saturating_sub(3)
    }
}

impl<M: Machine> fmt::Debug for Caller<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, cpu, limits } = self;
        f.debug_struct("Caller").field("memory", memory).field("cpu", cpu).field("limits", limits).finish()
    }
}

/// Does the area count for `RLIMIT_DATA`?
pub(crate) fn is_data<M: Machine>(area: &AreaInfo<M>) -> bool {
    area.rights.contains(Rights::WRITE)
        && area.sharing == Sharing::Private
        && !area.flags.contains(AreaFlags::GROWS_DOWN)
}
