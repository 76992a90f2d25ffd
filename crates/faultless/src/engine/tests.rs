//! Whole operations on one CPU: what they do, what they cost in flushes and copies, and what a failure leaves behind.

mod advise;
mod audit;
mod extent;
mod failures;
mod holes;
mod huge;
mod hugetlb;
mod machine;
mod mappings;
mod nonlinear;
mod pins;
mod promises;
mod raw;
mod remap;
mod sharing;
mod views;
mod watch;
mod writeback;

use crate::{Access, Cpu, CpuId, Layout, MapRequest, PAGE_SIZE, PageRange, Rights, Space, VirtAddr, Vm};
use machine::TestMachine;

/// One CPU, one space, some frames.
struct Bench {
    vm: Vm<TestMachine>,
    cpu: Cpu<TestMachine>,
    space: Space<TestMachine>,
}

const RW: fn() -> Rights = || Rights::READ | Rights::WRITE;
const BASE: u64 = 0x4000_0000;

impl Bench {
    fn new(frames: u64) -> Self {
        let vm = Vm::new(TestMachine::new(frames)).unwrap();
        let mut cpu = vm.cpu(CpuId::new(0)).unwrap();
        let space = vm.new_space(&mut cpu, Layout::linux()).unwrap();
        space.activate(&mut cpu);
        Self { vm, cpu, space }
    }

    /// Maps `pages` of private anonymous memory at `BASE + page * 4096`.
    fn map(&mut self, page: u64, pages: u64) -> VirtAddr {
        self.space.map(&mut self.cpu, MapRequest::anonymous(pages * PAGE_SIZE).fixed(at(page))).unwrap()
    }

    fn touch(&mut self, page: u64) {
        self.space.fault(&mut self.cpu, at(page), Access::Write).unwrap();
    }

    fn put(&mut self, page: u64, byte: u8) {
        self.space.write(&mut self.cpu, at(page), &[byte]).unwrap();
    }

    fn byte(&mut self, page: u64) -> u8 {
        get(&self.space, &mut self.cpu, page)
    }

    fn stat(&self, name: &str) -> u64 {
        self.vm.stats().get(name)
    }

    /// Everything is counted right; then everything goes, and no frame is missing.
    fn finish(mut self, others: &[&Space<TestMachine>]) {
        let mut spaces = std::vec![&self.space];
        spaces.extend(others);
        self.vm.audit(&mut self.cpu, &spaces, &[]).unwrap_or_else(|error| panic!("{error}"));
        self.space.deactivate(&mut self.cpu);
        spaces.iter().for_each(|space| space.exit(&mut self.cpu));
        self.vm.audit(&mut self.cpu, &[], &[]).unwrap_or_else(|error| panic!("{error}"));
        drop(self.cpu);
        let stats = self.vm.stats();
        assert_eq!(stats.free_frames, stats.total_frames - 1, "all but the zero frame are free again");
        assert_eq!(stats.get("fault_table_locks") + stats.get("fault_space_locks"), 0, "F-01");
    }
}

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE)
}

fn range(page: u64, pages: u64) -> PageRange {
    PageRange::with_len(at(page), pages * PAGE_SIZE).unwrap()
}

fn get(space: &Space<TestMachine>, cpu: &mut Cpu<TestMachine>, page: u64) -> u8 {
    let mut byte = [0];
    space.read(cpu, at(page), &mut byte).unwrap();
    byte[0]
}
