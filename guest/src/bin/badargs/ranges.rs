//! mmap, munmap, mprotect and brk with every kind of bad range, flag, right and file.
//!
//! Rows: VM-04, VM-05, VM-06, TB-04, F-15.

use crate::Lines;
use crate::stage::{KERNEL, NON_CANONICAL, PAGES, Stage, TOP, number, open};
use faultless_guest::child;
use faultless_guest::sys::{self, ANON, PAGE, RO, RW, Result, SHARED_ANON};

/// Lengths from empty to longer than the address space.
const LENGTHS: &[usize] = &[0, 1, PAGE, PAGE + 1, 3 * PAGE, TOP, 1 << 47, usize::MAX - PAGE + 1, usize::MAX];

/// The arguments of one mmap.
#[derive(Clone, Copy)]
pub struct Map {
    /// Address.
    pub addr: usize,
    /// Length.
    pub len: usize,
    /// Rights.
    pub prot: i32,
    /// Flags.
    pub flags: i32,
    /// File.
    pub fd: i32,
    /// Offset.
    pub offset: usize,
}

impl Stage<'_> {
    /// Calls mmap; what it puts outside the arena is taken away again.
    pub fn mmap(&self, map: Map) -> Result {
        let Map { addr, len, prot, flags, fd, offset } = map;
        // SAFETY: fixed addresses of this program lie in the arena or are the kernel's.
        let got = unsafe { sys::mmap(addr, len, prot, flags, fd, offset) };
        if let Ok(at) = got
            && self.place(got) == "somewhere"
        {
            // SAFETY: the kernel has just put it there, and nobody uses it.
            let gone = unsafe { sys::munmap(at, len) };
            self.report.need("munmap of what was put somewhere", gone);
        }
        got
    }

    /// Calls munmap.
    pub fn munmap(&self, addr: usize, len: usize) -> Result {
        // SAFETY: ranges of this program lie in the arena, hold nothing, or are refused.
        unsafe { sys::munmap(addr, len) }
    }

    /// Calls mprotect.
    pub fn mprotect(&self, addr: usize, len: usize, prot: i32) -> Result {
        // SAFETY: ranges of this program lie in the arena, hold nothing, or are refused.
        unsafe { sys::mprotect(addr, len, prot) }
    }
}

/// Flags by name; what has no name is a number.
pub fn flag_names(flags: i32) -> String {
    let kind = match flags & 0xf {
        libc::MAP_SHARED => "SHARED".into(),
        libc::MAP_PRIVATE => "PRIVATE".into(),
        libc::MAP_SHARED_VALIDATE => "VALIDATE".into(),
        other => format!("type {other}"),
    };
    let known = [
        (libc::MAP_ANONYMOUS, "ANON"),
        (libc::MAP_FIXED, "FIXED"),
        (libc::MAP_FIXED_NOREPLACE, "NOREPLACE"),
        (libc::MAP_GROWSDOWN, "GROWSDOWN"),
        (libc::MAP_SYNC, "SYNC"),
    ];
    let mut text = kind;
    let mut rest = flags & !0xf;
    for (bit, name) in known {
        if rest & bit != 0 {
            text = format!("{text}|{name}");
            rest &= !bit;
        }
    }
    if rest == 0 { text } else { format!("{text}|{rest:#x}") }
}

/// Addresses, lengths, kinds and offsets of mmap.
pub fn mmap(stage: &mut Stage, lines: &mut Lines) {
    let base = stage.arena.addr(0);
    let anon = libc::MAP_ANONYMOUS;
    let kinds = [
        (ANON | libc::MAP_FIXED, -1),
        (SHARED_ANON | libc::MAP_FIXED, -1),
        (ANON | libc::MAP_FIXED_NOREPLACE, -1),
        (ANON, -1),
        (libc::MAP_PRIVATE | libc::MAP_FIXED, stage.file.fd),
        (libc::MAP_SHARED | libc::MAP_FIXED, stage.file.fd),
    ];
    let addresses = [base, base + 1, base + 4 * PAGE, TOP, KERNEL, NON_CANONICAL];
    for (flags, fd) in kinds {
        for addr in addresses {
            for len in LENGTHS {
                mmap_line(stage, lines, Map { addr, len: *len, prot: RW, flags, fd, offset: 0 });
            }
        }
    }
    let hole = base + 16 * PAGE;
    let strange = [anon, anon | 3, anon | 4, anon | 15, anon | 1 | libc::MAP_GROWSDOWN];
    for flags in strange.map(|flags| flags | libc::MAP_FIXED) {
        mmap_line(stage, lines, Map { addr: hole, len: PAGE, prot: RW, flags, fd: -1, offset: 0 });
    }
    let validate = libc::MAP_SHARED_VALIDATE | libc::MAP_FIXED;
    for flags in [validate, validate | libc::MAP_SYNC, validate | 0x0100_0000, 0x0100_0012] {
        let fd = stage.file.fd;
        mmap_line(stage, lines, Map { addr: hole, len: PAGE, prot: RO, flags, fd, offset: 0 });
    }
    for offset in [1, PAGE - 1, PAGE, 3 * PAGE, 4 * PAGE, 1 << 40, 1 << 62, usize::MAX - PAGE + 1] {
        for (flags, fd) in [(ANON, -1), (libc::MAP_SHARED, stage.file.fd)] {
            let flags = flags | libc::MAP_FIXED;
            mmap_line(stage, lines, Map { addr: hole, len: 2 * PAGE, prot: RO, flags, fd, offset });
        }
    }
}

fn mmap_line(stage: &Stage, lines: &mut Lines, map: Map) {
    stage.reset();
    let got = stage.mmap(map);
    let file = if map.fd == -1 { "none" } else { "file" };
    lines.add(format_args!(
        "{}, {:#x}, {}, {file}, {:#x} -> {} {}",
        stage.name(map.addr),
        map.len,
        flag_names(map.flags),
        map.offset,
        stage.place(got),
        stage.look(),
    ));
}

/// Files of every kind with every right.
pub fn mmap_files(stage: &mut Stage, lines: &mut Lines) {
    let pipe = stage.report.need("pipe", sys::pipe());
    let need = |path: &[u8], flags| stage.report.need("open", open(path, flags));
    let root = need(b"/\0", libc::O_RDONLY);
    let null = need(b"/dev/null\0", libc::O_RDWR);
    let zero = need(b"/dev/zero\0", libc::O_RDWR);
    let files = [
        ("read-write", stage.file.fd),
        ("read-only", stage.read_only),
        ("write-only", stage.write_only),
        ("pipe", pipe.0),
        ("directory", root),
        ("/dev/null", null),
        ("/dev/zero", zero),
        ("none", -1),
        ("closed", 999),
    ];
    let rights = [("NONE", 0), ("R", RO), ("W", libc::PROT_WRITE), ("RW", RW), ("0x40", 0x40)];
    for (file, fd) in files {
        for (kind, flags) in [("PRIVATE", libc::MAP_PRIVATE), ("SHARED", libc::MAP_SHARED)] {
            for (right, prot) in rights {
                stage.reset();
                let flags = flags | libc::MAP_FIXED;
                let addr = stage.arena.page_addr(17);
                let got = stage.mmap(Map { addr, len: PAGE, prot, flags, fd, offset: 0 });
                let (got, look) = (stage.place(got), stage.look());
                let later = upgrade(stage, addr);
                lines.add(format_args!("{file}, {kind}, {right} -> {got} {look}, {later}"));
            }
        }
    }
    [pipe.0, pipe.1, root, null, zero].into_iter().for_each(sys::close);
}

/// Whether the mapping may become writable later.
fn upgrade(stage: &Stage, addr: usize) -> String {
    let got = stage.mprotect(addr, PAGE, RW);
    format!("then mprotect RW -> {}", number(got))
}

/// Addresses and lengths of munmap.
pub fn munmap(stage: &mut Stage, lines: &mut Lines) {
    let addresses = [0, 2, 4, 7, 11, 15, 20].map(|page| stage.arena.page_addr(page));
    let odd = [stage.arena.addr(1), 0, TOP, TOP - PAGE + 1, KERNEL, NON_CANONICAL, usize::MAX];
    for addr in addresses.into_iter().chain(odd) {
        // munmap(0, TOP) is a valid way to lose everything.
        for len in LENGTHS.iter().filter(|len| addr != 0 || **len != TOP) {
            stage.reset();
            let got = number(stage.munmap(addr, *len));
            lines.add(format_args!("{}, {len:#x} -> {got} {}", stage.name(addr), stage.look()));
        }
    }
}

/// Addresses, lengths and rights of mprotect.
pub fn mprotect(stage: &mut Stage, lines: &mut Lines) {
    let rights = [
        ("NONE", 0),
        ("R", RO),
        ("W", libc::PROT_WRITE),
        ("RW", RW),
        ("RX", RO | libc::PROT_EXEC),
        ("0x10", 0x10),
        ("R|GROWSDOWN", RO | 0x0100_0000),
        ("R|GROWSDOWN|GROWSUP", RO | 0x0300_0000),
        ("-1", -1),
    ];
    let addresses = [0, 3, 4, 5, 7, 10, 13, 15].map(|page| stage.arena.page_addr(page));
    for (right, prot) in rights {
        for addr in addresses.into_iter().chain([stage.arena.addr(1)]) {
            for len in [0, 1, 2 * PAGE + 1, PAGES * PAGE] {
                mprotect_line(stage, lines, addr, len, (right, prot));
            }
        }
    }
    for addr in [stage.arena.addr(0), TOP, TOP - PAGE, KERNEL, NON_CANONICAL, !0xfff] {
        // TOP - PAGE may be the stack itself, which must keep its rights.
        for len in LENGTHS.iter().filter(|len| addr != TOP - PAGE || **len > PAGE) {
            mprotect_line(stage, lines, addr, *len, ("RW", RW));
        }
    }
}

fn mprotect_line(stage: &Stage, lines: &mut Lines, addr: usize, len: usize, right: (&str, i32)) {
    stage.reset();
    let got = number(stage.mprotect(addr, len, right.1));
    let (name, look) = (stage.name(addr), stage.look());
    lines.add(format_args!("{name}, {len:#x}, {} -> {got} {look}", right.0));
}

/// Breaks, relative to the first whole page above the break. In a child of its own, and
/// without a line printed in between, because libc's allocator lives there too.
pub fn brk(stage: &mut Stage, lines: &mut Lines) {
    let note = &stage.note;
    (0..64).for_each(|index| note.set(index, 0));
    let end = child::run(|| {
        // SAFETY: asks only.
        let first = unsafe { sys::brk(0) }.next_multiple_of(PAGE);
        let block = first + 16 * PAGE;
        let flags = ANON | libc::MAP_FIXED_NOREPLACE;
        for (index, (_, ask)) in BREAKS.iter().enumerate() {
            if *ask == Ask::Block {
                // SAFETY: the flag refuses to replace anything.
                let got = unsafe { sys::mmap(block, PAGE, RW, flags, -1, 0) };
                note.set(index, u64::from(got == Ok(block)));
                continue;
            }
            // SAFETY: never below what libc has; the allocator is not used here.
            let got = unsafe { sys::brk(ask.addr(first)) };
            note.set(index, (got as u64).wrapping_sub(first as u64));
        }
        0
    });
    for (index, (name, _)) in BREAKS.iter().enumerate() {
        lines.add(format_args!("{name} -> {:#x}", note.get(index)));
    }
    lines.add(format_args!("child: {end:?}"));
}

/// What to ask of brk.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    /// The address itself.
    At(usize),
    /// Bytes above the first page.
    Above(usize),
    /// Put a mapping 16 pages above instead.
    Block,
}

impl Ask {
    const fn addr(self, first: usize) -> usize {
        match self {
            Self::At(addr) => addr,
            Self::Above(bytes) => first + bytes,
            Self::Block => 0,
        }
    }
}

const BREAKS: &[(&str, Ask)] = &[
    ("first", Ask::Above(0)),
    ("0", Ask::At(0)),
    ("1", Ask::At(1)),
    ("first+1", Ask::Above(1)),
    ("first+4096", Ask::Above(PAGE)),
    ("first+5000", Ask::Above(5000)),
    ("TOP", Ask::At(TOP)),
    ("KERNEL", Ask::At(KERNEL)),
    ("non-canonical", Ask::At(NON_CANONICAL)),
    ("-1", Ask::At(usize::MAX)),
    ("-4096", Ask::At(usize::MAX - PAGE + 1)),
    ("first+8 pages", Ask::Above(8 * PAGE)),
    ("first", Ask::Above(0)),
    ("mapping 16 pages above", Ask::Block),
    ("first+14 pages", Ask::Above(14 * PAGE)),
    ("first+15 pages", Ask::Above(15 * PAGE)),
    ("first+15 pages+1", Ask::Above(15 * PAGE + 1)),
    ("first+16 pages", Ask::Above(16 * PAGE)),
    ("first+40 pages", Ask::Above(40 * PAGE)),
    ("first", Ask::Above(0)),
];
