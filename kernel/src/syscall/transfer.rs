//! From file to file without user memory in between: `sendfile` and `copy_file_range`; [`From`] is for `splice` too.
//!
//! Both may do less than asked for; a call that would have to wait after it has done something says
//! what it has done.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::{Full, Plain};
use super::call::Call;
use crate::errno::{Errno, SysResult};
use crate::fs::{At, OpenFile};
use crate::sched::Outcome;
use crate::signal::{self, number};
use crate::uaccess::{self, KernelSink, KernelSource, MAX_TRANSFER};

pub(super) const CALLS: Calls =
    &[(linux::__NR_sendfile, Full(sendfile)), (linux::__NR_copy_file_range, Plain(copy_file_range))];

/// Bytes that go through the kernel at a time.
const CHUNK: usize = 8 << 10;

/// Where the bytes come from: a file, and the offset in user memory that stands for its position.
pub(super) struct From {
    file: Arc<OpenFile>,
    offset_at: u64,
    pub(super) offset: u64,
}

impl From {
    pub(super) fn new(call: &mut Call<'_>, file: Arc<OpenFile>, offset_at: u64) -> Result<From, Errno> {
        let offset = if offset_at == 0 { file.position() } else { uaccess::read_u64(call.cpu, offset_at)? };
        if offset.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        Ok(From { file, offset_at, offset })
    }

    /// The bytes at the offset, which stays.
    pub(super) fn peek(&self, call: &mut Call<'_>, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut sink = KernelSink { bytes: Vec::new(), limit };
        self.file.read(call.cpu, &mut sink, At::Offset(self.offset))?;
        Ok(sink.bytes)
    }

    /// Writes the offset back to where it came from.
    pub(super) fn finish(&self, call: &mut Call<'_>) -> Result<(), Errno> {
        if self.offset_at == 0 {
            return self.file.with_position(|position| {
                *position = self.offset;
                Ok(())
            });
        }
        uaccess::write(call.cpu, self.offset_at, &self.offset.to_le_bytes())
    }
}

fn sendfile(call: &mut Call<'_>) -> Outcome {
    match send(call) {
        Ok(outcome) => outcome,
        Err(errno) => errno.into(),
    }
}

fn send(call: &mut Call<'_>) -> Result<Outcome, Errno> {
    let (offset_at, count) = (call.word(2), call.word(3));
    let input = call.file(1)?;
    if !input.rights().read {
        return Err(Errno::EBADF);
    }
    let output = call.file(0)?;
    if !output.rights().write {
        return Err(Errno::EBADF);
    }
    if input.inode.data().is_none() || output.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let mut from = From::new(call, input, offset_at)?;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_TRANSFER);
    let mut done = 0;
    let mut registered = false;
    // Ends: each round moves bytes, registers once, or leaves.
    while done < wanted {
        let bytes = from.peek(call, CHUNK.min(wanted - done))?;
        if bytes.is_empty() {
            break;
        }
        let limit = call.limit(linux::RLIMIT_FSIZE);
        match output.write(call.cpu, &mut KernelSource(&bytes), At::Position, limit) {
            Ok(count) => {
                done += count;
                from.offset += count as u64;
            }
            Err(Errno::EAGAIN | Errno::EINTR) if done > 0 => break,
            Err(Errno::EAGAIN) if output.is_nonblocking() => return Err(Errno::EAGAIN),
            Err(Errno::EAGAIN) if !registered => {
                output.register(call.thread);
                registered = true;
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Outcome::Block),
            Err(errno) => {
                if errno == Errno::EPIPE {
                    signal::raise(call.thread, number::SIGPIPE);
                }
                if done == 0 {
                    return Err(errno);
                }
                break;
            }
        }
    }
    from.finish(call)?;
    Ok(Outcome::Done(done as i64))
}

fn copy_file_range(call: &mut Call<'_>) -> SysResult {
    let (in_at, out_at) = (call.word(1), call.word(3));
    let count = usize::try_from(call.word(4)).unwrap_or(usize::MAX).min(MAX_TRANSFER);
    let input = call.file(0)?;
    let output = call.file(2)?;
    if call.uint(5) != 0 {
        return Err(Errno::EINVAL);
    }
    for file in [&input, &output] {
        match file.inode.data() {
            Some(_) => {}
            None if file.inode.is_directory() => return Err(Errno::EISDIR),
            None => return Err(Errno::EINVAL),
        }
    }
    if !input.rights().read || !output.rights().write || output.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let is_same = Arc::ptr_eq(&input.inode, &output.inode);
    let mut from = From::new(call, input, in_at)?;
    // The other half of the same thing: an offset that stands for the position.
    let mut to = From::new(call, output, out_at)?;
    let length = count as u64;
    if is_same && from.offset < to.offset.saturating_add(length) && to.offset < from.offset.saturating_add(length) {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < count {
        let bytes = from.peek(call, CHUNK.min(count - done))?;
        if bytes.is_empty() {
            break;
        }
        let limit = call.limit(linux::RLIMIT_FSIZE);
        match to.file.write(call.cpu, &mut KernelSource(&bytes), At::Offset(to.offset), limit) {
            Ok(count) => {
                done += count;
                from.offset += count as u64;
                to.offset += count as u64;
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    from.finish(call)?;
    to.finish(call)?;
    Ok(done as i64)
}
