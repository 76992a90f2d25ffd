//! What a descriptor says besides faults, marks in shared memory and of pages that are not there, and faults that are
//! refused.

use crate::scenes::{PAGES, watched};
use crate::uffd::{Event, MISSING, STORES, Uffd, feature, request};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::child;
use faultless_guest::object::Object;
use faultless_guest::probe::{self, Trap};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, End, PAGE, RW};
use std::mem::ManuallyDrop;
use std::sync::Mutex;

fn advise(report: &Report, arena: Arena, first: usize, count: usize, advice: i32) {
    let args = [arena.page_addr(first), count * PAGE, advice as usize, 0, 0, 0];
    // SAFETY: the range lies in the arena.
    report.need("madvise", unsafe { sys::call(libc::SYS_madvise, args) });
}

/// Marks in shared memory, also where no page is mapped, or none is at all.
pub fn shared(report: &Report) {
    let object = report.need("object", Object::new(PAGES * PAGE));
    let (arena, other) = (Arena::new(50, PAGES), Arena::new(51, PAGES));
    for view in [arena, other] {
        report.need("mmap", view.map_as(0, PAGES, RW, libc::MAP_SHARED, object.fd, 0));
    }
    (0..PAGES / 2).for_each(|page| other.store_byte(page * PAGE, 1));
    (0..PAGES / 4).for_each(|page| arena.store_byte(page * PAGE, 1));
    let uffd = Uffd::new(report);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, STORES));
    report.need("protect", uffd.protect(arena.page_addr(0), PAGES, true));
    advise(report, arena, 0, 2, libc::MADV_DONTNEED);
    let answer = |message: crate::uffd::Message| {
        report.same("flags", message.flags, 3);
        report.need("unprotect", uffd.protect(message.address & !(PAGE - 1), 1, false));
    };
    let count = uffd.answering(report, answer, || {
        for page in 0..PAGES {
            report.same("read", arena.load_byte(page * PAGE), u8::from(page < PAGES / 2));
            arena.store_byte(page * PAGE, 2);
            arena.store_byte(page * PAGE, 3);
            report.same("seen elsewhere", other.load_byte(page * PAGE), 3);
        }
    });
    report.same("messages", count, PAGES as u64);
    [arena, other].iter().for_each(|view| _ = report.need("munmap", view.unmap(0, PAGES)));
}

/// Marks of private pages that are not there.
pub fn absent(report: &Report) {
    let arena = Arena::new(50, PAGES);
    report.need("mmap", arena.map(0, PAGES, RW));
    let uffd = Uffd::with(report, feature::WP_UNPOPULATED);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, STORES));
    arena.store_byte(0, 1);
    report.need("protect", uffd.protect(arena.page_addr(0), PAGES / 2, true));
    let answer = |message: crate::uffd::Message| {
        report.same("flags", message.flags, 3);
        report.need("unprotect", uffd.protect(message.address & !(PAGE - 1), 1, false));
    };
    let count = uffd.answering(report, answer, || {
        for page in 0..PAGES {
            if page % 2 == 0 {
                report.same("read", arena.load_byte(page * PAGE), u8::from(page == 0));
            }
            arena.store_byte(page * PAGE, 2);
        }
    });
    report.same("messages", count, (PAGES / 2) as u64);
    report.need("munmap", arena.unmap(0, PAGES));
}

/// Whose fault it was; and nobody's, as it ends in a signal.
pub fn told(report: &Report) {
    let arena = Arena::new(50, PAGES);
    report.need("mmap", arena.map(0, PAGES, RW));
    let uffd = Uffd::with(report, feature::THREAD_ID);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, MISSING));
    let thread = AtomicI32::new(0);
    let answer = |message: crate::uffd::Message| {
        thread.store(message.thread, Ordering::Relaxed);
        report.need("copy", uffd.copy(message.address & !(PAGE - 1), 1, 0));
    };
    uffd.answering(report, answer, || report.same("byte", arena.load_byte(0), 1));
    report.same("thread", thread.load(Ordering::Relaxed), sys::gettid());
    drop(uffd);
    let uffd = Uffd::with(report, feature::SIGBUS);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, MISSING));
    let refused = Err(Trap { signal: libc::SIGBUS, code: probe::BUS_ADRERR, addr: arena.page_addr(1) + 8 });
    report.same("refused", arena.try_load(PAGE + 8), refused);
    report.need("copy", uffd.copy(arena.page_addr(1), 2, 0));
    report.same("put in", (arena.load_byte(0), arena.load_byte(PAGE)), (1, 2));
    report.need("munmap", arena.unmap(0, PAGES));
}

/// Runs `body` while a thread reads all events of `uffd`, answering faults with pages of ones.
fn reading(report: &Report, uffd: &Uffd, heirs: &Mutex<Vec<Uffd>>, body: impl FnOnce()) -> Vec<Event> {
    let (stop, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let answer = |uffd: &Uffd| match uffd.read_event() {
        Ok(Event::Fault(message)) => {
            // Refused with EAGAIN as long as an event is unread: the fault is reported again.
            _ = uffd.copy(message.address & !(PAGE - 1), 1, 0);
        }
        Ok(Event::Fork(fd)) => heirs.lock().expect("whole").push(Uffd { fd }),
        Ok(event) => events.lock().expect("whole").push(event),
        Err(_) => sys::sched_yield(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                answer(uffd);
                let fds: Vec<i32> = heirs.lock().expect("whole").iter().map(|heir| heir.fd).collect();
                fds.into_iter().for_each(|fd| answer(&ManuallyDrop::new(Uffd { fd })));
            }
        });
        body();
        stop.store(true, Ordering::Release);
    });
    report.same("no more", uffd.read_event().is_err(), true);
    events.into_inner().expect("whole")
}

/// Pages given up, mappings that go and move.
pub fn ranges(report: &Report) {
    let all = feature::EVENT_REMOVE | feature::EVENT_UNMAP | feature::EVENT_REMAP;
    let (arena, target) = (Arena::new(50, PAGES), Arena::new(51, PAGES));
    report.need("mmap", arena.map(0, PAGES, RW));
    let uffd = Uffd::with(report, all);
    report.need("register", uffd.register(arena.page_addr(0), PAGES, MISSING));
    let at = |page| arena.page_addr(page);
    let heirs = Mutex::new(Vec::new());
    let events = reading(report, &uffd, &heirs, || {
        report.same("byte", arena.load_byte(0), 1);
        advise(report, arena, 0, 2, libc::MADV_DONTNEED);
        report.same("again", arena.load_byte(0), 1);
        advise(report, arena, 1, 1, libc::MADV_FREE);
        report.need("munmap", arena.unmap(14, 2));
        report.need("mmap over it", arena.map(12, 2, RW));
        report.same("not watched", arena.load_byte(12 * PAGE), 0);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let args = [at(0), 4 * PAGE, 4 * PAGE, flags as usize, target.page_addr(0), 0];
        // SAFETY: both ranges lie in arenas.
        report.need("mremap", unsafe { sys::call(libc::SYS_mremap, args) });
        report.same("moved", target.load_byte(0), 1);
        report.same("still watched", target.load_byte(3 * PAGE), 1);
    });
    let want = [
        Event::Remove(at(0), at(2)),
        Event::Remove(at(1), at(2)),
        Event::Unmap(at(14), at(16)),
        Event::Unmap(at(12), at(14)),
        Event::Remap(at(0), target.page_addr(0), 4 * PAGE),
        Event::Unmap(at(0), at(4)),
    ];
    report.same("events", events.as_slice(), want.as_slice());
    report.need("register", uffd.ioctl(request::UNREGISTER, &mut [at(4) as u64, (8 * PAGE) as u64]));
    let target_range = &mut [target.page_addr(0) as u64, (4 * PAGE) as u64];
    report.need("unregister", uffd.ioctl(request::UNREGISTER, target_range));
    report.need("munmap", arena.unmap(0, PAGES));
    report.need("munmap", target.unmap(0, PAGES));
}

/// A child whose faults the parent answers, through a descriptor that comes with the event; its own child as well.
pub fn forks(report: &Report) {
    let (arena, uffd) = {
        let arena = Arena::new(50, PAGES);
        report.need("mmap", arena.map(0, PAGES, RW));
        let uffd = Uffd::with(report, feature::EVENT_FORK);
        report.need("register", uffd.register(arena.page_addr(0), PAGES, MISSING));
        (arena, uffd)
    };
    let (heirs, ends) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    reading(report, &uffd, &heirs, || {
        report.same("byte", arena.load_byte(0), 1);
        let end = child::run(|| {
            arena.store_byte(PAGE, 7);
            let inner = child::run(|| i32::from(arena.load_byte(2 * PAGE) != 1 || arena.load_byte(PAGE) != 7));
            i32::from(inner != End::Exit(0) || arena.load_byte(3 * PAGE) != 1)
        });
        report.same("child", end, End::Exit(0));
        ends.fetch_add(1, Ordering::Relaxed);
        report.same("not the child's", arena.load_byte(PAGE), 1);
    });
    report.same("descriptors", heirs.lock().expect("whole").len(), 2);
    let args = [arena.page_addr(0) as u64, PAGE as u64];
    report.need("unregister", uffd.ioctl(request::UNREGISTER, &mut args.clone()));
    report.need("munmap", arena.unmap(0, PAGES));
    let (arena, uffd) = watched(report, 50, MISSING);
    report.same("none asked for", child::run(|| i32::from(arena.load_byte(0) != 0)), End::Exit(0));
    report.same("nothing to read", uffd.read_event().is_err(), true);
    report.need("munmap", arena.unmap(0, PAGES));
}
