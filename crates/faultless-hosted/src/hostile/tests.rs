//! The hostility itself: what is kept, what is put off, and that runs end.

use super::*;
use crate::HostedCpu;
use faultless::{Layout, MapRequest, PageRange, Scope, Space, Vm};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const AT: VirtAddr = VirtAddr::new(0x40_0000);
const PAGE: u64 = 4096;

fn vm(config: HostileConfig) -> Vm<Hostile> {
    Vm::new(Hostile::new(config).expect("an arena")).expect("a machine")
}

fn space(vm: &Vm<Hostile>, cpu: &mut HostedCpu<Hostile>) -> Arc<Space<Hostile>> {
    let space = Arc::new(vm.new_space(cpu.token(), Layout::linux()).expect("memory"));
    space.map(cpu.token(), MapRequest::anonymous(4 * PAGE).fixed(AT)).expect("room");
    cpu.run(&space);
    space
}

/// The leaf entry of `AT`.
fn entry<'m>(machine: &'m Hostile, space: &Space<Hostile>) -> &'m AtomicEntry {
    let mut table = space.root();
    for level in (1..4).rev() {
        let word =
            machine.arena.table(table)[crate::walk::index(AT, level)].load(core::sync::atomic::Ordering::Relaxed);
        table = crate::entry::Entry(word).frame();
    }
    &machine.arena.table(table)[crate::walk::index(AT, 0)]
}

#[test]
fn a_translation_is_used_until_it_is_flushed() {
    for seed in 0..20 {
        let vm = vm(HostileConfig::new(256, 1, seed));
        let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).expect("a CPU");
        let space = space(&vm, &mut cpu);
        cpu.store(AT, 7u64).expect("mapped");
        let (machine, id) = (vm.machine(), CpuId::new(0));
        let saved = entry(machine, &space).swap(0, core::sync::atomic::Ordering::SeqCst);
        for _ in 0..5 {
            let load = |arena: &Arena, frame, offset| arena.load::<u64>(frame, offset);
            assert_eq!(machine.with_page(id, AT, Access::Read, load), Ok(7), "the TLB has it");
        }
        let flush = Flush { root: space.root(), scope: Scope::Pages(PageRange::page(AT)) };
        machine.flush_local(id, &flush);
        assert_eq!(machine.with_page(id, AT, Access::Read, |_, _, _| ()), Err(PageFault::NotPresent));
        entry(machine, &space).store(saved, core::sync::atomic::Ordering::SeqCst);
        cpu.stop();
        space.exit(cpu.token());
    }
}

#[test]
fn a_stale_writable_translation_may_set_the_dirty_bit() {
    use core::sync::atomic::Ordering::SeqCst;
    const WRITE_AND_DIRTY: u64 = 1 << 1 | 1 << 6;
    let sets = |seed| {
        let vm = vm(HostileConfig::new(256, 1, seed));
        let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).expect("a CPU");
        let space = space(&vm, &mut cpu);
        cpu.store(AT, 7u64).expect("mapped");
        let (machine, id) = (vm.machine(), CpuId::new(0));
        // The CPU caches the page writable and clean, then the entry loses write permission.
        entry(machine, &space).fetch_and(!(1 << 6), SeqCst);
        machine.flush_local(id, &Flush { root: space.root(), scope: Scope::All });
        machine.with_page(id, AT, Access::Read, |_, _, _| ()).expect("mapped");
        entry(machine, &space).fetch_and(!WRITE_AND_DIRTY, SeqCst);
        let stored = machine.with_page(id, AT, Access::Write, |_, _, _| ()).is_ok();
        let dirty = entry(machine, &space).load(SeqCst) & 1 << 6 != 0;
        assert_eq!(stored, dirty, "no store without the dirty bit");
        entry(machine, &space).fetch_or(WRITE_AND_DIRTY, SeqCst);
        cpu.stop();
        space.exit(cpu.token());
        stored
    };
    let count = (0..40).filter(|seed| sets(*seed)).count();
    assert!((5..35).contains(&count), "sometimes it does, sometimes it faults: {count}");
}

#[test]
fn the_nth_allocation_fails() {
    let vm = vm(HostileConfig::new(256, 1, 1));
    let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).expect("a CPU");
    let space = space(&vm, &mut cpu);
    cpu.store(AT, 1u8).expect("mapped");
    let page = |number: u64| VirtAddr::new(AT.as_u64() + number * PAGE);
    vm.machine().fail_allocation_after(1, Failing::AllFromThenOn);
    assert_eq!(cpu.store(page(1), 1u8), Ok(()));
    assert_eq!(cpu.store(page(2), 1u8), Err(faultless::FaultError::OutOfMemory));
    assert_eq!(cpu.store(page(2), 1u8), Err(faultless::FaultError::OutOfMemory));
    assert!(vm.machine().fail_no_allocation());
    assert_eq!(cpu.store(page(2), 1u8), Ok(()));
    vm.machine().fail_allocation_after(0, Failing::Once);
    assert_eq!(cpu.store(page(3), 1u8), Ok(()), "a fault asks twice");
    assert!(vm.machine().fail_no_allocation());
    vm.machine().fail_allocation_after(0, Failing::Once);
    assert!(!vm.machine().fail_no_allocation());
    cpu.stop();
    space.exit(cpu.token());
}

#[test]
fn a_panic_of_one_body_ends_the_run() {
    for seed in 0..8 {
        let machine = Hostile::new(HostileConfig::new(64, 3, seed)).expect("an arena");
        let run = || {
            let wait = |cpu: u32| -> Body<'_> {
                let machine = &machine;
                Box::new(move || {
                    loop {
                        machine.relax(CpuId::new(cpu));
                    }
                })
            };
            let fail: Body<'_> = Box::new(|| {
                machine.relax(CpuId::new(2));
                panic!("by design");
            });
            machine.run(vec![(CpuId::new(0), wait(0)), (CpuId::new(1), wait(1)), (CpuId::new(2), fail)]);
        };
        let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("a body panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"by design"));
        machine.run(vec![(CpuId::new(1), Box::new(|| machine.relax(CpuId::new(1))))]);
        assert_eq!(machine.now(), 0, "the next run works, and has ended");
    }
}

#[test]
fn a_run_that_does_not_end_is_stopped() {
    let config = HostileConfig { most_steps: 500, ..HostileConfig::new(64, 2, 0) };
    let machine = Hostile::new(config).expect("an arena");
    let spin = |cpu: u32| -> Body<'_> {
        let machine = &machine;
        Box::new(move || {
            loop {
                machine.relax(CpuId::new(cpu));
            }
        })
    };
    let run = || machine.run(vec![(CpuId::new(0), spin(0)), (CpuId::new(1), spin(1))]);
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("stopped");
    assert!(payload.downcast_ref::<String>().is_some_and(|text| text.starts_with("no progress: seed 0")));
}

#[test]
fn interrupts_are_put_off_and_taken() {
    for seed in 0..30 {
        let machine = Hostile::new(HostileConfig::new(64, 2, seed)).expect("an arena");
        let flush = Flush { root: FrameId::new(1), scope: Scope::All };
        let mut targets = CpuSet::new();
        targets.insert(CpuId::new(1));
        let asks: Body<'_> = Box::new(|| machine.flush_remote(CpuId::new(0), &targets, &flush));
        let works: Body<'_> = Box::new(|| {
            // User code without a single system call.
            for _ in 0..50 {
                assert_eq!(
                    machine.with_page(CpuId::new(1), AT, Access::Read, |_, _, _| ()),
                    Err(PageFault::NotPresent)
                );
            }
        });
        machine.run(vec![(CpuId::new(0), asks), (CpuId::new(1), works)]);
    }
}

#[test]
fn somebody_walks_where_nobody_asked() {
    let config = HostileConfig { speculate: 1, ..HostileConfig::new(256, 2, 9) };
    let vm = vm(config);
    let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).expect("a CPU");
    let space = space(&vm, &mut cpu);
    let word = |page: u64| VirtAddr::new(AT.as_u64() + page * PAGE);
    (0..4).for_each(|page| cpu.store(word(page), page).expect("mapped"));
    vm.machine().load_root(CpuId::new(0), Some(space.root()));
    let accessed = 1 << 5;
    entry(vm.machine(), &space).fetch_and(!accessed, core::sync::atomic::Ordering::SeqCst);
    vm.machine().run(vec![(CpuId::new(0), Box::new(|| (0..200).for_each(|_| vm.machine().relax(CpuId::new(0)))))]);
    let after = entry(vm.machine(), &space).load(core::sync::atomic::Ordering::SeqCst);
    assert_eq!(after & accessed, accessed, "a speculative walk has set the accessed bit");
    cpu.stop();
    space.exit(cpu.token());
}
