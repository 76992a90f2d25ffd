//! How hostile, and from which seed.

/// How CPUs take turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// At each step, once in so many (on average), any other CPU goes on.
    Random {
        /// 1: at every step.
        once_in: u64,
    },
    /// The CPU of highest priority goes on; at `changes` steps among the first `length`, chosen by the seed, whoever
    /// runs becomes the lowest. Finds bugs of that many ordering constraints with a known probability (Burckhardt et
    /// al., "A randomized scheduler with probabilistic guarantees of finding bugs").
    Priorities {
        /// Priority changes.
        changes: usize,
        /// Steps among which they happen.
        length: u64,
    },
}

/// What a [`Hostile`](super::Hostile) machine is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostileConfig {
    /// Frames of 4096 bytes.
    pub frames: u64,
    /// CPUs.
    pub cpus: usize,
    /// Decides everything that is not decided by the program.
    pub seed: u64,
    /// Who runs.
    pub schedule: Schedule,
    /// Most occasions at which a CPU may put off the interrupts that wait for it.
    pub delay: u64,
    /// The MMU of some CPU walks to a random present page once in so many steps; 0: never.
    pub speculate: u64,
    /// A TLB loses an entry once in so many accesses; 0: never, which is the most hostile.
    pub evict: u64,
    /// A run of more steps than this is taken for stuck.
    pub most_steps: u64,
}

impl HostileConfig {
    /// A small machine with everything on; the seed chooses the schedule too.
    #[must_use]
    pub const fn new(frames: u64, cpus: usize, seed: u64) -> Self {
        let schedule = match seed % 4 {
            0 => Schedule::Priorities { changes: 3, length: 2000 },
            1 => Schedule::Random { once_in: 2 },
            2 => Schedule::Random { once_in: 5 },
            _ => Schedule::Random { once_in: 20 },
        };
        Self { frames, cpus, seed, schedule, delay: 1 + seed % 7, speculate: 12, evict: 0, most_steps: 1_000_000 }
    }
}
