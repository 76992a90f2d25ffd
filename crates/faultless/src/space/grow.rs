//! Stack growth: a fault just below an area that grows downwards extends it. A named slow path: it takes the lock of
//! its stripe (VM-08, the exception of F-01).

use super::Core;
use super::map::stripe_parts;
use crate::addr::{PageRange, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, Look, STACK_GUARD, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{Event, NoMemory, Ordering};

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
        let guard = self.lock_stack(ctx, low);
        let Some(stack) = self.index.next(low.as_u64(), &guard) else {
            return false;
        };
        if stack.range.contains(address) {
            return true; // another thread was first
        }
        if !self.may_grow(stack, low, &guard) {
            return false;
        }
        let mut changes = Changes::new();
        self.prepare_growth(&mut changes, stack, low, &guard).is_ok()
            && self.commit_all(ctx, &mut changes, &guard, || {}).is_ok()
    }

    /// Locks from the guard gap below `low` to the end of the stack above: nearly always one stripe.
    fn lock_stack<'a>(&'a self, ctx: Ctx<'a, M>, low: VirtAddr) -> StripeGuard<'a> {
        let (from, mut to) = (low.as_u64().saturating_sub(STACK_GUARD), low.as_u64() + 1);
        // Ends: a round is repeated only if the stack has come to reach into more stripes than were locked; there are
        // few of them.
        loop {
            let guard = self.lock(ctx, from, to);
            let end = {
                let section = ctx.enter(self.section_name());
                self.index.next(low.as_u64(), &section).map_or(to, |stack| self.end_of(stack, &section))
            };
            if Index::<M>::stripe_of(end - 1) <= *guard.stripes().end() {
                return guard;
            }
            to = end;
        }
    }

    /// The end of an area, whatever stripe borders cut it.
    fn end_of<'r>(&'r self, area: &'r Area<M>, reader: &'r impl Look) -> u64 {
        let mut area = area;
        // Ends: each round passes an area.
        while let Some(next) = self.index.next(area.range.end().as_u64(), reader)
            && area.is_cut_from(next)
        {
            area = next;
        }
        area.range.end().as_u64()
    }

    /// Prepares that the stack begins at `low`: its first part does, and stripes below get parts of their own.
    fn prepare_growth(
        &self,
        changes: &mut Changes<M>,
        stack: &Area<M>,
        low: VirtAddr,
        guard: &StripeGuard<'_>,
    ) -> Result<(), NoMemory> {
        let range = PageRange::new(low, stack.range.end()).map_err(|_| NoMemory)?;
        for part in stripe_parts::<M>(range).filter(|part| *part != stack.range) {
            let (from, to) = (part.start().as_u64(), part.end().as_u64());
            let attributes = Attributes { range: part, offset: from, ..(**stack).clone() };
            let place = self.index.place(from, guard);
            let change = Index::change(changes, from)?;
            change.insert(attributes)?;
            change.prepare(&place, from, to)?;
        }
        Ok(())
    }

    fn may_grow(&self, stack: &Area<M>, low: VirtAddr, guard: &StripeGuard<'_>) -> bool {
        let bytes = self.end_of(stack, guard) - low.as_u64();
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
