//! What programs are promised is counted, bounded by the policy, and given back; seals and attachments.

use super::{Bench, RW, at, range};
use crate::{
    AreaFlags, Backing, CommitPolicy, Destination, ForkError, MapError, MapRequest, PAGE_SIZE, ProtectError,
    RemapError, RemapRequest, Rights, Sharing, UnmapError,
};

fn promised(bench: &Bench) -> u64 {
    bench.vm.committed()
}

#[test]
fn promises_follow_every_operation() {
    let mut bench = Bench::new(128);
    bench.map(0, 10);
    assert_eq!(promised(&bench), 10);
    let free = MapRequest { flags: AreaFlags::NO_RESERVE, ..MapRequest::anonymous(5 * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, free.fixed(at(50))).unwrap();
    let read_only = MapRequest { rights: Rights::READ, ..MapRequest::anonymous(4 * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, read_only.fixed(at(60))).unwrap();
    assert_eq!(promised(&bench), 10);
    bench.space.protect(&mut bench.cpu, range(60, 1), RW()).unwrap();
    assert_eq!(promised(&bench), 11);
    // Pages may have been stored to: the promise stays, and is not made twice.
    bench.space.protect(&mut bench.cpu, range(0, 10), Rights::READ).unwrap();
    bench.space.protect(&mut bench.cpu, range(0, 10), RW()).unwrap();
    assert_eq!(promised(&bench), 11);
    let grow = RemapRequest {
        addr: at(0),
        old_len: 10 * PAGE_SIZE,
        new_len: 12 * PAGE_SIZE,
        destination: Destination::Fixed(at(100)),
        keep: false,
    };
    bench.space.remap(&mut bench.cpu, grow).unwrap();
    assert_eq!(promised(&bench), 13);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(promised(&bench), 26);
    child.exit(&mut bench.cpu);
    bench.space.set_brk(at(1 << 20));
    bench.space.brk(&mut bench.cpu, at((1 << 20) + 4));
    assert_eq!(promised(&bench), 17);
    bench.space.unmap(&mut bench.cpu, range(100, 12)).unwrap();
    assert_eq!(promised(&bench), 5);
    let shared = MapRequest { sharing: Sharing::Shared, ..MapRequest::anonymous(7 * PAGE_SIZE) };
    let there = bench.space.map(&mut bench.cpu, shared).unwrap();
    assert_eq!(promised(&bench), 12);
    bench.space.unmap(&mut bench.cpu, crate::PageRange::with_len(there, 7 * PAGE_SIZE).unwrap()).unwrap();
    while !bench.cpu.collect() {}
    assert_eq!(promised(&bench), 5, "the object goes with its last area");
    let vm = bench.vm.clone();
    bench.finish(&[]);
    assert_eq!(vm.committed(), 0);
}

#[test]
fn a_request_for_more_than_the_machine_has_is_refused() {
    let mut bench = Bench::new(64);
    let total = bench.vm.stats().total_frames;
    bench.vm.set_commit_policy(CommitPolicy::Heuristic);
    let much = MapRequest::anonymous((total + 1) * PAGE_SIZE);
    assert_eq!(bench.space.map(&mut bench.cpu, much.clone()), Err(MapError::NoMemory));
    // Any sum of smaller ones is granted, and so is what nothing is reserved for.
    for _ in 0..3 {
        bench.space.map(&mut bench.cpu, MapRequest::anonymous(total * PAGE_SIZE / 2)).unwrap();
    }
    let free = MapRequest { flags: AreaFlags::NO_RESERVE, ..much.clone() };
    bench.space.map(&mut bench.cpu, free).unwrap();
    bench.vm.set_commit_policy(CommitPolicy::Always);
    bench.space.map(&mut bench.cpu, much).unwrap();
    bench.vm.set_commit_policy(CommitPolicy::Heuristic);
    let fork = bench.space.fork(&mut bench.cpu).map(drop);
    assert_eq!(fork, Err(ForkError::NoMemory), "one area is too large");
    bench.finish(&[]);
}

#[test]
fn a_strict_policy_counts_all() {
    let mut bench = Bench::new(64);
    bench.vm.set_commit_policy(CommitPolicy::Strict { limit: 21, reserve: 0 });
    bench.map(0, 10);
    let before = (promised(&bench), bench.space.extent());
    let too_much = MapRequest::anonymous(11 * PAGE_SIZE).fixed(at(50));
    assert_eq!(bench.space.map(&mut bench.cpu, too_much.clone()), Err(MapError::NoMemory));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(bench.space.fork(&mut bench.cpu).map(drop), Err(ForkError::NoMemory));
    let read_only = MapRequest { rights: Rights::READ, ..too_much };
    bench.space.map(&mut bench.cpu, read_only).unwrap();
    let refused = bench.space.protect(&mut bench.cpu, range(50, 1), RW());
    assert_eq!(refused, Err(ProtectError::NoMemory(at(50))));
    let keep = RemapRequest {
        addr: at(0),
        old_len: 10 * PAGE_SIZE,
        new_len: 10 * PAGE_SIZE,
        destination: Destination::Fixed(at(200)),
        keep: true,
    };
    assert_eq!(bench.space.remap(&mut bench.cpu, keep), Err(RemapError::NoMemory));
    bench.space.unmap(&mut bench.cpu, range(50, 11)).unwrap();
    child.exit(&mut bench.cpu);
    assert_eq!((promised(&bench), bench.space.extent().pages), (before.0, before.1.pages));
    assert!(bench.vm.new_promised_memory(11 * PAGE_SIZE, "too much").is_err());
    drop(bench.vm.new_promised_memory(10 * PAGE_SIZE, "all").unwrap());
    assert_eq!(promised(&bench), 10);
    bench.finish(&[]);
}

#[test]
fn what_is_sealed_stays() {
    let mut bench = Bench::new(64);
    bench.map(0, 10);
    bench.space.set_flags(&mut bench.cpu, range(4, 2), AreaFlags::SEALED, AreaFlags::NONE, |_| true).unwrap();
    let (all, before) = (range(0, 10), bench.space.extent());
    assert_eq!(bench.space.unmap(&mut bench.cpu, all), Err(UnmapError::Sealed));
    let over = MapRequest::anonymous(PAGE_SIZE).fixed(at(5));
    assert_eq!(bench.space.map(&mut bench.cpu, over.clone()), Err(MapError::NotPermitted));
    assert_eq!(bench.space.extent(), before);
    assert_eq!(bench.space.protect(&mut bench.cpu, all, Rights::READ), Err(ProtectError::Sealed(at(4))));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(child.map(&mut bench.cpu, over), Err(MapError::NotPermitted), "a child's is sealed too");
    bench.space.unmap(&mut bench.cpu, range(6, 4)).unwrap();
    bench.finish(&[&child]);
}

#[test]
fn objects_know_how_many_areas_show_them() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_memory(8 * PAGE_SIZE, "shown").unwrap();
    let request = MapRequest {
        sharing: Sharing::Shared,
        backing: Backing::Object { object: object.clone(), offset: 0 },
        ..MapRequest::anonymous(8 * PAGE_SIZE)
    };
    bench.space.map(&mut bench.cpu, request.clone().fixed(at(0))).unwrap();
    bench.space.protect(&mut bench.cpu, range(2, 1), Rights::READ).unwrap();
    assert_eq!(object.areas(), 3);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!(object.areas(), 6);
    assert!(object.deny_writers().is_err());
    child.exit(&mut bench.cpu);
    bench.space.unmap(&mut bench.cpu, range(0, 8)).unwrap();
    assert_eq!(object.areas(), 0);
    object.deny_writers().unwrap();
    assert_eq!(bench.space.map(&mut bench.cpu, request.clone()), Err(MapError::NotPermitted));
    let read_only = MapRequest { rights: Rights::READ, max_rights: Rights::READ, ..request };
    bench.space.map(&mut bench.cpu, read_only).unwrap();
    object.deny_writers().unwrap();
    assert_eq!(object.areas(), 1);
    bench.finish(&[]);
}
