//! Parser of `newc` cpio archives, the format of initramfs images.
//!
//! Called by `unpack` and by the host's tests. Pure: bytes in, borrowed entries out. Several archives
//! may follow each other, with zero bytes between them, as the Linux boot protocol allows.
//!
//! Absent on purpose: the older formats (`odc`, binary) and check sums of `070702` archives.

/// One member of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path as stored; neither made absolute nor cleaned.
    pub name: &'a [u8],
    /// Members with the same device and inode number are links to one file.
    pub identity: (u32, u32, u32),
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links; more than one means that `identity` counts.
    pub links: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u32,
    /// Major and minor number of a device node.
    pub device: (u32, u32),
    /// Contents; of several links at least one has them.
    pub data: &'a [u8],
}

/// The archive ends early or has no header where one should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Byte offset of the header.
    pub offset: usize,
}

/// Iterates over the members; stops after the first error.
pub struct Entries<'a> {
    archive: &'a [u8],
    offset: usize,
    failed: bool,
}

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

impl<'a> Entries<'a> {
    /// The members of `archive`.
    pub fn new(archive: &'a [u8]) -> Entries<'a> {
        Entries { archive, offset: 0, failed: false }
    }

    /// Skips the zeroes between and after archives.
    fn skip_padding(&mut self) {
        let rest = &self.archive[self.offset..];
        self.offset += rest.iter().take_while(|&&b| b == 0).count();
    }

    fn parse(&mut self) -> Option<Entry<'a>> {
        let header = self.archive.get(self.offset..self.offset + HEADER)?;
        if &header[..6] != b"070701" && &header[..6] != b"070702" {
            return None;
        }
        let field = |index: usize| hex(&header[6 + 8 * index..14 + 8 * index]);
        let name_size = field(11)? as usize;
        let name_start = self.offset + HEADER;
        let name = self.archive.get(name_start..name_start.checked_add(name_size)?)?;
        let data_start = align4(name_start + name_size);
        let data_size = field(6)? as usize;
        let data = self.archive.get(data_start..data_start.checked_add(data_size)?)?;
        let entry = Entry {
            name: name.strip_suffix(b"\0")?,
            identity: (field(7)?, field(8)?, field(0)?),
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            links: field(4)?,
            mtime: field(5)?,
            device: (field(9)?, field(10)?),
            data,
        };
        // The padding after the last member may be missing.
        self.offset = align4(data_start + data_size).min(self.archive.len());
        Some(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // Ends: each round moves `offset` forward or returns.
        while !self.failed {
            self.skip_padding();
            if self.offset == self.archive.len() {
                return None;
            }
            let offset = self.offset;
            match self.parse() {
                Some(entry) if entry.name == TRAILER => {}
                Some(entry) => return Some(Ok(entry)),
                None => {
                    self.failed = true;
                    return Some(Err(Malformed { offset }));
                }
            }
        }
        None
    }
}

fn align4(offset: usize) -> usize {
    offset.next_multiple_of(4)
}

/// Eight hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}
