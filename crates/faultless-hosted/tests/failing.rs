//! The n-th allocation fails, for every n (method F of REQUIREMENTS; F-12, FK-05, SH-03).
//!
//! Each case prepares spaces, lets one operation run into a failing allocation, and demands that nothing visible has
//! changed: contents, areas, resident pages, and every counter against its recount. Then the operation is repeated with
//! memory and must succeed, and in the end nothing may be left.

use faultless::{
    Access, AdviseError, Backing, CpuId, Destination, FaultError, ForkError, InsertError, Layout, MapError, MapRequest,
    Object, ObjectError, PageRange, Populate, ProtectError, RemapError, RemapRequest, Rights, Sharing, Space,
    UnmapError, Usage, VirtAddr, Vm,
};
use faultless_hosted::{Failing, HostedCpu, Hostile, HostileConfig};
use std::sync::Arc;

const PAGE: u64 = 4096;
/// The first of four pages, two on each side of a leaf table's border.
const LOW: u64 = (2 << 20) - 2 * PAGE;
/// A page in another upper table.
const FAR: u64 = 512 << 30;
/// A page for frames of the embedder's, in a stripe of its own.
const RAW: u64 = 5 << 40;
/// Two pages of an object.
const SHOWN: u64 = 3 << 40;

/// Memory ran out; nothing has changed.
struct NoMemory;

/// The world of a case.
struct Scene {
    vm: Vm<Hostile>,
    cpu: HostedCpu<Hostile>,
    spaces: Vec<Arc<Space<Hostile>>>,
    object: Arc<Object<Hostile>>,
}

/// What can be seen of a space without changing it: areas, usage, the bytes of what is resident.
type Seen = Vec<(Vec<(PageRange, Rights)>, Usage, Vec<Option<u64>>)>;

impl Scene {
    /// One space with anonymous pages, far pages and a shared object, half of them written.
    fn new() -> Self {
        let vm = Vm::new(Hostile::new(HostileConfig::new(512, 1, 1)).expect("an arena")).expect("a machine");
        let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).expect("a CPU");
        let space = Arc::new(vm.new_space(cpu.token(), Layout::linux()).expect("memory"));
        let object = vm.new_memory(2 * PAGE, "object").expect("memory");
        for (at, pages) in [(LOW, 4), (FAR, 1)] {
            space.map(cpu.token(), MapRequest::anonymous(pages * PAGE).fixed(VirtAddr::new(at))).expect("room");
        }
        let mut request = MapRequest::anonymous(2 * PAGE).fixed(VirtAddr::new(SHOWN));
        request.backing = Backing::Object { object: Arc::clone(&object), offset: 0 };
        request.sharing = Sharing::Shared;
        space.map(cpu.token(), request).expect("room");
        cpu.run(&space);
        Self { vm, cpu, spaces: vec![space], object }
    }

    fn first(&self) -> Arc<Space<Hostile>> {
        Arc::clone(&self.spaces[0])
    }

    fn store(&mut self, at: u64, value: u64) -> Result<(), NoMemory> {
        match self.cpu.store(VirtAddr::new(at), value) {
            Ok(()) => Ok(()),
            Err(FaultError::OutOfMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn load(&mut self, at: u64) -> Result<(), NoMemory> {
        match self.cpu.load::<u64>(VirtAddr::new(at)) {
            Ok(_) => Ok(()),
            Err(FaultError::OutOfMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Stores to the second page of each kind.
    fn write_half(&mut self) {
        [LOW + PAGE, LOW + 2 * PAGE, SHOWN].iter().for_each(|at| assert!(self.store(*at, *at).is_ok()));
    }

    fn fork(&mut self) -> Result<(), NoMemory> {
        match self.first().fork(self.cpu.token()) {
            Ok(child) => {
                self.spaces.push(Arc::new(child));
                Ok(())
            }
            Err(ForkError::NoMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn unmap(&mut self, at: u64, pages: u64) -> Result<(), NoMemory> {
        match self.first().unmap(self.cpu.token(), range(at, pages)) {
            Ok(()) => Ok(()),
            Err(UnmapError::NoMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn protect(&mut self, at: u64, pages: u64, rights: Rights) -> Result<(), NoMemory> {
        match self.first().protect(self.cpu.token(), range(at, pages), rights) {
            Ok(()) => Ok(()),
            Err(ProtectError::NoMemory(_)) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn replace(&mut self, at: u64, pages: u64) -> Result<(), NoMemory> {
        let request = MapRequest::anonymous(pages * PAGE).fixed(VirtAddr::new(at));
        match self.first().map(self.cpu.token(), request) {
            Ok(_) => Ok(()),
            Err(MapError::NoMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn resize(&mut self, size: u64) -> Result<(), NoMemory> {
        let object = Arc::clone(&self.object);
        match object.resize(self.cpu.token(), size) {
            Ok(()) => Ok(()),
            Err(ObjectError::OutOfMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn discard(&mut self, at: u64, pages: u64) -> Result<(), NoMemory> {
        match self.first().discard(self.cpu.token(), range(at, pages), false) {
            Ok(()) => Ok(()),
            Err(AdviseError::NoMemory(_)) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn remap(&mut self, at: u64, pages: u64, destination: Destination, keep: bool) -> Result<(), NoMemory> {
        let (addr, len) = (VirtAddr::new(at), pages * PAGE);
        let request = RemapRequest { addr, old_len: len, new_len: len, destination, keep };
        match self.first().remap(self.cpu.token(), request) {
            Ok(_) => Ok(()),
            Err(RemapError::NoMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn punch(&mut self, offset: u64, len: u64) -> Result<(), NoMemory> {
        let object = Arc::clone(&self.object);
        match object.punch_hole(self.cpu.token(), offset, len) {
            Ok(()) => Ok(()),
            Err(ObjectError::OutOfMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn populate(&mut self, at: u64, pages: u64, how: Populate) -> Result<(), NoMemory> {
        match self.first().populate(self.cpu.token(), range(at, pages), how) {
            Ok(()) => Ok(()),
            Err(error) if error.fault == FaultError::OutOfMemory => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Pins, does something, and lets go, for a recount knows no pins.
    fn pinned(
        &mut self,
        at: u64,
        pages: u64,
        access: Access,
        then: impl Fn(&mut Self) -> Result<(), NoMemory>,
    ) -> Result<(), NoMemory> {
        let pins = match self.first().pin(self.cpu.token(), range(at, pages), access) {
            Ok(pins) => pins,
            Err(error) if error.fault == FaultError::OutOfMemory => return Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        };
        let result = then(self);
        drop(pins);
        result
    }

    fn write_forced(&mut self, at: u64) -> Result<(), NoMemory> {
        match self.first().write_forced(self.cpu.token(), VirtAddr::new(at), &[1]) {
            Ok(()) => Ok(()),
            Err(error) if error.fault == FaultError::OutOfMemory => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A page of the embedder's, mapped where [`raw_area`] is.
    fn insert_page(&mut self) -> Result<(), NoMemory> {
        let page = self.vm.new_page(self.cpu.token()).map_err(|_| NoMemory)?;
        match self.first().insert_page(self.cpu.token(), VirtAddr::new(RAW), &page) {
            Ok(()) => Ok(()),
            Err(InsertError::NoMemory(_)) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Looks at everything; only pages that are resident are read, so that looking changes nothing.
    fn look(&mut self) -> Seen {
        let spaces = self.spaces.clone();
        spaces
            .iter()
            .map(|space| {
                let mut areas = Vec::new();
                space.areas(self.cpu.token(), |area| areas.push((area.range, area.rights)));
                let usage = Usage { tables: 0, minor: 0, major: 0, peak: 0, ..space.usage() };
                let words = WRITTEN.iter().map(|at| self.peek(space, *at));
                (areas, usage, words.collect())
            })
            .collect()
    }

    fn peek(&mut self, space: &Space<Hostile>, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        space.read(self.cpu.token(), VirtAddr::new(at), &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn audit(&mut self, when: &str) {
        let spaces: Vec<&Space<Hostile>> = self.spaces.iter().map(|space| &**space).collect();
        let result = self.vm.audit(self.cpu.token(), &spaces, &[&self.object]);
        assert_eq!(result, Ok(()), "{when}");
    }

    fn end(mut self) {
        self.cpu.stop();
        for space in std::mem::take(&mut self.spaces) {
            space.exit(self.cpu.token());
        }
        self.audit("after all exits");
    }
}

/// Pages that are resident when an operation begins, if it is mapped then.
const WRITTEN: [u64; 3] = [LOW + PAGE, LOW + 2 * PAGE, SHOWN];

fn range(at: u64, pages: u64) -> PageRange {
    PageRange::with_len(VirtAddr::new(at), pages * PAGE).expect("aligned")
}

/// Runs `operation` with the n-th allocation failing, once or with all that follow, for n from 1 until none fails any
/// more. Returns how many allocations the operation needs.
fn sweep(name: &str, prepare: impl Fn(&mut Scene), operation: impl Fn(&mut Scene) -> Result<(), NoMemory>) -> u64 {
    let needs = sweep_of(name, Failing::AllFromThenOn, &prepare, &operation);
    assert_eq!(needs, sweep_of(name, Failing::Once, &prepare, &operation), "{name}");
    needs
}

fn sweep_of(
    name: &str,
    which: Failing,
    prepare: &impl Fn(&mut Scene),
    operation: &impl Fn(&mut Scene) -> Result<(), NoMemory>,
) -> u64 {
    for n in 0..200 {
        let mut scene = Scene::new();
        scene.write_half();
        prepare(&mut scene);
        let before = scene.look();
        scene.vm.machine().fail_allocation_after(n, which);
        let result = operation(&mut scene);
        let has_failed = scene.vm.machine().fail_no_allocation();
        assert!(result.is_err() || which == Failing::Once || !has_failed, "{name}: who gives in to the {n}th failure?");
        if result.is_err() {
            assert!(has_failed, "{name}: out of memory, but allocation {n} did not fail");
            assert_eq!(scene.look(), before, "{name}: allocation {n} failed and something has changed");
        }
        scene.audit(&format!("{name}: after allocation {n} failed"));
        assert!(result.is_ok() || operation(&mut scene).is_ok(), "{name}: with memory it works");
        scene.audit(&format!("{name}: at the end"));
        scene.end();
        if !has_failed {
            return n;
        }
    }
    panic!("{name} allocates for ever");
}

fn forked(scene: &mut Scene) {
    assert!(scene.fork().is_ok());
}

#[test]
fn first_touch() {
    assert_eq!(sweep("in a table that exists", |_| {}, |scene| scene.store(LOW, 1)), 1);
    assert_eq!(sweep("without tables", |_| {}, |scene| scene.store(FAR, 1)), 4, "three tables and the page");
    assert_eq!(sweep("zero page without tables", |_| {}, |scene| scene.load(FAR)), 3);
    assert_eq!(sweep("of the object", |_| {}, |scene| scene.store(SHOWN + PAGE, 1)), 1);
}

#[test]
fn copy_on_write() {
    let zero = |scene: &mut Scene| assert!(scene.load(LOW).is_ok());
    assert_eq!(sweep("of the zero page", zero, |scene| scene.store(LOW, 1)), 1);
    assert_eq!(sweep("after a fork", forked, |scene| scene.store(LOW + PAGE, 1)), 4, "three tables and the page");
    let unshared = |scene: &mut Scene| {
        forked(scene);
        assert!(scene.store(LOW, 1).is_ok());
    };
    assert_eq!(sweep("in an unshared table", unshared, |scene| scene.store(LOW + PAGE, 1)), 1);
}

#[test]
fn a_fault_from_outside() {
    let child = |scene: &mut Scene| {
        let space = Arc::clone(scene.spaces.last().expect("a child"));
        match space.fault(scene.cpu.token(), VirtAddr::new(LOW + PAGE), Access::Write) {
            Ok(_) => Ok(()),
            Err(FaultError::OutOfMemory) => Err(NoMemory),
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(sweep("in a child", forked, child), 4);
}

#[test]
fn fork() {
    assert_eq!(sweep("the first", |_| {}, Scene::fork), 1, "a root table, whatever is mapped");
    assert_eq!(sweep("the second", forked, Scene::fork), 1);
}

#[test]
fn unmap() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.unmap(LOW, 4)), 0);
    assert_eq!(sweep("of shared tables as a whole", forked, |scene| scene.unmap(LOW, 4)), 0);
    let failures = sweep("of a part of a shared table", forked, |scene| scene.unmap(LOW + PAGE, 1));
    assert!(failures >= 3, "the path is copied: {failures}");
    sweep("of parts of two shared tables", forked, |scene| scene.unmap(LOW + PAGE, 2));
}

#[test]
fn protect() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.protect(LOW, 4, Rights::READ)), 0);
    sweep("of shared tables", forked, |scene| scene.protect(LOW, 4, Rights::READ));
    sweep("of a part", forked, |scene| scene.protect(LOW + PAGE, 2, Rights::NONE));
    let narrowed = |scene: &mut Scene| {
        assert!(scene.protect(LOW + PAGE, 2, Rights::READ).is_ok());
        forked(scene);
    };
    let widen = |scene: &mut Scene| scene.protect(LOW + PAGE, 2, Rights::READ | Rights::WRITE);
    assert_eq!(sweep("that widens", narrowed, widen), 0, "shared tables are left alone");
}

#[test]
fn replace() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.replace(LOW, 4)), 0);
    sweep("of a part of shared tables", forked, |scene| scene.replace(LOW + PAGE, 2));
}

#[test]
fn truncation() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.resize(0)), 0);
    assert!(sweep("of shared tables", forked, |scene| scene.resize(0)) > 0);
    assert!(sweep("of one page", forked, |scene| scene.resize(PAGE)) > 0);
    assert_eq!(sweep("inside the last page", forked, |scene| scene.resize(PAGE + 7)), 0);
}

#[test]
fn discard() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.discard(LOW, 4)), 0);
    // All four pages lie in two tables with nothing else: but a discard gives up no more than whole tables' spans.
    assert!(sweep("of shared tables", forked, |scene| scene.discard(LOW, 4)) > 0);
    assert!(sweep("of a page of the object", forked, |scene| scene.discard(SHOWN, 1)) > 0);
    let free = |scene: &mut Scene| {
        assert_eq!(scene.first().free_lazily(scene.cpu.token(), range(LOW, 4)), Ok(()));
        Ok(())
    };
    assert_eq!(sweep("that is lazy", forked, free), 0, "shared tables are left alone");
}

#[test]
fn remap() {
    let to = |at| Destination::Fixed(VirtAddr::new(at));
    let near = LOW + 64 * PAGE;
    assert_eq!(sweep("to a table that is there", |_| {}, |scene| scene.remap(LOW + PAGE, 1, to(near), false)), 0);
    let far = 7 << 40;
    let failures = sweep("into another stripe", |_| {}, |scene| scene.remap(LOW, 4, to(far), false));
    assert_eq!(failures, 3, "the new path");
    let whole = |scene: &mut Scene| scene.remap(LOW, 4, Destination::Anywhere, true);
    assert!(sweep("that keeps the old place", |_| {}, whole) > 0);
    for keep in [false, true] {
        let failures = sweep("of shared tables", forked, |scene| scene.remap(LOW, 4, to(far), keep));
        assert!(failures > 3, "both paths: {failures}");
        sweep("of the object", forked, |scene| scene.remap(SHOWN, 2, to(far + PAGE), keep));
    }
    let large = |scene: &mut Scene| {
        assert!(scene.unmap(LOW, 4).is_ok() && scene.replace(2 << 30, 1536).is_ok());
        [0, 600, 1100].iter().for_each(|page| assert!(scene.store((2 << 30) + page * PAGE, 1).is_ok()));
        forked(scene);
    };
    let failures = sweep("of whole shared tables", large, |scene| scene.remap(2 << 30, 1536, to(far), false));
    assert_eq!(failures, 4, "the old path and the new one, but no leaf table");
}

#[test]
fn punch() {
    assert_eq!(sweep("of private tables", |_| {}, |scene| scene.punch(0, PAGE)), 0);
    assert!(sweep("of shared tables", forked, |scene| scene.punch(0, PAGE)) > 0);
    assert_eq!(sweep("inside a page", forked, |scene| scene.punch(100, 100)), 0);
}

#[test]
fn pin() {
    let pin = |access| move |scene: &mut Scene| scene.pinned(LOW + PAGE, 2, access, |_| Ok(()));
    assert_eq!(sweep("of own pages", |_| {}, pin(Access::Write)), 0);
    for access in [Access::Write, Access::Read] {
        let failures = sweep("of shared pages", forked, pin(access));
        assert!(failures > 4, "two paths and two pages: {failures}");
    }
    let fork = |scene: &mut Scene| scene.pinned(LOW + PAGE, 2, Access::Write, Scene::fork);
    let failures = sweep("and fork", |_| {}, fork);
    assert!(failures > 4, "a root, two paths and two pages: {failures}");
}

#[test]
fn populate() {
    assert_eq!(sweep("with zeroes", |_| {}, |scene| scene.populate(FAR, 1, Populate::Read)), 3);
    assert_eq!(sweep("with memory", |_| {}, |scene| scene.populate(FAR, 1, Populate::AsMapped)), 4);
    let both = |scene: &mut Scene| scene.populate(LOW + PAGE, 2, Populate::Write);
    assert!(sweep("with copies", forked, both) > 4);
}

#[test]
fn forced_store() {
    let read_only = |scene: &mut Scene| {
        assert!(scene.protect(LOW, 4, Rights::READ).is_ok());
        forked(scene);
    };
    assert_eq!(sweep("to shared memory", read_only, |scene| scene.write_forced(LOW + PAGE)), 4);
}

/// An area for frames of the embedder's.
fn raw_area(scene: &mut Scene) {
    let request = MapRequest { backing: Backing::Frames, ..MapRequest::anonymous(PAGE).fixed(VirtAddr::new(RAW)) };
    scene.first().map(scene.cpu.token(), request).expect("room");
}

#[test]
fn insert() {
    assert_eq!(sweep("of a page", raw_area, Scene::insert_page), 4, "the page and its path");
    let with_child = |scene: &mut Scene| {
        raw_area(scene);
        forked(scene);
    };
    assert_eq!(sweep("after a fork", with_child, Scene::insert_page), 4);
}
