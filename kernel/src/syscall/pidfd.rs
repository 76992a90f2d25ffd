//! Descriptors of processes: `pidfd_open`, `pidfd_send_signal`, and what `waitid`, `process_madvise` and `clone` ask of them.
//!
//! Absent on purpose: descriptors of threads (`PIDFD_THREAD`) and `pidfd_getfd`.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use super::open::install;
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, FileTable, Inode, OnExec, OpenFile};
use crate::process::{Process, table};
use crate::signal::{self, SigInfo};
use crate::uaccess;

pub(super) const CALLS: Calls =
    &[(linux::__NR_pidfd_open, Plain(open)), (linux::__NR_pidfd_send_signal, Plain(send_signal))];

/// `PIDFD_SIGNAL_*`, not in the list of constants.
const TO_THREAD: u32 = 1;
const TO_PROCESS: u32 = 2;
const TO_GROUP: u32 = 4;

/// A file that stands for a process.
pub fn file_of(process: &Arc<Process>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let inode = Inode::new(Body::Process(process.clone()), 0o600);
    OpenFile::new(inode, linux::O_RDWR | flags & linux::O_NONBLOCK)
}

fn open(call: &mut Call<'_>) -> SysResult {
    let (pid, flags) = (call.int(0), call.uint(1));
    if flags & !linux::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let Some(process) = table::find(pid) else {
        // A thread that is not the first of its process has no descriptor of this kind.
        return Err(if table::find_thread(pid).is_some() { Errno::ENOENT } else { Errno::ESRCH });
    };
    install(call, file_of(&process, flags)?, OnExec::closing_if(true))
}

/// The process that a descriptor stands for, or that of the caller itself.
///
/// # Errors
///
/// `EBADF`; `ESRCH` if the process was waited for.
pub fn process_of(caller: &Arc<Process>, files: &FileTable, fd: i32) -> Result<Arc<Process>, Errno> {
    if matches!(fd, linux::PIDFD_SELF_THREAD | linux::PIDFD_SELF_THREAD_GROUP) {
        return Ok(caller.clone());
    }
    let process = named(files, fd)?.0;
    let is_gone = process.ending.lock().reaped;
    if is_gone { Err(Errno::ESRCH) } else { Ok(process) }
}

/// The process that a descriptor stands for, whatever became of it, and whether the descriptor is not to wait.
///
/// # Errors
///
/// `EBADF`.
pub fn named(files: &FileTable, fd: i32) -> Result<(Arc<Process>, bool), Errno> {
    let file = files.get_open(fd)?;
    match &file.inode.body {
        Body::Process(process) => Ok((process.clone(), file.is_nonblocking())),
        _ => Err(Errno::EBADF),
    }
}

fn send_signal(call: &mut Call<'_>) -> SysResult {
    let (fd, number, info, flags) = (call.int(0), call.int(1), call.word(2), call.uint(3));
    if flags & !(TO_THREAD | TO_PROCESS | TO_GROUP) != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let target = process_of(call.process(), &call.files(), fd)?;
    let sender = call.process().pid;
    let told = if info == 0 {
        SigInfo::user(number, sender)
    } else {
        let words: [u8; 32] = uaccess::read(call.cpu, info)?;
        if uaccess::word(&words, 0) as i32 != number {
            return Err(Errno::EINVAL);
        }
        let code = uaccess::word(&words, 1) as i32;
        // As `rt_sigqueueinfo`: codes of the kernel and of `tkill` are for oneself.
        if (code >= 0 || code == signal::TKILL) && target.pid != sender {
            return Err(Errno::EPERM);
        }
        let detail = signal::Detail::Sender { pid: uaccess::word(&words, 2) as i32, value: uaccess::word(&words, 3) };
        SigInfo { signal: number, code, detail }
    };
    if number != 0 && !signal::is_signal(number) {
        return Err(Errno::EINVAL);
    }
    if number == 0 {
        return Ok(0);
    }
    match flags {
        TO_GROUP if signal::send_group(target.pid, told) == 0 => return Err(Errno::ESRCH),
        TO_GROUP => {}
        TO_THREAD => {
            let thread = target.first_thread().ok_or(Errno::ESRCH)?;
            signal::send_thread(&thread, told).map_err(|_| Errno::EAGAIN)?;
        }
        _ => signal::queue_process(&target, told).map_err(|_| Errno::EAGAIN)?,
    }
    Ok(0)
}
