//! Several CPUs at once on a few pages, judged by [`faultless_model::history`] after the run.
//!
//! Each CPU does random operations on spaces that others use too: loads and stores through its MMU, remote reads and
//! writes, mmap, munmap, mprotect, fork, exit, truncation of a shared object. Every operation is logged with the times
//! of its beginning and end; every result must be possible, and at the end every counter must equal its recount.

use faultless::{
    Access, AccessError, Backing, Cpu, CpuId, FaultError, Layout, MapRequest, Object, PageRange, Rights, Sharing,
    Space, VirtAddr, Vm,
};
use faultless_hosted::{Body, Hostile, HostileConfig, HostedCpu, Rng};
use faultless_model::history::{Register, Span};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PAGE: u64 = 4096;
/// Words of a page that are used, a table's width apart.
pub const SLOTS: usize = 3;

/// What a storm is made of.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    pub seed: u64,
    pub cpus: usize,
    /// Operations per CPU.
    pub operations: usize,
    /// Operations and their weights, in the order of [`Doing`].
    pub weights: [u64; 10],
    /// Fork the first space this often before the start, so that tables are shared.
    pub forks_before: usize,
    /// Lets allocations fail now and then.
    pub failing: bool,
}

/// What a CPU may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Doing {
    Load,
    Store,
    RemoteRead,
    RemoteWrite,
    Unmap,
    Map,
    Protect,
    Fork,
    Leave,
    Resize,
}

const ALL: [Doing; 10] = [
    Doing::Load,
    Doing::Store,
    Doing::RemoteRead,
    Doing::RemoteWrite,
    Doing::Unmap,
    Doing::Map,
    Doing::Protect,
    Doing::Fork,
    Doing::Leave,
    Doing::Resize,
];

impl Storm {
    /// A storm of this seed: everything evenly, or mostly one kind of thing.
    pub fn of(seed: u64) -> Self {
        let weights = match seed / 7 % 4 {
            0 => [12, 14, 3, 3, 3, 3, 4, 3, 2, 1],
            // Copy-on-write in a tree of forks.
            1 => [10, 20, 2, 4, 1, 1, 1, 6, 4, 0],
            // Range operations against faults.
            2 => [10, 12, 1, 2, 6, 6, 8, 1, 1, 0],
            // The object.
            _ => [8, 10, 4, 6, 2, 2, 3, 2, 1, 6],
        };
        let cpus = 2 + seed as usize % 3;
        Self { seed, cpus, operations: 12, weights, forks_before: seed as usize / 3 % 3, failing: false }
    }

    /// Runs the storm.
    ///
    /// # Errors
    ///
    /// What was impossible, or wrong in the recount.
    pub fn run(&self) -> Result<u64, String> {
        let machine = Hostile::new(HostileConfig::new(512, self.cpus, self.seed)).expect("memory for the arena");
        let vm = Vm::new(machine).expect("a machine");
        let mut cpus: Vec<_> =
            (0..self.cpus as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
        let stage = Stage::new(&vm, &mut cpus, self);
        let bodies = cpus.iter_mut().enumerate().map(|(number, cpu)| {
            let stage = &stage;
            let body: Body<'_> = Box::new(move || Actor::new(stage, cpu, number, self).act());
            (CpuId::new(number as u32), body)
        });
        vm.machine().run(bodies.collect());
        vm.machine().fail_no_allocation();
        if std::env::var_os("FAULTLESS_TRACE").is_some() {
            stage.log.lock().unwrap().iter().for_each(|event| eprint!("{}", line(event)));
        }
        stage.look_once_more(&mut cpus[0]);
        stage.judge()?;
        stage.recount(&vm, &mut cpus)?;
        Ok(vm.machine().digest())
    }
}

/// The pages that the storm is about: on both sides of the borders of a leaf table, an upper table and a stripe.
const PAGES: [u64; 8] = [
    (2 << 20) - 2 * PAGE,
    (2 << 20) - PAGE,
    2 << 20,
    (512 << 30) - PAGE,
    512 << 30,
    2 << 40,
    // These two show the object.
    (3 << 40) - PAGE,
    3 << 40,
];
const FIRST_OF_OBJECT: usize = 6;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Unmapped,
    Mapped(Rights),
}

/// How an access ended.
type Outcome = Result<(), FaultError>;

#[derive(Clone, Copy, Debug)]
enum What {
    Becomes { page: usize, state: State },
    Zeroed { page: usize },
    Stored { page: usize, slot: usize, value: u64 },
    Saw { page: usize, slot: usize, value: u64 },
    Tried { page: usize, access: Access, outcome: Outcome },
    Sized { pages: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Event {
    span: Span,
    space: usize,
    cpu: usize,
    what: What,
}

/// What all CPUs of a storm share.
struct Stage {
    spaces: Mutex<Vec<Arc<Shared>>>,
    object: Arc<Object<Hostile>>,
    clock: AtomicU64,
    log: Mutex<Vec<Event>>,
    values: AtomicU64,
}

/// A space as `HostedCpu::run` wants it, with what is known about it.
struct Shared {
    space: Arc<Space<Hostile>>,
    number: usize,
    parent: Option<(usize, Span)>,
    users: Mutex<(usize, bool)>,
}

impl Stage {
    fn new(vm: &Vm<Hostile>, cpus: &mut [HostedCpu<Hostile>], storm: &Storm) -> Self {
        let token = cpus[0].token();
        let object = vm.new_memory(2 * PAGE, "shared").expect("memory");
        let space = Arc::new(vm.new_space(token, Layout::linux()).expect("memory"));
        let (clock, values, log) = (AtomicU64::new(1), AtomicU64::new(1), Mutex::new(Vec::new()));
        let stage = Self { spaces: Mutex::new(Vec::new()), object, clock, log, values };
        (0..PAGES.len()).for_each(|page| stage.map_at(&space, token, page).expect("memory"));
        stage.add(space, None);
        let first = stage.spaces.lock().unwrap()[0].clone();
        let mut rng = Rng::new(storm.seed ^ 0x5eed);
        for page in 0..PAGES.len() {
            if rng.once_in(2) {
                stage.remote_write(&first, token, 0, page, rng.below(SLOTS as u64) as usize);
            }
        }
        for _ in 0..storm.forks_before {
            stage.fork(&first, token);
        }
        stage
    }

    fn map_at(&self, space: &Space<Hostile>, token: &mut Cpu<Hostile>, page: usize) -> Result<(), faultless::MapError> {
        let mut request = MapRequest::anonymous(PAGE).fixed(VirtAddr::new(PAGES[page]));
        if page >= FIRST_OF_OBJECT {
            let offset = (page - FIRST_OF_OBJECT) as u64 * PAGE;
            request.backing = Backing::Object { object: Arc::clone(&self.object), offset };
            request.sharing = Sharing::Shared;
        }
        space.map(token, request).map(drop)
    }

    fn add(&self, space: Arc<Space<Hostile>>, parent: Option<(usize, Span)>) {
        let mut spaces = self.spaces.lock().unwrap();
        let number = spaces.len();
        spaces.push(Arc::new(Shared { space, number, parent, users: Mutex::new((0, false)) }));
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Does something and notes when.
    fn timed<T>(&self, action: impl FnOnce() -> T) -> (T, Span) {
        let start = self.tick();
        let result = action();
        (result, Span { start, end: self.tick() })
    }

    fn note(&self, span: Span, space: usize, cpu: usize, what: What) {
        self.log.lock().unwrap().push(Event { span, space, cpu, what });
    }

    fn fork(&self, from: &Shared, token: &mut Cpu<Hostile>) {
        let (child, span) = self.timed(|| from.space.fork(token));
        if let Ok(child) = child {
            self.add(Arc::new(child), Some((from.number, span)));
        }
    }

    fn remote_write(&self, on: &Shared, token: &mut Cpu<Hostile>, cpu: usize, page: usize, slot: usize) {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let (result, span) = self.timed(|| on.space.write(token, word(page, slot), &value.to_le_bytes()));
        self.note_store(span, on, cpu, (page, slot, value), result.map_err(|error| error.fault));
    }

    fn note_store(&self, span: Span, on: &Shared, cpu: usize, place: (usize, usize, u64), outcome: Outcome) {
        let (page, slot, value) = place;
        if outcome.is_ok() {
            self.note(span, on.number, cpu, What::Stored { page, slot, value });
        }
        self.note(span, on.number, cpu, What::Tried { page, access: Access::Write, outcome });
    }

    fn note_load(&self, span: Span, on: &Shared, cpu: usize, place: (usize, usize), seen: Result<u64, FaultError>) {
        let (page, slot) = place;
        if let Ok(value) = seen {
            self.note(span, on.number, cpu, What::Saw { page, slot, value });
        }
        self.note(span, on.number, cpu, What::Tried { page, access: Access::Read, outcome: seen.map(drop) });
    }

    /// After the run: what is everywhere?
    fn look_once_more(&self, cpu: &mut HostedCpu<Hostile>) {
        let spaces = self.spaces.lock().unwrap().clone();
        for on in spaces {
            for (page, slot) in (0..PAGES.len()).flat_map(|page| (0..SLOTS).map(move |slot| (page, slot))) {
                let mut bytes = [0; 8];
                let read = |bytes: &mut [u8]| on.space.read(cpu.token(), word(page, slot), bytes);
                let (result, span) = self.timed(|| { read }(&mut bytes));
                let seen = result.map(|()| u64::from_le_bytes(bytes)).map_err(|error: AccessError| error.fault);
                self.note_load(span, &on, 0, (page, slot), seen);
            }
        }
    }

    fn recount(&self, vm: &Vm<Hostile>, cpus: &mut [HostedCpu<Hostile>]) -> Result<(), String> {
        let spaces = self.spaces.lock().unwrap().clone();
        cpus.iter_mut().for_each(|cpu| {
            cpu.token().collect();
        });
        let alive: Vec<&Space<Hostile>> =
            spaces.iter().filter(|on| !on.users.lock().unwrap().1).map(|on| &*on.space).collect();
        let audit = |cpus: &mut [HostedCpu<Hostile>], spaces: &[&Space<Hostile>]| {
            vm.audit(cpus[0].token(), spaces, &[&self.object]).map_err(|error| format!("audit: {error}"))
        };
        audit(cpus, &alive)?;
        alive.iter().for_each(|space| space.exit(cpus[0].token()));
        audit(cpus, &[])?;
        let locks = vm.stats().get("fault_table_locks");
        if locks == 0 { Ok(()) } else { Err(format!("{locks} table locks taken in faults on private paths")) }
    }
}

fn word(page: usize, slot: usize) -> VirtAddr {
    VirtAddr::new(PAGES[page] + slot as u64 * 1360)
}

/// One CPU of a storm.
struct Actor<'a> {
    stage: &'a Stage,
    cpu: &'a mut HostedCpu<Hostile>,
    number: usize,
    storm: &'a Storm,
    rng: Rng,
    running: Option<Arc<Shared>>,
}

impl<'a> Actor<'a> {
    fn new(stage: &'a Stage, cpu: &'a mut HostedCpu<Hostile>, number: usize, storm: &'a Storm) -> Self {
        let rng = Rng::new(storm.seed.wrapping_mul(1000) + number as u64);
        Self { stage, cpu, number, storm, rng, running: None }
    }

    fn act(&mut self) {
        self.enter(0);
        for _ in 0..self.storm.operations {
            let doing = ALL[self.rng.weighted(&self.storm.weights)];
            if self.storm.failing && self.rng.once_in(4) {
                let more = self.rng.below(6);
                self.cpu.token().vm().machine().fail_allocation_after(more);
            }
            self.act_once(doing);
        }
        self.leave();
    }

    fn any_space(&mut self) -> Arc<Shared> {
        let spaces = self.stage.spaces.lock().unwrap();
        Arc::clone(&spaces[self.rng.below(spaces.len() as u64) as usize])
    }

    fn act_once(&mut self, doing: Doing) {
        let page = self.rng.below(PAGES.len() as u64) as usize;
        let slot = self.rng.below(SLOTS as u64) as usize;
        let Some(on) = self.running.clone() else {
            let number = self.any_space().number;
            return self.enter(number);
        };
        match doing {
            Doing::Load => {
                let (seen, span) = self.stage.timed(|| self.cpu.load::<u64>(word(page, slot)));
                self.stage.note_load(span, &on, self.number, (page, slot), seen);
            }
            Doing::Store => {
                let value = self.stage.values.fetch_add(1, Ordering::Relaxed);
                let (outcome, span) = self.stage.timed(|| self.cpu.store(word(page, slot), value));
                self.stage.note_store(span, &on, self.number, (page, slot, value), outcome);
            }
            Doing::RemoteRead => self.remote_read(page, slot),
            Doing::RemoteWrite => {
                let on = self.any_space();
                self.stage.remote_write(&on, self.cpu.token(), self.number, page, slot);
            }
            Doing::Unmap => self.unmap(&on, page),
            Doing::Map => self.map(&on, page),
            Doing::Protect => self.protect(&on, page),
            Doing::Fork => {
                if self.stage.spaces.lock().unwrap().len() < 7 {
                    self.stage.fork(&on, self.cpu.token());
                }
            }
            Doing::Leave => self.change_space(),
            Doing::Resize => self.resize(),
        }
    }

    fn remote_read(&mut self, page: usize, slot: usize) {
        let on = self.any_space();
        let mut bytes = [0; 8];
        let (result, span) = self.stage.timed(|| on.space.read(self.cpu.token(), word(page, slot), &mut bytes));
        let seen = result.map(|()| u64::from_le_bytes(bytes)).map_err(|error| error.fault);
        self.stage.note_load(span, &on, self.number, (page, slot), seen);
    }

    /// Pages of the storm in the range of one to three pages from `page` on that are contiguous in memory.
    fn range(&mut self, page: usize) -> (PageRange, Vec<usize>) {
        let mut pages = vec![page];
        while pages.len() < 3
            && self.rng.once_in(2)
            && let Some(next) = PAGES.get(page + pages.len())
            && *next == PAGES[page] + pages.len() as u64 * PAGE
        {
            pages.push(page + pages.len());
        }
        let range = PageRange::with_len(VirtAddr::new(PAGES[page]), pages.len() as u64 * PAGE).expect("aligned");
        (range, pages)
    }

    fn unmap(&mut self, on: &Shared, page: usize) {
        let (range, pages) = self.range(page);
        let (result, span) = self.stage.timed(|| on.space.unmap(self.cpu.token(), range));
        if result.is_ok() {
            self.note_all(span, on, &pages, State::Unmapped);
        }
    }

    fn map(&mut self, on: &Shared, page: usize) {
        let (result, span) = self.stage.timed(|| self.stage.map_at(&on.space, self.cpu.token(), page));
        if result.is_ok() {
            self.note_all(span, on, &[page], State::Mapped(Rights::READ | Rights::WRITE));
            if page < FIRST_OF_OBJECT {
                self.stage.note(span, on.number, self.number, What::Zeroed { page });
            }
        }
    }

    fn protect(&mut self, on: &Shared, page: usize) {
        let (range, pages) = self.range(page);
        let rights = self.rng.pick(&[Rights::NONE, Rights::READ, Rights::READ | Rights::WRITE]);
        let (result, span) = self.stage.timed(|| on.space.protect(self.cpu.token(), range, rights));
        let stopped = match result {
            Ok(()) => range.end(),
            Err(
                faultless::ProtectError::Unmapped(at)
                | faultless::ProtectError::Denied(at)
                | faultless::ProtectError::NoMemory(at),
            ) => at,
        };
        let changed: Vec<usize> =
            pages.into_iter().filter(|page| PAGES[*page] < stopped.as_u64()).collect();
        self.note_all(span, on, &changed, State::Mapped(rights));
    }

    fn note_all(&self, span: Span, on: &Shared, pages: &[usize], state: State) {
        for page in pages {
            self.stage.note(span, on.number, self.number, What::Becomes { page: *page, state });
        }
    }

    fn resize(&mut self) {
        let pages = self.rng.below(3);
        // One resizer at a time is the caller's duty (a file's lock in a kernel).
        if self.number != 0 {
            return;
        }
        let object = Arc::clone(&self.stage.object);
        let old = object.size() / PAGE;
        let (result, span) = self.stage.timed(|| object.resize(self.cpu.token(), pages * PAGE));
        self.stage.note(span, 0, self.number, What::Sized { pages });
        for page in pages.min(old)..2 {
            self.stage.note(span, 0, self.number, What::Zeroed { page: FIRST_OF_OBJECT + page as usize });
        }
        assert!(result.is_ok() || self.storm.failing, "{result:?}");
    }

    fn enter(&mut self, number: usize) {
        let on = Arc::clone(&self.stage.spaces.lock().unwrap()[number]);
        {
            let mut users = on.users.lock().unwrap();
            if users.1 {
                return;
            }
            users.0 += 1;
        }
        self.cpu.run(&on.space);
        if let Some(old) = self.running.replace(on) {
            old.users.lock().unwrap().0 -= 1;
        }
    }

    fn leave(&mut self) {
        self.cpu.stop();
        if let Some(old) = self.running.take() {
            old.users.lock().unwrap().0 -= 1;
        }
    }

    /// Runs another space; sometimes the one that was left exits.
    fn change_space(&mut self) {
        let left = self.running.clone();
        let number = self.any_space().number;
        self.leave();
        self.enter(number);
        let Some(left) = left.filter(|left| left.number != 0 && self.rng.once_in(2)) else { return };
        {
            let mut users = left.users.lock().unwrap();
            if users.0 != 0 || users.1 {
                return;
            }
            users.1 = true;
        }
        let ((), span) = self.stage.timed(|| left.space.exit(self.cpu.token()));
        let pages: Vec<usize> = (0..PAGES.len()).collect();
        self.note_all(span, &left, &pages, State::Unmapped);
    }
}

/// What happened to the pages of one space.
struct Past {
    states: Vec<Register<State>>,
    words: Vec<Vec<Register<u64>>>,
}

impl Past {
    fn of_first() -> Self {
        let state = Register::new(State::Mapped(Rights::READ | Rights::WRITE));
        let words = vec![Register::new(0); SLOTS];
        Self { states: vec![state; PAGES.len()], words: vec![words; PAGES.len()] }
    }

    fn of_child(parent: &Past, span: Span) -> Self {
        let states = parent.states.iter().map(|state| Register::born(span, state.possible(span)));
        let born = |words: &Vec<Register<u64>>| {
            words.iter().map(|word| Register::born(span, word.possible(span))).collect()
        };
        Self { states: states.collect(), words: parent.words.iter().map(born).collect() }
    }

    fn write(&mut self, event: &Event) {
        match event.what {
            What::Becomes { page, state } => self.states[page].write(event.span, state),
            What::Zeroed { page } => self.words[page].iter_mut().for_each(|word| word.write(event.span, 0)),
            What::Stored { page, slot, value } => self.words[page][slot].write(event.span, value),
            What::Saw { .. } | What::Tried { .. } | What::Sized { .. } => {}
        }
    }

    fn witness(&mut self, event: &Event) {
        if let What::Saw { page, slot, value } = event.what {
            self.words[page][slot].witness(event.span, value);
        }
    }
}

/// The judgement.
impl Stage {
    fn judge(&self) -> Result<(), String> {
        let log = self.log.lock().unwrap();
        let spaces = self.spaces.lock().unwrap();
        let mut sizes = Register::new(2);
        // Words of the object belong to all spaces.
        let mut object = Past::of_first();
        for event in log.iter() {
            match event.what {
                What::Sized { pages } => sizes.write(event.span, pages),
                _ if is_of_object(&event.what) => object.write(event),
                _ => {}
            }
        }
        log.iter().filter(|event| is_of_object(&event.what)).for_each(|event| object.witness(event));
        let mut pasts: Vec<Past> = Vec::new();
        for on in spaces.iter() {
            let mut past = match on.parent {
                None => Past::of_first(),
                Some((parent, span)) => Past::of_child(&pasts[parent], span),
            };
            let of_space = || log.iter().filter(|event| event.space == on.number);
            of_space().for_each(|event| past.write(event));
            of_space().for_each(|event| past.witness(event));
            for event in of_space() {
                let judged = if is_of_object(&event.what) { judge_word(&object, event) } else { judge_word(&past, event) };
                judged.and_then(|()| judge_outcome(&past, &sizes, event, self)).map_err(|what| {
                    let name = format!("space {} (child of {:?})", on.number, on.parent);
                    format!("{what}\n  {name}, CPU {}: {:?}\n{}", event.cpu, event.what, around(&log, event))
                })?;
            }
            pasts.push(past);
        }
        Ok(())
    }
}

/// The events about the same page.
fn around(log: &[Event], event: &Event) -> String {
    let page = page_of(&event.what);
    log.iter().filter(|other| page_of(&other.what) == page).map(line).collect()
}

fn line(event: &Event) -> String {
    let Event { span, space, cpu, what } = event;
    format!("    {:>4}..{:<4} space {space} cpu {cpu} {what:?}\n", span.start, span.end)
}

fn page_of(what: &What) -> usize {
    match *what {
        What::Becomes { page, .. }
        | What::Zeroed { page }
        | What::Stored { page, .. }
        | What::Saw { page, .. }
        | What::Tried { page, .. } => page,
        What::Sized { .. } => usize::MAX,
    }
}

fn is_of_object(what: &What) -> bool {
    let contents = matches!(what, What::Zeroed { .. } | What::Stored { .. } | What::Saw { .. });
    contents && page_of(what) >= FIRST_OF_OBJECT && page_of(what) != usize::MAX
}

fn judge_word(past: &Past, event: &Event) -> Result<(), String> {
    match event.what {
        What::Saw { page, slot, value } => {
            past.words[page][slot].judge(event.span, value).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

fn judge_outcome(past: &Past, sizes: &Register<u64>, event: &Event, stage: &Stage) -> Result<(), String> {
    let What::Tried { page, access, outcome } = event.what else { return Ok(()) };
    let _ = stage;
    let states = past.states[page].possible(event.span);
    let sizes = sizes.possible(event.span);
    let inside = |size: &u64| page < FIRST_OF_OBJECT || *size > (page - FIRST_OF_OBJECT) as u64;
    let permits = |state: &State| matches!(state, State::Mapped(rights) if rights.allow(access));
    let possible = match outcome {
        Ok(()) => states.iter().any(permits) && sizes.iter().any(inside),
        Err(FaultError::Unmapped) => states.contains(&State::Unmapped),
        Err(FaultError::Denied) => states.iter().any(|state| *state != State::Unmapped && !permits(state)),
        Err(FaultError::Bus) => states.iter().any(permits) && !sizes.iter().all(inside),
        Err(FaultError::OutOfMemory) => true,
    };
    if possible {
        return Ok(());
    }
    let Span { start, end } = event.span;
    Err(format!("{access:?} ended in {outcome:?} in {start}..{end}, possible were {states:?}, sizes {sizes:?}"))
}
