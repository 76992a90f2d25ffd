//! The promises of [`faultless::Machine`], checked on any machine.
//!
//! Called by whoever implements a machine, before it is given to a [`Vm`](faultless::Vm): the suite writes into its
//! frames. What a machine's MMU does with translations can only be seen by using them, so the caller brings a [`Probe`]
//! that loads and stores as a program on one of its CPUs; for machines of this crate that is [`SoftProbe`].
//!
//! Checked: RAM is sane; `table`, `zero`, `copy`, `read` and `write` reach exactly one frame, the same each time; the
//! MMU understands the format, honours rights of upper levels and sets accessed and dirty bits; flushes, local and
//! remote, of pages and of all, forget translations and upper levels; the barriers are a pair. Absent on purpose:
//! whether a flush waits for an access under way (no probe can be slow enough); the stress tests show that.
//!
//! ```
//! use faultless_hosted::conformance::{SoftProbe, check};
//! use faultless_hosted::{Fast, FastConfig};
//!
//! let machine = Fast::new(FastConfig::new(64, 2))?;
//! assert_eq!(check(&machine, &mut SoftProbe::new()), Ok(()));
//! # Ok::<(), rustix::io::Errno>(())
//! ```

use crate::mmu::Mmu;
use core::sync::atomic::{AtomicU64, Ordering};
use faultless::machine::Format;
use faultless::machine::format::{PageBits, Raw};
use faultless::{
    Access, CpuId, CpuSet, Flush, FrameId, Machine, PAGE_SIZE, PageRange, Scope, VirtAddr, addr::MAX_CPUS,
};
use std::collections::BTreeMap;
use std::thread;

/// What does not hold, one sentence each.
pub type Failures = Vec<String>;

/// Accesses as a program on a CPU of the machine, through its MMU. Page faults are not resolved.
pub trait Probe<M: Machine> {
    /// Loads the aligned word at `address` on `cpu`, whose root register holds `root`. `None`: page fault.
    fn load(&mut self, machine: &M, cpu: CpuId, root: FrameId, address: VirtAddr) -> Option<u64>;

    /// Stores the aligned word at `address`, likewise. False: page fault.
    fn store(&mut self, machine: &M, cpu: CpuId, root: FrameId, address: VirtAddr, value: u64) -> bool;
}

/// The probe for machines with an MMU in software.
#[derive(Debug, Default)]
pub struct SoftProbe {
    loaded: BTreeMap<usize, FrameId>,
}

impl SoftProbe {
    /// No CPU has a root yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn load_root<M: Mmu>(&mut self, machine: &M, cpu: CpuId, root: FrameId) {
        if self.loaded.insert(cpu.as_usize(), root) != Some(root) {
            machine.load_root(cpu, Some(root));
        }
    }
}

impl<M: Mmu> Probe<M> for SoftProbe {
    fn load(&mut self, machine: &M, cpu: CpuId, root: FrameId, address: VirtAddr) -> Option<u64> {
        self.load_root(machine, cpu, root);
        let load = |arena: &crate::Arena, frame, offset| arena.load(frame, offset);
        machine.with_page(cpu, address, Access::Read, load).ok()
    }

    fn store(&mut self, machine: &M, cpu: CpuId, root: FrameId, address: VirtAddr, value: u64) -> bool {
        self.load_root(machine, cpu, root);
        let store = |arena: &crate::Arena, frame, offset| arena.store(frame, offset, value);
        machine.with_page(cpu, address, Access::Write, store).is_ok()
    }
}

/// Checks everything.
///
/// # Errors
///
/// What does not hold. If RAM is not sane nothing else is looked at.
pub fn check<M: Machine>(machine: &M, probe: &mut impl Probe<M>) -> Result<(), Failures> {
    let mut failures = Failures::new();
    check_shape(machine, &mut failures);
    let frames: Vec<FrameId> = sample(machine);
    if failures.is_empty() && frames.len() < FRAMES {
        failures.push(format!("the suite needs {FRAMES} frames"));
    }
    if failures.is_empty() {
        check_memory(machine, &frames, &mut failures);
        for cpu in cpus(machine) {
            Mapping::new(machine, &frames).check(probe, cpu, &mut failures);
        }
        check_barriers(machine, &mut failures);
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// Frames that the suite uses: a path of tables, a second leaf table, two pages.
const FRAMES: usize = 10;

/// Frames from both ends of every range.
fn sample<M: Machine>(machine: &M) -> Vec<FrameId> {
    let mut frames = Vec::new();
    for range in machine.ram() {
        let (start, end) = (range.start.as_u64(), range.end.as_u64());
        let low = start..end.min(start + FRAMES as u64);
        let high = end.saturating_sub(2).max(low.end)..end;
        frames.extend(high.chain(low).map(FrameId::new));
    }
    frames
}

fn cpus<M: Machine>(machine: &M) -> impl Iterator<Item = CpuId> {
    (0..machine.cpus().min(MAX_CPUS) as u32).map(CpuId::new)
}

fn check_shape<M: Machine>(machine: &M, failures: &mut Failures) {
    if machine.cpus() == 0 || machine.cpus() > MAX_CPUS {
        failures.push(format!("a machine has 1 to {MAX_CPUS} CPUs, not {}", machine.cpus()));
    }
    let mut last = 0;
    for range in machine.ram() {
        if range.start >= range.end || range.start.as_u64() < last {
            failures.push(format!("RAM {range:?} is empty, reversed, or not above the range before it"));
        }
        last = range.end.as_u64();
    }
}

/// Promises 1 and 2: each function reaches exactly the frame it is given, and always the same memory.
fn check_memory<M: Machine>(machine: &M, frames: &[FrameId], failures: &mut Failures) {
    let word = |frame: FrameId, index: usize| frame.as_u64() << 16 | index as u64;
    for frame in frames {
        let table = machine.table(*frame);
        let entries = 1 << M::Format::INDEX_BITS;
        if table.len() != entries {
            failures.push(format!("table({frame:?}) has {} entries, not {entries}", table.len()));
            return;
        }
        if !core::ptr::eq(table, machine.table(*frame)) {
            failures.push(format!("table({frame:?}) is other memory each time (2)"));
        }
        table.iter().enumerate().for_each(|(index, entry)| entry.store(word(*frame, index), Ordering::SeqCst));
    }
    let intact = |frame: &FrameId| {
        let entries = machine.table(*frame).iter().enumerate();
        entries.into_iter().all(|(index, entry)| entry.load(Ordering::SeqCst) == word(*frame, index))
    };
    failures
        .extend(frames.iter().filter(|frame| !intact(frame)).map(|f| format!("{f:?} is not memory of its own (1)")));
    let (first, second) = (frames[0], frames[frames.len() - 1]);
    check_bytes(machine, first, failures);
    machine.table(first).iter().enumerate().for_each(|(i, entry)| entry.store(word(first, i), Ordering::SeqCst));
    machine.copy(first, second);
    let copied = machine.table(second).iter().zip(machine.table(first));
    if !copied.into_iter().all(|(to, from)| to.load(Ordering::SeqCst) == from.load(Ordering::SeqCst)) {
        failures.push("copy does not copy the whole frame".into());
    }
    machine.zero(second);
    if machine.table(second).iter().any(|entry| entry.load(Ordering::SeqCst) != 0) {
        failures.push("zero does not zero the whole frame".into());
    }
    let others = frames[..frames.len() - 1].iter().filter(|frame| !intact(frame));
    failures.extend(others.map(|f| format!("{f:?} was changed by functions that were given other frames (1)")));
}

/// `read` and `write` against `table`.
fn check_bytes<M: Machine>(machine: &M, frame: FrameId, failures: &mut Failures) {
    let len = (machine.table(frame).len() * 8).min(PAGE_SIZE as usize);
    for (offset, count) in [(0, 1), (3, 13), (8, 8), (len - 1, 1), (0, len)] {
        let bytes: Vec<u8> = (0..count).map(|at| (at * 7 + offset + 1) as u8).collect();
        machine.write(frame, offset, &bytes);
        let mut back = vec![0; count];
        machine.read(frame, offset, &mut back);
        if back != bytes {
            failures.push(format!("read at {offset} returns something else than was written"));
        }
        let in_table = |at: usize| machine.table(frame)[at / 8].load(Ordering::SeqCst).to_le_bytes()[at % 8];
        if !(offset..offset + count).map(in_table).eq(bytes) {
            failures.push(format!("write at {offset} is not seen through table, lowest byte first"));
        }
    }
}

/// A path of tables to one page, and what it takes to change it.
struct Mapping<'m, M: Machine> {
    machine: &'m M,
    root: FrameId,
    /// Leaf tables: the one in use, and a spare one.
    leaves: [FrameId; 2],
    /// The upper entry that names the leaf table.
    parent: FrameId,
    pages: [FrameId; 2],
}

/// The words that the two pages begin with.
const MARKS: [u64; 2] = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888];

impl<'m, M: Machine> Mapping<'m, M> {
    /// An address whose indices are all different.
    fn address() -> VirtAddr {
        let bits = M::Format::INDEX_BITS;
        let index = |level: u32| u64::from(level + 1) % (1 << bits.min(6));
        VirtAddr::new((0..M::Format::LEVELS as u32).map(|level| index(level) << (12 + bits * level)).sum())
    }

    fn slot(level: usize) -> usize {
        let bits = M::Format::INDEX_BITS;
        (Self::address().as_u64() >> (12 + bits * level as u32)) as usize & ((1 << bits) - 1)
    }

    fn new(machine: &'m M, frames: &[FrameId]) -> Self {
        frames[..FRAMES].iter().for_each(|frame| machine.zero(*frame));
        let levels = M::Format::LEVELS;
        let tables = &frames[..levels];
        machine.init_root(tables[0]);
        let entry = |frame| M::Format::table(frame, false, false);
        for (depth, pair) in tables.windows(2).enumerate() {
            machine.table(pair[0])[Self::slot(levels - 1 - depth)].store(entry(pair[1]), Ordering::SeqCst);
        }
        let (leaves, pages) = ([tables[levels - 1], frames[levels]], [frames[levels + 1], frames[levels + 2]]);
        for (page, mark) in pages.iter().zip(MARKS) {
            machine.write(*page, 0, &mark.to_le_bytes());
        }
        Self { machine, root: tables[0], leaves, parent: tables[levels - 2], pages }
    }

    fn set(&self, table: FrameId, level: usize, entry: Raw) {
        // A read-modify-write: the entry belongs to the MMU too.
        self.machine.table(table)[Self::slot(level)].swap(entry, Ordering::SeqCst);
    }

    fn page(&self, which: usize, write: bool) -> Raw {
        M::Format::page(self.pages[which], PageBits { write, ..PageBits::default() }, 0)
    }

    fn entry(&self) -> Raw {
        self.machine.table(self.leaves[0])[Self::slot(0)].load(Ordering::SeqCst)
    }

    /// Everything about translations, as seen by `cpu`.
    fn check(&self, probe: &mut impl Probe<M>, cpu: CpuId, failures: &mut Failures) {
        let name = format!("CPU {}", cpu.as_usize());
        if self.load(probe, cpu).is_some() {
            failures.push(format!("{name}: a load through an empty entry"));
        }
        self.set(self.leaves[0], 0, self.page(0, true));
        if self.load(probe, cpu) != Some(MARKS[0]) {
            failures.push(format!("{name}: the MMU does not find a page that the tables name"));
            return;
        }
        self.check_marks(probe, cpu, &name, failures);
        let pages = Scope::Pages(PageRange::page(Self::address()));
        let mut others = CpuSet::new();
        others.insert(cpu);
        for (scope, what) in [(pages, "of a page"), (Scope::All, "of all")] {
            let flush = Flush { root: self.root, scope };
            let local = |machine: &M| machine.flush_local(cpu, &flush);
            self.check_flush(probe, cpu, &format!("{name}: flush_local {what}"), local, failures);
            if let Some(other) = cpus(self.machine).find(|other| *other != cpu) {
                let remote = |machine: &M| machine.flush_remote(other, &others, &flush);
                self.check_flush(probe, cpu, &format!("{name}: flush_remote {what}"), remote, failures);
            }
        }
    }

    fn load(&self, probe: &mut impl Probe<M>, cpu: CpuId) -> Option<u64> {
        probe.load(self.machine, cpu, self.root, Self::address())
    }

    fn store(&self, probe: &mut impl Probe<M>, cpu: CpuId, value: u64) -> bool {
        probe.store(self.machine, cpu, self.root, Self::address(), value)
    }

    /// Accessed and dirty bits.
    fn check_marks(&self, probe: &mut impl Probe<M>, cpu: CpuId, name: &str, failures: &mut Failures) {
        if M::Format::touched(self.entry(), false) != self.entry() {
            failures.push(format!("{name}: a load does not set the accessed bit"));
        }
        if !self.store(probe, cpu, MARKS[0]) {
            failures.push(format!("{name}: a store to a writable page faults"));
        }
        if M::Format::touched(self.entry(), true) != self.entry() {
            failures.push(format!("{name}: a store does not set the dirty bit"));
        }
    }

    /// After each change and `flush`, the CPU uses the new state.
    fn check_flush(
        &self,
        probe: &mut impl Probe<M>,
        cpu: CpuId,
        what: &str,
        flush: impl Fn(&M),
        failures: &mut Failures,
    ) {
        let mut demand = |holds: bool, sentence: &str| {
            if !holds {
                failures.push(format!("{what}: {sentence}"));
            }
        };
        // The CPU has the page cached, for loads and stores, before each change.
        let warm = |probe: &mut _, which: usize| {
            self.set(self.parent, 1, M::Format::table(self.leaves[0], false, false));
            self.set(self.leaves[0], 0, self.page(which, true));
            flush(self.machine);
            self.load(probe, cpu) == Some(MARKS[which]) && self.store(probe, cpu, MARKS[which])
        };
        demand(warm(probe, 0), "a fresh page cannot be used");
        self.set(self.leaves[0], 0, self.page(1, true));
        flush(self.machine);
        demand(self.load(probe, cpu) == Some(MARKS[1]), "the old page is still used");
        demand(warm(probe, 0), "a page cannot be put back");
        self.set(self.leaves[0], 0, self.page(0, false));
        flush(self.machine);
        demand(!self.store(probe, cpu, MARKS[0]), "a page that lost write permission is written");
        demand(self.load(probe, cpu) == Some(MARKS[0]), "a read-only page cannot be read");
        demand(warm(probe, 0), "write permission cannot be given back");
        self.set(self.leaves[0], 0, M::Format::empty(7, 3));
        flush(self.machine);
        demand(self.load(probe, cpu).is_none(), "a page that is gone is still used");
        demand(warm(probe, 0), "a page cannot be put back");
        self.set(self.leaves[1], 0, self.page(1, true));
        self.set(self.parent, 1, M::Format::table(self.leaves[1], false, false));
        flush(self.machine);
        demand(self.load(probe, cpu) == Some(MARKS[1]), "a table that was replaced is still walked");
        demand(warm(probe, 0), "a table cannot be put back");
        self.set(self.parent, 1, M::Format::table(self.leaves[0], true, false));
        flush(self.machine);
        demand(!self.store(probe, cpu, MARKS[0]), "a page below a shared table is written");
        demand(self.load(probe, cpu) == Some(MARKS[0]), "a page below a shared table cannot be read");
    }
}

/// Promise 4, by Dekker's test: of two CPUs that each store and then load the other's word, one sees the other.
fn check_barriers<M: Machine>(machine: &M, failures: &mut Failures) {
    const ROUNDS: u64 = 3000;
    let (light, heavy, ready) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let side = |mine: &AtomicU64, other: &AtomicU64, barrier: &(dyn Fn() + Sync)| -> Vec<u64> {
        (1..=ROUNDS)
            .map(|round| {
                ready.fetch_add(1, Ordering::SeqCst);
                // Ends: the other side arrives too.
                while ready.load(Ordering::SeqCst) < 2 * round {
                    thread::yield_now();
                }
                mine.store(round, Ordering::Relaxed);
                barrier();
                other.load(Ordering::Relaxed)
            })
            .collect()
    };
    let (seen_by_light, seen_by_heavy) = thread::scope(|scope| {
        let waiter = scope.spawn(|| side(&heavy, &light, &|| machine.heavy_barrier()));
        (side(&light, &heavy, &|| machine.light_barrier()), waiter.join().expect("no panic inside"))
    });
    let both_missed =
        (1..).zip(seen_by_light.iter().zip(&seen_by_heavy)).filter(|(round, (a, b))| *a < round && *b < round);
    let missed = both_missed.count();
    if missed != 0 {
        failures.push(format!("light_barrier and heavy_barrier are no pair: {missed} of {ROUNDS} rounds (4)"));
    }
}
