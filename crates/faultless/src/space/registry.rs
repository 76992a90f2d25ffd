//! Which spaces exist, and which were dropped and wait for a CPU to take them down.
//!
//! Called by `engine`, and by fork and exit. Protocol P6: a child is known before its parent's locks are free.

use super::Core;
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::sync::plain::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Held, Lock, Rank};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// The registry. Never locked inside a fault.
pub(crate) struct Registry<M: Machine> {
    next_id: AtomicU64,
    spaces: Lock<BTreeMap<u64, Weak<Core<M>>>>,
    orphans: Lock<Vec<Arc<Core<M>>>>,
    /// Lets `bury` pass without the lock when there is nothing to do.
    has_orphans: AtomicBool,
}

impl<M: Machine> Registry<M> {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self {
            next_id: AtomicU64::new(1),
            spaces: Lock::new(Rank::Object, BTreeMap::new()),
            orphans: Lock::new(Rank::Object, Vec::new()),
            has_orphans: AtomicBool::new(false),
        }
    }

    /// A number for a space or an object, ascending.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a space known.
    pub(crate) fn insert(&self, ctx: Ctx<'_, M>, core: &Arc<Core<M>>) {
        self.spaces.lock(ctx.cpu.held(), || ctx.relax()).insert(core.id, Arc::downgrade(core));
    }

    /// Forgets a space.
    pub(crate) fn remove(&self, ctx: Ctx<'_, M>, id: u64) {
        self.spaces.lock(ctx.cpu.held(), || ctx.relax()).remove(&id);
    }

    /// Calls `visit` with each space, ascending, with no lock held. A space that is forked off one not yet visited is
    /// visited too, for it is registered before its parent's locks are free, and its number is higher (R10).
    pub(crate) fn each<E>(&self, ctx: Ctx<'_, M>, mut visit: impl FnMut(&Core<M>) -> Result<(), E>) -> Result<(), E> {
        let mut last = 0;
        loop {
            let next = {
                let spaces = self.spaces.lock(ctx.cpu.held(), || ctx.relax());
                spaces.range(last + 1..).find_map(|(id, core)| core.upgrade().map(|core| (*id, core)))
            };
            let Some((id, core)) = next else {
                return Ok(());
            };
            visit(&core)?;
            last = id;
        }
    }

    /// Takes a dropped space over, to be taken down by the next CPU that comes along.
    pub(crate) fn adopt(&self, core: Arc<Core<M>>) {
        let held = Held::default();
        self.orphans.lock(&held, core::hint::spin_loop).push(core);
        // Release pairs with the Acquire in `bury`.
        self.has_orphans.store(true, Ordering::Release);
    }

    /// Takes dropped spaces down.
    pub(crate) fn bury(&self, ctx: Ctx<'_, M>) {
        // Acquire pairs with the Release in `adopt`.
        if !self.has_orphans.load(Ordering::Acquire) {
            return;
        }
        let orphans = {
            let mut orphans = self.orphans.lock(ctx.cpu.held(), || ctx.relax());
            self.has_orphans.store(false, Ordering::Relaxed);
            core::mem::take(&mut *orphans)
        };
        orphans.iter().for_each(|core| core.exit(ctx, self));
    }
}
