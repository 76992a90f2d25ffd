//! Large pages of the pool under threads: some make, copy, move, share and let go what the others store to, and no store
//! is lost, no promise broken, no page of the pool missing (HT-01, HT-02, HT-04, GU-10).
//!
//! Environment: `FAULTLESS_ROUNDS` (default 1) multiplies the work, `FAULTLESS_SEED` chooses another run.

mod common;

use common::replay::env;
use faultless::{
    Access, AreaFlags, Backing, CpuId, HugePool, Layout, MapRequest, Object, PageRange, Rights, Sharing, Space,
    VirtAddr, Vm,
};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Rng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PAGE: u64 = 4096;
const LARGE: u64 = 512;
const BYTES: u64 = LARGE * PAGE;
/// Large pages of each mapping: private, shared, and a place that is mapped anew all the time.
const EACH: u64 = 2;
const THREADS: u64 = 4;
/// The mappings' own, a copy of each private one for a child, and some for the third place: what was there may be kept by
/// areas that were just retired.
const POOL: u64 = 2 * EACH + EACH + 8;
const BASE: u64 = 0x1000_0000_0000;
const PRIVATE: u64 = 0;
const SHARED: u64 = EACH;
const THIRD: u64 = 2 * EACH;

fn at(large: u64) -> VirtAddr {
    VirtAddr::new(BASE + large * BYTES)
}

fn range(large: u64, count: u64) -> PageRange {
    PageRange::with_len(at(large), count * BYTES).expect("aligned")
}

fn map(cpu: &mut HostedCpu<Fast>, space: &Space<Fast>, object: &Arc<Object<Fast>>, large: u64, sharing: Sharing) {
    let backing = Backing::Object { object: Arc::clone(object), offset: 0 };
    let request = MapRequest { sharing, backing, ..MapRequest::anonymous(object.size()).fixed(at(large)) };
    space.map(cpu.token(), request).expect("promised");
}

/// Stores to lane `lane` of random pages, and finds there what it stored last.
fn store(cpu: &mut HostedCpu<Fast>, lane: u64, done: &AtomicBool, seed: u64) {
    let mut rng = Rng::new(seed ^ lane);
    let mut last = vec![0u64; (2 * EACH * LARGE) as usize];
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let page = rng.below(2 * EACH * LARGE);
        let at = VirtAddr::new(BASE + page * PAGE + 8 * lane);
        assert_eq!(cpu.load::<u64>(at), Ok(last[page as usize]), "seed {seed}: page {page}, lane {lane}");
        count += 1;
        last[page as usize] = count;
        assert_eq!(cpu.store(at, count), Ok(()), "seed {seed}: page {page}, lane {lane}");
    }
    for (page, last) in last.into_iter().enumerate() {
        let at = VirtAddr::new(BASE + page as u64 * PAGE + 8 * lane);
        assert_eq!(cpu.load::<u64>(at), Ok(last), "seed {seed}: page {page}, lane {lane} at the end");
    }
}

/// Races for the page at the third place, which comes and goes: it is there, or nothing is.
fn race(cpu: &mut HostedCpu<Fast>, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let _ = cpu.store(at(THIRD), 1u64);
        let _ = cpu.load::<u64>(VirtAddr::new(at(THIRD).as_u64() + 5 * PAGE));
    }
}

/// One operation that changes how the pages are mapped and nothing of what the first two mappings hold.
fn disturb(cpu: &mut HostedCpu<Fast>, space: &Space<Fast>, vm: &Vm<Fast>, rng: &mut Rng) {
    let rw = Rights::READ | Rights::WRITE;
    let large = rng.below(2 * EACH);
    match rng.below(8) {
        0 => {
            space.protect(cpu.token(), range(large, 1), rw | Rights::EXECUTE).expect("memory");
            space.protect(cpu.token(), range(0, 2 * EACH), rw).expect("memory");
        }
        1..3 => {
            let child = space.fork(cpu.token()).expect("memory");
            child.write(cpu.token(), at(PRIVATE + rng.below(EACH)), &[1]).expect("a page for the copy");
            child.exit(cpu.token());
        }
        3 => {
            let some = PageRange::with_len(VirtAddr::new(at(SHARED).as_u64() + rng.below(LARGE) * PAGE), 3 * PAGE);
            drop(space.pin(cpu.token(), some.expect("aligned"), Access::Write));
        }
        4 => space.discard(cpu.token(), range(SHARED, EACH), false).expect("mapped"),
        5 => space.clear_refs(cpu.token(), faultless::ClearRefs::SoftDirty).expect("memory"),
        6 => drop(space.unmap(cpu.token(), range(THIRD, 1))),
        _ => {
            let object = vm.new_huge_memory(BYTES, "third").expect("memory");
            let sharing = if rng.once_in(2) { Sharing::Private } else { Sharing::Shared };
            let _ = space.unmap(cpu.token(), range(THIRD, 1));
            let backing = Backing::Object { object, offset: 0 };
            let flags = AreaFlags::NO_RESERVE;
            let request = MapRequest { sharing, backing, flags, ..MapRequest::anonymous(BYTES).fixed(at(THIRD)) };
            space.map(cpu.token(), request).expect("memory");
        }
    }
}

#[test]
fn no_store_is_lost_and_no_page_of_the_pool() {
    let (rounds, seed) = (300 * env("FAULTLESS_ROUNDS", 1), env("FAULTLESS_SEED", 1));
    let config = FastConfig::new((POOL + 6) * LARGE, THREADS as usize);
    let vm = Vm::new(Fast::new(config).expect("an arena")).expect("a machine");
    let mut cpus: Vec<_> = (0..THREADS as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
    let pool = vm.set_huge_pool(cpus[0].token(), POOL);
    assert_eq!(pool.total, POOL, "frames in a row");
    let space = Arc::new(vm.new_space(cpus[0].token(), Layout::linux()).expect("memory"));
    for (large, sharing) in [(PRIVATE, Sharing::Private), (SHARED, Sharing::Shared)] {
        let object = vm.new_huge_memory(EACH * BYTES, "m").expect("memory");
        map(&mut cpus[0], &space, &object, large, sharing);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for (lane, cpu) in cpus.iter_mut().enumerate() {
            let (space, done, vm) = (&space, &done, &vm);
            scope.spawn(move || {
                cpu.run(space);
                match lane {
                    0 => {
                        let mut rng = Rng::new(seed);
                        (0..rounds).for_each(|_| disturb(cpu, space, vm, &mut rng));
                        done.store(true, Ordering::Relaxed);
                    }
                    1 => race(cpu, done),
                    _ => store(cpu, lane as u64, done, seed),
                }
                cpu.stop();
            });
        }
    });
    let stats = vm.stats();
    let (made, copied) = (stats.get("fault_hugetlb"), stats.get("slow_huge_copy"));
    assert!(made > 10 && copied > 10, "{made} made, {copied} copied: the test shows nothing");
    assert_eq!(stats.get("huge_splits"), 0, "seed {seed}");
    assert_eq!(stats.get("fault_space_locks") + stats.get("fault_table_locks"), 0, "F-01");
    space.exit(cpus[0].token());
    cpus.iter_mut().for_each(|cpu| {
        // Ends: nobody is in a section.
        while !cpu.token().collect() {}
    });
    let mut tokens: Vec<_> = cpus.iter_mut().map(HostedCpu::token).collect();
    vm.audit_all(&mut tokens, &[], &[]).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let left = HugePool { total: POOL, free: POOL, ..HugePool::default() };
    assert_eq!(vm.huge_pool(), left, "seed {seed}: something of the pool is lost");
}
