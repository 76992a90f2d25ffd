//! Wrong answers of ours, planted to see that the judge finds them: an alarm that never rings proves nothing.
//!
//! Called by `judge`; chosen by tests.

use crate::smaps::{Counts, Detail};
use crate::view::{Answer, Burst, Outcome, Page, View};

/// What is wrong. Each is planted wherever it fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// A call returns another number, an access another byte.
    Answer,
    /// A fault too many.
    Faults,
    /// An answer among those of several threads.
    BurstAnswer,
    /// A fault too many among theirs.
    BurstFaults,
    /// A mapping that may be executed too.
    Mapping,
    /// A page that is there for one side only.
    Page,
    /// A page of a file for one side, of anonymous memory for the other.
    Kind,
    /// A page counted twice.
    Resident,
    /// A property of an area.
    Flags,
    /// A page called anonymous.
    Anonymous,
    /// More memory than is mapped.
    Status,
    /// Another byte in a page.
    Contents,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Answer,
        Self::Faults,
        Self::BurstAnswer,
        Self::BurstFaults,
        Self::Mapping,
        Self::Page,
        Self::Kind,
        Self::Resident,
        Self::Flags,
        Self::Anonymous,
        Self::Status,
        Self::Contents,
    ];

    /// What the judge must say.
    #[must_use]
    pub fn alarm(self) -> &'static str {
        match self {
            Self::Answer | Self::BurstAnswer => "the answer",
            Self::Faults => "faults",
            Self::BurstFaults => "faults of a burst",
            Self::Mapping => "mappings",
            Self::Page | Self::Kind => "resident pages",
            Self::Resident => "resident sizes",
            Self::Flags | Self::Anonymous => "smaps",
            Self::Status => "status",
            Self::Contents => "contents",
        }
    }

    pub(super) fn outcome(planted: Option<Self>, outcome: &mut Outcome) {
        match planted {
            Some(Self::Answer) => wrong(&mut outcome.answer),
            Some(Self::Faults) => outcome.minor += 1,
            _ => {}
        }
    }

    pub(super) fn burst(planted: Option<Self>, burst: &mut Burst) {
        match (planted, burst.answers.last_mut()) {
            (Some(Self::BurstAnswer), Some(answer)) => wrong(answer),
            (Some(Self::BurstFaults), _) => burst.minor += 1,
            _ => {}
        }
    }

    pub(super) fn view(planted: Option<Self>, view: &mut View) {
        match planted {
            Some(Self::Mapping) => view.mappings.iter_mut().take(1).for_each(|mapping| mapping.prot ^= 4),
            Some(Self::Page) => {
                let present = view.pages.iter_mut().filter(|page| **page != Page::Absent);
                present.take(1).for_each(|page| *page = Page::Absent);
            }
            Some(Self::Kind) => {
                let present = view.pages.iter_mut().filter(|page| **page != Page::Absent);
                present
                    .take(1)
                    .for_each(|page| *page = if *page == Page::OfFile { Page::Present } else { Page::OfFile });
            }
            Some(Self::Resident) => view.rss.anon += 1,
            _ => {}
        }
    }

    pub(super) fn details(planted: Option<Self>, areas: &mut [Detail], status: &mut Counts) {
        let last = areas.iter_mut().last();
        match (planted, last) {
            (Some(Self::Flags), Some(area)) => {
                area.flags.insert("hg");
            }
            (Some(Self::Anonymous), Some(area)) => *area.counts.entry("Anonymous").or_default() += 4,
            (Some(Self::Status), _) => *status.entry("VmData").or_default() += 4,
            _ => {}
        }
    }

    pub(super) fn contents(planted: Option<Self>, digests: &mut [u64]) {
        if planted == Some(Self::Contents) {
            digests.iter_mut().filter(|digest| **digest != 0).take(1).for_each(|digest| *digest ^= 1);
        }
    }
}

fn wrong(answer: &mut Answer) {
    match answer {
        Answer::Value(value) | Answer::Digest(_, value) => *value ^= 1,
        Answer::Bytes(bytes) => bytes.push(0),
        Answer::Errno(number) => *number += 1,
        Answer::Trap(trap) => trap.address ^= 8,
        Answer::Elsewhere => *answer = Answer::Errno(1),
    }
}
