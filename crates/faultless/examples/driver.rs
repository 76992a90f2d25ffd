//! How a driver shows programs what it has: frames that `faultless` never got, and pages that it allocates (PF-01).
//!
//! The machine is that of `embed.rs`, with four frames kept back, as a device's memory would be. `kernel/src/fs/frames.rs`
//! is the same for real programs.

#[allow(dead_code)] // it is an example of its own
#[path = "embed.rs"]
mod embed;

use embed::Bytes;
use faultless::{
    Access, Backing, Cpu, CpuId, FaultError, FrameId, FrameRange, InsertError, Layout, Machine, MapRequest, PAGE_SIZE,
    RawFrames, Sharing, Space, VirtAddr, Vm,
};

const RAM: u64 = 256;
const KEPT: u64 = 4;

/// What a driver does when it is asked to map: an area for frames, and the frames. A failure leaves nothing mapped.
fn map(
    space: &Space<Bytes>,
    cpu: &mut Cpu<Bytes>,
    frames: RawFrames,
    pages: u64,
    sharing: Sharing,
) -> Result<VirtAddr, InsertError> {
    let len = pages * PAGE_SIZE;
    let request = MapRequest { sharing, backing: Backing::Frames, ..MapRequest::anonymous(len) };
    let at = space.map(cpu, request).expect("room");
    space.insert_frames(cpu, at, frames).inspect_err(|_| {
        let range = faultless::PageRange::with_len(at, len).expect("it was mapped");
        space.unmap(cpu, range).expect("it is whole");
    })?;
    Ok(at)
}

fn byte(space: &Space<Bytes>, cpu: &mut Cpu<Bytes>, at: VirtAddr) -> u8 {
    let mut byte = [0];
    space.read(cpu, at, &mut byte).expect("mapped");
    byte[0]
}

fn main() {
    let mut machine = Bytes::new(RAM + KEPT);
    machine.ram = [FrameRange { start: FrameId::new(0), end: FrameId::new(RAM) }];
    let vm = Vm::new(machine).expect("a sound machine");
    let mut cpu = vm.cpu(CpuId::new(0)).expect("the first to ask");
    let space = vm.new_space(&mut cpu, Layout::linux()).expect("memory");
    // SAFETY: the machine keeps these frames back, and this program uses them for nothing else.
    let frames = unsafe { RawFrames::new(FrameId::new(RAM), KEPT) };
    vm.machine().write(frames.base(), 0, b"d");

    // Shared: the device's own frames. They cost nothing, are not counted, and stay when the mapping goes.
    let shared = map(&space, &mut cpu, frames, KEPT, Sharing::Shared).expect("tables");
    space.fault(&mut cpu, shared, Access::Write).expect("mapped for writing");
    assert_eq!(space.usage().resident(), 0);
    // What is not RAM is reached by the program alone: faultless does not look at it, and pins none of it (GU-04).
    assert!(space.read(&mut cpu, shared, &mut [0]).is_err());
    assert!(space.pin(&mut cpu, faultless::PageRange::page(shared), Access::Read).is_err());

    // Private: the frames until a store, then a copy that is a page like any other.
    let private = map(&space, &mut cpu, frames, KEPT, Sharing::Private).expect("tables");
    space.write(&mut cpu, private, b"p").expect("a copy");
    assert_eq!((byte(&space, &mut cpu, private), space.usage().anon), (b'p', 1));
    // Shared mappings may be filled in part: the rest is SIGBUS. Private ones may not.
    let part = map(&space, &mut cpu, frames.take(1), 2, Sharing::Shared).expect("tables");
    let hole = VirtAddr::new(part.as_u64() + PAGE_SIZE);
    assert_eq!(space.fault(&mut cpu, hole, Access::Read), Err(FaultError::Bus));
    assert_eq!(map(&space, &mut cpu, frames.take(1), 2, Sharing::Private), Err(InsertError::Invalid));

    // A page of the driver's own is counted, may be pinned, and lives until nobody has it.
    let page = vm.new_page(&mut cpu).expect("memory");
    page.write(&mut cpu, 0, b"k");
    let request = MapRequest { sharing: Sharing::Shared, backing: Backing::Frames, ..MapRequest::anonymous(PAGE_SIZE) };
    let at = space.map(&mut cpu, request).expect("room");
    space.insert_page(&mut cpu, at, &page).expect("tables");
    drop(page);
    assert_eq!((byte(&space, &mut cpu, at), space.usage().file), (b'k', 1));

    let mut original = [0];
    vm.machine().read(frames.base(), 0, &mut original);
    assert_eq!(original, *b"d");
    println!("{:?}", space.usage());
    space.exit(&mut cpu);
    vm.audit(&mut cpu, &[], &[]).expect("nothing leaks");
}

#[test]
fn the_example_does_what_it_says() {
    main();
}
