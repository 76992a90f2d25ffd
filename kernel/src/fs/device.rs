//! Character devices.
//!
//! Called by open files. The console's two faces are here as well: the terminal, and the stream that
//! programs get when their input is not one.

use linux_raw_sys::general as linux;

use super::frames;
use super::poll::Readiness;
use super::tty::{self, Tty};
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::random;
use crate::uaccess::{Sink, Source};

/// A device that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// /dev/null.
    Null,
    /// /dev/zero.
    Zero,
    /// /dev/full.
    Full,
    /// /dev/random and /dev/urandom, by minor number.
    Random(u32),
    /// /dev/console and /dev/ttyS0, by device number: the terminal.
    Console(u32, u32),
    /// /dev/tty: the terminal of the process that opens it.
    ControllingTerminal,
    /// The console as a stream of bytes. It has no device number and looks like a pipe.
    Stream,
    /// /dev/frames: frames that programs may map.
    Frames,
    /// A number that no driver answers to.
    Unknown(u32, u32),
}

/// Puts a device number together as `st_rdev` has it.
pub const fn device_number(major: u32, minor: u32) -> u64 {
    ((minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12) as u64
}

/// Takes a device number apart.
pub const fn split_number(number: u64) -> (u32, u32) {
    let number = number as u32;
    (number >> 8 & 0xfff, (number & 0xff) | (number >> 12 & 0xfff00))
}

/// Bytes handled at a time.
const CHUNK: usize = 4096;
static ZEROES: [u8; CHUNK] = [0; CHUNK];

impl Device {
    /// The device with this number.
    pub fn of_number(major: u32, minor: u32) -> Device {
        match (major, minor) {
            (1, 3) => Device::Null,
            (1, 5) => Device::Zero,
            (1, 7) => Device::Full,
            (1, 8 | 9) => Device::Random(minor),
            (frames::MAJOR, 0) => Device::Frames,
            (5, 0) => Device::ControllingTerminal,
            (5, 1) | (4, 64) => Device::Console(major, minor),
            _ => Device::Unknown(major, minor),
        }
    }

    /// `st_rdev`.
    pub fn number(self) -> u64 {
        let (major, minor) = match self {
            Device::Null => (1, 3),
            Device::Zero => (1, 5),
            Device::Full => (1, 7),
            Device::Random(minor) => (1, minor),
            Device::Frames => (frames::MAJOR, 0),
            Device::ControllingTerminal => (5, 0),
            Device::Console(major, minor) | Device::Unknown(major, minor) => (major, minor),
            Device::Stream => return 0,
        };
        device_number(major, minor)
    }

    /// The terminal, if it is one.
    pub fn terminal(self) -> Option<&'static Tty> {
        match self {
            Device::Console(..) | Device::ControllingTerminal => Some(tty::console()),
            _ => None,
        }
    }

    /// Whether it is the console, as a terminal or as a stream.
    pub fn is_console(self) -> bool {
        self.terminal().is_some() || self == Device::Stream
    }

    /// Whether reads and writes have a position, if only a pretended one.
    pub fn is_seekable(self) -> bool {
        !self.is_console()
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `EFAULT`, `EIO` (a background read that cannot be stopped).
    pub fn read(self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        match self {
            Device::Null => Ok(0),
            Device::Zero | Device::Full => zeroes(cpu, to),
            Device::Random(_) => randomness(cpu, to),
            Device::Console(..) | Device::ControllingTerminal => tty::console().read(cpu, to),
            Device::Stream => tty::console().read_stream(cpu, to),
            // It has a position: the open file reads it.
            Device::Frames => Err(Errno::EINVAL),
            Device::Unknown(..) => Err(Errno::ENXIO),
        }
    }

    /// Writes.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `EFAULT`, `EIO`, `ENOSPC` (/dev/full).
    pub fn write(self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        match self {
            // Nothing of what is thrown away is looked at, not even whether it is there.
            Device::Null | Device::Zero => Ok(from.left()),
            Device::Full => Err(Errno::ENOSPC),
            Device::Random(_) => Ok(from.left()),
            Device::Console(..) | Device::ControllingTerminal => tty::console().write(cpu, from),
            Device::Stream => tty::console().write_stream(cpu, from),
            Device::Frames => Err(Errno::EINVAL),
            Device::Unknown(..) => Err(Errno::ENXIO),
        }
    }

    /// What `poll` says.
    pub fn readiness(self) -> Readiness {
        match self {
            Device::Console(..) | Device::ControllingTerminal => tty::console().readiness(),
            Device::Stream => tty::console().stream_readiness(),
            _ => Readiness::IN.with(Readiness::OUT),
        }
    }

    /// The type bits of `st_mode`.
    pub fn kind(self) -> u32 {
        if self == Device::Stream { linux::S_IFIFO } else { linux::S_IFCHR }
    }
}

/// Fills all of `to` with zeroes.
fn zeroes(cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
    let mut done = 0;
    // Ends: each round fills part of `to` or leaves.
    while to.room() > 0 {
        let part = CHUNK.min(to.room());
        let put = to.put(cpu, &ZEROES[..part]);
        done += put;
        if put < part {
            return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
        }
    }
    Ok(done)
}

/// Fills all of `to` with random bytes.
///
/// # Errors
///
/// `EFAULT`.
pub fn randomness(cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
    let mut done = 0;
    let mut chunk = [0; 256];
    // Ends: each round fills part of `to` or leaves.
    while to.room() > 0 {
        let part = chunk.len().min(to.room());
        random::fill(&mut chunk[..part]);
        let put = to.put(cpu, &chunk[..part]);
        done += put;
        if put < part {
            return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
        }
    }
    Ok(done)
}
