//! System calls that a signal interrupts, or restarts; and what happens to children.

use crate::{Sigs, block, on};
use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::child;
use faultless_guest::probe::set_handler;
use faultless_guest::sys::{self, End, Errno};

/// How often the handler ran. (A)
static COUNT: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Word of the note: the caller is done, the sender may stop.
const DONE: usize = 0;

/// A child that sends SIGUSR1 until told to stop, so that no call can miss it.
fn with_sender<T>(sigs: &Sigs, body: impl FnOnce() -> T) -> T {
    let parent = sys::getpid();
    sigs.note.set(DONE, 0);
    let pid = child::spawn(|| {
        while sigs.note.get(DONE) == 0 {
            let _ = sys::sleep_micros(1500);
            let _ = sys::kill(parent, libc::SIGUSR1);
        }
        0
    });
    let value = body();
    sigs.note.set(DONE, 1);
    let end = sigs.report.need("wait", sys::wait(pid));
    sigs.report.same("sender", end, (pid, End::Exit(0)));
    value
}

/// Calls that wait return EINTR after a handler without SA_RESTART.
pub fn interrupt(sigs: &Sigs) {
    let report = &sigs.report;
    let eintr = Err(Errno(libc::EINTR));
    on(libc::SIGUSR1, count as *const () as usize, 0, &[]);
    let (out, into) = report.need("pipe", sys::pipe());
    let before = COUNT.load(Ordering::Relaxed);
    report.same("read", with_sender(sigs, || sys::read(out, &mut [0])), eintr);
    let ran = COUNT.load(Ordering::Relaxed) > before;
    report.check(ran, || "EINTR without a handler".to_owned());
    report.same("sleep", with_sender(sigs, || sys::sleep_micros(60_000_000)), eintr);
    let left = with_sender(sigs, remaining_sleep);
    report.check(left < 60, || format!("{left} of 60 seconds left"));
    let word = 5_u64;
    let args = [&raw const word as usize, libc::FUTEX_WAIT as usize, 5, 0, 0, 0];
    // SAFETY: waits on a word of this function.
    let futex = || unsafe { sys::call(libc::SYS_futex, args) };
    report.same("futex", with_sender(sigs, futex), eintr);
    // SAFETY: waits for a signal.
    let pause = || unsafe { sys::call(libc::SYS_pause, [0; 6]) };
    report.same("pause", with_sender(sigs, pause), eintr);
    report.same("wait4", with_sender(sigs, wait_for_sleeper), eintr);
    report.same("write", with_sender(sigs, || fill(into)), eintr);
    [out, into].into_iter().for_each(sys::close);
    set_handler(libc::SIGUSR1, libc::SIG_DFL, 0);
}

/// Seconds left of a sleep of 60 seconds after a signal.
fn remaining_sleep() -> u64 {
    let time = [60_u64, 0];
    let mut left = [99_u64, 0];
    let args = [time.as_ptr() as usize, left.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: both have the layout of a timespec.
    let got = unsafe { sys::call(libc::SYS_nanosleep, args) };
    if got == Err(Errno(libc::EINTR)) { left[0] } else { 100 }
}

/// wait4 for a child that does not end by itself.
fn wait_for_sleeper() -> sys::Result {
    let pid = child::spawn(|| {
        set_handler(libc::SIGUSR1, libc::SIG_IGN, 0);
        loop {
            let _ = sys::sleep_micros(1_000_000);
        }
    });
    // SAFETY: no status is asked for.
    let got = unsafe { sys::call(libc::SYS_wait4, [pid as usize, 0, 0, 0, 0, 0]) };
    let _ = sys::kill(pid, libc::SIGKILL);
    let end = sys::wait(pid);
    if end == Ok((pid, End::Signal(libc::SIGKILL))) { got } else { Err(Errno(libc::EIO)) }
}

/// Writes to a pipe until it is full and the call waits.
fn fill(into: i32) -> sys::Result {
    loop {
        // A page each, so that no write is done in part before it waits.
        sys::write(into, &[1; 4096])?;
    }
}

/// With SA_RESTART, read and wait4 go on; the sleep does not.
pub fn restart(sigs: &Sigs) {
    let report = &sigs.report;
    on(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART, &[]);
    let parent = sys::getpid();
    let (out, into) = report.need("pipe", sys::pipe());
    let before = COUNT.load(Ordering::Relaxed);
    let pid = child::spawn(|| {
        for _ in 0..20 {
            let _ = sys::kill(parent, libc::SIGUSR1);
            let _ = sys::sleep_micros(500);
        }
        i32::from(sys::write(into, b"x") != Ok(1))
    });
    let mut byte = [0];
    report.same("read", sys::read(out, &mut byte), Ok(1));
    report.same("byte", byte[0], b'x');
    let end = report.need("wait", sys::wait(pid));
    report.same("sender", end, (pid, End::Exit(0)));
    let ran = COUNT.load(Ordering::Relaxed) > before;
    report.check(ran, || "no signal arrived".to_owned());
    let eintr = Err(Errno(libc::EINTR));
    report.same("sleep", with_sender(sigs, || sys::sleep_micros(60_000_000)), eintr);
    [out, into].into_iter().for_each(sys::close);
    set_handler(libc::SIGUSR1, libc::SIG_DFL, 0);
}

/// Children that are killed in the middle of work, SIGCHLD and SIGPIPE.
pub fn children(sigs: &Sigs) {
    let report = &sigs.report;
    for micros in [0, 100, 1000, 5000] {
        let pid = child::spawn(|| {
            sigs.note.set(1, 1);
            let arena = faultless_guest::arena::Arena::new(49, 64);
            loop {
                let _ = arena.map(0, 64, sys::RW);
                (0..64).for_each(|page| arena.store(page * sys::PAGE, 1));
            }
        });
        let _ = sys::sleep_micros(micros);
        report.same("kill", sys::kill(pid, libc::SIGKILL), Ok(0));
        report.same("wait", sys::wait(pid), Ok((pid, End::Signal(libc::SIGKILL))));
    }
    on(libc::SIGCHLD, count as *const () as usize, 0, &[]);
    let before = COUNT.load(Ordering::Relaxed);
    let end = child::run(|| 9);
    report.same("child", end, End::Exit(9));
    report.same("SIGCHLD", COUNT.load(Ordering::Relaxed), before + 1);
    set_handler(libc::SIGCHLD, libc::SIG_DFL, 0);
    report.same("nobody to wait for", sys::wait(-1), Err(Errno(libc::ECHILD)));
    let (out, into) = report.need("pipe", sys::pipe());
    sys::close(out);
    let end = child::run(|| {
        set_handler(libc::SIGPIPE, libc::SIG_DFL, 0);
        sys::write(into, b"x").is_ok().into()
    });
    report.same("SIGPIPE", end, End::Signal(libc::SIGPIPE));
    let end = child::run(|| {
        set_handler(libc::SIGPIPE, libc::SIG_IGN, 0);
        i32::from(sys::write(into, b"x") != Err(Errno(libc::EPIPE)))
    });
    report.same("EPIPE", end, End::Exit(0));
    sys::close(into);
    block(libc::SIGUSR1, libc::SIG_UNBLOCK);
}
