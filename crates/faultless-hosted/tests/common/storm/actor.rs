//! One CPU of a storm.

use super::stage::{Event, Known, Stage, State, What, lock, word};
use super::{ALL, Doing, FIRST_OF_OBJECT, OBJECT_PAGES, PAGE, PAGES, Role, Storm};
use faultless::{
    Access, AdviseError, Destination, Machine, PageRange, Pinned, Populate, ProtectError, RemapRequest, Rights,
    Sharing, VirtAddr,
};
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
    /// A page that is pinned for stores: whose, and which.
    pinned: Option<(Pinned<Hostile>, usize, usize)>,
}

impl<'a> Actor<'a> {
    pub(super) fn new(stage: &'a Stage, cpu: &'a mut HostedCpu<Hostile>, number: usize, storm: &'a Storm) -> Self {
        let rng = Rng::new(storm.seed.wrapping_mul(1000) + number as u64);
        Self { stage, cpu, number, storm, rng, running: None, pinned: None }
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
        self.pinned = None;
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
            Doing::Discard => self.discard(&on, page),
            Doing::Free => _ = on.space.free_lazily(self.cpu.token(), page_range(page, 1)),
            Doing::Move => self.move_away_and_back(&on, page),
            Doing::Punch => self.punch(),
            Doing::Pin => self.pin(&on, page, slot),
            Doing::Populate => self.populate(&on, page),
            Doing::Force => self.force(&on, page, slot),
        }
    }

    fn discard(&mut self, on: &Known, page: usize) {
        let (range, mut pages) = self.range(page, PAGES.len());
        let (result, span) = self.stage.timed(|| on.space.discard(self.cpu.token(), range, false));
        if let Err(AdviseError::NoMemory(at) | AdviseError::Refused(at)) = result {
            pages.retain(|page| PAGES[*page] < at.as_u64());
        }
        self.note(span, on.number, &pages, What::Discarded);
    }

    /// Nobody else may change ranges of the space, or where the pages are would be anybody's guess.
    fn move_away_and_back(&mut self, on: &Known, page: usize) {
        if self.number != 0 {
            return;
        }
        let is_table = PAGES[page].is_multiple_of(super::TABLE) && page < FIRST_OF_OBJECT && self.rng.once_in(2);
        let (range, pages) = match is_table {
            true => (page_range(page, super::TABLE / PAGE), vec![page]),
            false => self.range(page, if page < FIRST_OF_OBJECT { FIRST_OF_OBJECT } else { PAGES.len() }),
        };
        let scratch = VirtAddr::new(self.rng.pick(&SCRATCH));
        let (start, len) = (range.start(), range.len());
        let request = |addr, to| {
            let destination = Destination::Fixed(to);
            RemapRequest { addr, old_len: len, new_len: len, destination, keep: false }
        };
        let (moved, span) = self.stage.timed(|| {
            if on.space.remap(self.cpu.token(), request(start, scratch)).is_err() {
                return false;
            }
            while on.space.remap(self.cpu.token(), request(scratch, start)).is_err() {
                assert!(self.storm.failing, "the way back");
                self.cpu.token().vm().machine().fail_no_allocation();
            }
            true
        });
        if moved {
            self.note(span, on.number, &pages, What::Away);
        }
    }

    /// One CPU punches, and resizes.
    fn punch(&mut self) {
        if self.number != 0 {
            return;
        }
        let page = self.rng.below(OBJECT_PAGES);
        let object = Arc::clone(&self.stage.object);
        let ((), span) = self.stage.timed(|| {
            while let Err(error) = object.punch_hole(self.cpu.token(), page * PAGE, PAGE) {
                assert!(self.storm.failing, "{error:?}");
                self.cpu.token().vm().machine().fail_no_allocation();
            }
        });
        self.note(span, 0, &[FIRST_OF_OBJECT + page as usize], What::Punched);
    }

    /// Has a device store to what is pinned, and pins another page, for stores or for reads.
    fn pin(&mut self, on: &Known, page: usize, slot: usize) {
        if let Some((pins, space, page)) = self.pinned.take() {
            let (value, offset) = (self.stage.value(), slot * 1360);
            let frame = pins.frames()[0];
            let bytes = value.to_le_bytes();
            let ((), span) = self.stage.timed(|| self.cpu.token().vm().machine().write(frame, offset, &bytes));
            self.note(span, space, &[page], What::Sent { slot, value });
        }
        let access = self.rng.pick(&[Access::Write, Access::Write, Access::Read]);
        let (result, span) = self.stage.timed(|| {
            let pins = on.space.pin(self.cpu.token(), page_range(page, 1), access)?;
            let mut bytes = [0; 8];
            self.cpu.token().vm().machine().read(pins.frames()[0], slot * 1360, &mut bytes);
            Ok::<_, faultless::PinError>((pins, u64::from_le_bytes(bytes)))
        });
        let outcome = result.as_ref().map(drop).map_err(|error| error.fault);
        if let Ok((pins, value)) = result {
            self.note(span, on.number, &[page], What::Saw { slot, value });
            self.pinned = (access == Access::Write).then_some((pins, on.number, page));
        }
        self.note(span, on.number, &[page], What::Tried { access, outcome });
    }

    fn populate(&mut self, on: &Known, page: usize) {
        let (how, access) = self.rng.pick(&[(Populate::Read, Access::Read), (Populate::Write, Access::Write)]);
        let (result, span) = self.stage.timed(|| on.space.populate(self.cpu.token(), page_range(page, 1), how));
        let outcome = result.map_err(|error| error.fault);
        self.note(span, on.number, &[page], What::Tried { access, outcome });
    }

    fn force(&mut self, on: &Known, page: usize, slot: usize) {
        let value = self.stage.value();
        let bytes = value.to_le_bytes();
        let (result, span) = self.stage.timed(|| on.space.write_forced(self.cpu.token(), word(page, slot), &bytes));
        let outcome = result.map_err(|error| error.fault);
        if outcome.is_ok() {
            self.note(span, on.number, &[page], What::Stored { slot, value });
        }
        self.note(span, on.number, &[page], What::Forced { outcome });
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
            | ProtectError::Sealed(at)
            | ProtectError::Unaligned(at),
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

/// Where mappings move for a while: near by, in another upper table, in other stripes on both sides.
const SCRATCH: [u64; 4] = [4 << 20, 600 << 30, 1 << 40, 9 << 40];

fn page_range(page: usize, pages: u64) -> PageRange {
    PageRange::with_len(VirtAddr::new(PAGES[page]), pages * PAGE).expect("aligned")
}
