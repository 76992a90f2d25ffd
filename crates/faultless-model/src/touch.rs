//! What an access does: the fault and the transfer, page by page. Called by the outside through `World`.

use crate::area::AreaView;
use crate::world::{SpaceId, World};
use crate::{PAGE, zeroes};
use std::sync::Arc;

/// Bytes below an area that grows downwards that stay free.
pub(crate) const GUARD: u64 = 256 * PAGE;

/// What an instruction wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
    /// A debugger's store, which private memory permits whatever its rights.
    Force,
}

/// Why an access fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is mapped there.
    Unmapped,
    /// The area does not permit it.
    Denied,
    /// The object has no such page, or cannot deliver it.
    Bus,
}

/// An access that stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Bytes transferred before.
    pub done: usize,
    /// Why it stopped.
    pub verdict: Verdict,
}

impl World {
    /// Loads bytes.
    ///
    /// # Errors
    ///
    /// [`Cut`] at the first page that cannot be loaded from.
    pub fn read(&mut self, space: SpaceId, address: u64, into: &mut [u8]) -> Result<(), Cut> {
        let len = into.len();
        self.pieces(space, address, len, Touch::Read, |world, at, from, to| {
            let offset = (at % PAGE) as usize;
            into[from..to].copy_from_slice(&world.contents(space, at)[offset..offset + to - from]);
        })
    }

    /// Stores bytes.
    ///
    /// # Errors
    ///
    /// [`Cut`] at the first page that cannot be stored to.
    pub fn write(&mut self, space: SpaceId, address: u64, from: &[u8]) -> Result<(), Cut> {
        self.store_pieces(space, address, from, Touch::Write)
    }

    /// Stores bytes by this kind of store.
    pub(crate) fn store_pieces(&mut self, space: SpaceId, address: u64, from: &[u8], touch: Touch) -> Result<(), Cut> {
        self.pieces(space, address, from.len(), touch, |world, at, start, end| {
            world.store(space, at, &from[start..end]);
        })
    }

    /// Touches the byte at `address` and transfers nothing.
    ///
    /// # Errors
    ///
    /// [`Verdict`] if the access is not possible.
    pub fn touch(&mut self, space: SpaceId, address: u64, touch: Touch) -> Result<(), Verdict> {
        if self.space(space).areas.at(address).is_none() {
            self.grow_stack(space, address);
        }
        let area = self.space(space).areas.at(address).ok_or(Verdict::Unmapped)?;
        let rights = area.attributes.rights;
        let permitted = match touch {
            Touch::Read => !rights.are_none(),
            Touch::Write => rights.write,
            Touch::Execute => rights.execute,
            Touch::Force => rights.write || !area.attributes.shared,
        };
        if !permitted {
            return Err(Verdict::Denied);
        }
        self.bring_in(space, address, matches!(touch, Touch::Write | Touch::Force), &area)
    }

    /// Makes the page present, and for a store to private memory the space's own.
    fn bring_in(&mut self, space: SpaceId, address: u64, store: bool, area: &AreaView) -> Result<(), Verdict> {
        let page = address / PAGE;
        if self.space(space).own.contains_key(&page) {
            return Ok(());
        }
        let Some((object, index)) = shown_page(area, address) else {
            if store {
                self.space_mut(space).own.insert(page, zeroes());
            }
            return Ok(());
        };
        let behind = self.object(object);
        if !behind.has_page(index) || behind.is_broken(index) {
            return Err(Verdict::Bus);
        }
        let (contents, is_file) = (behind.page(index), behind.is_file);
        let space = self.space_mut(space);
        if store && !area.attributes.shared {
            space.shown.remove(&page);
            space.own.insert(page, contents);
        } else {
            space.shown.insert(page, is_file);
        }
        Ok(())
    }

    /// The contents of a mapped page, whether it was touched or not.
    fn contents(&self, space: SpaceId, address: u64) -> crate::Contents {
        let area = self.space(space).areas.at(address).expect("the page was touched");
        match (self.space(space).own.get(&(address / PAGE)), shown_page(&area, address)) {
            (Some(own), _) => Arc::clone(own),
            (None, Some((object, index))) => self.object(object).page(index),
            (None, None) => zeroes(),
        }
    }

    fn store(&mut self, space: SpaceId, address: u64, bytes: &[u8]) {
        let area = self.space(space).areas.at(address).expect("the page was touched");
        let offset = (address % PAGE) as usize;
        let page = match shown_page(&area, address) {
            Some((object, index)) if area.attributes.shared => self.object_mut(object).page_mut(index),
            _ => Arc::make_mut(self.space_mut(space).own.get_mut(&(address / PAGE)).expect("a store makes it own")),
        };
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Splits an access at page borders; each piece is touched, then transferred.
    fn pieces(
        &mut self,
        space: SpaceId,
        address: u64,
        len: usize,
        touch: Touch,
        mut transfer: impl FnMut(&mut Self, u64, usize, usize),
    ) -> Result<(), Cut> {
        let mut done = 0;
        while done < len {
            let at = address.checked_add(done as u64).ok_or(Cut { done, verdict: Verdict::Unmapped })?;
            let end = len.min(done + (PAGE - at % PAGE) as usize);
            self.touch(space, at, touch).map_err(|verdict| Cut { done, verdict })?;
            transfer(self, at, done, end);
            done = end;
        }
        Ok(())
    }

    /// Linux's rule: the area above grows down to the page if it may become so long and keeps its distance.
    fn grow_stack(&mut self, space: SpaceId, address: u64) {
        let limits = self.limits();
        let low = address / PAGE * PAGE;
        if low < limits.lowest || low >= limits.highest {
            return;
        }
        let areas = &self.space(space).areas;
        let Some(stack) = areas.after(low).filter(|area| area.attributes.grows) else {
            return;
        };
        let keeps_distance = areas.before(low).is_none_or(|below| {
            below.attributes.rights.are_none() || below.attributes.grows || low - below.end >= GUARD
        });
        if keeps_distance && stack.end - low <= limits.stack {
            self.space_mut(space).areas.grow(stack.start, low);
        }
    }
}

/// The object and the page index that `address` shows.
fn shown_page(area: &AreaView, address: u64) -> Option<(crate::ObjectId, u64)> {
    let (object, offset) = area.attributes.object?;
    Some((object, (offset + (address - area.start)) / PAGE))
}
