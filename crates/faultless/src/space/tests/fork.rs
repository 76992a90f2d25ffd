//! Fork against faults (FK-06, SH-12, AC-01).

use super::machine::Point;
use super::{STRIPE, at, audit, boot, map, new_space, pages, touch};
use crate::{Access, FaultError};
use std::sync::mpsc;
use std::thread;

#[test]
fn a_fault_while_fork_thaws_is_not_counted_for_the_child() {
    let (vm, mut cpus) = boot();
    let parent = new_space(&vm, &mut cpus[0]);
    for start in [0x100, STRIPE] {
        map(&parent, &mut cpus[0], start, 4);
        touch(&parent, &mut cpus[0], start);
    }
    // The root is looked at twice each to freeze, to link and to thaw: here the first stripe is thawed already.
    let (space, mut cpu) = (parent.clone(), cpus.remove(1));
    vm.machine().hook(Point::Table(parent.root()), 5, move || {
        touch(&space, &mut cpu, 0x101);
    });
    let child = parent.fork(&mut cpus[0]).unwrap();
    assert_eq!((parent.usage().anon, child.usage().anon), (3, 2));
    audit(&vm, &mut cpus, &[&parent, &child], &[]);
}

#[test]
fn tables_that_a_late_fault_links_during_a_fork_are_not_counted_for_the_child() {
    // The fault has found its area and allocates a table; the area, the only one of its stripe, goes; fork begins, and
    // after its first look at the root the fault goes on.
    let (vm, mut cpus) = boot();
    let parent = new_space(&vm, &mut cpus[0]);
    map(&parent, &mut cpus[0], 0x100, 1);
    touch(&parent, &mut cpus[0], 0x100);
    let page = 5 * STRIPE;
    map(&parent, &mut cpus[0], page, 1);
    let ((stopped, is_stopped), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    vm.machine().hook(Point::Allocate(1), 0, move || {
        stopped.send(()).unwrap();
        may_go.recv().unwrap();
    });
    let (space, mut cpu) = (parent.clone(), cpus.remove(1));
    let late = thread::spawn(move || (space.fault(&mut cpu, at(page), Access::Write), cpu));
    is_stopped.recv().unwrap();
    parent.unmap(&mut cpus[0], pages(page, 1)).unwrap();
    let machine = vm.clone();
    vm.machine().hook(Point::Table(parent.root()), 1, move || {
        let (again, is_again) = mpsc::channel();
        machine.machine().hook(Point::Enter, 0, move || again.send(()).unwrap());
        go.send(()).unwrap();
        is_again.recv().unwrap(); // the attempt that was under way is over
    });
    let child = parent.fork(&mut cpus[0]).unwrap();
    let (result, cpu) = late.join().unwrap();
    assert_eq!(result, Err(FaultError::Unmapped));
    cpus.insert(1, cpu);
    audit(&vm, &mut cpus, &[&parent, &child], &[]);
}

#[test]
fn a_shared_table_stays_while_a_late_fault_copies_it() {
    // The fault has checked that its space has a share of the table and allocates the copy. Its area goes, and with it
    // the share; the other space exits, and with it the table and all that it names.
    let (vm, mut cpus) = boot();
    let parent = new_space(&vm, &mut cpus[0]);
    map(&parent, &mut cpus[0], 0x100, 1);
    touch(&parent, &mut cpus[0], 0x100);
    let child = parent.fork(&mut cpus[0]).unwrap();
    let (space, mut cpu) = (parent.clone(), cpus.remove(1));
    let (thread, threads) = mpsc::channel();
    let machine = vm.clone();
    vm.machine().hook(Point::Allocate(0), 0, move || {
        let (moved, has_moved) = mpsc::channel();
        let waits = moved.clone();
        machine.machine().hook(Point::Relax, 0, move || waits.send(()).unwrap());
        let other = thread::spawn(move || {
            space.unmap(&mut cpu, pages(0x100, 1)).unwrap();
            child.exit(&mut cpu);
            let _ = moved.send(());
            cpu
        });
        thread.send(other).unwrap();
        has_moved.recv().unwrap(); // it has done all, or it waits for us
    });
    assert_eq!(parent.fault(&mut cpus[0], at(0x100), Access::Write), Err(FaultError::Unmapped));
    cpus.insert(1, threads.recv().unwrap().join().unwrap());
    assert_eq!(parent.usage().tables, 0);
    audit(&vm, &mut cpus, &[&parent], &[]);
}
