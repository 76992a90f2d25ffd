//! brk: the heap that grows and shrinks at its end.

use super::Core;
use super::extent::Admission;
use crate::addr::{PAGE_SIZE, PageRange, Rights, VirtAddr};
use crate::area::{AreaFlags, Attributes, Changes, STACK_GUARD, Sharing, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::Ordering::Relaxed;

impl<M: Machine> Core<M> {
    /// Sets where the heap begins. Before the first `brk`.
    pub(crate) fn set_brk(&self, start: VirtAddr) {
        self.brk_start.store(start.as_u64(), Relaxed);
        self.brk.store(start.as_u64(), Relaxed);
    }

    /// The heap's first byte and the present break.
    pub(crate) fn brk_range(&self) -> (VirtAddr, VirtAddr) {
        (VirtAddr::new(self.brk_start.load(Relaxed)), VirtAddr::new(self.brk.load(Relaxed)))
    }

    /// Moves the break to `to` if that is possible; returns where it is afterwards.
    pub(crate) fn set_break(&self, ctx: Ctx<'_, M>, to: VirtAddr) -> VirtAddr {
        let (start, _) = self.brk_range();
        // A heap that begins below everything was never set up.
        if start < self.layout.lowest || to < start || to > self.layout.highest {
            return self.brk_range().1;
        }
        let guard = self.lock_break(ctx, to.as_u64());
        let now = self.brk.load(Relaxed);
        if !self.has_exited() && self.move_break(ctx, now, to.as_u64(), &guard) {
            self.brk.store(to.as_u64(), Relaxed);
        }
        VirtAddr::new(self.brk.load(Relaxed))
    }

    /// Locks the stripes from the heap's start to whichever end is higher, and to where a stack could be whose guard gap
    /// reaches it.
    fn lock_break<'a>(&'a self, ctx: Ctx<'a, M>, to: u64) -> StripeGuard<'a> {
        let start = self.brk_start.load(Relaxed);
        // Ends: a round is repeated only if another thread moved the break beyond what was locked.
        loop {
            let high = self.brk.load(Relaxed).max(to).saturating_add(2 * PAGE_SIZE + STACK_GUARD);
            let guard = self.lock(ctx, start, high);
            if self.brk.load(Relaxed) <= high {
                return guard;
            }
        }
    }

    fn move_break(&self, ctx: Ctx<'_, M>, now: u64, to: u64, guard: &StripeGuard<'_>) -> bool {
        let (now, to) = (now.next_multiple_of(PAGE_SIZE), to.next_multiple_of(PAGE_SIZE));
        if to < now {
            let Ok(range) = PageRange::new(VirtAddr::new(to), VirtAddr::new(now)) else {
                return false;
            };
            // As on Linux: a heap of which nothing is left here does not shrink.
            return !self.is_free(range, guard) && self.unmap_locked(ctx, range, guard).is_ok();
        }
        let Ok(range) = PageRange::new(VirtAddr::new(now), VirtAddr::new(to)) else {
            return true;
        };
        self.grow_heap(ctx, range, guard)
    }

    fn grow_heap(&self, ctx: Ctx<'_, M>, range: PageRange, guard: &StripeGuard<'_>) -> bool {
        if !self.is_clear(range, guard) {
            return false;
        }
        let mut changes = Changes::new();
        for part in super::map::stripe_parts::<M>(range) {
            let attributes = Attributes {
                range: part,
                rights: Rights::READ | Rights::WRITE,
                max_rights: Rights::ALL,
                sharing: Sharing::Private,
                flags: self.account.defaults() | AreaFlags::ACCOUNTED | AreaFlags::SOFT_DIRTY,
                object: None,
                offset: part.start().as_u64(),
                watch: None,
            };
            let place = self.index.place(part.start().as_u64(), guard);
            if self.prepare_replace(&mut changes, &place, part, Some(attributes)).is_err() {
                return false;
            }
        }
        self.commit_as(ctx, &mut changes, guard, Admission::Fresh, || {}).is_ok()
    }

    /// Is nothing in the range, in the page behind it, or (if a stack follows) in the stack's guard gap?
    fn is_clear(&self, range: PageRange, guard: &StripeGuard<'_>) -> bool {
        let end = range.end().as_u64() + PAGE_SIZE;
        self.index
            .next(range.start().as_u64(), guard)
            .is_none_or(|area| end <= area.range.start().as_u64().saturating_sub(area.guard()))
    }
}
