//! Frames by number and pages of the embedder's: counted or not, copied, refused, and given back (PF-01 to PF-09,
//! CW-07, FK-04, GU-04, FL-04).

use super::{Bench, at, get, range};
use crate::{
    Access, AdviseError, Backing, Destination, FaultError, FrameId, InsertError, MapRequest, PAGE_SIZE, PageKind,
    RemapError, RemapRequest, Rights, Sharing,
};
use std::vec::Vec;

fn map(bench: &mut Bench, page: u64, pages: u64, sharing: Sharing) {
    let request = MapRequest { sharing, backing: Backing::Frames, ..MapRequest::anonymous(pages * PAGE_SIZE) };
    bench.space.map(&mut bench.cpu, request.fixed(at(page))).unwrap();
}

/// Frames that the machine has and the `Vm` will not touch: it owns them through pages that are leaked until the end.
fn window(bench: &mut Bench) -> (crate::Page<super::TestMachine>, FrameId) {
    let page = bench.vm.new_page(&mut bench.cpu).unwrap();
    page.write(&mut bench.cpu, 0, &[42]);
    let frame = page.frame();
    (page, frame)
}

fn insert(bench: &mut Bench, page: u64, count: u64, base: FrameId) -> Result<(), InsertError> {
    // SAFETY: the tests read and write frames that they hold pages of, or that nobody accesses.
    let frames = unsafe { crate::RawFrames::new(base, count) };
    bench.space.insert_frames(&mut bench.cpu, at(page), frames)
}

#[test]
fn raw_frames_are_neither_counted_nor_freed() {
    let mut bench = Bench::new(128);
    let (page, frame) = window(&mut bench);
    map(&mut bench, 0, 4, Sharing::Shared);
    insert(&mut bench, 1, 1, frame).unwrap();
    assert_eq!(bench.space.usage().resident(), 0);
    let mut seen = Vec::new();
    bench.space.pages(&mut bench.cpu, range(0, 4), |info| seen.push((info.addr, info.frame, info.kind)));
    assert_eq!(seen, [(at(1), frame, PageKind::Raw)]);
    // A hole in a shared area is no anonymous page (PF-08).
    let hole = bench.space.fault(&mut bench.cpu, at(0), Access::Write);
    assert_eq!(hole, Err(FaultError::Bus));
    // Faults of what is there succeed; a child has it too.
    assert!(bench.space.fault(&mut bench.cpu, at(1), Access::Write).is_ok());
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert!(child.fault(&mut bench.cpu, at(1), Access::Write).is_ok());
    // Not to be pinned, discarded or read from outside.
    let pin = bench.space.pin(&mut bench.cpu, range(1, 1), Access::Read).unwrap_err();
    assert_eq!(pin.fault, FaultError::Denied);
    let discard = bench.space.discard(&mut bench.cpu, range(1, 1), false);
    assert_eq!(discard, Err(AdviseError::Refused(at(1))));
    assert!(bench.space.read(&mut bench.cpu, at(1), &mut [0]).is_err());
    bench.space.unmap(&mut bench.cpu, range(0, 4)).unwrap();
    child.unmap(&mut bench.cpu, range(0, 4)).unwrap();
    let mut byte = [0];
    page.read(&mut bench.cpu, 0, &mut byte);
    assert_eq!(byte, [42]);
    drop(page);
    bench.finish(&[&child]);
}

#[test]
fn pieces_are_for_shared_areas_and_replace_nothing() {
    let mut bench = Bench::new(128);
    let (page, frame) = window(&mut bench);
    map(&mut bench, 0, 4, Sharing::Shared);
    map(&mut bench, 8, 4, Sharing::Private);
    insert(&mut bench, 0, 1, frame).unwrap();
    insert(&mut bench, 2, 1, FrameId::new(1 << 30)).unwrap(); // a frame that is no RAM
    assert_eq!(insert(&mut bench, 1, 2, frame), Err(InsertError::Exists(at(2))));
    assert_eq!(insert(&mut bench, 8, 2, frame), Err(InsertError::Invalid));
    assert_eq!(insert(&mut bench, 3, 2, frame), Err(InsertError::Unmapped(at(4))));
    bench.map(20, 1);
    assert_eq!(insert(&mut bench, 20, 1, frame), Err(InsertError::Unmapped(at(20))));
    bench.space.unmap(&mut bench.cpu, range(0, 32)).unwrap();
    drop(page);
    bench.finish(&[]);
}

#[test]
fn runs_of_frames_are_cut_at_their_ends() {
    // SAFETY: nothing maps them.
    let frames = unsafe { crate::RawFrames::new(FrameId::new(10), 4) };
    let cut = |frames: crate::RawFrames| (frames.base().as_u64(), frames.count());
    assert_eq!((cut(frames.skip(1)), cut(frames.take(1))), ((11, 3), (10, 1)));
    assert_eq!((cut(frames.skip(9)), cut(frames.take(9))), ((14, 0), (10, 4)));
}

#[test]
fn a_private_store_copies_a_raw_frame() {
    let mut bench = Bench::new(128);
    let (page, frame) = window(&mut bench);
    map(&mut bench, 0, 1, Sharing::Private);
    map(&mut bench, 8, 1, Sharing::Private);
    insert(&mut bench, 0, 1, frame).unwrap();
    bench.put(0, 9);
    assert_eq!((bench.byte(0), bench.space.usage().anon), (9, 1));
    let mut byte = [0];
    page.read(&mut bench.cpu, 0, &mut byte);
    assert_eq!(byte, [42], "the original is as it was");
    // The hole of a private area is an ordinary page of zeroes.
    assert_eq!(bench.byte(8), 0);
    bench.put(8, 3);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    assert_eq!((get(&child, &mut bench.cpu, 0), get(&child, &mut bench.cpu, 8)), (9, 3));
    drop(page);
    bench.finish(&[&child]);
}

#[test]
fn inserted_pages_are_counted_and_live_as_long_as_anybody_has_them() {
    let mut bench = Bench::new(128);
    let (page, frame) = window(&mut bench);
    map(&mut bench, 0, 4, Sharing::Shared);
    bench.space.insert_page(&mut bench.cpu, at(1), &page).unwrap();
    assert_eq!(bench.space.insert_page(&mut bench.cpu, at(1), &page), Err(InsertError::Exists(at(1))));
    assert_eq!(bench.space.insert_page(&mut bench.cpu, at(4), &page), Err(InsertError::Unmapped(at(4))));
    assert_eq!((bench.space.usage().file, bench.byte(1)), (1, 42));
    let pins = bench.space.pin(&mut bench.cpu, range(1, 1), Access::Write).unwrap();
    assert_eq!(pins.frames(), [frame]);
    drop((pins, page));
    bench.put(1, 43);
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    bench.space.unmap(&mut bench.cpu, range(0, 4)).unwrap();
    assert_eq!((get(&child, &mut bench.cpu, 1), child.usage().file), (43, 1));
    bench.finish(&[&child]);
}

#[test]
fn raw_areas_neither_merge_nor_grow() {
    let mut bench = Bench::new(64);
    map(&mut bench, 0, 2, Sharing::Shared);
    map(&mut bench, 2, 2, Sharing::Shared);
    let mut areas = 0;
    bench.space.areas(&mut bench.cpu, |_| areas += 1);
    assert_eq!(areas, 2);
    let mut request = RemapRequest {
        addr: at(2),
        old_len: 2 * PAGE_SIZE,
        new_len: 4 * PAGE_SIZE,
        destination: Destination::Anywhere,
        keep: false,
    };
    assert_eq!(bench.space.remap(&mut bench.cpu, request), Err(RemapError::Unmapped));
    request.new_len = PAGE_SIZE;
    assert_eq!(bench.space.remap(&mut bench.cpu, request), Ok(at(2)));
    bench.space.protect(&mut bench.cpu, range(0, 1), Rights::READ).unwrap();
    bench.finish(&[]);
}

#[test]
fn a_recount_passes_frames_outside_of_ram() {
    let mut bench = Bench::new(128);
    map(&mut bench, 0, 1, Sharing::Shared);
    insert(&mut bench, 0, 1, FrameId::new(1 << 20)).unwrap();
    bench.vm.audit(&mut bench.cpu, &[&bench.space], &[]).unwrap();
    bench.finish(&[]);
}
