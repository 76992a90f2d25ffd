//! What changes pages and places without a new mapping: discards, holes, populating, stores of a debugger, moves.
//! The public face is `World`'s.

use crate::area::AreaView;
use crate::object::ObjectId;
use crate::touch::{Cut, Touch, Verdict};
use crate::world::{SpaceId, World};
use crate::{PAGE, page_up};

/// What populating does to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// What the rights suggest: a store to private memory, else a load, without rights nothing.
    AsMapped,
    /// A load.
    Read,
    /// A store.
    Write,
}

/// Where a mapping may go when it is resized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Nowhere else.
    InPlace,
    /// Anywhere, if it cannot stay.
    Anywhere,
    /// To this address.
    Fixed(u64),
}

/// A mapping to be resized or moved; all addresses and lengths are of whole pages, the lengths not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// First address.
    pub at: u64,
    /// Bytes now.
    pub old: u64,
    /// Bytes afterwards.
    pub new: u64,
    /// Where to.
    pub target: Target,
    /// The old mapping stays, without its pages.
    pub keep: bool,
}

/// Why a mapping was neither resized nor moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveRefusal {
    /// EINVAL.
    Invalid,
    /// EFAULT.
    Unmapped,
    /// ENOMEM.
    NoMemory,
}

impl World {
    /// Lets the pages of `start..end` go; what is shared stays in its object. False if parts are not mapped.
    pub fn discard(&mut self, space: SpaceId, start: u64, end: u64) -> bool {
        let space = self.space_mut(space);
        let part = |area: &AreaView| (area.start.max(start), area.end.min(end));
        let parts: Vec<_> = space.areas.iter().map(part).filter(|(low, high)| low < high).collect();
        parts.iter().for_each(|(low, high)| space.forget(*low, *high));
        parts.iter().map(|(low, high)| high - low).sum::<u64>() == end - start
    }

    /// Is all of `start..end` private memory that shows no object? As far as the areas go; holes are passed over. `None`
    /// if parts are not mapped.
    #[must_use]
    pub fn is_anonymous(&self, space: SpaceId, start: u64, end: u64) -> Option<bool> {
        let areas = self.areas(space);
        let met: Vec<_> = areas.iter().filter(|area| area.start < end && start < area.end).collect();
        let mapped: u64 = met.iter().map(|area| area.end.min(end) - area.start.max(start)).sum();
        let anonymous = met.iter().all(|area| !area.attributes.shared && area.attributes.object.is_none());
        (mapped == end - start || !anonymous).then_some(anonymous)
    }

    /// Makes `offset..end` of an object zeroes, and its whole pages not resident; copies stay.
    pub fn punch(&mut self, object: ObjectId, offset: u64, end: u64) {
        self.object_mut(object).punch(offset, end);
        let (first, last) = (page_up(offset), end / PAGE * PAGE);
        for space in self.spaces_mut() {
            let shown = |area: &AreaView| {
                let (_, from) = area.attributes.object.filter(|(other, _)| *other == object)?;
                let low = (area.start + first.saturating_sub(from)).min(area.end);
                let high = (area.start + last.saturating_sub(from)).min(area.end);
                (low < high).then_some((low, high))
            };
            let parts: Vec<_> = space.areas.iter().filter_map(shown).collect();
            parts.iter().for_each(|(low, high)| space.forget_shown(*low, *high));
        }
    }

    /// Brings the pages of `start..end` in, until one cannot be had.
    ///
    /// # Errors
    ///
    /// That one, and what an access there would get.
    pub fn populate(&mut self, space: SpaceId, start: u64, end: u64, how: Populate) -> Result<(), (u64, Verdict)> {
        let mut at = start;
        while at < end {
            let area = self.space(space).areas.at(at).ok_or((at, Verdict::Unmapped))?;
            let rights = area.attributes.rights;
            let touch = match how {
                Populate::Read => Touch::Read,
                Populate::Write => Touch::Write,
                Populate::AsMapped if rights.write && !area.attributes.shared => Touch::Write,
                Populate::AsMapped if !rights.are_none() => Touch::Read,
                Populate::AsMapped => {
                    at = area.end;
                    continue;
                }
            };
            self.touch(space, at, touch).map_err(|verdict| (at, verdict))?;
            at += PAGE;
        }
        Ok(())
    }

    /// Stores bytes as a debugger does: to private memory whatever its rights.
    ///
    /// # Errors
    ///
    /// [`Cut`] at the first page that cannot be stored to.
    pub fn write_forced(&mut self, space: SpaceId, address: u64, from: &[u8]) -> Result<(), Cut> {
        self.store_pieces(space, address, from, Touch::Force)
    }

    /// Resizes or moves a mapping; to `chosen`, if it may go anywhere and somebody else has decided where. What may fail
    /// for want of room is somebody else's decision too: `chosen` is `None` then.
    ///
    /// # Errors
    ///
    /// [`MoveRefusal`]; what had to make room for [`Target::Fixed`] may be gone.
    pub fn remap(&mut self, space: SpaceId, request: &Move, chosen: Option<u64>) -> Result<u64, MoveRefusal> {
        let Move { at, old, new, target, keep } = *request;
        let limits = self.limits();
        if at >= limits.highest || old > limits.highest - at {
            return Err(MoveRefusal::Unmapped);
        }
        if new > limits.highest {
            return Err(MoveRefusal::NoMemory);
        }
        let area = self.areas(space).into_iter().find(|area| area.start <= at && at + old <= area.end);
        if let Target::Fixed(to) = target {
            let inside = to >= limits.lowest && to + new <= limits.highest;
            if !inside || to < at + old && at < to + new {
                return Err(MoveRefusal::Invalid);
            }
            let area = area.ok_or(MoveRefusal::Unmapped)?;
            self.space_mut(space).unmap(to, to + new);
            if new < old {
                self.space_mut(space).unmap(at + new, at + old);
            }
            self.space_mut(space).relocate(&area, at, old.min(new), to, new, keep);
            return Ok(to);
        }
        if !keep && new <= old {
            self.space(space).areas.at(at).ok_or(MoveRefusal::Unmapped)?;
            self.space_mut(space).unmap(at + new, at + old);
            return Ok(at);
        }
        let area = area.ok_or(MoveRefusal::Unmapped)?;
        let to = chosen.ok_or(MoveRefusal::NoMemory)?;
        let grows = to == at && !keep;
        let room = if grows { (at + old, at + new) } else { (to, to + new) };
        assert!(self.space(space).areas.is_free(room.0, room.1), "the oracle is told to move to what is mapped");
        if grows {
            assert_eq!(area.end, at + old, "only a mapping that ends there grows");
            self.space_mut(space).extend(&area, at + new);
        } else {
            assert!(target == Target::Anywhere, "the oracle is told to move what may not");
            self.space_mut(space).relocate(&area, at, old, to, new, keep);
        }
        Ok(to)
    }
}
