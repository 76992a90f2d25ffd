//! Bare-metal x86-64 kernel that runs unmodified Linux programs on the `faultless` crate.
//!
//! Two halves. The machine half: [`boot`], [`arch`], [`heap`], [`machine`], [`sched`],
//! [`process`], [`signal`], [`futex`], [`report`]. The Linux half: [`fs`] and [`syscall`].
//!
//! Shape: each CPU has one kernel stack and runs `sched::run`. It enters user mode with
//! `arch::enter_user` and gets control back at each trap; page faults of user code are resolved
//! in the trap entry itself, without going back to the loop, when `faultless` can resolve them.
//! Interrupts are off in the kernel except where a CPU has nothing to do.
//!
//! What the machine half expects of the Linux half (all take `&mut CpuLocal` where they may touch
//! memory):
//!
//! - `fs::FileTable`: `fork(&self) -> Arc<FileTable>`, `close_on_exec(&self, cpu)`,
//!   `close_all(&self, cpu)`; its own locking inside.
//! - `fs::FsContext`: `fork(&self) -> Arc<FsContext>`; its own locking inside.
//! - `fs::open_executable(cpu, &FsContext, path: &[u8]) -> Result<fs::Executable, Errno>` with
//!   `Executable { object: Arc<Object<KernelMachine>>, path: Vec<u8> }`, following symbolic
//!   links; EACCES unless it is a regular file with an execute bit.
//! - `fs::init(cpu, archive: &'static [u8]) -> Result<fs::Manifest, Errno>` with `Manifest { exec,
//!   args, env, cwd: Vec<u8>-s, report, tty: bool }`; `fs::first_tables(cpu, &Manifest) ->
//!   (Arc<FileTable>, Arc<FsContext>)`; `fs::shutdown(cpu)`, which drops every file so that no
//!   page of any object stays allocated.
//! - `fs::console_input(cpu)`: called when COM1 has received something; takes what it has room for.
//! - `syscall::dispatch(&Arc<Thread>, &mut CpuLocal, &mut UserContext) -> Outcome` and
//!   `syscall::unknown_counts(impl FnMut(&str, u64))` for the report.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod boot;
mod clock;
mod errno;
mod fs;
mod futex;
mod heap;
mod khugepaged;
mod machine;
mod process;
mod random;
mod report;
mod retired;
mod sched;
mod shm;
mod signal;
mod start;
mod sync;
mod syscall;
mod tunables;
mod uaccess;
