//! Waiting for any of several files: `poll`, `select` and their forms with a signal mask.
//!
//! Each execution registers with all files first and looks afterwards, so no change is missed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Full;
use super::call::Call;
use super::time::read_timespec;
use crate::clock;
use crate::errno::Errno;
use crate::fs::{FileTable, MAX_FILES, OpenFile, Readiness};
use crate::sched::{Interrupt, Outcome};
use crate::signal::SigSet;
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_poll, Full(poll)),
    (linux::__NR_ppoll, Full(ppoll)),
    (linux::__NR_select, Full(select)),
    (linux::__NR_pselect6, Full(pselect6)),
];

/// Bytes of a `struct pollfd`.
const POLLFD: usize = 8;
const MILLISECOND: u64 = 1_000_000;
const MICROSECOND: u64 = 1000;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// Until something happens.
    Endless,
    /// This many nanoseconds from the first execution on.
    Limited(u64),
}

impl Patience {
    /// From milliseconds; negative means endless.
    pub(super) fn of_millis(millis: i32) -> Patience {
        match u64::try_from(millis) {
            Err(_) => Patience::Endless,
            Ok(0) => Patience::None,
            Ok(millis) => Patience::Limited(millis * MILLISECOND),
        }
    }

    /// From a `struct timespec`; a null pointer means endless.
    pub(super) fn of_timespec(call: &mut Call<'_>, at: u64) -> Result<Patience, Errno> {
        if at == 0 {
            return Ok(Patience::Endless);
        }
        Ok(match read_timespec(call.cpu, at)? {
            0 => Patience::None,
            ns => Patience::Limited(ns),
        })
    }
}

/// Replaces the signal mask for the length of the call, if `at` is not null.
pub(super) fn swap_mask(call: &mut Call<'_>, at: u64, size: u64) -> Result<(), Errno> {
    if at == 0 || call.restart().again {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet::from_bits(uaccess::read_u64(call.cpu, at)?);
    call.restart().saved_mask = Some(call.thread.blocked());
    call.thread.set_blocked(mask);
    Ok(())
}

/// What to do when nothing is ready: wait, or say that the time is up (by returning none).
pub(super) fn wait(call: &mut Call<'_>, patience: Patience) -> Option<Outcome> {
    let restart = call.restart();
    restart.interrupt = Interrupt::Fails;
    match patience {
        Patience::None => return None,
        Patience::Endless => {}
        Patience::Limited(ns) => {
            let now = clock::monotonic();
            let deadline = *restart.deadline.get_or_insert(now.saturating_add(ns));
            if now >= deadline {
                return None;
            }
        }
    }
    Some(Outcome::Block)
}

fn poll(call: &mut Call<'_>) -> Outcome {
    let patience = Patience::of_millis(call.int(2));
    poll_files(call, patience).unwrap_or_else(Outcome::from)
}

fn ppoll(call: &mut Call<'_>) -> Outcome {
    let (timeout, mask, size) = (call.word(2), call.word(3), call.word(4));
    let steps = |call: &mut Call<'_>| {
        let patience = Patience::of_timespec(call, timeout)?;
        swap_mask(call, mask, size)?;
        poll_files(call, patience)
    };
    steps(call).unwrap_or_else(Outcome::from)
}

/// One line of a `poll` array.
struct Asked {
    fd: i32,
    events: u32,
}

fn poll_files(call: &mut Call<'_>, patience: Patience) -> Result<Outcome, Errno> {
    let (array, count) = (call.word(0), call.uint(1));
    if u64::from(count) > call.file_limit().min(MAX_FILES) {
        return Err(Errno::EINVAL);
    }
    let mut bytes = alloc::vec![0; count as usize * POLLFD];
    crate::arch::user::copy_in(call.cpu, array, &mut bytes)?;
    let asked: Vec<Asked> = bytes
        .chunks_exact(POLLFD)
        .map(|line| Asked {
            fd: uaccess::half(line, 0).cast_signed(),
            events: u32::from(u16::from_le_bytes([line[4], line[5]])),
        })
        .collect();
    let files = call.files();
    let open: Vec<_> = asked.iter().map(|line| files.get_open(line.fd)).collect();
    if patience != Patience::None {
        register(call, &open);
    }
    let mut ready = 0;
    for ((line, asked), file) in bytes.chunks_exact_mut(POLLFD).zip(&asked).zip(&open) {
        let events = match file {
            _ if asked.fd < 0 => 0,
            Ok(file) => file.readiness().wanted(asked.events),
            Err(_) => Readiness::INVALID.0,
        };
        line[6..8].copy_from_slice(&(events as u16).to_le_bytes());
        ready += i64::from(events != 0);
    }
    if ready == 0
        && let Some(outcome) = wait(call, patience)
    {
        return Ok(outcome);
    }
    uaccess::write(call.cpu, array, &bytes)?;
    Ok(Outcome::Done(ready))
}

fn register(call: &Call<'_>, files: &[Result<Arc<OpenFile>, Errno>]) {
    for file in files.iter().flatten() {
        file.register(call.thread);
    }
}

fn select(call: &mut Call<'_>) -> Outcome {
    let at = call.word(4);
    let steps = |call: &mut Call<'_>| -> Result<Outcome, Errno> {
        let patience = if at == 0 {
            Patience::Endless
        } else {
            let bytes: [u8; 16] = uaccess::read(call.cpu, at)?;
            let (seconds, micros) = (uaccess::word(&bytes, 0), uaccess::word(&bytes, 8));
            if seconds.cast_signed() < 0 || micros.cast_signed() < 0 {
                return Err(Errno::EINVAL);
            }
            let ns = seconds.saturating_mul(clock::SECOND).saturating_add(micros.saturating_mul(MICROSECOND));
            if ns == 0 { Patience::None } else { Patience::Limited(ns) }
        };
        let outcome = select_files(call, patience)?;
        if let (Outcome::Done(_), true) = (outcome, at != 0) {
            let left = time_left(call, patience);
            // Linux ignores a bad address here, too: the result is what counts.
            let timeval = Layout::new().u64(left / clock::SECOND).u64(left % clock::SECOND / MICROSECOND);
            let _ = timeval.write(call.cpu, at);
        }
        Ok(outcome)
    };
    steps(call).unwrap_or_else(Outcome::from)
}

fn pselect6(call: &mut Call<'_>) -> Outcome {
    let (timeout, packed) = (call.word(4), call.word(5));
    let steps = |call: &mut Call<'_>| -> Result<Outcome, Errno> {
        let patience = Patience::of_timespec(call, timeout)?;
        if packed != 0 {
            let bytes: [u8; 16] = uaccess::read(call.cpu, packed)?;
            swap_mask(call, uaccess::word(&bytes, 0), uaccess::word(&bytes, 8))?;
        }
        let outcome = select_files(call, patience)?;
        if let (Outcome::Done(_), true) = (outcome, timeout != 0) {
            let left = time_left(call, patience);
            // As for `select`.
            let _ = super::time::timespec(left).write(call.cpu, timeout);
        }
        Ok(outcome)
    };
    steps(call).unwrap_or_else(Outcome::from)
}

/// How much of the time was not needed.
fn time_left(call: &mut Call<'_>, patience: Patience) -> u64 {
    match (call.restart().deadline, patience) {
        (Some(deadline), _) => deadline.saturating_sub(clock::monotonic()),
        (None, Patience::Limited(ns)) => ns,
        (None, _) => 0,
    }
}

/// What makes a file a member of the three sets of `select`.
const MEANINGS: [u32; 3] = [
    linux::POLLRDNORM | linux::POLLRDBAND | linux::POLLIN | linux::POLLHUP | linux::POLLERR,
    linux::POLLWRBAND | linux::POLLWRNORM | linux::POLLOUT | linux::POLLERR,
    linux::POLLPRI,
];

fn select_files(call: &mut Call<'_>, patience: Patience) -> Result<Outcome, Errno> {
    let count = usize::try_from(call.int(0)).map_err(|_| Errno::EINVAL)?;
    // Bits beyond the table are not looked at.
    let count = count.min(call.files().size());
    let size = count.div_ceil(64) * 8;
    let places = [call.word(1), call.word(2), call.word(3)];
    let mut sets = [const { Vec::new() }; 3];
    for (set, at) in sets.iter_mut().zip(places) {
        *set = alloc::vec![0u8; size];
        if at != 0 {
            crate::arch::user::copy_in(call.cpu, at, set)?;
        }
    }
    let files = call.files();
    let watched = watched_files(&files, &sets, count)?;
    if patience != Patience::None {
        for (_, file) in &watched {
            file.register(call.thread);
        }
    }
    let mut results = [const { Vec::new() }; 3];
    let mut ready = 0;
    for ((result, set), meaning) in results.iter_mut().zip(&sets).zip(MEANINGS) {
        *result = alloc::vec![0u8; size];
        for (fd, file) in watched.iter().filter(|(fd, _)| has(set, *fd)) {
            if file.readiness().0 & meaning != 0 {
                result[fd / 8] |= 1 << (fd % 8);
                ready += 1;
            }
        }
    }
    if ready == 0
        && let Some(outcome) = wait(call, patience)
    {
        return Ok(outcome);
    }
    for (result, at) in results.iter().zip(places) {
        if at != 0 {
            uaccess::write(call.cpu, at, result)?;
        }
    }
    Ok(Outcome::Done(ready))
}

fn has(set: &[u8], fd: usize) -> bool {
    set[fd / 8] >> (fd % 8) & 1 != 0
}

/// The files that are in any of the sets.
fn watched_files(files: &FileTable, sets: &[Vec<u8>; 3], count: usize) -> Result<Vec<(usize, Arc<OpenFile>)>, Errno> {
    let mut watched = Vec::new();
    for fd in 0..count {
        if sets.iter().any(|set| has(set, fd)) {
            watched.push((fd, files.get_open(fd as i32)?));
        }
    }
    Ok(watched)
}
