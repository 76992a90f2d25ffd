//! Several CPUs at once on a few pages, judged by [`faultless_model::history`] after the run.
//!
//! Each CPU does random operations on spaces that others use too: loads and stores through its MMU, remote reads and
//! writes, mmap, munmap, mprotect, fork, exit, truncation and hole punching of an object, madvise, mremap to elsewhere and
//! back, pins through which a device stores, stores of a debugger. Every operation is logged with the times of its
//! beginning and end; every result must be possible, and at the end every counter must equal its recount.

mod actor;
mod judge;
mod stage;

use actor::Actor;
use faultless::{CpuId, Stats, Vm};
use faultless_hosted::{Body, HostedCpu, Hostile, HostileConfig};
use stage::Stage;
use std::mem::ManuallyDrop;

const PAGE: u64 = 4096;
/// What a leaf table covers.
const TABLE: u64 = 512 * PAGE;
/// Words of a page that are used, far apart.
const SLOTS: usize = 3;

/// The pages that a storm is about: on both sides of the borders of a leaf table, an upper table and a stripe.
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
const OBJECT_PAGES: u64 = 2;

/// What a storm is made of.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    pub seed: u64,
    pub cpus: usize,
    /// Operations per CPU.
    pub operations: usize,
    /// What each CPU does; the last one is for all the others.
    pub roles: &'static [Role],
    /// The pages it is about.
    pub pages: &'static [usize],
    /// Fork the first space this often before the start, so that tables are shared.
    pub forks_before: usize,
    /// Lets allocations fail now and then.
    pub failing: bool,
    /// Keep to the first space.
    pub one_space: bool,
}

/// What one CPU does.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// The space that it runs first.
    pub home: usize,
    /// The space whose ranges it changes, if not the one that it runs.
    pub ranges_of: Option<usize>,
    /// Operations and their weights, in the order of [`Doing`].
    pub weights: [u64; DOINGS],
    /// So many times the storm's number of operations.
    pub times: usize,
}

/// How many kinds of storms there are.
pub const KINDS_OF_STORMS: usize = KINDS.len();

/// How many things a CPU may do.
const DOINGS: usize = 17;

const fn role(home: usize, weights: [u64; 10]) -> Role {
    busy(home, 1, weights)
}

/// The same with the weights of what comes behind [`Doing::Resize`].
const fn wide(home: usize, weights: [u64; 10], more: [u64; 7]) -> Role {
    Role { weights: joined(weights, more), ..role(home, weights) }
}

const fn joined(weights: [u64; 10], more: [u64; 7]) -> [u64; DOINGS] {
    let [a, b, c, d, e, f, g, h, i, j] = weights;
    let [k, l, m, n, o, p, q] = more;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]
}

/// Runs one space and changes the ranges of another.
const fn outside(home: usize, ranges_of: usize, weights: [u64; 10]) -> Role {
    Role { ranges_of: Some(ranges_of), ..role(home, weights) }
}

const fn busy(home: usize, times: usize, weights: [u64; 10]) -> Role {
    Role { home, ranges_of: None, weights: joined(weights, [0; 7]), times }
}

/// Kinds of storms: roles, pages, forks before.
const KINDS: [(&[Role], &[usize], u64); 18] = [
    // Everything evenly.
    (&[role(0, [12, 14, 3, 3, 3, 3, 4, 3, 2, 1])], &[0, 1, 2, 3, 4, 5, 6, 7], 3),
    // Copy-on-write in a tree of forks.
    (&[role(0, [10, 20, 2, 4, 1, 1, 1, 6, 4, 0])], &[0, 1, 2, 3, 4, 5, 6, 7], 3),
    // Range operations against faults.
    (&[role(0, [10, 12, 1, 2, 6, 6, 8, 1, 1, 0])], &[0, 1, 2, 5], 2),
    // The object.
    (&[role(0, [8, 10, 4, 6, 2, 4, 3, 2, 1, 6])], &[5, 6, 7], 3),
    // One page, copied again and again.
    (&[role(0, [20, 16, 1, 2, 0, 0, 0, 5, 1, 0])], &[1], 3),
    // Two neighbours, replaced again and again.
    (&[role(0, [16, 16, 1, 1, 3, 8, 4, 1, 1, 0])], &[1, 2], 2),
    // One replaces, the others use.
    (&[role(0, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), role(0, [5, 5, 0, 0, 0, 0, 0, 0, 0, 0])], &[0, 1], 1),
    // One unmaps and maps, the others store.
    (&[role(0, [0, 0, 0, 0, 3, 2, 0, 0, 0, 0]), role(0, [1, 8, 0, 0, 0, 0, 0, 0, 0, 0])], &[0, 1], 1),
    // One forks, the others store into old and fresh pages.
    (&[role(0, [1, 1, 0, 0, 0, 0, 0, 6, 0, 0]), role(0, [2, 8, 0, 0, 1, 3, 0, 0, 0, 0])], &[0, 1, 2, 5], 2),
    // One forks and replaces, the others write from outside.
    (&[role(0, [1, 0, 0, 0, 0, 5, 0, 4, 0, 0]), role(1, [0, 0, 2, 8, 0, 0, 0, 0, 0, 0])], &[0, 1, 2, 5], 0),
    // Two spaces that share tables, two CPUs in the first one.
    (&[role(1, [4, 8, 0, 0, 0, 0, 0, 0, 0, 0]), role(0, [8, 4, 0, 0, 0, 0, 0, 0, 0, 0])], &[0, 1, 2], 0),
    // One changes rights from outside, while the other copies alone.
    (&[outside(1, 0, [0, 0, 0, 0, 0, 4, 8, 1, 0, 0]), role(0, [8, 8, 0, 0, 0, 0, 0, 0, 0, 0])], &[1], 0),
    // Everything that is behind the first ten, but for moves: only who changes ranges alone may move them.
    (&[wide(0, [8, 10, 2, 3, 2, 2, 3, 3, 2, 1], [4, 2, 0, 3, 3, 3, 3])], &[0, 1, 2, 3, 4, 5, 6, 7], 3),
    // One discards and replaces, the others store, copy and bring in.
    (
        &[
            wide(0, [2, 2, 0, 0, 0, 1, 1, 0, 0, 0], [6, 2, 0, 0, 0, 0, 0]),
            wide(0, [4, 8, 1, 2, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 2, 0]),
        ],
        &[0, 1, 2, 6],
        3,
    ),
    // One moves, the others use.
    (
        &[
            wide(0, [1, 2, 0, 0, 0, 1, 1, 0, 0, 0], [1, 0, 7, 0, 0, 0, 0]),
            wide(0, [5, 8, 1, 2, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 2, 1]),
        ],
        &[0, 1, 2, 5],
        3,
    ),
    // One moves two neighbours, the others store.
    (
        &[wide(0, [1, 2, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 6, 0, 0, 0, 0]), role(0, [3, 8, 0, 0, 0, 0, 0, 0, 0, 0])],
        &[1, 2],
        2,
    ),
    // One punches, cuts and moves the object, the others use it.
    (
        &[
            wide(0, [1, 2, 0, 0, 0, 1, 1, 0, 0, 2], [1, 0, 3, 6, 0, 0, 0]),
            wide(0, [5, 6, 2, 3, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 2, 1]),
        ],
        &[6, 7],
        3,
    ),
    // Pins and forks.
    (
        &[
            wide(0, [2, 4, 0, 0, 0, 0, 0, 5, 0, 0], [1, 0, 0, 0, 5, 0, 1]),
            wide(0, [4, 8, 1, 1, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 5, 0, 2]),
        ],
        &[0, 1, 2],
        2,
    ),
];

/// What a CPU may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
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
    Discard,
    Free,
    Move,
    Punch,
    Pin,
    Populate,
    Force,
}

const ALL: [Doing; DOINGS] = [
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
    Doing::Discard,
    Doing::Free,
    Doing::Move,
    Doing::Punch,
    Doing::Pin,
    Doing::Populate,
    Doing::Force,
];

impl Storm {
    /// A storm of this seed.
    pub fn of(seed: u64) -> Self {
        Self::of_kind(seed as usize / 7 % KINDS.len(), seed)
    }

    /// A storm of this kind and seed.
    pub fn of_kind(kind: usize, seed: u64) -> Self {
        let (roles, pages, forks) = KINDS[kind];
        let homes = roles.iter().map(|role| role.home).max().unwrap_or(0);
        let most = if forks == 0 { 0 } else { (seed / 3 % forks) as usize };
        Self {
            seed,
            cpus: 2 + seed as usize % 3,
            operations: 12,
            roles,
            pages,
            forks_before: homes.max(most),
            failing: false,
            one_space: seed % 5 < 2,
        }
    }

    /// A long storm about one page: one CPU takes and gives rights until generations come round, the others use it.
    pub fn of_generations(seed: u64) -> Self {
        const ROLES: &[Role] =
            &[busy(0, 40, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), busy(0, 40, [4, 8, 0, 0, 0, 0, 0, 0, 0, 0])];
        Self { roles: ROLES, pages: &[1], cpus: 3, ..Self::of(seed) }
    }

    /// Runs the storm; returns a digest of its schedule, and the counters.
    ///
    /// # Errors
    ///
    /// What was impossible, or wrong in the recount.
    pub fn run(&self) -> Result<(u64, Stats), String> {
        // Where allocations fail anyway, memory may be short as well.
        let frames = if self.failing && self.seed.is_multiple_of(3) { 90 + self.seed % 200 } else { 512 };
        let mut config = HostileConfig::new(frames, self.cpus, self.seed);
        config.evict = [0, 0, 6, 40][self.seed as usize % 4];
        let vm = Vm::new(Hostile::new(config).expect("memory for the arena")).expect("a machine");
        let cpus = (0..self.cpus as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU"));
        // What failed is not taken down but leaked: destructors that meet corrupt counters would abort the process
        // and take the seed with them.
        let mut cpus = ManuallyDrop::new(cpus.collect::<Vec<_>>());
        let stage = ManuallyDrop::new(Stage::new(&vm, &mut cpus, self));
        let bodies = cpus.iter_mut().enumerate().map(|(number, cpu)| {
            let stage = &stage;
            let body: Body<'_> = Box::new(move || Actor::new(stage, cpu, number, self).act());
            (CpuId::new(number as u32), body)
        });
        vm.machine().run(bodies.collect());
        vm.machine().fail_no_allocation();
        stage.look_once_more(&mut cpus[0]);
        stage.judge()?;
        stage.recount(&vm, &mut cpus)?;
        drop((ManuallyDrop::into_inner(stage), ManuallyDrop::into_inner(cpus)));
        Ok((vm.machine().digest(), vm.stats()))
    }
}
