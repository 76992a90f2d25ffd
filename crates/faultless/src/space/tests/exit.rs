//! What is left of a space that was taken down (VM-13).

use super::{at, audit, boot, map, new_space, touch};
use crate::{AccessError, FaultError};

#[test]
fn nothing_reaches_the_tables_of_a_space_that_is_gone() {
    let (vm, mut cpus) = boot();
    let (gone, other) = (new_space(&vm, &mut cpus[0]), new_space(&vm, &mut cpus[0]));
    map(&gone, &mut cpus[0], 0x100, 4);
    touch(&gone, &mut cpus[0], 0x100);
    gone.exit(&mut cpus[0]);
    // Its tables are frames of somebody else by now.
    assert!(cpus[0].collect());
    map(&other, &mut cpus[0], 0x100, 16);
    (0x100..0x110).for_each(|page| touch(&other, &mut cpus[0], page));
    let nothing = Err(AccessError { done: 0, fault: FaultError::Unmapped });
    assert_eq!(gone.read(&mut cpus[0], at(0x100), &mut [0]), nothing);
    assert_eq!(gone.write(&mut cpus[0], at(0x100), &[1]), nothing);
    audit(&vm, &mut cpus, &[&other], &[]);
}
