//! Large pages under threads: one splits, collapses, shares and pins them while the others store, and no store is lost
//! (HT-02, HT-04, GU-10).
//!
//! Environment: `FAULTLESS_ROUNDS` (default 1) multiplies the work, `FAULTLESS_SEED` chooses another run.

mod common;

use common::replay::env;
use faultless::{Access, AreaFlags, CpuId, HugePages, Layout, MapRequest, PageRange, Rights, Space, VirtAddr, Vm};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Rng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PAGE: u64 = 4096;
const LARGE: u64 = 512;
const PAGES: u64 = 2 * LARGE;
const THREADS: u64 = 4;
const BASE: u64 = 0x1000_0000_0000;

fn range(page: u64, pages: u64) -> PageRange {
    PageRange::with_len(VirtAddr::new(BASE + page * PAGE), pages * PAGE).expect("aligned")
}

/// Stores to lane `lane` of random pages, and finds there what it stored last.
fn store(cpu: &mut HostedCpu<Fast>, lane: u64, done: &AtomicBool, seed: u64) {
    let mut rng = Rng::new(seed ^ lane);
    let mut last = [0u64; PAGES as usize];
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let page = rng.below(PAGES);
        let at = VirtAddr::new(BASE + page * PAGE + 8 * lane);
        assert_eq!(cpu.load::<u64>(at), Ok(last[page as usize]), "seed {seed}: page {page}, lane {lane}");
        count += 1;
        last[page as usize] = count;
        assert_eq!(cpu.store(at, count), Ok(()));
    }
    for (page, last) in last.into_iter().enumerate() {
        let at = VirtAddr::new(BASE + page as u64 * PAGE + 8 * lane);
        assert_eq!(cpu.load::<u64>(at), Ok(last), "seed {seed}: page {page}, lane {lane} at the end");
    }
}

/// One operation that changes how the pages are mapped and nothing of what they hold.
fn disturb(cpu: &mut HostedCpu<Fast>, space: &Space<Fast>, rng: &mut Rng) {
    let (page, count) = (rng.below(PAGES - 20), rng.range(1, 20));
    let (some, large) = (range(page, count), range(rng.below(2) * LARGE, LARGE));
    let rw = Rights::READ | Rights::WRITE;
    match rng.below(8) {
        0..3 => {
            // One area again, or there is nothing that a large page would fit in.
            space.protect(cpu.token(), range(0, PAGES), rw).expect("memory");
            space
                .set_flags(cpu.token(), range(0, PAGES), AreaFlags::NONE, AreaFlags::NO_DUMP, |_| true)
                .expect("memory");
            let _busy = space.collapse(cpu.token(), if rng.once_in(2) { large } else { range(0, PAGES) });
        }
        3 => {
            let rights = if rng.once_in(2) { rw } else { rw | Rights::EXECUTE };
            let part = if rng.once_in(2) { some } else { large };
            space.protect(cpu.token(), part, rights).expect("memory");
        }
        4 => {
            let child = space.fork(cpu.token()).expect("memory");
            if rng.once_in(2) {
                child.write(cpu.token(), some.start(), &[1]).expect("mapped");
            }
            child.exit(cpu.token());
        }
        5 => drop(space.pin(cpu.token(), some, if rng.once_in(2) { Access::Read } else { Access::Write })),
        6 => {
            let (set, clear) = (AreaFlags::NO_DUMP, AreaFlags::NONE);
            let (set, clear) = if rng.once_in(2) { (set, clear) } else { (clear, set) };
            space.set_flags(cpu.token(), some, set, clear, |_| true).expect("memory");
        }
        _ => space.free_lazily(cpu.token(), large).expect("mapped"),
    }
}

#[test]
fn no_store_is_lost_whatever_the_size() {
    let (rounds, seed) = (400 * env("FAULTLESS_ROUNDS", 1), env("FAULTLESS_SEED", 1));
    let vm = Vm::new(Fast::new(FastConfig::new(24 * LARGE, THREADS as usize)).expect("an arena")).expect("a machine");
    let mut cpus: Vec<_> = (0..THREADS as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
    vm.set_huge_pages(cpus[0].token(), HugePages::Always);
    let space = vm.new_space(cpus[0].token(), Layout::linux()).expect("memory");
    let space = std::sync::Arc::new(space);
    let request = MapRequest::anonymous(PAGES * PAGE).fixed(VirtAddr::new(BASE));
    space.map(cpus[0].token(), request).expect("room");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for (lane, cpu) in cpus.iter_mut().enumerate() {
            let (space, done) = (&space, &done);
            scope.spawn(move || {
                cpu.run(space);
                if lane == 0 {
                    let mut rng = Rng::new(seed);
                    (0..rounds).for_each(|_| disturb(cpu, space, &mut rng));
                    done.store(true, Ordering::Relaxed);
                } else {
                    store(cpu, lane as u64, done, seed);
                }
                cpu.stop();
            });
        }
    });
    let stats = vm.stats();
    let (made, split) = (stats.get("fault_huge") + stats.get("huge_collapses"), stats.get("huge_splits"));
    assert!(made > 10 && split > 10, "{made} made, {split} split: the test shows nothing");
    let audit = |cpus: &mut Vec<HostedCpu<Fast>>, spaces: &[&Space<Fast>]| {
        cpus.iter_mut().for_each(|cpu| {
            cpu.token().collect();
        });
        assert_eq!(vm.audit(cpus[0].token(), spaces, &[]), Ok(()));
    };
    audit(&mut cpus, &[&space]);
    space.exit(cpus[0].token());
    audit(&mut cpus, &[]);
    assert_eq!((vm.huge_entries(), vm.stats().get("fault_table_locks")), (0, 0));
}
