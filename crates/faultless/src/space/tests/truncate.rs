//! Truncation against everything that looks pages up (FL-03, TR-01, TR-02).

use super::machine::{Point, Words};
use super::{at, audit, boot, map, map_object, new_space, touch};
use crate::{Access, Cpu, FaultError, Object, ObjectError, PageWriter, Pager, PagerError, Sharing, Vm};
use std::boxed::Box;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// A file of letters; something else may happen at the end of a read.
#[derive(Default)]
struct Letters {
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Pager for Letters {
    fn fill(&self, _index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &[b'a'; 4096]);
        if let Some(run) = self.meanwhile.lock().unwrap().take() {
            run();
        }
        Ok(())
    }
}

fn letters(vm: &Vm<Words>, size: u64) -> (Arc<Letters>, Arc<Object<Words>>) {
    let pager = Arc::new(Letters::default());
    (pager.clone(), vm.new_file(size, pager, "letters").unwrap())
}

/// How many letters the object begins with, and how many bytes other than zero it has.
fn count(object: &Object<Words>, cpu: &mut Cpu<Words>) -> (usize, usize) {
    let mut bytes = [1; 4096];
    let len = object.read(cpu, 0, &mut bytes).unwrap();
    let letters = bytes[..len].iter().take_while(|byte| **byte == b'a').count();
    (letters, bytes[..len].iter().filter(|byte| **byte != 0).count())
}

#[test]
fn a_page_that_was_read_before_a_truncation_does_not_come_back() {
    let (vm, mut cpus) = boot();
    let space = new_space(&vm, &mut cpus[0]);
    let (pager, object) = letters(&vm, 4096);
    map_object(&space, &mut cpus[0], 0x100, 1, &object, Sharing::Shared);
    let (cut, mut cpu) = (object.clone(), cpus.remove(1));
    *pager.meanwhile.lock().unwrap() = Some(Box::new(move || cut.resize(&mut cpu, 0).unwrap()));
    assert_eq!(space.fault(&mut cpus[0], at(0x100), Access::Read), Err(FaultError::Bus));
    object.resize(&mut cpus[0], 4096).unwrap();
    assert_eq!(count(&object, &mut cpus[0]), (0, 0));
    audit(&vm, &mut cpus, &[&space], &[&object]);
}

#[test]
fn nor_does_the_cut_off_part_of_the_last_page() {
    // The truncation comes after the reader looked at the size for the last time: it zeroes the rest of the page.
    let (vm, mut cpus) = boot();
    let (pager, object) = letters(&vm, 4000);
    let (cut, mut cpu, machine) = (object.clone(), cpus.remove(1), vm.clone());
    *pager.meanwhile.lock().unwrap() = Some(Box::new(move || {
        machine.machine().hook(Point::Write, 0, move || cut.resize(&mut cpu, 10).unwrap());
    }));
    object.read(&mut cpus[0], 0, &mut [0]).unwrap();
    object.resize(&mut cpus[0], 4000).unwrap();
    assert_eq!(count(&object, &mut cpus[0]), (10, 10));
    audit(&vm, &mut cpus, &[], &[&object]);
}

#[test]
fn the_tail_of_a_page_that_another_truncation_drops_is_not_written() {
    let (vm, mut cpus) = boot();
    let space = new_space(&vm, &mut cpus[0]);
    map(&space, &mut cpus[0], 0x100, 2);
    touch(&space, &mut cpus[0], 0x100);
    let object = vm.new_memory(4096, "file").unwrap();
    object.write(&mut cpus[1], 0, b"contents").unwrap();
    // Between two pieces of the tail: the page goes, and its frame, if nobody holds it, to an anonymous page.
    let (cut, owner, mut cpu) = (object.clone(), space.clone(), cpus.remove(1));
    vm.machine().hook(Point::Write, 1, move || {
        cut.resize(&mut cpu, 0).unwrap();
        touch(&owner, &mut cpu, 0x101);
        owner.write(&mut cpu, at(0x101), &[0xff; 4096]).unwrap();
    });
    object.resize(&mut cpus[0], 100).unwrap();
    let mut bytes = [0; 4096];
    space.read(&mut cpus[0], at(0x101), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0xff), "a freed frame was written");
    audit(&vm, &mut cpus, &[&space], &[&object]);
}

#[test]
fn a_copy_begun_during_a_truncation_fails_though_frame_and_entry_come_back() {
    // F-08: the truncation finds no fault under way; one begins, copies the old page, and stops. The page goes, the
    // file grows, and its new page has the old frame, mapped by an entry that looks the same.
    let (vm, mut cpus) = boot();
    let space = new_space(&vm, &mut cpus[0]);
    let object = vm.new_memory(4096, "file").unwrap();
    object.write(&mut cpus[1], 0, b"old").unwrap();
    map_object(&space, &mut cpus[0], 0x100, 1, &object, Sharing::Private);
    space.fault(&mut cpus[0], at(0x100), Access::Read).unwrap();
    let ((copied, is_copied), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let (faulter, machine, mut cpu) = (space.clone(), vm.clone(), cpus.remove(0));
    let (thread, threads) = mpsc::channel();
    vm.machine().hook(Point::Table(space.root()), 0, move || {
        machine.machine().hook(Point::Copy, 0, move || {
            copied.send(()).unwrap();
            may_go.recv().unwrap();
        });
        let fault = move || faulter.fault(&mut cpu, at(0x100), Access::Write).map(|_| cpu);
        thread.send(thread::spawn(fault)).unwrap();
        is_copied.recv().unwrap();
    });
    object.resize(&mut cpus[0], 0).unwrap();
    object.resize(&mut cpus[0], 4096).unwrap();
    object.write(&mut cpus[0], 0, b"new").unwrap();
    space.fault(&mut cpus[0], at(0x100), Access::Read).unwrap();
    go.send(()).unwrap();
    cpus.push(threads.recv().unwrap().join().unwrap().unwrap());
    let mut text = [0; 3];
    space.read(&mut cpus[0], at(0x100), &mut text).unwrap();
    assert_eq!(&text, b"new");
    audit(&vm, &mut cpus, &[&space], &[&object]);
}

#[test]
fn a_truncation_without_memory_changes_nothing_and_can_be_repeated() {
    let (vm, mut cpus) = boot();
    let parent = new_space(&vm, &mut cpus[0]);
    let object = vm.new_memory(8192, "file").unwrap();
    object.write(&mut cpus[0], 4096, b"contents").unwrap();
    map_object(&parent, &mut cpus[0], 0x100, 2, &object, Sharing::Shared);
    parent.fault(&mut cpus[0], at(0x101), Access::Read).unwrap();
    let child = parent.fork(&mut cpus[0]).unwrap();
    // Three tables to copy for the parent (what is copied stays so); the child is the last sharer and takes the old ones.
    for budget in [0, 1] {
        vm.machine().set_budget(budget);
        assert_eq!(object.resize(&mut cpus[0], 4096), Err(ObjectError::OutOfMemory));
        assert_eq!(object.size(), 8192);
        for space in [&*parent, &child] {
            assert_eq!(space.read(&mut cpus[0], at(0x101), &mut [0]), Ok(()));
        }
        audit(&vm, &mut cpus, &[&parent, &child], &[&object]);
    }
    vm.machine().set_budget(u64::MAX);
    object.resize(&mut cpus[0], 4096).unwrap();
    for space in [&*parent, &child] {
        assert_eq!(space.fault(&mut cpus[0], at(0x101), Access::Read), Err(FaultError::Bus));
    }
    audit(&vm, &mut cpus, &[&parent, &child], &[&object]);
}
