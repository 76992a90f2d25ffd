//! The guest's files as a newc cpio archive, the format of `-initrd`.
//!
//! Called by `prepare`. The record format is the `cpio` crate's; here is which node becomes which record. Members
//! have no leading slash and are numbered from 1 within their archive. Absent on purpose: compression (the kernel
//! pages files in from the archive where it lies) and the checksum variant.

mod check;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cpio::newc;

use crate::guest::tree::{Content, Node, Stamp, Tree};

pub use check::{Damage, Kind, Places};

/// Why an archive could not be made.
#[derive(Debug)]
pub enum ArchiveError {
    /// A path is not UTF-8.
    Name(PathBuf),
    /// A file is larger than the format's 32-bit size.
    TooLarge(PathBuf),
    /// A file could not be read, or changed its size while it was packed.
    Read(PathBuf, io::Error),
    /// The archive could not be written; most often the temporary directory is full.
    Write(io::Error),
    /// A file given as an archive is not one. The text says what it looks like.
    NotCpio(PathBuf, &'static str),
    /// A file given as an archive is cut or damaged.
    Damaged(PathBuf, Damage),
    /// A file that is to be added cannot be where it should, because of what the archive before it holds.
    Collides(PathBuf, Kind),
}

/// Writes the tree as one archive with its trailer.
///
/// # Errors
///
/// [`ArchiveError`] names the file that could not be packed.
pub fn write(tree: &Tree, out: &mut impl Write) -> Result<(), ArchiveError> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    for (number, (path, node)) in (1u32..).zip(tree.iter()) {
        write_node(&mut out, number, path, node)?;
    }
    newc::trailer(&mut out).map_err(ArchiveError::Write)?;
    out.flush().map_err(ArchiveError::Write)
}

/// Copies an existing archive to `out` so that another one can follow it. Returns what it makes.
///
/// # Errors
///
/// [`ArchiveError::NotCpio`] if it is not an uncompressed newc archive, [`ArchiveError::Damaged`] if it is cut or
/// holds what the kernel cannot unpack.
pub fn copy_existing(path: &Path, out: &mut impl Write) -> Result<Places, ArchiveError> {
    let unreadable = |error| ArchiveError::Read(path.to_owned(), error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(6).read_to_end(&mut magic).map_err(unreadable)?;
    if let Some(looks) = looks_like(&magic) {
        return Err(ArchiveError::NotCpio(path.to_owned(), looks));
    }
    let places = check::walk(&mut file).map_err(unreadable)?;
    let places = places.map_err(|damage| ArchiveError::Damaged(path.to_owned(), damage))?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let copied = io::copy(&mut file, out).map_err(ArchiveError::Write)?;
    // A header starts at a multiple of four from the start of the whole.
    let padding = (4 - copied % 4) % 4;
    out.write_all(&[0; 4][..padding as usize]).map_err(ArchiveError::Write)?;
    Ok(places)
}

/// Checks that a tree can be unpacked after an archive that makes `places`.
///
/// # Errors
///
/// [`ArchiveError::Collides`] names the first file that cannot.
pub fn check_after(mut places: Places, tree: &Tree) -> Result<(), ArchiveError> {
    for (path, node) in tree.iter() {
        let is_directory = matches!(node, Node::Directory(_));
        let placed = places.add(path.as_os_str().as_encoded_bytes(), is_directory);
        placed.map_err(|kind| ArchiveError::Collides(path.to_owned(), kind))?;
    }
    Ok(())
}

/// What a file is that does not start as a newc archive does.
fn looks_like(magic: &[u8]) -> Option<&'static str> {
    match magic {
        b"070701" | b"070702" => None,
        [0x1f, 0x8b, ..] => Some("it is compressed with gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("it is compressed with zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("it is compressed with xz"),
        [0x02, 0x21, 0x4c, 0x18, ..] | [0x04, 0x22, 0x4d, 0x18, ..] => Some("it is compressed with lz4"),
        b"070707" => Some("it is a cpio archive of the old portable format"),
        _ => Some("it is not a cpio archive"),
    }
}

fn write_node(out: &mut impl Write, number: u32, path: &Path, node: &Node) -> Result<(), ArchiveError> {
    match node {
        Node::Directory(stamp) => write_bytes(out, header(number, path, stamp)?.nlink(2), &[]),
        Node::Link(stamp, text) => {
            let text = text.as_os_str().as_encoded_bytes();
            write_bytes(out, header(number, path, stamp)?, text)
        }
        Node::Special(stamp, device) => {
            let header = header(number, path, stamp)?
                .rdev_major(rustix::fs::major(*device))
                .rdev_minor(rustix::fs::minor(*device));
            write_bytes(out, header, &[])
        }
        Node::File(stamp, Content::Bytes(bytes)) => write_bytes(out, header(number, path, stamp)?, bytes),
        Node::File(stamp, Content::Host(host)) => write_file(out, header(number, path, stamp)?, host),
    }
}

fn header(number: u32, path: &Path, stamp: &Stamp) -> Result<newc::Builder, ArchiveError> {
    let name = path.strip_prefix("/").unwrap_or(path).to_str().ok_or_else(|| ArchiveError::Name(path.to_owned()))?;
    Ok(newc::Builder::new(name).ino(number).mode(stamp.mode).mtime(stamp.mtime))
}

fn write_bytes(out: &mut impl Write, header: newc::Builder, bytes: &[u8]) -> Result<(), ArchiveError> {
    // What is written from memory is a link's text or a manifest, far below 4 GiB.
    let mut member = header.write(out, bytes.len() as u32);
    member.write_all(bytes).map_err(ArchiveError::Write)?;
    member.finish().map_err(ArchiveError::Write)?;
    Ok(())
}

fn write_file(out: &mut impl Write, header: newc::Builder, host: &Path) -> Result<(), ArchiveError> {
    let unreadable = |error| ArchiveError::Read(host.to_owned(), error);
    let file = File::open(host).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let size32 = u32::try_from(size).map_err(|_| ArchiveError::TooLarge(host.to_owned()))?;
    let mut member = header.write(out, size32);
    let mut data = BufReader::new(file).take(size);
    let copied = io::copy(&mut data, &mut member).map_err(unreadable)?;
    if copied != size {
        return Err(unreadable(io::Error::other("it became shorter while it was packed")));
    }
    member.finish().map_err(ArchiveError::Write)?;
    Ok(())
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveError::Name(path) => {
                write!(f, "{} has a name that is not UTF-8", path.display())
            }
            ArchiveError::TooLarge(path) => {
                write!(f, "{} is larger than 4 GiB, which a cpio archive cannot hold", path.display())
            }
            ArchiveError::Read(path, error) => {
                write!(f, "{} cannot be packed: {error}", path.display())
            }
            ArchiveError::Write(error) => {
                write!(f, "the guest's archive cannot be written: {error}")
            }
            ArchiveError::NotCpio(path, looks) => {
                write!(f, "{} is not a newc cpio archive: {looks}", path.display())
            }
            ArchiveError::Damaged(path, Damage { offset, what }) => {
                write!(f, "{} is damaged at offset {offset}: {what}", path.display())
            }
            ArchiveError::Collides(path, kind) => {
                write!(f, "{} does not go together with the archive: {kind}", path.display())
            }
        }
    }
}

impl std::error::Error for ArchiveError {}

#[cfg(test)]
mod tests;
