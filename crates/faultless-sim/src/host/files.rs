//! The files of a scenario on the host: memfds, and files without a name in a directory of a disk.
//!
//! Called by `host`. Which disk: where temporary files go, or the current directory, if its file system is one whose rules
//! the tester knows. Where there is none, a file on a disk is a memfd like the others, on both sides.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::arena::PAGE;
use crate::scenario::{FILES, FileRef, Scenario, initial_byte};

/// The files, open.
pub(super) struct Files {
    writers: [OwnedFd; FILES],
    readers: [OwnedFd; FILES],
    /// What the lists of mappings call them: [`name`].
    names: [u64; FILES],
    on_disk: [bool; FILES],
}

impl Files {
    pub(super) fn new(scenario: &Scenario) -> io::Result<Self> {
        let make = |number: usize| match (scenario.on_disk[number], disk()) {
            (true, Some(directory)) => file_on_disk(directory, scenario.files[number]),
            _ => memfd(scenario.files[number]),
        };
        let writers = [make(0)?, make(1)?, make(2)?];
        let readers = [reopen(&writers[0])?, reopen(&writers[1])?, reopen(&writers[2])?];
        let names = [name_of(&writers[0])?, name_of(&writers[1])?, name_of(&writers[2])?];
        Ok(Self { writers, readers, names, on_disk: scenario.on_disk.map(|on_disk| on_disk && disk().is_some()) })
    }

    /// The descriptor, for system calls.
    pub(super) fn descriptor(&self, file: usize) -> u64 {
        self.writers[file].as_raw_fd() as u64
    }

    /// The descriptor for `mmap`.
    pub(super) fn mapped(&self, file: Option<FileRef>) -> u64 {
        match file {
            None => u64::MAX,
            Some(FileRef { number, read_only: true }) => self.readers[number].as_raw_fd() as u64,
            Some(FileRef { number, .. }) => self.descriptor(number),
        }
    }

    /// The file of this name in the lists of mappings.
    pub(super) fn named(&self, name: u64) -> Option<usize> {
        self.names.iter().position(|known| *known == name)
    }

    pub(super) fn is_on_disk(&self, file: usize) -> bool {
        self.on_disk[file]
    }
}

/// A number for a file: its inode, and the device that it is on.
pub(super) fn name((major, minor): (u32, u32), inode: u64) -> u64 {
    (u64::from(major) << 8 | u64::from(minor)) << 44 ^ inode
}

fn name_of(file: &OwnedFd) -> io::Result<u64> {
    let data = File::from(file.try_clone()?).metadata()?;
    Ok(name((libc::major(data.dev()), libc::minor(data.dev())), data.ino()))
}

/// A directory on a disk, if the host has one that will do.
#[must_use]
pub fn disk() -> Option<&'static PathBuf> {
    /// ext2, ext3 and ext4, whose limits `ours` knows.
    const EXT: i64 = 0xEF53;
    static DISK: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = DISK.get_or_init(|| {
        let places = [Some(std::env::temp_dir()), std::env::current_dir().ok()];
        places.into_iter().flatten().find(|place| {
            let Ok(file) = file_on_disk(place, 0) else { return false };
            // SAFETY: all-zero is a valid statfs.
            let mut about: libc::statfs = unsafe { std::mem::zeroed() };
            // SAFETY: `about` is valid.
            unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) == 0 && about.f_type == EXT }
        })
    });
    found.as_ref()
}

/// A file without a name, with its first contents.
fn file_on_disk(directory: &PathBuf, size: u64) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory)?;
    // Page by page, so that each is cached by itself (`disk-folios`).
    for start in (0..size).step_by(PAGE as usize) {
        let contents: Vec<u8> = (start..size.min(start + PAGE)).map(initial_byte).collect();
        file.write_all_at(&contents, start)?;
    }
    Ok(file.into())
}

/// A memfd of `size` bytes.
fn memfd(size: u64) -> io::Result<OwnedFd> {
    // SAFETY: the name is a string with an end.
    let fd = super::check(unsafe { libc::memfd_create(c"faultless".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: nobody else knows the descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    File::from(file.try_clone()?).set_len(size)?;
    Ok(file)
}

/// The same file for reading only.
fn reopen(file: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}
