//! What /proc/PID says about a process's memory.
//!
//! Called by `host` from outside of the process, which waits meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::arena;
use crate::smaps::{self, Counts, Detail};
use crate::view::{Mapping, Page, Rss, Source};

/// The files of one process, kept open.
pub(super) struct Views {
    maps: File,
    pagemap: File,
    status: File,
    smaps: File,
    buffer: Vec<u8>,
}

/// `struct prctl_mm_map`: where a program's parts are, as the program itself may say.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MmMap {
    /// Start and end of code, of data, and of the heap; the stack; start and end of arguments and of the environment.
    places: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    executable: u32,
}

impl MmMap {
    /// The tester's own places, but for the heap, which begins in the arena and is empty.
    pub(super) fn own() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/stat")?;
        // The name of the program, which may hold spaces, ends with the last parenthesis; the third field follows.
        let (_, fields) = text.rsplit_once(')').unwrap_or_default();
        let fields: Vec<u64> = fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let mut places = [26, 27, 45, 46, 47, 47, 28, 48, 49, 50, 51].map(field);
        places[4..6].fill(arena::HEAP);
        Ok(Self { places, executable: u32::MAX, ..Self::default() })
    }
}

impl Views {
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
        let (maps, pagemap, status, smaps) = (open("maps")?, open("pagemap")?, open("status")?, open("smaps")?);
        Ok(Self { maps, pagemap, status, smaps, buffer: vec![0; 16 << 10] })
    }

    /// Resident pages by kind, of the whole process, but for `RssFile`: most of that is the tester's own program, which
    /// comes and goes as its code is executed.
    pub(super) fn rss(&mut self) -> io::Result<Rss> {
        let count = self.status.read_at(&mut self.buffer, 0)?;
        let text = String::from_utf8_lossy(&self.buffer[..count]);
        let pages = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<i64>().ok().map(|kilobytes| kilobytes / 4)
        };
        let all = || Some(Rss { anon: pages("RssAnon:")?, file: 0, shmem: pages("RssShmem:")? });
        all().ok_or_else(|| io::Error::other("/proc/PID/status without resident sizes"))
    }

    /// The mappings in the arena. Programs and libraries lie above it, so the list ends early.
    pub(super) fn mappings(&mut self) -> io::Result<Vec<Mapping>> {
        let mut text = Vec::new();
        loop {
            let count = self.maps.read_at(&mut self.buffer, text.len() as u64)?;
            text.extend_from_slice(&self.buffer[..count]);
            let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let lines = String::from_utf8_lossy(&text[..complete]);
            let past =
                lines.lines().next_back().and_then(parse).is_some_and(|(mapping, _)| mapping.start >= arena::END);
            if count == 0 || past {
                let found = lines.lines().filter_map(parse).map(|(mapping, _)| mapping);
                return Ok(found.filter(|mapping| arena::page_of(mapping.start).is_some()).collect());
            }
        }
    }

    /// What smaps says about the arena.
    pub(super) fn smaps(&mut self) -> io::Result<Vec<Detail>> {
        let mut text = Vec::new();
        let mut count = 1;
        while count != 0 {
            count = self.smaps.read_at(&mut self.buffer, text.len() as u64)?;
            text.extend_from_slice(&self.buffer[..count]);
        }
        Ok(smaps::areas(&String::from_utf8_lossy(&text)))
    }

    /// What status says.
    pub(super) fn status(&mut self) -> io::Result<Counts> {
        let count = self.status.read_at(&mut self.buffer, 0)?;
        Ok(smaps::status(&String::from_utf8_lossy(&self.buffer[..count])))
    }

    /// The pages of the arena.
    pub(super) fn pages(&mut self) -> io::Result<Vec<Page>> {
        let len = arena::PAGES as usize * 8;
        self.pagemap.read_exact_at(&mut self.buffer[..len], arena::START / arena::PAGE * 8)?;
        let words =
            self.buffer[..len].chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        Ok(words.map(page).collect())
    }
}

const _: () = assert!(arena::PAGES as usize * 8 <= 16 << 10, "the buffer holds the arena");

fn page(entry: u64) -> Page {
    match (entry >> 63 & 1, entry >> 62 & 1, entry >> 61 & 1) {
        (1, _, 1) => Page::OfFile,
        (1, ..) => Page::Present,
        (_, 1, _) => Page::Swapped,
        _ => Page::Absent,
    }
}

/// A line of maps, and the name at its end.
fn parse(line: &str) -> Option<(Mapping, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?.as_bytes();
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (device, inode) = (smaps::device(words.next()?)?, words.next()?.parse::<u64>().ok()?);
    let name = words.next().unwrap_or_default();
    let bit = |index: usize, letter: u8, bit: u32| if rights.get(index) == Some(&letter) { bit } else { 0 };
    let source = match inode {
        0 => Source::Anonymous,
        inode => Source::Shared(super::file_name(device, inode)),
    };
    let mapping = Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        prot: bit(0, b'r', 1) | bit(1, b'w', 2) | bit(2, b'x', 4),
        shared: rights.get(3) == Some(&b's'),
        source,
        offset,
    };
    Some((mapping, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_read() {
        let line = "fffffe00000-fffffe03000 r-xs 00002000 00:01 1234                       /memfd:f1 (deleted)";
        let (mapping, name) = parse(line).expect("a mapping");
        assert_eq!((mapping.start, mapping.end), (0xfff_ffe0_0000, 0xfff_ffe0_3000));
        assert_eq!((mapping.prot, mapping.shared, mapping.offset), (5, true, 0x2000));
        assert_eq!((mapping.source, name), (Source::Shared(1 << 44 ^ 1234), "/memfd:f1"));
        assert_eq!(parse("10000-11000 rw-p 00000000 00:00 0 ").map(|(m, _)| m.source), Some(Source::Anonymous));
    }
}
