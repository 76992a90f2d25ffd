//! Fork against faults (FK-06, SH-12, AC-01).

use super::machine::Point;
use super::{STRIPE, audit, boot, map, new_space, touch};

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
