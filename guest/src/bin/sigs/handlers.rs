//! Handlers: which run when, inside which, and with what siginfo.

use crate::{Sigs, block, on};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use faultless_guest::arena::Arena;
use faultless_guest::child;
use faultless_guest::probe::set_handler;
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, End, PAGE, RO, RW};

/// What handlers did, as decimal digits in order. (A) One thread.
static LOG: AtomicU64 = AtomicU64::new(0);
/// Depth to which a handler signals itself. (A) One thread.
static DEPTH: AtomicU64 = AtomicU64::new(0);
/// Arena of the write barrier: address and number of faults. (A) One thread.
static BARRIER: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn log(digit: u64) {
    let old = LOG.load(Ordering::Relaxed);
    LOG.store(old * 10 + digit, Ordering::Relaxed);
}

fn raise(signal: i32) {
    let _ = sys::kill(sys::getpid(), signal);
}

/// A handler that gives the right to write and returns: the store is done again, as
/// collectors and snapshots do it.
pub fn barrier(sigs: &Sigs) {
    const PAGES: usize = 64;
    let report = &sigs.report;
    let arena = Arena::new(47, PAGES);
    BARRIER[0].store(arena.addr(0), Ordering::Relaxed);
    let mut rng = Rng::new(report.seed());
    report.need("mmap", arena.map(0, PAGES, RW));
    (0..PAGES).for_each(|page| arena.fill(page, 0x1000 + page as u64));
    report.need("mprotect", arena.protect(0, PAGES, RO));
    BARRIER[1].store(0, Ordering::Relaxed);
    on(libc::SIGSEGV, give_right as *const () as usize, libc::SA_SIGINFO, &[]);
    let mut order: Vec<usize> = (0..PAGES).collect();
    rng.shuffle(&mut order);
    for (count, page) in order.into_iter().enumerate() {
        let offset = page * PAGE + rng.below(PAGE / 8) * 8;
        arena.store(offset, 0xabc);
        arena.store(offset, 0xabd);
        report.same("stored word", arena.load(offset), 0xabd);
        report.same("faults", BARRIER[1].load(Ordering::Relaxed), count + 1);
        arena.fill(page, 0x2000 + page as u64);
    }
    (0..PAGES).for_each(|page| {
        report.same("page", arena.verify(page, 0x2000 + page as u64), Ok(()));
    });
    faultless_guest::probe::catch();
    report.need("munmap", arena.unmap(0, PAGES));
}

extern "C" fn give_right(_: i32, info: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV carries an address.
    let page = unsafe { info.si_addr() } as usize & !(PAGE - 1);
    let inside = page.wrapping_sub(BARRIER[0].load(Ordering::Relaxed)) < 64 * PAGE;
    // SAFETY: the page lies in the arena.
    let done = inside && unsafe { sys::mprotect(page, PAGE, RW) } == Ok(0);
    if !done {
        sys::exit(3);
    }
    BARRIER[1].fetch_add(1, Ordering::Relaxed);
}

extern "C" fn first(_: i32) {
    log(1);
    raise(libc::SIGUSR2);
    log(2);
}

extern "C" fn second(_: i32) {
    log(3);
    log(4);
}

extern "C" fn again(_: i32) {
    log(5);
    if DEPTH.fetch_sub(1, Ordering::Relaxed) > 1 {
        raise(libc::SIGUSR1);
    }
    log(6);
}

/// Handlers inside handlers, and handlers that wait for each other.
pub fn nested(sigs: &Sigs) {
    let (first, second) = (first as *const () as usize, second as *const () as usize);
    let again = again as *const () as usize;
    let cases: &[(&str, usize, i32, &[i32], u64)] = &[
        ("another signal", first, 0, &[], 1342),
        ("another signal, blocked", first, 0, &[libc::SIGUSR2], 1234),
        ("itself", again, 0, &[], 565_656),
        ("itself, not deferred", again, libc::SA_NODEFER, &[], 555_666),
    ];
    for (name, handler, flags, blocked, want) in cases {
        on(libc::SIGUSR1, *handler, *flags, blocked);
        on(libc::SIGUSR2, second, 0, &[]);
        LOG.store(0, Ordering::Relaxed);
        DEPTH.store(3, Ordering::Relaxed);
        raise(libc::SIGUSR1);
        sigs.report.same(name, LOG.load(Ordering::Relaxed), *want);
    }
}

/// Faults that no handler can save.
pub fn deadly(sigs: &Sigs) {
    let segv = libc::SIGSEGV;
    let arena = Arena::new(48, 1);
    let fault = move || {
        arena.store(0, 1);
        0
    };
    let handler = fault_again as *const () as usize;
    let cases: &[(&str, &dyn Fn())] = &[
        ("default action", &|| set_handler(segv, libc::SIG_DFL, 0)),
        ("ignored", &|| set_handler(segv, libc::SIG_IGN, 0)),
        ("blocked", &|| block(segv, libc::SIG_BLOCK)),
        ("fault in its handler", &|| on(segv, handler, 0, &[])),
        ("handler at a bad address", &|| on(segv, arena.addr(0), 0, &[])),
        ("handler only once", &|| on(segv, second as *const () as usize, libc::SA_RESETHAND, &[])),
    ];
    for (name, prepare) in cases {
        let end = child::run(|| {
            prepare();
            fault()
        });
        sigs.report.same(name, end, End::Signal(segv));
    }
}

extern "C" fn fault_again(_: i32) {
    Arena::new(48, 1).store(8, 1);
}

/// What an info handler was told: `si_code` and sender. (A) One thread.
static SENDER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "C" fn who(_: i32, info: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: the signal was sent by kill, which fills this field in.
    let pid = unsafe { info.si_pid() };
    SENDER[0].store(info.si_code as u64, Ordering::Relaxed);
    SENDER[1].store(pid as u64, Ordering::Relaxed);
    log(7);
}

/// Blocked signals wait, once each; ignored ones vanish; children inherit handlers and
/// masks but nothing that is pending.
pub fn masks(sigs: &Sigs) {
    let report = &sigs.report;
    let (usr1, usr2) = (libc::SIGUSR1, libc::SIGUSR2);
    LOG.store(0, Ordering::Relaxed);
    on(usr1, who as *const () as usize, libc::SA_SIGINFO, &[]);
    set_handler(usr2, libc::SIG_IGN, 0);
    block(usr1, libc::SIG_BLOCK);
    (0..3).for_each(|_| raise(usr1));
    raise(usr2);
    report.same("blocked", LOG.load(Ordering::Relaxed), 0);
    let end = child::run(|| {
        block(libc::SIGUSR1, libc::SIG_UNBLOCK);
        let inherited = LOG.load(Ordering::Relaxed);
        raise(libc::SIGUSR1);
        (inherited * 10 + LOG.load(Ordering::Relaxed)) as i32
    });
    report.same("child", end, End::Exit(7));
    block(usr1, libc::SIG_UNBLOCK);
    report.same("unblocked", LOG.load(Ordering::Relaxed), 7);
    report.same("si_code of kill", SENDER[0].load(Ordering::Relaxed), 0);
    report.same("si_pid of kill", SENDER[1].load(Ordering::Relaxed), sys::getpid() as u64);
    set_handler(usr1, libc::SIG_DFL, 0);
    set_handler(usr2, libc::SIG_DFL, 0);
}
