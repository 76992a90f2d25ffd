//! Whether the kernel will be able to unpack an archive that somebody else made, found out before it starts.
//!
//! Called by `archive` only. Walks the headers from the first to the trailer, and further where archives follow each
//! other; contents are skipped. Absent on purpose: the sums of the checksum variant, which the kernel does not read.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Seek};

/// What is wrong with an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Byte offset of the header that is not, or does not describe, what it should.
    pub offset: u64,
    /// What it is.
    pub what: Kind,
}

/// What is wrong with a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The archive ends and there was no trailer.
    NoTrailer,
    /// The archive ends within a header or a name.
    CutHeader,
    /// The archive ends within the contents of this member, so many bytes too early.
    CutContents(String, u64),
    /// There is no header where one should be.
    NoHeader,
    /// A name has no end or no length.
    BadName,
    /// A path has a `..` in it.
    Outside(String),
    /// The first needs a directory where the second, a member before it, is something else.
    NoDirectory(String, String),
    /// A member of this name before it is a directory.
    OverDirectory(String),
}

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// The paths that an archive makes, as the kernel makes them: links are not followed.
#[derive(Debug, Default)]
pub struct Places {
    /// Each path without empty components, and whether it is a directory.
    made: BTreeMap<Vec<u8>, bool>,
}

impl Places {
    /// Adds a member.
    ///
    /// # Errors
    ///
    /// Why it cannot be there.
    pub fn add(&mut self, name: &[u8], is_directory: bool) -> Result<(), Kind> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parts: Vec<&[u8]> = name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&&b".."[..]) {
            return Err(Kind::Outside(text(name)));
        }
        for count in 1..=parts.len() {
            let path = parts[..count].join(&b'/');
            let wanted = count < parts.len() || is_directory;
            match (self.made.get(&path), wanted) {
                (Some(false), true) => return Err(Kind::NoDirectory(text(name), text(&path))),
                (Some(true), false) => return Err(Kind::OverDirectory(text(name))),
                _ => self.made.insert(path, wanted),
            };
        }
        Ok(())
    }
}

/// One header, as far as it matters here.
struct Member {
    name: Vec<u8>,
    mode: u32,
    size: u64,
}

/// Walks the whole archive and returns what it makes.
///
/// # Errors
///
/// What the host says when it cannot be read; [`Damage`] inside if it is damaged.
pub fn walk(file: impl Read + Seek) -> io::Result<Result<Places, Damage>> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let length = file.seek(io::SeekFrom::End(0))?;
    file.rewind()?;
    let mut places = Places::default();
    let mut ended = false;
    let mut offset = 0;
    // Ends: each round moves on by a header at least.
    loop {
        offset += skip_zeros(&mut file)?;
        let damage = |what| Ok(Err(Damage { offset, what }));
        if offset == length {
            return if ended { Ok(Ok(places)) } else { damage(Kind::NoTrailer) };
        }
        let member = match header(&mut file)? {
            Ok(member) => member,
            Err(what) => return damage(what),
        };
        let start = align(offset + (HEADER + member.name.len() + 1) as u64);
        let end = start + member.size;
        ended = member.name == TRAILER;
        if end > length && !(ended && member.size == 0) {
            return damage(Kind::CutContents(String::from_utf8_lossy(&member.name).into_owned(), end - length));
        }
        if !ended && let Err(what) = places.add(&member.name, member.mode & TYPE == DIRECTORY) {
            return damage(what);
        }
        // The padding after the last member may be missing.
        let next = align(end).min(length);
        let at = offset + (HEADER + member.name.len() + 1) as u64;
        file.seek_relative(next.cast_signed() - at.cast_signed())?;
        offset = next;
    }
}

fn align(offset: u64) -> u64 {
    offset.next_multiple_of(4)
}

/// Skips what lies between and after archives. Returns how much it was.
fn skip_zeros(file: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let ahead = file.fill_buf()?;
        let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
        let all = zeros == ahead.len() && zeros > 0;
        file.consume(zeros);
        skipped += zeros as u64;
        if !all {
            return Ok(skipped);
        }
    }
}

/// Reads a header and the name behind it.
fn header(file: &mut impl Read) -> io::Result<Result<Member, Kind>> {
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header)?;
    if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
        return Ok(Err(Kind::NoHeader));
    }
    if header.len() < HEADER {
        return Ok(Err(Kind::CutHeader));
    }
    let fields: Option<Vec<u32>> = header[6..].chunks(8).map(hexadecimal).collect();
    let Some(fields) = fields else {
        return Ok(Err(Kind::NoHeader));
    };
    let (mode, size, name_size) = (fields[1], u64::from(fields[6]), u64::from(fields[11]));
    let mut name = Vec::new();
    if file.take(name_size).read_to_end(&mut name)? as u64 != name_size {
        return Ok(Err(Kind::CutHeader));
    }
    Ok(match name.pop() {
        Some(0) => Ok(Member { name, mode, size }),
        _ => Err(Kind::BadName),
    })
}

/// Eight hexadecimal digits; no signs, which the standard library would take.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::NoTrailer => f.write_str("the archive ends there without its trailer"),
            Kind::CutHeader => f.write_str("the archive ends within the header there"),
            Kind::CutContents(name, bytes) => {
                write!(f, "the archive ends within the contents of {name}, {bytes} bytes too early")
            }
            Kind::NoHeader => f.write_str("there is no header of a member where one should be"),
            Kind::BadName => f.write_str("the name of the member there has no end"),
            Kind::Outside(name) => write!(f, "the member {name} has .. in its path"),
            Kind::NoDirectory(name, at) => write!(f, "{name} needs a directory at {at}, which is a file or link"),
            Kind::OverDirectory(name) => write!(f, "{name} is a directory already"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn member(out: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
        let header = cpio::newc::Builder::new(name).mode(mode).write(&mut *out, data.len() as u32);
        let mut member = header;
        io::Write::write_all(&mut member, data).expect("written");
        member.finish().expect("written");
    }

    fn archive() -> Vec<u8> {
        let mut out = Vec::new();
        member(&mut out, "bin", 0o040_755, b"");
        member(&mut out, "bin/tool", 0o100_755, b"12345");
        cpio::newc::trailer(&mut out).expect("written");
        out
    }

    fn damage(bytes: &[u8]) -> Option<Damage> {
        walk(Cursor::new(bytes)).expect("readable").err()
    }

    #[test]
    fn whole_archives_pass_one_after_the_other_too() {
        let mut bytes = archive();
        assert_eq!(damage(&bytes), None);
        bytes.extend([0; 512]);
        bytes.extend(archive());
        assert_eq!(damage(&bytes), None);
        // Some are cut right behind the trailer's name.
        let end = bytes.iter().rposition(|&byte| byte != 0).expect("not empty") + 2;
        assert_eq!(damage(&bytes[..end]), None);
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = archive();
        let end = bytes.iter().rposition(|&byte| byte != 0).expect("not empty") + 2;
        for cut in 0..end {
            assert!(damage(&bytes[..cut]).is_some(), "{cut}");
        }
        let second = 116;
        let contents = Damage { offset: second, what: Kind::CutContents("bin/tool".into(), 3) };
        assert_eq!(damage(&bytes[..(second + 122) as usize]), Some(contents));
        assert_eq!(damage(&bytes[..second as usize]), Some(Damage { offset: second, what: Kind::NoTrailer }));
    }

    #[test]
    fn any_damaged_header_is_noticed_or_harmless() {
        let bytes = archive();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0xff;
            // Neither a panic nor an endless walk; a name or contents may be anything.
            let _ = damage(&other);
        }
        let mut other = bytes.clone();
        other[116] = b'x';
        assert_eq!(damage(&other), Some(Damage { offset: 116, what: Kind::NoHeader }));
    }

    #[test]
    fn paths_that_the_kernel_cannot_make_are_named() {
        let with = |name: &str, mode: u32| {
            let mut bytes = Vec::new();
            member(&mut bytes, "bin", 0o120_777, b"usr/bin");
            member(&mut bytes, "usr/bin", 0o040_755, b"");
            member(&mut bytes, name, mode, b"");
            cpio::newc::trailer(&mut bytes).expect("written");
            damage(&bytes).map(|damage| damage.what)
        };
        assert_eq!(with("usr/bin/x", 0o100_755), None);
        assert_eq!(with("/./usr//bin", 0o040_755), None);
        assert_eq!(with("bin", 0o100_755), None);
        assert_eq!(with("bin/x", 0o100_755), Some(Kind::NoDirectory("bin/x".into(), "bin".into())));
        assert_eq!(with("usr/bin", 0o100_755), Some(Kind::OverDirectory("usr/bin".into())));
        assert_eq!(with("../x", 0o100_755), Some(Kind::Outside("../x".into())));
    }
}
