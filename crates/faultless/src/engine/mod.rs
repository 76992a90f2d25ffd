//! The public API: [`Vm`], the CPUs' tokens, and the methods of [`Space`] and [`Object`] that take one.
//!
//! Called by embedders. The only room that waits for other operations: everything below says what it needs.

mod advise;
mod audit;
mod huge;
mod hugetlb;
#[cfg(any(loom, shuttle, feature = "mutants"))]
mod probe;
mod seats;
mod stats;
mod watch;
mod writeback;

pub use audit::AuditError;
pub use stats::{Census, Stats};
pub use writeback::SyncError;

use crate::addr::{Access, CpuId, FrameId, PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::AreaFlags;
use crate::frame::{CpuLocal, Ctx, Memory, MemoryError};
use crate::machine::Machine;
use crate::object::{Object, ObjectError, Pager};
use crate::space::{
    AccessError, AreaInfo, Backing, Core, FaultError, ForkError, Layout, MapError, MapRequest, ProtectError, Registry,
    Resolved, Space, UnmapError, Usage, Zap,
};
use crate::sync::{NoMemory, Ordering};
use crate::table;
use alloc::sync::Arc;
use core::fmt;
use seats::Seats;

/// No frame, or no heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// Why a [`Vm`] could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// The machine handed over no frame.
    NoMemory,
    /// RAM ranges that are reversed, unordered or overlapping, or no CPU, or more than 1024.
    BadMachine,
}

/// Why a CPU's token could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuError {
    /// The machine has no CPU of this number.
    NoSuchCpu,
    /// The token is out already.
    Taken,
}

/// The memory of one machine. Clones are handles to the same.
pub struct Vm<M: Machine> {
    memory: Arc<Memory<M>>,
    registry: Arc<Registry<M>>,
    seats: Arc<Seats>,
}

impl<M: Machine> Clone for Vm<M> {
    fn clone(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), registry: Arc::clone(&self.registry), seats: Arc::clone(&self.seats) }
    }
}

impl<M: Machine> Vm<M> {
    /// Takes over the machine's RAM.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if the machine has no RAM or contradicts itself.
    pub fn new(machine: M) -> Result<Self, SetupError> {
        let memory = Memory::new(machine).map_err(|error| match error {
            MemoryError::NoMemory => SetupError::NoMemory,
            MemoryError::BadMachine => SetupError::BadMachine,
        })?;
        let seats = Arc::new(Seats::new(memory.sections().cpus()));
        Ok(Self { memory: Arc::new(memory), registry: Arc::new(Registry::new()), seats })
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &M {
        self.memory.machine()
    }

    /// The token of CPU `id`. Whoever has it may do operations as that CPU; drop it to give it back.
    ///
    /// # Errors
    ///
    /// [`CpuError`] if there is no such CPU or its token is out.
    pub fn cpu(&self, id: CpuId) -> Result<Cpu<M>, CpuError> {
        let stamps = self.seats.claim(id)?;
        let local = CpuLocal::new(id, self.memory.sections().cpus(), stamps);
        Ok(Cpu { vm: self.clone(), local })
    }

    /// An empty space.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if there is no frame for its root table.
    ///
    /// # Panics
    ///
    /// If the layout is not in order or not of whole pages, if it reaches beyond the user half of the root (which the
    /// machine's [`init_root`](Machine::init_root) may have filled), or if the token belongs to another [`Vm`].
    pub fn new_space(&self, cpu: &mut Cpu<M>, layout: Layout) -> Result<Space<M>, OutOfMemory> {
        assert!(layout.fits::<M::Format>(), "{layout:?} does not fit the user half");
        let ctx = cpu.ctx_in(&self.memory);
        self.registry.bury(ctx);
        let root = table::alloc_root(ctx).ok_or(OutOfMemory)?;
        let core = Arc::new(Core::new(Arc::clone(&self.memory), self.registry.next_id(), root, layout));
        self.registry.insert(ctx, &core);
        Ok(self.space(core))
    }

    fn space(&self, core: Arc<Core<M>>) -> Space<M> {
        Space { core, registry: Arc::clone(&self.registry) }
    }

    /// A memory object of `size` bytes of zeroes: shared memory, or a file that lives in memory.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] is reserved for a heap that is full; today the heap's own handler decides.
    pub fn new_memory(&self, size: u64, label: &str) -> Result<Arc<Object<M>>, OutOfMemory> {
        Ok(Arc::new(Object::new(Arc::clone(&self.memory), self.registry.next_id(), size, None, label)))
    }

    /// As [`Vm::new_memory`], and its size counts as promised for as long as the object lives (shared anonymous memory,
    /// SysV shm).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if so much may not be promised.
    pub fn new_promised_memory(&self, size: u64, label: &str) -> Result<Arc<Object<M>>, OutOfMemory> {
        let object = Object::promised(Arc::clone(&self.memory), self.registry.next_id(), size, label);
        object.map(Arc::new).map_err(|NoMemory| OutOfMemory)
    }

    /// A file of `size` bytes whose pages are read by `pager` when they are first wanted.
    ///
    /// # Errors
    ///
    /// As [`Vm::new_memory`].
    pub fn new_file(&self, size: u64, pager: Arc<dyn Pager>, label: &str) -> Result<Arc<Object<M>>, OutOfMemory> {
        Ok(Arc::new(Object::new(Arc::clone(&self.memory), self.registry.next_id(), size, Some(pager), label)))
    }

    /// All counters since the start, summed over the CPUs. Exact when nobody works.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::collect(&self.memory)
    }

    /// Counts the frames by what they are used for. Looks at each frame's record, so it costs time.
    #[must_use]
    pub fn census(&self) -> Census {
        Census::take(&self.memory)
    }
}

impl<M: Machine> fmt::Debug for Vm<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("cpus", &self.memory.sections().cpus()).finish_non_exhaustive()
    }
}

/// The token of one CPU: what works on the [`Vm`] works through it, and it is used by one thread at a time.
///
/// A kernel keeps it with the CPU's other private data and has interrupts off while it is inside `faultless`.
pub struct Cpu<M: Machine> {
    vm: Vm<M>,
    local: CpuLocal,
}

impl<M: Machine> Cpu<M> {
    pub(crate) fn ctx(&self) -> Ctx<'_, M> {
        Ctx { memory: &self.vm.memory, cpu: &self.local }
    }

    /// The same for work on something that lives in `memory`. Sections and locks of one [`Vm`] protect nothing of
    /// another.
    ///
    /// # Panics
    ///
    /// If the token belongs to another [`Vm`].
    #[inline]
    fn ctx_in(&self, memory: &Memory<M>) -> Ctx<'_, M> {
        assert!(core::ptr::eq(&*self.vm.memory, memory), "the token of a CPU of another Vm");
        self.ctx()
    }

    /// The CPU's number.
    #[must_use]
    pub fn id(&self) -> CpuId {
        self.local.id()
    }

    /// The `Vm` it belongs to.
    #[must_use]
    pub fn vm(&self) -> &Vm<M> {
        &self.vm
    }

    /// Frees what this CPU retired, as far as no other CPU can still reach it, and takes down spaces that were dropped
    /// without [`Space::exit`]. True if nothing is left.
    pub fn collect(&mut self) -> bool {
        let ctx = self.ctx();
        self.vm.registry.bury(ctx);
        ctx.collect()
    }
}

impl<M: Machine> Drop for Cpu<M> {
    fn drop(&mut self) {
        let ctx = self.ctx();
        self.vm.registry.bury(ctx);
        // Ends: sections never block.
        while !ctx.collect() {
            ctx.relax();
            crate::sync::spin_hint();
        }
        ctx.drain_all();
        self.vm.seats.give_back(self.local.id(), self.local.stamps());
    }
}

impl<M: Machine> fmt::Debug for Cpu<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The operations. Each takes the token of the CPU it runs on, and panics if that belongs to another [`Vm`].
impl<M: Machine> Space<M> {
    /// The root table: what the MMU is given.
    #[must_use]
    pub fn root(&self) -> FrameId {
        self.core.root
    }

    /// A number that no other space of the same [`Vm`] has or had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// Where things go in this space.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.core.layout
    }

    /// `cpu` is about to run this space: call before its MMU is given [`Space::root`].
    pub fn activate(&self, cpu: &mut Cpu<M>) {
        self.core.mask.insert(cpu.ctx_in(&self.core.memory).cpu.id());
    }

    /// `cpu` runs another space: call after its MMU was given another root and has forgotten this one.
    pub fn deactivate(&self, cpu: &mut Cpu<M>) {
        self.core.mask.remove(cpu.ctx_in(&self.core.memory).cpu.id());
    }

    /// Resolves a page fault at `addr`. On success the instruction is repeated.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: what the program is told. Nothing has changed.
    #[inline]
    pub fn fault(&self, cpu: &mut Cpu<M>, addr: VirtAddr, access: Access) -> Result<Resolved, FaultError> {
        self.core.fault(cpu.ctx_in(&self.core.memory), addr, access)
    }

    /// Maps memory and returns its address.
    ///
    /// # Errors
    ///
    /// [`MapError`]; a failed call has changed nothing.
    ///
    /// # Panics
    ///
    /// If the object of the request belongs to another [`Vm`].
    pub fn map(&self, cpu: &mut Cpu<M>, request: MapRequest<M>) -> Result<VirtAddr, MapError> {
        let (vm, ctx) = (&cpu.vm, cpu.ctx_in(&self.core.memory));
        if let Backing::Object { object, .. } = &request.backing {
            assert!(core::ptr::eq(object.memory(), ctx.memory), "an object of another Vm");
        }
        let label = "/dev/zero (deleted)";
        let is_free = request.flags.contains(AreaFlags::NO_RESERVE);
        let mapped = self.core.map(ctx, request, |size| {
            if is_free { vm.new_memory(size, label).ok() } else { vm.new_promised_memory(size, label).ok() }
        });
        ctx.collect_large();
        mapped
    }

    /// Unmaps what is in `range`. When it returns, no CPU can use a translation of it.
    ///
    /// # Errors
    ///
    /// [`UnmapError`]; a failed call has changed nothing.
    pub fn unmap(&self, cpu: &mut Cpu<M>, range: PageRange) -> Result<(), UnmapError> {
        let ctx = cpu.ctx_in(&self.core.memory);
        let unmapped = self.core.unmap(ctx, range);
        ctx.collect_large();
        unmapped
    }

    /// Gives `range` other rights. When it returns, no CPU can use a right that was taken.
    ///
    /// # Errors
    ///
    /// [`ProtectError`] names the address where it stopped; areas before it have been changed, as on Linux.
    pub fn protect(&self, cpu: &mut Cpu<M>, range: PageRange, rights: Rights) -> Result<(), ProtectError> {
        self.core.protect(cpu.ctx_in(&self.core.memory), range, rights)
    }

    /// Sets where the heap begins; before the first [`Space::brk`].
    pub fn set_brk(&self, start: VirtAddr) {
        self.core.set_brk(start);
    }

    /// The heap's first byte and one past its last.
    #[must_use]
    pub fn brk_range(&self) -> (VirtAddr, VirtAddr) {
        self.core.brk_range()
    }

    /// Moves the end of the heap to `to`, if that is possible; returns where it is afterwards, as Linux's `brk`.
    pub fn brk(&self, cpu: &mut Cpu<M>, to: VirtAddr) -> VirtAddr {
        self.core.set_break(cpu.ctx_in(&self.core.memory), to)
    }

    /// Sets how large an area that grows downwards may become, in bytes (RLIMIT_STACK). Children start with the same.
    pub fn set_stack_limit(&self, bytes: u64) {
        self.core.stack_limit.store(bytes, Ordering::Relaxed);
    }

    /// Makes a child that sees what this space sees now. Its cost does not depend on how much that is.
    ///
    /// # Errors
    ///
    /// [`ForkError`]; the parent is as it was.
    pub fn fork(&self, cpu: &mut Cpu<M>) -> Result<Space<M>, ForkError> {
        let ctx = cpu.ctx_in(&self.core.memory);
        self.registry.bury(ctx);
        let core = self.core.fork(ctx, &self.registry)?;
        Ok(Space { core, registry: Arc::clone(&self.registry) })
    }

    /// Takes the space down. Later operations find nothing mapped. Does nothing the second time.
    ///
    /// # Panics
    ///
    /// If a CPU still has the space active.
    pub fn exit(&self, cpu: &mut Cpu<M>) {
        let ctx = cpu.ctx_in(&self.core.memory);
        self.core.exit(ctx, &self.registry);
        self.registry.bury(ctx);
        ctx.collect_large();
    }

    /// Copies `into.len()` bytes out of the space, resolving faults as needed. Rights are checked as for a CPU.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says how far it came and why it stopped. Frames that [`Space::insert_frames`] mapped are the
    /// program's alone: at them it stops with [`FaultError::Unmapped`], though a fault there is resolved.
    pub fn read(&self, cpu: &mut Cpu<M>, addr: VirtAddr, into: &mut [u8]) -> Result<(), AccessError> {
        self.core.read(cpu.ctx_in(&self.core.memory), addr, into)
    }

    /// Copies `from` into the space, resolving faults as needed. Rights are checked as for a CPU.
    ///
    /// # Errors
    ///
    /// [`AccessError`] as for [`Space::read`]; a private mapping of such frames gets a copy that is written to.
    pub fn write(&self, cpu: &mut Cpu<M>, addr: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        self.core.write(cpu.ctx_in(&self.core.memory), addr, from)
    }

    /// Calls `visit` with each area, ascending, as it is when it is looked at: there is no lock, and changes
    /// that happen meanwhile may be seen or not.
    pub fn areas(&self, cpu: &mut Cpu<M>, visit: impl FnMut(AreaInfo<M>)) {
        self.core.areas(cpu.ctx_in(&self.core.memory), visit);
    }

    /// The area that covers `addr`.
    pub fn area_at(&self, cpu: &mut Cpu<M>, addr: VirtAddr) -> Option<AreaInfo<M>> {
        self.core.area_at(cpu.ctx_in(&self.core.memory), addr)
    }

    /// Pages, tables and faults of this space.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.core.counters.sum()
    }
}

/// File-like access. Each takes the token of the CPU it runs on, and panics if that belongs to another [`Vm`].
impl<M: Machine> Object<M> {
    /// Reads from `offset`; returns how many bytes there were before the end.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] if a page could not be had.
    pub fn read(&self, cpu: &mut Cpu<M>, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        self.read_at(cpu.ctx_in(self.memory()), offset, into)
    }

    /// Writes at `offset`, extending the object; returns how many bytes were written, fewer if memory ran out.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] if nothing could be written.
    pub fn write(&self, cpu: &mut Cpu<M>, offset: u64, from: &[u8]) -> Result<usize, ObjectError> {
        self.write_at(cpu.ctx_in(self.memory()), offset, from)
    }

    /// Sets the size. What lies beyond a smaller size is gone, also where it is mapped: accesses there get
    /// [`FaultError::Bus`] when this returns.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooBig`], or [`ObjectError::OutOfMemory`] if a shared page table cannot be copied. Nothing has
    /// changed then, unless a fork ran meanwhile and memory ran out after the size was set: the call, repeated, unmaps
    /// what is left. Calls that resize or write one object must not overlap.
    pub fn resize(self: &Arc<Self>, cpu: &mut Cpu<M>, size: u64) -> Result<(), ObjectError> {
        if size >= 1 << 63 {
            return Err(ObjectError::TooBig);
        }
        let ctx = cpu.ctx_in(self.memory());
        // The same size is a truncation too: what was stored behind the end goes.
        if size > self.size() && !self.is_torn() {
            self.grow_noting(ctx, if self.is_large() { size.next_multiple_of(Self::large_size()) } else { size });
            return Ok(());
        }
        let registry = &cpu.vm.registry;
        let size = if self.is_large() { size.next_multiple_of(Self::large_size()) } else { size };
        let zap = Zap { object: self, pages: (size.div_ceil(PAGE_SIZE), u64::MAX), copies: true };
        registry.each(ctx, |core| core.prepare_zap(ctx, &zap)).map_err(|_| ObjectError::OutOfMemory)?;
        self.set_size(size);
        // Pairs with the light barrier of sections: of an area that maps the object meanwhile, either it is found below,
        // or its faults see the size (P9).
        ctx.machine().heavy_barrier();
        let mut torn = false;
        let result = registry.each(ctx, |core| {
            torn |= core.zap(ctx, &zap).is_err();
            Ok(())
        });
        self.set_torn(torn);
        self.drop_beyond(ctx, size);
        if torn { Err(ObjectError::OutOfMemory) } else { result }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
