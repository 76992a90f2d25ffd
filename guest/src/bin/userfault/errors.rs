//! Requests that are refused, and with what: in the order in which Linux looks.

use crate::scenes::{PAGES, watched};
use crate::uffd::{MINOR, MISSING, STORES, Uffd, request};
use faultless_guest::arena::Arena;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, ANON, Errno, PAGE, RO, RW};

fn refused(report: &Report, what: &str, got: sys::Result, errno: i32) {
    report.same(what, got, Err(Errno(errno)));
}

fn raw(report: &Report, flags: i32) -> Uffd {
    // SAFETY: makes a descriptor.
    let fd = report.need("userfaultfd", unsafe { sys::call(libc::SYS_userfaultfd, [flags as usize, 0, 0, 0, 0, 0]) });
    Uffd { fd: fd as i32 }
}

/// All of them.
pub fn errors(report: &Report) {
    handshake(report);
    ranges(report);
    pages(report);
    moves(report);
}

fn handshake(report: &Report) {
    // SAFETY: refused.
    let bad = unsafe { sys::call(libc::SYS_userfaultfd, [2, 0, 0, 0, 0, 0]) };
    refused(report, "unknown flag", bad, libc::EINVAL);
    let uffd = raw(report, libc::O_NONBLOCK);
    refused(report, "read before the handshake", uffd.read().map(|_| 0), libc::EINVAL);
    refused(report, "register before the handshake", uffd.register(0, 1, MISSING), libc::EINVAL);
    let mut wrong = [0xab, 7, 7];
    refused(report, "version", uffd.ioctl(request::API, &mut wrong), libc::EINVAL);
    report.same("cleared", wrong, [0; 3]);
    refused(report, "unknown feature", uffd.ioctl(request::API, &mut [0xaa, 1 << 60, 0]), libc::EINVAL);
    report.need("UFFDIO_API", uffd.ioctl(request::API, &mut [0xaa, 0, 0]));
    refused(report, "second handshake", uffd.ioctl(request::API, &mut [0xaa, 0, 0]), libc::EINVAL);
    refused(report, "unknown request", uffd.ioctl(0xaa55, &mut [0; 5]), libc::EINVAL);
    refused(report, "nothing to read", uffd.read().map(|_| 0), libc::EAGAIN);
    refused(report, "short buffer", sys::read(uffd.fd, &mut [0; 31]), libc::EINVAL);
    refused(report, "write", sys::write(uffd.fd, &[0; 32]), libc::EBADF);
}

fn ranges(report: &Report) {
    let arena = Arena::new(53, PAGES);
    let at = arena.page_addr(0);
    let uffd = Uffd::new(report);
    refused(report, "no mode", uffd.register(at, 1, 0), libc::EINVAL);
    refused(report, "unknown mode", uffd.register(at, 1, 8), libc::EINVAL);
    refused(report, "unaligned", uffd.register(at + 1, 1, MISSING), libc::EINVAL);
    refused(report, "empty", uffd.register(at, 0, MISSING), libc::EINVAL);
    refused(report, "beyond the end", uffd.register(0x7fff_ffff_f000, 4, MISSING), libc::EINVAL);
    refused(report, "nothing mapped", uffd.register(at, 1, MISSING), libc::EINVAL);
    report.need("mmap", arena.map_as(0, PAGES, RW, ANON, -1, 0));
    refused(report, "minor of private memory", uffd.register(at, 1, MINOR), libc::EINVAL);
    report.need("register", uffd.register(at, 2, MISSING));
    report.need("register once more", uffd.register(at, 2, MISSING | STORES));
    let other = Uffd::new(report);
    refused(report, "somebody else's", other.register(at + PAGE, 2, MISSING), libc::EBUSY);
    report.need("a part that is nobody's", uffd.ioctl(request::UNREGISTER, &mut [at as u64, (4 * PAGE) as u64]));
    refused(report, "unaligned end", uffd.ioctl(request::UNREGISTER, &mut [at as u64, 5]), libc::EINVAL);
    refused(report, "unaligned wake", uffd.ioctl(request::WAKE, &mut [at as u64, 5]), libc::EINVAL);
    report.need("wake of nobody", uffd.ioctl(request::WAKE, &mut [at as u64, PAGE as u64]));
    report.need("munmap", arena.unmap(0, PAGES));
}

fn pages(report: &Report) {
    let (arena, uffd) = watched(report, 53, MISSING);
    let at = arena.page_addr(0);
    refused(report, "copy mode", uffd.copy(at, 1, 4), libc::EINVAL);
    refused(report, "copy with a mark nobody asked for", uffd.copy(at, 1, 2), libc::EINVAL);
    refused(report, "copy to an odd place", uffd.copy(at + 1, 1, 0), libc::EINVAL);
    let mut missing_source = [at as u64, 8 << 40, PAGE as u64, 0, 0];
    refused(report, "copy from nowhere", uffd.ioctl(request::COPY, &mut missing_source), libc::EFAULT);
    report.same("its field", missing_source[4].cast_signed(), i64::from(-libc::EFAULT));
    refused(report, "mode of zeropage", uffd.on_page(request::ZEROPAGE, at, 2), libc::EINVAL);
    refused(report, "mode of poison", uffd.on_page(request::POISON, at, 2), libc::EINVAL);
    refused(report, "continue of private memory", uffd.on_page(request::CONTINUE, at, 0), libc::EINVAL);
    refused(report, "write-protect not asked for", uffd.protect(at, 1, true), libc::ENOENT);
    let both = uffd.ioctl(request::WRITEPROTECT, &mut [at as u64, PAGE as u64, 3]);
    refused(report, "write-protect and do not wake", both, libc::EINVAL);
    report.need("zeropage", uffd.on_page(request::ZEROPAGE, at + PAGE, 0));
    let mut two = [at as u64, (2 * PAGE) as u64, 0, 0];
    refused(report, "half of it", uffd.ioctl(request::ZEROPAGE, &mut two), libc::EAGAIN);
    report.same("done", two[3], PAGE as u64);
    refused(report, "all there", uffd.ioctl(request::ZEROPAGE, &mut two), libc::EEXIST);
    report.same("field", two[3].cast_signed(), i64::from(-libc::EEXIST));
    report.need("munmap", arena.unmap(4, 1));
    refused(report, "where nothing is mapped", uffd.on_page(request::ZEROPAGE, arena.page_addr(4), 0), libc::ENOENT);
    report.need("munmap", arena.unmap(0, PAGES));
}

fn moves(report: &Report) {
    let (arena, uffd) = watched(report, 53, MISSING);
    let source = Arena::new(54, PAGES);
    report.need("mmap", source.map(0, PAGES, RW));
    let (to, from) = (arena.page_addr(0), source.page_addr(0));
    let what = |errno: i32| (Err(Errno(errno)), i64::from(-errno));
    report.same("a hole", uffd.move_pages(to, from, 1, 0), what(libc::ENOENT));
    report.same("a hole that may be", uffd.move_pages(to, from, 1, 2), (Ok(0), PAGE as i64));
    refused(report, "unknown mode", uffd.move_pages(to, from, 1, 4).0, libc::EINVAL);
    source.store_byte(0, 1);
    source.store_byte(PAGE, 2);
    report.same("not watched", uffd.move_pages(from + 8 * PAGE, from, 1, 0), what(libc::EINVAL));
    report.need("zeropage", uffd.on_page(request::ZEROPAGE, to, 0));
    report.same("a page in the way", uffd.move_pages(to, from, 1, 0), what(libc::EEXIST));
    let partly = uffd.move_pages(to + PAGE, from, 3, 0);
    report.same("up to a hole", partly, (Err(Errno(libc::EAGAIN)), (2 * PAGE) as i64));
    report.same("moved", (arena.load_byte(PAGE), arena.load_byte(2 * PAGE)), (1, 2));
    source.store_byte(0, 3);
    report.need("mprotect", source.protect(0, PAGES, RO));
    report.same("other rights", uffd.move_pages(to + 4 * PAGE, from, 1, 0), what(libc::EINVAL));
    report.need("munmap", arena.unmap(0, PAGES));
    report.need("munmap", source.unmap(0, PAGES));
}
