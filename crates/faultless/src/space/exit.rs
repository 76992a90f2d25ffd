//! Exit: everything goes, and nothing waits (but for remote accesses under way).

use super::{Core, Registry, Space};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::{Ordering, mutant, spin_hint};
use crate::table;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl<M: Machine> Core<M> {
    /// Takes the space down (ZP-09). Does nothing the second time.
    ///
    /// # Panics
    ///
    /// If a CPU still runs the space: it would walk freed tables.
    pub(crate) fn exit(&self, ctx: Ctx<'_, M>, registry: &Registry<M>) {
        assert!(self.mask.is_empty(), "a CPU still runs the space");
        let mut watches = Vec::new();
        {
            let guard = self.index.lock_all(ctx.cpu.held(), move || ctx.relax());
            // Relaxed: the stripe locks order it.
            if self.exited.swap(true, Ordering::Relaxed) {
                return;
            }
            if self.watched.load(Ordering::Relaxed) {
                self.index.each(0, self.layout.highest.as_u64(), &guard, &mut |area| {
                    watches.extend(area.watch.clone().map(|watch| (watch, area.range)));
                    true
                });
            }
            self.index.clear(ctx, &guard);
        }
        // Whoever waits for an answer finds no area any more.
        if !mutant::is(mutant::Mutant::UnwatchWithoutWake) {
            watches.into_iter().for_each(|(watch, range)| watch.watcher.wake(range));
        }
        // A remote access or a late fault may still be walking; it finds its area dead and gives up.
        ctx.wait_for_sections(self.section_name());
        table::teardown(ctx, self.root);
        self.counters.reset();
        self.account.reset(ctx);
        ctx.memory.forget_promises(ctx.cpu.held(), || ctx.relax(), self.id, (0, u64::MAX));
        // Release pairs with `await_exit`: what the tables said of stores has gone to the pages.
        self.down.store(true, Ordering::Release);
        // Not earlier: whoever writes pages back must find the space until then (P17).
        registry.remove(ctx, self.id);
    }

    /// Waits until the space has been taken down, if that has begun. Holds no stripe.
    pub(super) fn await_exit(&self, ctx: Ctx<'_, M>) {
        // Ends: exit waits for sections and table locks only, and for nobody who waits here. Acquire pairs with `exit`.
        while self.has_exited() && !self.down.load(Ordering::Acquire) {
            ctx.relax();
            spin_hint();
        }
    }
}

impl<M: Machine> Drop for Space<M> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` is the only user.
        if !self.core.exited.load(Ordering::Relaxed) {
            // Taking a space down needs a CPU; the next one that forks, exits or collects does it.
            self.registry.adopt(Arc::clone(&self.core));
        }
    }
}
