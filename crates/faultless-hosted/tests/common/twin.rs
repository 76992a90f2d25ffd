//! A script executed twice: by `faultless` on a hosted machine, and by the oracle. After each step all must agree.

use super::script::{HEAP, Mapping, Step};
use faultless::{
    Access, AccessError, AdviseError, AreaFlags, Backing, CpuId, Destination, FaultError, Layout, MapError, MapRequest,
    Object, PageRange, PageWriter, Pager, PagerError, Placement, Populate, ProtectError, RemapError, RemapRequest,
    Rights, Sharing, Space, VirtAddr, Vm,
};
use faultless_hosted::{HostedCpu, Mmu};
use faultless_model::{
    self as model, AreaView, Cut, Limits, MapRefusal, Move, MoveRefusal, ObjectId, PAGE, Place, ProtectRefusal,
    Request, Resident, Shows, Source, SpaceId, Target, Touch, Verdict, World,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

const MOST_SPACES: usize = 8;
const MOST_OBJECTS: usize = 6;
/// Resident pages of all spaces together, so that memory never runs out.
const MOST_PAGES: u64 = 4000;

type Outcome<T = ()> = Result<T, String>;

/// Both worlds.
pub struct Twin<M: Mmu> {
    vm: Vm<M>,
    cpus: Vec<HostedCpu<M>>,
    running: Vec<Option<SpaceId>>,
    spaces: Vec<(Arc<Space<M>>, SpaceId)>,
    objects: Vec<(Arc<Object<M>>, ObjectId)>,
    /// Objects by the number that `faultless` gave them.
    names: BTreeMap<u64, ObjectId>,
    world: World,
}

/// A file whose bytes say where they are, up to its length.
struct Known {
    pages: u64,
}

/// The bytes of page `index` of every file.
fn file_page(index: u64) -> Vec<u8> {
    (0..PAGE).map(|at| (index * 31 + at / 8 + 1) as u8).collect()
}

impl Pager for Known {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        if index == BROKEN {
            return Err(PagerError);
        }
        if index < self.pages {
            page.write(0, &file_page(index));
        }
        Ok(())
    }
}

/// The page of every file that cannot be read.
const BROKEN: u64 = 4;

fn agree<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: faultless {got:?}, oracle {expected:?}")) }
}

fn agree_bytes(at: u64, got: &[u8], expected: &[u8]) -> Outcome {
    match got.iter().zip(expected).position(|(got, expected)| got != expected) {
        None => Ok(()),
        Some(first) => {
            let byte = at + first as u64;
            Err(format!("byte at {byte:#x}: faultless {:#x}, oracle {:#x}", got[first], expected[first]))
        }
    }
}

impl<M: Mmu> Twin<M> {
    /// One space, run by every CPU.
    pub fn new(vm: Vm<M>) -> Self {
        let cpus = vm.machine().cpus() as u32;
        let mut cpus: Vec<_> = (0..cpus).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
        let mut world = World::new(Limits::linux());
        let space = Arc::new(vm.new_space(cpus[0].token(), Layout::linux()).expect("memory"));
        let id = world.new_space();
        space.set_brk(VirtAddr::new(HEAP));
        world.set_brk(id, HEAP);
        cpus.iter_mut().for_each(|cpu| cpu.run(&space));
        let running = vec![Some(id); cpus.len()];
        Self { vm, cpus, running, spaces: vec![(space, id)], objects: vec![], names: BTreeMap::new(), world }
    }

    /// Executes a script to its end, with a last audit.
    pub fn run(&mut self, script: &[Step]) -> Outcome {
        let trace = std::env::var_os("FAULTLESS_TRACE").is_some();
        for (number, step) in script.iter().enumerate() {
            if trace {
                eprintln!("step {number}: {step:?}");
            }
            self.step(step).map_err(|what| format!("step {number}, {step:?}: {what}"))?;
            self.compare_counts().map_err(|what| format!("after step {number}, {step:?}: {what}"))?;
        }
        self.audit(0).map_err(|what| format!("at the end: {what}"))?;
        self.finish().map_err(|what| format!("after all exits: {what}"))
    }

    fn step(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::Run { cpu, space } => self.switch(cpu, space),
            Step::Map { cpu, space, ref request } => self.map(cpu, space, request)?,
            Step::Unmap { cpu, space, at, pages } => self.unmap(cpu, space, at, pages)?,
            Step::Protect { cpu, space, at, pages, rights } => self.protect(cpu, space, at, pages, rights)?,
            Step::Brk { cpu, space, to } => self.brk(cpu, space, to)?,
            Step::Fork { cpu, space } => self.fork(cpu, space)?,
            Step::Exit { cpu, space } => self.exit(cpu, space, true)?,
            Step::Drop { cpu, space } => self.exit(cpu, space, false)?,
            Step::Load { cpu, at, len } => self.load(cpu, at, len)?,
            Step::Store { cpu, at, len, value } => self.store(cpu, at, len, value)?,
            Step::Execute { cpu, at } => self.execute(cpu, at)?,
            Step::Fill { cpu, at, pages, value } => self.fill(cpu, at, pages, value)?,
            Step::Read { cpu, space, at, len } => self.read(cpu, space, at, len)?,
            Step::Write { cpu, space, at, len, value } => self.write(cpu, space, at, len, value)?,
            Step::NewObject { pages, file } => self.new_object(pages, file),
            Step::Resize { cpu, object, size } => self.resize(cpu, object, size)?,
            Step::ReadObject { cpu, object, offset, len } => self.read_object(cpu, object, offset, len)?,
            Step::WriteObject { cpu, object, offset, len, value } => {
                self.write_object(cpu, object, offset, len, value)?;
            }
            Step::Discard { cpu, space, at, pages, lazily } => self.discard(cpu, space, at, pages, lazily)?,
            Step::Remap { cpu, space, ref request } => self.remap(cpu, space, request)?,
            Step::Populate { cpu, space, at, pages, how } => self.populate(cpu, space, at, pages, how)?,
            Step::Force { cpu, space, at, len, value } => self.force(cpu, space, at, len, value)?,
            Step::Punch { cpu, object, offset, len } => self.punch(cpu, object, offset, len)?,
            Step::Pin { cpu, space, at, write } => self.pin(cpu, space, at, write)?,
            Step::Audit { cpu } => self.audit(cpu)?,
        }
        Ok(())
    }

    fn pick(&self, cpu: usize, space: usize) -> Option<(usize, Arc<Space<M>>, SpaceId)> {
        let (space, id) = self.spaces.get(space % self.spaces.len().max(1))?;
        Some((cpu % self.cpus.len(), Arc::clone(space), *id))
    }

    fn resident(&self) -> u64 {
        let pages = |resident: Resident| resident.anon + resident.file + resident.memory;
        self.spaces.iter().map(|(_, id)| pages(self.world.resident(*id))).sum()
    }

    fn switch(&mut self, cpu: usize, space: usize) {
        if let Some((cpu, space, id)) = self.pick(cpu, space) {
            self.cpus[cpu].run(&space);
            self.running[cpu] = Some(id);
        }
    }

    fn map(&mut self, cpu: usize, space: usize, mapping: &Mapping) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let object = mapping.object.filter(|_| !self.objects.is_empty());
        let object = object.map(|(number, offset)| (self.objects[number % self.objects.len()].clone(), offset));
        let shows = object.as_ref().map_or(Shows::Anonymous, |((_, id), offset)| Shows::Object(*id, *offset));
        let request = request(mapping, object.map(|((object, _), offset)| (object, offset)));
        let got = space.map(self.cpus[cpu].token(), request).map(VirtAddr::as_u64);
        let Mapping { place, len, rights, most, shared, grows, .. } = *mapping;
        let asked = Request { place, len, rights, most, shared, grows, shows };
        let predicted = if len < 1 << 47 { self.world.highest_free(id, len) } else { None };
        let expected = match got {
            Ok(at) => self.world.map_chosen(id, &asked, at),
            Err(_) => self.world.map(id, &asked),
        };
        agree("map", got.map_err(map_error), expected)?;
        if let (Ok(at), Place::Anywhere, Some(highest)) = (got, place, predicted)
            && !crosses_stripe(highest, len)
        {
            agree("place", at, highest)?;
        }
        self.compare_areas(&space, id)
    }

    fn unmap(&mut self, cpu: usize, space: usize, at: u64, pages: u64) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let got = space.unmap(self.cpus[cpu].token(), range(at, pages)).is_ok();
        let end = range(at, pages).end().as_u64();
        agree("unmap", got, self.world.unmap(id, at, end))?;
        self.compare_areas(&space, id)
    }

    fn protect(&mut self, cpu: usize, space: usize, at: u64, pages: u64, rights: model::Rights) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let got = space.protect(self.cpus[cpu].token(), range(at, pages), to_rights(rights));
        let expected = self.world.protect(id, at, range(at, pages).end().as_u64(), rights);
        let got = got.map_err(|error| match error {
            ProtectError::Unmapped(at) => Some(ProtectRefusal::Unmapped(at.as_u64())),
            ProtectError::Denied(at) => Some(ProtectRefusal::Denied(at.as_u64())),
            ProtectError::NoMemory(_) | ProtectError::Sealed(_) | ProtectError::Unaligned(_) => None,
        });
        agree("protect", got, expected.map_err(Some))?;
        self.compare_areas(&space, id)
    }

    fn brk(&mut self, cpu: usize, space: usize, to: u64) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let got = space.brk(self.cpus[cpu].token(), VirtAddr::new(to)).as_u64();
        agree("brk", got, self.world.brk(id, to))?;
        self.compare_areas(&space, id)
    }

    fn fork(&mut self, cpu: usize, space: usize) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        if self.spaces.len() == MOST_SPACES || self.resident() > MOST_PAGES / 2 {
            return Ok(());
        }
        let child = space.fork(self.cpus[cpu].token()).map_err(|error| format!("{error:?}"))?;
        let child_id = self.world.fork(id);
        self.spaces.push((Arc::new(child), child_id));
        let (child, id) = self.spaces[self.spaces.len() - 1].clone();
        self.compare_areas(&child, id)
    }

    fn exit(&mut self, cpu: usize, space: usize, properly: bool) -> Outcome {
        if self.spaces.len() < 2 {
            return Ok(());
        }
        let number = space % self.spaces.len();
        let (space, id) = self.spaces.remove(number);
        let cpu = cpu % self.cpus.len();
        for (cpu, running) in self.cpus.iter_mut().zip(&mut self.running) {
            if *running == Some(id) {
                cpu.stop();
                *running = None;
            }
        }
        self.world.exit(id);
        if properly {
            space.exit(self.cpus[cpu].token());
            self.look_at_the_gone(cpu, &space, id)?;
        }
        drop(space);
        self.cpus[cpu].token().collect();
        Ok(())
    }

    /// A space that has exited has nothing mapped and takes nothing any more.
    fn look_at_the_gone(&mut self, cpu: usize, space: &Space<M>, id: SpaceId) -> Outcome {
        let at = VirtAddr::new(2 << 20);
        let token = self.cpus[cpu].token();
        let got = space.fault(token, at, Access::Read).map(drop);
        agree("fault after exit", got, Err(FaultError::Unmapped))?;
        let got = space.read(token, at, &mut [0]);
        agree("read after exit", got, Err(AccessError { done: 0, fault: FaultError::Unmapped }))?;
        let got = space.map(token, MapRequest::anonymous(PAGE)).map(drop);
        agree("map after exit", got, Err(MapError::NoMemory))?;
        self.compare_usage(space, id)
    }

    fn load(&mut self, cpu: usize, at: u64, len: usize) -> Outcome {
        let cpu = cpu % self.cpus.len();
        let (mut got, mut expected) = (vec![0; len], vec![0; len]);
        let result = match len {
            1 => self.cpus[cpu].load(VirtAddr::new(at)).map(|byte| got[0] = byte).map_err(|fault| (0, fault)),
            8 if at % PAGE <= PAGE - 8 => {
                let word = self.cpus[cpu].load::<u64>(VirtAddr::new(at));
                word.map(|word| got = word.to_le_bytes().to_vec()).map_err(|fault| (0, fault))
            }
            _ => self.cpus[cpu].read(VirtAddr::new(at), &mut got).map_err(|error| (error.done, error.fault)),
        };
        let right = match self.running[cpu] {
            Some(id) => self.world.read(id, at, &mut expected),
            None => Err(Cut { done: 0, verdict: Verdict::Unmapped }),
        };
        agree("load", result, right.map_err(to_cut))?;
        agree_bytes(at, &got, &expected)
    }

    fn store(&mut self, cpu: usize, at: u64, len: usize, value: u8) -> Outcome {
        let cpu = cpu % self.cpus.len();
        let bytes = pattern(value, len);
        let address = VirtAddr::new(at);
        let result = match len {
            1 => self.cpus[cpu].store(address, value).map_err(|fault| (0, fault)),
            2 if at % PAGE < PAGE - 1 => {
                let word = u16::from_le_bytes([bytes[0], bytes[1]]);
                self.cpus[cpu].store(address, word).map_err(|fault| (0, fault))
            }
            _ => self.cpus[cpu].write(address, &bytes).map_err(|error| (error.done, error.fault)),
        };
        let right = match self.running[cpu] {
            Some(id) => self.world.write(id, at, &bytes),
            None => Err(Cut { done: 0, verdict: Verdict::Unmapped }),
        };
        agree("store", result, right.map_err(to_cut))
    }

    fn execute(&mut self, cpu: usize, at: u64) -> Outcome {
        let cpu = cpu % self.cpus.len();
        let got = self.cpus[cpu].execute(VirtAddr::new(at));
        let expected = match self.running[cpu] {
            Some(id) => self.world.touch(id, at, Touch::Execute).map(|()| {
                let mut byte = [0];
                self.world.read(id, at, &mut byte).expect("what executes can be read");
                byte[0]
            }),
            None => Err(Verdict::Unmapped),
        };
        agree("execute", got, expected.map_err(to_fault))
    }

    fn fill(&mut self, cpu: usize, at: u64, pages: u64, value: u8) -> Outcome {
        if self.resident() + pages > MOST_PAGES {
            return Ok(());
        }
        (0..pages).try_for_each(|page| self.store(cpu, at + page * PAGE, 8, value))
    }

    fn read(&mut self, cpu: usize, space: usize, at: u64, len: usize) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        self.read_of(cpu, &space, id, at, len)
    }

    fn read_of(&mut self, cpu: usize, space: &Space<M>, id: SpaceId, at: u64, len: usize) -> Outcome {
        let (mut got, mut expected) = (vec![0; len], vec![0; len]);
        let result = space.read(self.cpus[cpu].token(), VirtAddr::new(at), &mut got);
        let right = self.world.read(id, at, &mut expected);
        agree("read", result.map_err(|error| (error.done, error.fault)), right.map_err(to_cut))?;
        agree_bytes(at, &got, &expected)
    }

    fn write(&mut self, cpu: usize, space: usize, at: u64, len: usize, value: u8) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let bytes = pattern(value, len);
        let result = space.write(self.cpus[cpu].token(), VirtAddr::new(at), &bytes);
        let right = self.world.write(id, at, &bytes);
        agree("write", result.map_err(|error| (error.done, error.fault)), right.map_err(to_cut))
    }

    fn new_object(&mut self, pages: u64, file: bool) {
        if self.objects.len() == MOST_OBJECTS {
            return;
        }
        // Files end inside a page.
        let size = if file { pages * PAGE - 100 } else { pages * PAGE };
        let (object, source) = if file {
            let bytes = (0..pages).flat_map(file_page).collect();
            let object = self.vm.new_file(size, Arc::new(Known { pages }), "a file").expect("memory");
            (object, Source::File { bytes, broken: vec![BROKEN] })
        } else {
            (self.vm.new_memory(size, "memory").expect("memory"), Source::Memory)
        };
        let id = self.world.new_object(size, source);
        self.names.insert(object.id(), id);
        self.objects.push((object, id));
    }

    fn object(&self, number: usize) -> Option<(Arc<Object<M>>, ObjectId)> {
        self.objects.get(number % self.objects.len().max(1)).cloned()
    }

    fn resize(&mut self, cpu: usize, object: usize, size: u64) -> Outcome {
        let Some((object, id)) = self.object(object) else { return Ok(()) };
        let cpu = cpu % self.cpus.len();
        agree("resize", object.resize(self.cpus[cpu].token(), size), Ok(()))?;
        self.world.resize(id, size);
        agree("size", object.size(), self.world.object_size(id))
    }

    fn read_object(&mut self, cpu: usize, object: usize, offset: u64, len: usize) -> Outcome {
        let Some((object, id)) = self.object(object) else { return Ok(()) };
        if self.world.meets_broken(id, offset, len as u64) {
            return Ok(());
        }
        let cpu = cpu % self.cpus.len();
        let mut got = vec![0; len];
        let read = object.read(self.cpus[cpu].token(), offset, &mut got).map_err(|error| format!("{error:?}"))?;
        got.truncate(read);
        let expected = self.world.object_bytes(id, offset, len as u64);
        agree("object read", got.len(), expected.len())?;
        agree_bytes(offset, &got, &expected)
    }

    fn write_object(&mut self, cpu: usize, object: usize, offset: u64, len: usize, value: u8) -> Outcome {
        let Some((object, id)) = self.object(object) else { return Ok(()) };
        if self.world.meets_broken(id, offset, len as u64) {
            return Ok(());
        }
        let cpu = cpu % self.cpus.len();
        let bytes = pattern(value, len);
        agree("object write", object.write(self.cpus[cpu].token(), offset, &bytes), Ok(len))?;
        self.world.write_object(id, offset, &bytes);
        agree("size", object.size(), self.world.object_size(id))
    }
}

/// What changes pages and places without a new mapping.
impl<M: Mmu> Twin<M> {
    fn discard(&mut self, cpu: usize, space: usize, at: u64, pages: u64, lazily: bool) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let (range, end) = (range(at, pages), range(at, pages).end().as_u64());
        let token = self.cpus[cpu].token();
        if lazily {
            let got = match space.free_lazily(token, range) {
                Ok(()) => Some(true),
                Err(AdviseError::Refused(_)) => Some(false),
                Err(_) => None,
            };
            return agree("free", got, self.world.is_anonymous(id, at, end));
        }
        agree("discard", space.discard(token, range, false).is_ok(), self.world.discard(id, at, end))
    }

    fn remap(&mut self, cpu: usize, space: usize, request: &Move) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let Move { at, old, new, target, keep } = *request;
        let destination = match target {
            Target::InPlace => Destination::InPlace,
            Target::Anywhere => Destination::Anywhere,
            Target::Fixed(to) => Destination::Fixed(VirtAddr::new(to)),
        };
        let asked = RemapRequest { addr: VirtAddr::new(at), old_len: old, new_len: new, destination, keep };
        let got = space.remap(self.cpus[cpu].token(), asked).map(VirtAddr::as_u64);
        let expected = self.world.remap(id, request, got.ok());
        let got = got.map_err(|error| match error {
            RemapError::Invalid => Some(MoveRefusal::Invalid),
            RemapError::Unmapped => Some(MoveRefusal::Unmapped),
            RemapError::NoMemory => Some(MoveRefusal::NoMemory),
            RemapError::Sealed => None,
        });
        agree("remap", got, expected.map_err(Some))?;
        self.compare_areas(&space, id)
    }

    fn populate(&mut self, cpu: usize, space: usize, at: u64, pages: u64, how: model::Populate) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        if self.resident() + pages > MOST_PAGES {
            return Ok(());
        }
        let asked = match how {
            model::Populate::AsMapped => Populate::AsMapped,
            model::Populate::Read => Populate::Read,
            model::Populate::Write => Populate::Write,
        };
        let got = space.populate(self.cpus[cpu].token(), range(at, pages), asked);
        let got = got.map_err(|error| (error.at.as_u64(), error.fault));
        let expected = self.world.populate(id, at, range(at, pages).end().as_u64(), how);
        agree("populate", got, expected.map_err(|(at, verdict)| (at, to_fault(verdict))))
    }

    fn force(&mut self, cpu: usize, space: usize, at: u64, len: usize, value: u8) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let bytes = pattern(value, len);
        let result = space.write_forced(self.cpus[cpu].token(), VirtAddr::new(at), &bytes);
        let right = self.world.write_forced(id, at, &bytes);
        agree("forced store", result.map_err(|error| (error.done, error.fault)), right.map_err(to_cut))
    }

    fn punch(&mut self, cpu: usize, object: usize, offset: u64, len: u64) -> Outcome {
        let Some((object, id)) = self.object(object) else { return Ok(()) };
        if self.world.meets_broken(id, offset, len) {
            return Ok(());
        }
        let cpu = cpu % self.cpus.len();
        agree("punch", object.punch_hole(self.cpus[cpu].token(), offset, len), Ok(()))?;
        self.world.punch(id, offset, offset + len);
        agree("size", object.size(), self.world.object_size(id))
    }

    /// A pin brings the page in and, of private memory that was written, makes a copy if others have it too.
    fn pin(&mut self, cpu: usize, space: usize, at: u64, write: bool) -> Outcome {
        let Some((cpu, space, id)) = self.pick(cpu, space) else { return Ok(()) };
        let (access, touch) = if write { (Access::Write, Touch::Write) } else { (Access::Read, Touch::Read) };
        let result = space.pin(self.cpus[cpu].token(), range(at, 1), access);
        let right = self.world.touch(id, at, touch);
        agree("pin", result.as_ref().map(drop).map_err(|error| error.fault), right.map_err(to_fault))?;
        let Ok(pins) = result else { return Ok(()) };
        let (mut got, mut expected) = (vec![0; PAGE as usize], vec![0; PAGE as usize]);
        self.vm.machine().read(pins.frames()[0], 0, &mut got);
        self.world.read(id, at, &mut expected).map_err(|_| "what was pinned can be read")?;
        agree_bytes(at, &got, &expected)
    }
}

/// Comparisons.
impl<M: Mmu> Twin<M> {
    fn compare_counts(&self) -> Outcome {
        self.spaces.iter().try_for_each(|(space, id)| self.compare_usage(space, *id))
    }

    fn compare_usage(&self, space: &Space<M>, id: SpaceId) -> Outcome {
        let usage = space.usage();
        let got = Resident { anon: usage.anon, file: usage.file, memory: usage.shmem };
        agree(&format!("resident pages of space {}", space.id()), got, self.world.resident(id))
    }

    fn compare_areas(&mut self, space: &Space<M>, id: SpaceId) -> Outcome {
        let mut got: Vec<AreaView> = Vec::new();
        let mut objects = Vec::new();
        space.areas(self.cpus[0].token(), |area| {
            let object = area.object.as_ref().map(|(object, offset)| (object.id(), *offset));
            objects.push(object);
            got.push(AreaView {
                start: area.range.start().as_u64(),
                end: area.range.end().as_u64(),
                attributes: model::Attributes {
                    rights: from_rights(area.rights),
                    most: from_rights(area.max_rights),
                    shared: area.sharing == Sharing::Shared,
                    grows: area.flags.contains(AreaFlags::GROWS_DOWN),
                    object: None,
                },
            });
        });
        let expected = self.world.areas(id);
        self.learn_names(&got, &objects, &expected);
        for (area, object) in got.iter_mut().zip(&objects) {
            area.attributes.object = object
                .map(|(number, offset)| (self.names.get(&number).copied(), offset))
                .and_then(|(id, offset)| Some((id?, offset)));
        }
        agree("areas", join(got), expected)
    }

    /// Objects that a shared anonymous mapping made are known by the first area that shows them.
    fn learn_names(&mut self, got: &[AreaView], objects: &[Option<(u64, u64)>], expected: &[AreaView]) {
        for (area, object) in got.iter().zip(objects) {
            let Some((number, _)) = object else { continue };
            let same = expected.iter().find(|other| other.start <= area.start && area.start < other.end);
            if let Some((id, _)) = same.and_then(|other| other.attributes.object)
                && !self.names.values().any(|known| *known == id)
            {
                self.names.entry(*number).or_insert(id);
            }
        }
    }

    /// Everything: areas, contents of all resident pages, the recount.
    fn audit(&mut self, cpu: usize) -> Outcome {
        let cpu = cpu % self.cpus.len();
        for (space, id) in self.spaces.clone() {
            self.compare_areas(&space, id)?;
            for page in self.world.touched(id) {
                let area = self.world.areas(id).into_iter().find(|area| area.start <= page && page < area.end);
                if area.is_some_and(|area| !area.attributes.rights.are_none()) {
                    self.read_of(cpu, &space, id, page, PAGE as usize)?;
                }
            }
        }
        self.compare_counts()?;
        self.recount(cpu)
    }

    fn recount(&mut self, cpu: usize) -> Outcome {
        let mut objects: BTreeMap<u64, Arc<Object<M>>> = BTreeMap::new();
        for (object, _) in &self.objects {
            objects.insert(object.id(), Arc::clone(object));
        }
        for (space, _) in &self.spaces {
            space.areas(self.cpus[cpu].token(), |area| {
                if let Some((object, _)) = area.object {
                    objects.insert(object.id(), object);
                }
            });
        }
        self.cpus.iter_mut().for_each(|cpu| {
            cpu.token().collect();
        });
        let spaces: Vec<&Space<M>> = self.spaces.iter().map(|(space, _)| &**space).collect();
        let objects: Vec<&Arc<Object<M>>> = objects.values().collect();
        let mut cpus: Vec<_> = self.cpus.iter_mut().map(HostedCpu::token).collect();
        self.vm.audit_all(&mut cpus, &spaces, &objects).map_err(|error| format!("audit:\n{error}"))
    }

    /// Everything exits; nothing may be left.
    fn finish(&mut self) -> Outcome {
        self.cpus.iter_mut().for_each(HostedCpu::stop);
        for (space, id) in core::mem::take(&mut self.spaces) {
            self.world.exit(id);
            space.exit(self.cpus[0].token());
        }
        self.objects.clear();
        self.recount(0)?;
        let stats = self.vm.stats();
        agree("tables left", stats.get("tables_allocated"), stats.get("tables_freed"))?;
        agree("locks of spaces in faults (F-01)", stats.get("fault_space_locks"), 0)?;
        agree("locks of tables in faults (F-01)", stats.get("fault_table_locks"), 0)?;
        let total = stats.total_frames;
        self.cpus.clear(); // gives the caches back
        agree("free frames", self.vm.stats().free_frames, total - 1)
    }
}

/// Conversions.
fn request<M: Mmu>(mapping: &Mapping, object: Option<(Arc<Object<M>>, u64)>) -> MapRequest<M> {
    let (addr, placement) = match mapping.place {
        Place::Anywhere => (0, Placement::Anywhere),
        Place::Hint(at) => (at, Placement::Hint),
        Place::Fixed(at) => (at, Placement::Fixed),
        Place::FixedNoReplace(at) => (at, Placement::FixedNoReplace),
    };
    MapRequest {
        addr: VirtAddr::new(addr),
        len: mapping.len,
        placement,
        rights: to_rights(mapping.rights),
        max_rights: to_rights(mapping.most),
        sharing: if mapping.shared { Sharing::Shared } else { Sharing::Private },
        backing: match object {
            Some((object, offset)) => Backing::Object { object, offset },
            None => Backing::Anonymous,
        },
        flags: if mapping.grows { AreaFlags::GROWS_DOWN } else { AreaFlags::NONE },
    }
}

/// Does the range cross a border of 2 TiB? Such a place is second choice for `faultless`.
fn crosses_stripe(at: u64, len: u64) -> bool {
    at >> 41 != (at + len - 1) >> 41
}

/// `pages` pages from `at` on, at most to the end of the lower half.
fn range(at: u64, pages: u64) -> PageRange {
    PageRange::new(VirtAddr::new(at), VirtAddr::new(at + pages * PAGE)).expect("aligned")
}

fn pattern(value: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| value.wrapping_add((at / 8) as u8).max(1)).collect()
}

fn to_rights(rights: model::Rights) -> Rights {
    let part = |set, right| if set { right } else { Rights::NONE };
    part(rights.read, Rights::READ) | part(rights.write, Rights::WRITE) | part(rights.execute, Rights::EXECUTE)
}

fn from_rights(rights: Rights) -> model::Rights {
    model::Rights {
        read: rights.contains(Rights::READ),
        write: rights.contains(Rights::WRITE),
        execute: rights.contains(Rights::EXECUTE),
    }
}

fn map_error(error: MapError) -> MapRefusal {
    match error {
        MapError::Invalid => MapRefusal::Invalid,
        MapError::NoMemory => MapRefusal::NoMemory,
        MapError::NotPermitted => MapRefusal::NotPermitted,
        MapError::Exists => MapRefusal::Exists,
        MapError::Denied => MapRefusal::Denied,
        MapError::Overflow => MapRefusal::Overflow,
    }
}

fn to_fault(verdict: Verdict) -> FaultError {
    match verdict {
        Verdict::Unmapped => FaultError::Unmapped,
        Verdict::Denied => FaultError::Denied,
        Verdict::Bus => FaultError::Bus,
    }
}

fn to_cut(cut: Cut) -> (usize, FaultError) {
    (cut.done, to_fault(cut.verdict))
}

/// Joins what could be one area, as the oracle shows its own.
fn join(areas: Vec<AreaView>) -> Vec<AreaView> {
    let mut joined: Vec<AreaView> = Vec::new();
    for area in areas {
        let follows = |last: &AreaView| {
            let mut next = last.attributes;
            next.object = next.object.map(|(object, offset)| (object, offset + (last.end - last.start)));
            last.end == area.start && next == area.attributes
        };
        match joined.last_mut() {
            Some(last) if follows(last) => last.end = area.end,
            _ => joined.push(area),
        }
    }
    joined
}
