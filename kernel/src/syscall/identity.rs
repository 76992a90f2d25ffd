//! Who the caller is: ids of processes, users and groups.
//!
//! There is one user, root, as in a user namespace that maps nothing but id 0: any other id is `EINVAL`.

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::process::Capabilities;
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_getpid, Plain(|call| Ok(i64::from(call.process().pid)))),
    (linux::__NR_gettid, Plain(|call| Ok(i64::from(call.thread.tid)))),
    (linux::__NR_getppid, Plain(|call| Ok(i64::from(call.process().parent_pid())))),
    (linux::__NR_getpgrp, Plain(|call| Ok(i64::from(call.process().group())))),
    (linux::__NR_getuid, Plain(|_| Ok(0))),
    (linux::__NR_geteuid, Plain(|_| Ok(0))),
    (linux::__NR_getgid, Plain(|_| Ok(0))),
    (linux::__NR_getegid, Plain(|_| Ok(0))),
    (linux::__NR_setuid, Plain(|call| set(call, 1))),
    (linux::__NR_setgid, Plain(|call| set(call, 1))),
    (linux::__NR_setreuid, Plain(|call| change(call, 2))),
    (linux::__NR_setregid, Plain(|call| change(call, 2))),
    (linux::__NR_setresuid, Plain(|call| change(call, 3))),
    (linux::__NR_setresgid, Plain(|call| change(call, 3))),
    (linux::__NR_getresuid, Plain(get_three)),
    (linux::__NR_getresgid, Plain(get_three)),
    // These two return the old id, whatever happens.
    (linux::__NR_setfsuid, Plain(|_| Ok(0))),
    (linux::__NR_setfsgid, Plain(|_| Ok(0))),
    (linux::__NR_getgroups, Plain(getgroups)),
    (linux::__NR_setgroups, Plain(setgroups)),
    (linux::__NR_capget, Plain(capget)),
    (linux::__NR_capset, Plain(capset)),
];

/// Numbers of capabilities that mean something.
const MEANINGFUL: u64 = 0x1ff_ffff_ffff;

/// All ids must be 0.
fn set(call: &Call<'_>, count: usize) -> SysResult {
    let known = (0..count).all(|n| call.uint(n) == 0);
    if known { Ok(0) } else { Err(Errno::EINVAL) }
}

/// All ids must be 0, or -1 for no change.
fn change(call: &Call<'_>, count: usize) -> SysResult {
    let known = (0..count).all(|n| matches!(call.uint(n), 0 | u32::MAX));
    if known { Ok(0) } else { Err(Errno::EINVAL) }
}

fn get_three(call: &mut Call<'_>) -> SysResult {
    for n in 0..3 {
        let to = call.word(n);
        uaccess::write(call.cpu, to, &[0; 4])?;
    }
    Ok(0)
}

/// There are no supplementary groups.
fn getgroups(call: &mut Call<'_>) -> SysResult {
    if call.int(0) < 0 { Err(Errno::EINVAL) } else { Ok(0) }
}

fn setgroups(call: &mut Call<'_>) -> SysResult {
    match call.uint(0) {
        0 => Ok(0),
        count if count > 65_536 => Err(Errno::EINVAL),
        // Groups other than none cannot be kept.
        _ => Err(Errno::EPERM),
    }
}

/// Whether the header of a call about capabilities has the version that is known, which is written to
/// it if not.
fn check_version(call: &mut Call<'_>) -> Result<bool, Errno> {
    const VERSION: u32 = 0x2008_0522;
    let header = call.word(0);
    let version = uaccess::read_u32(call.cpu, header)?;
    if version != VERSION {
        uaccess::write(call.cpu, header, &VERSION.to_le_bytes())?;
    }
    Ok(version == VERSION)
}

fn capget(call: &mut Call<'_>) -> SysResult {
    let data = call.word(1);
    if !check_version(call)? {
        return if data == 0 { Ok(0) } else { Err(Errno::EINVAL) };
    }
    if data == 0 {
        return Ok(0);
    }
    let Capabilities { effective, permitted, inheritable } = *call.process().capabilities.lock();
    let sets = [effective, permitted, inheritable];
    let low = sets.iter().fold(Layout::new(), |layout, &set| layout.u32(set as u32));
    let all = sets.iter().fold(low, |layout, &set| layout.u32((set >> 32) as u32));
    all.write(call.cpu, data)?;
    Ok(0)
}

fn capset(call: &mut Call<'_>) -> SysResult {
    if !check_version(call)? {
        return Err(Errno::EINVAL);
    }
    let (header, data) = (call.word(0), call.word(1));
    let who = uaccess::read_u32(call.cpu, header + 4)?.cast_signed();
    if who != 0 && who != call.thread.tid {
        return Err(Errno::EPERM);
    }
    let bytes: [u8; 24] = uaccess::read(call.cpu, data)?;
    let half = |n: usize| u64::from(u32::from_le_bytes(core::array::from_fn(|i| bytes[n * 4 + i])));
    // Bits without a meaning are left out, as on Linux.
    let set = |n: usize| (half(n) | half(n + 3) << 32) & MEANINGFUL;
    let wanted = Capabilities { effective: set(0), permitted: set(1), inheritable: set(2) };
    call.process().capabilities.lock().change(wanted)?;
    call.process().apply_limits();
    Ok(0)
}
