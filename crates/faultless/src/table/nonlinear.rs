//! Nonlinear areas: entries that say which page of the object belongs to an address (rows NL). What sweeps do to them.
//!
//! Called by [`rewrite`](super::rewrite), under the leaf table's lock, for areas with the flag NONLINEAR alone. An entry
//! that is EMPTY means the page that the area's offset gives to the address; an OFFSET entry means the page of the index
//! that it holds. Both keep their meaning for the generation: what replaces an OFFSET has the next one (P2).

use super::sweep::Sweep;
use crate::addr::PAGE_SHIFT;
use crate::machine::format::{Leaf, Raw};
use crate::machine::{Format, Machine};
use crate::sync::mutant;

/// The index for an address, given that for address 0 (both modulo 2^64).
const fn index_at(zero: u64, address: u64) -> u64 {
    (address >> PAGE_SHIFT).wrapping_add(zero)
}

impl<M: Machine> Sweep<'_, M> {
    /// What a discard in a nonlinear area makes of a PAGE, NONE or OFFSET, its generation aside. `None` if it shows none
    /// of `pages`.
    pub(super) fn unbound(&self, entry: Raw, address: u64, linear: u64, pages: (u64, u64)) -> Option<Raw> {
        let index = self.shown(entry)?;
        if index < pages.0 || index >= pages.1 {
            return None;
        }
        match M::Format::leaf(entry) {
            // Nothing is mapped. A fault that has looked the page up must fail if the page leaves its object.
            Leaf::Offset(_) if mutant::is(mutant::Mutant::OffsetStays) => None,
            Leaf::Offset(_) => self.stamps_leaves().then_some(entry),
            _ => Some(self.absent(index, address, linear)),
        }
    }

    /// What a PAGE, NONE or OFFSET becomes where this page is to be shown, its generation aside. `None` if that is what an
    /// OFFSET says; a page goes even if it is the same, as on Linux, where the call is a new mapping.
    pub(super) fn placed(&self, entry: Raw, address: u64, linear: u64, target: u64) -> Option<Raw> {
        let index = index_at(target, address);
        let says_so = matches!(M::Format::leaf(entry), Leaf::Offset(shown) if shown == index);
        (!says_so).then(|| self.absent(index, address, linear))
    }

    /// The same for an EMPTY entry. Its generation may stay, for whatever took an OFFSET out has advanced it.
    pub(super) fn placed_empty(&self, entry: Raw, address: u64, linear: u64, target: u64) -> Option<Raw> {
        (linear != target).then(|| M::Format::offset(index_at(target, address), M::Format::generation(entry)))
    }

    /// The index of the page that an entry shows, mapped or not. Under the table's lock the entry holds a reference to its
    /// frame, so the record is that of the object's page.
    fn shown(&self, entry: Raw) -> Option<u64> {
        match M::Format::leaf(entry) {
            Leaf::Offset(index) => Some(index),
            Leaf::Page(frame, bits) | Leaf::None(frame, bits) if !bits.special => {
                Some(self.ctx.record(frame).words().1)
            }
            _ => None,
        }
    }

    /// An entry that maps nothing and means the page of this index.
    fn absent(&self, index: u64, address: u64, linear: u64) -> Raw {
        if index == index_at(linear, address) { M::Format::empty(self.stamp, 0) } else { M::Format::offset(index, 0) }
    }
}
