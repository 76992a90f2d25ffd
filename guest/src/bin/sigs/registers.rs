//! Registers survive a signal: one that a system call delivers, and many that come from
//! outside at any instruction.

use crate::{Sigs, on};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::child;
use faultless_guest::rng::mix;
use faultless_guest::sys::{self, End};

/// How often the handler ran. (A)
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Both kinds of signals.
pub fn registers(sigs: &Sigs) {
    on(libc::SIGUSR1, spoil as *const () as usize, 0, &[]);
    for seed in 0..50 {
        synchronous(sigs, mix(seed));
    }
    asynchronous(sigs);
    faultless_guest::probe::set_handler(libc::SIGUSR1, libc::SIG_DFL, 0);
}

/// Changes as many registers as it may.
extern "C" fn spoil(_: i32) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the block names all that it changes.
    unsafe {
        asm!(
            "xorps xmm0, xmm0", "xorps xmm1, xmm1", "xorps xmm7, xmm7", "xorps xmm15, xmm15",
            "xor edi, edi", "xor esi, esi", "xor edx, edx", "xor r8d, r8d", "xor r9d, r9d",
            "xor r10d, r10d", "stc",
            out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm15") _, out("rdi") _,
            out("rsi") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _,
        );
    }
}

/// kill(self): the handler runs before the call returns, and only rax, rcx and r11 change.
fn synchronous(sigs: &Sigs, seed: u64) {
    let pid = sys::getpid() as u64;
    let words: [u64; 8] = core::array::from_fn(|index| mix(seed ^ index as u64));
    let [mut rdx, mut r8, mut r9, mut r10] = [words[0], words[1], words[2], words[3]];
    let [mut r12, mut r13, mut low, mut high] = [words[4], words[5], words[6], words[7]];
    let (mut rdi, mut rsi) = (pid, libc::SIGUSR1 as u64);
    let mut rax = libc::SYS_kill as u64;
    let before = COUNT.load(Ordering::Relaxed);
    // SAFETY: sends this process a signal that it handles.
    unsafe {
        asm!(
            "movq xmm0, {low}", "movq xmm15, {high}",
            "syscall",
            "movq {low}, xmm0", "movq {high}, xmm15",
            low = inout(reg) low, high = inout(reg) high,
            inout("rax") rax, inout("rdi") rdi, inout("rsi") rsi, inout("rdx") rdx,
            inout("r8") r8, inout("r9") r9, inout("r10") r10, inout("r12") r12,
            inout("r13") r13, out("rcx") _, out("r11") _, out("xmm0") _, out("xmm15") _,
        );
    }
    let got = [rdx, r8, r9, r10, r12, r13, low, high];
    sigs.report.same("registers after a signal", got, words);
    sigs.report.same("arguments", [rax, rdi, rsi], [0, pid, libc::SIGUSR1 as u64]);
    sigs.report.same("handler", COUNT.load(Ordering::Relaxed), before + 1);
}

/// A child sends signals while this process computes in registers.
fn asynchronous(sigs: &Sigs) {
    let parent = sys::getpid();
    let before = COUNT.load(Ordering::Relaxed);
    let pid = child::spawn(|| {
        for _ in 0..100 {
            let _ = sys::kill(parent, libc::SIGUSR1);
            let _ = sys::sleep_micros(200);
        }
        sigs.note.set(0, 1);
        0
    });
    let want = compute(1, 2000);
    let mut rounds = 0;
    // Ends when the child has sent its signals.
    while sigs.note.get(0) == 0 || rounds == 0 {
        sigs.report.same("computation", compute(1, 2000), want);
        rounds += 1;
    }
    let end = sigs.report.need("wait", sys::wait(pid));
    sigs.report.same("sender", end, (pid, End::Exit(0)));
    let count = COUNT.load(Ordering::Relaxed) - before;
    sigs.report.check(count > 0, || "no signal arrived".to_owned());
}

/// A chain through integer and vector registers and flags.
fn compute(start: u64, turns: u64) -> [u64; 2] {
    let (mut a, mut b) = (start, f64::from_bits(0x3ff0_0000_0000_0001));
    for turn in 0..turns {
        a = mix(a ^ turn);
        b = b * 0.5 + (a >> 40) as f64;
    }
    [a, b.to_bits()]
}
