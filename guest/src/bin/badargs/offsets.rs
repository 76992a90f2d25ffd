//! Faults at each of the 4096 offsets of a page, and accesses across a border.
//!
//! Each sweep prints one line: how many offsets behaved, and a checksum of what was seen.
//! Rows: F-10, AN-01, AN-02, CW-01, VM-04, TB-04.

use crate::Lines;
use crate::stage::Stage;
use faultless_guest::arena::Arena;
use faultless_guest::child::{self, Note};
use faultless_guest::probe::{Trap, accerr, maperr};
use faultless_guest::rng::mix;
use faultless_guest::sys::{End, NONE, PAGE, RO, RW};

/// Pages used by the sweeps that write to a page per offset.
const BATCH: usize = 256;

/// Result of one offset: a value to fold into the checksum, or what was wrong.
type Seen = Result<u64, String>;

/// All sweeps.
pub fn offsets(stage: &mut Stage, lines: &mut Lines) {
    sweep(lines, "load of an untouched page", |offset| fresh_load(stage, offset));
    sweep(lines, "store to an untouched page", |offset| fresh_store(stage, offset));
    stage.reset();
    let arena = stage.arena;
    let addr = |page: usize, offset: usize| arena.addr(page * PAGE + offset);
    sweep(lines, "load of a hole", |k| trap(arena, 4, k, false, maperr(addr(4, k))));
    sweep(lines, "store to a hole", |k| trap(arena, 4, k, true, maperr(addr(4, k))));
    sweep(lines, "store to a read-only page", |k| trap(arena, 5, k, true, accerr(addr(5, k))));
    sweep(lines, "load without access", |k| trap(arena, 7, k, false, accerr(addr(7, k))));
    sweep(lines, "store without access", |k| trap(arena, 7, k, true, accerr(addr(7, k))));
    border(stage, lines);
    file_copies(stage, lines);
    fork_copies(stage, lines);
}

fn sweep(lines: &mut Lines, name: &str, mut each: impl FnMut(usize) -> Seen) {
    let mut good = 0;
    let mut sum = 0_u64;
    let mut first = String::new();
    for offset in 0..PAGE {
        match each(offset) {
            Ok(value) => {
                good += 1;
                sum = mix(sum ^ value);
            }
            Err(text) if first.is_empty() => first = format!(", first at {offset}: {text}"),
            Err(_) => {}
        }
    }
    lines.add(format_args!("{name}: {good} of {PAGE} offsets, {sum:#018x}{first}"));
}

fn fresh_load(stage: &Stage, offset: usize) -> Seen {
    stage.arena.map(20, 1, RW).map_err(|error| error.to_string())?;
    let got = stage.arena.load_byte(20 * PAGE + offset);
    if got == 0 { Ok(offset as u64) } else { Err(format!("{got:#x}")) }
}

fn fresh_store(stage: &Stage, offset: usize) -> Seen {
    stage.arena.map(20, 1, RW).map_err(|error| error.to_string())?;
    stage.arena.store_byte(20 * PAGE + offset, 0xa5);
    only_changed(stage.arena, 20, offset, |_| 0)?;
    Ok(offset as u64)
}

/// All bytes of a page but the one at `offset`, which is 0xa5, must be `old`.
fn only_changed(arena: Arena, page: usize, offset: usize, old: impl Fn(usize) -> u8) -> Seen {
    for index in 0..PAGE {
        let want = if index == offset { 0xa5 } else { old(index) };
        let got = arena.load_byte(page * PAGE + index);
        if got != want {
            return Err(format!("byte {index} is {got:#x}, want {want:#x}"));
        }
    }
    Ok(0)
}

fn trap(arena: Arena, page: usize, offset: usize, store: bool, want: Trap) -> Seen {
    // A word across the end of the page faults in the page all the same: it comes first.
    let got =
        if store { arena.try_store(page * PAGE + offset, 1).err() } else { arena.try_load(page * PAGE + offset).err() };
    if got == Some(want) { Ok(want.addr as u64) } else { Err(format!("{got:?}")) }
}

/// Words across the border of two pages with different rights. A store that faults in its
/// second part changes nothing in the first.
fn border(stage: &Stage, lines: &mut Lines) {
    let base = stage.arena.part(0, 2);
    let cases: &[(&str, Option<i32>, Option<i32>)] = &[
        ("both mapped", Some(RW), Some(RW)),
        ("second a hole", Some(RW), None),
        ("second read-only", Some(RW), Some(RO)),
        ("second without access", Some(RW), Some(NONE)),
        ("first a hole", None, Some(RW)),
        ("first read-only", Some(RO), Some(RW)),
        ("both holes", None, None),
    ];
    for (name, first, second) in cases {
        for offset in PAGE - 7..PAGE {
            stage.reset();
            for (page, rights) in [first, second].into_iter().enumerate() {
                let done = match rights {
                    Some(prot) => base.protect(page, 1, *prot),
                    None => base.unmap(page, 1),
                };
                stage.report.need("border", done);
            }
            let load = base.try_load(offset).map_err(|trap| short(stage, trap));
            let before = base.try_load(PAGE - 8);
            let store = base.try_store(offset, !0).map_err(|trap| short(stage, trap));
            let kept = base.try_load(PAGE - 8) == before;
            let load = load.map(|_| ());
            lines.add(format_args!(
                "border, {name}, {offset}: load {load:?}, store {store:?}, first page {}",
                if kept { "kept" } else { "changed" },
            ));
        }
    }
}

fn short(stage: &Stage, trap: Trap) -> String {
    let code = format!("{trap:?}");
    let kind = code.split(' ').next().unwrap_or_default();
    format!("{kind} {}", stage.name(trap.addr))
}

/// The first write to a private file page copies the whole page, wherever it hits.
fn file_copies(stage: &Stage, lines: &mut Lines) {
    let key = 0x5151_5151;
    stage.report.need("pwrite", stage.file.fill(0, key));
    let page = faultless_guest::object::bytes(key);
    sweep(lines, "copy of a private file page", |offset| {
        let arena = stage.arena;
        let mapped = arena.map_as(20, 1, RW, libc::MAP_PRIVATE, stage.file.fd, 0);
        mapped.map_err(|error| error.to_string())?;
        arena.store_byte(20 * PAGE + offset, 0xa5);
        only_changed(arena, 20, offset, |index| page[index])?;
        Ok(offset as u64)
    });
    let mut now = [0_u8; PAGE];
    stage.report.need("pread", stage.file.read(0, &mut now));
    lines.add(format_args!("the file is {}", if now == page { "unchanged" } else { "changed" }));
}

/// The same for pages shared by fork, a batch of pages per child.
fn fork_copies(stage: &Stage, lines: &mut Lines) {
    let arena = Arena::new(21, BATCH);
    let key = |page: usize| mix(page as u64) | 1;
    stage.report.need("mmap", arena.map(0, BATCH, RW));
    let note = Note::new();
    let mut child = 0;
    sweep(lines, "copy of a page shared by fork", |offset| {
        let page = offset % BATCH;
        if page == 0 {
            finish(&note, child)?;
            (0..BATCH).for_each(|page| arena.fill(page, key(page)));
            note.set(0, 0);
            child = child::spawn(|| keep(&note, arena));
        }
        let old = faultless_guest::object::bytes(key(page));
        arena.store_byte(page * PAGE + offset, 0xa5);
        only_changed(arena, page, offset, |index| old[index])?;
        Ok(offset as u64)
    });
    let last = finish(&note, child);
    lines.add(format_args!("children kept their pages: {last:?}"));
    stage.report.need("munmap", arena.unmap(0, BATCH));
}

/// The child waits until the parent has written everywhere, and still has all old bytes.
fn keep(note: &Note, arena: Arena) -> i32 {
    note.wait(0, 1);
    let right = (0..BATCH).all(|page| arena.verify(page, mix(page as u64) | 1).is_ok());
    i32::from(!right)
}

fn finish(note: &Note, child: i32) -> Seen {
    if child == 0 {
        return Ok(0);
    }
    note.set(0, 1);
    match faultless_guest::sys::wait(child) {
        Ok((_, End::Exit(0))) => Ok(0),
        other => Err(format!("{other:?}")),
    }
}
