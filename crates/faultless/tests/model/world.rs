//! A small machine with spaces, and the threads that work on them.

use super::machine::{Entry, ModelMachine};
use faultless::machine::Format;
use faultless::{
    Access, AreaFlags, Backing, ClearRefs, Cpu, CpuId, Destination, FaultError, FrameId, HugePages, Layout, MapRequest,
    Object, PAGE_SIZE, PageRange, Pinned, RemapRequest, Rights, Sharing, VirtAddr, Vm,
};
use std::sync::Arc;

pub type Space<F> = Arc<faultless::Space<ModelMachine<F>>>;
pub type Backed<F> = Arc<Object<ModelMachine<F>>>;
pub type Pins<F> = Pinned<ModelMachine<F>>;

pub const RO: Rights = Rights::READ;

/// Read and write.
pub fn rw() -> Rights {
    Rights::READ | Rights::WRITE
}

/// The pages `first..first + count`.
pub fn pages(first: u64, count: u64) -> PageRange {
    PageRange::with_len(VirtAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).expect("a range")
}

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(page * PAGE_SIZE)
}

/// A machine with `CPUS` CPUs, each with frames at hand.
pub struct World<F: Format> {
    pub vm: Vm<ModelMachine<F>>,
}

impl<F: Format> World<F> {
    /// A machine, and a worker for each CPU.
    pub fn new<const CPUS: usize>(frames: u64) -> (Self, [Worker<F>; CPUS]) {
        let vm = Vm::new(ModelMachine::new(CPUS, frames)).expect("a sound machine");
        let world = Self { vm };
        let workers = std::array::from_fn(|id| world.worker(id));
        (world, workers)
    }

    /// The worker of one CPU, its frame cache filled.
    fn worker(&self, id: usize) -> Worker<F> {
        let cpu = self.vm.cpu(CpuId::new(id as u32)).expect("a free CPU");
        let mut worker = Worker { cpu };
        let space = worker.space();
        space.exit(&mut worker.cpu);
        assert!(worker.cpu.collect(), "nobody else is there yet");
        worker
    }

    /// Collects everywhere, then recounts everything.
    pub fn audit<const CPUS: usize>(&self, workers: [Worker<F>; CPUS], spaces: &[&Space<F>], objects: &[&Backed<F>]) {
        drop(self.recount(workers, spaces, objects));
    }

    /// The same; gives the workers back.
    pub fn recount<const CPUS: usize>(
        &self,
        mut workers: [Worker<F>; CPUS],
        spaces: &[&Space<F>],
        objects: &[&Backed<F>],
    ) -> [Worker<F>; CPUS] {
        for worker in &mut workers {
            assert!(worker.cpu.collect(), "a section is still active");
        }
        let spaces: Vec<_> = spaces.iter().map(|space| &***space).collect();
        let mut cpus = workers.each_mut().map(|worker| &mut worker.cpu);
        if let Err(error) = self.vm.audit_all(&mut cpus, &spaces, objects) {
            panic!("audit: {error}");
        }
        workers
    }
}

/// A CPU and the thread on it.
pub struct Worker<F: Format> {
    pub cpu: Cpu<ModelMachine<F>>,
}

impl<F: Format> Worker<F> {
    pub fn machine(&self) -> &ModelMachine<F> {
        self.cpu.vm().machine()
    }

    pub fn id(&self) -> usize {
        self.cpu.id().as_usize()
    }

    /// A space of all the pages that the format has.
    pub fn space(&mut self) -> Space<F> {
        let end = (F::USER_SLOTS as u64) << (12 + F::INDEX_BITS * (F::LEVELS as u32 - 1));
        let (lowest, highest) = (VirtAddr::new(0), VirtAddr::new(end));
        let layout = Layout { lowest, highest, mmap_top: highest, stack_limit: 0 };
        let vm = self.cpu.vm().clone();
        Arc::new(vm.new_space(&mut self.cpu, layout).expect("a frame"))
    }

    /// Runs `space` on this CPU.
    pub fn run(&mut self, space: &Space<F>) {
        space.activate(&mut self.cpu);
        self.machine().load_root(self.id(), Some(space.root()));
    }

    /// Runs `space` no more.
    pub fn leave(&mut self, space: &Space<F>) {
        self.machine().load_root(self.id(), None);
        space.deactivate(&mut self.cpu);
    }

    /// Maps private anonymous memory at a page.
    pub fn map(&mut self, space: &Space<F>, first: u64, count: u64, rights: Rights) {
        let request = MapRequest { rights, ..MapRequest::anonymous(count * PAGE_SIZE) };
        space.map(&mut self.cpu, request.fixed(at(first))).expect("room");
    }

    /// Maps pages of an object from `offset` (in pages) on.
    pub fn map_object(
        &mut self,
        space: &Space<F>,
        first: u64,
        count: u64,
        rights: Rights,
        sharing: Sharing,
        object: &Backed<F>,
        offset: u64,
    ) {
        let backing = Backing::Object { object: Arc::clone(object), offset: offset * PAGE_SIZE };
        let request = MapRequest { rights, sharing, backing, ..MapRequest::anonymous(count * PAGE_SIZE) };
        space.map(&mut self.cpu, request.fixed(at(first))).expect("room");
    }

    /// A memory object of `count` pages, the first word of each `value`.
    pub fn object(&mut self, count: u64, value: u64) -> Backed<F> {
        let object = self.cpu.vm().new_memory(count * PAGE_SIZE, "model").expect("memory");
        for page in 0..count {
            self.write_object(&object, page, 0, value);
        }
        object
    }

    /// write(2) of one word.
    pub fn write_object(&mut self, object: &Backed<F>, page: u64, word: usize, value: u64) {
        let offset = page * PAGE_SIZE + word as u64 * 8;
        assert_eq!(object.write(&mut self.cpu, offset, &value.to_le_bytes()), Ok(8));
    }

    /// Has anonymous memory get large pages (of as many pages as a table has entries).
    pub fn make_large(&mut self) {
        let vm = self.cpu.vm().clone();
        vm.set_huge_pages(&mut self.cpu, HugePages::Always);
    }

    /// Makes a pool of so many large pages.
    pub fn make_pool(&mut self, count: u64) {
        let vm = self.cpu.vm().clone();
        assert_eq!(vm.set_huge_pool(&mut self.cpu, count).total, count);
    }

    /// Maps so many pages, in large pages of the pool, as private memory.
    pub fn map_pool(&mut self, space: &Space<F>, first: u64, count: u64) {
        let object = self.cpu.vm().new_huge_memory(count * PAGE_SIZE, "pool").expect("memory");
        self.map_object(space, first, count, Rights::READ | Rights::WRITE, Sharing::Private, &object, 0);
    }

    /// Collapses pages. False if it was refused.
    pub fn collapse(&mut self, space: &Space<F>, first: u64, count: u64) -> bool {
        space.collapse(&mut self.cpu, pages(first, count)).is_ok()
    }

    pub fn unmap(&mut self, space: &Space<F>, first: u64, count: u64) {
        space.unmap(&mut self.cpu, pages(first, count)).expect("memory");
    }

    pub fn protect(&mut self, space: &Space<F>, first: u64, count: u64, rights: Rights) {
        space.protect(&mut self.cpu, pages(first, count), rights).expect("mapped");
    }

    /// Makes pages of a shared mapping show those of its object from `index` on.
    pub fn arrange(&mut self, space: &Space<F>, first: u64, count: u64, index: u64) {
        space
            .remap_pages(&mut self.cpu, pages(first, count), index, AreaFlags::NONE)
            .expect("a shared mapping, and memory");
    }

    /// MADV_DONTNEED.
    pub fn discard(&mut self, space: &Space<F>, first: u64, count: u64) {
        space.discard(&mut self.cpu, pages(first, count), false).expect("mapped");
    }

    /// MADV_FREE.
    pub fn free_lazily(&mut self, space: &Space<F>, first: u64, count: u64) {
        space.free_lazily(&mut self.cpu, pages(first, count)).expect("private memory");
    }

    /// mremap to a place where nothing is; `keep` is MREMAP_DONTUNMAP.
    pub fn move_pages(&mut self, space: &Space<F>, first: u64, count: u64, to: u64, keep: bool) {
        let (addr, len, destination) = (at(first), count * PAGE_SIZE, Destination::Fixed(at(to)));
        let request = RemapRequest { addr, old_len: len, new_len: len, destination, keep };
        assert_eq!(space.remap(&mut self.cpu, request), Ok(at(to)));
    }

    /// Pins a page.
    pub fn pin(&mut self, space: &Space<F>, page: u64, access: Access) -> Option<Pins<F>> {
        space.pin(&mut self.cpu, pages(page, 1), access).ok()
    }

    /// fallocate(PUNCH_HOLE) of a page.
    pub fn punch(&mut self, object: &Backed<F>, page: u64) {
        object.punch_hole(&mut self.cpu, page * PAGE_SIZE, PAGE_SIZE).expect("memory");
    }

    pub fn fork(&mut self, space: &Space<F>) -> Space<F> {
        Arc::new(space.fork(&mut self.cpu).expect("memory"))
    }

    pub fn exit(&mut self, space: &Space<F>) {
        space.exit(&mut self.cpu);
    }

    /// Stores a word in `space`, which need not run here.
    pub fn store(&mut self, space: &Space<F>, page: u64, word: usize, value: u64) -> bool {
        let address = VirtAddr::new(page * PAGE_SIZE + word as u64 * 8);
        space.write(&mut self.cpu, address, &value.to_le_bytes()).is_ok()
    }

    /// A section that looks at the index only.
    pub fn look_up(&mut self, space: &Space<F>, page: u64) {
        space.area_at(&mut self.cpu, at(page));
    }

    /// ftruncate to a number of pages.
    pub fn resize(&mut self, object: &Backed<F>, count: u64) {
        object.resize(&mut self.cpu, count * PAGE_SIZE).expect("memory");
    }

    /// read(2) of the first word of a page; `None` beyond the end.
    pub fn read_object(&mut self, object: &Backed<F>, page: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let got = object.read(&mut self.cpu, page * PAGE_SIZE, &mut bytes).expect("memory");
        (got == 8).then_some(u64::from_le_bytes(bytes))
    }

    /// Clears the accessed and dirty bits of a page.
    pub fn age(&self, space: &Space<F>, page: u64) {
        self.machine().age(space.root(), page);
    }

    /// Forgets which pages were stored to.
    pub fn clear_soft(&mut self, space: &Space<F>) {
        space.clear_refs(&mut self.cpu, ClearRefs::SoftDirty).expect("memory");
    }

    /// Is the page noted as stored to, by its entry?
    pub fn is_soft(&mut self, space: &Space<F>, page: u64) -> bool {
        let mut soft = false;
        space.pages(&mut self.cpu, pages(page, 1), |page| soft |= page.soft_dirty);
        soft
    }

    /// One instruction: a load of a word.
    pub fn peek(&self, page: u64, word: usize) -> Option<u64> {
        let vm = self.cpu.vm();
        self.machine().access(self.id(), page, word, None, |frame| vm.is_free(frame)).ok()
    }

    /// One instruction: a store to a word. False if it faulted.
    pub fn poke(&self, page: u64, word: usize, value: u64) -> bool {
        let vm = self.cpu.vm();
        self.machine().access(self.id(), page, word, Some(value), |frame| vm.is_free(frame)).is_ok()
    }

    /// A load as a program sees it: faults are resolved, `None` is a signal.
    pub fn read(&mut self, space: &Space<F>, page: u64, word: usize) -> Option<u64> {
        loop {
            if let Some(value) = self.peek(page, word) {
                return Some(value);
            }
            if !self.fault(space, page, Access::Read) {
                return None;
            }
        }
    }

    /// A store as a program sees it. False is a signal.
    pub fn write(&mut self, space: &Space<F>, page: u64, word: usize, value: u64) -> bool {
        loop {
            if self.poke(page, word, value) {
                return true;
            }
            if !self.fault(space, page, Access::Write) {
                return false;
            }
        }
    }

    /// The page fault. False is a signal.
    pub fn fault(&mut self, space: &Space<F>, page: u64, access: Access) -> bool {
        match space.fault(&mut self.cpu, at(page), access) {
            Ok(_) => true,
            Err(FaultError::OutOfMemory) => panic!("the model has too few frames"),
            Err(_) => false,
        }
    }

    /// Makes `page` a page that this space may only read and has to copy before it writes: another space holds it too.
    /// The page `neighbour` lies in the same leaf table and is left private. Returns the other space.
    pub fn hold(&mut self, space: &Space<F>, page: u64, neighbour: u64) -> Space<F> {
        assert!(self.write(space, page, 0, 5) && self.write(space, neighbour, 0, 1));
        let holder = self.fork(space);
        assert!(self.write(space, neighbour, 0, 1), "unshares the table");
        holder
    }

    /// What `space`, which no CPU runs, has at a word.
    pub fn inspect(&mut self, space: &Space<F>, page: u64, word: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let address = VirtAddr::new(page * PAGE_SIZE + word as u64 * 8);
        space.read(&mut self.cpu, address, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    /// Reads the first word of a page as a debugger does.
    pub fn read_forced(&mut self, space: &Space<F>, page: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        space.read_forced(&mut self.cpu, at(page), &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    /// The entry of a page with the rights of its whole path, if it is mapped.
    pub fn entry(&self, space: &Space<F>, page: u64) -> Option<Entry> {
        self.machine().entry(space.root(), page).filter(|entry| entry.present)
    }

    /// After an unmap returned: nothing of the page may be left.
    pub fn assert_gone(&self, space: &Space<F>, page: u64) {
        assert!(self.entry(space, page).is_none(), "page {page} is mapped after it was unmapped");
        assert!(!self.machine().is_cached(space.root(), page, false), "page {page} is cached after it was unmapped");
    }

    /// After a write-protection returned: nobody may store.
    pub fn assert_read_only(&self, space: &Space<F>, page: u64) {
        assert!(self.entry(space, page).is_none_or(|entry| !entry.write), "page {page} is writable after mprotect");
        assert!(!self.machine().is_cached(space.root(), page, true), "page {page} is cached writable after mprotect");
    }

    /// The frame of a page that is mapped.
    pub fn frame(&self, space: &Space<F>, page: u64) -> FrameId {
        self.entry(space, page).expect("mapped").frame
    }
}
