//! Stack growth: a fault just below an area that grows downwards extends it. A named slow path: it takes the lock of
//! its stripe (VM-08, the exception of F-01).

use super::Core;
use crate::addr::{PageRange, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, STACK_GUARD, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{Event, Ordering};

impl<M: Machine> Core<M> {
    /// Extends the area above `address` down to it. False if there is none, or it may not grow so far.
    #[cold]
    #[inline(never)]
    pub(super) fn grow_stack(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> bool {
        if address < self.layout.lowest || address >= self.layout.highest || !self.is_below_stack(ctx, address) {
            return false;
        }
        ctx.count(Event::SlowStackGrowth);
        // Named and counted: not among the locks that faults must not take.
        let inside = ctx.cpu.held().set_in_fault(false);
        let grown = self.grow_locked(ctx, address);
        ctx.cpu.held().set_in_fault(inside);
        grown
    }

    /// Is there nothing between `address` and an area that grows downwards, or an area at `address` by now? A look
    /// without the lock, so that a wild access costs none.
    fn is_below_stack(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> bool {
        let section = ctx.enter(self.section_name());
        let above = self.index.next(address.as_u64(), &section);
        above.is_some_and(|area| area.flags.contains(AreaFlags::GROWS_DOWN) || area.range.contains(address))
    }

    fn grow_locked(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> bool {
        let low = address.align_down();
        let guard = self.lock(ctx, low.as_u64().saturating_sub(STACK_GUARD), low.as_u64() + 1);
        let place = self.index.place(low.as_u64(), &guard);
        let Some(stack) = place.first() else {
            return false;
        };
        if stack.range.contains(address) {
            return true; // another thread was first
        }
        if !self.may_grow(stack, low, &guard) {
            return false;
        }
        let Ok(range) = PageRange::new(low, stack.range.end()) else {
            return false;
        };
        let attributes = Attributes { range, offset: low.as_u64(), ..(**stack).clone() };
        let mut changes = Changes::new();
        let (from, to) = (low.as_u64(), range.end().as_u64());
        let prepared = Index::change(&mut changes, from)
            .and_then(|change| change.insert(attributes).and_then(|()| change.prepare(&place, from, to)));
        if prepared.is_err() {
            return false;
        }
        self.commit_all(ctx, &mut changes, &guard, || {});
        true
    }

    fn may_grow(&self, stack: &Area<M>, low: VirtAddr, guard: &StripeGuard<'_>) -> bool {
        let bytes = stack.range.end().as_u64() - low.as_u64();
        let below = self.index.previous(low.as_u64(), guard);
        let gap_kept = below.is_none_or(|area| {
            area.rights.is_none()
                || area.flags.contains(AreaFlags::GROWS_DOWN)
                || low.as_u64().checked_sub(area.range.end().as_u64()).is_some_and(|gap| gap >= STACK_GUARD)
        });
        stack.flags.contains(AreaFlags::GROWS_DOWN)
            && stack.object.is_none()
            && bytes <= self.stack_limit.load(Ordering::Relaxed)
            && gap_kept
    }
}
