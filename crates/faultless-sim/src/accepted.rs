//! Differences from Linux that are accepted. docs/conformance.md has the reasons; a test keeps the two lists equal.
//!
//! Called by `judge` (mappings) and, by name, where `host` undoes what Linux does besides. Nothing else is overlooked.

use crate::arena;
use crate::view::{Mapping, Source};

/// An accepted difference and how the tester meets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its name in docs/conformance.md.
    pub id: &'static str,
    /// What the tester does about it.
    pub how: &'static str,
}

/// All of them.
pub const ACCEPTED: &[Accepted] = &[
    Accepted {
        id: "fault-around",
        how: "the host's process drops the neighbours that came in with a page; what makes several pages of files \
              resident at once may take fewer faults there",
    },
    Accepted { id: "fork-file-pages", how: "the host's child reads the file pages that its parent had" },
    Accepted {
        id: "fork-shared-tables",
        how: "in a process that forked or was forked, an access may take more faults here, and a store to a private \
              mapping (also by MADV_POPULATE_WRITE and where memory is locked) fewer",
    },
    Accepted {
        id: "fork-shares",
        how: "shares (Pss, Locked) of processes that forked or were forked are compared by the sum of Pss over all processes",
    },
    Accepted {
        id: "free-shared",
        how: "once MADV_FREE or process_vm_readv was called, clean and dirty pages of processes that forked or were forked are compared by \
              their sums",
    },
    Accepted { id: "punch-first-page", how: "holes that end in a file's first page are not made" },
    Accepted {
        id: "object-dirty",
        how: "in mappings of files and shared memory, clean and dirty pages are compared by their sums",
    },
    Accepted {
        id: "nonlinear-area",
        how: "a nonlinear mapping is shown as one per run of pages, which the host may cut where areas of ours meet; calls that meet one, or have it made, where Linux \
              would see the border of a mapping are not made",
    },
    Accepted {
        id: "disk-cache",
        how: "with a file on a disk, minor and major faults are compared by their sum, and mincore may know of more of its \
              pages on the host",
    },
    Accepted {
        id: "disk-notify",
        how: "a store through a shared mapping of a file on a disk may take a fault more on the host; with such mappings, \
              faults of threads that work at the same time are not compared",
    },
    Accepted { id: "disk-folios", how: "what is written to a file on a disk at a time is less than two pages" },
    Accepted {
        id: "disk-placement",
        how: "no mappings of 2 MiB and more of a file on a disk with a wish for the address that the kernel may leave",
    },
    Accepted { id: "disk-tail", how: "no stores through shared mappings behind the end of a file on a disk" },
    Accepted { id: "fallocate-mincore", how: "once fallocate made pages, mincore may know of more pages here" },
    Accepted { id: "dontunmap-locked", how: "no MREMAP_DONTUNMAP of locked mappings" },
    Accepted {
        id: "seal-split",
        how: "once anything was sealed, shared areas that only the host keeps apart are the same to the tester as well",
    },
    Accepted { id: "stripe-join", how: "at the border of stripes, the host may keep shared areas apart as well" },
    Accepted {
        id: "area-merge",
        how: "private areas that only the host keeps apart are the same to the tester; no mremap over such a border",
    },
];

/// Are the lists the same, but for private areas that the host keeps apart (`area-merge`)? Linux does that if their
/// anonymous pages were made independently, which depends on the order of past faults. With `sealed`, shared ones too
/// (`seal-split`), and always at the border of stripes (`stripe-join`) and at `seams` (`nonlinear-area`).
#[must_use]
pub fn same_mappings(host: &[Mapping], ours: &[Mapping], sealed: bool, seams: &[u64]) -> bool {
    let mut host = host.iter();
    let same = ours.iter().all(|whole| {
        let Some(mut part) = host.next().copied() else { return false };
        let may_end = |end: u64| end == arena::MIDDLE || seams.contains(&end);
        while part.end < whole.end && (sealed || !part.shared || may_end(part.end)) {
            match host.next() {
                Some(next) if follows(&part, next) => part.end = next.end,
                _ => return false,
            }
        }
        part == *whole
    });
    same && host.next().is_none()
}

/// Could one mapping show `last` and, behind it, `next`?
pub(crate) fn follows(last: &Mapping, next: &Mapping) -> bool {
    let offset = match last.source {
        Source::Anonymous => 0,
        _ => last.offset + (last.end - last.start),
    };
    last.end == next.start
        && offset == next.offset
        && (last.prot, last.shared, last.source) == (next.prot, next.shared, next.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_may_keep_private_areas_apart() {
        let area = |start, end, shared| Mapping { start, end, prot: 3, shared, source: Source::File(0), offset: start };
        let (whole, parts) = ([area(0, 8, false)], [area(0, 4, false), area(4, 8, false)]);
        let same = |host: &[Mapping], ours: &[Mapping]| same_mappings(host, ours, false, &[]);
        assert!(same(&whole, &whole) && same(&parts, &whole) && !same(&whole, &parts));
        let (halves, both) = ([area(0, 4, true), area(4, 8, true)], [area(0, 8, true)]);
        let shared = |host: &[Mapping], ours: &[Mapping], seams: &[u64]| same_mappings(host, ours, false, seams);
        assert!(!same(&halves, &both) && shared(&halves, &both, &[4]) && !shared(&halves, &both, &[5]));
        assert!(same_mappings(&halves, &both, true, &[]) && !same_mappings(&both, &halves, true, &[]));
        assert!(!same(&parts, &parts[..1]) && !same(&parts[..1], &whole));
    }

    #[test]
    fn the_list_is_the_documents() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conformance.md");
        let text = std::fs::read_to_string(path).expect("docs/conformance.md");
        let (_, table) = text.split_once("## Accepted differences").expect("the heading");
        let table = table.split("\n## ").next().unwrap_or_default();
        let ids: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(id, _)| id)).collect();
        let own: Vec<&str> = ACCEPTED.iter().map(|accepted| accepted.id).collect();
        assert_eq!(ids, own);
    }
}
