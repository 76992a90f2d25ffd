//! mmap: find a place, replace what is there, publish the area.

use super::Core;
use super::extent::Admission;
use super::settle::NoTables;
use crate::addr::{PAGE_SIZE, PageRange, RangeError, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, Place, RangeEvent, STACK_GUARD, Sharing, StripeGuard};
use crate::frame::Ctx;
use crate::machine::{Format, Machine};
use crate::object::Object;
use crate::sync::{NoMemory, mutant};
use crate::table::Rewrite;
use alloc::sync::Arc;
use core::{fmt, iter};

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Wherever there is room, highest first.
    Anywhere,
    /// At the address if it is free, else anywhere.
    Hint,
    /// At the address; what is mapped there is replaced (MAP_FIXED).
    Fixed,
    /// At the address; an error if anything is mapped there (MAP_FIXED_NOREPLACE).
    FixedNoReplace,
}

/// What a mapping shows.
pub enum Backing<M: Machine> {
    /// Zeroes until written. With [`Sharing::Shared`], a memory object of its own.
    Anonymous,
    /// The pages of an object from `offset` (a multiple of 4096) on.
    Object {
        /// Whose pages.
        object: Arc<Object<M>>,
        /// Bytes from the start of the object.
        offset: u64,
    },
    /// What the embedder puts in: [`Space::insert_frames`](crate::Space::insert_frames),
    /// [`Space::insert_page`](crate::Space::insert_page). A page that nobody put in is one of zeroes in a private
    /// mapping, and [`FaultError::Bus`](crate::FaultError) in a shared one. A store to a private mapping copies the frame
    /// with [`Machine::copy`], which must be able to read it then.
    Frames,
}

/// A request to map memory.
pub struct MapRequest<M: Machine> {
    /// Address for all placements but [`Placement::Anywhere`].
    pub addr: VirtAddr,
    /// Bytes; rounded up to whole pages, to large ones if the object is of the pool's.
    pub len: u64,
    /// Where.
    pub placement: Placement,
    /// What may be done.
    pub rights: Rights,
    /// What a later [`Space::protect`](crate::Space::protect) may grant.
    pub max_rights: Rights,
    /// Who sees the stores.
    pub sharing: Sharing,
    /// What it shows.
    pub backing: Backing<M>,
    /// Other properties. Flags that the core alone sets are left out.
    pub flags: AreaFlags,
}

// Written out: a derive would ask the machine to be `Clone` and `Debug` too.
impl<M: Machine> Clone for Backing<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::Object { object, offset } => Self::Object { object: Arc::clone(object), offset: *offset },
            Self::Frames => Self::Frames,
        }
    }
}

impl<M: Machine> fmt::Debug for Backing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Object { object, offset } => write!(f, "{object:?} + {offset:#x}"),
            Self::Frames => f.write_str("Frames"),
        }
    }
}

impl<M: Machine> Clone for MapRequest<M> {
    fn clone(&self) -> Self {
        Self { backing: self.backing.clone(), ..*self }
    }
}

impl<M: Machine> fmt::Debug for MapRequest<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRequest")
            .field("addr", &self.addr)
            .field("len", &self.len)
            .field("placement", &self.placement)
            .field("rights", &self.rights)
            .field("sharing", &self.sharing)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

impl<M: Machine> MapRequest<M> {
    /// Private anonymous memory of `len` bytes, readable and writable, anywhere.
    #[must_use]
    pub fn anonymous(len: u64) -> Self {
        Self {
            addr: VirtAddr::new(0),
            len,
            placement: Placement::Anywhere,
            rights: Rights::READ | Rights::WRITE,
            max_rights: Rights::ALL,
            sharing: Sharing::Private,
            backing: Backing::Anonymous,
            flags: AreaFlags::NONE,
        }
    }

    /// The same at `addr`, replacing what is there.
    #[must_use]
    pub fn fixed(mut self, addr: VirtAddr) -> Self {
        (self.addr, self.placement) = (addr, Placement::Fixed);
        self
    }
}

/// Why nothing was mapped. A failed call has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Length 0, address or offset not a multiple of the page size, or a large page of the pool would be cut (EINVAL).
    Invalid,
    /// No such room in the space, no memory for the area, or too few large pages in the pool (ENOMEM).
    NoMemory,
    /// The address lies below [`Layout::lowest`](crate::Layout), something sealed is there, or nobody may store to the
    /// object any more (EPERM).
    NotPermitted,
    /// [`Placement::FixedNoReplace`] and something is mapped there (EEXIST).
    Exists,
    /// More rights than `max_rights` grants (EACCES).
    Denied,
    /// Offset plus length passes 2^64 (EOVERFLOW).
    Overflow,
}

impl From<NoMemory> for MapError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl From<NoTables> for MapError {
    fn from(NoTables: NoTables) -> Self {
        Self::NoMemory
    }
}

/// A request after its arguments were checked; `range` is valid for the fixed placements.
struct Checked<M: Machine> {
    len: u64,
    range: Option<PageRange>,
    attributes: Attributes<M>,
}

impl<M: Machine> Checked<M> {
    /// What must be free besides, so that the place lines up with the pages.
    fn slack(&self) -> u64 {
        let is_large = self.attributes.flags.contains(AreaFlags::HUGETLB);
        if is_large { Object::<M>::large_size() - PAGE_SIZE } else { 0 }
    }
}

/// Bytes of the pages that are mapped.
fn page_size<M: Machine>(backing: &Backing<M>) -> u64 {
    match backing {
        Backing::Object { object, .. } if object.is_large() => Object::<M>::large_size(),
        _ => PAGE_SIZE,
    }
}

impl<M: Machine> Core<M> {
    /// Maps memory; `make_object` makes the object of a shared anonymous mapping.
    pub(crate) fn map(
        &self,
        ctx: Ctx<'_, M>,
        request: MapRequest<M>,
        make_object: impl FnOnce(u64) -> Option<Arc<Object<M>>>,
    ) -> Result<VirtAddr, MapError> {
        let placement = request.placement;
        let mut checked = self.check(request)?;
        let needs_object = checked.attributes.object.is_none() && !checked.attributes.flags.contains(AreaFlags::RAW);
        if checked.attributes.sharing == Sharing::Shared && needs_object {
            checked.attributes.object = Some(make_object(checked.len).ok_or(MapError::NoMemory)?);
            checked.attributes.offset = 0;
        }
        let object = checked.attributes.object.clone();
        let _hold = match &object {
            Some(object) if checked.attributes.may_store() => {
                Some(object.hold_writers().ok_or(MapError::NotPermitted)?)
            }
            _ => None,
        };
        match (placement, checked.range) {
            (Placement::Fixed, Some(range)) => {
                let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
                self.map_at(ctx, range, &checked.attributes, &guard)?;
                Ok(range.start())
            }
            (Placement::FixedNoReplace, Some(range)) => match self.map_if_free(ctx, range, 0, &checked.attributes)? {
                true => Ok(range.start()),
                false => Err(MapError::Exists),
            },
            // A hint is no reason to fill the gap below a stack.
            (Placement::Hint, Some(range)) if self.map_if_free(ctx, range, STACK_GUARD, &checked.attributes)? => {
                Ok(range.start())
            }
            _ => self.map_anywhere(ctx, &checked),
        }
    }

    fn check(&self, request: MapRequest<M>) -> Result<Checked<M>, MapError> {
        let fixed = matches!(request.placement, Placement::Fixed | Placement::FixedNoReplace);
        let unit = page_size(&request.backing);
        let len = request.len.checked_next_multiple_of(unit).ok_or(MapError::NoMemory)?;
        if len == 0 || fixed && !request.addr.as_u64().is_multiple_of(unit) {
            return Err(MapError::Invalid);
        }
        if len > self.layout.highest.as_u64() - self.layout.lowest.as_u64() {
            return Err(MapError::NoMemory);
        }
        if !request.max_rights.contains(request.rights) {
            return Err(MapError::Denied);
        }
        let mut flags = request.flags.without(AreaFlags::SET_BY_CORE) | self.account.defaults();
        flags = flags | AreaFlags::SOFT_DIRTY;
        let (object, offset) = match request.backing {
            Backing::Anonymous => (None, 0),
            Backing::Frames => {
                flags = flags | AreaFlags::RAW;
                (None, 0)
            }
            Backing::Object { offset, .. } if !offset.is_multiple_of(unit) => {
                return Err(MapError::Invalid);
            }
            Backing::Object { offset, .. } if offset.checked_add(len).is_none() => {
                return Err(MapError::Overflow);
            }
            Backing::Object { object, offset } => (Some(object), offset),
        };
        if unit != PAGE_SIZE {
            flags = flags.without(AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT) | AreaFlags::HUGETLB;
            if request.sharing == Sharing::Private && !flags.contains(AreaFlags::NO_RESERVE) {
                flags = flags | AreaFlags::HUGETLB_RESERVED;
            }
        }
        let range = match request.placement {
            Placement::Anywhere => None,
            Placement::Hint => {
                let hint = request.addr.align_down().as_u64().checked_next_multiple_of(unit);
                hint.and_then(|hint| self.user_range(VirtAddr::new(hint), len).ok())
            }
            Placement::Fixed | Placement::FixedNoReplace => Some(self.user_range(request.addr, len)?),
        };
        if flags.intersects(AreaFlags::RAW | AreaFlags::DROPPABLE) {
            // Nothing of it could be kept.
            flags = flags.without(AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT);
        }
        if flags.contains(AreaFlags::SEALED) {
            self.note_sealed();
        }
        if flags.contains(AreaFlags::HUGE) {
            self.memory.reckon_with_huge();
        }
        let mut attributes = Attributes {
            range: range.unwrap_or(PageRange::page(VirtAddr::new(0))),
            rights: request.rights,
            max_rights: request.max_rights,
            sharing: request.sharing,
            flags,
            object,
            offset,
            watch: None,
        };
        attributes.flags = attributes.flags_with(request.rights);
        Ok(Checked { len, range, attributes })
    }

    /// The range of `len` bytes at `addr` if all of it may be mapped.
    fn user_range(&self, addr: VirtAddr, len: u64) -> Result<PageRange, MapError> {
        let range = PageRange::with_len(addr, len).map_err(|error| match error {
            RangeError::Overflow => MapError::NoMemory,
            RangeError::Unaligned | RangeError::Empty => MapError::Invalid,
        })?;
        if range.end() > self.layout.highest {
            return Err(MapError::NoMemory);
        }
        if range.start() < self.layout.lowest {
            return Err(MapError::NotPermitted);
        }
        Ok(range)
    }

    /// Maps at `range` if nothing is there, and no area whose guard gap, up to `gap` bytes of it, reaches into it.
    fn map_if_free(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        gap: u64,
        attributes: &Attributes<M>,
    ) -> Result<bool, MapError> {
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let guard = self.lock(ctx, low, high + gap);
        let next = self.index.next(low, &guard);
        if next.is_some_and(|area| area.range.start().as_u64().saturating_sub(area.guard().min(gap)) < high) {
            return Ok(false);
        }
        self.map_at(ctx, range, attributes, &guard)?;
        Ok(true)
    }

    /// Is nothing mapped in `range`?
    pub(super) fn is_free(&self, range: PageRange, guard: &StripeGuard<'_>) -> bool {
        self.index.next(range.start().as_u64(), guard).is_none_or(|area| area.range.start() >= range.end())
    }

    /// Maps below `mmap_top`, or above it if there is no room below. First within one stripe, under its lock alone;
    /// then, for what fits only across a border, under all locks.
    fn map_anywhere(&self, ctx: Ctx<'_, M>, checked: &Checked<M>) -> Result<VirtAddr, MapError> {
        let (low, top) = (self.layout.lowest.as_u64(), self.layout.mmap_top.as_u64());
        let len = checked.len + checked.slack();
        for stripe in (Index::<M>::stripe_of(low)..=Index::<M>::stripe_of(top - 1)).rev() {
            let (start, end) = Index::<M>::bounds(stripe);
            if len > end - start {
                break;
            }
            let guard = self.lock(ctx, start, end);
            if let Some(found) = self.index.highest_gap_in(stripe, low, top, len, &guard) {
                return self.map_found(ctx, found, checked, &guard);
            }
        }
        let guard = self.lock(ctx, 0, crate::table::user_end::<M::Format>());
        let found = self
            .highest_gap_across(low, top, len, &guard)
            .or_else(|| self.highest_gap_across(top, self.layout.highest.as_u64(), len, &guard))
            .ok_or(MapError::NoMemory)?;
        self.map_found(ctx, found, checked, &guard)
    }

    fn map_found(
        &self,
        ctx: Ctx<'_, M>,
        start: u64,
        checked: &Checked<M>,
        guard: &StripeGuard<'_>,
    ) -> Result<VirtAddr, MapError> {
        let slack = checked.slack();
        let start = VirtAddr::new((start + slack) & !slack);
        let range = PageRange::with_len(start, checked.len).map_err(|_| MapError::NoMemory)?;
        self.map_at(ctx, range, &checked.attributes, guard)?;
        Ok(start)
    }

    /// The highest gap of `len` bytes in `low..high`, whatever borders it crosses. All stripes are locked.
    pub(super) fn highest_gap_across(&self, low: u64, high: u64, len: u64, guard: &StripeGuard<'_>) -> Option<u64> {
        let gap_above = self.index.next(high, guard).map_or(high, guarded_start);
        let (mut ceiling, mut before) = (high.min(gap_above), high);
        // Ends: each round passes one area. Not by the ceiling, which a guard gap may push below the next area.
        loop {
            let below = self.index.previous(before, guard);
            let floor = below.map_or(0, |area| area.range.end().as_u64()).max(low);
            if let Some(start) = ceiling.checked_sub(len)
                && start >= floor
            {
                return Some(start);
            }
            let area = below?;
            before = area.range.start().as_u64();
            ceiling = ceiling.min(guarded_start(area));
            if ceiling <= low {
                return None;
            }
        }
    }

    /// Replaces whatever is in `range` by an area with these attributes. The stripes are locked.
    pub(super) fn map_at(
        &self,
        ctx: Ctx<'_, M>,
        range: PageRange,
        attributes: &Attributes<M>,
        guard: &StripeGuard<'_>,
    ) -> Result<(), MapError> {
        if self.has_exited() {
            return Err(MapError::NoMemory);
        }
        if attributes.flags.contains(AreaFlags::HUGETLB) {
            return self.map_large_at(ctx, range, attributes, guard);
        }
        if let Some(mapped) = self.map_single(ctx, range, attributes, guard) {
            return Ok(mapped?);
        }
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let mut changes = Changes::new();
        let replaces = self.prepare_map(range, attributes, guard, &mut changes)?;
        let rewrite = Rewrite::Remove { window: (low, high) };
        if !replaces {
            return Ok(self.commit_as(ctx, &mut changes, guard, Admission::Fresh, || {})?);
        }
        if self.breaks_seal(&changes, guard) {
            return Err(MapError::NotPermitted);
        }
        if self.cuts_large(low, high, guard) {
            return Err(MapError::Invalid);
        }
        self.prepare_tables(ctx, low, high, rewrite)?;
        let watchers = self.watchers_of(range, guard)?;
        if !mutant::is(mutant::Mutant::NoPending) {
            changes.iter().flat_map(|change| change.inserted(guard)).for_each(Area::close);
        }
        self.commit_as(ctx, &mut changes, guard, Admission::Fresh, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
            self.forget_large(ctx, low, high);
            self.index.each(low, high, guard, &mut |area| {
                area.open();
                true
            });
            self.open_neighbours(low, high, guard);
        })?;
        watchers.tell(RangeEvent::Unmapped(range));
        Ok(())
    }

    /// The parts of areas that were cut off by a replacement were closed with it.
    pub(super) fn open_neighbours(&self, low: u64, high: u64, guard: &StripeGuard<'_>) {
        if let Some(area) = self.index.previous(low, guard) {
            area.open();
        }
        if let Some(area) = self.index.next(high, guard) {
            area.open();
        }
    }

    /// Prepares a mapping. True if it replaces something.
    pub(super) fn prepare_map(
        &self,
        range: PageRange,
        attributes: &Attributes<M>,
        guard: &StripeGuard<'_>,
        changes: &mut Changes<M>,
    ) -> Result<bool, MapError> {
        let mut replaces = false;
        for part in stripe_parts::<M>(range) {
            let offset = match attributes.object {
                Some(_) => attributes.offset + (part.start().as_u64() - range.start().as_u64()),
                None => part.start().as_u64(),
            };
            let (object, watch) = (attributes.object.clone(), attributes.watch.clone());
            let middle = Attributes { range: part, offset, object, watch, ..*attributes };
            let place = self.index.place(part.start().as_u64(), guard);
            replaces |= !place.is_free(part.end().as_u64());
            self.prepare_replace(changes, &place, part, Some(middle))?;
        }
        Ok(replaces)
    }

    /// Prepares the replacement of what is in `range` (inside one stripe) by `middle`, or by nothing: what sticks out
    /// on either side is kept, and merged with `middle` where one area can stand for both. The place is that of the
    /// range's start.
    pub(super) fn prepare_replace(
        &self,
        changes: &mut Changes<M>,
        place: &Place<'_, M>,
        range: PageRange,
        mut middle: Option<Attributes<M>>,
    ) -> Result<(), NoMemory> {
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        let (mut from, mut to) = (low, high);
        let change = Index::change(changes, low)?;
        if let Some(area) = place.below().filter(|area| area.range.end() >= range.start()) {
            let end = area.range.end();
            match &mut middle {
                Some(middle) if area.continues_as(middle) => {
                    middle.extend_down(area);
                    from = if end == range.start() { area.range.start().as_u64() } else { low };
                }
                _ if end > range.start() => change.insert_part(area, area.range.start(), range.start())?,
                _ => {}
            }
        }
        // The first area that ends behind the range sticks out of it, or follows it.
        let above = place.above(high).filter(|area| area.range.start() <= range.end());
        let mut right = None;
        if let Some(area) = above {
            match &mut middle {
                Some(middle) if middle.continues_as(area) => {
                    middle.extend_up(area);
                    to = if area.range.start() == range.end() { area.range.end().as_u64() } else { high };
                }
                _ if area.range.start() < range.end() => right = Some(area),
                _ => {}
            }
        }
        if let Some(middle) = middle {
            change.insert(middle)?;
        }
        if let Some(area) = right {
            change.insert_part(area, range.end(), area.range.end())?;
        }
        change.prepare(place, from, to)
    }
}

/// Where an area starts, less the gap that it keeps free below.
fn guarded_start<M: Machine>(area: &Area<M>) -> u64 {
    area.range.start().as_u64().saturating_sub(area.guard())
}

/// The parts of a range by stripe, ascending: mostly the range itself.
#[inline]
pub(super) fn stripe_parts<M: Machine>(range: PageRange) -> impl Iterator<Item = PageRange> {
    let mut rest = Some(range);
    iter::from_fn(move || {
        let part = rest?;
        let (_, border) = Index::<M>::bounds(Index::<M>::stripe_of(part.start().as_u64()));
        let border = VirtAddr::new(border);
        // Beyond the border, if there is anything.
        rest = PageRange::new(border, part.end()).ok();
        if rest.is_none() { Some(part) } else { PageRange::new(part.start(), border).ok() }
    })
}

const _: () = assert!(<crate::machine::X86_64 as Format>::STRIPES <= 64, "a StripeGuard holds 64 locks");
