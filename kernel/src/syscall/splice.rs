//! `splice` and `vmsplice`: bytes through a pipe, to or from a file, another pipe, or memory.
//!
//! What is spliced is copied at once: a page that is changed afterwards does not change in the pipe. Both calls may do
//! less than asked for, and wait only if they have done nothing yet. Bytes that the other side does not take stay in
//! their pipe.
//!
//! Absent on purpose: `tee`, and files other than regular ones and devices.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Full;
use super::call::Call;
use super::transfer::From;
use crate::errno::Errno;
use crate::fs::{At, Body, OpenFile, Pipe};
use crate::sched::Outcome;
use crate::signal::{self, number};
use crate::uaccess::{self, KernelSource, MAX_TRANSFER, UserBuffer};

pub(super) const CALLS: Calls =
    &[(linux::__NR_splice, Full(|call| wait(call, splice))), (linux::__NR_vmsplice, Full(|call| wait(call, vmsplice)))];

/// Bytes that go through the kernel at a time.
const CHUNK: usize = 8 << 10;
const KNOWN: u32 = linux::SPLICE_F_MOVE | linux::SPLICE_F_NONBLOCK | linux::SPLICE_F_MORE | linux::SPLICE_F_GIFT;

/// Why a call is not done.
enum Stop {
    /// It waits for this file, or fails if it must not wait.
    For(Arc<OpenFile>, Patience),
    Failed(Errno),
}

/// Whether a call may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Some,
    None,
}

impl core::convert::From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Failed(errno)
    }
}

/// Executes `step`; if it would have to wait, registers the thread, tries once more, and parks it.
fn wait(call: &mut Call<'_>, step: fn(&mut Call<'_>) -> Result<usize, Stop>) -> Outcome {
    for registered in [false, true] {
        match step(call) {
            Ok(count) => return Outcome::Done(count as i64),
            Err(Stop::For(_, Patience::None)) => return Errno::EAGAIN.into(),
            Err(Stop::For(file, Patience::Some)) if !registered => file.register(call.thread),
            Err(Stop::For(..)) => {}
            Err(Stop::Failed(errno)) => {
                if errno == Errno::EPIPE {
                    signal::raise(call.thread, number::SIGPIPE);
                }
                return errno.into();
            }
        }
    }
    Outcome::Block
}

/// The pipe that a file is an end of.
fn pipe_of(file: &OpenFile) -> Option<&Pipe> {
    match &file.inode.body {
        Body::Fifo(pipe) => Some(pipe),
        _ => None,
    }
}

fn vmsplice(call: &mut Call<'_>) -> Result<usize, Stop> {
    let flags = call.uint(3);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = call.file(0)?;
    let pipe = pipe_of(&file).ok_or(Errno::EBADF)?;
    let (array, count) = (call.word(1), call.word(2));
    let mut memory = UserBuffer::from_vector(call.cpu, array, count)?;
    // A file of both ends takes bytes in, as on Linux.
    let moved = if file.rights().write { pipe.write(call.cpu, &mut memory) } else { pipe.read(call.cpu, &mut memory) };
    // The file's own O_NONBLOCK does not count here.
    let patience = if flags & linux::SPLICE_F_NONBLOCK != 0 { Patience::None } else { Patience::Some };
    match moved {
        Err(Errno::EAGAIN) => Err(Stop::For(file, patience)),
        result => Ok(result?),
    }
}

/// The two files of a `splice`, checked.
struct Splice {
    input: Arc<OpenFile>,
    output: Arc<OpenFile>,
    wanted: usize,
    patience: Patience,
}

fn splice(call: &mut Call<'_>) -> Result<usize, Stop> {
    let (in_at, out_at, flags) = (call.word(1), call.word(3), call.uint(5));
    let wanted = usize::try_from(call.word(4)).unwrap_or(usize::MAX).min(MAX_TRANSFER);
    if wanted == 0 {
        return Ok(0);
    }
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (input, output) = (call.file(0)?, call.file(2)?);
    let (from, to) = (pipe_of(&input), pipe_of(&output));
    if from.is_some() && in_at != 0 || to.is_some() && out_at != 0 {
        return Err(Errno::ESPIPE.into());
    }
    if !input.rights().read || !output.rights().write {
        return Err(Errno::EBADF.into());
    }
    let is_impatient = flags & linux::SPLICE_F_NONBLOCK != 0
        || from.is_some() && input.is_nonblocking()
        || to.is_some() && output.is_nonblocking();
    let patience = if is_impatient { Patience::None } else { Patience::Some };
    let files = Splice { input: input.clone(), output: output.clone(), wanted, patience };
    match (from, to) {
        (Some(from), Some(to)) if core::ptr::eq(from, to) => Err(Errno::EINVAL.into()),
        (Some(from), Some(to)) => files.repeat(call, |files, call, left| files.pipe_to_pipe(call, from, to, left)),
        (Some(from), None) => files.pipe_to_file(call, from, out_at),
        (None, Some(to)) => files.file_to_pipe(call, to, in_at),
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

impl Splice {
    /// Repeats `step`, which gets how much is left, until it moves nothing. What was done counts more than why it ended.
    fn repeat(
        &self,
        call: &mut Call<'_>,
        mut step: impl FnMut(&Self, &mut Call<'_>, usize) -> Result<usize, Stop>,
    ) -> Result<usize, Stop> {
        let mut done = 0;
        // Ends: each round moves bytes or leaves.
        while done < self.wanted {
            match step(self, call, self.wanted - done) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(stop) if done == 0 => return Err(stop),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Waiting for `file`, if `EAGAIN` is why.
    fn stop(&self, file: &Arc<OpenFile>, errno: Errno) -> Stop {
        match errno {
            Errno::EAGAIN => Stop::For(file.clone(), self.patience),
            _ => Stop::Failed(errno),
        }
    }

    fn pipe_to_pipe(&self, call: &mut Call<'_>, from: &Pipe, to: &Pipe, left: usize) -> Result<usize, Stop> {
        let room = to.room().map_err(|errno| self.stop(&self.output, errno))?;
        let bytes = from.lend(room.min(left).min(CHUNK)).map_err(|errno| self.stop(&self.input, errno))?;
        let moved = match bytes.len() {
            0 => Ok(0),
            _ => to.write(call.cpu, &mut KernelSource(&bytes)),
        };
        from.settle(&bytes, moved.unwrap_or(0));
        moved.map_err(|errno| self.stop(&self.output, errno))
    }

    /// Out of a pipe into something that is none.
    fn pipe_to_file(&self, call: &mut Call<'_>, from: &Pipe, offset_at: u64) -> Result<usize, Stop> {
        can_splice(&self.output)?;
        if self.output.flags() & linux::O_APPEND != 0 {
            return Err(Errno::EINVAL.into());
        }
        let mut offset = match offset_at {
            0 => None,
            at => Some(uaccess::read_u64(call.cpu, at)?),
        };
        if offset.is_some_and(|offset| offset.cast_signed() < 0) {
            return Err(Errno::EINVAL.into());
        }
        let limit = call.limit(linux::RLIMIT_FSIZE);
        let done = self.repeat(call, |files, call, left| {
            let bytes = from.lend(left.min(CHUNK)).map_err(|errno| files.stop(&files.input, errno))?;
            let at = offset.map_or(At::Position, At::Offset);
            let moved = match bytes.len() {
                0 => Ok(0),
                _ => files.output.write(call.cpu, &mut KernelSource(&bytes), at, limit),
            };
            let count = moved.unwrap_or(0);
            from.settle(&bytes, count);
            offset = offset.map(|offset| offset + count as u64);
            moved.map_err(|errno| files.stop(&files.output, errno))
        })?;
        if let Some(offset) = offset {
            uaccess::write(call.cpu, offset_at, &offset.to_le_bytes())?;
        }
        Ok(done)
    }

    /// Into a pipe out of something that is none.
    fn file_to_pipe(&self, call: &mut Call<'_>, to: &Pipe, offset_at: u64) -> Result<usize, Stop> {
        can_splice(&self.input)?;
        let mut from = From::new(call, self.input.clone(), offset_at)?;
        let done = self.repeat(call, |files, call, left| {
            let room = to.room().map_err(|errno| files.stop(&files.output, errno))?;
            let bytes = from.peek(call, room.min(left).min(CHUNK)).map_err(|errno| files.stop(&files.input, errno))?;
            if bytes.is_empty() {
                return Ok(0);
            }
            let moved =
                to.write(call.cpu, &mut KernelSource(&bytes)).map_err(|errno| files.stop(&files.output, errno))?;
            from.offset += moved as u64;
            Ok(moved)
        })?;
        from.finish(call)?;
        Ok(done)
    }
}

/// Whether a file that is no pipe can be one side.
fn can_splice(file: &OpenFile) -> Result<(), Errno> {
    match &file.inode.body {
        Body::Regular(_) => Ok(()),
        Body::Device(device) if !device.is_console() => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}
