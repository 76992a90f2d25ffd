//! Memfds: seals against everything that could break them; fallocate in every mode.
//!
//! Rows: FL-01, TR-01, MA-05.

use crate::Lines;
use crate::alone::{Alone, alone, raw};
use crate::shared::memfd;
use crate::stage::{Stage, number};
use faultless_guest::sys::{self, PAGE, RO, RW, Result};

const ADD_SEALS: usize = 1033;
const GET_SEALS: usize = 1034;
const SEAL: usize = 1;
const SHRINK: usize = 2;
const GROW: usize = 4;
const WRITE: usize = 8;
const FUTURE_WRITE: usize = 16;
const EXEC: usize = 32;
const MFD_ALLOW_SEALING: usize = 2;

/// Maps the first pages of a file at a page of the arena.
fn map(child: &Alone, page: usize, prot: i32, flags: i32, fd: usize) -> Result {
    // SAFETY: in the arena.
    unsafe { sys::mmap(child.at(page), PAGE, prot, flags | libc::MAP_FIXED, fd as i32, 0) }
}

/// A memfd of four pages.
fn file(child: &Alone, flags: usize) -> usize {
    let fd = child.stage.report.need("memfd_create", memfd(flags));
    child.stage.report.need("ftruncate", raw(libc::SYS_ftruncate, &[fd, 4 * PAGE]));
    fd
}

/// Adds seals, then tries everything.
pub fn seals(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        for flags in [0, 1, 2, 8, 16, 24, 32, 64, 0x8000_0000] {
            let fd = memfd(flags);
            let seals = fd.and_then(|fd| raw(libc::SYS_fcntl, &[fd, GET_SEALS, 0]));
            let mut stat = [0_u64; 18];
            let mode = fd.and_then(|fd| raw(libc::SYS_fstat, &[fd, stat.as_mut_ptr() as usize]));
            let mode = mode.map(|_| format!("{:o}", stat[3] & 0xffff_ffff));
            let shown = mode.unwrap_or_else(|errno| errno.to_string());
            child.line(format_args!("memfd_create({flags:#x}) -> seals {}, mode {shown}", number(seals)));
            fd.into_iter().for_each(|fd| sys::close(fd as i32));
        }
        let (name, long) = (c"n".as_ptr() as usize, vec![b'x'; 300]);
        let _ = child.call("a long name", libc::SYS_memfd_create, &[long.as_ptr() as usize, 0]);
        let _ = child.call("no name", libc::SYS_memfd_create, &[8, 0]);
        let _ = child.call("unknown flags before the name", libc::SYS_memfd_create, &[8, 0x100]);
        let _ = child.call("huge size without HUGETLB", libc::SYS_memfd_create, &[name, 21 << 26]);
    });
    for seals in [SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC, SHRINK | GROW | WRITE, 64] {
        alone(stage, lines, |child| try_all(child, seals));
    }
    alone(stage, lines, while_mapped);
}

fn try_all(child: &Alone, seals: usize) {
    let fd = file(child, MFD_ALLOW_SEALING);
    let byte = [7_u8; 1];
    let at = byte.as_ptr() as usize;
    let _ = child.call(&format!("seals {seals:#x}"), libc::SYS_fcntl, &[fd, ADD_SEALS, seals]);
    for (name, call, args) in [
        ("seal more", libc::SYS_fcntl, vec![fd, ADD_SEALS, SHRINK]),
        ("read", libc::SYS_pread64, vec![fd, child.at(0), 1, 0]),
        ("write", libc::SYS_pwrite64, vec![fd, at, 1, 0]),
        ("write over the end", libc::SYS_pwrite64, vec![fd, at, 1, 4 * PAGE]),
        ("shrink", libc::SYS_ftruncate, vec![fd, 3 * PAGE]),
        ("grow", libc::SYS_ftruncate, vec![fd, 5 * PAGE]),
        ("punch", libc::SYS_fallocate, vec![fd, 3, 0, PAGE]),
        ("allocate", libc::SYS_fallocate, vec![fd, 0, 0, PAGE]),
        ("allocate over the end", libc::SYS_fallocate, vec![fd, 0, 0, 9 * PAGE]),
        ("chmod +x", libc::SYS_fchmod, vec![fd, 0o755]),
        ("chmod -x", libc::SYS_fchmod, vec![fd, 0o644]),
        ("chmod +x", libc::SYS_fchmod, vec![fd, 0o755]),
    ] {
        let _ = child.call(name, call, &args);
    }
    for (name, prot, flags) in [
        ("shared RW", RW, libc::MAP_SHARED),
        ("shared R", RO, libc::MAP_SHARED),
        ("private RW", RW, libc::MAP_PRIVATE),
        ("private R", RO, libc::MAP_PRIVATE),
    ] {
        child.place(name, map(child, 20, prot, flags, fd));
        let _ = child.call("then RW", libc::SYS_mprotect, &[child.at(20), PAGE, RW as usize]);
        let _ = raw(libc::SYS_munmap, &[child.at(20), PAGE]);
    }
    let _ = child.call("F_GET_SEALS", libc::SYS_fcntl, &[fd, GET_SEALS, 0]);
}

/// Seals against writing wait for mappings to go.
fn while_mapped(child: &Alone) {
    for (name, prot, flags) in
        [("private RW", RW, libc::MAP_PRIVATE), ("shared R", RO, libc::MAP_SHARED), ("shared RW", RW, libc::MAP_SHARED)]
    {
        let fd = file(child, MFD_ALLOW_SEALING);
        child.stage.report.need("mmap", map(child, 20, prot, flags, fd));
        let _ = child.call(&format!("F_SEAL_WRITE while {name}"), libc::SYS_fcntl, &[fd, ADD_SEALS, WRITE]);
        let _ = child.call("F_GET_SEALS", libc::SYS_fcntl, &[fd, GET_SEALS, 0]);
        if name == "shared RW" {
            let _ = child.call("F_SEAL_FUTURE_WRITE", libc::SYS_fcntl, &[fd, ADD_SEALS, FUTURE_WRITE]);
            child.line(format_args!("the old mapping: {:?}", child.stage.arena.try_store(20 * PAGE, 5)));
            let fd = file(child, MFD_ALLOW_SEALING);
            child.stage.report.need("mmap", map(child, 21, RW, libc::MAP_SHARED, fd));
            let end = faultless_guest::child::run(|| {
                let _ = raw(libc::SYS_munmap, &[child.at(21), PAGE]);
                let _ = child.call("while the parent has it", libc::SYS_fcntl, &[fd, ADD_SEALS, WRITE]);
                0
            });
            let _ = raw(libc::SYS_munmap, &[child.at(21), PAGE]);
            let _ = child.call("once it is gone", libc::SYS_fcntl, &[fd, ADD_SEALS, WRITE]);
            child.line(format_args!("{end:?}"));
        }
        let _ = raw(libc::SYS_munmap, &[child.at(20), PAGE]);
    }
}

/// fallocate: modes, ranges, kinds of files; what st_blocks says afterwards.
pub fn fallocate(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        let fd = file(child, 0);
        for mode in [0_usize, 1, 2, 3, 4, 8, 9, 16, 17, 32, 64, 128] {
            for (name, offset, length) in [
                ("a part", 100, PAGE),
                ("over the end", 3 * PAGE, 2 * PAGE),
                ("nothing", 0, 0),
                ("before", usize::MAX, PAGE),
            ] {
                let got = raw(libc::SYS_fallocate, &[fd, mode, offset, length]);
                child.line(format_args!("fallocate({mode}) of {name} -> {}, {}", number(got), blocks(fd)));
                let _ = raw(libc::SYS_ftruncate, &[fd, 4 * PAGE]);
            }
        }
        let _ = child.call("too far", libc::SYS_fallocate, &[fd, 0, usize::MAX >> 1, PAGE]);
        let read_only = child.stage.read_only as usize;
        let _ = child.call("for reading only", libc::SYS_fallocate, &[read_only, 0, 0, PAGE]);
        let _ = child.call("for reading only, unknown mode", libc::SYS_fallocate, &[read_only, 256, 0, PAGE]);
        let _ = child.call("for reading only, no length", libc::SYS_fallocate, &[read_only, 256, 0, 0]);
        let (from, into) = child.stage.report.need("pipe", sys::pipe());
        let _ = child.call("a pipe", libc::SYS_fallocate, &[into as usize, 0, 0, PAGE]);
        let _ = child.call("a pipe for reading", libc::SYS_fallocate, &[from as usize, 0, 0, PAGE]);
        let _ = child.call("no file", libc::SYS_fallocate, &[999, 0, 0, PAGE]);
    });
    alone(stage, lines, |child| {
        let fd = file(child, 0);
        child.stage.report.need("mmap", map(child, 20, RW, libc::MAP_SHARED, fd));
        child.line(format_args!("untouched: {}", blocks(fd)));
        let _ = child.stage.arena.try_store(20 * PAGE + 8, 7);
        child.line(format_args!("a page stored to: {}", blocks(fd)));
        let _ = child.call("allocate all", libc::SYS_fallocate, &[fd, 0, 0, 4 * PAGE]);
        child.line(format_args!("{}, {:?}", blocks(fd), child.stage.arena.try_load(20 * PAGE + 8)));
        let _ = child.call("punch half a page", libc::SYS_fallocate, &[fd, 3, 0, PAGE / 2]);
        child.line(format_args!("{}, {:?}", blocks(fd), child.stage.arena.try_load(20 * PAGE + 8)));
        let _ = child.call("keep the size", libc::SYS_fallocate, &[fd, 1, 0, 6 * PAGE]);
        child.line(blocks(fd));
        let _ = raw(libc::SYS_ftruncate, &[fd, 4 * PAGE]);
        child.line(format_args!("cut: {}", blocks(fd)));
    });
}

/// Size and blocks of a file.
fn blocks(fd: usize) -> String {
    let mut stat = [0_u64; 18];
    match raw(libc::SYS_fstat, &[fd, stat.as_mut_ptr() as usize]) {
        Ok(_) => format!("size {:#x}, {} blocks", stat[6], stat[8]),
        Err(errno) => errno.to_string(),
    }
}
