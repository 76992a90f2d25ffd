//! Interleavings of two operations on one space or object, each forced by a hook of the machine: what one operation
//! finds when another runs in its middle, and what is counted afterwards.

mod access;
mod exit;
mod fork;
mod machine;
mod misuse;
mod strays;
mod truncate;

use crate::{Access, Backing, Cpu, CpuId, Layout, MapRequest, Object, PageRange, Sharing, Space, VirtAddr, Vm};
use machine::{CPUS, Words};
use std::sync::Arc;
use std::vec::Vec;

/// Pages in a stripe of the address space.
const STRIPE: u64 = 1 << (41 - 12);

/// A machine and the tokens of its CPUs.
fn boot() -> (Vm<Words>, Vec<Cpu<Words>>) {
    let vm = Vm::new(Words::new(1024)).unwrap();
    let cpus = (0..CPUS as u32).map(|id| vm.cpu(CpuId::new(id)).unwrap()).collect();
    (vm, cpus)
}

/// An empty space.
fn new_space(vm: &Vm<Words>, cpu: &mut Cpu<Words>) -> Arc<Space<Words>> {
    Arc::new(vm.new_space(cpu, Layout::linux()).unwrap())
}

/// The address of a page.
fn at(page: u64) -> VirtAddr {
    VirtAddr::new(page << 12)
}

fn pages(start: u64, count: u64) -> PageRange {
    PageRange::new(at(start), at(start + count)).unwrap()
}

/// Maps private anonymous pages.
fn map(space: &Space<Words>, cpu: &mut Cpu<Words>, start: u64, count: u64) {
    space.map(cpu, MapRequest::anonymous(count << 12).fixed(at(start))).unwrap();
}

/// Maps the first pages of an object.
fn map_object(
    space: &Space<Words>,
    cpu: &mut Cpu<Words>,
    start: u64,
    count: u64,
    object: &Arc<Object<Words>>,
    sharing: Sharing,
) {
    let backing = Backing::Object { object: object.clone(), offset: 0 };
    let request = MapRequest { sharing, backing, ..MapRequest::anonymous(count << 12).fixed(at(start)) };
    space.map(cpu, request).unwrap();
}

fn touch(space: &Space<Words>, cpu: &mut Cpu<Words>, page: u64) {
    space.fault(cpu, at(page), Access::Write).unwrap();
}

/// Everything is counted right.
fn audit(vm: &Vm<Words>, cpus: &mut [Cpu<Words>], spaces: &[&Space<Words>], objects: &[&Arc<Object<Words>>]) {
    for _ in 0..2 {
        cpus.iter_mut().for_each(|cpu| _ = cpu.collect());
    }
    vm.audit(&mut cpus[0], spaces, objects).unwrap_or_else(|error| panic!("{error}"));
}
