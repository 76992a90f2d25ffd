//! Telling watchers what becomes of their ranges besides faults: pages that are given up, mappings that go, move or are
//! inherited (the events of userfaultfd). Protocol P13.
//!
//! Called by `unmap`, `map`, `remap`, `advise` and `fork`, with the stripes locked; spaces in which nothing was ever watched
//! pay one load. Absent on purpose: waiting until somebody has read it, which is the embedder's, after the operation.

use super::Core;
use crate::addr::{PageRange, VirtAddr};
use crate::area::{Area, RangeEvent, StripeGuard, Watch, Watcher};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{NoMemory, Ordering};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Who watched a range before it changed.
pub(super) struct Watchers(Vec<Arc<dyn Watcher>>);

impl Watchers {
    /// Tells each of them.
    pub(super) fn tell(&self, change: RangeEvent) {
        self.0.iter().for_each(|watcher| watcher.changed(change));
    }
}

/// The watchers of a child, made from the parent's as its areas are copied.
pub(super) struct Heirs(Vec<Heir>);

/// A watch of the parent, and the child's watcher in its place, if it gets any.
type Heir = (Arc<Watch>, Option<Arc<dyn Watcher>>);

impl Heirs {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// The watch of the child's copy of an area.
    pub(super) fn of<M: Machine>(&mut self, area: &Area<M>) -> Result<Option<Arc<Watch>>, NoMemory> {
        let Some(watch) = area.live_watch() else { return Ok(None) };
        let known = self.0.iter().position(|(old, _)| old.is_by(&watch.watcher));
        let index = match known {
            Some(index) => index,
            None => {
                self.0.try_reserve(1).map_err(|_| NoMemory)?;
                self.0.push((Arc::clone(watch), watch.watcher.fork()));
                self.0.len() - 1
            }
        };
        Ok(self.0[index].1.as_ref().map(|heir| Arc::new(Watch { watcher: Arc::clone(heir), modes: watch.modes })))
    }

    /// Is anything of the child watched?
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|(_, heir)| heir.is_some())
    }
}

impl<M: Machine> Core<M> {
    /// Whoever watches a part of `range`, each once.
    pub(super) fn watchers_of(&self, range: PageRange, guard: &StripeGuard<'_>) -> Result<Watchers, NoMemory> {
        let mut watchers = Watchers(Vec::new());
        // Relaxed: set under the stripe locks.
        if !self.watched.load(Ordering::Relaxed) {
            return Ok(watchers);
        }
        let mut complete = true;
        self.index.each(range.start().as_u64(), range.end().as_u64(), guard, &mut |area| {
            let Some(watch) = area.live_watch() else { return true };
            if watchers.0.iter().any(|known| watch.is_by(known)) {
                return true;
            }
            let has_room = watchers.0.try_reserve(1).is_ok();
            if has_room {
                watchers.0.push(Arc::clone(&watch.watcher));
            }
            complete &= has_room;
            has_room
        });
        if complete { Ok(watchers) } else { Err(NoMemory) }
    }

    /// The pages of this part of an area are about to be given up.
    #[inline]
    pub(super) fn tell_removed(&self, area: &Area<M>, part: PageRange) {
        if let Some(watch) = area.live_watch() {
            watch.watcher.changed(RangeEvent::Removed(part));
        }
    }

    /// The same for all areas of a range, whose object gives the pages up.
    pub(crate) fn tell_all_removed(&self, ctx: Ctx<'_, M>, range: PageRange) {
        // Relaxed: a hint; whoever begins to watch now is not told.
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
        self.index.each(range.start().as_u64(), range.end().as_u64(), &guard, &mut |area| {
            if let Some(part) = area.range.intersect(range) {
                self.tell_removed(area, part);
            }
            true
        });
    }

    /// The watch that goes with a mapping which moves, if its watcher follows.
    pub(super) fn following(watch: Option<&Arc<Watch>>) -> Option<Arc<Watch>> {
        watch.filter(|watch| !watch.watcher.is_closed() && watch.watcher.follows()).cloned()
    }

    /// A mapping has moved.
    pub(super) fn tell_moved(watch: &Watch, from: PageRange, to: VirtAddr) {
        watch.watcher.changed(RangeEvent::Moved { from, to });
    }
}
