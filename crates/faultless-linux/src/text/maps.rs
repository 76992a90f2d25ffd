//! `maps`: a line per area.

use alloc::vec::Vec;
use faultless::{AreaInfo, Machine, Rights, Sharing};

use super::{Text, put};

/// One line of `maps`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapLine {
    /// First address, and one past the last.
    pub range: (u64, u64),
    /// Readable, writable, executable.
    pub rights: (bool, bool, bool),
    /// Shared rather than private.
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device number (major, minor) and inode number of the file.
    pub file: (u32, u32, u64),
    /// Path or `[name]`; empty for none.
    pub name: Vec<u8>,
}

/// Where the name begins in a line of `maps`.
const NAME_COLUMN: usize = 73;

/// The line of an area, as far as the core knows; file and name are the embedder's.
#[must_use]
pub fn line_of<M: Machine>(area: &AreaInfo<M>) -> MapLine {
    let may = |right| area.rights.contains(right);
    MapLine {
        range: (area.range.start().as_u64(), area.range.end().as_u64()),
        rights: (may(Rights::READ), may(Rights::WRITE), may(Rights::EXECUTE)),
        shared: area.sharing == Sharing::Shared,
        offset: area.object.as_ref().map_or(0, |(_, offset)| *offset),
        ..MapLine::default()
    }
}

impl MapLine {
    /// Appends the line.
    pub fn write(&self, text: &mut Text) {
        let start = text.0.len();
        let flag = |set: bool, letter: char| if set { letter } else { '-' };
        put!(
            text,
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            self.range.0,
            self.range.1,
            flag(self.rights.0, 'r'),
            flag(self.rights.1, 'w'),
            flag(self.rights.2, 'x'),
            if self.shared { 's' } else { 'p' },
            self.offset,
            self.file.0,
            self.file.1,
            self.file.2,
        );
        if !self.name.is_empty() {
            let width = text.0.len() - start;
            // At least one more space, as Linux pads first and then adds one.
            let padded = if width < NAME_COLUMN { NAME_COLUMN } else { width + 1 };
            text.0.resize(start + padded, b' ');
            for &byte in &self.name {
                match byte {
                    b'\n' => text.0.extend_from_slice(b"\\012"),
                    byte => text.0.push(byte),
                }
            }
        }
        text.0.push(b'\n');
    }
}
