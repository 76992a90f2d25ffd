//! What all CPUs of a storm share: the spaces, the object, the clock and the log.

use super::{FIRST_OF_OBJECT, OBJECT_PAGES, PAGE, PAGES, SLOTS, Storm, TABLE};
use faultless::{
    Access, Backing, Cpu, FaultError, Layout, MapError, MapRequest, Object, PageRange, PageWriter, Pager, PagerError,
    Rights, Sharing, Space, VirtAddr, Vm,
};
use faultless_hosted::{HostedCpu, Hostile, Rng};
use faultless_model::history::Span;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Unmapped,
    Mapped(Rights),
}

/// How an access ended.
pub(super) type Outcome = Result<(), FaultError>;

/// What happened to a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Its rights changed.
    Becomes(State),
    /// It is fresh memory now, or shows the object: shared or not.
    Shows(Option<Sharing>),
    Stored {
        slot: usize,
        value: u64,
    },
    Saw {
        slot: usize,
        value: u64,
    },
    Tried {
        access: Access,
        outcome: Outcome,
    },
    /// The object got another size; what the page showed beyond it is gone.
    Sized {
        pages: u64,
    },
    /// What the space had there of its own is gone; what it shows is not.
    Discarded,
    /// The object's page became zeroes.
    Punched,
    /// It was moved elsewhere and back.
    Away,
    /// A device stored to what was, when it was pinned, the page.
    Sent {
        slot: usize,
        value: u64,
    },
    /// A debugger stored to it.
    Forced {
        outcome: Outcome,
    },
}

/// One operation's effect on one page of one space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) id: usize,
    pub(super) span: Span,
    pub(super) space: usize,
    pub(super) cpu: usize,
    pub(super) page: usize,
    pub(super) what: What,
}

/// A space, where it came from and who uses it.
pub(super) struct Known {
    pub(super) space: Arc<Space<Hostile>>,
    pub(super) number: usize,
    pub(super) parent: Option<(usize, Span)>,
    /// CPUs that run it, and whether it is closed for more.
    pub(super) users: Mutex<(usize, bool)>,
}

/// The stage.
pub(super) struct Stage {
    pub(super) spaces: Mutex<Vec<Arc<Known>>>,
    pub(super) object: Arc<Object<Hostile>>,
    pub(super) log: Mutex<Vec<Event>>,
    clock: AtomicU64,
    values: AtomicU64,
    operations: AtomicU64,
}

/// Nothing here is left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of a word.
pub(super) fn word(page: usize, slot: usize) -> VirtAddr {
    VirtAddr::new(PAGES[page] + slot as u64 * 1360)
}

/// A file of zeroes, so that what a truncation cut off looks like what was never written. Its writes are steps.
struct Zeroes;

impl Pager for Zeroes {
    fn fill(&self, _index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &[0; 8]);
        page.write(2048, &[0; 8]);
        Ok(())
    }
}

impl Stage {
    pub(super) fn new(vm: &Vm<Hostile>, cpus: &mut [HostedCpu<Hostile>], storm: &Storm) -> Self {
        let token = cpus[0].token();
        let size = OBJECT_PAGES * PAGE;
        let object = match storm.seed % 2 {
            0 => vm.new_memory(size, "memory").expect("memory"),
            _ => vm.new_file(size, Arc::new(Zeroes), "file").expect("memory"),
        };
        let space = Arc::new(vm.new_space(token, Layout::linux()).expect("memory"));
        let stage = Self {
            spaces: Mutex::new(Vec::new()),
            object,
            log: Mutex::new(Vec::new()),
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            operations: AtomicU64::new(1),
        };
        for page in 0..FIRST_OF_OBJECT {
            stage.map_fresh(&space, token, PageRange::page(word(page, 0))).expect("memory");
        }
        // A whole leaf table for moves.
        let behind = PageRange::new(VirtAddr::new(PAGES[2] + PAGE), VirtAddr::new(PAGES[2] + TABLE));
        stage.map_fresh(&space, token, behind.expect("ascending")).expect("memory");
        for page in FIRST_OF_OBJECT..PAGES.len() {
            stage.map_object(&space, token, page, Sharing::Shared).expect("memory");
        }
        stage.add(space, None);
        let first = Arc::clone(&lock(&stage.spaces)[0]);
        let mut rng = Rng::new(storm.seed ^ 0x5eed);
        for page in storm.pages {
            for slot in 0..SLOTS {
                if rng.once_in(2) {
                    stage.remote_write(&first, token, 0, *page, slot);
                }
            }
        }
        for _ in 0..storm.forks_before {
            stage.fork(&first, token);
        }
        stage
    }

    /// Maps fresh memory in place of what is there.
    pub(super) fn map_fresh(
        &self,
        space: &Space<Hostile>,
        token: &mut Cpu<Hostile>,
        range: PageRange,
    ) -> Result<(), MapError> {
        space.map(token, MapRequest::anonymous(range.len()).fixed(range.start())).map(drop)
    }

    /// Maps a page of the object in place of what is there.
    pub(super) fn map_object(
        &self,
        space: &Space<Hostile>,
        token: &mut Cpu<Hostile>,
        page: usize,
        sharing: Sharing,
    ) -> Result<(), MapError> {
        let mut request = MapRequest::anonymous(PAGE).fixed(VirtAddr::new(PAGES[page]));
        let offset = (page - FIRST_OF_OBJECT) as u64 * PAGE;
        request.backing = Backing::Object { object: Arc::clone(&self.object), offset };
        request.sharing = sharing;
        space.map(token, request).map(drop)
    }

    fn add(&self, space: Arc<Space<Hostile>>, parent: Option<(usize, Span)>) {
        let mut spaces = lock(&self.spaces);
        let number = spaces.len();
        spaces.push(Arc::new(Known { space, number, parent, users: Mutex::new((0, false)) }));
    }

    /// Does something and notes when.
    pub(super) fn timed<T>(&self, action: impl FnOnce() -> T) -> (T, Span) {
        let tick = || self.clock.fetch_add(1, Ordering::Relaxed);
        let start = tick();
        let result = action();
        (result, Span { start, end: tick() })
    }

    /// A number for an operation.
    pub(super) fn operation(&self) -> usize {
        self.operations.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// A value that nobody stored before.
    pub(super) fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        lock(&self.log).push(event);
    }

    pub(super) fn fork(&self, from: &Known, token: &mut Cpu<Hostile>) {
        let (child, span) = self.timed(|| from.space.fork(token));
        if let Ok(child) = child {
            self.add(Arc::new(child), Some((from.number, span)));
        }
    }

    pub(super) fn remote_write(&self, on: &Known, token: &mut Cpu<Hostile>, cpu: usize, page: usize, slot: usize) {
        let value = self.value();
        let (result, span) = self.timed(|| on.space.write(token, word(page, slot), &value.to_le_bytes()));
        self.note_store(span, on, cpu, (page, slot, value), result.map_err(|error| error.fault));
    }

    pub(super) fn remote_read(&self, on: &Known, token: &mut Cpu<Hostile>, cpu: usize, page: usize, slot: usize) {
        let mut bytes = [0; 8];
        let (result, span) = self.timed(|| on.space.read(token, word(page, slot), &mut bytes));
        let seen = result.map(|()| u64::from_le_bytes(bytes)).map_err(|error| error.fault);
        self.note_load(span, on, cpu, (page, slot), seen);
    }

    pub(super) fn note_store(&self, span: Span, on: &Known, cpu: usize, place: (usize, usize, u64), outcome: Outcome) {
        let (page, slot, value) = place;
        let event = |what| Event { id: self.operation(), span, space: on.number, cpu, page, what };
        if outcome.is_ok() {
            self.note(event(What::Stored { slot, value }));
        }
        self.note(event(What::Tried { access: Access::Write, outcome }));
    }

    pub(super) fn note_load(
        &self,
        span: Span,
        on: &Known,
        cpu: usize,
        place: (usize, usize),
        seen: Result<u64, FaultError>,
    ) {
        let (page, slot) = place;
        let event = |what| Event { id: self.operation(), span, space: on.number, cpu, page, what };
        if let Ok(value) = seen {
            self.note(event(What::Saw { slot, value }));
        }
        self.note(event(What::Tried { access: Access::Read, outcome: seen.map(drop) }));
    }

    /// After the run: what is everywhere?
    pub(super) fn look_once_more(&self, cpu: &mut HostedCpu<Hostile>) {
        let spaces = lock(&self.spaces).clone();
        for on in spaces {
            for (page, slot) in (0..PAGES.len()).flat_map(|page| (0..SLOTS).map(move |slot| (page, slot))) {
                self.remote_read(&on, cpu.token(), 0, page, slot);
            }
        }
    }

    /// The recount, before and after everything has exited.
    pub(super) fn recount(&self, vm: &Vm<Hostile>, cpus: &mut [HostedCpu<Hostile>]) -> Result<(), String> {
        let spaces = lock(&self.spaces).clone();
        let alive: Vec<&Space<Hostile>> = spaces.iter().filter(|on| !lock(&on.users).1).map(|on| &*on.space).collect();
        let audit = |cpus: &mut [HostedCpu<Hostile>], spaces: &[&Space<Hostile>]| {
            cpus.iter_mut().for_each(|cpu| {
                cpu.token().collect();
            });
            let mut cpus: Vec<_> = cpus.iter_mut().map(HostedCpu::token).collect();
            vm.audit_all(&mut cpus, spaces, &[&self.object]).map_err(|error| format!("audit: {error}"))
        };
        audit(cpus, &alive)?;
        alive.iter().for_each(|space| space.exit(cpus[0].token()));
        audit(cpus, &[])?;
        match vm.stats().get("fault_table_locks") {
            0 => Ok(()),
            locks => Err(format!("{locks} table locks taken in faults on private paths")),
        }
    }
}
