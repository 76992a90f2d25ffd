//! What stands behind a file: where its pages come from, and where what was stored goes.
//!
//! Implemented by embedders, called by `object` and `space` outside sections and with no lock of `faultless` held.

use crate::addr::PAGE_SIZE;
use core::fmt;

/// Where a file's pages come from, and where they go.
pub trait Pager: Send + Sync {
    /// Fills the page of index `index` (in pages from the start of the file). The page comes zeroed; what is not
    /// written stays zero. May block; no lock of `faultless` is held.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if the page cannot be read; the access that wanted it ends in SIGBUS.
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError>;

    /// Does it want back what was stored to its pages? Asked once, when the object is made. If so, it is asked before a page
    /// becomes writable through a shared mapping ([`Pager::page_mkwrite`]) and gets the dirty pages
    /// ([`Pager::write_page`]). Else what is stored lives in the cache alone, and faults take no detour.
    fn writes_back(&self) -> bool {
        false
    }

    /// A shared mapping is about to permit stores to a page that is clean, or was when the fault looked (Linux's
    /// `page_mkwrite`): the place to make room for it, or to refuse. May block; no lock of `faultless` is held, and the
    /// page stays the page of `index` or leaves the object for good. Afterwards the fault looks again and asks again if
    /// anything changed, so it may be called more than once for one store, or for one that then does not come; but the
    /// answer that counts was given after the last [`Pager::write_page`] of the page had returned. write(2) and its like
    /// ([`Object::write`](crate::Object::write)) do not ask.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if there must be no store; the access ends in SIGBUS, and the page stays as it was.
    fn page_mkwrite(&self, index: u64) -> Result<(), PagerError> {
        let _ = index;
        Ok(())
    }

    /// Writes a page to where it is kept. What was stored before the call is in it, and nobody stores to it through a
    /// mapping during the call: faults wait, so it should not take for ever. A page may be written again although nothing
    /// was stored since. Two calls for one page never overlap, and a truncation that cuts the page off returns after the
    /// call.
    ///
    /// May block; no lock of `faultless` is held. One case is different: when the last handle of the object is dropped (a
    /// mapping has one, too, which goes when a CPU collects), what is dirty is written there and then, and that may be
    /// inside of any operation, under its locks. So it must not call `faultless`.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if it could not be kept: the page stays dirty, and the error is told to whoever synchronises next
    /// (EIO).
    fn write_page(&self, index: u64, page: &PageReader<'_>) -> Result<(), PagerError> {
        let _ = (index, page);
        Err(PagerError)
    }
}

/// The backing store could not deliver a page, or not keep one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerError;

/// A fresh page to be filled by a [`Pager`].
pub struct PageWriter<'a> {
    pub(super) write: &'a mut dyn FnMut(usize, &[u8]),
}

impl PageWriter<'_> {
    /// Writes `bytes` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes do not lie inside the page.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset <= PAGE_SIZE as usize && bytes.len() <= PAGE_SIZE as usize - offset, "write past the page");
        (self.write)(offset, bytes);
    }
}

impl fmt::Debug for PageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageWriter")
    }
}

/// A page to be written by a [`Pager`].
pub struct PageReader<'a> {
    pub(super) read: &'a dyn Fn(usize, &mut [u8]),
    pub(super) len: usize,
}

impl PageReader<'_> {
    /// Bytes of the page that belong to the file; what is behind them is not to be kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Does none? Never true of a page that is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes do not lie in the first [`PageReader::len`] of the page.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.len && into.len() <= self.len - offset, "read past the page's bytes");
        (self.read)(offset, into);
    }
}

impl fmt::Debug for PageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageReader").field("len", &self.len).finish_non_exhaustive()
    }
}
