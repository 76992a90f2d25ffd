//! Threads on the fast machine (method S of REQUIREMENTS): every byte is checked, and at the end every counter.
//!
//! Environment: `FAULTLESS_ROUNDS` (default 1) multiplies the work.

mod common;

use common::replay::env;
use faultless::{Access, CpuId, FaultError, Layout, MapRequest, PageRange, Rights, Space, VirtAddr, Vm};
use faultless_hosted::{Barriers, Fast, FastConfig, HostedCpu, Rng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const PAGE: u64 = 4096;
const THREADS: usize = 4;
const BASE: u64 = 0x1000_0000_0000;

/// A machine, a space, and a CPU for each thread.
struct Crowd {
    vm: Vm<Fast>,
    space: Arc<Space<Fast>>,
    cpus: Vec<HostedCpu<Fast>>,
}

impl Crowd {
    fn new(barriers: Barriers) -> Self {
        let config = FastConfig { barriers, ..FastConfig::new(32_768, THREADS) };
        let vm = Vm::new(Fast::new(config).expect("an arena")).expect("a machine");
        let mut cpus: Vec<_> =
            (0..THREADS as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
        let space = Arc::new(vm.new_space(cpus[0].token(), Layout::linux()).expect("memory"));
        Self { vm, space, cpus }
    }

    fn map(&mut self, at: u64, pages: u64) {
        let request = MapRequest::anonymous(pages * PAGE).fixed(VirtAddr::new(at));
        self.space.map(self.cpus[0].token(), request).expect("room");
    }

    /// Each thread runs `body` as one CPU, in the space.
    fn all(&mut self, body: impl Fn(usize, &mut HostedCpu<Fast>, &Arc<Space<Fast>>) + Sync) {
        let space = &self.space;
        thread::scope(|scope| {
            for (number, cpu) in self.cpus.iter_mut().enumerate() {
                let body = &body;
                scope.spawn(move || {
                    cpu.run(space);
                    body(number, cpu, space);
                    cpu.stop();
                });
            }
        });
    }

    /// The recount; the space exits; the locks of the fault path.
    fn end(mut self) {
        let Self { vm, space, cpus } = &mut self;
        let collect = |cpus: &mut [HostedCpu<Fast>]| {
            cpus.iter_mut().for_each(|cpu| {
                cpu.token().collect();
            });
        };
        collect(cpus);
        assert_eq!(vm.audit(cpus[0].token(), &[space], &[]), Ok(()));
        space.exit(cpus[0].token());
        collect(cpus);
        assert_eq!(vm.audit(cpus[0].token(), &[], &[]), Ok(()));
        let stats = vm.stats();
        assert_eq!(stats.get("fault_table_locks"), 0, "F-01");
        assert_eq!(stats.get("fault_space_locks"), 0, "F-01: stack growth has a counter of its own");
        assert_eq!(stats.get("tables_allocated"), stats.get("tables_freed"));
    }
}

fn page(number: u64) -> VirtAddr {
    VirtAddr::new(BASE + number * PAGE)
}

/// Disjoint pages: every thread its own part of one area.
fn disjoint(barriers: Barriers) {
    let pages = 800 * env("FAULTLESS_ROUNDS", 1);
    let mut crowd = Crowd::new(barriers);
    crowd.map(BASE, pages * THREADS as u64);
    crowd.all(|number, cpu, _| {
        let first = number as u64 * pages;
        for offset in 0..pages {
            assert_eq!(cpu.load::<u64>(page(first + offset)), Ok(0), "fresh memory is zero");
            assert_eq!(cpu.store(page(first + offset), first + offset), Ok(()));
        }
        let mut bytes = [0; PAGE as usize];
        for offset in 0..pages {
            cpu.read(page(first + offset), &mut bytes).expect("mapped");
            let (word, rest) = bytes.split_at(8);
            assert_eq!(word, (first + offset).to_le_bytes());
            assert!(rest.iter().all(|byte| *byte == 0), "fresh memory is zero in every byte");
        }
    });
    assert_eq!(crowd.space.usage().anon, pages * THREADS as u64);
    crowd.end();
}

#[test]
fn disjoint_pages() {
    disjoint(Barriers::Best);
    disjoint(Barriers::Fences);
}

/// The same pages: every thread its own byte of every page, in its own order; no store may be lost.
#[test]
fn same_pages() {
    let (pages, rounds) = (400, 3 * env("FAULTLESS_ROUNDS", 1));
    for round in 0..rounds {
        let mut crowd = Crowd::new(Barriers::Best);
        crowd.map(BASE, pages);
        crowd.all(|number, cpu, _| {
            let mut rng = Rng::new(round * 100 + number as u64);
            let start = rng.below(pages);
            for offset in 0..pages {
                let at = page((start + offset * 7) % pages);
                let mine = VirtAddr::new(at.as_u64() + 8 * number as u64);
                if rng.once_in(3) {
                    assert_eq!(cpu.load::<u8>(mine), Ok(0));
                }
                assert_eq!(cpu.store(mine, number as u8 + 1), Ok(()));
            }
        });
        crowd.all(|_, cpu, _| {
            for (offset, writer) in (0..pages).flat_map(|page| (0..THREADS as u64).map(move |w| (page, w))) {
                let at = VirtAddr::new(page(offset).as_u64() + 8 * writer);
                assert_eq!(cpu.load::<u64>(at), Ok(writer + 1), "F-06: no store is lost");
            }
        });
        assert_eq!(crowd.space.usage().anon, pages);
        crowd.end();
    }
}

/// Every thread maps, fills, protects and unmaps in a loop, beside a page that is always there (VM-05).
#[test]
fn map_storm() {
    let rounds = 60 * env("FAULTLESS_ROUNDS", 1);
    let mut crowd = Crowd::new(Barriers::Best);
    crowd.map(BASE, 1);
    crowd.all(|number, cpu, space| {
        let mut rng = Rng::new(number as u64);
        for round in 1..=rounds {
            let pages = rng.range(1, 40);
            let at = space.map(cpu.token(), MapRequest::anonymous(pages * PAGE)).expect("room");
            let of = |page: u64| VirtAddr::new(at.as_u64() + page * PAGE);
            (0..pages).for_each(|page| assert_eq!(cpu.store(of(page), round << 8 | page), Ok(())));
            let range = PageRange::with_len(at, pages * PAGE).expect("aligned");
            let victim = of(rng.below(pages));
            space.protect(cpu.token(), range, Rights::READ).expect("mapped");
            assert_eq!(cpu.store(victim, 0u64), Err(FaultError::Denied), "TB-04");
            (0..pages).for_each(|page| assert_eq!(cpu.load::<u64>(of(page)), Ok(round << 8 | page)));
            space.protect(cpu.token(), range, Rights::NONE).expect("mapped");
            assert_eq!(cpu.load::<u8>(victim), Err(FaultError::Denied));
            space.protect(cpu.token(), range, Rights::READ | Rights::WRITE).expect("mapped");
            assert_eq!(cpu.load::<u64>(of(pages - 1)), Ok(round << 8 | (pages - 1)));
            space.unmap(cpu.token(), range).expect("mapped");
            // Another thread may have mapped the place anew, so nothing is said about it; it is about the neighbour.
            let mine = VirtAddr::new(BASE + 8 * number as u64);
            assert_eq!(cpu.store(mine, round), Ok(()), "VM-05: always mapped");
            assert_eq!(cpu.load::<u64>(mine), Ok(round));
        }
    });
    crowd.end();
}

/// One thread takes rights and pages away in a loop, the others store: nothing changes while it may not (TB-04, VM-04).
#[test]
fn no_store_through_a_stale_translation() {
    let rounds = 150 * env("FAULTLESS_ROUNDS", 1);
    let mut crowd = Crowd::new(Barriers::Best);
    crowd.map(BASE, 4);
    let (done, faults) = (AtomicBool::new(false), AtomicU64::new(0));
    crowd.all(|number, cpu, space| {
        let range = PageRange::with_len(page(0), 4 * PAGE).expect("aligned");
        if number != 0 {
            let mut value = number as u64;
            while !done.load(Ordering::Relaxed) {
                value += 8;
                let at = VirtAddr::new(page(value / 8 % 4).as_u64() + 8 * number as u64);
                if cpu.store(at, value).is_err() {
                    faults.fetch_add(1, Ordering::Relaxed);
                }
            }
            return;
        }
        let look = |cpu: &mut HostedCpu<Fast>| {
            let words = (0..4).flat_map(|number| (1..THREADS as u64).map(move |w| page(number).as_u64() + 8 * w));
            words.map(|at| cpu.load::<u64>(VirtAddr::new(at)).expect("readable")).collect::<Vec<_>>()
        };
        for round in 0..rounds {
            space.protect(cpu.token(), range, Rights::READ).expect("mapped");
            let before = look(cpu);
            (0..20).for_each(|_| thread::yield_now());
            assert_eq!(look(cpu), before, "round {round}: a store after mprotect had returned");
            space.protect(cpu.token(), range, Rights::READ | Rights::WRITE).expect("mapped");
            if round % 3 == 0 {
                space.unmap(cpu.token(), range).expect("mapped");
                assert_eq!(cpu.load::<u8>(page(1)), Err(FaultError::Unmapped));
                let request = MapRequest { rights: Rights::READ, ..MapRequest::anonymous(4 * PAGE) };
                space.map(cpu.token(), request.fixed(page(0))).expect("room");
                assert!(look(cpu).iter().all(|word| *word == 0), "round {round}: a store after munmap had returned");
                space.protect(cpu.token(), range, Rights::READ | Rights::WRITE).expect("mapped");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(faults.into_inner() > 0, "nobody ran into the closed door: the test shows nothing");
    crowd.end();
}

/// Fork while others fault and store: the child is a snapshot, and stays one (FK-06, I-WR).
#[test]
fn fork_while_others_store() {
    let rounds = 40 * env("FAULTLESS_ROUNDS", 1);
    const PAGES: u64 = 12;
    let mut crowd = Crowd::new(Barriers::Best);
    crowd.map(BASE, PAGES);
    let done = AtomicBool::new(false);
    crowd.all(|number, cpu, space| {
        let lane = |page_number: u64, lane: usize| VirtAddr::new(page(page_number).as_u64() + 8 * lane as u64);
        if number != 0 {
            // Counts up through all pages: at any instant, counts do not increase from page to page.
            let mut count = 0u64;
            while !done.load(Ordering::Relaxed) {
                count += 1;
                (0..PAGES).for_each(|page| assert_eq!(cpu.store(lane(page, number), count), Ok(())));
            }
            return;
        }
        for round in 0..rounds {
            let child = Arc::new(space.fork(cpu.token()).expect("memory"));
            let read = |cpu: &mut HostedCpu<Fast>| {
                let mut words = [[0u64; THREADS]; PAGES as usize];
                for (page, words) in words.iter_mut().enumerate() {
                    for (writer, word) in words.iter_mut().enumerate().skip(1) {
                        let mut bytes = [0; 8];
                        child.read(cpu.token(), lane(page as u64, writer), &mut bytes).expect("mapped");
                        *word = u64::from_le_bytes(bytes);
                    }
                }
                words
            };
            let first = read(cpu);
            for writer in 1..THREADS {
                for pair in first.windows(2) {
                    let (here, next) = (pair[0][writer], pair[1][writer]);
                    assert!(here == next || here == next + 1, "round {round}: fork is atomic per page: {first:?}");
                }
            }
            cpu.run(&child);
            assert_eq!(cpu.store(lane(0, 0), round), Ok(()), "a store of the child");
            assert_eq!(read(cpu), first, "round {round}: a store of the parent after fork had returned");
            cpu.run(space);
            assert_ne!(cpu.load::<u64>(lane(0, 0)), Ok(round + 1), "a store of the child in the parent");
            child.exit(cpu.token());
        }
        done.store(true, Ordering::Relaxed);
    });
    crowd.end();
}

/// Many threads grow one stack: all succeed (VM-08).
#[test]
fn a_stack_grows_under_many_threads() {
    let mut crowd = Crowd::new(Barriers::Best);
    let top = BASE + (64 << 20);
    let request =
        MapRequest { flags: faultless::AreaFlags::GROWS_DOWN, ..MapRequest::anonymous(PAGE).fixed(VirtAddr::new(top)) };
    crowd.space.map(crowd.cpus[0].token(), request).expect("room");
    crowd.all(|number, cpu, space| {
        for depth in 1..200u64 {
            let at = VirtAddr::new(top - depth * PAGE + 8 * number as u64);
            assert_eq!(cpu.store(at, depth), Ok(()), "the loser of grow against grow succeeds");
        }
        assert_eq!(space.fault(cpu.token(), VirtAddr::new(BASE), Access::Read), Err(FaultError::Unmapped));
    });
    assert_eq!(crowd.space.usage().anon, 199);
    crowd.end();
}
