//! What smaps and status say about the arena: the same text on both sides, read and compared here.
//!
//! Called by `host`, `ours` and `judge`. Absent on purpose: `Referenced` (accessed bits are set by hardware at moments of
//! its own, and a fork clears them on Linux only), page tables (`VmPTE`: those of the tester's program are among them),
//! and `VmHWM` as a number (Linux sums resident pages over CPUs only now and then; it must not be below `VmRSS`).

use std::collections::{BTreeMap, BTreeSet};

use crate::arena;

/// The lines of an area that are compared exactly.
const EXACT: [&str; 9] = [
    "Rss",
    "Shared_Clean",
    "Shared_Dirty",
    "Private_Clean",
    "Private_Dirty",
    "Anonymous",
    "AnonHugePages",
    "Swap",
    "Size",
];
/// Those that are sums of parts of pages, each rounded down: areas that the host keeps apart may lose a bit each.
const ROUNDED: [&str; 3] = ["Pss", "Pss_Dirty", "Locked"];
/// The properties of areas that are compared. Not among them: `ac` and `sd`, which depend on past faults
/// (`area-merge`), and what no scenario asks for.
const FLAGS: [&str; 20] = [
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "lf", "sr", "rr", "dc", "dd", "nr", "wf", "hg", "nh",
    "sl",
];
/// The lines of status that are compared, less what the process had outside of the arena.
const STATUS: [&str; 5] = ["VmSize", "VmPeak", "VmLck", "VmData", "VmStk"];

/// Numbers of kilobytes by name.
pub type Counts = BTreeMap<&'static str, i64>;

/// One area.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Detail {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Does it show a file or shared memory?
    pub has_object: bool,
    /// A file on a disk?
    pub is_on_disk: bool,
    /// Lines with numbers.
    pub counts: Counts,
    /// `VmFlags`.
    pub flags: BTreeSet<&'static str>,
}

/// The areas of the arena that a text describes.
#[must_use]
pub fn areas(text: &str) -> Vec<Detail> {
    let mut found: Vec<Detail> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        if let Some((start, end)) = range_of(line) {
            inside = arena::page_of(start).is_some();
            if inside {
                let mut words = line.split_ascii_whitespace().skip(3);
                let is_on_disk = words.next().and_then(device).is_some_and(|(major, _)| major != 0);
                let has_object = words.next().is_some_and(|inode| inode != "0");
                found.push(Detail { start, end, has_object, is_on_disk, ..Detail::default() });
            }
        } else if let Some(detail) = found.last_mut().filter(|_| inside) {
            if name == "VmFlags" {
                let known = |word: &str| FLAGS.into_iter().find(|known| *known == word);
                detail.flags = rest.split_ascii_whitespace().filter_map(known).collect();
            } else if let Some(known) = EXACT.into_iter().chain(ROUNDED).find(|known| *known == name) {
                detail.counts.insert(known, kilobytes(rest));
            }
        }
    }
    found
}

/// `major:minor`.
#[must_use]
pub fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}

/// `start-end` at the beginning of a line.
fn range_of(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

fn kilobytes(text: &str) -> i64 {
    text.trim().trim_end_matches(" kB").parse().unwrap_or(-1)
}

/// The lines of status that are compared, and the two of `VmHWM`.
#[must_use]
pub fn status(text: &str) -> Counts {
    let names = STATUS.into_iter().chain(["VmHWM", "VmRSS"]);
    let find = |name: &'static str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some((name, kilobytes(line)))
    };
    names.filter_map(find).collect()
}

/// What areas contribute to status.
#[must_use]
pub fn contribution(areas: &[Detail]) -> Counts {
    let sum = |wanted: &dyn Fn(&Detail) -> bool| {
        areas.iter().filter(|area| wanted(area)).map(|area| (area.end - area.start) as i64 / 1024).sum()
    };
    let has = |area: &Detail, flag| area.flags.contains(flag);
    let data = |area: &Detail| has(area, "wr") && !has(area, "sh") && !has(area, "gd");
    BTreeMap::from([
        ("VmSize", sum(&|_| true)),
        ("VmPeak", sum(&|_| true)),
        ("VmLck", sum(&|area| has(area, "lo"))),
        ("VmData", sum(&data)),
        ("VmStk", sum(&|area| has(area, "gd"))),
    ])
}

/// Whom a process shares pages with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relatives {
    /// Nobody.
    None,
    /// It has forked, or was forked.
    Some,
    /// As before, and somebody has called `MADV_FREE`.
    Freed,
}

/// The sums of shares over all processes (`fork-shares`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shares {
    host: i64,
    ours: i64,
    /// Numbers that went into a sum, each rounded down.
    parts: i64,
}

impl Shares {
    /// Adds a process.
    pub fn add(&mut self, host: &[Detail], ours: &[Detail]) {
        let sum = |areas: &[Detail]| areas.iter().filter_map(|area| area.counts.get("Pss")).sum::<i64>();
        let is_shown = |area: &&Detail| ours.iter().any(|own| own.start <= area.start && area.end <= own.end);
        let shown: Vec<Detail> = host.iter().filter(is_shown).cloned().collect();
        (self.host, self.ours) = (self.host + sum(&shown), self.ours + sum(ours));
        self.parts += shown.len().max(ours.len()) as i64;
    }

    /// What the host says and what we say, if they differ by more than rounding.
    #[must_use]
    pub fn differ(&self) -> Option<(String, String)> {
        let wrong = (self.host - self.ours).abs() > self.parts;
        wrong.then(|| (format!("Pss {} kB in all", self.host), format!("Pss {} kB in all", self.ours)))
    }
}

/// Where the areas differ: what the host says, and what we say. An area of ours may be several of the host's. Of a
/// process with relatives shares are not compared (`fork-shares`), and clean and dirty pages only by their sums once any
/// were freed lazily (`free-shared`).
#[must_use]
pub fn areas_differ(host: &[Detail], ours: &[Detail], relatives: Relatives) -> Option<(String, String)> {
    ours.iter().find_map(|area| {
        let parts: Vec<&Detail> = host.iter().filter(|part| area.start <= part.start && part.end <= area.end).collect();
        let sum = |name: &str| parts.iter().map(|part| part.counts.get(name).copied().unwrap_or(0)).sum::<i64>();
        let own = |name: &str| area.counts.get(name).copied().unwrap_or(0);
        // `object-dirty` and `free-shared`.
        let blurred = |name: &&str| {
            (area.has_object || relatives == Relatives::Freed) && (name.contains("Clean") || name.contains("Dirty"))
        };
        let mut names = EXACT.into_iter().filter(|name| !blurred(name));
        let exact = names.find(|name| sum(name) != own(name));
        let exact = exact.or_else(|| {
            let both = |of: &dyn Fn(&str) -> i64, [a, b]: [&str; 2]| of(a) + of(b);
            let pairs = [["Shared_Clean", "Shared_Dirty"], ["Private_Clean", "Private_Dirty"]];
            pairs.into_iter().find(|pair| both(&sum, *pair) != both(&own, *pair)).map(|[clean, _]| clean)
        });
        let slack = parts.len() as i64;
        let mut names = ROUNDED.into_iter().filter(|name| relatives == Relatives::None && !blurred(name));
        let rounded = names.find(|name| (sum(name) - own(name)).abs() >= slack);
        if let Some(name) = exact.or(rounded) {
            let at = area.start.wrapping_sub(arena::START);
            return Some((format!("+{at:#x} {name} {} kB", sum(name)), format!("+{at:#x} {name} {} kB", own(name))));
        }
        let other = parts.iter().find(|part| part.flags != area.flags)?;
        let text = |detail: &Detail| format!("+{:#x} {:?}", detail.start.wrapping_sub(arena::START), detail.flags);
        Some((text(other), text(area)))
    })
}

/// Where the lines of status differ; `base` is what the host's process has besides the arena. How high `VmPeak` is
/// depends on the order in which threads mapped and unmapped: then it is not compared.
#[must_use]
pub fn status_differs(host: &Counts, base: &Counts, ours: &Counts, had_threads: bool) -> Option<(String, String)> {
    let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or(0);
    let known = STATUS.into_iter().filter(|name| !had_threads || *name != "VmPeak");
    let wrong = known.into_iter().find(|name| of(host, name) - of(base, name) != of(ours, name));
    if let Some(name) = wrong {
        let host = of(host, name) - of(base, name);
        return Some((format!("{name} {host} kB"), format!("{name} {} kB", of(ours, name))));
    }
    let above = |counts: &Counts| of(counts, "VmHWM") >= of(counts, "VmRSS");
    (!above(ours) || !above(host)).then(|| ("VmHWM below VmRSS".to_owned(), "or here".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_compared() {
        let text = "fffffc00000-fffffc02000 rw-p 00000000 00:00 0 \nSize:    8 kB\nRss:   4 kB\nPss:   2 kB\n\
                    VmFlags: rd wr mr mw me ac sd \n7fff00000000-7fff00001000 r--p 0 0:0 0\nRss:  4 kB\nVmFlags: rd\n";
        let host = areas(text);
        assert_eq!(host.len(), 1);
        assert_eq!((host[0].counts["Rss"], host[0].counts["Pss"]), (4, 2));
        assert_eq!(host[0].flags, BTreeSet::from(["rd", "wr", "mr", "mw", "me"]));
        assert_eq!(areas_differ(&host, &host, Relatives::None), None);
        let ours = areas(&text.replace("Pss:   2", "Pss:   3"));
        assert!(areas_differ(&host, &ours, Relatives::None).is_some());
        let base = Counts::from([("VmSize", 100)]);
        assert_eq!(status_differs(&status("VmSize:\t 108 kB\n"), &base, &status("VmSize: 8 kB\n"), false), None);
        assert!(status_differs(&status("VmSize:\t 104 kB\n"), &base, &status("VmSize: 8 kB\n"), false).is_some());
        assert!(areas_differ(&host, &ours, Relatives::Some).is_none());
        let mut shares = Shares::default();
        shares.add(&host, &ours);
        assert_eq!(shares.differ(), None, "as far as rounding goes");
        shares.add(&host, &areas(&text.replace("Pss:   2", "Pss:   5")));
        assert!(shares.differ().is_some());
        assert_eq!(contribution(&host)["VmData"], 8);
    }
}
