//! Operations as data, and a generator that likes borders: of pages, tables, stripes, objects and areas.

use faultless_hosted::Rng;
use faultless_model::{Move, PAGE, Place, Populate, Rights, Target};

/// One step. Numbers of spaces, objects and CPUs are taken modulo how many there are, so any part of a script is one.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Run {
        cpu: usize,
        space: usize,
    },
    Map {
        cpu: usize,
        space: usize,
        request: Mapping,
    },
    Unmap {
        cpu: usize,
        space: usize,
        at: u64,
        pages: u64,
    },
    Protect {
        cpu: usize,
        space: usize,
        at: u64,
        pages: u64,
        rights: Rights,
    },
    Brk {
        cpu: usize,
        space: usize,
        to: u64,
    },
    Fork {
        cpu: usize,
        space: usize,
    },
    Exit {
        cpu: usize,
        space: usize,
    },
    /// The handle is dropped without an exit.
    Drop {
        cpu: usize,
        space: usize,
    },
    Load {
        cpu: usize,
        at: u64,
        len: usize,
    },
    Store {
        cpu: usize,
        at: u64,
        len: usize,
        value: u8,
    },
    Execute {
        cpu: usize,
        at: u64,
    },
    /// One word into each of many pages.
    Fill {
        cpu: usize,
        at: u64,
        pages: u64,
        value: u8,
    },
    Read {
        cpu: usize,
        space: usize,
        at: u64,
        len: usize,
    },
    Write {
        cpu: usize,
        space: usize,
        at: u64,
        len: usize,
        value: u8,
    },
    NewObject {
        pages: u64,
        file: bool,
    },
    Resize {
        cpu: usize,
        object: usize,
        size: u64,
    },
    ReadObject {
        cpu: usize,
        object: usize,
        offset: u64,
        len: usize,
    },
    WriteObject {
        cpu: usize,
        object: usize,
        offset: u64,
        len: usize,
        value: u8,
    },
    Discard {
        cpu: usize,
        space: usize,
        at: u64,
        pages: u64,
        lazily: bool,
    },
    Remap {
        cpu: usize,
        space: usize,
        request: Move,
    },
    Populate {
        cpu: usize,
        space: usize,
        at: u64,
        pages: u64,
        how: Populate,
    },
    Force {
        cpu: usize,
        space: usize,
        at: u64,
        len: usize,
        value: u8,
    },
    Punch {
        cpu: usize,
        object: usize,
        offset: u64,
        len: u64,
    },
    /// Pin a page, look at it, let go.
    Pin {
        cpu: usize,
        space: usize,
        at: u64,
        write: bool,
    },
    /// Compare all contents and areas, recount.
    Audit {
        cpu: usize,
    },
}

/// A mapping, with its object as a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    pub place: Place,
    pub len: u64,
    pub rights: Rights,
    pub most: Rights,
    pub shared: bool,
    pub grows: bool,
    /// The object and the offset.
    pub object: Option<(usize, u64)>,
}

/// How a script is made.
#[derive(Clone, Copy)]
pub struct Shape {
    pub steps: usize,
    /// Large mappings and fills too.
    pub large: bool,
}

/// Where the heap begins.
pub const HEAP: u64 = 0x5555_0000_0000 + 100;

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Borders of leaf tables, of upper tables, of stripes; the top of the mmap area; a stack's place; both ends.
const BORDERS: [u64; 9] = [
    2048 * KIB,
    GIB,
    512 * GIB,
    2 * TIB,
    6 * TIB + 2048 * KIB,
    0x7fff_f7ff_f000,
    0x7fff_0000_0000,
    0x1_0000,
    0x7fff_ffff_f000,
];

/// Addresses that no space has: no user's, not canonical, with an end beyond 2^64.
const WILD: [u64; 6] = [0, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX - PAGE + 1, u64::MAX - 8191];

/// Any address at all, to be loaded from or stored to.
fn anywhere(rng: &mut Rng) -> u64 {
    if rng.once_in(40) { rng.pick(&WILD) + rng.below(PAGE) } else { address(rng) + offset(rng) }
}

/// A script of `shape`.
pub fn generate(rng: &mut Rng, shape: Shape) -> Vec<Step> {
    let mut script = vec![Step::NewObject { pages: 6, file: true }, Step::NewObject { pages: 5, file: false }];
    script.extend((0..shape.steps).map(|_| step(rng, shape)));
    script
}

fn step(rng: &mut Rng, shape: Shape) -> Step {
    const WEIGHTS: [u64; 25] = [6, 14, 8, 10, 3, 5, 3, 1, 14, 22, 4, 2, 5, 6, 1, 3, 3, 3, 5, 6, 3, 3, 3, 3, 1];
    let (cpu, space, object) = (rng.below(3) as usize, rng.below(8) as usize, rng.below(4) as usize);
    match rng.weighted(&WEIGHTS) {
        0 => Step::Run { cpu, space },
        1 => Step::Map { cpu, space, request: mapping(rng, shape) },
        2 => Step::Unmap { cpu, space, at: address(rng), pages: pages(rng, shape) },
        3 => Step::Protect { cpu, space, at: address(rng), pages: pages(rng, shape), rights: rights(rng) },
        4 => Step::Brk { cpu, space, to: HEAP - 50 + rng.below(6 * PAGE) },
        5 => Step::Fork { cpu, space },
        6 => Step::Exit { cpu, space },
        7 => Step::Drop { cpu, space },
        8 => Step::Load { cpu, at: anywhere(rng), len: length(rng) },
        9 => Step::Store { cpu, at: anywhere(rng), len: length(rng), value: value(rng) },
        10 => Step::Execute { cpu, at: anywhere(rng) },
        11 if shape.large => Step::Fill { cpu, at: address(rng), pages: rng.range(8, 700), value: value(rng) },
        11 => Step::Fill { cpu, at: address(rng), pages: rng.range(2, 8), value: value(rng) },
        12 => Step::Read { cpu, space, at: anywhere(rng), len: length(rng) },
        13 => Step::Write { cpu, space, at: anywhere(rng), len: length(rng), value: value(rng) },
        14 => Step::NewObject { pages: rng.range(1, 9), file: rng.once_in(2) },
        15 => Step::Resize { cpu, object, size: object_offset(rng) },
        16 => Step::ReadObject { cpu, object, offset: object_offset(rng), len: length(rng) },
        17 => Step::WriteObject { cpu, object, offset: object_offset(rng), len: length(rng).max(1), value: value(rng) },
        18 => Step::Discard { cpu, space, at: address(rng), pages: pages(rng, shape), lazily: rng.once_in(4) },
        19 => Step::Remap { cpu, space, request: movement(rng, shape) },
        20 => {
            let how = rng.pick(&[Populate::AsMapped, Populate::Read, Populate::Write]);
            Step::Populate { cpu, space, at: address(rng), pages: rng.range(1, 6), how }
        }
        21 => Step::Force { cpu, space, at: anywhere(rng), len: length(rng), value: value(rng) },
        22 => Step::Punch { cpu, object, offset: object_offset(rng), len: object_offset(rng) },
        23 => Step::Pin { cpu, space, at: address(rng), write: rng.once_in(2) },
        _ => Step::Audit { cpu },
    }
}

fn movement(rng: &mut Rng, shape: Shape) -> Move {
    let (at, old) = (address(rng), pages(rng, shape) * PAGE);
    let keep = rng.once_in(6);
    let new = match rng.below(3) {
        _ if keep => old,
        0 => old,
        _ => pages(rng, shape) * PAGE,
    };
    let target = match rng.below(4) {
        0 if !keep => Target::InPlace,
        0 | 1 => Target::Anywhere,
        // Whole tables move where both places line up.
        2 => Target::Fixed(at % (2048 * KIB) + rng.range(1, 5) * 64 * GIB),
        _ => Target::Fixed(address(rng)),
    };
    Move { at, old, new, target, keep }
}

fn mapping(rng: &mut Rng, shape: Shape) -> Mapping {
    let mut mapping = sane_mapping(rng, shape);
    // One thing wrong at a time: which of several errors is reported is nobody's business.
    match rng.below(120) {
        0 => mapping.len = 0,
        1 => mapping.len = rng.pick(&[u64::MAX, u64::MAX - PAGE, 1 << 47, 1 << 63]),
        2 => mapping.place = Place::Fixed(rng.pick(&WILD)),
        3 => mapping.place = Place::FixedNoReplace(address(rng) + 8),
        4 => mapping.object = mapping.object.map(|(object, _)| (object, 100)),
        5 => mapping.object = mapping.object.map(|(object, _)| (object, u64::MAX - PAGE + 1)),
        6 => mapping.most = Rights { read: mapping.rights.read, write: !mapping.rights.write, execute: false },
        _ => {}
    }
    mapping
}

fn sane_mapping(rng: &mut Rng, shape: Shape) -> Mapping {
    let at = address(rng);
    let place = match rng.below(8) {
        0 | 1 => Place::Anywhere,
        2 => Place::Hint(at + rng.below(2) * 123),
        3 => Place::FixedNoReplace(at),
        _ => Place::Fixed(at),
    };
    // A stack does not grow across the border of a stripe (2 TiB): a known difference from Linux.
    let grows = rng.once_in(10) && (at + 16 * PAGE) % (2 * TIB) > 2000 * PAGE;
    let object = if !grows && rng.once_in(2) { Some((rng.below(4) as usize, rng.below(5) * PAGE)) } else { None };
    let rights = if rng.once_in(3) { rights(rng) } else { Rights::READ_WRITE };
    let most = if rng.once_in(8) { rights } else { Rights::ALL };
    let shape = Shape { large: shape.large && !grows, ..shape };
    let len = pages(rng, shape) * PAGE - rng.below(2) * 7;
    Mapping { place, len, rights, most, shared: !grows && rng.once_in(3), grows, object }
}

fn address(rng: &mut Rng) -> u64 {
    let border = rng.pick(&BORDERS);
    if rng.once_in(12) {
        return (HEAP + rng.below(5 * PAGE)) / PAGE * PAGE;
    }
    // Sixteen pages around the border, seldom further off.
    let around = if rng.once_in(10) { rng.below(1200) } else { rng.below(16) };
    border - 8 * PAGE + around * PAGE
}

fn offset(rng: &mut Rng) -> u64 {
    if rng.once_in(3) { rng.pick(&[4095, 4089, 4090]) } else { rng.below(64) * 8 }
}

fn pages(rng: &mut Rng, shape: Shape) -> u64 {
    match rng.below(if shape.large { 16 } else { 12 }) {
        0..=11 => rng.range(1, 9),
        12 | 13 => rng.range(500, 1100),
        14 => GIB / PAGE + rng.below(3),
        _ => 3 * TIB / PAGE,
    }
}

fn length(rng: &mut Rng) -> usize {
    rng.pick(&[1, 2, 4, 8, 8, 8, 16, 4100, 9000])
}

fn value(rng: &mut Rng) -> u8 {
    rng.range(1, 256) as u8
}

fn object_offset(rng: &mut Rng) -> u64 {
    rng.below(9) * PAGE + rng.pick(&[0, 0, 1, 100, 4095])
}

fn rights(rng: &mut Rng) -> Rights {
    rng.pick(&[
        Rights::NONE,
        Rights::READ,
        Rights::READ_WRITE,
        Rights::READ_WRITE,
        Rights::READ_EXECUTE,
        Rights::ALL,
        Rights { execute: true, ..Rights::NONE },
        Rights { write: true, ..Rights::NONE },
    ])
}
