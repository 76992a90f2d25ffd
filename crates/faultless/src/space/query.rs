//! What is mapped where: the areas one after the other, without a lock.

use super::Core;
use crate::addr::{PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Sharing};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::object::Object;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Areas that one section looks at: bounds what is kept of them, and how long memory waits to be reclaimed.
const AT_ONCE: usize = 64;

/// One area of a space, as it was when it was looked at. Areas cut at a stripe border are given whole.
pub struct AreaInfo<M: Machine> {
    /// The addresses.
    pub range: PageRange,
    /// What may be done.
    pub rights: Rights,
    /// What may be granted.
    pub max_rights: Rights,
    /// Who sees the stores.
    pub sharing: Sharing,
    /// Other properties.
    pub flags: AreaFlags,
    /// The object and the offset of the first byte in it.
    pub object: Option<(Arc<Object<M>>, u64)>,
}

// Written out: a derive would ask the machine to be `Clone` and `Debug` too.
impl<M: Machine> Clone for AreaInfo<M> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), ..*self }
    }
}

impl<M: Machine> fmt::Debug for AreaInfo<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} {:?} {:?}", self.range, self.rights, self.sharing, self.flags, self.object)
    }
}

impl<M: Machine> Core<M> {
    /// Calls `visit` with each area, ascending and outside of any section. A space may have any number
    /// of areas, so only some are kept at a time.
    pub(crate) fn areas(&self, ctx: Ctx<'_, M>, visit: impl FnMut(AreaInfo<M>)) {
        self.areas_between(ctx, 0, self.layout.highest.as_u64(), visit);
    }

    /// The same for those that meet `from..to`; what the first has below `from` is left out.
    pub(crate) fn areas_between(&self, ctx: Ctx<'_, M>, mut from: u64, to: u64, mut visit: impl FnMut(AreaInfo<M>)) {
        let mut found = Vec::with_capacity(AT_ONCE + 1);
        let mut more = true;
        while more {
            more = self.some_areas(ctx, from, to, &mut found);
            from = found.last().map_or(from, |last: &AreaInfo<M>| last.range.end().as_u64());
            // What comes next may be the rest of the last one.
            let known = found.len() - usize::from(more);
            found.drain(..known).for_each(&mut visit);
        }
    }

    /// Appends the areas from `from` up to `to` until there are enough. Says whether there may be more.
    fn some_areas(&self, ctx: Ctx<'_, M>, from: u64, to: u64, found: &mut Vec<AreaInfo<M>>) -> bool {
        let section = ctx.enter(self.section_name());
        self.index.each(from, to, &section, &mut |area| {
            push_joined(found, area, from);
            found.len() <= AT_ONCE
        });
        found.len() > AT_ONCE
    }

    /// The area that covers `address`.
    pub(crate) fn area_at(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> Option<AreaInfo<M>> {
        let section = ctx.enter(self.section_name());
        self.index.find(address, &section).map(info)
    }
}

fn info<M: Machine>(area: &Area<M>) -> AreaInfo<M> {
    AreaInfo {
        range: area.range,
        rights: area.rights,
        max_rights: area.max_rights,
        sharing: area.sharing,
        flags: area.flags,
        object: area.object.clone().map(|object| (object, area.offset)),
    }
}

/// Appends an area, joined with the one before if only a stripe border parts them. What lies before
/// `from` was given before the area became what it is.
fn push_joined<M: Machine>(areas: &mut Vec<AreaInfo<M>>, area: &Area<M>, from: u64) {
    let at_border = area.range.start().as_u64().is_multiple_of(crate::area::Index::<M>::bounds(0).1);
    if at_border
        && let Some(last) = areas.last_mut()
        && last.joins(area)
        && let Ok(range) = PageRange::new(last.range.start(), area.range.end())
    {
        last.range = range;
        last.flags = last.flags.joined_with(area.flags);
        return;
    }
    let mut info = info(area);
    let before = from.saturating_sub(info.range.start().as_u64());
    if before > 0
        && let Ok(rest) = PageRange::new(VirtAddr::new(from), info.range.end())
    {
        info.range = rest;
        info.object = info.object.map(|(object, offset)| (object, offset + before));
    }
    areas.push(info);
}

impl<M: Machine> AreaInfo<M> {
    fn joins(&self, next: &Area<M>) -> bool {
        let same_object = match (&self.object, &next.object) {
            (None, None) => true,
            (Some((a, offset)), Some(b)) => Arc::ptr_eq(a, b) && offset + self.range.len() == next.offset,
            _ => false,
        };
        same_object
            && self.range.end() == next.range.start()
            && (self.rights, self.max_rights) == (next.rights, next.max_rights)
            && self.sharing == next.sharing
            && self.flags.joins(next.flags)
    }
}
