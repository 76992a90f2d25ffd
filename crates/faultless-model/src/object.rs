//! Objects: files and shared memory, as a map from page index to contents. Called by `world`.

use crate::{Contents, PAGE, zeroes};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The number of an object of a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub(crate) usize);

/// Where an object's pages come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Zeroes: shared memory.
    Memory,
    /// These bytes: a file. Reading a page whose index is in `broken` fails.
    File {
        /// The contents.
        bytes: Vec<u8>,
        /// Page indices that cannot be read.
        broken: Vec<u64>,
    },
}

/// An object.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) is_file: bool,
    pages: BTreeMap<u64, Contents>,
    broken: Vec<u64>,
}

impl Object {
    pub(crate) fn new(size: u64, source: Source) -> Self {
        let mut object = Self { size, is_file: false, pages: BTreeMap::new(), broken: Vec::new() };
        if let Source::File { bytes, broken } = source {
            object.is_file = true;
            // Only what belongs to the file is read at all.
            object.broken = broken.into_iter().filter(|index| object.has_page(*index)).collect();
            let kept = bytes.len().min(size as usize);
            object.store(0, &bytes[..kept]);
        }
        object
    }

    /// Does the page of this index lie (at least in part) before the end?
    pub(crate) fn has_page(&self, index: u64) -> bool {
        index < self.size.div_ceil(PAGE)
    }

    /// Can the page be read?
    pub(crate) fn is_broken(&self, index: u64) -> bool {
        self.broken.contains(&index)
    }

    /// The contents of a page.
    pub(crate) fn page(&self, index: u64) -> Contents {
        self.pages.get(&index).cloned().unwrap_or_else(zeroes)
    }

    /// The contents of a page, to be changed.
    pub(crate) fn page_mut(&mut self, index: u64) -> &mut [u8; PAGE as usize] {
        Arc::make_mut(self.pages.entry(index).or_insert_with(zeroes))
    }

    /// Stores bytes without regard to the size.
    pub(crate) fn store(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.page_mut(at / PAGE)[(at % PAGE) as usize] = *byte;
        }
    }

    /// The bytes from `offset` on, up to the end.
    pub(crate) fn bytes(&self, offset: u64, most: u64) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(most));
        (offset..end).map(|at| self.page(at / PAGE)[(at % PAGE) as usize]).collect()
    }

    /// Makes `offset..end` zeroes for ever; whole pages of it need not be read any more.
    pub(crate) fn punch(&mut self, offset: u64, end: u64) {
        let whole = offset.div_ceil(PAGE)..end / PAGE;
        for (index, page) in &mut self.pages {
            let (start, stop) = (offset.max(index * PAGE), end.min((index + 1) * PAGE));
            if start < stop {
                Arc::make_mut(page)[(start - index * PAGE) as usize..(stop - index * PAGE) as usize].fill(0);
            }
        }
        self.broken.retain(|index| !whole.contains(index));
    }

    /// Sets the size; what lies beyond a smaller one is gone for ever.
    pub(crate) fn resize(&mut self, size: u64) {
        if size < self.size {
            self.pages.split_off(&size.div_ceil(PAGE));
            let kept = (size % PAGE) as usize;
            if kept != 0 && self.pages.contains_key(&(size / PAGE)) {
                self.page_mut(size / PAGE)[kept..].fill(0);
            }
            self.broken.retain(|index| *index < size.div_ceil(PAGE));
        }
        self.size = size;
    }
}
