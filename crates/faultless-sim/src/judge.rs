//! Both sides, step by step, and whether they agree.
//!
//! Called by `check`, `shrink` and replays. After each step: the answer and the fault counts of the process that made
//! it. Every so many steps, and at the end: mappings, resident pages and sizes of all processes. At the end also every
//! byte that can be read, and faultless' recount of itself.

use std::collections::HashMap;
use std::fmt;
use std::io;

use crate::accepted::same_mappings;
use crate::arena;
use crate::host::{Host, lowest_address};
use crate::ours::Ours;
use crate::scenario::{MOST_PROCESSES, Op, Scenario};
use crate::view::{Mapping, Outcome, Source, View};
use faultless::{AreaFlags, Sharing};
use faultless_hosted::Mmu;
use linux_raw_sys::general as linux;

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
}

impl Manner {
    /// The fast machine, everything after each step.
    pub const STRICT: Self = Self { machine: Machine::Fast, every: 1 };
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

/// Executes a scenario on both sides; returns how many steps were executed.
///
/// # Errors
///
/// [`Failure`]: the first difference, or what kept it from being judged.
pub fn judge(scenario: &Scenario, manner: Manner) -> Result<usize, Failure> {
    let host = Host::new(scenario)?;
    match manner.machine {
        Machine::Fast => Trial::new(host, Ours::fast(scenario).map_err(Failure::Machine)?).run(scenario, manner.every),
        Machine::Hostile(seed) => {
            Trial::new(host, Ours::hostile(scenario, seed).map_err(Failure::Machine)?).run(scenario, manner.every)
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
}

impl<M: Mmu> Trial<M> {
    fn new(host: Host, ours: Ours<M>) -> Self {
        Self { host, ours, lives: Lives::new(), names: HashMap::new(), step: 0 }
    }

    fn run(mut self, scenario: &Scenario, every: usize) -> Result<usize, Failure> {
        let mut executed = 0;
        for (number, step) in scenario.steps.iter().enumerate() {
            self.step = number;
            if !self.lives.permits(step.process, &step.op) || !is_tame(&step.op) {
                continue;
            }
            if matches!(step.op, Op::Remap { .. }) && self.is_kept_apart(step.process, &step.op)? {
                continue;
            }
            if self.meets_nonlinear(step.process, &step.op) {
                continue;
            }
            executed += 1;
            let host = self.host.step(step.process, &step.op)?;
            let ours = self.ours.step(step.process, &step.op);
            self.lives.note(step.process, &step.op);
            self.compare_outcome(step.process, &step.op, &host, &ours)?;
            if executed % every == 0 {
                self.compare_views()?;
            }
        }
        self.step = scenario.steps.len();
        self.compare_views()?;
        self.compare_contents()?;
        self.ours.finish().map_err(|what| self.lives.differs(self.step, "the recount", String::new(), what))?;
        Ok(executed)
    }

    /// Would `mremap` find one mapping here and several on the host (`area-merge`)?
    fn is_kept_apart(&mut self, process: usize, op: &Op) -> Result<bool, Failure> {
        let Op::Remap { at, old, .. } = *op else { return Ok(false) };
        let end = at.saturating_add(old.next_multiple_of(arena::PAGE));
        let starts = |view: View| view.mappings.into_iter().map(|mapping| mapping.start).collect::<Vec<u64>>();
        let (host, ours) = (starts(self.host.view(process)?), starts(self.ours.view(process)));
        Ok(host.iter().any(|start| at < *start && *start < end && !ours.contains(start)))
    }

    /// Would the call see on the host that a nonlinear mapping is several there (`nonlinear-area`)?
    fn meets_nonlinear(&mut self, process: usize, op: &Op) -> bool {
        match *op {
            Op::Remap { at, old, flags, to, new } => {
                let fixed = flags & linux::MREMAP_FIXED != 0;
                self.ours.has_nonlinear(process, at, old.max(1) + arena::PAGE)
                    || fixed && self.ours.has_nonlinear(process, to, new)
            }
            Op::Advise { at, len, advice } => {
                !matches!(advice, linux::MADV_DONTNEED | linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE)
                    && self.ours.has_nonlinear(process, at, len.saturating_add(arena::PAGE))
            }
            // A new mapping does not inherit what was said of the old one.
            Op::Nonlinear { at, len, .. } => {
                self.ours.has_flags(process, at, len.saturating_add(arena::PAGE), |flags| {
                    flags.without(AreaFlags::NONLINEAR | AreaFlags::SOFT_DIRTY | AreaFlags::ACCOUNTED)
                        != AreaFlags::NONE
                })
            }
            _ => false,
        }
    }

    fn differs(&self, process: usize, what: &'static str, host: String, ours: String) -> Failure {
        Failure::Differs(Box::new(Difference { step: self.step, process, what, host, ours }))
    }

    fn compare_outcome(&mut self, process: usize, op: &Op, host: &Outcome, ours: &Outcome) -> Result<(), Failure> {
        if host.answer != ours.answer {
            let texts = (format!("{:?}", host.answer), format!("{:?}", ours.answer));
            return Err(self.differs(process, "the answer", texts.0, texts.1));
        }
        let same = (host.minor, host.major) == (ours.minor, ours.major);
        if !same && self.explain_faults(process, op, host, ours).is_none() {
            let text = |outcome: &Outcome| format!("{} minor, {} major", outcome.minor, outcome.major);
            return Err(self.differs(process, "faults", text(host), text(ours)));
        }
        Ok(())
    }

    /// The accepted difference that explains why fault counts differ.
    fn explain_faults(&mut self, process: usize, op: &Op, host: &Outcome, ours: &Outcome) -> Option<&'static str> {
        if host.major != ours.major {
            return None;
        }
        if host.minor < ours.minor && may_fault_around(op) {
            return Some("fault-around");
        }
        let more = matches!(op, Op::Load { .. } | Op::Store { .. }) && host.minor < ours.minor;
        let fewer = match *op {
            Op::Store { at, width, .. } if host.minor > ours.minor => {
                let mut sharings =
                    [at, at + u64::from(width) - 1].map(|at| self.ours.sharing_at(process, at)).into_iter();
                sharings.any(|sharing| sharing == Some(Sharing::Private))
            }
            // The stores of a call; by pages, they are both kinds.
            Op::Advise { advice: linux::MADV_POPULATE_WRITE, .. } => true,
            _ => false,
        };
        (self.lives.has_forked(process) && (more || fewer)).then_some("fork-shared-tables")
    }

    fn compare_views(&mut self) -> Result<(), Failure> {
        for process in self.lives.living() {
            let host = self.host.view(process)?;
            let ours = self.ours.view(process);
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
        if same_mappings(&host.mappings, &renamed) {
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

    fn compare_contents(&mut self) -> Result<(), Failure> {
        for process in self.lives.living() {
            let (host, ours) = (self.host.digests(process)?, self.ours.digests(process));
            if let Some(page) = (0..host.len()).find(|page| host[*page] != ours[*page]) {
                let text = |sums: &[u64]| format!("page +{:#x} has digest {:#x}", page * 4096, sums[page]);
                return Err(self.differs(process, "contents", text(&host), text(&ours)));
            }
        }
        Ok(())
    }
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

/// May the step make several pages resident that are not anonymous?
fn may_fault_around(op: &Op) -> bool {
    match *op {
        Op::Load { at, width } => at % arena::PAGE + u64::from(width) > arena::PAGE,
        Op::Map { flags, .. } => flags & linux::MAP_TYPE != linux::MAP_PRIVATE || flags & linux::MAP_ANONYMOUS == 0,
        Op::Advise { advice, .. } => matches!(advice, linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE),
        Op::Lock { .. } | Op::LockAll { .. } | Op::Remap { .. } | Op::Protect { .. } | Op::Nonlinear { .. } => true,
        _ => false,
    }
}

/// May the host execute it? A call that reaches beyond the arena would hit the process itself.
fn is_tame(op: &Op) -> bool {
    match *op {
        Op::Unmap { at, len }
        | Op::Advise { at, len, .. }
        | Op::Sync { at, len, .. }
        | Op::Lock { at, len, .. }
        | Op::Unlock { at, len }
        | Op::Protect { at, len, .. }
        | Op::Resident { at, len }
        | Op::Nonlinear { at, len, .. } => {
            // Beyond the user's half, or with an end beyond 2^64, nothing happens.
            arena::holds(at, len) || at >= 1 << 46 || at.checked_add(len).is_none()
        }
        // `punch-first-page`.
        Op::Allocate { mode, offset, len, .. } => {
            mode & linux::FALLOC_FL_PUNCH_HOLE == 0 || offset.saturating_add(len) >= arena::PAGE as i64
        }
        Op::Remap { at, old, new, flags, to } => {
            let fixed = flags & linux::MREMAP_FIXED != 0;
            arena::holds(at, old) && arena::holds(at, new) && (!fixed || arena::holds(to, new))
        }
        Op::Map { at, len, flags, .. } => {
            let fixed = flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0;
            !fixed || arena::holds(at, len) || at < lowest_address() || len > 1 << 46 || at >= (1 << 47) - arena::PAGE
        }
        _ => true,
    }
}

/// Who was born of whom, who lives, who was waited for.
struct Lives {
    parents: [Option<usize>; MOST_PROCESSES],
    born: [bool; MOST_PROCESSES],
    ended: [bool; MOST_PROCESSES],
    waited: [bool; MOST_PROCESSES],
}

impl Lives {
    fn new() -> Self {
        let no = [false; MOST_PROCESSES];
        let mut born = no;
        born[0] = true;
        Self { parents: [None; MOST_PROCESSES], born, ended: no, waited: no }
    }

    fn living(&self) -> Vec<usize> {
        (0..MOST_PROCESSES).filter(|process| self.lives(*process)).collect()
    }

    fn lives(&self, process: usize) -> bool {
        self.born[process] && !self.ended[process]
    }

    /// Has the process a parent or a child?
    fn has_forked(&self, process: usize) -> bool {
        self.parents[process].is_some() || self.parents.contains(&Some(process))
    }

    /// Does the step make sense now?
    fn permits(&self, process: usize, op: &Op) -> bool {
        self.lives(process)
            && match *op {
                Op::Fork { child } => !self.born[child],
                Op::Wait { child } => self.parents[child] == Some(process) && !self.waited[child],
                _ => true,
            }
    }

    fn note(&mut self, process: usize, op: &Op) {
        match *op {
            Op::Fork { child } => (self.born[child], self.parents[child]) = (true, Some(process)),
            Op::Exit { .. } => self.ended[process] = true,
            Op::Wait { child } => self.waited[child] = self.ended[child],
            _ => {}
        }
    }

    fn differs(&self, step: usize, what: &'static str, host: String, ours: String) -> Failure {
        let process = self.living().first().copied().unwrap_or_default();
        Failure::Differs(Box::new(Difference { step, process, what, host, ours }))
    }
}
