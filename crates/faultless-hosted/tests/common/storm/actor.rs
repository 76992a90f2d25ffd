//! One CPU of a storm.

use super::stage::{Event, Known, Stage, State, What, lock, word};
use super::{ALL, Doing, FIRST_OF_OBJECT, OBJECT_PAGES, PAGE, PAGES, Role, Storm};
use faultless::{PageRange, ProtectError, Rights, Sharing, VirtAddr};
use faultless_hosted::{Failing, HostedCpu, Hostile, Rng};
use faultless_model::history::Span;
use std::sync::Arc;

/// Most spaces of a storm.
const MOST_SPACES: usize = 7;

pub(super) struct Actor<'a> {
    stage: &'a Stage,
    cpu: &'a mut HostedCpu<Hostile>,
    number: usize,
    storm: &'a Storm,
    rng: Rng,
    running: Option<Arc<Known>>,
}

impl<'a> Actor<'a> {
    pub(super) fn new(stage: &'a Stage, cpu: &'a mut HostedCpu<Hostile>, number: usize, storm: &'a Storm) -> Self {
        let rng = Rng::new(storm.seed.wrapping_mul(1000) + number as u64);
        Self { stage, cpu, number, storm, rng, running: None }
    }

    /// All of it.
    pub(super) fn act(&mut self) {
        let role = self.role();
        self.enter(role.home);
        for _ in 0..self.storm.operations * role.times {
            let doing = ALL[self.rng.weighted(&role.weights)];
            if self.storm.failing && self.rng.once_in(4) {
                let (more, which) = (self.rng.below(6), self.rng.pick(&[Failing::Once, Failing::AllFromThenOn]));
                self.cpu.token().vm().machine().fail_allocation_after(more, which);
            } else if self.storm.failing {
                self.cpu.token().vm().machine().fail_no_allocation();
            }
            self.act_once(doing);
        }
        self.leave();
    }

    fn role(&self) -> Role {
        self.storm.roles[self.number.min(self.storm.roles.len() - 1)]
    }

    fn any_space(&mut self) -> Arc<Known> {
        let spaces = lock(&self.stage.spaces);
        let among = if self.storm.one_space { 1 } else { spaces.len() as u64 };
        Arc::clone(&spaces[self.rng.below(among) as usize])
    }

    fn act_once(&mut self, doing: Doing) {
        let (page, slot) = (self.rng.pick(self.storm.pages), self.rng.below(super::SLOTS as u64) as usize);
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
                let value = self.stage.value();
                let (outcome, span) = self.stage.timed(|| self.cpu.store(word(page, slot), value));
                self.stage.note_store(span, &on, self.number, (page, slot, value), outcome);
            }
            Doing::RemoteRead => {
                let on = self.any_space();
                self.stage.remote_read(&on, self.cpu.token(), self.number, page, slot);
            }
            Doing::RemoteWrite => {
                let on = self.any_space();
                self.stage.remote_write(&on, self.cpu.token(), self.number, page, slot);
            }
            Doing::Unmap | Doing::Map | Doing::Protect => self.change_range(doing, on, page),
            Doing::Fork if lock(&self.stage.spaces).len() < MOST_SPACES => self.stage.fork(&on, self.cpu.token()),
            Doing::Fork => {}
            Doing::Leave => self.change_space(),
            Doing::Resize => self.resize(),
        }
    }

    fn change_range(&mut self, doing: Doing, running: Arc<Known>, page: usize) {
        let role = self.role();
        let on = role.ranges_of.map_or(running, |number| Arc::clone(&lock(&self.stage.spaces)[number]));
        match doing {
            Doing::Unmap => self.unmap(&on, page),
            Doing::Map => self.map(&on, page),
            _ => self.protect(&on, page),
        }
    }

    /// A range from `page` on and the pages in it: up to three neighbours, or seldom everything up to another page, with
    /// the tables and stripes between. `before` is the first page that it may not reach.
    fn range(&mut self, page: usize, before: usize) -> (PageRange, Vec<usize>) {
        if self.rng.once_in(6) && page < before {
            let last = self.rng.range(page as u64, before as u64) as usize;
            let range = PageRange::new(VirtAddr::new(PAGES[page]), VirtAddr::new(PAGES[last] + PAGE));
            return (range.expect("ascending"), (page..=last).collect());
        }
        let mut pages = vec![page];
        while pages.len() < 3
            && self.rng.once_in(2)
            && page + pages.len() < before
            && let Some(next) = PAGES.get(page + pages.len())
            && *next == PAGES[page] + pages.len() as u64 * PAGE
        {
            pages.push(page + pages.len());
        }
        let range = PageRange::with_len(VirtAddr::new(PAGES[page]), pages.len() as u64 * PAGE).expect("aligned");
        (range, pages)
    }

    fn unmap(&mut self, on: &Known, page: usize) {
        let (range, pages) = self.range(page, PAGES.len());
        let (result, span) = self.stage.timed(|| on.space.unmap(self.cpu.token(), range));
        if result.is_ok() {
            self.note(span, on.number, &pages, What::Becomes(State::Unmapped));
        }
    }

    fn map(&mut self, on: &Known, page: usize) {
        if page >= FIRST_OF_OBJECT {
            return self.map_object(on, page);
        }
        let (range, pages) = self.range(page, FIRST_OF_OBJECT);
        let (result, span) = self.stage.timed(|| self.stage.map_fresh(&on.space, self.cpu.token(), range));
        if result.is_ok() {
            self.note(span, on.number, &pages, What::Becomes(State::Mapped(Rights::READ | Rights::WRITE)));
            self.note(span, on.number, &pages, What::Shows(None));
        }
    }

    fn map_object(&mut self, on: &Known, page: usize) {
        let sharing = self.rng.pick(&[Sharing::Shared, Sharing::Private]);
        let (result, span) = self.stage.timed(|| self.stage.map_object(&on.space, self.cpu.token(), page, sharing));
        if result.is_ok() {
            self.note(span, on.number, &[page], What::Becomes(State::Mapped(Rights::READ | Rights::WRITE)));
            self.note(span, on.number, &[page], What::Shows(Some(sharing)));
        }
    }

    fn protect(&mut self, on: &Known, page: usize) {
        let (range, mut pages) = self.range(page, PAGES.len());
        let rights = self.rng.pick(&[Rights::NONE, Rights::READ, Rights::READ | Rights::WRITE]);
        let (result, span) = self.stage.timed(|| on.space.protect(self.cpu.token(), range, rights));
        if let Err(
            ProtectError::Unmapped(at)
            | ProtectError::Denied(at)
            | ProtectError::NoMemory(at)
            | ProtectError::Sealed(at),
        ) = result
        {
            pages.retain(|page| PAGES[*page] < at.as_u64());
        }
        self.note(span, on.number, &pages, What::Becomes(State::Mapped(rights)));
    }

    /// One operation on several pages.
    fn note(&self, span: Span, space: usize, pages: &[usize], what: What) {
        let id = self.stage.operation();
        for page in pages {
            self.stage.note(Event { id, span, space, cpu: self.number, page: *page, what });
        }
    }

    /// One CPU resizes: who else does must wait, as for a file's lock in a kernel.
    fn resize(&mut self) {
        if self.number != 0 {
            return;
        }
        let pages = self.rng.below(OBJECT_PAGES + 1);
        let object = Arc::clone(&self.stage.object);
        let old = object.size() / PAGE;
        let (changed, span) = self.stage.timed(|| {
            let mut result = object.resize(self.cpu.token(), pages * PAGE);
            assert!(result.is_ok() || self.storm.failing, "{result:?}");
            // Memory may run out after the size was set, if a fork ran meanwhile: then the call is repeated.
            while result.is_err() && object.size() / PAGE != old {
                self.cpu.token().vm().machine().fail_no_allocation();
                result = object.resize(self.cpu.token(), pages * PAGE);
            }
            result.is_ok()
        });
        if !changed {
            return;
        }
        let all: Vec<usize> = (FIRST_OF_OBJECT..PAGES.len()).collect();
        self.note(span, 0, &all, What::Sized { pages });
    }

    fn enter(&mut self, number: usize) {
        let on = Arc::clone(&lock(&self.stage.spaces)[number]);
        {
            let mut users = lock(&on.users);
            if users.1 {
                return;
            }
            users.0 += 1;
        }
        self.cpu.run(&on.space);
        if let Some(old) = self.running.replace(on) {
            lock(&old.users).0 -= 1;
        }
    }

    fn leave(&mut self) {
        self.cpu.stop();
        if let Some(old) = self.running.take() {
            lock(&old.users).0 -= 1;
        }
    }

    /// Runs another space; sometimes the one that was left exits.
    fn change_space(&mut self) {
        let left = self.running.clone();
        let number = self.any_space().number;
        if self.rng.once_in(2) {
            self.enter(number); // directly from one to the other
        } else {
            self.leave();
            self.enter(number);
        }
        let Some(left) = left.filter(|left| left.number != 0 && self.rng.once_in(2)) else { return };
        {
            let mut users = lock(&left.users);
            if users.0 != 0 || users.1 {
                return;
            }
            users.1 = true;
        }
        let ((), span) = self.stage.timed(|| left.space.exit(self.cpu.token()));
        let all: Vec<usize> = (0..PAGES.len()).collect();
        self.note(span, left.number, &all, What::Becomes(State::Unmapped));
    }
}
