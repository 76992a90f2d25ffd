//! Moving single pages into a watched range (UFFDIO_MOVE).
//!
//! Called by `engine`. As for mremap, faults of both places are kept waiting and those under way waited for; then each page
//! is looked at, and what may move moves as mremap moves it. The areas stay as they are.

use super::Core;
use super::watch::WatchError;
use crate::addr::{PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing, StripeGuard, Watcher};
use crate::frame::{Ctx, Kind};
use crate::machine::format::Leaf;
use crate::machine::{Format, Machine};
use crate::table::{Rewrite, look, span};
use alloc::sync::Arc;

/// A move of pages: from where, to where, and whether holes may be passed over.
struct Steal {
    from: PageRange,
    to: PageRange,
    holes: bool,
}

/// What is at a page that shall move.
enum Page {
    Movable,
    Hole,
}

impl<M: Machine> Core<M> {
    /// Moves the pages from `from` on to `to`, which `watcher` watches. Returns how many bytes were dealt with before the
    /// first page that could not be.
    pub(crate) fn steal(
        &self,
        ctx: Ctx<'_, M>,
        watcher: &Arc<dyn Watcher>,
        to: PageRange,
        from: VirtAddr,
        holes: bool,
    ) -> (u64, Result<(), WatchError>) {
        let Ok(from) = PageRange::with_len(from, to.len()) else {
            return (0, Err(WatchError::Invalid));
        };
        if from.end().max(to.end()) > self.layout.highest || from.intersect(to).is_some() {
            return (0, Err(WatchError::Invalid));
        }
        let (low, high) = (from.start().min(to.start()), from.end().max(to.end()));
        let guard = self.lock(ctx, low.as_u64(), high.as_u64());
        if let Err(error) = self.check_steal(watcher, from, to, &guard) {
            return (0, Err(error));
        }
        self.close(ctx, from, &guard);
        self.close(ctx, to, &guard);
        let result = self.steal_closed(ctx, &Steal { from, to, holes });
        self.open(from, &guard);
        self.open(to, &guard);
        result
    }

    fn check_steal(
        &self,
        watcher: &Arc<dyn Watcher>,
        from: PageRange,
        to: PageRange,
        guard: &StripeGuard<'_>,
    ) -> Result<(), WatchError> {
        let find = |range: PageRange| self.index.find(range.start(), guard).ok_or(WatchError::Absent);
        let (source, target) = (find(from)?, find(to)?);
        let covers = |area: &Area<M>, range| area.range.intersect(range) == Some(range);
        let own = |area: &Area<M>| {
            area.object.is_none() && area.sharing == Sharing::Private && !area.flags.contains(AreaFlags::RAW)
        };
        let locked = |area: &Area<M>| area.flags.contains(AreaFlags::LOCKED);
        let fits = covers(source, from) && covers(target, to) && own(source) && own(target);
        let same = source.rights == target.rights && locked(source) == locked(target);
        let watched = target.watch.as_ref().is_some_and(|watch| watch.is_by(watcher));
        let writable = source.rights.contains(Rights::WRITE);
        if fits && same && watched && writable { Ok(()) } else { Err(WatchError::Invalid) }
    }

    /// Nobody but us changes what is mapped in both places, until they are opened.
    fn steal_closed(&self, ctx: Ctx<'_, M>, steal: &Steal) -> (u64, Result<(), WatchError>) {
        if self.make_small(ctx, steal.from).is_err() {
            return (0, Err(WatchError::NoMemory));
        }
        let (low, by) =
            (steal.from.start().as_u64(), steal.to.start().as_u64().wrapping_sub(steal.from.start().as_u64()));
        let (end, result) = self.movable_until(ctx, steal);
        if end > low && self.make_room(ctx, (low, end), by).is_err() {
            return (0, Err(WatchError::NoMemory));
        }
        let mut at = low;
        // Ends: each round passes a run of pages, or a hole.
        while at < end {
            let mut to = at;
            while to < end && matches!(self.page_at(ctx, to), Ok(Page::Movable)) {
                to += PAGE_SIZE;
            }
            if to > at {
                self.relocate(ctx, at, to, Rewrite::Move { window: (0, 0), range: (at, to), by });
                // A mark belongs to the place.
                let clean = Rewrite::Mark { on: false, empty: false };
                let done = self.sweep_alive(ctx, at.wrapping_add(by), to.wrapping_add(by), clean);
                debug_assert!(done.is_ok(), "room was made on private paths");
            }
            at = to.max(at + PAGE_SIZE);
        }
        (end - low, result)
    }

    /// Up to where pages may move, and why no further.
    fn movable_until(&self, ctx: Ctx<'_, M>, steal: &Steal) -> (u64, Result<(), WatchError>) {
        let (low, high) = (steal.from.start().as_u64(), steal.from.end().as_u64());
        for at in (low..high).step_by(PAGE_SIZE as usize) {
            let page = self.page_at(ctx, at);
            let taken = self.is_taken(ctx, steal.to.start().as_u64() + (at - low));
            match page {
                _ if taken => return (at, Err(WatchError::Exists)),
                Ok(Page::Movable) => {}
                Ok(Page::Hole) if steal.holes => {}
                Ok(Page::Hole) => return (at, Err(WatchError::Absent)),
                Err(error) => return (at, Err(error)),
            }
        }
        (high, Ok(()))
    }

    fn is_taken(&self, ctx: Ctx<'_, M>, at: u64) -> bool {
        let _section = ctx.enter(self.section_name());
        look(ctx, self.root, VirtAddr::new(at)).is_some_and(|seen| M::Format::leaf(seen.leaf) != Leaf::Empty)
    }

    fn page_at(&self, ctx: Ctx<'_, M>, at: u64) -> Result<Page, WatchError> {
        let _section = ctx.enter(self.section_name());
        let Some(seen) = look(ctx, self.root, VirtAddr::new(at)) else { return Ok(Page::Hole) };
        match M::Format::leaf(seen.leaf) {
            Leaf::Empty => Ok(Page::Hole),
            Leaf::Page(frame, bits) if bits.special && frame == ctx.memory.zero_frame() => Ok(Page::Movable),
            Leaf::Page(frame, bits) if bits.exclusive && !bits.pending && !seen.shared => {
                let record = ctx.record(frame);
                let alone = record.kind() == Kind::Anon && record.counts() == (1, 1);
                if alone { Ok(Page::Movable) } else { Err(WatchError::Busy) }
            }
            _ => Err(WatchError::Busy),
        }
    }

    /// Splits large pages and shared tables of a range, where there are any.
    fn make_small(&self, ctx: Ctx<'_, M>, range: PageRange) -> Result<(), super::settle::NoTables> {
        let covered = span::<M::Format>(1);
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        for start in (low & !(covered - 1)..high).step_by(covered as usize) {
            let at = VirtAddr::new(start.max(low));
            let section = ctx.enter(self.section_name());
            let there = look(ctx, self.root, at).is_some();
            drop(section);
            if there {
                self.make_path(ctx, at)?;
            }
        }
        Ok(())
    }
}
