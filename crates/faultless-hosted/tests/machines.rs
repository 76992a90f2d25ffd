//! The machines themselves: context switches, translations that outlive what they should not, many CPUs.

use faultless::{Access, CpuId, FaultError, Layout, Machine, MapRequest, PageRange, Rights, Space, VirtAddr, Vm};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Hostile, HostileConfig, Mmu};
use std::sync::Arc;

const PAGE: u64 = 4096;
const AT: VirtAddr = VirtAddr::new(0x20_0000);

fn fast(cpus: usize) -> Vm<Fast> {
    Vm::new(Fast::new(FastConfig::new(4096, cpus)).expect("an arena")).expect("a machine")
}

fn hostile(seed: u64) -> Vm<Hostile> {
    Vm::new(Hostile::new(HostileConfig::new(1024, 2, seed)).expect("an arena")).expect("a machine")
}

fn cpu<M: Mmu>(vm: &Vm<M>, id: u32) -> HostedCpu<M> {
    HostedCpu::new(vm, CpuId::new(id)).expect("a CPU")
}

fn space<M: Mmu>(vm: &Vm<M>, cpu: &mut HostedCpu<M>) -> Arc<Space<M>> {
    let space = vm.new_space(cpu.token(), Layout::linux()).expect("memory");
    space.map(cpu.token(), MapRequest::anonymous(4 * PAGE).fixed(AT)).expect("room");
    Arc::new(space)
}

/// The same address in two spaces, in turn on one CPU: nothing of one is seen in the other.
fn switches<M: Mmu>(vm: &Vm<M>) {
    let mut cpu = cpu(vm, 0);
    let spaces = [space(vm, &mut cpu), space(vm, &mut cpu)];
    for round in 0..20u64 {
        for (number, space) in spaces.iter().enumerate() {
            cpu.run(space);
            if round > 0 {
                assert_eq!(cpu.load::<u64>(AT), Ok((round - 1) * 2 + number as u64));
            }
            cpu.store(AT, round * 2 + number as u64).expect("mapped");
        }
    }
    cpu.stop();
    assert_eq!(cpu.load::<u8>(AT), Err(FaultError::Unmapped), "a CPU that runs nothing has no memory");
    spaces.iter().for_each(|space| space.exit(cpu.token()));
    assert_eq!(vm.audit(cpu.token(), &[], &[]), Ok(()));
}

#[test]
fn a_context_switch_changes_everything() {
    switches(&fast(1));
    (0..4).for_each(|seed| switches(&hostile(seed)));
}

/// What one CPU unmaps or protects, no other can use, though it has it cached and did nothing meanwhile.
fn shoots_down<M: Mmu>(vm: &Vm<M>, far: u32) {
    let (mut near, mut far) = (cpu(vm, 0), cpu(vm, far));
    let space = space(vm, &mut near);
    near.run(&space);
    far.run(&space);
    let page = PageRange::page(AT);
    far.store(AT, 1u64).expect("mapped");
    space.protect(near.token(), page, Rights::READ).expect("mapped");
    assert_eq!(far.store(AT, 2u64), Err(FaultError::Denied));
    assert_eq!(far.load::<u64>(AT), Ok(1));
    space.protect(near.token(), page, Rights::READ | Rights::WRITE).expect("mapped");
    assert_eq!(far.store(AT, 3u64), Ok(()));
    let child = space.fork(near.token()).expect("memory");
    far.store(AT, 4u64).expect("mapped");
    let mut bytes = [0; 8];
    child.read(near.token(), AT, &mut bytes).expect("mapped");
    assert_eq!(u64::from_le_bytes(bytes), 3, "a store after fork stays in the parent");
    space.unmap(near.token(), page).expect("mapped");
    assert_eq!(far.load::<u64>(AT), Err(FaultError::Unmapped));
    assert_eq!(far.execute(AT), Err(FaultError::Unmapped));
    near.stop();
    far.stop();
    child.exit(near.token());
    space.exit(near.token());
}

#[test]
fn idle_cpus_are_shot_down() {
    shoots_down(&fast(2), 1);
    shoots_down(&fast(200), 199);
    (0..8).for_each(|seed| shoots_down(&hostile(seed), 1));
}

#[test]
fn words_cross_pages() {
    let vm = fast(1);
    let mut cpu = cpu(&vm, 0);
    let space = space(&vm, &mut cpu);
    cpu.run(&space);
    let across = VirtAddr::new(AT.as_u64() + PAGE - 3);
    cpu.store(across, 0x1122_3344_5566_7788u64).expect("mapped");
    assert_eq!(cpu.load::<u64>(across), Ok(0x1122_3344_5566_7788));
    assert_eq!(cpu.load::<u16>(VirtAddr::new(AT.as_u64() + PAGE - 1)), Ok(0x5566));
    let last = VirtAddr::new(AT.as_u64() + 4 * PAGE - 2);
    assert_eq!(cpu.load::<u32>(last), Err(FaultError::Unmapped));
    let error = cpu.write(VirtAddr::new(last.as_u64() - 3), &[9; 8]).expect_err("the second page is not there");
    assert_eq!((error.done, error.fault), (5, FaultError::Unmapped));
    assert_eq!(cpu.load::<u16>(last), Ok(0x0909), "what came before is stored");
    for wild in [1 << 47, 1 << 63, u64::MAX, u64::MAX - 3] {
        assert_eq!(cpu.load::<u64>(VirtAddr::new(wild)), Err(FaultError::Unmapped), "{wild:#x}");
        assert_eq!(cpu.store(VirtAddr::new(wild), 1u8), Err(FaultError::Unmapped), "{wild:#x}");
    }
    cpu.stop();
    space.exit(cpu.token());
}

#[test]
fn a_store_through_another_space_is_seen_at_once() {
    let vm = fast(2);
    let (mut inside, mut outside) = (cpu(&vm, 0), cpu(&vm, 1));
    let space = space(&vm, &mut inside);
    inside.run(&space);
    assert_eq!(inside.load::<u64>(AT), Ok(0), "the zero frame is cached now");
    space.write(outside.token(), AT, &7u64.to_le_bytes()).expect("mapped");
    assert_eq!(inside.load::<u64>(AT), Ok(7), "CW-04");
    inside.stop();
    space.exit(inside.token());
}

#[test]
fn faults_count_once_and_spurious_ones_are_minor() {
    let vm = hostile(3);
    let mut cpu = cpu(&vm, 0);
    let space = space(&vm, &mut cpu);
    let before = space.usage().minor;
    space.fault(cpu.token(), AT, Access::Write).expect("mapped");
    space.fault(cpu.token(), AT, Access::Write).expect("spurious");
    assert_eq!((space.usage().minor - before, space.usage().major), (2, 0), "AC-05");
    assert_eq!(vm.stats().get("fault_spurious"), 1);
    space.exit(cpu.token());
}

#[test]
fn a_cpu_is_had_once() {
    let vm = fast(1);
    let first = cpu(&vm, 0);
    assert!(HostedCpu::new(&vm, CpuId::new(0)).is_err());
    assert!(HostedCpu::new(&vm, CpuId::new(1)).is_err());
    drop(first);
    assert!(HostedCpu::new(&vm, CpuId::new(0)).is_ok());
    assert_eq!(vm.machine().cpus(), 1);
}
