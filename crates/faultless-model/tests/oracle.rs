//! The oracle itself: one scenario per rule, with the expected states written out.

use faultless_model::{
    AreaView, Limits, MapRefusal, PAGE, Place, ProtectRefusal, Request, Resident, Rights, Shows, Source, SpaceId,
    Touch, Verdict, World,
};

const BASE: u64 = 0x10_0000;

fn world() -> (World, SpaceId) {
    let mut world = World::new(Limits::linux());
    let space = world.new_space();
    (world, space)
}

fn fixed(at: u64, pages: u64) -> Request {
    Request { place: Place::Fixed(at), ..Request::anonymous(pages * PAGE) }
}

fn byte(world: &mut World, space: SpaceId, at: u64) -> u8 {
    let mut byte = [0];
    world.read(space, at, &mut byte).expect("mapped");
    byte[0]
}

fn resident(anon: u64, file: u64, memory: u64) -> Resident {
    Resident { anon, file, memory }
}

fn ranges(world: &World, space: SpaceId) -> Vec<(u64, u64, String)> {
    let show = |area: &AreaView| (area.start, area.end, area.attributes.rights.letters());
    world.areas(space).iter().map(show).collect()
}

#[test]
fn reads_of_untouched_memory_are_zero_and_uncounted() {
    let (mut world, space) = world();
    world.map(space, &fixed(BASE, 2)).unwrap();
    assert_eq!(byte(&mut world, space, BASE), 0);
    assert_eq!(world.resident(space), resident(0, 0, 0));
    world.write(space, BASE + PAGE, &[7]).unwrap();
    assert_eq!(world.resident(space), resident(1, 0, 0));
}

#[test]
fn fork_is_a_clone_and_shared_memory_is_not() {
    let (mut world, parent) = world();
    world.map(parent, &fixed(BASE, 1)).unwrap();
    world.map(parent, &Request { shared: true, ..fixed(BASE + PAGE, 1) }).unwrap();
    world.write(parent, BASE, &[1]).unwrap();
    world.write(parent, BASE + PAGE, &[2]).unwrap();
    let child = world.fork(parent);
    world.write(child, BASE, &[3]).unwrap();
    world.write(child, BASE + PAGE, &[4]).unwrap();
    assert_eq!((byte(&mut world, parent, BASE), byte(&mut world, parent, BASE + PAGE)), (1, 4));
    assert_eq!((byte(&mut world, child, BASE), byte(&mut world, child, BASE + PAGE)), (3, 4));
    assert_eq!((world.resident(parent), world.resident(child)), (resident(1, 0, 1), resident(1, 0, 1)));
    world.exit(child);
    assert_eq!(world.resident(child), resident(0, 0, 0));
    assert_eq!(world.touch(child, BASE, Touch::Read), Err(Verdict::Unmapped));
}

#[test]
fn private_file_pages_are_counted_as_file_until_they_are_written() {
    let (mut world, space) = world();
    let file = world.new_object(PAGE + 10, Source::File { bytes: vec![9; 4100], broken: vec![] });
    world.map(space, &Request { shows: Shows::Object(file, 0), ..fixed(BASE, 3) }).unwrap();
    assert_eq!(byte(&mut world, space, BASE + PAGE + 9), 0, "beyond the bytes, before the end");
    assert_eq!(byte(&mut world, space, BASE), 9);
    assert_eq!(world.resident(space), resident(0, 2, 0));
    world.write(space, BASE, &[1]).unwrap();
    assert_eq!(world.resident(space), resident(1, 1, 0));
    assert_eq!(world.object_bytes(file, 0, 1), [9]);
    assert_eq!(world.touch(space, BASE + 2 * PAGE, Touch::Read), Err(Verdict::Bus));
    world.resize(file, 0);
    assert_eq!(world.resident(space), resident(0, 0, 0), "copies go too");
    world.resize(file, PAGE);
    assert_eq!(byte(&mut world, space, BASE), 0, "what was cut off is gone for ever");
}

#[test]
fn unmap_and_protect_split_areas() {
    let (mut world, space) = world();
    world.map(space, &fixed(BASE, 4)).unwrap();
    world.write(space, BASE + PAGE, &[1]).unwrap();
    world.protect(space, BASE + PAGE, BASE + 2 * PAGE, Rights::NONE).unwrap();
    assert_eq!(world.touch(space, BASE + PAGE, Touch::Read), Err(Verdict::Denied));
    assert_eq!(world.resident(space), resident(1, 0, 0), "a page without rights stays");
    world.protect(space, BASE + PAGE, BASE + 2 * PAGE, Rights::READ_WRITE).unwrap();
    assert_eq!(byte(&mut world, space, BASE + PAGE), 1);
    assert_eq!(ranges(&world, space), [(BASE, BASE + 4 * PAGE, "rw-".into())]);
    assert!(world.unmap(space, BASE + PAGE, BASE + 2 * PAGE));
    let stopped = world.protect(space, BASE, BASE + 4 * PAGE, Rights::READ);
    assert_eq!(stopped, Err(ProtectRefusal::Unmapped(BASE + PAGE)));
    let left = [(BASE, BASE + PAGE, "r--".into()), (BASE + 2 * PAGE, BASE + 4 * PAGE, "rw-".into())];
    assert_eq!(ranges(&world, space), left);
}

#[test]
fn placement_goes_down_from_the_top_and_respects_what_is_there() {
    let (mut world, space) = world();
    let top = Limits::linux().top;
    assert_eq!(world.map(space, &Request::anonymous(PAGE)), Ok(top - PAGE));
    assert_eq!(world.map(space, &Request::anonymous(3 * PAGE)), Ok(top - 4 * PAGE));
    assert!(world.unmap(space, top - PAGE, top));
    assert_eq!(world.map(space, &Request::anonymous(1)), Ok(top - PAGE), "the gap is used again");
    let taken = Request { place: Place::FixedNoReplace(top - PAGE), ..Request::anonymous(PAGE) };
    assert_eq!(world.map(space, &taken), Err(MapRefusal::Exists));
    let hint = Request { place: Place::Hint(top - PAGE), ..Request::anonymous(PAGE) };
    assert_eq!(world.map(space, &hint), Ok(top - 5 * PAGE));
    assert_eq!(world.map(space, &Request::anonymous(0)), Err(MapRefusal::Invalid));
    assert_eq!(world.map(space, &fixed(BASE + 1, 1)), Err(MapRefusal::Invalid));
    assert_eq!(world.map(space, &fixed(0, 1)), Err(MapRefusal::NotPermitted));
    let most = Request { most: Rights::READ, ..fixed(BASE, 1) };
    assert_eq!(world.map(space, &most), Err(MapRefusal::Denied));
}

#[test]
fn stacks_grow_and_keep_their_distance() {
    let (mut world, space) = world();
    let stack = BASE + 2000 * PAGE;
    world.map(space, &Request { grows: true, ..fixed(stack, 1) }).unwrap();
    world.write(space, stack - 3 * PAGE, &[1]).unwrap();
    assert_eq!(ranges(&world, space), [(stack - 3 * PAGE, stack + PAGE, "rw-".into())]);
    world.map(space, &fixed(stack - 300 * PAGE, 1)).unwrap();
    assert_eq!(world.touch(space, stack - 44 * PAGE, Touch::Read), Err(Verdict::Unmapped));
    assert_eq!(world.touch(space, stack - 43 * PAGE, Touch::Read), Ok(()), "256 pages stay free");
}

#[test]
fn the_heap_keeps_a_page_from_what_follows() {
    let (mut world, space) = world();
    world.set_brk(space, BASE + 8);
    assert_eq!(world.brk(space, BASE + 100), BASE + 100, "inside the page of the start: nothing to map");
    assert_eq!(world.touch(space, BASE, Touch::Write), Err(Verdict::Unmapped));
    world.map(space, &fixed(BASE + 4 * PAGE, 1)).unwrap();
    assert_eq!(world.brk(space, BASE + 4 * PAGE), BASE + 100, "no page between");
    assert_eq!(world.brk(space, BASE + 3 * PAGE), BASE + 3 * PAGE);
    world.write(space, BASE + PAGE, &[5]).unwrap();
    assert_eq!(world.brk(space, BASE), BASE + 3 * PAGE, "below the start");
    assert_eq!(world.brk(space, BASE + 8), BASE + 8);
    assert_eq!(world.resident(space), resident(0, 0, 0));
    assert_eq!(world.brk(space, BASE + 2 * PAGE), BASE + 2 * PAGE);
    assert_eq!(byte(&mut world, space, BASE + PAGE), 0, "a heap that grows again is fresh");
    assert!(world.unmap(space, BASE + PAGE, BASE + 2 * PAGE));
    assert_eq!(world.brk(space, BASE + 8), BASE + 2 * PAGE, "nothing of it is left");
}
