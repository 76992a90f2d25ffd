//! What an embedder must not do, and what it gets.

use super::{at, audit, boot, map, map_object, new_space};
use crate::{Access, Layout, Sharing, VirtAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn panics(mut operation: impl FnMut()) -> bool {
    catch_unwind(AssertUnwindSafe(&mut operation)).is_err()
}

#[test]
fn tokens_and_objects_of_another_vm_are_refused() {
    let ((vm, mut cpus), (other, mut others)) = (boot(), boot());
    let (space, object) = (new_space(&vm, &mut cpus[0]), vm.new_memory(4096, "file").unwrap());
    map(&space, &mut cpus[0], 0x100, 1);
    assert!(panics(|| _ = space.fault(&mut others[0], at(0x100), Access::Write)));
    assert!(panics(|| _ = object.read(&mut others[0], 0, &mut [0])));
    assert!(panics(|| _ = vm.new_space(&mut others[0], Layout::linux())));
    let elsewhere = new_space(&other, &mut others[0]);
    assert!(panics(|| map_object(&elsewhere, &mut others[0], 0x100, 1, &object, Sharing::Shared)));
    audit(&vm, &mut cpus, &[&space], &[&object]);
    audit(&other, &mut others, &[&elsewhere], &[]);
}

#[test]
fn a_space_keeps_to_the_user_half() {
    let (vm, mut cpus) = boot();
    let (low, middle, end) = (1 << 16, 1 << 30, 1 << 47);
    for (lowest, mmap_top, highest) in
        [(low, middle, end + 4096), (low, end, middle), (low + 1, middle, middle), (low, low, end)]
    {
        let [lowest, mmap_top, highest] = [lowest, mmap_top, highest].map(VirtAddr::new);
        let layout = Layout { lowest, highest, mmap_top, stack_limit: 0 };
        assert!(panics(|| _ = vm.new_space(&mut cpus[0], layout)), "{layout:?}");
    }
    audit(&vm, &mut cpus, &[], &[]);
}

#[test]
fn a_heap_that_was_never_set_up_does_not_grow() {
    let (vm, mut cpus) = boot();
    let space = new_space(&vm, &mut cpus[0]);
    assert_eq!(space.brk(&mut cpus[0], at(0x1000)), VirtAddr::new(0));
    assert!(space.area_at(&mut cpus[0], VirtAddr::new(0)).is_none());
}
