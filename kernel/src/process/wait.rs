//! wait4 and waitid: news of children.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;

use super::{ExitStatus, Process, UsageTotals, exit};
use crate::arch::user::copy_out;
use crate::arch::{CpuLocal, UserContext};
use crate::errno::Errno;
use crate::sched::{Outcome, Thread};
use crate::syscall::pidfd;

/// Which children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Any,
    Process(i32),
    Group(i32),
}

/// Which news, and what to do about it.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    exits: bool,
    stops: bool,
    continues: bool,
    /// Leave the news for a later call.
    keep: bool,
    /// Which children by the signal they send: `ALL_CHILDREN`, `CLONE_CHILDREN` or neither.
    kind: u32,
}

/// News of one child.
#[derive(Debug, Clone, Copy)]
struct News {
    pid: i32,
    what: What,
    usage: UsageTotals,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Ended(ExitStatus),
    Stopped(i32),
    Continued,
}

const NO_HANG: u32 = linux::WNOHANG;
const UNTRACED: u32 = linux::WUNTRACED;
const EXITED: u32 = linux::WEXITED;
const CONTINUED: u32 = linux::WCONTINUED;
const NO_WAIT: u32 = linux::WNOWAIT;
/// All children, whatever signal they send; and only those that send another than SIGCHLD.
const ALL_CHILDREN: u32 = linux::__WALL;
const CLONE_CHILDREN: u32 = linux::__WCLONE;
/// Options about children. The last one changes nothing: children belong to processes here.
const ABOUT_CHILDREN: u32 = ALL_CHILDREN | CLONE_CHILDREN | linux::__WNOTHREAD;

impl What {
    /// In the encoding of `wait4`.
    fn wait_status(self) -> i32 {
        match self {
            What::Ended(status) => status.wait_status(),
            What::Stopped(signal) => signal << 8 | 0x7f,
            What::Continued => 0xffff,
        }
    }

    /// `si_code` and `si_status`.
    fn info(self) -> (i32, i32) {
        match self {
            What::Ended(ExitStatus::Exited(code)) => (1, i32::from(code)),
            What::Ended(ExitStatus::Killed(signal)) => (2, signal),
            What::Stopped(signal) => (5, signal),
            What::Continued => (6, crate::signal::number::SIGCONT),
        }
    }
}

/// `wait4(pid, status, options, rusage)`.
pub fn sys_wait4(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [pid, status, options, rusage, ..] = context.args();
    let options = options as u32;
    if options & !(NO_HANG | UNTRACED | CONTINUED | ABOUT_CHILDREN) != 0 {
        return Errno::EINVAL.into();
    }
    let who = match pid as i32 {
        -1 => Who::Any,
        0 => Who::Group(thread.process.group()),
        pid if pid > 0 => Who::Process(pid),
        i32::MIN => return Errno::ESRCH.into(),
        group => Who::Group(-group),
    };
    let wanted = Wanted {
        exits: true,
        stops: options & UNTRACED != 0,
        continues: options & CONTINUED != 0,
        keep: false,
        kind: options,
    };
    let news = match find(thread, cpu, who, wanted) {
        Ok(Some(news)) => news,
        Ok(None) if options & NO_HANG != 0 => return Outcome::Done(0),
        Ok(None) => return Outcome::Block,
        Err(errno) => return errno.into(),
    };
    match report_wait4(cpu, news, status, rusage) {
        Ok(()) => Outcome::Done(i64::from(news.pid)),
        Err(errno) => errno.into(),
    }
}

fn report_wait4(cpu: &mut CpuLocal, news: News, status: u64, rusage: u64) -> Result<(), Errno> {
    if status != 0 {
        copy_out(cpu, status, &news.what.wait_status().to_le_bytes())?;
    }
    if rusage != 0 {
        copy_out(cpu, rusage, &news.usage.to_rusage())?;
    }
    Ok(())
}

/// `waitid(type, id, info, options, rusage)`.
pub fn sys_waitid(thread: &Arc<Thread>, cpu: &mut CpuLocal, context: &mut UserContext) -> Outcome {
    let [kind, id, info, options, rusage, _] = context.args();
    let options = options as u32;
    let events = EXITED | UNTRACED | CONTINUED;
    if options & !(NO_HANG | NO_WAIT | events | ABOUT_CHILDREN) != 0 || options & events == 0 {
        return Errno::EINVAL.into();
    }
    let id = id as i32;
    let mut may_wait = options & NO_HANG == 0;
    let mut would_wait = None;
    let who = match kind as u32 {
        linux::P_PIDFD if id >= 0 => match pidfd::named(&thread.process.files(), id) {
            Ok((process, nonblocking)) => {
                if may_wait && nonblocking {
                    (may_wait, would_wait) = (false, Some(Errno::EAGAIN));
                }
                Who::Process(process.pid)
            }
            Err(errno) => return errno.into(),
        },
        linux::P_ALL => Who::Any,
        linux::P_PID if id > 0 => Who::Process(id),
        linux::P_PGID if id > 0 => Who::Group(id),
        linux::P_PGID if id == 0 => Who::Group(thread.process.group()),
        _ => return Errno::EINVAL.into(),
    };
    let wanted = Wanted {
        exits: options & EXITED != 0,
        stops: options & UNTRACED != 0,
        continues: options & CONTINUED != 0,
        keep: options & NO_WAIT != 0,
        kind: options,
    };
    let news = match find(thread, cpu, who, wanted) {
        Ok(None) if may_wait => return Outcome::Block,
        Ok(None) if let Some(errno) = would_wait => return errno.into(),
        Ok(news) => news,
        Err(errno) => return errno.into(),
    };
    match report_waitid(cpu, news, info, rusage) {
        Ok(()) => Outcome::Done(0),
        Err(errno) => errno.into(),
    }
}

fn report_waitid(cpu: &mut CpuLocal, news: Option<News>, info: u64, rusage: u64) -> Result<(), Errno> {
    if info != 0 {
        let mut bytes = [0; 128];
        if let Some(news) = news {
            let (code, status) = news.what.info();
            let mut put = |at: usize, value: i32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            put(0, crate::signal::number::SIGCHLD);
            put(8, code);
            put(16, news.pid);
            put(24, status);
        }
        copy_out(cpu, info, &bytes)?;
    }
    if let (Some(news), true) = (news, rusage != 0) {
        copy_out(cpu, rusage, &news.usage.to_rusage())?;
    }
    Ok(())
}

/// Looks for news; without any, the thread is registered for the next.
fn find(thread: &Arc<Thread>, cpu: &mut CpuLocal, who: Who, wanted: Wanted) -> Result<Option<News>, Errno> {
    let process = &thread.process;
    if let Some(news) = look(process, cpu, who, wanted)? {
        return Ok(Some(news));
    }
    process.child_events.register(thread);
    look(process, cpu, who, wanted)
}

fn look(process: &Process, cpu: &mut CpuLocal, who: Who, wanted: Wanted) -> Result<Option<News>, Errno> {
    let children: Vec<Arc<Process>> = {
        let family = process.family.lock();
        family.children.iter().filter(|c| matches(who, c) && is_of_kind(wanted.kind, c)).cloned().collect()
    };
    if children.is_empty() {
        return Err(Errno::ECHILD);
    }
    for child in &children {
        if let Some(what) = news_of(child, wanted) {
            let reaps = matches!(what, What::Ended(_)) && !wanted.keep;
            let usage = if reaps {
                exit::reap(process, child, cpu)
            } else {
                child.total_usage() + child.children_usage.totals()
            };
            return Ok(Some(News { pid: child.pid, what, usage }));
        }
    }
    Ok(None)
}

fn matches(who: Who, child: &Process) -> bool {
    match who {
        Who::Any => true,
        Who::Process(pid) => child.pid == pid,
        Who::Group(group) => child.group() == group,
    }
}

/// Whether a wait with these options sees the child at all.
fn is_of_kind(options: u32, child: &Process) -> bool {
    let is_usual = child.exit_signal.load(Ordering::Relaxed) == crate::signal::number::SIGCHLD;
    options & ALL_CHILDREN != 0 || is_usual == (options & CLONE_CHILDREN == 0)
}

/// What there is to tell about a child. Unless it is to be kept, it is told only once.
fn news_of(child: &Process, wanted: Wanted) -> Option<What> {
    let mut ending = child.ending.lock();
    if ending.zombie {
        // Two threads of the parent may wait at once: the first to come takes it.
        if !wanted.exits || ending.reaped {
            return None;
        }
        ending.reaped = !wanted.keep;
        return ending.reason.map(What::Ended);
    }
    if let (Some(signal), true, true) = (ending.stopped, ending.stop_unreported, wanted.stops) {
        ending.stop_unreported = wanted.keep;
        return Some(What::Stopped(signal));
    }
    if ending.continue_unreported && wanted.continues {
        ending.continue_unreported = wanted.keep;
        return Some(What::Continued);
    }
    None
}

impl UsageTotals {
    /// As `struct rusage`.
    pub fn to_rusage(self) -> [u8; 144] {
        const PAGE_KIB: u64 = 4;
        let time = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
        let mut words = [0; 18];
        words[0..2].copy_from_slice(&time(self.user));
        words[2..4].copy_from_slice(&time(self.system));
        words[4] = self.peak * PAGE_KIB;
        words[8] = self.minor;
        words[9] = self.major;
        words[16] = self.voluntary;
        words[17] = self.involuntary;
        let mut bytes = [0; 144];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
