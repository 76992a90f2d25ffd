//! The scenes.

use crate::{COUNTED, Frames, HOLE, HOLE_PAGES, KEPT, NUMBERED, OWN, PAGES, open};
use faultless_guest::arena::Arena;
use faultless_guest::child;
use faultless_guest::probe::{accerr, adrerr, maperr};
use faultless_guest::sys::{self, End, Errno, NONE, PAGE, RO, RW};

const SHARED: i32 = libc::MAP_SHARED;
const PRIVATE: i32 = libc::MAP_PRIVATE;
const INVALID: sys::Result = Err(Errno(libc::EINVAL));
const FAULT: sys::Result = Err(Errno(libc::EFAULT));

/// pread, pwrite and lseek; the driver's pages are there twice.
pub fn file(frames: &Frames) {
    frames.fill(KEPT..HOLE, 0x100);
    frames.fill(NUMBERED..COUNTED, 0x200);
    (KEPT..HOLE).for_each(|page| frames.verify_window("kept", page, 0x100 + page as u64));
    for page in 0..OWN {
        frames.verify_window("own page", COUNTED + page, 0x200 + (NUMBERED + page) as u64);
    }
    let (report, mut byte) = (&frames.report, [0; 8]);
    report.same("read of a hole", frames.device.read(HOLE * PAGE, &mut byte), Err(Errno(libc::ENXIO)));
    report.same("write to a hole", frames.device.write(HOLE * PAGE, &byte), Err(Errno(libc::ENXIO)));
    report.same("read up to a hole", frames.device.read(HOLE * PAGE - 3, &mut byte), Ok(3));
    report.same("read behind the end", frames.device.read(PAGES * PAGE, &mut byte), Ok(0));
    report.same("write behind the end", frames.device.write(PAGES * PAGE, &byte), Err(Errno(libc::ENOSPC)));
    let seek = |offset: usize| {
        // SAFETY: changes no memory.
        unsafe { sys::call(libc::SYS_lseek, [frames.device.fd as usize, offset, libc::SEEK_SET as usize, 0, 0, 0]) }
    };
    report.same("lseek", seek(PAGE + 8), Ok(PAGE + 8));
    report.same("read at the position", sys::read(frames.device.fd, &mut byte), Ok(8));
    report.same("word at the position", u64::from_le_bytes(byte), faultless_guest::arena::word(0x101, 1));
}

/// Shared mappings and file calls show the same bytes at once; nothing is counted (PF-01).
pub fn shared(frames: &Frames) {
    for (first, count) in [(KEPT, HOLE), (NUMBERED, OWN)] {
        let before = resident();
        let (one, two) = (frames.map(0, count, SHARED, first), frames.map(1, count, SHARED, first));
        for page in 0..count {
            frames.fill(first + page..first + page + 1, 0x300);
            frames.verify("after pwrite", one, page, 0x300 + (first + page) as u64);
            two.fill(page, 0x400 + page as u64);
            frames.verify("after a store", one, page, 0x400 + page as u64);
            frames.verify_window("after a store", first + page, 0x400 + page as u64);
        }
        frames.same_pages("resident pages", resident(), before);
        frames.report.need("mprotect", one.protect(0, count, RO));
        frames.report.same("store", one.try_store(0, 1), Err(accerr(one.addr(0))));
        frames.report.need("mprotect", one.protect(0, count, NONE));
        frames.report.same("load", one.try_load(0), Err(accerr(one.addr(0))));
        frames.report.need("mprotect", one.protect(0, count, RW));
        frames.verify("after mprotect", one, 0, 0x400);
        one.store(0, 7);
        frames.report.same("word", two.load(0), 7);
        // Whoever unmaps takes only entries.
        frames.report.need("munmap", one.unmap(0, count));
        frames.verify("after munmap", two, count - 1, 0x400 + (count - 1) as u64);
    }
}

/// Where the driver put nothing: SIGBUS in a shared mapping, zeroes of one's own in a private one (PF-08).
pub fn holes(frames: &Frames) {
    frames.fill(HOLE - 2..HOLE, 0x500);
    frames.fill(NUMBERED..NUMBERED + 2, 0x500);
    let count = HOLE_PAGES + 4;
    let view = frames.map(0, count, SHARED, HOLE - 2);
    for page in 0..count {
        let at = page * PAGE + 8 * page;
        if (2..2 + HOLE_PAGES).contains(&page) {
            frames.report.same("load in a hole", view.try_load(at), Err(adrerr(view.addr(at))));
            frames.report.same("store in a hole", view.try_store(at, 1), Err(adrerr(view.addr(at))));
        } else {
            frames.verify("beside a hole", view, page, 0x500 + (HOLE - 2 + page) as u64);
        }
    }
    // Nothing behind the window either.
    let view = frames.map(0, 2, SHARED, PAGES);
    frames.report.same("load behind the window", view.try_load(0), Err(adrerr(view.addr(0))));
    let view = frames.map(1, HOLE_PAGES, PRIVATE, HOLE);
    let before = resident();
    for page in 0..HOLE_PAGES {
        frames.verify("private hole", view, page, 0);
        view.fill(page, 0x600 + page as u64);
    }
    frames.same_pages("resident pages", resident(), before + HOLE_PAGES);
    let end = child::run(|| {
        let mine = (0..HOLE_PAGES).all(|page| view.verify(page, 0x600 + page as u64).is_ok());
        view.fill(0, 0x700);
        i32::from(!mine)
    });
    frames.report.same("child", end, End::Exit(0));
    frames.verify("private hole after fork", view, 0, 0x600);
}

/// A private mapping shows the window until it is stored to; the copy is an ordinary page (PF-02, PF-07).
pub fn private(frames: &Frames) {
    for (first, count) in [(KEPT, HOLE), (KEPT + 3, 5), (NUMBERED, 1), (COUNTED, OWN)] {
        frames.fill(first..first + count, 0x800);
        let key = |page: usize| 0x800 + (first + page) as u64;
        let (one, two) = (frames.map(0, count, PRIVATE, first), frames.map(1, count, PRIVATE, first));
        let before = anonymous();
        for page in 0..count {
            frames.verify("private view", one, page, key(page));
            one.fill(page, 0x900 + page as u64);
            frames.verify("copy", one, page, 0x900 + page as u64);
            frames.verify_window("original", first + page, key(page));
            frames.verify("other view", two, page, key(page));
        }
        frames.same_pages("anonymous pages", anonymous(), before + count);
        // A copy does not follow the window; a page that is none does.
        frames.fill(first..first + count, 0xa00);
        frames.verify("copy after pwrite", one, 0, 0x900);
        frames.verify("view after pwrite", two, 0, 0xa00 + first as u64);
        let end = child::run(|| {
            let seen = one.verify(0, 0x900).is_ok() && two.verify(0, 0xa00 + first as u64).is_ok();
            one.fill(0, 0xb00);
            two.fill(0, 0xb01);
            i32::from(!(seen && one.verify(0, 0xb00).is_ok() && two.verify(0, 0xb01).is_ok()))
        });
        frames.report.same("child", end, End::Exit(0));
        frames.verify("copy after a child's store", one, 0, 0x900);
        frames.verify("view after a child's store", two, 0, 0xa00 + first as u64);
        frames.report.need("munmap", one.unmap(0, count));
        frames.same_pages("anonymous pages", anonymous(), before);
        frames.report.need("munmap", two.unmap(0, count));
    }
}

/// Shared mappings are filled in pieces, private ones whole or not at all (PF-03); what is open for reading only.
pub fn pieces(frames: &Frames) {
    let view = frames.views[0];
    let try_map = |count, flags, first| view.map_as(0, count, RW, flags, frames.device.fd, first);
    frames.report.same("private over a hole", try_map(4, PRIVATE, HOLE - 2), INVALID);
    frames.report.same("load", view.try_load(0), Err(maperr(view.addr(0))));
    frames.report.same("private behind a hole", try_map(4, PRIVATE, NUMBERED - 2), INVALID);
    frames.report.same("load", view.try_load(2 * PAGE), Err(maperr(view.addr(2 * PAGE))));
    // The whole window, as pieces of every kind.
    frames.fill(KEPT..HOLE, 0xc00);
    frames.fill(COUNTED..PAGES, 0xc00);
    let view = frames.map(0, PAGES, SHARED, 0);
    for page in (KEPT..HOLE).chain(COUNTED..PAGES) {
        frames.verify("whole window", view, page, 0xc00 + page as u64);
    }
    let fd = frames.report.need("open", open(libc::O_RDONLY));
    let view = frames.views[1];
    let refused = view.map_as(0, 4, RW, SHARED, fd, 0);
    frames.report.same("shared for writing", refused, Err(Errno(libc::EACCES)));
    frames.report.need("shared for reading", view.map_as(0, HOLE + 2, RO, SHARED, fd, 0));
    frames.verify("shared for reading", view, 1, 0xc01);
    frames.report.same("mprotect", view.protect(0, 4, RW), Err(Errno(libc::EACCES)));
    frames.report.need("private for writing", view.map_as(0, 4, RW, PRIVATE, fd, 0));
    view.fill(1, 0xd00);
    frames.verify_window("original", 1, 0xc01);
    sys::close(fd);
}

/// A child has what its parent mapped, and shares it; either may unmap (FK-02, PF-01).
pub fn family(frames: &Frames) {
    frames.fill(KEPT..HOLE, 0xe00);
    let view = frames.map(0, HOLE, SHARED, KEPT);
    for depth in 0..3 {
        let end = child::run(|| {
            let end = child::run(|| store_and_leave(view, depth));
            i32::from(end != End::Exit(0) || view.unmap(0, HOLE).is_err())
        });
        frames.report.same("child", end, End::Exit(0));
        frames.verify("grandchild's page", view, depth, 0xf00 + depth as u64);
        frames.verify_window("grandchild's page", depth, 0xf00 + depth as u64);
    }
}

fn store_and_leave(view: Arena, page: usize) -> i32 {
    view.fill(page, 0xf00 + page as u64);
    i32::from(view.verify(HOLE - 1, 0xe00 + (HOLE - 1) as u64).is_err())
}

/// Pages that are inserted as such are counted, and show what their frames show (PF-05).
pub fn counted(frames: &Frames) {
    let before = resident();
    let (by_page, by_number) = (frames.map(0, OWN, SHARED, COUNTED), frames.map(1, OWN, SHARED, NUMBERED));
    frames.same_pages("resident pages", resident(), before + OWN);
    for page in 0..OWN {
        by_page.fill(page, 0x1000 + page as u64);
        frames.verify("by number", by_number, page, 0x1000 + page as u64);
        by_number.fill(page, 0x1100 + page as u64);
        frames.verify("by page", by_page, page, 0x1100 + page as u64);
    }
    let end = child::run(|| i32::from(by_page.verify(OWN - 1, 0x1100 + (OWN - 1) as u64).is_err()));
    frames.report.same("child", end, End::Exit(0));
    frames.report.need("munmap", by_page.unmap(0, OWN));
    frames.same_pages("resident pages", resident(), before);
    frames.verify("by number alone", by_number, 0, 0x1100);
}

/// Such a mapping does not grow; it shrinks and moves (PF-09).
pub fn resized(frames: &Frames) {
    frames.fill(KEPT..HOLE, 0x1200);
    let view = frames.map(0, 8, SHARED, KEPT);
    frames.report.same("growth", remap(view, 8, 12, 0, 0), FAULT);
    frames.report.same("growth elsewhere", remap(view, 8, 12, libc::MREMAP_MAYMOVE, 0), FAULT);
    frames.report.same("shrinking", remap(view, 8, 4, 0, 0), Ok(view.addr(0)));
    frames.report.same("load", view.try_load(4 * PAGE), Err(maperr(view.addr(4 * PAGE))));
    let to = frames.views[2].addr(0);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    frames.report.same("move", remap(view, 4, 4, flags, to), Ok(to));
    (0..4).for_each(|page| frames.verify("moved", frames.views[2], page, 0x1200 + page as u64));
    frames.report.same("load", view.try_load(0), Err(maperr(view.addr(0))));
}

fn remap(view: Arena, old: usize, new: usize, flags: i32, to: usize) -> sys::Result {
    let args = [view.addr(0), old * PAGE, new * PAGE, flags as usize, to, 0];
    // SAFETY: the range lies in an arena.
    unsafe { sys::call(libc::SYS_mremap, args) }
}

/// What may be asked of such memory, and what not (MA-02, GU-04).
pub fn calls(frames: &Frames) {
    frames.fill(KEPT..HOLE, 0x1300);
    let view = frames.map(0, 8, SHARED | libc::MAP_POPULATE, KEPT);
    let ask = |number, third: i32| {
        // SAFETY: the range lies in an arena.
        unsafe { sys::call(number, [view.addr(0), 8 * PAGE, third as usize, 0, 0, 0]) }
    };
    frames.report.same("msync", ask(libc::SYS_msync, libc::MS_SYNC), Ok(0));
    for advice in [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_REMOVE] {
        frames.report.same("madvise", ask(libc::SYS_madvise, advice), INVALID);
    }
    // Locking passes over it (as over all that no page of it is ever to be looked at).
    frames.report.same("mlock", ask(libc::SYS_mlock, 0), Ok(0));
    frames.report.same("locked pages", field("VmLck:"), 0);
    // It is not pinned, so another process, or this one through such a call, does not get at it.
    frames.report.same("process_vm_readv of frames", read_remotely(view.addr(0)), FAULT);
    let counted = frames.map(1, 1, SHARED, COUNTED);
    counted.fill(0, 0x1310);
    frames.report.same("process_vm_readv of a page", read_remotely(counted.addr(0)), Ok(8));
    frames.report.need("advice on reading", ask(libc::SYS_madvise, libc::MADV_RANDOM));
    // As the source and the target of a call that copies, it is memory like any other.
    let (into, out_of) = (view.page_addr(1), view.page_addr(2));
    let device = frames.device.fd as usize;
    // SAFETY: reads into a page of the arena.
    let read = unsafe { sys::call(libc::SYS_pread64, [device, into, PAGE, 5 * PAGE, 0, 0]) };
    frames.report.same("pread into the window", read, Ok(PAGE));
    frames.verify("pread into the window", view, 1, 0x1305);
    // SAFETY: writes from a page of the arena.
    let written = unsafe { sys::call(libc::SYS_pwrite64, [device, out_of, PAGE, 6 * PAGE, 0, 0]) };
    frames.report.same("pwrite from the window", written, Ok(PAGE));
    frames.verify("pwrite from the window", view, 6, 0x1302);
}

/// Reads a word of this process with `process_vm_readv`.
fn read_remotely(from: usize) -> sys::Result {
    let mut word = 0_u64;
    let (local, remote) = ([&raw mut word as usize, 8], [from, 8]);
    let args = [sys::getpid() as usize, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
    // SAFETY: writes to `word` only.
    unsafe { sys::call(libc::SYS_process_vm_readv, args) }
}

/// A process that dies with such mappings, copies and holes leaves the window as it was.
pub fn death(frames: &Frames) {
    frames.fill(KEPT..HOLE, 0x1400);
    frames.fill(NUMBERED..COUNTED, 0x1400);
    let end = child::run(|| {
        let map = |view: usize, count, flags, first| {
            frames.views[view].map_as(0, count, RW, flags, frames.device.fd, first).is_ok()
        };
        let mapped = map(0, PAGES, SHARED, 0) && map(1, HOLE, PRIVATE, KEPT) && map(2, OWN, PRIVATE, COUNTED);
        (0..OWN).for_each(|page| frames.views[2].fill(page, 1));
        (0..HOLE).for_each(|page| frames.views[1].fill(page, 2));
        // A grandchild stays behind with all of it for a moment.
        child::spawn(|| i32::from(frames.views[1].verify(0, 2).is_err()));
        let _ = sys::kill(sys::getpid(), libc::SIGKILL);
        i32::from(mapped)
    });
    frames.report.same("child", end, End::Signal(libc::SIGKILL));
    (KEPT..HOLE).for_each(|page| frames.verify_window("kept", page, 0x1400 + page as u64));
    (NUMBERED..COUNTED).for_each(|page| frames.verify_window("own page", page, 0x1400 + page as u64));
}

/// Resident pages of this process, without those of its own program and stack as far as they come and go.
fn resident() -> usize {
    field("RssAnon:") + field("RssFile:") + field("RssShmem:")
}

/// Anonymous pages of this process.
fn anonymous() -> usize {
    field("RssAnon:")
}

/// A field of /proc/self/status, in pages. Touches the same memory each time.
fn field(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib: usize = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
    kib * 1024 / PAGE
}
