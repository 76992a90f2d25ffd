//! Areas as a sorted list of ranges that do not overlap. Called by `space`.
//!
//! Every operation cuts the list at the ends of its range and then treats whole entries only; entries are joined
//! nowhere but in what is shown to the outside.

use crate::ObjectId;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rights {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Loads.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// Loads and stores.
    pub const READ_WRITE: Self = Self { write: true, ..Self::READ };
    /// Loads and instruction fetches.
    pub const READ_EXECUTE: Self = Self { execute: true, ..Self::READ };
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true };

    /// Is everything of `wanted` granted?
    #[must_use]
    pub fn include(self, wanted: Self) -> bool {
        (self.read || !wanted.read) && (self.write || !wanted.write) && (self.execute || !wanted.execute)
    }

    /// Is nothing granted?
    #[must_use]
    pub fn are_none(self) -> bool {
        self == Self::NONE
    }

    /// As `/proc/self/maps` writes them.
    #[must_use]
    pub fn letters(self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.execute, 'x')]
            .iter()
            .map(|(set, letter)| if *set { *letter } else { '-' })
            .collect()
    }
}

/// The properties of an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// What may be done.
    pub rights: Rights,
    /// What may be granted later.
    pub most: Rights,
    /// Do others see the stores?
    pub shared: bool,
    /// Does it grow downwards when the memory below it is touched?
    pub grows: bool,
    /// The object shown, and the offset of the first byte in it.
    pub object: Option<(ObjectId, u64)>,
}

impl Attributes {
    /// The same from `bytes` further on.
    pub(crate) fn advanced(self, bytes: u64) -> Self {
        Self { object: self.object.map(|(object, offset)| (object, offset + bytes)), ..self }
    }
}

/// One area, as the outside sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaView {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Its properties.
    pub attributes: Attributes,
}

/// The areas of a space.
#[derive(Clone, Default)]
pub(crate) struct Areas(Vec<AreaView>);

impl Areas {
    /// The area that covers `address`.
    pub(crate) fn at(&self, address: u64) -> Option<AreaView> {
        self.0.iter().find(|area| area.start <= address && address < area.end).copied()
    }

    /// The first area that starts above `address`.
    pub(crate) fn after(&self, address: u64) -> Option<AreaView> {
        self.0.iter().find(|area| area.start > address).copied()
    }

    /// The last area that ends at `address` or below.
    pub(crate) fn before(&self, address: u64) -> Option<AreaView> {
        self.0.iter().rfind(|area| area.end <= address).copied()
    }

    /// Is nothing mapped in `start..end`?
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        self.0.iter().all(|area| area.end <= start || area.start >= end)
    }

    /// All entries, ascending.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &AreaView> {
        self.0.iter()
    }

    /// Makes `address` a border between entries if it lies inside one.
    fn cut(&mut self, address: u64) {
        let inside = |area: &AreaView| area.start < address && address < area.end;
        let Some(position) = self.0.iter().position(inside) else {
            return;
        };
        let whole = self.0[position];
        self.0[position].end = address;
        let attributes = whole.attributes.advanced(address - whole.start);
        self.0.insert(position + 1, AreaView { start: address, end: whole.end, attributes });
    }

    /// Removes what is in `start..end`.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        self.cut(start);
        self.cut(end);
        self.0.retain(|area| area.end <= start || area.start >= end);
    }

    /// Puts an area where nothing is.
    pub(crate) fn insert(&mut self, area: AreaView) {
        assert!(self.is_free(area.start, area.end), "the oracle maps twice");
        let position = self.0.iter().position(|other| other.start > area.start).unwrap_or(self.0.len());
        self.0.insert(position, area);
    }

    /// Changes the rights of `start..end`, which lies in one entry.
    pub(crate) fn set_rights(&mut self, start: u64, end: u64, rights: Rights) {
        if self.at(start).is_some_and(|area| area.attributes.rights == rights) {
            return;
        }
        self.cut(start);
        self.cut(end);
        let inside = |area: &&mut AreaView| area.start >= start && area.end <= end;
        self.0.iter_mut().filter(inside).for_each(|area| area.attributes.rights = rights);
    }

    /// Moves the start of the area that starts at `start` down to `to`.
    pub(crate) fn grow(&mut self, start: u64, to: u64) {
        let grown = self.0.iter_mut().find(|area| area.start == start);
        grown.expect("the oracle grows what is there").start = to;
    }

    /// The areas with all joined that could be one.
    pub(crate) fn joined(&self) -> Vec<AreaView> {
        let mut joined: Vec<AreaView> = Vec::new();
        for area in &self.0 {
            match joined.last_mut() {
                Some(last)
                    if last.end == area.start && last.attributes.advanced(last.end - last.start) == area.attributes =>
                {
                    last.end = area.end;
                }
                _ => joined.push(*area),
            }
        }
        joined
    }
}
