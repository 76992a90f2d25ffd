//! /proc files about the machine and the kernel.
//!
//! Called by the tree in [`super`].

use alloc::vec::Vec;

use faultless::{HugePages, HugePool, Machine};

use super::text::{LargePages, MachineMemory, Text, put, write_cpu_list, write_uptime};
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::khugepaged::Figure;
use crate::process::table;
use crate::sched;
use crate::uaccess::Source;
use crate::{clock, fs, machine, random, shm, tunables};

/// A file directly below /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemFile {
    /// Memory of the machine.
    Meminfo,
    /// The same in pages, and counts of events.
    Vmstat,
    /// The CPUs.
    Cpuinfo,
    /// Time since boot.
    Uptime,
    /// CPU times and counts.
    Stat,
    /// Load averages, which nobody computes: zero.
    Loadavg,
    /// Name and version of the kernel.
    Version,
    /// File systems that the kernel knows.
    Filesystems,
    /// Drivers by major number.
    Devices,
    /// Boot options.
    Cmdline,
}

/// The files directly below /proc.
pub const SYSTEM: &[(&str, SystemFile)] = &[
    ("meminfo", SystemFile::Meminfo),
    ("vmstat", SystemFile::Vmstat),
    ("cpuinfo", SystemFile::Cpuinfo),
    ("uptime", SystemFile::Uptime),
    ("stat", SystemFile::Stat),
    ("loadavg", SystemFile::Loadavg),
    ("version", SystemFile::Version),
    ("filesystems", SystemFile::Filesystems),
    ("devices", SystemFile::Devices),
    ("cmdline", SystemFile::Cmdline),
];

/// What `uname` and /proc/sys say, too.
pub const KERNEL_NAME: &str = "Linux";
/// The version of Linux whose calls and errors this kernel follows, and its own name.
pub const KERNEL_RELEASE: &str = "6.1.0-faultless";
/// `uname -v`.
pub const KERNEL_VERSION: &str = concat!("#1 SMP faultless-kernel ", env!("CARGO_PKG_VERSION"));
/// `uname -n`.
pub const HOST_NAME: &str = "faultless";

/// A file below /proc/sys: its path there, and what writes its text.
type SysFile = (&'static str, fn(&mut Text));

/// The files below /proc/sys, sorted.
pub const SYS: &[SysFile] = &[
    ("fs/file-max", |t| put!(t, "{}\n", fs::open_file_count().1)),
    ("fs/file-nr", |t| {
        let (open, most) = fs::open_file_count();
        put!(t, "{open}\t0\t{most}\n");
    }),
    ("fs/nr_open", |t| put!(t, "{}\n", fs::MAX_FILES)),
    ("fs/pipe-max-size", |t| put!(t, "{}\n", fs::MAX_PIPE_CAPACITY)),
    ("kernel/cap_last_cap", |t| put!(t, "40\n")),
    ("kernel/hostname", |t| put!(t, "{HOST_NAME}\n")),
    ("kernel/ngroups_max", |t| put!(t, "65536\n")),
    ("kernel/osrelease", |t| put!(t, "{KERNEL_RELEASE}\n")),
    ("kernel/ostype", |t| put!(t, "{KERNEL_NAME}\n")),
    ("kernel/pid_max", |t| put!(t, "4194304\n")),
    ("kernel/random/boot_id", |t| write_uuid(boot_id(), t)),
    ("kernel/random/entropy_avail", |t| put!(t, "256\n")),
    ("kernel/random/uuid", |t| write_uuid([random::word(), random::word()], t)),
    ("kernel/randomize_va_space", |t| put!(t, "0\n")),
    ("kernel/version", |t| put!(t, "{KERNEL_VERSION}\n")),
    ("vm/max_map_count", |t| write_tunable("vm/max_map_count", t)),
    ("vm/mmap_min_addr", |t| put!(t, "65536\n")),
    (NR_HUGEPAGES, |t| put!(t, "{}\n", HugeFile::Persistent.value())),
    ("vm/overcommit_kbytes", |t| write_tunable("vm/overcommit_kbytes", t)),
    ("vm/overcommit_memory", |t| write_tunable("vm/overcommit_memory", t)),
    ("vm/overcommit_ratio", |t| write_tunable("vm/overcommit_ratio", t)),
    ("vm/user_reserve_kbytes", |t| write_tunable("vm/user_reserve_kbytes", t)),
];

/// The size of the pool of large pages.
pub const NR_HUGEPAGES: &str = "vm/nr_hugepages";

/// A figure of the pool of large pages, below /sys/kernel/mm/hugepages/hugepages-2048kB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugeFile {
    /// nr_hugepages, surplus ones included.
    Total,
    /// free_hugepages
    Free,
    /// resv_hugepages
    Reserved,
    /// surplus_hugepages
    Surplus,
    /// vm.nr_hugepages: without surplus ones.
    Persistent,
}

/// Those in /sys, by name.
pub const HUGE_FILES: [(&str, HugeFile); 4] = [
    ("nr_hugepages", HugeFile::Total),
    ("free_hugepages", HugeFile::Free),
    ("resv_hugepages", HugeFile::Reserved),
    ("surplus_hugepages", HugeFile::Surplus),
];

impl HugeFile {
    /// The figure now.
    fn value(self) -> u64 {
        let pool = machine::vm().huge_pool();
        match self {
            HugeFile::Total => pool.total,
            HugeFile::Free => pool.free,
            HugeFile::Reserved => pool.reserved,
            HugeFile::Surplus => pool.surplus,
            HugeFile::Persistent => pool.total - pool.surplus,
        }
    }

    /// The file's text.
    pub fn text(self) -> Vec<u8> {
        let mut text = Text::default();
        put!(text, "{}\n", self.value());
        text.0
    }

    /// Its name; the last one's is that of a file of /proc/sys.
    pub fn name(self) -> &'static str {
        HUGE_FILES.iter().find(|(_, file)| *file == self).map_or(NR_HUGEPAGES, |(name, _)| name)
    }

    /// May it be written?
    pub fn is_writable(self) -> bool {
        matches!(self, HugeFile::Total | HugeFile::Persistent)
    }

    /// Sets the size of the pool, as near as memory allows.
    ///
    /// # Errors
    ///
    /// `EACCES` for all but the size, `EINVAL`, `EFAULT`.
    pub fn write(self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        if !self.is_writable() {
            return Err(Errno::EACCES);
        }
        let (count, number) = read_number(cpu, from)?;
        machine::vm().set_huge_pool(&mut cpu.vm, number);
        Ok(count)
    }
}

fn write_tunable(path: &str, text: &mut Text) {
    put!(text, "{}\n", tunables::get(path).unwrap_or(0));
}

/// Sets what a file below /proc/sys stands for: a decimal number.
///
/// # Errors
///
/// `EACCES` if it cannot be set, `EINVAL`, `EFAULT`.
pub fn write_sys(cpu: &mut CpuLocal, index: usize, from: &mut dyn Source) -> Result<usize, Errno> {
    if SYS[index].0 == NR_HUGEPAGES {
        return HugeFile::Persistent.write(cpu, from);
    }
    let (count, number) = read_number(cpu, from)?;
    tunables::set(SYS[index].0, number)?;
    Ok(count)
}

/// Sets a figure of who collapses pages.
///
/// # Errors
///
/// `EACCES` if it only counts, `EINVAL`, `EFAULT`.
pub fn write_figure(figure: Figure, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
    if !figure.is_writable() {
        return Err(Errno::EACCES);
    }
    let (count, number) = read_number(cpu, from)?;
    // Both are of 32 bits on Linux, and who looks at all looks at something.
    let value = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
    if value == 0 && figure == Figure::PagesToScan {
        return Err(Errno::EINVAL);
    }
    figure.set(value.into());
    Ok(count)
}

/// Takes all of a write, which must begin with a decimal number. Says how much that was.
fn read_number(cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<(usize, u64), Errno> {
    /// More digits than any number has.
    const MOST: usize = 32;
    let count = from.left();
    let mut bytes = [0; MOST];
    let part = count.min(MOST);
    if from.take(cpu, &mut bytes[..part]) < part {
        return Err(Errno::EFAULT);
    }
    let word = bytes[..part].trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let number = core::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
    Ok((count, number.ok_or(Errno::EINVAL)?))
}

/// The policies of large pages, as they are called.
const HUGE_POLICIES: [(HugePages, &str); 3] =
    [(HugePages::Always, "always"), (HugePages::Advised, "madvise"), (HugePages::Never, "never")];

/// /sys/kernel/mm/transparent_hugepage/enabled
pub fn huge_policy() -> Vec<u8> {
    let mut text = Text::default();
    let now = machine::vm().huge_pages();
    for (place, (policy, name)) in HUGE_POLICIES.into_iter().enumerate() {
        let (open, close) = if policy == now { ("[", "]") } else { ("", "") };
        put!(text, "{}{open}{name}{close}", if place == 0 { "" } else { " " });
    }
    put!(text, "\n");
    text.0
}

/// Sets the policy of large pages by its name.
///
/// # Errors
///
/// `EINVAL`, `EFAULT`.
pub fn write_huge_policy(cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
    /// Longer than any name and a newline.
    const MOST: usize = 16;
    let count = from.left();
    let mut bytes = [0; MOST];
    let part = count.min(MOST);
    if from.take(cpu, &mut bytes[..part]) < part {
        return Err(Errno::EFAULT);
    }
    let name = bytes[..part].strip_suffix(b"\n").unwrap_or(&bytes[..part]);
    let known = HUGE_POLICIES.into_iter().find(|(_, known)| known.as_bytes() == name);
    let (policy, _) = known.ok_or(Errno::EINVAL)?;
    machine::vm().set_huge_pages(&mut cpu.vm, policy);
    Ok(count)
}

/// /proc/sysvipc/shm
pub fn shm_segments() -> Vec<u8> {
    let mut text = Text::default();
    put!(text, "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid ");
    put!(text, "     atime      dtime      ctime                   rss                  swap\n");
    for segment in shm::all() {
        let ([made, last], (uid, gid), [attached, detached, changed]) =
            (segment.processes, segment.owner, segment.times);
        put!(text, "{:10} {:10}  {:4o} {:21} ", segment.key, segment.id, segment.shown_mode(), segment.size);
        put!(text, "{made:5} {last:5}  {:5} {uid:5} {gid:5} {:5} {:5} ", segment.attached(), 0, 0);
        put!(text, "{attached:10} {detached:10} {changed:10} {:21} {:21}\n", segment.resident(), 0);
    }
    text.0
}

/// The same for as long as the machine runs.
fn boot_id() -> [u64; 2] {
    let seed = clock::realtime_offset();
    [seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), seed.wrapping_mul(0xbf58_476d_1ce4_e5b9)]
}

fn write_uuid([high, low]: [u64; 2], text: &mut Text) {
    // Version 4, variant 1.
    let high = high & !0xf000 | 0x4000;
    let low = low & !(3 << 62) | 2 << 62;
    put!(text, "{:08x}-{:04x}-{:04x}-", high >> 32, high >> 16 & 0xffff, high & 0xffff);
    put!(text, "{:04x}-{:012x}\n", low >> 48, low & 0xffff_ffff_ffff);
}

impl SystemFile {
    /// The contents now.
    ///
    /// # Errors
    ///
    /// None so far; the tree asks all files in the same way.
    pub fn text(self) -> Result<Vec<u8>, Errno> {
        let mut text = Text::default();
        match self {
            SystemFile::Meminfo => memory().write(&mut text),
            SystemFile::Vmstat => memory().write_pages(&mut text),
            SystemFile::Cpuinfo => write_cpus(&mut text),
            SystemFile::Uptime => {
                let (busy, up) = (busy_ticks(), clock::monotonic() / TICK);
                let cpus = u64::from(sched::online_mask().count_ones());
                write_uptime(up, (up * cpus).saturating_sub(busy.0 + busy.1), &mut text);
            }
            SystemFile::Stat => write_stat(&mut text),
            SystemFile::Loadavg => write_load(&mut text),
            SystemFile::Version => put!(text, "{KERNEL_NAME} version {KERNEL_RELEASE} (faultless) {KERNEL_VERSION}\n"),
            SystemFile::Filesystems => put!(text, "nodev\tproc\nnodev\ttmpfs\n"),
            SystemFile::Devices => {
                put!(text, "Character devices:\n  1 mem\n  4 ttyS\n  5 /dev/tty\n  5 /dev/console\n\nBlock devices:\n")
            }
            SystemFile::Cmdline => put!(text, "\n"),
        }
        Ok(text.0)
    }
}

/// Nanoseconds in a clock tick, of which there are a hundred per second.
pub const TICK: u64 = clock::SECOND / 100;

fn memory() -> MachineMemory {
    let vm = machine::vm();
    let (census, stats) = (vm.census(), vm.stats());
    MachineMemory {
        total: stats.total_frames,
        free: census.free,
        cached: census.file + census.shmem,
        shmem: census.shmem,
        anon: census.anon,
        anon_huge: machine::vm().huge_entries() * 512,
        mapped: census.mapped,
        dirty: census.dirty,
        writing: census.writing,
        tables: census.tables,
        pool: large_pages(),
        commit: (tunables::commit_limit(), vm.committed()),
        faults: stats.get("faults") + stats.get("fault_error"),
        major_faults: stats.get("fault_major"),
    }
}

fn large_pages() -> LargePages {
    let HugePool { total, free, reserved, surplus } = machine::vm().huge_pool();
    LargePages { total, free, reserved, surplus }
}

fn online() -> impl Iterator<Item = u32> {
    let mask = sched::online_mask();
    (0..64).filter(move |cpu| mask >> cpu & 1 != 0)
}

fn write_cpus(text: &mut Text) {
    for cpu in online() {
        put!(text, "processor\t: {cpu}\nvendor_id\t: AuthenticAMD\ncpu family\t: 6\n");
        put!(text, "model\t\t: 6\nmodel name\t: QEMU TCG CPU\nstepping\t: 3\n");
        put!(text, "physical id\t: 0\nsiblings\t: {}\n", sched::online_mask().count_ones());
        put!(text, "core id\t\t: {cpu}\nfpu\t\t: yes\nwp\t\t: yes\n");
        put!(text, "flags\t\t: fpu tsc msr pae cx8 apic cmov mmx fxsr sse sse2 syscall nx lm\n");
        put!(text, "address sizes\t: 40 bits physical, 48 bits virtual\n\n");
    }
}

/// User and system time of all processes that live or were waited for, in clock ticks.
fn busy_ticks() -> (u64, u64) {
    let mut busy = (0, 0);
    for process in table::all() {
        let totals = process.total_usage();
        let mut sum = totals;
        if process.pid == 1 {
            sum = sum + process.children_usage.totals();
        }
        busy.0 += sum.user;
        busy.1 += sum.system;
    }
    (busy.0 / TICK, busy.1 / TICK)
}

fn write_stat(text: &mut Text) {
    let (user, system) = busy_ticks();
    let up = clock::monotonic() / TICK;
    let cpus = u64::from(sched::online_mask().count_ones());
    let idle = (up * cpus).saturating_sub(user + system);
    put!(text, "cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    // Time is counted per process, not per CPU: an even share is the best that can be said.
    for cpu in online() {
        put!(text, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0\n", user / cpus, system / cpus, idle / cpus);
    }
    let (_, threads, last) = table::counts();
    put!(text, "intr 0\nctxt 0\nbtime {}\n", clock::realtime_offset() / clock::SECOND);
    put!(text, "processes {last}\nprocs_running {}\nprocs_blocked 0\n", threads.min(cpus as usize));
}

fn write_load(text: &mut Text) {
    let (_, threads, last) = table::counts();
    put!(text, "0.00 0.00 0.00 1/{threads} {last}\n");
}

/// `/sys/devices/system/cpu/online` and its like, for C libraries that count CPUs there.
pub fn cpu_list() -> Vec<u8> {
    let mut text = Text::default();
    let cpus = machine::vm().machine().cpus();
    // This is read before the other CPUs run; all of them will.
    write_cpu_list(u64::MAX >> (64 - cpus.clamp(1, 64)), &mut text);
    put!(text, "\n");
    text.0
}
