//! Tables that lie where no area is: late faults link them, the wrap guard keeps them (PL-05, AC-06).

use super::machine::{Point, Words};
use super::{STRIPE, audit, boot, map, new_space, pages, touch};
use crate::{Access, Cpu, FaultError, Rights, Space, Vm};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::vec::Vec;

/// A page whose leaf table has the same parent as those of the pages 512, 1024, ... further on.
const NEAR: u64 = 1 << 18;
/// A page far from all others.
const FAR: u64 = STRIPE;

/// Does `operation` on CPU 1 while CPU 0 stands in the section of a fault at `page`, before it allocates a table.
fn during_fault(
    vm: &Vm<Words>,
    space: &Arc<Space<Words>>,
    cpus: &mut Vec<Cpu<Words>>,
    page: u64,
    operation: impl FnOnce(&Space<Words>, &mut Cpu<Words>) + Send + 'static,
) -> Result<(), FaultError> {
    let (mut cpu, other) = (cpus.remove(1), space.clone());
    let back = Arc::new(Mutex::new(None));
    let give_back = back.clone();
    vm.machine().hook(Point::Allocate(0), 0, move || {
        operation(&other, &mut cpu);
        *give_back.lock().unwrap() = Some(cpu);
    });
    let result = space.fault(&mut cpus[0], super::at(page), Access::Write);
    cpus.insert(1, back.lock().unwrap().take().unwrap());
    result.map(drop)
}

/// A fault at `page` links its leaf table behind the unmapping of the page.
fn leave_stray(vm: &Vm<Words>, space: &Arc<Space<Words>>, cpus: &mut Vec<Cpu<Words>>, page: u64) {
    map(space, &mut cpus[0], page, 1);
    let result = during_fault(vm, space, cpus, page, move |space, cpu| space.unmap(cpu, pages(page, 1)).unwrap());
    assert_eq!(result, Err(FaultError::Unmapped));
}

/// A space with one page at `NEAR`.
fn one_page() -> (Vm<Words>, Vec<Cpu<Words>>, Arc<Space<Words>>) {
    let (vm, mut cpus) = boot();
    let space = new_space(&vm, &mut cpus[0]);
    map(&space, &mut cpus[0], NEAR, 1);
    touch(&space, &mut cpus[0], NEAR);
    (vm, cpus, space)
}

#[test]
fn a_stray_goes_with_the_table_above_it() {
    let (vm, mut cpus, space) = one_page();
    leave_stray(&vm, &space, &mut cpus, NEAR + 512);
    assert_eq!(space.usage().tables, 4);
    audit(&vm, &mut cpus, &[&space], &[]);
    space.unmap(&mut cpus[0], pages(NEAR, 1)).unwrap();
    assert_eq!(space.usage().tables, 0);
    audit(&vm, &mut cpus, &[&space], &[]);
}

#[test]
fn strays_may_be_more_than_one_flush_takes() {
    // Once with a section active elsewhere, which has every slot closed (and keeps what is retired in limbo: so not too
    // many), and once quietly.
    let (vm, mut cpus, space) = one_page();
    (1..100).for_each(|n| leave_stray(&vm, &space, &mut cpus, NEAR + n * 512));
    map(&space, &mut cpus[0], FAR, 1);
    audit(&vm, &mut cpus, &[&space], &[]);
    assert_eq!(space.usage().tables, 3 + 99);
    during_fault(&vm, &space, &mut cpus, FAR, |space, cpu| space.unmap(cpu, pages(NEAR, 1)).unwrap()).unwrap();
    assert_eq!(space.usage().tables, 3);
    map(&space, &mut cpus[0], NEAR, 1);
    touch(&space, &mut cpus[0], NEAR);
    (1..200).for_each(|n| leave_stray(&vm, &space, &mut cpus, NEAR + n * 512));
    space.unmap(&mut cpus[0], pages(NEAR, 1)).unwrap();
    assert_eq!(space.usage().tables, 3);
    audit(&vm, &mut cpus, &[&space], &[]);
}

#[test]
fn a_stray_that_a_fork_shared_stays_with_the_other_space() {
    for quietly in [false, true] {
        let (vm, mut cpus, parent) = one_page();
        leave_stray(&vm, &parent, &mut cpus, NEAR + 512);
        let child = parent.fork(&mut cpus[0]).unwrap();
        touch(&child, &mut cpus[0], NEAR);
        touch(&parent, &mut cpus[0], NEAR);
        if quietly {
            parent.unmap(&mut cpus[0], pages(NEAR, 1)).unwrap();
        } else {
            map(&parent, &mut cpus[0], FAR, 1);
            let unmap = |space: &Space<Words>, cpu: &mut Cpu<Words>| space.unmap(cpu, pages(NEAR, 1)).unwrap();
            during_fault(&vm, &parent, &mut cpus, FAR, unmap).unwrap();
        }
        audit(&vm, &mut cpus, &[&parent, &child], &[]);
        child.unmap(&mut cpus[0], pages(NEAR, 1)).unwrap();
        assert_eq!(child.usage().tables, 0);
        audit(&vm, &mut cpus, &[&parent, &child], &[]);
    }
}

#[test]
fn a_table_kept_for_the_wrap_guard_goes_with_the_next_operation() {
    let (vm, mut cpus, space) = one_page();
    map(&space, &mut cpus[0], NEAR + 512, 1);
    touch(&space, &mut cpus[0], NEAR + 512);
    // Each narrowing with a section active elsewhere advances the page's generation; after 15, a half cycle is next.
    for n in 0..15 {
        map(&space, &mut cpus[0], FAR + n * 512, 1);
        let narrow = |space: &Space<Words>, cpu: &mut Cpu<Words>| {
            space.protect(cpu, pages(NEAR, 1), Rights::READ).unwrap();
            space.protect(cpu, pages(NEAR, 1), Rights::READ | Rights::WRITE).unwrap();
        };
        during_fault(&vm, &space, &mut cpus, FAR + n * 512, narrow).unwrap();
    }
    // The guard waits for the section, so the unmapping runs on a thread of its own.
    map(&space, &mut cpus[0], 2 * FAR, 1);
    let (other, machine, mut cpu) = (space.clone(), vm.clone(), cpus.remove(1));
    let ((swept, is_swept), (thread, threads)) = (mpsc::channel(), mpsc::channel());
    vm.machine().hook(Point::Allocate(0), 0, move || {
        machine.machine().hook(Point::Table(other.root()), 0, move || swept.send(()).unwrap());
        let unmap = move || other.unmap(&mut cpu, pages(NEAR, 1)).map(|()| cpu);
        thread.send(thread::spawn(unmap)).unwrap();
        is_swept.recv().unwrap();
    });
    touch(&space, &mut cpus[0], 2 * FAR);
    cpus.insert(1, threads.recv().unwrap().join().unwrap().unwrap());
    assert_eq!(vm.stats().get("wrap_guard_waits"), 1);
    audit(&vm, &mut cpus, &[&space], &[]);
    space.unmap(&mut cpus[0], pages(NEAR + 512, 1)).unwrap();
    audit(&vm, &mut cpus, &[&space], &[]);
    assert_eq!(space.usage().tables, 3 + 3 + 14, "what is left belongs to the pages far away");
}
