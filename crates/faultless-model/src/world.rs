//! Spaces and objects, and the operations on them. The public face of the oracle.

use crate::area::{AreaView, Attributes, Rights};
use crate::object::{Object, ObjectId, Source};
use crate::space::{Resident, Space};
use crate::touch::GUARD;
use crate::{PAGE, page_up};
use std::collections::BTreeSet;

/// The number of a space of a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceId(usize);

/// Where things may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Lowest address.
    pub lowest: u64,
    /// One past the highest.
    pub highest: u64,
    /// What has no address goes below this, if there is room.
    pub top: u64,
    /// Most bytes of an area that grows.
    pub stack: u64,
}

impl Limits {
    /// Linux's on x86-64, without randomisation.
    #[must_use]
    pub const fn linux() -> Self {
        Self { lowest: 0x1_0000, highest: 0x7fff_ffff_f000, top: 0x7fff_f7ff_f000, stack: 8 << 20 }
    }
}

/// Where a mapping is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Anywhere.
    Anywhere,
    /// At this address if it is free, else anywhere.
    Hint(u64),
    /// At this address, replacing what is there.
    Fixed(u64),
    /// At this address, or not at all.
    FixedNoReplace(u64),
}

/// What a mapping shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shows {
    /// Zeroes; if shared, a memory object of its own.
    Anonymous,
    /// An object from an offset on.
    Object(ObjectId, u64),
}

/// A mapping to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where.
    pub place: Place,
    /// Bytes.
    pub len: u64,
    /// What may be done.
    pub rights: Rights,
    /// What may be granted later.
    pub most: Rights,
    /// Do others see the stores?
    pub shared: bool,
    /// Does it grow downwards?
    pub grows: bool,
    /// What it shows.
    pub shows: Shows,
}

impl Request {
    /// Private anonymous memory, anywhere.
    #[must_use]
    pub const fn anonymous(len: u64) -> Self {
        let (place, shows) = (Place::Anywhere, Shows::Anonymous);
        Self { place, len, rights: Rights::READ_WRITE, most: Rights::ALL, shared: false, grows: false, shows }
    }
}

/// Why nothing was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapRefusal {
    /// EINVAL.
    Invalid,
    /// ENOMEM.
    NoMemory,
    /// EPERM.
    NotPermitted,
    /// EEXIST.
    Exists,
    /// EACCES.
    Denied,
    /// EOVERFLOW.
    Overflow,
}

/// Why rights were not changed from this address on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectRefusal {
    /// Nothing is mapped here (ENOMEM).
    Unmapped(u64),
    /// More than may be granted here (EACCES).
    Denied(u64),
}

/// Everything.
#[derive(Clone)]
pub struct World {
    limits: Limits,
    spaces: Vec<Space>,
    objects: Vec<Object>,
}

impl World {
    /// No spaces and no objects.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, spaces: Vec::new(), objects: Vec::new() }
    }

    /// An empty space.
    pub fn new_space(&mut self) -> SpaceId {
        self.spaces.push(Space::default());
        SpaceId(self.spaces.len() - 1)
    }

    /// An object.
    pub fn new_object(&mut self, size: u64, source: Source) -> ObjectId {
        self.objects.push(Object::new(size, source));
        ObjectId(self.objects.len() - 1)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn space(&self, space: SpaceId) -> &Space {
        &self.spaces[space.0]
    }

    pub(crate) fn space_mut(&mut self, space: SpaceId) -> &mut Space {
        &mut self.spaces[space.0]
    }

    pub(crate) fn spaces_mut(&mut self) -> impl Iterator<Item = &mut Space> {
        self.spaces.iter_mut()
    }

    pub(crate) fn object(&self, object: ObjectId) -> &Object {
        &self.objects[object.0]
    }

    pub(crate) fn object_mut(&mut self, object: ObjectId) -> &mut Object {
        &mut self.objects[object.0]
    }

    /// A copy of a space. Both see the same memory only where it is mapped shared.
    pub fn fork(&mut self, parent: SpaceId) -> SpaceId {
        let child = self.spaces[parent.0].clone();
        self.spaces.push(child);
        SpaceId(self.spaces.len() - 1)
    }

    /// Empties a space for ever.
    pub fn exit(&mut self, space: SpaceId) {
        self.spaces[space.0] = Space { gone: true, ..Space::default() };
    }

    /// Checks a request and says where it will go; nothing is changed. `None` in place of an address: anywhere.
    fn check(&self, space: SpaceId, request: &Request) -> Result<Option<u64>, MapRefusal> {
        let limits = self.limits;
        let fixed = matches!(request.place, Place::Fixed(_) | Place::FixedNoReplace(_));
        let wanted = match request.place {
            Place::Anywhere => None,
            Place::Hint(at) => Some(at / PAGE * PAGE),
            Place::Fixed(at) | Place::FixedNoReplace(at) => Some(at),
        };
        let offset = if let Shows::Object(_, offset) = request.shows { offset } else { 0 };
        if request.len == 0 || offset % PAGE != 0 || fixed && wanted.is_some_and(|at| at % PAGE != 0) {
            return Err(MapRefusal::Invalid);
        }
        if request.len > limits.highest - limits.lowest {
            return Err(MapRefusal::NoMemory);
        }
        let len = page_up(request.len);
        if offset.checked_add(len).is_none() {
            return Err(MapRefusal::Overflow);
        }
        if !request.most.include(request.rights) {
            return Err(MapRefusal::Denied);
        }
        let Some(at) = wanted else { return Ok(None) };
        let fits = at.checked_add(len).is_some_and(|end| end <= limits.highest);
        let free = fits && self.space(space).areas.is_free(at, at + len);
        match request.place {
            Place::Hint(_) => {
                Ok(wanted.filter(|at| free && *at >= limits.lowest && self.respects_guard(space, *at, len)))
            }
            _ if !fits => Err(MapRefusal::NoMemory),
            _ if at < limits.lowest => Err(MapRefusal::NotPermitted),
            Place::FixedNoReplace(_) if !free => Err(MapRefusal::Exists),
            _ => Ok(wanted),
        }
    }

    /// Does `at..at + len` stay out of the gap below an area that grows?
    fn respects_guard(&self, space: SpaceId, at: u64, len: u64) -> bool {
        self.space(space).areas.after(at).is_none_or(|next| at + len <= guarded_start(&next))
    }

    /// Where a mapping that goes anywhere will go: the highest free place below `top`, else the highest above it.
    #[must_use]
    pub fn highest_free(&self, space: SpaceId, len: u64) -> Option<u64> {
        let len = page_up(len);
        let limits = self.limits;
        self.highest_gap(space, limits.lowest, limits.top, len)
            .or_else(|| self.highest_gap(space, limits.top, limits.highest, len))
    }

    fn highest_gap(&self, space: SpaceId, low: u64, high: u64, len: u64) -> Option<u64> {
        let mut ceiling = high;
        for area in self.space(space).areas.iter().rev() {
            let floor = area.end.max(low);
            if ceiling >= floor && ceiling - floor >= len {
                return Some(ceiling - len);
            }
            ceiling = ceiling.min(guarded_start(area));
        }
        (ceiling >= low && ceiling - low >= len).then(|| ceiling - len)
    }

    /// Maps memory; what goes anywhere goes to [`World::highest_free`].
    ///
    /// # Errors
    ///
    /// [`MapRefusal`]; then nothing has changed.
    pub fn map(&mut self, space: SpaceId, request: &Request) -> Result<u64, MapRefusal> {
        let place = self.check(space, request)?;
        let at = place.or_else(|| self.highest_free(space, request.len)).ok_or(MapRefusal::NoMemory)?;
        self.map_at(space, request, at)
    }

    /// Maps memory that goes anywhere at a place that somebody else chose.
    ///
    /// # Errors
    ///
    /// [`MapRefusal`] as [`World::map`], and [`MapRefusal::Exists`] if the place is none that may be chosen.
    pub fn map_chosen(&mut self, space: SpaceId, request: &Request, at: u64) -> Result<u64, MapRefusal> {
        match self.check(space, request)? {
            Some(place) if place != at => return Err(MapRefusal::Exists),
            Some(_) => {}
            None => {
                let len = page_up(request.len);
                let inside = at.is_multiple_of(PAGE) && at >= self.limits.lowest && at + len <= self.limits.highest;
                let free = self.space(space).areas.is_free(at, at + len) && self.respects_guard(space, at, len);
                if !inside || !free {
                    return Err(MapRefusal::Exists);
                }
            }
        }
        self.map_at(space, request, at)
    }

    fn map_at(&mut self, space: SpaceId, request: &Request, at: u64) -> Result<u64, MapRefusal> {
        if self.space(space).gone {
            return Err(MapRefusal::NoMemory);
        }
        let len = page_up(request.len);
        let object = match request.shows {
            Shows::Object(object, offset) => Some((object, offset)),
            Shows::Anonymous if request.shared => Some((self.new_object(len, Source::Memory), 0)),
            Shows::Anonymous => None,
        };
        let Request { rights, most, shared, grows, .. } = *request;
        let space = self.space_mut(space);
        space.unmap(at, at + len);
        let attributes = Attributes { rights, most, shared, grows, object };
        space.areas.insert(AreaView { start: at, end: at + len, attributes });
        Ok(at)
    }

    /// Unmaps `start..end`. False, and nothing changed, if the range passes the end of the space.
    #[must_use]
    pub fn unmap(&mut self, space: SpaceId, start: u64, end: u64) -> bool {
        if end > self.limits.highest {
            return false;
        }
        self.space_mut(space).unmap(start, end);
        true
    }

    /// Changes rights from `start` upwards until something forbids it.
    ///
    /// # Errors
    ///
    /// [`ProtectRefusal`] with the address where it stopped; what lies before has changed.
    pub fn protect(&mut self, space: SpaceId, start: u64, end: u64, rights: Rights) -> Result<(), ProtectRefusal> {
        if end > self.limits.highest {
            return Err(ProtectRefusal::Unmapped(start));
        }
        let mut at = start;
        while at < end {
            let area = self.space(space).areas.at(at).ok_or(ProtectRefusal::Unmapped(at))?;
            if !area.attributes.most.include(rights) {
                return Err(ProtectRefusal::Denied(at));
            }
            let stop = end.min(area.end);
            self.space_mut(space).areas.set_rights(at, stop, rights);
            at = stop;
        }
        Ok(())
    }

    /// Sets where the heap begins.
    pub fn set_brk(&mut self, space: SpaceId, start: u64) {
        let space = self.space_mut(space);
        (space.brk_start, space.brk) = (start, start);
    }

    /// Moves the end of the heap, if possible; returns where it is afterwards.
    pub fn brk(&mut self, space: SpaceId, to: u64) -> u64 {
        if self.may_break(space, to) {
            let space = self.space_mut(space);
            let (old, new) = (page_up(space.brk), page_up(to));
            if new < old {
                space.unmap(new, old);
            } else if new > old {
                let (rights, most) = (Rights::READ_WRITE, Rights::ALL);
                let attributes = Attributes { rights, most, shared: false, grows: false, object: None };
                space.areas.insert(AreaView { start: old, end: new, attributes });
            }
            space.brk = to;
        }
        self.space(space).brk
    }

    /// Linux refuses to grow the heap to within a page of what follows it (or of that one's guard gap), and to shrink
    /// it where nothing of it is left.
    fn may_break(&self, space: SpaceId, to: u64) -> bool {
        let limits = self.limits;
        let space = self.space(space);
        let (old, new) = (page_up(space.brk), page_up(to));
        if to < space.brk_start || to > limits.highest || space.gone {
            return false;
        }
        if new <= old {
            return new == old || !space.areas.is_free(new, old);
        }
        let next = space.areas.iter().find(|area| area.end > old);
        next.is_none_or(|next| new + PAGE <= guarded_start(next))
    }

    /// Sets the size of an object; pages beyond a smaller size leave every space, copies included.
    pub fn resize(&mut self, object: ObjectId, size: u64) {
        let shrinks = size < self.object(object).size;
        self.object_mut(object).resize(size);
        if !shrinks {
            return;
        }
        for space in &mut self.spaces {
            let beyond: Vec<(u64, u64)> =
                space.areas.iter().filter_map(|area| part_beyond(area, object, page_up(size))).collect();
            beyond.iter().for_each(|(start, end)| space.forget(*start, *end));
        }
    }

    /// The bytes of an object from `offset` on, at most `most` and not beyond the end.
    #[must_use]
    pub fn object_bytes(&self, object: ObjectId, offset: u64, most: u64) -> Vec<u8> {
        self.object(object).bytes(offset, most)
    }

    /// Stores into an object, extending it.
    pub fn write_object(&mut self, object: ObjectId, offset: u64, bytes: &[u8]) {
        let object = self.object_mut(object);
        object.store(offset, bytes);
        object.size = object.size.max(offset + bytes.len() as u64);
    }

    /// Does a page that cannot be read meet `len` bytes from `offset` on?
    #[must_use]
    pub fn meets_broken(&self, object: ObjectId, offset: u64, len: u64) -> bool {
        (offset / PAGE..=(offset + len) / PAGE).any(|index| self.object(object).is_broken(index))
    }

    /// The size of an object.
    #[must_use]
    pub fn object_size(&self, object: ObjectId) -> u64 {
        self.object(object).size
    }

    /// The areas of a space, joined where they can be.
    #[must_use]
    pub fn areas(&self, space: SpaceId) -> Vec<AreaView> {
        self.space(space).areas.joined()
    }

    /// Resident pages of a space.
    #[must_use]
    pub fn resident(&self, space: SpaceId) -> Resident {
        self.space(space).resident()
    }

    /// Addresses of the resident pages of a space.
    #[must_use]
    pub fn touched(&self, space: SpaceId) -> BTreeSet<u64> {
        self.space(space).touched()
    }
}

/// The start of an area less the gap that it keeps free.
fn guarded_start(area: &AreaView) -> u64 {
    if area.attributes.grows { area.start.saturating_sub(GUARD) } else { area.start }
}

/// The part of an area that shows what lies at `size` (a page boundary) or beyond in `object`.
fn part_beyond(area: &AreaView, object: ObjectId, size: u64) -> Option<(u64, u64)> {
    let (shown, offset) = area.attributes.object?;
    let start = area.start.checked_add(size.saturating_sub(offset))?;
    (shown == object && start < area.end).then_some((start, area.end))
}
