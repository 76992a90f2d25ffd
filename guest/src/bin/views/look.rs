//! Reading /proc/PID: areas of smaps, sums, entries of pagemap, lines of status.

use faultless_guest::arena::Arena;
use faultless_guest::sys::PAGE;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// pagemap: the page is there.
pub const PRESENT: u64 = 1 << 63;
/// pagemap: it belongs to a file or to shared memory.
pub const FILE: u64 = 1 << 61;
/// pagemap: it is mapped here only.
pub const EXCLUSIVE: u64 = 1 << 56;
/// pagemap: it was stored to since that was last cleared.
pub const SOFT: u64 = 1 << 55;

/// The figures of an area, or of several, in kB, by name.
pub type Figures = BTreeMap<String, u64>;

/// One area of smaps.
#[derive(Debug, Clone)]
pub struct Area {
    /// First address, and one past the last.
    pub range: (usize, usize),
    /// `rwxp`.
    pub rights: String,
    /// Path or `[name]`.
    pub name: String,
    /// All lines with a size.
    pub figures: Figures,
    /// `VmFlags`.
    pub flags: Vec<String>,
}

/// A file of a process; 0 is this one.
pub fn path(pid: i32, file: &str) -> String {
    if pid == 0 { format!("/proc/self/{file}") } else { format!("/proc/{pid}/{file}") }
}

/// A file of a process as text.
pub fn text(pid: i32, file: &str) -> String {
    let path = path(pid, file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines `Name: 12 kB` and `Name: 12` of a text.
pub fn figures(text: &str) -> Figures {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter_map(|(name, rest)| Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))).collect()
}

/// The areas of smaps.
pub fn smaps(pid: i32) -> Vec<Area> {
    areas_of(&text(pid, "smaps"))
}

/// The areas of a text of smaps, or of maps.
pub fn areas_of(text: &str) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some((low, high)) = words[0].split_once('-').and_then(range_of) {
            let name = words.get(5..).map_or(String::new(), |name| name.join(" "));
            let (rights, figures, flags) = (words[1].to_owned(), Figures::new(), Vec::new());
            areas.push(Area { range: (low, high), rights, name, figures, flags });
            continue;
        }
        let area = areas.last_mut().expect("an area before its figures");
        if words[0] == "VmFlags:" {
            area.flags = words[1..].iter().map(|&flag| flag.to_owned()).collect();
        }
        area.figures.extend(figures(line));
    }
    areas
}

fn range_of((low, high): (&str, &str)) -> Option<(usize, usize)> {
    Some((usize::from_str_radix(low, 16).ok()?, usize::from_str_radix(high, 16).ok()?))
}

/// The areas that lie in an arena.
pub fn areas_in(pid: i32, arena: Arena) -> Vec<Area> {
    let (low, high) = (arena.addr(0), arena.page_addr(arena.pages()));
    let inside = |area: &Area| low <= area.range.0 && area.range.1 <= high;
    smaps(pid).into_iter().filter(inside).collect()
}

/// The sums of the areas that lie in an arena.
pub fn sums(pid: i32, arena: Arena) -> Figures {
    let mut sums = Figures::new();
    for area in areas_in(pid, arena) {
        for (name, value) in area.figures {
            *sums.entry(name).or_default() += value;
        }
    }
    sums
}

/// Some figures in pages, in the order asked.
pub fn in_pages<const N: usize>(figures: &Figures, names: [&str; N]) -> [u64; N] {
    names.map(|name| figures.get(name).unwrap_or_else(|| panic!("no line {name}")) * 1024 / PAGE as u64)
}

/// The entries of pagemap for `count` pages from `address` on.
pub fn pagemap(pid: i32, address: usize, count: usize) -> Vec<u64> {
    let mut bytes = vec![0; count * 8];
    let file = File::open(path(pid, "pagemap")).expect("pagemap");
    file.read_exact_at(&mut bytes, (address / PAGE * 8) as u64).expect("entries");
    let (entries, _) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect()
}

/// The numbers of the pages of an arena whose entries have all of `bits`.
pub fn with(pid: i32, arena: Arena, bits: u64) -> Vec<usize> {
    let entries = pagemap(pid, arena.addr(0), arena.pages());
    (0..entries.len()).filter(|&page| entries[page] & bits == bits).collect()
}

/// Writes a number to clear_refs.
pub fn clear_refs(pid: i32, what: u32) {
    fs::write(path(pid, "clear_refs"), what.to_string()).expect("clear_refs");
}
