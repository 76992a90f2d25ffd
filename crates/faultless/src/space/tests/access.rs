//! Remote accesses to addresses that no area covers (GU-01, F-14).

use super::{at, audit, boot, map, new_space, touch};
use crate::machine::{Format, X86_64};
use crate::sync::plain::Ordering;
use crate::{AccessError, FaultError, Machine, VirtAddr};

#[test]
fn an_access_beyond_user_space_reaches_nothing() {
    let (vm, mut cpus) = boot();
    let (space, other) = (new_space(&vm, &mut cpus[0]), new_space(&vm, &mut cpus[0]));
    for space in [&space, &other] {
        map(space, &mut cpus[0], 0x100, 1);
        touch(space, &mut cpus[0], 0x100);
    }
    // The embedder's half of the root is not ours to walk: here it shows what the other space has.
    let root = vm.machine().table(space.root());
    let entry = vm.machine().table(other.root())[0].load(Ordering::Relaxed);
    root[X86_64::USER_SLOTS].store(entry, Ordering::Relaxed);
    let nothing = Err(AccessError { done: 0, fault: FaultError::Unmapped });
    let embedders = (X86_64::USER_SLOTS as u64) << 39;
    for high in [embedders, embedders | 0xffff << 48, 1 << 48, 1 << 63] {
        let address = VirtAddr::new(high | at(0x100).as_u64());
        assert_eq!(space.read(&mut cpus[0], address, &mut [0]), nothing, "{address:?}");
        assert_eq!(space.write(&mut cpus[0], address, &[1]), nothing, "{address:?}");
    }
    audit(&vm, &mut cpus, &[&space, &other], &[]);
}
