//! What a program may say about its memory, and what it may ask: the calls behind madvise, mlock, mincore and /proc.

use super::{Cpu, OutOfMemory, Vm};
use crate::area::AreaFlags;
use crate::frame::CommitPolicy;
use crate::machine::Machine;
use crate::object::{Object, ObjectError};
use crate::space::{
    AccessError, AdviseError, AreaInfo, ClearRefs, ClearRefsError, Extent, Footprint, InsertError, Limits,
    NonlinearError, Page, PageInfo, PinError, Pinned, Populate, PopulateError, RemapError, RemapRequest, Space, Zap,
};
use crate::sync::mutant;
use crate::{Access, PAGE_SIZE, PageRange, RawFrames, VirtAddr};
use alloc::sync::Arc;

impl<M: Machine> Space<M> {
    /// Lets the pages of `range` go. Private memory reads as zeroes, or as its file, afterwards; what is shared keeps
    /// its contents in the object. When it returns, no CPU can use a translation of what left (MADV_DONTNEED).
    ///
    /// # Errors
    ///
    /// [`AdviseError::Refused`] at an area that is locked, unless `locked_too` (MADV_DONTNEED_LOCKED);
    /// [`AdviseError::Unmapped`] if the range has holes, after all else was done; [`AdviseError::NoMemory`].
    pub fn discard(&self, cpu: &mut Cpu<M>, range: PageRange, locked_too: bool) -> Result<(), AdviseError> {
        self.core.discard(cpu.ctx_in(&self.core.memory), range, locked_too)
    }

    /// Notes the pages of `range` as free to be taken, whatever the rights of their areas, each until it is stored to
    /// again, or brought in for that by [`Space::populate`] (MADV_FREE). Until one is taken it keeps its contents.
    ///
    /// # Errors
    ///
    /// As [`Space::discard`]; refused by all but private anonymous areas.
    pub fn free_lazily(&self, cpu: &mut Cpu<M>, range: PageRange) -> Result<(), AdviseError> {
        self.core.free_lazily(cpu.ctx_in(&self.core.memory), range)
    }

    /// Sets and clears flags of the areas in `range`; areas are split and merged as needed. `allows` is asked for each
    /// area's present flags. Flags that say what an area is ([`AreaFlags::RAW`] and others) stay as they are.
    ///
    /// # Errors
    ///
    /// [`AdviseError::Refused`] at the first area that is not allowed; areas before it have been changed.
    /// [`AdviseError::Unmapped`] if the range has holes, after all else was done; [`AdviseError::NoMemory`].
    pub fn set_flags(
        &self,
        cpu: &mut Cpu<M>,
        range: PageRange,
        set: AreaFlags,
        clear: AreaFlags,
        allows: impl Fn(AreaFlags) -> bool,
    ) -> Result<(), AdviseError> {
        let ours = AreaFlags::SET_BY_CORE;
        self.core.set_flags(cpu.ctx_in(&self.core.memory), range, set.without(ours), clear.without(ours), allows)
    }

    /// Resizes or moves a mapping and returns where it is. Pages move with it; when the call returns, no CPU can use a
    /// translation of a place that was left.
    ///
    /// # Errors
    ///
    /// [`RemapError`]; only what had to make room for [`Destination::Fixed`](crate::Destination) may be gone.
    pub fn remap(&self, cpu: &mut Cpu<M>, request: RemapRequest) -> Result<VirtAddr, RemapError> {
        self.core.remap(cpu.ctx_in(&self.core.memory), request)
    }

    /// Makes `range`, a shared mapping, show the pages of its object from index `index` on; the area stays one area
    /// (remap_file_pages). The pages come in with the next accesses. When the call returns, no CPU can use a translation
    /// of what was shown before. Afterwards the range is locked as `locking` says: [`AreaFlags::LOCKED`],
    /// [`AreaFlags::LOCKED_ON_FAULT`] or none of them; other flags stay as they are.
    ///
    /// # Errors
    ///
    /// [`NonlinearError`]; nothing visible has changed.
    pub fn remap_pages(
        &self,
        cpu: &mut Cpu<M>,
        range: PageRange,
        index: u64,
        locking: AreaFlags,
    ) -> Result<(), NonlinearError> {
        self.core.remap_pages(cpu.ctx_in(&self.core.memory), range, index, locking)
    }

    /// The index of the object's page that is, or will be, shown at `addr`; `None` where no object is mapped. Elsewhere
    /// than in an area with [`AreaFlags::NONLINEAR`] it follows from the area.
    #[must_use]
    pub fn page_index_at(&self, cpu: &mut Cpu<M>, addr: VirtAddr) -> Option<u64> {
        self.core.page_index_at(cpu.ctx_in(&self.core.memory), addr)
    }

    /// Brings in every page of `range`.
    ///
    /// # Errors
    ///
    /// [`PopulateError`] names the first page that could not be had; those before it are there.
    pub fn populate(&self, cpu: &mut Cpu<M>, range: PageRange, how: Populate) -> Result<(), PopulateError> {
        self.core.populate(cpu.ctx_in(&self.core.memory), range, how)
    }

    /// Pins the pages of `range` for stores ([`Access::Write`]) or for reads only, bringing them in as needed. All are
    /// pinned, or none. A pinned page stays where it is, and a child gets copies of the pinned anonymous pages.
    ///
    /// # Errors
    ///
    /// [`PinError`] names the first page that could not be pinned, and why.
    pub fn pin(&self, cpu: &mut Cpu<M>, range: PageRange, access: Access) -> Result<Pinned<M>, PinError> {
        self.core.pin(cpu.ctx_in(&self.core.memory), range, access)
    }

    /// Copies out of the space as a debugger does: also what an area without rights would show. Its rights, and what is
    /// mapped there, stay as they are.
    ///
    /// # Errors
    ///
    /// [`AccessError`] as for [`Space::read`].
    pub fn read_forced(&self, cpu: &mut Cpu<M>, addr: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        self.core.read_forced(cpu.ctx_in(&self.core.memory), addr, into)
    }

    /// Copies out of the space what reads would show, as for a dump: what was never touched costs neither pages nor tables,
    /// and stays untouched.
    ///
    /// # Errors
    ///
    /// [`AccessError`] as for [`Space::read`].
    pub fn read_shown(&self, cpu: &mut Cpu<M>, addr: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        self.core.read_shown(cpu.ctx_in(&self.core.memory), addr, into)
    }

    /// Copies out of the space what is mapped for reading at this moment: no fault is resolved, nothing waits. For callers
    /// that must not, as a profiler in an interrupt.
    ///
    /// # Errors
    ///
    /// [`AccessError`] with [`FaultError::Unmapped`](crate::FaultError) at the first page that is not there.
    pub fn read_present(&self, cpu: &mut Cpu<M>, addr: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        self.core.read_present(cpu.ctx_in(&self.core.memory), addr, into)
    }

    /// Copies `from` into the space as a debugger does: private memory need not be writable, and does not become so; a
    /// page that others have too is copied first, so nobody else sees the bytes.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says how far it came and why it stopped: [`FaultError::Denied`](crate::FaultError) at a shared
    /// mapping that is not writable.
    pub fn write_forced(&self, cpu: &mut Cpu<M>, addr: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        self.core.write_forced(cpu.ctx_in(&self.core.memory), addr, from)
    }

    /// Maps frames from `addr` on, in an area with [`Backing::Frames`](crate::Backing), with its rights. They are neither
    /// counted nor freed, and need not be RAM of the [`Vm`]. A private area that may be written must be covered whole.
    ///
    /// # Errors
    ///
    /// [`InsertError`]. Frames before the address that it names are mapped.
    pub fn insert_frames(&self, cpu: &mut Cpu<M>, addr: VirtAddr, frames: RawFrames) -> Result<(), InsertError> {
        self.core.insert_frames(cpu.ctx_in(&self.core.memory), addr, frames)
    }

    /// Maps a page of the embedder's at `addr`, in an area with [`Backing::Frames`](crate::Backing). It is counted as a
    /// page of a file, and lives until it is mapped nowhere and the [`Page`] is dropped.
    ///
    /// # Errors
    ///
    /// [`InsertError`]; nothing has changed.
    ///
    /// # Panics
    ///
    /// If the page belongs to another [`Vm`].
    pub fn insert_page(&self, cpu: &mut Cpu<M>, addr: VirtAddr, page: &Page<M>) -> Result<(), InsertError> {
        let ctx = cpu.ctx_in(&self.core.memory);
        assert!(core::ptr::eq(page.memory(), ctx.memory), "a page of another Vm");
        self.core.insert_page(ctx, addr, page)
    }

    /// How much address space is mapped.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.core.account.extent()
    }

    /// Limits what later operations may map; what is mapped stays. Children start with the same limits.
    pub fn set_limits(&self, limits: Limits) {
        self.core.account.set_limits(limits);
    }

    /// Calls `visit` with each area that meets `range`, ascending, as [`Space::areas`] does. What the first has below the
    /// range is left out.
    pub fn areas_in(&self, cpu: &mut Cpu<M>, range: PageRange, visit: impl FnMut(AreaInfo<M>)) {
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        self.core.areas_between(cpu.ctx_in(&self.core.memory), low, high, visit);
    }

    /// Forgets which pages were used, or which were stored to, so that [`Space::pages`] tells from now on. When it
    /// returns, no CPU can use a page without that being noted. Tables that are shared are copied for it: what other
    /// spaces know stays as it is. Pages that are pinned stay soft-dirty.
    ///
    /// # Errors
    ///
    /// [`ClearRefsError`] for want of memory.
    pub fn clear_refs(&self, cpu: &mut Cpu<M>, refs: ClearRefs) -> Result<(), ClearRefsError> {
        self.core.clear_refs(cpu.ctx_in(&self.core.memory), refs)
    }

    /// Makes the present number of pages the highest ever seen ([`Usage::peak`](crate::Usage)).
    pub fn reset_peak(&self) {
        self.core.counters.reset_peak();
    }

    /// What the pages of `range` are, summed. Changes nothing.
    pub fn footprint(&self, cpu: &mut Cpu<M>, range: PageRange) -> Footprint {
        self.core.footprint(cpu.ctx_in(&self.core.memory), range)
    }

    /// The limits that [`Space::set_limits`] or fork left.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.core.account.limits()
    }

    /// Flags that every later area gets besides its own, brk's included (mlockall's MCL_FUTURE). Children start without.
    pub fn set_default_flags(&self, flags: AreaFlags) {
        if flags.contains(AreaFlags::HUGE) {
            self.core.memory.reckon_with_huge();
        }
        self.core.account.set_defaults(flags.without(AreaFlags::SET_BY_CORE));
    }

    /// The flags that every new area gets.
    #[must_use]
    pub fn default_flags(&self) -> AreaFlags {
        self.core.account.defaults()
    }

    /// Calls `visit` with each mapped page of `range`, ascending: a snapshot, table by table, taken without a lock.
    pub fn pages(&self, cpu: &mut Cpu<M>, range: PageRange, visit: impl FnMut(PageInfo)) {
        self.core.pages(cpu.ctx_in(&self.core.memory), range, visit);
    }
}

impl<M: Machine> Page<M> {
    /// Reads from byte `offset` of the page on.
    ///
    /// # Panics
    ///
    /// If the bytes do not lie inside the page, or the token belongs to another [`Vm`].
    pub fn read(&self, cpu: &mut Cpu<M>, offset: usize, into: &mut [u8]) {
        assert!(offset <= PAGE_SIZE as usize && into.len() <= PAGE_SIZE as usize - offset, "read past the page");
        cpu.ctx_in(self.memory()).machine().read(self.frame(), offset, into);
    }

    /// Writes from byte `offset` of the page on.
    ///
    /// # Panics
    ///
    /// If the bytes do not lie inside the page, or the token belongs to another [`Vm`].
    pub fn write(&self, cpu: &mut Cpu<M>, offset: usize, from: &[u8]) {
        assert!(offset <= PAGE_SIZE as usize && from.len() <= PAGE_SIZE as usize - offset, "write past the page");
        cpu.ctx_in(self.memory()).machine().write(self.frame(), offset, from);
    }
}

impl<M: Machine> Vm<M> {
    /// Pages promised to programs: private writable mappings without [`AreaFlags::NO_RESERVE`], and memory objects by
    /// their size where they were made so (Committed_AS).
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.memory.commit().pages()
    }

    /// What may be promised (vm.overcommit_memory); [`CommitPolicy::Always`] at first.
    #[must_use]
    pub fn commit_policy(&self) -> CommitPolicy {
        self.memory.commit().policy()
    }

    /// Changes what later operations may promise; what is promised stays.
    pub fn set_commit_policy(&self, policy: CommitPolicy) {
        self.memory.commit().set_policy(policy);
    }

    /// A page of zeroes of the embedder's own, to be mapped with [`Space::insert_page`].
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    ///
    /// # Panics
    ///
    /// If the token belongs to another `Vm`.
    pub fn new_page(&self, cpu: &mut Cpu<M>) -> Result<Page<M>, OutOfMemory> {
        Page::new(cpu.ctx_in(&self.memory), &self.memory).ok_or(OutOfMemory)
    }
}

impl<M: Machine> Object<M> {
    /// Makes `len` bytes from `offset` zeroes and gives their pages back; the size stays. Whoever maps the part sees the
    /// zeroes when the call returns; private copies stay as they are (fallocate PUNCH_HOLE, MADV_REMOVE).
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooBig`]; [`ObjectError::OutOfMemory`] or [`ObjectError::Io`] if a page at the edge could not be
    /// had or a shared table not be copied. All whole pages are as they were then (but for private copies of large ones),
    /// and the bytes at the edges are zeroes or as they were.
    ///
    /// # Panics
    ///
    /// If the token belongs to another [`Vm`].
    pub fn punch_hole(self: &Arc<Self>, cpu: &mut Cpu<M>, offset: u64, len: u64) -> Result<(), ObjectError> {
        let end = offset.checked_add(len).filter(|end| *end < 1 << 63).ok_or(ObjectError::TooBig)?;
        let (ctx, registry) = (cpu.ctx_in(self.memory()), &cpu.vm.registry);
        let pages = self.whole_pages(offset, end);
        self.zero_edges(ctx, offset, end, pages)?;
        if pages.0 >= pages.1 {
            return Ok(());
        }
        // As on Linux, a hole in memory of large pages takes private copies along.
        let zap = Zap { object: self, pages, copies: self.is_large() };
        let no_memory = |_| ObjectError::OutOfMemory;
        self.prepare_punch(pages)?;
        registry.each(ctx, |core| core.prepare_zap(ctx, &zap)).map_err(no_memory)?;
        if mutant::is(mutant::Mutant::PunchLate) {
            registry.each(ctx, |core| core.zap(ctx, &zap)).map_err(no_memory)?;
        }
        let closed = self.begin_punch(ctx, pages);
        // As in `resize`: an area that maps the object meanwhile is found below, or its faults find the page gone.
        ctx.machine().heavy_barrier();
        let done = match mutant::is(mutant::Mutant::PunchLate) {
            true => Ok(()),
            false => registry.each(ctx, |core| core.zap(ctx, &zap)).map_err(no_memory),
        };
        match done {
            Ok(()) => self.end_punch(ctx, &closed),
            Err(_) if mutant::is(mutant::Mutant::PunchOpensTorn) => self.end_punch(ctx, &closed),
            Err(_) => self.undo_punch(&closed),
        }
        done
    }

    /// Brings the page that holds byte `offset` into the cache, also behind the end (fallocate). True if it was not there.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] if it cannot be had.
    pub fn make_resident(&self, cpu: &mut Cpu<M>, offset: u64) -> Result<bool, ObjectError> {
        let index = offset / PAGE_SIZE;
        if self.has_page(index) {
            return Ok(false);
        }
        self.bring_in(cpu.ctx_in(self.memory()), index).map(|_| true)
    }

    /// Is the page that holds byte `offset` in the cache?
    #[must_use]
    pub fn is_resident(&self, offset: u64) -> bool {
        self.has_page(offset / PAGE_SIZE)
    }
}
