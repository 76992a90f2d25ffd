//! Files and segments of large pages: memfd_create, shmget.

use super::{Huge, LARGE};
use faultless_guest::sys::{self, Errno, PAGE, RW};

/// Bytes of a large page.
const BYTES: usize = LARGE * PAGE;

/// Makes a file of large pages.
fn memfd(huge: &Huge) -> i32 {
    let flags = libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    // SAFETY: the name is a string of C.
    let fd = unsafe { sys::call(libc::SYS_memfd_create, [c"large".as_ptr() as usize, flags as usize, 0, 0, 0, 0]) };
    huge.report.need("memfd_create", fd) as i32
}

fn truncate(fd: i32, size: usize) -> sys::Result {
    // SAFETY: no pointer is passed.
    unsafe { sys::call(libc::SYS_ftruncate, [fd as usize, size, 0, 0, 0, 0]) }
}

fn punch(fd: i32, start: usize, length: usize) -> sys::Result {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no pointer is passed.
    unsafe { sys::call(libc::SYS_fallocate, [fd as usize, mode as usize, start, length, 0, 0]) }
}

pub fn memfds(huge: &Huge) {
    let (report, memory, other) = (&huge.report, huge.memory, huge.other);
    let fd = memfd(huge);
    report.same("an odd size", truncate(fd, PAGE), Err(Errno(libc::EINVAL)));
    report.same("write", sys::write(fd, b"x"), Err(Errno(libc::EINVAL)));
    report.need("mmap", memory.map_as(0, 2 * LARGE, RW, libc::MAP_SHARED, fd, 0));
    huge.changed("mapped, and as long", 0, 2);
    memory.fill(3, 0xc03);
    memory.fill(LARGE, 0xc04);
    report.need("mmap", other.map_as(0, 2 * LARGE, RW, libc::MAP_PRIVATE, fd, 0));
    huge.changed("a private one is promised its own", 2, 2);
    huge.verify("the file's", other, 3, 0xc03);
    huge.changed("shown", 2, 2);
    other.fill(4, 0xc05);
    huge.changed("copied", 3, 1);
    huge.verify("the copy", other, 3, 0xc03);
    huge.verify("not the file", memory, 4, 0);
    let mut word = [0; 8];
    report.same("read", sys::read(fd, &mut word), Ok(8));
    report.need("fallocate", punch(fd, 0, BYTES));
    huge.verify("a hole", memory, 3, 0);
    huge.verify("and the copy went along", other, 4, 0);
    report.need("ftruncate", truncate(fd, BYTES));
    let address = memory.addr(LARGE * PAGE);
    report.same("cut off", memory.try_load(LARGE * PAGE), Err(faultless_guest::probe::adrerr(address)));
    report.same("an odd offset", memory.map_as(0, LARGE, RW, libc::MAP_SHARED, fd, 1), Err(Errno(libc::EINVAL)));
    for arena in [memory, other] {
        report.need("munmap", arena.unmap(0, arena.pages()));
    }
    huge.changed("kept by the file", 1, 0);
    sys::close(fd);
}

pub fn segments(huge: &Huge) {
    let (report, memory) = (&huge.report, huge.memory);
    let call = |number, args: [usize; 3]| {
        // SAFETY: an arena holds no Rust object.
        unsafe { sys::call(number, [args[0], args[1], args[2], 0, 0, 0]) }
    };
    let flags = (libc::IPC_CREAT | libc::SHM_HUGETLB | 0o600) as usize;
    let id = report.need("shmget", call(libc::SYS_shmget, [libc::IPC_PRIVATE as usize, BYTES + 1, flags]));
    huge.changed("promised at once", 0, 2);
    report.same("shmat", call(libc::SYS_shmat, [id, memory.addr(0), 0]), Ok(memory.addr(0)));
    memory.fill(LARGE + 1, 0xd01);
    huge.changed("stored", 1, 1);
    report.need("shmdt", call(libc::SYS_shmdt, [memory.addr(0), 0, 0]));
    huge.changed("detached", 1, 1);
    report.same("shmat", call(libc::SYS_shmat, [id, memory.addr(0), 0]), Ok(memory.addr(0)));
    huge.verify("attached again", memory, LARGE + 1, 0xd01);
    report.need("shmctl", call(libc::SYS_shmctl, [id, libc::IPC_RMID as usize, 0]));
    report.need("shmdt", call(libc::SYS_shmdt, [memory.addr(0), 0, 0]));
}
