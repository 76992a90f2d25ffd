//! Both sides, step by step, and whether they agree.
//!
//! Called by `check`, `shrink` and replays. After each step: the answer and the fault counts of the process that made
//! it. Every so many steps, and at the end: mappings, resident pages and sizes of all processes. At the end also every
//! byte that can be read, and faultless' recount of itself.

mod canary;
mod faults;
mod lives;
mod tame;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use crate::accepted::same_mappings;
use crate::arena;
use crate::burst::{self, Task};
use crate::host::Host;
use crate::ours::Ours;
use crate::scenario::{MOST_BURST, Op, Scenario, Step};
use crate::smaps::{self, Relatives, Shares};
use crate::view::{Mapping, Page, Source, View};
pub use canary::Canary;
use faultless::AreaFlags;
use faultless_hosted::Mmu;
use linux_raw_sys::general as linux;
use lives::Lives;
use tame::{allocates, frees, is_tame, maps_file};

/// A large page.
const LARGE: u64 = 2 << 20;

/// Which machine faultless runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// The fast one.
    Fast,
    /// The hostile one with this seed.
    Hostile(u64),
}

/// How to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// The machine.
    pub machine: Machine,
    /// Look at the memory of all processes after so many steps.
    pub every: usize,
    /// Look at those that do nothing themselves after so many.
    pub others: u64,
    /// Look at their smaps and status as well after so many.
    pub details: usize,
    /// A wrong answer that the tester plants, to see that it finds it.
    pub canary: Option<Canary>,
}

impl Manner {
    /// The fast machine, everything after each step.
    pub const STRICT: Self = Self { machine: Machine::Fast, every: 1, others: 1, details: 1, canary: None };
}

/// Where the two sides differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The number of the step, from 0; the number of steps if it was found at the end.
    pub step: usize,
    /// Whose.
    pub process: usize,
    /// What differs, in a word.
    pub what: &'static str,
    /// What Linux says.
    pub host: String,
    /// What faultless says.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {}, p{}: {}", self.step, self.process, self.what)?;
        writeln!(f, "  linux:     {}", self.host)?;
        write!(f, "  faultless: {}", self.ours)
    }
}

/// Why a scenario has no verdict, or a bad one.
#[derive(Debug)]
pub enum Failure {
    /// The two sides differ.
    Differs(Box<Difference>),
    /// The host could not execute it.
    Host(io::Error),
    /// The machine could not be made.
    Machine(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Host(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Differs(difference) => difference.fmt(f),
            Failure::Host(error) => write!(f, "the host cannot execute the scenario: {error}"),
            Failure::Machine(what) => write!(f, "no hosted machine: {what}"),
        }
    }
}

/// How many steps were executed, by call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Executed {
    /// Names of the calls, and how often.
    pub calls: BTreeMap<&'static str, u64>,
    /// Steps of all kinds that threads made at the same time as others.
    pub together: u64,
}

impl Executed {
    /// All.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Adds what another scenario executed.
    pub fn add(&mut self, other: &Self) {
        other.calls.iter().for_each(|(name, count)| *self.calls.entry(name).or_default() += count);
        self.together += other.together;
    }
}

/// Executes a scenario on both sides; returns what was executed.
///
/// # Errors
///
/// [`Failure`]: the first difference, or what kept it from being judged.
pub fn judge(scenario: &Scenario, manner: Manner) -> Result<Executed, Failure> {
    let host = Host::new(scenario)?;
    match manner.machine {
        Machine::Fast => {
            Trial::new(host, Ours::fast(scenario).map_err(Failure::Machine)?, manner.canary).run(scenario, manner)
        }
        Machine::Hostile(seed) => {
            Trial::new(host, Ours::hostile(scenario, seed).map_err(Failure::Machine)?, manner.canary)
                .run(scenario, manner)
        }
    }
}

/// Both sides, and who lives.
struct Trial<M: Mmu> {
    host: Host,
    ours: Ours<M>,
    lives: Lives,
    /// Shared memory: the host's number by ours, and the other way round.
    names: HashMap<u64, u64>,
    step: usize,
    executed: Executed,
    canary: Option<Canary>,
    /// Has anybody called `MADV_FREE` or `process_vm_readv`?
    has_freed: bool,
    /// Has anybody called `fallocate` for pages?
    has_allocated: bool,
    /// Is any file on a disk?
    has_disk: bool,
}

impl<M: Mmu> Trial<M> {
    fn new(host: Host, ours: Ours<M>, canary: Option<Canary>) -> Self {
        Self {
            canary,
            host,
            ours,
            lives: Lives::new(),
            names: HashMap::new(),
            step: 0,
            executed: Executed::default(),
            has_freed: false,
            has_allocated: false,
            has_disk: false,
        }
    }

    fn run(mut self, scenario: &Scenario, manner: Manner) -> Result<Executed, Failure> {
        self.has_disk = (0..scenario.files.len()).any(|file| self.ours.is_on_disk(file));
        let (mut seen, mut seen_details) = (0, 0);
        let mut at = 0;
        while at < scenario.steps.len() {
            self.step = at;
            let together = burst_len(&scenario.steps[at..]);
            match together {
                0 => self.run_step(&scenario.steps[at])?,
                len => self.run_burst(&scenario.steps[at..at + len])?,
            }
            at += together.max(1);
            let executed = self.executed.operations();
            if executed >= seen + manner.every as u64 {
                seen = executed;
                self.compare_views(concerned(&scenario.steps[self.step], manner, executed))?;
            }
            if executed >= seen_details + manner.details as u64 {
                seen_details = executed;
                self.compare_details()?;
            }
        }
        self.step = scenario.steps.len();
        self.compare_views(None)?;
        self.compare_details()?;
        self.compare_contents()?;
        let recount = self.ours.finish();
        recount.map_err(|what| self.lives.differs(self.step, "the recount", String::new(), what))?;
        Ok(self.executed)
    }

    /// One step.
    fn run_step(&mut self, step: &Step) -> Result<(), Failure> {
        if !self.lives.permits(step.process, &step.op) || !is_tame(&step.op) {
            return Ok(());
        }
        if matches!(step.op, Op::Brk { .. }) && !self.host.has_heap(step.process)? {
            return Ok(());
        }
        if self.is_kept_apart(step.process, &step.op)? {
            return Ok(());
        }
        if self.is_left_out(step.process, &step.op) {
            return Ok(());
        }
        let mut host = self.host.step(step.process, &step.op)?;
        let mut ours = self.ours.step(step.process, &step.op);
        self.overlook(step.process, &step.op, &mut host, &mut ours);
        Canary::outcome(self.canary, &mut ours);
        if let Op::Peek { other, at, len } | Op::Poke { other, at, len, .. } = step.op {
            self.undo_fault_around(other, &[(at, at + len as u64)])?;
        }
        self.lives.note(step.process, &step.op);
        self.has_freed |= frees(&step.op);
        *self.executed.calls.entry(step.op.name()).or_default() += 1;
        self.compare_outcome(step.process, &step.op, &host, &ours)
    }

    /// Steps of several threads of one process.
    fn run_burst(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let Some(Step { process, .. }) = steps.first().copied() else { return Ok(()) };
        if !self.lives.lives(process) {
            return Ok(());
        }
        let first = self.step;
        if self.ours.grows(process) || self.ours.may_lock(process) {
            for (index, step) in steps.iter().enumerate() {
                self.step = first + index;
                self.run_step(step)?;
            }
            return Ok(());
        }
        let tasks: Vec<Task> = steps.iter().map(|step| (step.thread, step.op)).collect();
        self.has_allocated |= tasks.iter().any(|(_, op)| allocates(op));
        let mut kept = Vec::new();
        for index in burst::permitted(&self.ours.view(process), &tasks) {
            let op = &tasks[index].1;
            let apart = self.is_kept_apart(process, op)?;
            if is_tame(op) && !apart && !self.is_left_out(process, op) && self.keeps_disk(process, op) {
                kept.push(index);
            }
        }
        let tasks: Vec<Task> = kept.iter().map(|index| tasks[*index]).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let shows_disk = self.ours.shows_disk(process, arena::START, arena::SIZE, |_| true) != 0;
        let (host, mut ours) = (self.host.burst(process, &tasks)?, self.ours.burst(process, &tasks));
        Canary::burst(self.canary, &mut ours);
        for (at, answers) in host.answers.iter().zip(&ours.answers).enumerate() {
            if answers.0 != answers.1 {
                self.step = first + kept[at];
                return Err(self.differs(
                    process,
                    "the answer",
                    format!("{:?}", answers.0),
                    format!("{:?}", answers.1),
                ));
            }
        }
        let ranges: Vec<(u64, u64)> = tasks.iter().filter_map(|(_, op)| burst::range_of(op)).collect();
        self.undo_fault_around(process, &ranges)?;
        self.has_freed |= tasks.iter().any(|(_, op)| frees(op));
        tasks.iter().for_each(|(_, op)| *self.executed.calls.entry(op.name()).or_default() += 1);
        self.executed.together += tasks.len() as u64;
        if shows_disk {
            return Ok(()); // `disk-cache` and `disk-notify`
        }
        let around = tasks.iter().any(|(_, op)| maps_file(op));
        self.compare_burst_faults(process, &host, &ours, around)
    }

    /// `fault-around`: pages of files near those that were accessed leave the host's page tables if they are not in ours.
    /// The process itself cannot tell which came in how while its threads work.
    fn undo_fault_around(&mut self, process: usize, ranges: &[(u64, u64)]) -> Result<(), Failure> {
        /// Pages that come in with one, on either side.
        const AROUND: u64 = 16 * arena::PAGE;
        let (host, ours) = (self.host.view(process)?, self.ours.view(process));
        let near = |page: usize| {
            let at = arena::address_of(page);
            ranges.iter().any(|(start, end)| start.saturating_sub(AROUND) <= at && at < end.saturating_add(AROUND))
        };
        let extra =
            |page: &usize| host.pages[*page] == Page::OfFile && ours.pages[*page] == Page::Absent && near(*page);
        let extra: Vec<usize> = (0..arena::PAGES as usize).filter(extra).collect();
        if !extra.is_empty() {
            self.host.drop_pages(process, &extra)?;
        }
        Ok(())
    }

    /// Would `mremap` find one mapping here and several on the host (`area-merge`), or `mprotect` another start of an area
    /// that grows (`seal-split` as well)?
    fn is_kept_apart(&mut self, process: usize, op: &Op) -> Result<bool, Failure> {
        if let Op::Protect { at, prot, .. } = *op
            && prot & u64::from(linux::PROT_GROWSDOWN) != 0
        {
            let holds = |mapping: &Mapping| (mapping.start..mapping.end).contains(&at);
            let start = |view: View| view.mappings.into_iter().find(holds).map(|mapping| mapping.start);
            return Ok(start(self.host.view(process)?) != start(self.ours.view(process)));
        }
        let Op::Remap { at, old, .. } = *op else { return Ok(false) };
        let end = at.saturating_add(old.next_multiple_of(arena::PAGE));
        let starts = |view: View| view.mappings.into_iter().map(|mapping| mapping.start).collect::<Vec<u64>>();
        let (host, ours) = (starts(self.host.view(process)?), starts(self.ours.view(process)));
        Ok(host.iter().any(|start| at < *start && *start < end && !ours.contains(start)))
    }

    /// Would the call see on the host that a nonlinear mapping is several there (`nonlinear-area`), or count what is
    /// locked as only Linux does (`dontunmap-locked`)?
    fn is_left_out(&mut self, process: usize, op: &Op) -> bool {
        match *op {
            Op::Remap { at, old, flags, to, new } => {
                let fixed = flags & linux::MREMAP_FIXED != 0;
                let keeps = flags & linux::MREMAP_DONTUNMAP != 0;
                // `seal-split`: the place is made free before the end is found to be sealed.
                let sealed = |flags: AreaFlags| flags.contains(AreaFlags::SEALED);
                if fixed && new < old && self.ours.has_flags(process, at + new, old - new, sealed) {
                    return true;
                }
                // `dontunmap-locked`.
                let locked = |flags: AreaFlags| flags.contains(AreaFlags::LOCKED);
                keeps && self.ours.has_flags(process, at, old.max(1), locked)
                    || self.ours.has_nonlinear(process, at, old.max(1) + arena::PAGE)
                    || fixed && self.ours.has_nonlinear(process, to, new)
            }
            // The host's process has memory outside of the arena, too, so that it may never lock all.
            Op::LockAll { flags } => {
                let current = flags & linux::MCL_CURRENT != 0;
                current && self.ours.mapped_pages(process) <= crate::host::LOCK_LIMIT / arena::PAGE
            }
            // `disk-tail`.
            Op::Store { at, width, .. } => self.stores_behind(process, at, u64::from(width)),
            Op::Poke { other, at, len, .. } => self.stores_behind(other, at, len as u64),
            // `disk-placement`.
            Op::Map { at, len, flags, file: Some(file), .. } => {
                at != 0 && len >= LARGE && flags & crate::host::FIXED == 0 && self.ours.is_on_disk(file.number)
            }
            // `disk-folios`.
            Op::Write { file, len, .. } => self.ours.is_on_disk(file) && len as u64 >= 2 * arena::PAGE,
            // Not tmpfs' modes, but those of the host's file system.
            Op::Allocate { file, mode, .. } if self.ours.is_on_disk(file) => {
                let holes = linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE;
                ![0, linux::FALLOC_FL_KEEP_SIZE, holes].contains(&mode)
            }
            Op::Advise { at, len, advice } => {
                !matches!(advice, linux::MADV_DONTNEED | linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE)
                    && self.ours.has_nonlinear(process, at, len.saturating_add(arena::PAGE))
            }
            // A new mapping does not inherit what was said of the old one.
            Op::Nonlinear { at, len, .. } => {
                self.ours.has_flags(process, at, len.saturating_add(arena::PAGE), |flags| {
                    let locking = AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT;
                    let others = AreaFlags::NONLINEAR | AreaFlags::SOFT_DIRTY | AreaFlags::ACCOUNTED;
                    flags.without(locking | others) != AreaFlags::NONE
                })
            }
            _ => false,
        }
    }

    /// Would a store reach bytes behind the end of a file on a disk (`disk-tail`)?
    fn stores_behind(&mut self, process: usize, at: u64, len: u64) -> bool {
        let last = at.saturating_add(len.max(1) - 1);
        let pages =
            (at / arena::PAGE..=last / arena::PAGE).map(|page| (page * arena::PAGE + arena::PAGE - 1).min(last));
        pages.into_iter().any(|last| self.ours.is_past_end_on_disk(process, last))
    }

    /// May a burst hold the step? In one, a file on a disk keeps its end and is mapped nowhere else (`disk-tail`).
    fn keeps_disk(&mut self, process: usize, op: &Op) -> bool {
        match *op {
            Op::Truncate { file, .. } | Op::Allocate { file, .. } => !self.ours.is_on_disk(file),
            Op::Map { file: Some(file), .. } => !self.ours.is_on_disk(file.number),
            Op::Remap { at, old, .. } => self.ours.shows_disk(process, at, old.max(1), |_| true) == 0,
            // Only a digest of the answer is told.
            Op::Resident { at, len } => {
                !self.has_allocated && self.ours.shows_disk(process, at, len.max(1), |_| true) == 0
            }
            _ => true,
        }
    }

    fn differs(&self, process: usize, what: &'static str, host: String, ours: String) -> Failure {
        Failure::Differs(Box::new(Difference { step: self.step, process, what, host, ours }))
    }

    /// Looks at the memory of these processes, or of all.
    fn compare_views(&mut self, concerned: Option<[usize; 2]>) -> Result<(), Failure> {
        let mut living = self.lives.living();
        living.retain(|process| concerned.is_none_or(|these| these.contains(process)));
        for process in living {
            let host = self.host.view(process)?;
            let mut ours = self.ours.view(process);
            Canary::view(self.canary, &mut ours);
            self.compare_mappings(process, &host, &ours)?;
            self.compare_pages(process, &host, &ours)?;
            if host.rss != ours.rss {
                let texts = (format!("{:?}", host.rss), format!("{:?}", ours.rss));
                return Err(self.differs(process, "resident sizes", texts.0, texts.1));
            }
        }
        Ok(())
    }

    fn compare_mappings(&mut self, process: usize, host: &View, ours: &View) -> Result<(), Failure> {
        // Shared memory gets the host's name when it is first seen.
        let mut renamed = ours.mappings.clone();
        for mapping in &mut renamed {
            if let Source::Shared(own) = mapping.source {
                let there = host.mappings.iter().find(|host| host.start == mapping.start).map(|host| host.source);
                let name = match there {
                    Some(Source::Shared(name)) => *self.names.entry(own).or_insert(name),
                    _ => *self.names.get(&own).unwrap_or(&0),
                };
                mapping.source = Source::Shared(name);
            }
        }
        let sealed = self.executed.calls.contains_key("mseal");
        if same_mappings(&host.mappings, &renamed, sealed, &ours.seams) {
            return Ok(());
        }
        let (only_host, only_ours) = apart(&host.mappings, &renamed);
        Err(self.differs(process, "mappings", only_host, only_ours))
    }

    fn compare_pages(&self, process: usize, host: &View, ours: &View) -> Result<(), Failure> {
        let wrong: Vec<usize> =
            (0..arena::PAGES as usize).filter(|page| host.pages[*page] != ours.pages[*page]).collect();
        let Some(first) = wrong.first() else { return Ok(()) };
        let text = |view: &View| {
            let at = arena::address_of(*first) - arena::START;
            format!("+{at:#x} {:?} ({} pages differ)", view.pages[*first], wrong.len())
        };
        Err(self.differs(process, "resident pages", text(host), text(ours)))
    }

    fn compare_details(&mut self) -> Result<(), Failure> {
        let (mut shares, had_threads) = (Shares::default(), self.executed.together != 0);
        let mut is_whole = true;
        for process in self.lives.living() {
            let relatives = match (self.lives.has_forked(process), self.has_freed) {
                (false, _) => Relatives::None,
                (true, false) => Relatives::Some,
                (true, true) => Relatives::Freed,
            };
            let (host, host_status, base) = self.host.details(process)?;
            let (mut ours, mut ours_status) = self.ours.details(process);
            Canary::details(self.canary, &mut ours, &mut ours_status);
            if let Some((host, ours)) = smaps::areas_differ(&host, &ours, relatives) {
                return Err(self.differs(process, "smaps", host, ours));
            }
            if let Some((host, ours)) = smaps::status_differs(&host_status, &base, &ours_status, had_threads) {
                return Err(self.differs(process, "status", host, ours));
            }
            shares.add(&host, &ours);
            // `nonlinear-area`: whose pages are left out has a share of them all the same.
            is_whole &= !self.ours.has_nonlinear(process, arena::START, arena::SIZE);
        }
        match shares.differ() {
            Some((host, ours)) if is_whole => Err(self.differs(0, "the sum of shares", host, ours)),
            _ => Ok(()),
        }
    }

    fn compare_contents(&mut self) -> Result<(), Failure> {
        for process in self.lives.living() {
            // Not below stacks, for one: a look would make them grow.
            let mappings = self.ours.view(process).mappings;
            let is_mapped = |at: u64| mappings.iter().any(|mapping| (mapping.start..mapping.end).contains(&at));
            let mapped: Vec<bool> = (0..arena::PAGES as usize).map(|page| is_mapped(arena::address_of(page))).collect();
            let (host, mut ours) = (self.host.digests(process, &mapped)?, self.ours.digests(process, &mapped));
            Canary::contents(self.canary, &mut ours);
            if let Some(page) = (0..host.len()).find(|page| host[*page] != ours[*page]) {
                let text = |sums: &[u64]| format!("page +{:#x} has digest {:#x}", page * 4096, sums[page]);
                return Err(self.differs(process, "contents", text(&host), text(&ours)));
            }
        }
        Ok(())
    }
}

/// Whose memory a step is about.
fn whose(process: usize, op: &Op) -> usize {
    match *op {
        Op::Peek { other, .. } | Op::Poke { other, .. } => other,
        _ => process,
    }
}

/// The processes whose memory a step is about; `None` for all: those that only share files with them are looked at now and
/// then.
fn concerned(step: &Step, manner: Manner, executed: u64) -> Option<[usize; 2]> {
    let second = match step.op {
        Op::Fork { child } => child,
        op => whose(step.process, &op),
    };
    (!executed.is_multiple_of(manner.others)).then_some([step.process, second])
}

/// How many steps from the first on are made at the same time; 0 if it is made alone.
fn burst_len(steps: &[Step]) -> usize {
    let Some(first) = steps.first().filter(|step| step.thread != 0) else { return 0 };
    let same = |step: &&Step| step.process == first.process && step.thread != 0;
    steps.iter().take(MOST_BURST).take_while(same).count()
}

/// The mappings that only one side has.
fn apart(host: &[Mapping], ours: &[Mapping]) -> (String, String) {
    let plain = |mapping: &Mapping| match mapping.source {
        Source::Shared(_) => Mapping { source: Source::Shared(0), ..*mapping },
        _ => *mapping,
    };
    let only = |these: &[Mapping], those: &[Mapping]| {
        let those: Vec<Mapping> = those.iter().map(plain).collect();
        let only: Vec<&Mapping> = these.iter().filter(|mapping| !those.contains(&plain(mapping))).collect();
        format!("{only:?}")
    };
    match (only(host, ours), only(ours, host)) {
        // They differ in which shared memory is which.
        (a, b) if a == b => (format!("{host:?}"), format!("{ours:?}")),
        texts => texts,
    }
}
