//! What a process leaves must be there for the next: memory that another CPU still keeps is as good as lost.

use faultless_guest::arena::Arena;
use faultless_guest::child;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, ANON, End, PAGE, RW, SHARED_ANON};

/// Pages that the busy process maps, touches and unmaps again and again.
const TURNOVER: usize = 64;

/// Processes that fill `mib` MiB each, one after the other, on CPUs of their own, while others keep entering and leaving
/// the tables. Nobody may be killed for lack of memory. Does nothing for 0: only who knows how much memory there is can
/// say how much is most of it.
pub fn inherit_memory(report: &Report, rounds: usize, mib: usize) {
    let pages = mib * 256;
    if pages == 0 {
        return;
    }
    let busy = [0, 1].map(|cpu| {
        child::spawn(|| {
            stay_on(cpu);
            let arena = Arena::new(60, TURNOVER);
            loop {
                if fill(arena, ANON, TURNOVER) != 0 || arena.unmap(0, TURNOVER).is_err() {
                    return 1;
                }
            }
        })
    });
    for round in 0..rounds {
        let arena = Arena::new(61, pages);
        let first = child::run(|| {
            stay_on(2 + round % 2);
            fill(arena, SHARED_ANON, pages)
        });
        report.same("who came first", first, End::Exit(0));
        let second = child::run(|| {
            stay_on(0);
            fill(arena, ANON, pages)
        });
        report.same("who came next", second, End::Exit(0));
    }
    for pid in busy {
        report.need("kill", sys::kill(pid, libc::SIGKILL));
        report.need("wait", sys::wait(pid));
    }
}

fn fill(arena: Arena, flags: i32, pages: usize) -> i32 {
    if arena.map_as(0, pages, RW, flags, -1, 0).is_err() {
        return 1;
    }
    (0..pages).for_each(|page| arena.store_byte(page * PAGE, 1));
    0
}

/// On this CPU, if there is such a one.
fn stay_on(cpu: usize) {
    let mask = 1_u64 << cpu;
    let args = [0, size_of_val(&mask), &raw const mask as usize, 0, 0, 0];
    // SAFETY: the mask is ours.
    let _ = unsafe { sys::call(libc::SYS_sched_setaffinity, args) };
}
