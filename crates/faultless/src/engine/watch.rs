//! Watching ranges, as embedders call it: who is told of faults, and how pages come in (userfaultfd).

use super::Cpu;
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::area::{WatchModes, Watcher};
use crate::machine::Machine;
use crate::space::{Fill, Space, WatchError};
use alloc::sync::Arc;

impl<M: Machine> Space<M> {
    /// Has `watcher` told of the faults in `range`, which may have holes, from now on: private anonymous memory and memory
    /// objects, cached pages in the second alone. Whether children are watched, and what mremap moves, is the watcher's to
    /// say ([`Watcher::fork`], [`Watcher::follows`]).
    ///
    /// # Errors
    ///
    /// [`WatchError::Invalid`], [`WatchError::ReadOnly`], [`WatchError::Busy`]: nothing has changed.
    /// [`WatchError::NoMemory`]: nothing in the range is watched.
    pub fn watch(
        &self,
        cpu: &mut Cpu<M>,
        range: PageRange,
        watcher: &Arc<dyn Watcher>,
        modes: WatchModes,
    ) -> Result<(), WatchError> {
        self.core.watch(cpu.ctx_in(&self.core.memory), range, watcher, modes)
    }

    /// Has any range ever been watched?
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.core.is_watched()
    }

    /// Ends the watch of `range`. Faults that wait there look again.
    ///
    /// # Errors
    ///
    /// [`WatchError::Invalid`] if something there can never be watched, or nothing is mapped; [`WatchError::NoMemory`]:
    /// what lies before is not watched any more.
    pub fn unwatch(&self, cpu: &mut Cpu<M>, range: PageRange) -> Result<(), WatchError> {
        self.core.unwatch(cpu.ctx_in(&self.core.memory), range)
    }

    /// Tells those who watch a part of `range` that its pages are about to be given up: before a hole is punched into what
    /// is mapped there (MADV_REMOVE).
    pub fn tell_removed(&self, cpu: &mut Cpu<M>, range: PageRange) {
        self.core.tell_all_removed(cpu.ctx_in(&self.core.memory), range);
    }

    /// Puts a page where nothing is, in a range that is watched; `marked`: the first store to it is reported. Wakes
    /// nobody: the watcher wakes those who wait for the page, afterwards.
    ///
    /// # Errors
    ///
    /// [`WatchError`]; nothing has changed.
    ///
    /// # Panics
    ///
    /// If the bytes are more than a page.
    pub fn copy_in(&self, cpu: &mut Cpu<M>, at: VirtAddr, fill: Fill<'_>, marked: bool) -> Result<(), WatchError> {
        if let Fill::Bytes(bytes) = fill {
            assert!(bytes.len() <= PAGE_SIZE as usize, "more than a page");
        }
        self.core.fill(cpu.ctx_in(&self.core.memory), at.align_down(), fill, marked)
    }

    /// Marks the pages of `range`, so that the next store to each is reported, or takes the marks away: those that are there
    /// and, in objects or if the watcher says so ([`Watcher::marks_absent`]), those that come later. When
    /// it returns, no CPU can store to a marked page. Wakes nobody.
    ///
    /// # Errors
    ///
    /// [`WatchError::Absent`] unless all that is mapped there is watched for stores; [`WatchError::NoMemory`].
    pub fn mark(&self, cpu: &mut Cpu<M>, range: PageRange, on: bool) -> Result<(), WatchError> {
        self.core.mark(cpu.ctx_in(&self.core.memory), range, on)
    }

    /// Moves the anonymous pages from `from` on to `to`, which `watcher` watches and where nothing is; with `holes`, pages
    /// that are not there are passed over. Returns how many bytes were dealt with, and why not all. Wakes nobody.
    ///
    /// # Errors
    ///
    /// [`WatchError::Absent`] at a page that is not there, [`WatchError::Exists`] where one is in its place,
    /// [`WatchError::Busy`] at one that others have or use, [`WatchError::Invalid`], [`WatchError::NoMemory`].
    pub fn move_in(
        &self,
        cpu: &mut Cpu<M>,
        watcher: &Arc<dyn Watcher>,
        to: PageRange,
        from: VirtAddr,
        holes: bool,
    ) -> (u64, Result<(), WatchError>) {
        self.core.steal(cpu.ctx_in(&self.core.memory), watcher, to, from, holes)
    }
}
