//! Soft-dirty and accessed bits: who has stored and loaded since somebody asked. Only with `--strict yes`.

use super::look::{PRESENT, SOFT, areas_in, clear_refs, in_pages, sums, with};
use super::{PAGES, Views};
use faultless_guest::arena::Arena;
use faultless_guest::child::{Note, spawn};
use faultless_guest::object::Object;
use faultless_guest::sys::{self, End, NONE, PAGE, RO, RW};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

const CLEAR: u32 = 4;

/// The cycle of a tracker: clear, let run, look.
pub fn soft(views: &Views) {
    if !views.strict {
        return;
    }
    let (arena, _) = views.written(2);
    let check = |what: &str, want: &[usize]| views.report.same(what, with(0, arena, SOFT), want.to_vec());
    let all: Vec<usize> = (0..PAGES).collect();
    check("new", &all);
    views.report.check(areas_in(0, arena)[0].flags.iter().any(|flag| flag == "sd"), || "no sd".to_owned());
    clear_refs(0, CLEAR);
    check("cleared", &[]);
    (0..PAGES).for_each(|page| views.report.passed(usize::from(arena.load(page * PAGE) <= PAGES as u64)));
    check("loads", &[]);
    // Pages with contents, of zeroes, and in both tables.
    let stored = [0, 1, 2, 3, 511, 512, 600];
    stored.iter().for_each(|page| arena.store(page * PAGE, 5));
    check("stores", &stored);
    views.report.need("mprotect", arena.protect(0, PAGES, RO));
    clear_refs(0, CLEAR);
    views.report.need("mprotect", arena.protect(0, PAGES, RW));
    check("other rights", &[]);
    arena.store(4 * PAGE, 1);
    views.report.need("mprotect", arena.protect(0, PAGES, NONE));
    check("without rights", &[4]);
    views.report.need("mprotect", arena.protect(0, PAGES, RO));
    clear_refs(0, CLEAR);
    let mem = OpenOptions::new().write(true).open("/proc/self/mem").expect("mem");
    views.report.same("forced", mem.write_at(&[1], arena.page_addr(8) as u64).ok(), Some(1));
    check("forced", &[8]);
    // The kernel's own stores: a system call that writes to user memory.
    views.report.need("mprotect", arena.protect(0, PAGES, RW));
    clear_refs(0, CLEAR);
    let object = views.report.need("object", Object::new(PAGE));
    let args = [object.fd as usize, arena.page_addr(10) - 100, 200, 0, 0, 0];
    // SAFETY: the target lies in an arena.
    views.report.same("pread", unsafe { sys::call(libc::SYS_pread64, args) }, Ok(200));
    check("pread", &[9, 10]);
    shared(views, &object);
}

/// Shared memory is watched as well, and new places are soft-dirty.
fn shared(views: &Views, object: &Object) {
    let arena = views.arenas[1];
    views.report.need("mmap", arena.map_as(0, 1, RW, libc::MAP_SHARED, object.fd, 0));
    arena.store(0, 1);
    clear_refs(0, CLEAR);
    views.report.same("loaded", (arena.load(0), with(0, arena, SOFT)), (1, Vec::new()));
    arena.store(0, 2);
    views.report.same("stored", with(0, arena, SOFT), vec![0]);
    let (first, target) = (views.arenas[0], arena.page_addr(20));
    let args = [first.page_addr(100), 4 * PAGE, 4 * PAGE, 3, target, 0];
    // SAFETY: both places lie in arenas.
    views.report.same("mremap", unsafe { sys::call(libc::SYS_mremap, args) }, Ok(target));
    views.report.same("moved", with(0, arena, SOFT), vec![0, 20, 21, 22, 23]);
}

/// Each process has bits of its own, whatever it shares; a child begins with its parent's.
pub fn inherit(views: &Views) {
    if !views.strict {
        return;
    }
    let (arena, _) = views.written(1);
    clear_refs(0, CLEAR);
    arena.store(3 * PAGE, 1);
    let note = Note::new();
    let child = spawn(|| {
        note.wait(0, 1);
        arena.store(7 * PAGE, 1);
        note.set(1, 1);
        note.wait(0, 2);
        0
    });
    let soft = |who: i32, arena: Arena| with(who, arena, SOFT | PRESENT);
    views.report.same("child", soft(child, arena), vec![3]);
    clear_refs(child, CLEAR);
    views.report.same("child, cleared", soft(child, arena), Vec::new());
    views.report.same("parent", soft(0, arena), vec![3]);
    note.set(0, 1);
    note.wait(1, 1);
    arena.store(9 * PAGE, 1);
    views.report.same("child", soft(child, arena), vec![7]);
    views.report.same("parent", soft(0, arena), vec![3, 9]);
    note.set(0, 2);
    views.report.same("end", sys::wait(child), Ok((child, End::Exit(0))));
}

/// Referenced: cleared for one process, and by kind of area.
pub fn referenced(views: &Views) {
    if !views.strict {
        return;
    }
    let (arena, written) = views.written(1);
    let object = views.report.need("object", Object::new(4 * PAGE));
    let file = views.arenas[1];
    views.report.need("mmap", file.map_as(0, 4, RW, libc::MAP_SHARED, object.fd, 0));
    (0..4).for_each(|page| file.store(page * PAGE, 1));
    let used = |arena: Arena| in_pages(&sums(0, arena), ["Referenced"])[0];
    views.report.same("used", (used(arena), used(file)), (written, 4));
    clear_refs(0, 3);
    views.report.same("files", (used(arena), used(file)), (written, 0));
    clear_refs(0, 2);
    views.report.same("memory", (used(arena), used(file)), (0, 0));
    // Looking is no use (GU-02).
    (0..5).for_each(|page| views.report.same("load", arena.load(page * 100 * PAGE), 1 + page as u64 * 100));
    views.report.same("loads", used(arena), 5);
    file.store(0, 3);
    clear_refs(0, 1);
    views.report.same("all", (used(arena), used(file)), (0, 0));
    views.report.same("contents", (file.load(0), arena.load(0)), (3, 1));
}
