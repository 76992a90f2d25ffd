//! /proc/PID/mem: reading and writing as a debugger does.

use super::look::{areas_in, path};
use super::{PAGES, Views};
use faultless_guest::child::{Note, spawn};
use faultless_guest::object::Object;
use faultless_guest::probe::accerr;
use faultless_guest::sys::{self, End, NONE, PAGE, RO, RW};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

fn open(pid: i32) -> File {
    OpenOptions::new().read(true).write(true).open(path(pid, "mem")).expect("mem")
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Its own memory: what may be read and written, and that no right changes by it (GU-06).
pub fn debugger(views: &Views) {
    let arena = views.arenas[0];
    views.report.need("mmap", arena.map(0, 8, RW));
    arena.fill(0, 11);
    arena.fill(1, 12);
    let mut mem = open(0);
    let mut word = [0; 8];
    let at = |page: usize| arena.page_addr(page) as u64;
    let read = |page: usize| {
        let mut word = [0; 8];
        open(0).read_exact_at(&mut word, at(page)).map(|()| u64::from_le_bytes(word))
    };
    // By position, too.
    views.report.same("seek", mem.seek(SeekFrom::Start(at(1) - 8)).ok(), Some(at(1) - 8));
    let mut words = [0; 16];
    views.report.same("read", mem.read(&mut words).ok(), Some(16));
    views.report.same("bytes", words[8..].to_vec(), arena.load(PAGE).to_le_bytes().to_vec());
    views.report.same("position", mem.stream_position().ok(), Some(at(1) + 8));
    views.report.same("seek to the end", errno(mem.seek(SeekFrom::End(0))), Some(libc::EINVAL));
    views.report.same("write", mem.write(&77_u64.to_le_bytes()).ok(), Some(8));
    views.report.same("written", arena.load(PAGE + 8), 77);
    // Read-only: the store goes through, the right does not change.
    views.report.need("mprotect", arena.protect(0, 4, RO));
    views.report.same("forced", mem.write_at(&5_u64.to_le_bytes(), at(0)).ok(), Some(8));
    views.report.same("forced, never touched", mem.write_at(&6_u64.to_le_bytes(), at(3)).ok(), Some(8));
    views.report.same("seen", (arena.load(0), arena.load(3 * PAGE)), (5, 6));
    views.report.same("still read-only", arena.try_store(0, 1), Err(accerr(arena.addr(0))));
    views.report.same("rights", areas_in(0, arena)[0].rights.as_str(), "r--p");
    // Without rights it can still be read.
    views.report.need("mprotect", arena.protect(0, 6, NONE));
    views.report.same("hidden", read(0).ok(), Some(5));
    views.report.same("hidden, never touched", read(5).ok(), Some(0));
    views.report.same("hidden store", mem.write_at(&8_u64.to_le_bytes(), at(0)).ok(), Some(8));
    views.report.same("hidden store, never touched", mem.write_at(&9_u64.to_le_bytes(), at(5)).ok(), Some(8));
    views.report.same("hidden", (read(0).ok(), read(5).ok()), (Some(8), Some(9)));
    views.report.same("still hidden", arena.try_load(0), Err(accerr(arena.addr(0))));
    // Holes.
    views.report.same("hole", errno(mem.read_at(&mut word, at(8))), Some(libc::EIO));
    views.report.same("store to a hole", errno(mem.write_at(&word, at(8))), Some(libc::EIO));
    let mut two = [0; 2 * PAGE];
    views.report.same("up to a hole", mem.read_at(&mut two, at(7)).ok(), Some(PAGE));
    views.report.same("store up to a hole", mem.write_at(&two, at(7)).ok(), Some(PAGE));
    file(views, &mem);
}

/// A file's pages: private ones are copied, shared ones keep their rights.
fn file(views: &Views, mem: &File) {
    let object = views.report.need("object", Object::new(4 * PAGE));
    views.report.need("write", object.fill(0, 21));
    let arena = views.arenas[1];
    views.report.need("mmap", arena.map_as(0, 2, RO, libc::MAP_PRIVATE, object.fd, 0));
    let original = arena.load(0);
    views.report.same("private", mem.write_at(&1_u64.to_le_bytes(), arena.addr(0) as u64).ok(), Some(8));
    views.report.same("copy", arena.load(0), 1);
    let mut word = [0; 8];
    views.report.same("pread", object.read(0, &mut word), Ok(8));
    views.report.same("the file", u64::from_le_bytes(word), original);
    views.report.need("mmap", arena.map_as(0, 2, RO, libc::MAP_SHARED, object.fd, 0));
    let result = mem.write_at(&1_u64.to_le_bytes(), arena.addr(0) as u64);
    views.report.same("shared and read-only", errno(result), Some(libc::EIO));
    views.report.need("mmap", arena.map_as(0, 6, RW, libc::MAP_SHARED, object.fd, 0));
    views.report.same("shared", mem.write_at(&2_u64.to_le_bytes(), arena.addr(8) as u64).ok(), Some(8));
    views.report.same("pread", object.read(8, &mut word), Ok(8));
    views.report.same("the file", u64::from_le_bytes(word), 2);
    let beyond = mem.read_at(&mut word, arena.page_addr(5) as u64);
    views.report.same("beyond the file", errno(beyond), Some(libc::EIO));
}

/// Another process's memory: what it shares with others stays theirs, and its end ends the file.
pub fn other(views: &Views) {
    let (arena, _) = views.written(1);
    let note = Note::new();
    let child = spawn(|| {
        note.set(0, 1);
        note.wait(1, 1);
        i32::from(arena.load(5 * PAGE) != 99)
    });
    note.wait(0, 1);
    let mem = open(child);
    let mut word = [0; 8];
    views.report.same("read", mem.read_at(&mut word, arena.page_addr(PAGES - 1) as u64).ok(), Some(8));
    views.report.same("bytes", u64::from_le_bytes(word), PAGES as u64);
    views.report.same("write", mem.write_at(&99_u64.to_le_bytes(), arena.page_addr(5) as u64).ok(), Some(8));
    views.report.same("mine", arena.load(5 * PAGE), 6);
    note.set(1, 1);
    views.report.same("its own", sys::wait(child), Ok((child, End::Exit(0))));
    views.report.same("gone", mem.read_at(&mut word, arena.addr(0) as u64).ok(), Some(0));
}
