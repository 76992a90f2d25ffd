//! What is reported, what is answered, and what is there afterwards.

use crate::uffd::{MINOR, MISSING, Message, STORES, Uffd, request};
use core::sync::atomic::{AtomicBool, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::child::{self, Note};
use faultless_guest::object::Object;
use faultless_guest::probe::{self, Trap};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, ANON, End, PAGE, RW};

/// Pages of the arenas.
pub const PAGES: usize = 16;

/// Private memory of `PAGES` pages, and the descriptor that watches it.
pub fn watched(report: &Report, slot: usize, mode: u64) -> (Arena, Uffd) {
    let arena = Arena::new(slot, PAGES);
    report.need("mmap", arena.map(0, PAGES, RW));
    let uffd = Uffd::new(report);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, mode));
    (arena, uffd)
}

/// The page of a message.
fn page_of(message: Message) -> usize {
    message.address & !(PAGE - 1)
}

/// Answers with a page of the byte that its number says.
fn by_number(uffd: &Uffd, arena: Arena, report: &Report, message: Message) {
    let page = (page_of(message) - arena.page_addr(0)) / PAGE;
    report.need("copy", uffd.copy(page_of(message), page as u8 + 1, 0));
}

fn end(report: &Report, arena: Arena) {
    report.need("munmap", arena.unmap(0, PAGES));
}

/// Reads and stores of several threads, one page each.
pub fn missing(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    let count = uffd.answering(
        report,
        |message| by_number(&uffd, arena, report, message),
        || {
            faultless_guest::crew::crew(4, |thread| {
                for page in (thread..PAGES).step_by(4) {
                    let offset = page * PAGE + 40;
                    if page % 2 == 0 {
                        arena.store_byte(offset, 99);
                    }
                    let want = if page % 2 == 0 { 99 } else { page as u8 + 1 };
                    report.same("byte", arena.load_byte(offset), want);
                    report.same("neighbour", arena.load_byte(offset + 1), page as u8 + 1);
                }
            });
        },
    );
    report.same("messages", count, PAGES as u64);
    report.same("copy over a page", uffd.copy(arena.page_addr(0), 1, 0), Err(sys::Errno(libc::EEXIST)));
    end(report, arena);
}

/// Accesses by the kernel on behalf of the program: files and pipes, into and out of pages that are not there.
pub fn kernel(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    let object = report.need("object", Object::new(4 * PAGE));
    report.need("pwrite", object.write(0, &[7; 2 * PAGE]));
    let (from, to) = report.need("pipe", sys::pipe());
    let count = uffd.answering(
        report,
        |message| by_number(&uffd, arena, report, message),
        || {
            let call = |number, fd: i32, page, length: usize| {
                let args = [fd as usize, arena.page_addr(page) + 100, length, 0, 0, 0];
                // SAFETY: the buffer is in the arena.
                unsafe { sys::call(number, args) }
            };
            report.same("pread", call(libc::SYS_pread64, object.fd, 0, PAGE), Ok(PAGE));
            report.same(
                "read bytes",
                (arena.load_byte(99), arena.load_byte(100), arena.load_byte(PAGE + 100)),
                (1, 7, 2),
            );
            report.same("pwrite", call(libc::SYS_pwrite64, object.fd, 2, PAGE), Ok(PAGE));
            let mut bytes = [0; 2];
            report.need("pread", object.read(PAGE - 101, &mut bytes));
            report.same("written bytes", bytes, [3, 4]);
            // What leaves a pipe must arrive.
            report.need("write", sys::write(to, &[5; 300]));
            report.same("read of a pipe", call(libc::SYS_read, from, 4, 300), Ok(300));
            report.same(
                "bytes of the pipe",
                (arena.load_byte(4 * PAGE + 100), arena.load_byte(4 * PAGE + 399)),
                (5, 5),
            );
            report.same("write to a pipe", call(libc::SYS_write, to, 5, 10), Ok(10));
            let mut bytes = [0; 10];
            report.same("read", sys::read(from, &mut bytes), Ok(10));
            report.same("bytes", bytes, [6; 10]);
        },
    );
    report.same("messages", count, 6);
    sys::close(from);
    sys::close(to);
    end(report, arena);
}

/// Stores to write-protected pages.
pub fn stores(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING | STORES);
    (0..PAGES).for_each(|page| {
        report.need("copy", uffd.copy(arena.page_addr(page), 1, if page % 2 == 0 { 2 } else { 0 }));
    });
    report.need("protect", uffd.protect(arena.page_addr(0), PAGES / 2, true));
    let count = uffd.answering(
        report,
        |message| {
            report.same("flags", message.flags, 3);
            report.need("unprotect", uffd.protect(page_of(message), 1, false));
        },
        || {
            for page in 0..PAGES {
                report.same("read", arena.load_byte(page * PAGE), 1);
                arena.store_byte(page * PAGE, 2);
                report.same("stored", arena.load_byte(page * PAGE), 2);
            }
        },
    );
    report.same("messages", count, (PAGES / 2 + PAGES / 4) as u64);
    end(report, arena);
}

/// Pages that another mapping has put into the object already.
pub fn minor(report: &Report) {
    let object = report.need("object", Object::new(PAGES * PAGE));
    let (arena, other) = (Arena::new(50, PAGES), Arena::new(51, PAGES));
    for view in [arena, other] {
        report.need("mmap", view.map_as(0, PAGES, RW, libc::MAP_SHARED, object.fd, 0));
    }
    let uffd = Uffd::new(report);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, MINOR | MISSING));
    (0..PAGES / 2).for_each(|page| other.store_byte(page * PAGE, 1));
    let count = uffd.answering(
        report,
        |message| {
            let page = (page_of(message) - arena.page_addr(0)) / PAGE;
            let is_minor = page < PAGES / 2;
            report.same("minor", message.flags & 4 != 0, is_minor);
            if is_minor {
                other.store_byte(page * PAGE + 1, page as u8);
                report.need("continue", uffd.on_page(request::CONTINUE, page_of(message), 0));
            } else {
                report.need("copy", uffd.copy(page_of(message), page as u8, 0));
            }
        },
        || {
            for page in 0..PAGES {
                report.same("byte", arena.load_byte(page * PAGE + 1), page as u8);
                arena.store_byte(page * PAGE + 2, 9);
                report.same("seen elsewhere", other.load_byte(page * PAGE + 2), 9);
            }
        },
    );
    report.same("messages", count, PAGES as u64);
    end(report, arena);
    end(report, other);
}

/// Pages that are moved in, contents and all.
pub fn moved(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    let source = Arena::new(51, PAGES);
    report.need("mmap", source.map(0, PAGES, RW));
    (0..PAGES).for_each(|page| source.store_byte(page * PAGE, page as u8 + 1));
    let count = uffd.answering(
        report,
        |message| {
            let page = (page_of(message) - arena.page_addr(0)) / PAGE;
            report.same("move", uffd.move_pages(page_of(message), source.page_addr(page), 1, 0), (Ok(0), PAGE as i64));
        },
        || (0..PAGES).for_each(|page| report.same("byte", arena.load_byte(page * PAGE), page as u8 + 1)),
    );
    report.same("messages", count, PAGES as u64);
    (0..PAGES).for_each(|page| report.same("what stayed", source.load_byte(page * PAGE), 0));
    end(report, arena);
    end(report, source);
}

/// Pages that are lost.
pub fn poison(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    report.need("poison", uffd.on_page(request::POISON, arena.page_addr(1), 0));
    report.need("zeropage", uffd.on_page(request::ZEROPAGE, arena.page_addr(2), 0));
    // With memory failure handling, Linux has a code of its own.
    let lost = arena.try_load(PAGE).map_err(|trap| Trap { code: 0, ..trap });
    report.same("lost page", lost, Err(Trap { signal: libc::SIGBUS, code: 0, addr: arena.page_addr(1) }));
    report.same("page of zeroes", arena.try_load(2 * PAGE), Ok(0));
    let taken = Err(sys::Errno(libc::EEXIST));
    report.same("zeroes over a lost page", uffd.on_page(request::ZEROPAGE, arena.page_addr(1), 0), taken);
    report.need("copy over a lost page", uffd.copy(arena.page_addr(1), 1, 0));
    report.same("had back", arena.load_byte(PAGE), 1);
    end(report, arena);
}

/// Runs `then` once another thread waits for page 3 to be there; then that thread must come to `want`.
fn while_waiting(report: &Report, arena: Arena, uffd: &Uffd, want: probe::Probe<u64>, then: impl FnOnce()) {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| arena.try_load(3 * PAGE + 8));
        loop {
            match uffd.read() {
                Ok(message) => {
                    report.same("message", message, Message { flags: 0, address: arena.page_addr(3) + 8, thread: 0 });
                    break;
                }
                Err(_) => sys::sched_yield(),
            }
        }
        then();
        report.same("after the wait", waiting.join().ok(), Some(want));
    });
}

/// The descriptor is closed while a thread waits: it gets an ordinary page.
pub fn close(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    while_waiting(report, arena, &uffd, Ok(0), || sys::close(uffd.fd));
    core::mem::forget(uffd);
    report.same("nobody watches", arena.try_load(0), Ok(0));
    end(report, arena);
}

/// The range is unmapped, or not watched any more, while a thread waits.
pub fn unmap(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING);
    let range = &mut [arena.page_addr(3) as u64, PAGE as u64];
    while_waiting(report, arena, &uffd, Ok(0), || {
        report.need("unregister", uffd.ioctl(request::UNREGISTER, range));
    });
    let gone = Err(probe::maperr(arena.page_addr(3) + 8));
    let (arena, uffd) = watched(report, 50, MISSING);
    while_waiting(report, arena, &uffd, gone, || {
        report.need("munmap", arena.unmap(3, 1));
        report.need("wake", uffd.ioctl(request::WAKE, range));
    });
    end(report, arena);
}

/// A child is not watched, and its parent still is.
pub fn family(report: &Report) {
    let (arena, uffd) = watched(report, 50, MISSING | STORES);
    report.need("copy", uffd.copy(arena.page_addr(0), 1, 2));
    let end_of_child = child::run(|| {
        let fresh = arena.try_load(PAGE) == Ok(0);
        arena.store_byte(0, 5);
        i32::from(!fresh || arena.load_byte(0) != 5)
    });
    report.same("child", end_of_child, End::Exit(0));
    let count = uffd.answering(
        report,
        |message| {
            if message.flags & 2 != 0 {
                report.need("unprotect", uffd.protect(page_of(message), 1, false));
            } else {
                report.need("copy", uffd.copy(page_of(message), 8, 0));
            }
        },
        || {
            report.same("missing", arena.load_byte(PAGE), 8);
            report.same("own page", arena.load_byte(0), 1);
            arena.store_byte(0, 2);
        },
    );
    report.same("messages", count, 2);
    end(report, arena);
}

/// A process whose only thread waits for ever can be killed.
pub fn signal(report: &Report) {
    let note = Note::new();
    let pid = child::spawn(|| {
        let arena = Arena::new(52, PAGES);
        let never = AtomicBool::new(false);
        // SAFETY: makes a descriptor.
        let fd = unsafe { sys::call(libc::SYS_userfaultfd, [libc::O_NONBLOCK as usize, 0, 0, 0, 0, 0]) };
        let uffd = Uffd { fd: fd.map_or(-1, |fd| fd as i32) };
        let ready = uffd.ioctl(request::API, &mut [0xaa, 0, 0]).is_ok()
            && arena.map(0, PAGES, RW).is_ok()
            && uffd.register(arena.page_addr(0), PAGES, MISSING).is_ok();
        note.set(0, if ready { 1 } else { 2 });
        never.store(arena.load_byte(0) == 1, Ordering::Relaxed);
        3
    });
    while note.get(0) == 0 {
        sys::sched_yield();
    }
    report.same("the child's descriptor", note.get(0), 1);
    let _ = sys::sleep_micros(5_000);
    report.need("kill", sys::kill(pid, libc::SIGKILL));
    report.same("its end", report.need("wait", sys::wait(pid)), (pid, End::Signal(libc::SIGKILL)));
}

const _: () = assert!(ANON & libc::MAP_PRIVATE != 0, "arenas are private");
