//! From a booted machine to the first program, and from its end to the end of the machine.
//!
//! Called by `boot` on each CPU, and by `process` when processes end. The first process is the
//! program that the archive's manifest names. When it ends, the others are killed; when the last
//! is gone, everything is given back, counted, and reported.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use faultless::{CpuId, FrameId, HugePages, PAGE_SIZE, Page, RawFrames, Vm};

use crate::arch::debug_port::{self, End};
use crate::arch::idt::vector;
use crate::arch::{CpuLocal, MAX_CPUS, apic, cpu, serial};
use crate::boot::{self, memory, paging};
use crate::errno::Errno;
use crate::machine::{self, KernelMachine};
use crate::process::{self, ExecRequest, ExitStatus, Process, kill_group, table};
use crate::sync::{Lock, Spin};
use crate::{fs, khugepaged, random, report, sched, shm, tunables};

/// How the first process ended, once it has.
static FIRST_STATUS: Lock<Option<report::Program>> = Lock::new(None);
/// The last process is gone: CPUs stop working.
static OVER: AtomicBool = AtomicBool::new(false);
/// CPUs that have stopped.
static RETIRED: AtomicUsize = AtomicUsize::new(0);
/// Free frames before the first process was made.
static FREE_AT_START: AtomicU64 = AtomicU64::new(0);

/// The first CPU: sets up memory, files and the first process, then schedules.
pub fn first_cpu(online: usize, archive: Option<(u64, u64)>) -> ! {
    random::init();
    let window = memory::take(fs::frames::KEPT * PAGE_SIZE);
    let frames = memory::hand_over();
    let machine = KernelMachine::new(online, frames);
    let vm = Vm::new(machine).expect("the machine has enough memory");
    // SAFETY: the other CPUs wait for `release_others`.
    unsafe { machine::install(vm) };
    tunables::init();
    let cpu = make_local(0);
    report::boot(online);
    // As distributions ship Linux.
    machine::vm().set_huge_pages(&mut cpu.vm, HugePages::Advised);
    FREE_AT_START.store(machine::vm().stats().free_frames, Ordering::Relaxed);
    khugepaged::start();
    open_window(cpu, window);
    start_program(cpu, archive);
    serial::enable_interrupt();
    boot::release_others(online);
    sched::run(cpu)
}

/// Another CPU, once the first has set everything up.
pub fn other_cpu(index: usize) -> ! {
    let cpu = make_local(index);
    sched::run(cpu)
}

fn make_local(index: usize) -> &'static mut CpuLocal {
    let token = machine::vm().cpu(CpuId::new(index as u32)).expect("each CPU asks once");
    CpuLocal::install(token)
}

/// Sets up the device that shows frames: those at `kept`, and pages that it allocates.
fn open_window(cpu: &mut CpuLocal, kept: u64) {
    // SAFETY: they were taken from the free memory before faultless was given the rest, and nobody else knows of them.
    let kept = unsafe { RawFrames::new(FrameId::new(kept / PAGE_SIZE), fs::frames::KEPT) };
    // SAFETY: the contents of a page of the driver are the programs' affair, and it has the page until
    // `fs::shutdown`: no program is left then, and no mapping.
    let vouch = |page: &Page<KernelMachine>| unsafe { RawFrames::new(page.frame(), 1) };
    // Without memory the device has nothing to show, which it says when it is used.
    if let Ok(window) = fs::frames::Window::new(cpu, kept, vouch) {
        fs::frames::install(window);
    }
}

fn start_program(cpu: &mut CpuLocal, archive: Option<(u64, u64)>) {
    let Some((start, end)) = archive else {
        give_up("there is no archive: -initrd FILE");
    };
    let at = paging::physical_to_virtual(start) as *const u8;
    // SAFETY: the archive lies in RAM that was never handed over, and nobody writes to it.
    let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(at, (end - start) as usize) };
    let manifest = match fs::init(cpu, bytes) {
        Ok(manifest) => manifest,
        Err(Errno::EINVAL) => give_up("the archive is damaged"),
        Err(Errno::ENOENT) => give_up("the archive does not say what to run"),
        Err(_) => give_up("the archive has more files than there is memory for"),
    };
    let (files, context) = fs::first_tables(cpu, &manifest);
    let (Ok(args), Ok(env)) = (process::strings(&manifest.args), process::strings(&manifest.env)) else {
        give_up("the arguments do not fit into memory");
    };
    let request = ExecRequest { path: manifest.exec.clone(), args, env };
    if let Err(errno) = process::spawn_first(cpu, request, files, context) {
        report::cannot_start(&manifest.exec, errno);
        debug_port::exit(End::Orderly);
    }
}

/// What the kernel was started with is of no use, which is no defect of the kernel.
fn give_up(reason: &str) -> ! {
    report::unusable(reason);
    debug_port::exit(End::Orderly)
}

/// The first process is a zombie: ends all others.
pub fn first_process_ended(first: &Arc<Process>, cpu: &mut CpuLocal) {
    let status = first.ending.lock().reason.unwrap_or(ExitStatus::Exited(0));
    *FIRST_STATUS.lock() = Some(report::Program { status, usage: first.usage.totals() });
    // A fork that is under way is seen here, or sees this.
    for other in table::close() {
        if other.pid != first.pid {
            kill_group(&other, ExitStatus::Killed(crate::signal::number::SIGKILL));
        }
    }
    if table::remove(first.pid) == 0 {
        last_process_removed(cpu);
    }
}

/// No process is left: the end. Before the first process ended this cannot happen.
pub fn last_process_removed(cpu: &mut CpuLocal) {
    let Some(program) = FIRST_STATUS.lock().take() else {
        return;
    };
    fs::shutdown(cpu);
    shm::shutdown();
    retire_others(cpu);
    let vm = machine::vm();
    // What root made of it is no leak.
    vm.set_huge_pool(&mut cpu.vm, 0);
    let recount = vm.audit(&mut cpu.vm, &[], &[]).err().map(|e| alloc::format!("{e}"));
    give_token_back(cpu);
    let frames =
        report::Frames { free_at_start: FREE_AT_START.load(Ordering::Relaxed), free_at_exit: vm.stats().free_frames };
    report::exit(&program, frames, recount.as_deref());
    debug_port::exit(End::Orderly)
}

/// Makes all other CPUs give back what they have cached. They have nothing left to run.
fn retire_others(cpu: &mut CpuLocal) {
    let others = sched::online_mask() & !(1 << cpu.index());
    // Release pairs with the Acquire in `retire_if_over`.
    OVER.store(true, Ordering::Release);
    for index in (0..MAX_CPUS).filter(|i| others & 1 << i != 0) {
        apic::send(index, vector::KICK);
    }
    let mut spin = Spin::new();
    // Acquire pairs with the Release in `retire_if_over`. Ends: each CPU comes by soon.
    while RETIRED.load(Ordering::Acquire) < others.count_ones() as usize {
        spin.relax();
    }
}

/// Ends the work of this CPU if everything is over. The run loop asks each time round.
pub fn retire_if_over(cpu: &mut CpuLocal) {
    // Acquire pairs with the Release in `retire_others`.
    if OVER.load(Ordering::Acquire) {
        give_token_back(cpu);
        // Release pairs with the Acquire in `retire_others`.
        RETIRED.fetch_add(1, Ordering::Release);
        cpu::halt_for_ever();
    }
}

/// Drops this CPU's token, and with it the CPU's caches inside faultless. Nothing may use it
/// afterwards: both callers end the CPU's work.
fn give_token_back(cpu: &mut CpuLocal) {
    // SAFETY: the `CpuLocal` is leaked and never dropped, and the token is not used again.
    unsafe { core::ptr::drop_in_place(&raw mut cpu.vm) }
}
