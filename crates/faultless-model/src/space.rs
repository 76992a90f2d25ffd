//! One space: its areas, the pages it has for itself, the pages of objects it has looked at. Called by `world`.

use crate::area::{AreaView, Areas};
use crate::{Contents, PAGE};
use std::collections::{BTreeMap, BTreeSet};

/// Resident pages by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Resident {
    /// Pages that this space wrote to (or that its ancestors did before they forked it).
    pub anon: u64,
    /// Pages of files that were touched and are not copied.
    pub file: u64,
    /// Pages of shared memory that were touched and are not copied.
    pub memory: u64,
}

/// A space. All page numbers are addresses divided by the page size.
#[derive(Clone, Default)]
pub(crate) struct Space {
    pub(crate) areas: Areas,
    /// Pages of its own: written anonymous memory and copies.
    pub(crate) own: BTreeMap<u64, Contents>,
    /// Pages of objects that were touched and are shown as they are; true: of a file.
    pub(crate) shown: BTreeMap<u64, bool>,
    pub(crate) brk_start: u64,
    pub(crate) brk: u64,
    /// Has it exited?
    pub(crate) gone: bool,
}

impl Space {
    /// Forgets the pages of `start..end`.
    pub(crate) fn forget(&mut self, start: u64, end: u64) {
        let pages = start / PAGE..end.div_ceil(PAGE);
        self.own.retain(|page, _| !pages.contains(page));
        self.shown.retain(|page, _| !pages.contains(page));
    }

    /// Forgets the pages of `start..end` that are shown as their objects have them.
    pub(crate) fn forget_shown(&mut self, start: u64, end: u64) {
        self.shown.retain(|page, _| !(start / PAGE..end.div_ceil(PAGE)).contains(page));
    }

    /// Moves `old` bytes at `at`, in `area`, to `to`, where nothing is, as the first part of a mapping of `new` bytes.
    pub(crate) fn relocate(&mut self, area: &AreaView, at: u64, old: u64, to: u64, new: u64, keep: bool) {
        let attributes = area.attributes.advanced(at - area.start);
        let move_page = |page: u64| page - at / PAGE + to / PAGE;
        let inside = at / PAGE..(at + old) / PAGE;
        let own: Vec<_> = self.own.range(inside.clone()).map(|(page, contents)| (*page, contents.clone())).collect();
        let shown: Vec<_> = self.shown.range(inside).map(|(page, of_file)| (*page, *of_file)).collect();
        if keep {
            self.forget(at, at + old);
        } else {
            self.unmap(at, at + old);
        }
        self.areas.insert(AreaView { start: to, end: to + new, attributes });
        self.own.extend(own.into_iter().map(|(page, contents)| (move_page(page), contents)));
        self.shown.extend(shown.into_iter().map(|(page, of_file)| (move_page(page), of_file)));
    }

    /// Makes the mapping that `area` shows longer, up to `to`.
    pub(crate) fn extend(&mut self, area: &AreaView, to: u64) {
        let attributes = area.attributes.advanced(area.end - area.start);
        self.areas.insert(AreaView { start: area.end, end: to, attributes });
    }

    /// Unmaps `start..end`.
    pub(crate) fn unmap(&mut self, start: u64, end: u64) {
        self.areas.remove(start, end);
        self.forget(start, end);
    }

    /// Counts what is resident.
    pub(crate) fn resident(&self) -> Resident {
        let file = self.shown.values().filter(|of_file| **of_file).count() as u64;
        Resident { anon: self.own.len() as u64, file, memory: self.shown.len() as u64 - file }
    }

    /// Addresses of all pages that are resident.
    pub(crate) fn touched(&self) -> BTreeSet<u64> {
        self.own.keys().chain(self.shown.keys()).map(|page| page * PAGE).collect()
    }
}
