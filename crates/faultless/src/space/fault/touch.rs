//! The first look of a fault, and the first touch of anonymous memory: what most faults come to (P1).
//!
//! Called by the loop in `fault`. A first touch needs nothing of what longer ways carry from attempt to attempt: it is
//! told apart here, before any of that is made. Every other fault goes on with what was seen. Absent on purpose: whatever
//! is not usual (a missing or shared table, rights, watchers); the attempt of `commit` looks for itself then.

use super::commit::Attempt;
use crate::addr::{Access, VirtAddr};
use crate::area::{Area, AreaFlags};
use crate::frame::Ctx;
use crate::machine::format::Raw;
use crate::machine::{AtomicEntry, Format, Machine};
use crate::space::Core;
use crate::sync::{Event, Section, mutant};
use crate::table::{Found, find, load};

/// An area that permits the access and lived after the entry was loaded, and the entry, on a private path.
pub(super) struct Seen<'a, M: Machine> {
    pub(super) area: &'a Area<M>,
    pub(super) slot: &'a AtomicEntry,
    pub(super) entry: Raw,
}

impl<M: Machine> Core<M> {
    /// A look that changes nothing; `None` if anything is not usual.
    #[inline(always)]
    pub(super) fn glance<'a>(
        &'a self,
        ctx: Ctx<'a, M>,
        address: VirtAddr,
        access: Access,
        section: &'a Section<'_>,
    ) -> Option<Seen<'a, M>> {
        let area = self.index.find(address, section)?;
        if area.needs_care() || !area.rights.allow(access) {
            return None;
        }
        if mutant::is(mutant::Mutant::DeadCheckFirst) && area.is_dead() {
            return None;
        }
        let Found::Leaf { slot, shared: false, .. } = find(ctx, self.root, address) else { return None };
        let entry = load(slot);
        // P1: after the load, as in `attempt_in`.
        let checks = !mutant::is(mutant::Mutant::NoDeadCheck) && !mutant::is(mutant::Mutant::DeadCheckFirst);
        if checks && area.is_dead() { None } else { Some(Seen { area, slot, entry }) }
    }

    /// Maps anonymous memory that is touched for the first time. False if it is something else that was seen, or if it
    /// could not be mapped: nothing has happened then.
    #[inline(always)]
    pub(super) fn first_touch(&self, ctx: Ctx<'_, M>, address: VirtAddr, access: Access, seen: &Seen<'_, M>) -> bool {
        let Seen { area, slot, entry } = *seen;
        let is_plain = area.object.is_none() && !area.flags.contains(AreaFlags::RAW);
        if !M::Format::all_empty(entry) || !is_plain {
            return false;
        }
        let attempt: Attempt<'_, M, false> = Attempt { core: self, ctx, address, area, slot, entry };
        let is_store = access == Access::Write;
        let done = if is_store { attempt.map_anon() } else { attempt.map_zero() };
        if done.is_ok() {
            ctx.count(Event::Faults);
            // Inside the section: a fork that waits for it finds the counters exact.
            self.counters.count_touch(ctx, i64::from(is_store));
        }
        done.is_ok()
    }
}
