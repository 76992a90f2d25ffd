//! Random mmap, munmap and mprotect in the arena, each with its result and what is left.
//!
//! Unlike in the other groups the state goes on from call to call, so areas split, merge
//! and shift in ways no table lists. Rows: VM-01, VM-04, VM-05, VM-06.

use crate::Lines;
use crate::ranges::{Map, flag_names};
use crate::stage::{PAGES, Stage, number};
use faultless_guest::rng::Rng;
use faultless_guest::sys::{ANON, NONE, PAGE, RO, RW, SHARED_ANON};

/// All random calls.
pub fn fuzz(stage: &mut Stage, lines: &mut Lines) {
    let mut rng = Rng::lane(stage.report.seed(), 77);
    stage.reset();
    for _ in 0..stage.fuzz {
        let text = match rng.below(8) {
            0..3 => map(stage, &mut rng),
            3..5 => unmap(stage, &mut rng),
            5..7 => protect(stage, &mut rng),
            _ => write(stage, &mut rng),
        };
        lines.add(format_args!("{text} {}", stage.look()));
    }
}

/// Mostly a range of whole pages inside the arena, sometimes an odd one.
fn range(stage: &Stage, rng: &mut Rng) -> (usize, usize) {
    let (first, count) = rng.range(PAGES, 8);
    let odd = if rng.chance(1, 12) { 1 + rng.below(PAGE - 1) } else { 0 };
    let len = match rng.below(12) {
        0 => 0,
        // Rounded up to the same number of pages, so it stays inside.
        1 => count * PAGE - rng.below(PAGE),
        _ => count * PAGE,
    };
    (stage.arena.page_addr(first) + odd, len)
}

fn map(stage: &Stage, rng: &mut Rng) -> String {
    let (addr, len) = range(stage, rng);
    let prot = *rng.pick(&[RW, RW, RO, NONE]);
    let file = stage.file.fd;
    let (flags, fd) = *rng.pick(&[
        (ANON, -1),
        (ANON, -1),
        (SHARED_ANON, -1),
        (libc::MAP_PRIVATE, file),
        (libc::MAP_SHARED, file),
        (libc::MAP_SHARED, stage.read_only),
        (libc::MAP_PRIVATE, stage.write_only),
        (libc::MAP_ANONYMOUS, -1),
    ]);
    let fixed = *rng.pick(&[libc::MAP_FIXED, libc::MAP_FIXED, libc::MAP_FIXED_NOREPLACE, 0]);
    let offset = if flags & libc::MAP_ANONYMOUS == 0 { rng.below(3) * PAGE } else { 0 };
    let got = stage.mmap(Map { addr, len, prot, flags: flags | fixed, fd, offset });
    let (name, flags, got) = (stage.name(addr), flag_names(flags | fixed), stage.place(got));
    format!("mmap {name}, {len:#x}, prot {prot}, {flags}, {offset:#x} -> {got}")
}

fn unmap(stage: &Stage, rng: &mut Rng) -> String {
    let (addr, len) = range(stage, rng);
    let got = number(stage.munmap(addr, len));
    format!("munmap {}, {len:#x} -> {got}", stage.name(addr))
}

fn protect(stage: &Stage, rng: &mut Rng) -> String {
    let (addr, len) = range(stage, rng);
    let prot = *rng.pick(&[RW, RW, RO, RO, NONE, libc::PROT_WRITE, 0x20]);
    let got = number(stage.mprotect(addr, len, prot));
    format!("mprotect {}, {len:#x}, prot {prot} -> {got}", stage.name(addr))
}

/// Content, so that `look` can tell what was kept from what was replaced.
fn write(stage: &Stage, rng: &mut Rng) -> String {
    let page = rng.below(PAGES);
    let got = stage.arena.try_store(page * PAGE + PAGE / 2, rng.next());
    let got = got.map_err(|trap| format!("{trap:?}"));
    format!("store to page {page} -> {got:?}")
}
