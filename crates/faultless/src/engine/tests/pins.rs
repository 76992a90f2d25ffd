//! Pinned pages stay what they are; forced stores change no rights (GU-01, GU-04, GU-05, GU-06, GU-08, CW-06).

use super::{Bench, at, get, range};
use crate::{Access, Backing, FaultError, MapRequest, PAGE_SIZE, Pinned, Rights, Sharing};
use std::sync::Arc;
use std::vec::Vec;

type Pins = Pinned<super::TestMachine>;

fn pin(bench: &mut Bench, page: u64, count: u64, access: Access) -> Pins {
    bench.space.pin(&mut bench.cpu, range(page, count), access).unwrap()
}

fn mapped(bench: &mut Bench, page: u64) -> crate::FrameId {
    let mut frame = None;
    bench.space.pages(&mut bench.cpu, range(page, 1), |info| frame = Some(info.frame));
    frame.unwrap()
}

#[test]
fn a_pinned_page_survives_forks_and_stores() {
    let mut bench = Bench::new(256);
    bench.map(0, 600);
    bench.put(0, 1);
    bench.put(1, 2);
    bench.put(599, 3);
    let pins = pin(&mut bench, 0, 1, Access::Write);
    let frame = pins.frames()[0];
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    // The child has a copy from the start, and shares the rest.
    assert_eq!((child.usage().anon, bench.space.usage().anon), (3, 3));
    bench.put(0, 7);
    assert_eq!((mapped(&mut bench, 0), pins.frames()[0]), (frame, frame));
    assert_eq!([0, 1, 599].map(|page| get(&child, &mut bench.cpu, page)), [1, 2, 3]);
    child.write(&mut bench.cpu, at(0), &[9]).unwrap();
    assert_eq!([0, 1, 599].map(|page| bench.byte(page)), [7, 2, 3]);
    let grandchild = child.fork(&mut bench.cpu).unwrap();
    let second = bench.space.fork(&mut bench.cpu).unwrap();
    bench.put(0, 8);
    assert_eq!(mapped(&mut bench, 0), frame);
    assert_eq!((get(&grandchild, &mut bench.cpu, 0), get(&second, &mut bench.cpu, 0)), (9, 7));
    drop(pins);
    bench.finish(&[&child, &grandchild, &second]);
}

#[test]
fn a_read_pin_makes_the_page_ones_own() {
    let mut bench = Bench::new(128);
    bench.map(0, 2);
    bench.put(0, 4);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let pins = pin(&mut bench, 0, 2, Access::Read);
    assert_eq!(pins.frames()[0], mapped(&mut bench, 0));
    bench.put(0, 5);
    assert_eq!(pins.frames()[0], mapped(&mut bench, 0), "a store finds the pinned page exclusive");
    assert_eq!(get(&child, &mut bench.cpu, 0), 4);
    drop(pins);
    bench.finish(&[&child]);
}

#[test]
fn an_unmapped_pinned_page_lives_until_it_is_unpinned() {
    let mut bench = Bench::new(64);
    bench.map(0, 1);
    bench.put(0, 4);
    let pins = pin(&mut bench, 0, 1, Access::Write);
    bench.space.unmap(&mut bench.cpu, range(0, 1)).unwrap();
    bench.map(0, 1);
    assert_eq!(bench.byte(0), 0);
    bench.put(0, 1);
    assert_ne!(pins.frames()[0], mapped(&mut bench, 0));
    drop(pins);
    bench.finish(&[]);
}

#[test]
fn all_or_nothing_is_pinned() {
    let mut bench = Bench::new(64);
    bench.map(0, 2);
    let error = bench.space.pin(&mut bench.cpu, range(0, 3), Access::Write).unwrap_err();
    assert_eq!((error.at, error.fault), (at(2), FaultError::Unmapped));
    bench.space.protect(&mut bench.cpu, range(1, 1), Rights::READ).unwrap();
    let error = bench.space.pin(&mut bench.cpu, range(0, 2), Access::Write).unwrap_err();
    assert_eq!((error.at, error.fault), (at(1), FaultError::Denied));
    bench.finish(&[]);
}

#[test]
fn a_forced_store_changes_neither_rights_nor_files() {
    let mut bench = Bench::new(64);
    let object = bench.vm.new_memory(2 * PAGE_SIZE, "m").unwrap();
    object.write(&mut bench.cpu, 0, &[1]).unwrap();
    for (page, sharing) in [(0, Sharing::Private), (4, Sharing::Shared)] {
        let backing = Backing::Object { object: Arc::clone(&object), offset: 0 };
        let request = MapRequest { sharing, backing, rights: Rights::READ, ..MapRequest::anonymous(2 * PAGE_SIZE) };
        bench.space.map(&mut bench.cpu, request.fixed(at(page))).unwrap();
    }
    bench.space.write_forced(&mut bench.cpu, at(0), &[6]).unwrap();
    assert_eq!((bench.byte(0), bench.byte(4)), (6, 1));
    let denied = bench.space.write(&mut bench.cpu, at(0), &[7]).unwrap_err();
    assert_eq!(denied.fault, FaultError::Denied);
    let denied = bench.space.write_forced(&mut bench.cpu, at(4), &[7]).unwrap_err();
    assert_eq!(denied.fault, FaultError::Denied);
    // The copy that a debugger changed goes like any other (CVE-2016-5195: and the next forced store copies again).
    bench.space.discard(&mut bench.cpu, range(0, 1), false).unwrap();
    assert_eq!(bench.byte(0), 1);
    bench.space.write_forced(&mut bench.cpu, at(0), &[8]).unwrap();
    let mut bytes = [0];
    object.read(&mut bench.cpu, 0, &mut bytes).unwrap();
    assert_eq!((bytes, bench.byte(0)), ([1], 8));
    let writable: Vec<bool> = {
        let mut all = Vec::new();
        bench.space.pages(&mut bench.cpu, range(0, 1), |page| all.push(page.writable));
        all
    };
    assert_eq!(writable, [false]);
    bench.space.unmap(&mut bench.cpu, range(0, 8)).unwrap();
    drop(object);
    bench.finish(&[]);
}
