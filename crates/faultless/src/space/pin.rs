//! Pins: frames that stay what they are while somebody outside the space uses them (devices, I/O in flight).
//!
//! A pinned anonymous page is the space's alone and stays so: its entry is EXCLUSIVE, on a private path, when it is
//! pinned, and only a copier of a shared table takes that away. So a fork gives the child copies of the pinned pages at
//! once (GU-05). A page is pinned inside a section: a fork that shares its table waits for that first.

use super::{Core, FaultError};
use crate::addr::{Access, FrameId, PAGE_SIZE, PageRange, VirtAddr};
use crate::area::AreaFlags;
use crate::frame::Ctx;
use crate::machine::format::Leaf;
use crate::machine::{Format, Machine};
use crate::sync::mutant;
use crate::table::{self, look, scan};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Frames that were pinned together, in the order of their pages. Dropping it unpins them.
pub struct Pinned<M: Machine> {
    core: Arc<Core<M>>,
    frames: Vec<FrameId>,
    /// Whoever has them may store to them.
    stores: bool,
}

/// Why the pages were not pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinError {
    /// The first page that could not be pinned.
    pub at: VirtAddr,
    /// What an access there would get; [`FaultError::Denied`] also for memory that cannot be pinned.
    pub fault: FaultError,
}

/// What looking for a page to pin came to.
enum Look {
    /// Pinned.
    Pinned(FrameId),
    /// Not there, or not as the access wants it.
    Unfit,
    /// There, but somebody else may have it too.
    Others,
    /// Part of a large page.
    Large,
    /// Memory whose frames have no records.
    Raw,
}

impl<M: Machine> Pinned<M> {
    /// The frames.
    #[must_use]
    pub fn frames(&self) -> &[FrameId] {
        &self.frames
    }
}

impl<M: Machine> fmt::Debug for Pinned<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.frames).finish()
    }
}

impl<M: Machine> Drop for Pinned<M> {
    fn drop(&mut self) {
        let memory = &self.core.memory;
        for frame in self.frames.drain(..).filter(|frame| *frame != memory.zero_frame()) {
            let holder = memory.holder(frame);
            if memory.is_anon(holder) {
                memory.drop_pin(holder);
            }
            if self.stores && memory.record(holder).is_of_object() {
                memory.record(holder).mark_dirty(); // no entry knows (P17)
            }
            if memory.record(holder).drop_counts(1, 0) {
                memory.free_without_cpu(holder);
            }
        }
    }
}

impl<M: Machine> Core<M> {
    /// Pins the pages of `range`, bringing them in as needed: for stores, or for reads only. All or nothing.
    pub(crate) fn pin(
        self: &Arc<Self>,
        ctx: Ctx<'_, M>,
        range: PageRange,
        access: Access,
    ) -> Result<Pinned<M>, PinError> {
        let mut pinned = Pinned { core: Arc::clone(self), frames: Vec::new(), stores: access == Access::Write };
        let mut at = range.start();
        let fail = |at, fault| PinError { at, fault };
        let pages = (range.len() / PAGE_SIZE) as usize;
        pinned.frames.try_reserve(pages).map_err(|_| fail(at, FaultError::OutOfMemory))?;
        // Ends: a round that passes no page has resolved a fault of it; it is repeated only if somebody took the page
        // away in between (GU-05: it is looked up as strictly as before).
        while at < range.end() {
            let result = match self.pin_page(ctx, at, access) {
                Look::Pinned(frame) => {
                    pinned.frames.push(frame);
                    at = VirtAddr::new(at.as_u64() + PAGE_SIZE);
                    continue;
                }
                Look::Raw => Err(FaultError::Denied),
                Look::Unfit => self.fault(ctx, at, access),
                Look::Others => self.make_own(ctx, at),
                Look::Large => {
                    self.split(ctx, at).map_err(|_| fail(at, FaultError::OutOfMemory))?;
                    continue;
                }
            };
            result.map_err(|fault| fail(at, fault))?;
        }
        Ok(pinned)
    }

    /// Pins one page if it is there as `access` wants it.
    fn pin_page(&self, ctx: Ctx<'_, M>, at: VirtAddr, access: Access) -> Look {
        let section = ctx.enter(self.section_name());
        let Some(area) = self.index.find(at, &section).filter(|area| area.rights.allow(access)) else {
            return Look::Unfit;
        };
        let Some(table::Look { slot, entry, leaf, shared, large }) = look(ctx, self.root, at) else {
            return Look::Unfit;
        };
        if large && !area.flags.contains(AreaFlags::HUGETLB) {
            // Pins stand on leaf entries (GU-10): fork would else have to copy the whole.
            return Look::Large;
        }
        let Leaf::Page(frame, bits) = M::Format::leaf(leaf) else {
            return Look::Unfit;
        };
        if access == Access::Write && (shared || !bits.write) {
            return Look::Unfit;
        }
        if bits.special {
            return if frame == ctx.memory.zero_frame() { Look::Pinned(frame) } else { Look::Raw }; // GU-04
        }
        let holder = if large { ctx.memory.holder(frame) } else { frame };
        if !ctx.record(holder).try_get(0) {
            return Look::Unfit;
        }
        let is_anon = ctx.memory.is_anon(holder);
        let owned = !is_anon || bits.exclusive && !bits.pending && !shared || mutant::is(mutant::Mutant::PinShared);
        let is_there = mutant::is(mutant::Mutant::PinWithoutRecheck) || self.still_maps(ctx, at, slot, entry);
        if !owned || !is_there {
            ctx.put(holder, 1, 0);
            return if owned { Look::Unfit } else { Look::Others };
        }
        if mutant::is(mutant::Mutant::PinAfterSection) {
            drop(section);
        }
        if is_anon {
            ctx.memory.add_pin(holder);
        }
        Look::Pinned(frame)
    }

    /// Gives `child`, which shares all tables and which nobody runs yet, its own copies of the pinned pages. This
    /// space's faults wait meanwhile.
    pub(super) fn copy_pinned(&self, ctx: Ctx<'_, M>, child: &Self) -> Result<(), super::settle::NoTables> {
        if !ctx.memory.has_pins() {
            return Ok(());
        }
        let end = self.layout.highest.as_u64();
        let mut at = 0;
        // Ends: each round passes a leaf table.
        loop {
            let mut pinned = None;
            let next = scan(ctx, self.root, at, end, &mut |seen| {
                if let Leaf::Page(frame, bits) | Leaf::None(frame, bits) = M::Format::leaf(seen.entry)
                    && bits.exclusive
                    && ctx.record(if seen.large { ctx.memory.holder(frame) } else { frame }).is_pinned()
                {
                    pinned = Some((seen.address, usize::from(seen.large)));
                }
            });
            let Some(next) = next else { return Ok(()) };
            if let Some((address, bottom)) = pinned {
                child.make_path_to(ctx, VirtAddr::new(address), bottom)?;
            }
            at = next;
        }
    }
}
