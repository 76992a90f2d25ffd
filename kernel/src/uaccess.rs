//! User memory with types: values, strings, and the buffers that reads and writes move bytes through.
//!
//! Called by system calls; built on the primitive copies of `arch::user`. Nothing here trusts a user
//! pointer or a user's size: a bad pointer is `EFAULT` (or a short count, where Linux has that), and
//! what is allocated has a fixed bound.

use alloc::vec::Vec;

use faultless::Access;

use crate::arch::CpuLocal;
use crate::arch::user::{self, USER_END};
use crate::errno::Errno;
use crate::fs::{PATH_MAX, bring_in};

/// Most bytes that one read or write moves: `INT_MAX` rounded down to pages.
pub const MAX_TRANSFER: usize = 0x7fff_f000;
/// Most elements of an `iovec` array.
const MAX_SEGMENTS: usize = 1024;
const PAGE: usize = 4096;

/// Where a read puts its bytes.
pub trait Sink {
    /// Bytes that still fit.
    fn room(&self) -> usize;
    /// Appends `bytes`, which must fit. Returns how many arrived; fewer means that user memory ended.
    fn put(&mut self, cpu: &mut CpuLocal, bytes: &[u8]) -> usize;
}

/// Where a write takes its bytes from.
pub trait Source {
    /// Bytes that are left.
    fn left(&self) -> usize;
    /// Fills `into`, which must not be longer than what is left. Returns how many bytes came; fewer
    /// means that user memory ended.
    fn take(&mut self, cpu: &mut CpuLocal, into: &mut [u8]) -> usize;
}

/// One run of user memory.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: u64,
    length: usize,
}

/// Runs of user memory with a position in them.
pub struct UserBuffer {
    current: Segment,
    /// The runs after `current`, last first.
    more: Vec<Segment>,
    left: usize,
}

/// Whether `[address, address + length)` are user addresses, mapped or not.
fn check(address: u64, length: usize) -> Result<(), Errno> {
    match address.checked_add(length as u64) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

impl UserBuffer {
    /// One run.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it leaves the user half.
    pub fn new(address: u64, length: u64) -> Result<UserBuffer, Errno> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // The whole range is checked, though less of it is used.
        check(address, length)?;
        let length = length.min(MAX_TRANSFER);
        Ok(UserBuffer { current: Segment { address, length }, more: Vec::new(), left: length })
    }

    /// The runs of an array of `struct iovec`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for too many elements or a negative length, `EFAULT`.
    pub fn from_vector(cpu: &mut CpuLocal, array: u64, count: u64) -> Result<UserBuffer, Errno> {
        if count > MAX_SEGMENTS as u64 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = alloc::vec![0; count as usize * 16];
        user::copy_in(cpu, array, &mut bytes)?;
        let mut left = 0;
        let mut more = Vec::new();
        for element in bytes.chunks_exact(16) {
            let (address, length) = (word(element, 0), word(element, 8));
            let length = isize::try_from(length).map_err(|_| Errno::EINVAL)?.cast_unsigned();
            check(address, length)?;
            let length = length.min(MAX_TRANSFER - left);
            left += length;
            more.push(Segment { address, length });
        }
        more.reverse();
        Ok(UserBuffer { current: Segment { address: 0, length: 0 }, more, left })
    }

    /// The same buffer, with its pages there if somebody watches for faults: see [`fs::bring_in`](crate::fs::bring_in).
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn brought_in(self, cpu: &mut CpuLocal, access: Access) -> Result<UserBuffer, Errno> {
        let runs = core::iter::once(&self.current).chain(self.more.iter().rev());
        let runs: Vec<(u64, usize)> = runs.filter(|run| run.length > 0).map(|run| (run.address, run.length)).collect();
        bring_in(cpu, &runs, access)?;
        Ok(self)
    }

    /// Leaves the first `count` bytes out.
    pub fn skip(&mut self, count: usize) {
        let mut count = count.min(self.left);
        // Ends: `count` is not more than what the runs hold.
        while count > 0 {
            count -= self.advance(count.min(self.current.length));
        }
    }

    /// Moves on by `count` bytes of the current run, and to the next run at its end.
    fn advance(&mut self, count: usize) -> usize {
        self.current.address += count as u64;
        self.current.length -= count;
        self.left -= count;
        while self.current.length == 0 {
            match self.more.pop() {
                Some(next) => self.current = next,
                None => break,
            }
        }
        count
    }

    /// Has `copy` move up to `count` bytes, run by run. `copy` gets the user address, the offset in the
    /// other buffer and the length.
    fn transfer(&mut self, count: usize, mut copy: impl FnMut(u64, usize, usize) -> Result<(), user::Fault>) -> usize {
        let count = count.min(self.left);
        self.advance(0);
        let mut done = 0;
        while done < count {
            let length = (count - done).min(self.current.length);
            let moved =
                as_far_as_possible(self.current.address, length, |address, at, part| copy(address, done + at, part));
            done += self.advance(moved);
            if moved < length {
                break;
            }
        }
        done
    }
}

/// Copies all at once, or page by page up to the one that faults.
fn as_far_as_possible(
    address: u64,
    length: usize,
    mut copy: impl FnMut(u64, usize, usize) -> Result<(), user::Fault>,
) -> usize {
    if copy(address, 0, length).is_ok() {
        return length;
    }
    let mut done = 0;
    while done < length {
        let at = address + done as u64;
        let part = (PAGE - at as usize % PAGE).min(length - done);
        if copy(at, done, part).is_err() {
            break;
        }
        done += part;
    }
    done
}

impl Sink for UserBuffer {
    fn room(&self) -> usize {
        self.left
    }

    fn put(&mut self, cpu: &mut CpuLocal, bytes: &[u8]) -> usize {
        self.transfer(bytes.len(), |address, at, length| user::copy_out(cpu, address, &bytes[at..at + length]))
    }
}

impl Source for UserBuffer {
    fn left(&self) -> usize {
        self.left
    }

    fn take(&mut self, cpu: &mut CpuLocal, into: &mut [u8]) -> usize {
        self.transfer(into.len(), |address, at, length| user::copy_in(cpu, address, &mut into[at..at + length]))
    }
}

/// A sink in the kernel, for bytes that go from file to file.
pub struct KernelSink {
    /// What arrived.
    pub bytes: Vec<u8>,
    /// How much it takes.
    pub limit: usize,
}

impl Sink for KernelSink {
    fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    fn put(&mut self, _cpu: &mut CpuLocal, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        bytes.len()
    }
}

/// A source in the kernel.
pub struct KernelSource<'a>(pub &'a [u8]);

impl Source for KernelSource<'_> {
    fn left(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, _cpu: &mut CpuLocal, into: &mut [u8]) -> usize {
        let (now, later) = self.0.split_at(into.len());
        into.copy_from_slice(now);
        self.0 = later;
        into.len()
    }
}

/// The little-endian word at `at` in `bytes`.
pub fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The little-endian half word at `at` in `bytes`.
pub fn half(bytes: &[u8], at: usize) -> u32 {
    let mut half = [0; 4];
    half.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(half)
}

/// Reads `N` bytes.
///
/// # Errors
///
/// `EFAULT`.
pub fn read<const N: usize>(cpu: &mut CpuLocal, from: u64) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    user::copy_in(cpu, from, &mut bytes)?;
    Ok(bytes)
}

/// Reads a 64-bit word.
///
/// # Errors
///
/// `EFAULT`.
pub fn read_u64(cpu: &mut CpuLocal, from: u64) -> Result<u64, Errno> {
    Ok(u64::from_le_bytes(read(cpu, from)?))
}

/// Reads a 32-bit word.
///
/// # Errors
///
/// `EFAULT`.
pub fn read_u32(cpu: &mut CpuLocal, from: u64) -> Result<u32, Errno> {
    Ok(u32::from_le_bytes(read(cpu, from)?))
}

/// Writes bytes.
///
/// # Errors
///
/// `EFAULT`.
pub fn write(cpu: &mut CpuLocal, to: u64, bytes: &[u8]) -> Result<(), Errno> {
    Ok(user::copy_out(cpu, to, bytes)?)
}

/// Reads a path.
///
/// # Errors
///
/// `EFAULT`; `ENAMETOOLONG` if it does not end within `PATH_MAX`.
pub fn read_path(cpu: &mut CpuLocal, from: u64) -> Result<Vec<u8>, Errno> {
    let path = user::cstr(cpu, from, PATH_MAX)?;
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(path)
}

/// Builds a C structure field by field, in the layout of x86-64.
#[derive(Default)]
pub struct Layout(Vec<u8>);

impl Layout {
    /// Nothing yet.
    pub fn new() -> Layout {
        Layout(Vec::new())
    }

    /// Appends a 64-bit field.
    pub fn u64(mut self, value: u64) -> Layout {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a signed 64-bit field.
    pub fn i64(self, value: i64) -> Layout {
        self.u64(value.cast_unsigned())
    }

    /// Appends a 32-bit field.
    pub fn u32(mut self, value: u32) -> Layout {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a 16-bit field.
    pub fn u16(mut self, value: u16) -> Layout {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Layout {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a string in a field of `size` bytes, zero padded and cut to leave a zero.
    pub fn text(mut self, text: &[u8], size: usize) -> Layout {
        let kept = &text[..text.len().min(size - 1)];
        self.0.extend_from_slice(kept);
        self.zeroes(size - kept.len())
    }

    /// Appends zeroes.
    pub fn zeroes(mut self, count: usize) -> Layout {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Copies the structure to user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn write(self, cpu: &mut CpuLocal, to: u64) -> Result<(), Errno> {
        write(cpu, to, &self.0)
    }
}
