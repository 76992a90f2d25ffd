//! The machine and the thread's private settings: names, memory sizes, random numbers, `prctl`.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;
use linux_raw_sys::prctl;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::arch::user::USER_END;
use crate::arch::{cpu, user};
use crate::clock;
use crate::errno::{Errno, SysResult};
use crate::fs;
use crate::process::table;
use crate::uaccess::{self, Layout, Sink, UserBuffer};

pub(super) const CALLS: Calls = &[
    (linux::__NR_uname, Plain(uname)),
    (linux::__NR_sysinfo, Plain(sysinfo)),
    (linux::__NR_getrandom, Plain(getrandom)),
    (linux::__NR_prctl, Plain(process_control)),
    (linux::__NR_arch_prctl, Plain(arch_prctl)),
    (linux::__NR_personality, Plain(personality)),
    (linux::__NR_set_tid_address, Plain(set_tid_address)),
    (linux::__NR_set_robust_list, Plain(set_robust_list)),
    (linux::__NR_get_robust_list, Plain(get_robust_list)),
    // C libraries ask for these at each start and do without: not worth a line in the report.
    (linux::__NR_rseq, Plain(|_| Err(Errno::ENOSYS))),
    (linux::__NR_sethostname, Plain(|_| Err(Errno::EPERM))),
    (linux::__NR_setdomainname, Plain(|_| Err(Errno::EPERM))),
    (linux::__NR_reboot, Plain(|_| Err(Errno::EPERM))),
];

fn uname(call: &mut Call<'_>) -> SysResult {
    const FIELD: usize = 65;
    let fields = [fs::KERNEL_NAME, fs::HOST_NAME, fs::KERNEL_RELEASE, fs::KERNEL_VERSION, "x86_64", "(none)"];
    let layout = fields.into_iter().fold(Layout::new(), |layout, text| layout.text(text.as_bytes(), FIELD));
    let to = call.word(0);
    layout.write(call.cpu, to)?;
    Ok(0)
}

fn sysinfo(call: &mut Call<'_>) -> SysResult {
    const PAGE: u64 = 4096;
    let (free, total) = fs::frames();
    let (_, threads, _) = table::counts();
    let layout = Layout::new()
        .u64(clock::monotonic().div_ceil(clock::SECOND))
        .zeroes(3 * 8)
        .u64(total * PAGE)
        .u64(free * PAGE)
        .zeroes(4 * 8)
        .u16(threads as u16)
        .zeroes(2 + 4 + 2 * 8)
        .u32(1)
        .zeroes(4);
    let to = call.word(0);
    layout.write(call.cpu, to)?;
    Ok(0)
}

fn getrandom(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(2);
    let exclusive = linux::GRND_INSECURE | linux::GRND_RANDOM;
    if flags & !(exclusive | linux::GRND_NONBLOCK) != 0 || flags & exclusive == exclusive {
        return Err(Errno::EINVAL);
    }
    let mut buffer = UserBuffer::new(call.word(0), call.word(1))?;
    if buffer.room() == 0 {
        return Ok(0);
    }
    Ok(fs::randomness(call.cpu, &mut buffer)? as i64)
}

fn process_control(call: &mut Call<'_>) -> SysResult {
    let argument = call.word(1);
    match call.uint(0) {
        prctl::PR_SET_NAME => {
            let text = user::cstr(call.cpu, argument, 15)?;
            let mut name = [0; 16];
            name[..text.len()].copy_from_slice(&text);
            *call.thread.name.lock() = name;
            Ok(0)
        }
        prctl::PR_GET_NAME => {
            let name = *call.thread.name.lock();
            uaccess::write(call.cpu, argument, &name)?;
            Ok(0)
        }
        prctl::PR_SET_THP_DISABLE | prctl::PR_GET_THP_DISABLE => large_pages(call),
        prctl::PR_GET_DUMPABLE => Ok(1),
        prctl::PR_GET_KEEPCAPS | prctl::PR_GET_SECCOMP | prctl::PR_GET_NO_NEW_PRIVS => Ok(0),
        prctl::PR_GET_PDEATHSIG => {
            uaccess::write(call.cpu, argument, &[0; 4])?;
            Ok(0)
        }
        prctl::PR_GET_TID_ADDRESS => {
            let address = call.thread.clear_child_tid.load(Ordering::Relaxed);
            uaccess::write(call.cpu, argument, &address.to_le_bytes())?;
            Ok(0)
        }
        prctl::PR_CAPBSET_READ if argument <= LAST_CAPABILITY => Ok(i64::from(argument != RAW_IO_CAPABILITY)),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_THP_DISABLE` and `PR_GET_THP_DISABLE`: the arguments that they do not have must be 0.
fn large_pages(call: &Call<'_>) -> SysResult {
    let sets = call.uint(0) == prctl::PR_SET_THP_DISABLE;
    if (if sets { 2..5 } else { 1..5 }).any(|n| call.word(n) != 0) {
        return Err(Errno::EINVAL);
    }
    let memory = call.process().memory();
    if sets {
        memory.space().set_huge_allowed(call.word(1) == 0);
        return Ok(0);
    }
    Ok(i64::from(!memory.space().is_huge_allowed()))
}

const LAST_CAPABILITY: u64 = 40;
/// The right to map the lowest addresses, which nobody has.
const RAW_IO_CAPABILITY: u64 = 17;

fn arch_prctl(call: &mut Call<'_>) -> SysResult {
    const SET_GS: u32 = 0x1001;
    const SET_FS: u32 = 0x1002;
    const GET_FS: u32 = 0x1003;
    const GET_GS: u32 = 0x1004;
    let address = call.word(1);
    match call.uint(0) {
        SET_FS | SET_GS if address >= USER_END => Err(Errno::EPERM),
        SET_FS => {
            call.regs.fs_base = address;
            cpu::set_fs_base(address);
            Ok(0)
        }
        SET_GS => {
            call.regs.gs_base = address;
            cpu::set_user_gs_base(address);
            Ok(0)
        }
        GET_FS => put(call, address, call.regs.fs_base),
        GET_GS => put(call, address, call.regs.gs_base),
        _ => Err(Errno::EINVAL),
    }
}

fn put(call: &mut Call<'_>, to: u64, value: u64) -> SysResult {
    uaccess::write(call.cpu, to, &value.to_le_bytes())?;
    Ok(0)
}

fn personality(call: &mut Call<'_>) -> SysResult {
    const QUERY: u32 = u32::MAX;
    match call.uint(0) {
        0 | QUERY => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn set_tid_address(call: &mut Call<'_>) -> SysResult {
    call.thread.clear_child_tid.store(call.word(0), Ordering::Relaxed);
    Ok(i64::from(call.thread.tid))
}

/// Bytes of a `struct robust_list_head`.
const ROBUST_HEAD: u64 = 24;

fn set_robust_list(call: &mut Call<'_>) -> SysResult {
    if call.word(1) != ROBUST_HEAD {
        return Err(Errno::EINVAL);
    }
    call.thread.robust_list.store(call.word(0), Ordering::Relaxed);
    Ok(0)
}

fn get_robust_list(call: &mut Call<'_>) -> SysResult {
    let thread = match call.int(0) {
        0 => call.thread.clone(),
        tid => table::find_thread(tid).ok_or(Errno::ESRCH)?,
    };
    let (head_to, size_to) = (call.word(1), call.word(2));
    put(call, size_to, ROBUST_HEAD)?;
    put(call, head_to, thread.robust_list.load(Ordering::Relaxed))
}
