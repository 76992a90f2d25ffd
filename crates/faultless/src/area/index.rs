//! From an address to its area, without a lock. Protocol P5.
//!
//! Called by `space`. The user half is cut into fixed stripes; each has a tree of its own and a lock that a range
//! operation holds from its first look until its last flush. Operations on different stripes share nothing. An area
//! never crosses a stripe border.

use super::{Area, Attributes};
use crate::addr::{PageRange, VirtAddr};
use crate::frame::{Ctx, Retired};
use crate::machine::{Format, Machine};
use crate::sync::{Edit, Few, Held, NewItems, NoMemory, Rank, RawGuard, RawLock, Reader, Section, Spot, Tree, Writer};
use crate::table;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// One stripe: a tree and the lock of those who change it.
#[repr(align(64))]
struct Stripe<M: Machine> {
    tree: Tree<Area<M>>, // read by anybody in a section, changed under `lock`
    lock: RawLock,
}

/// All areas of a space.
pub(crate) struct Index<M: Machine> {
    stripes: Box<[Stripe<M>]>,
}

/// Proof that the locks of some stripes are held.
pub(crate) struct StripeGuard<'a> {
    first: usize,
    last: usize,
    _lowest: RawGuard<'a>,
    _others: Vec<RawGuard<'a>>,
}

impl Reader for StripeGuard<'_> {}
// It is asked about, and changes, the trees of its own stripes only.
impl Writer for StripeGuard<'_> {}

/// A place in the tree of one stripe, with the areas around it.
pub(crate) type Place<'r, M> = Spot<'r, Area<M>>;

/// A reader, and the stripes it may look at.
pub(crate) trait Look: Reader {
    /// The stripes, of `all`.
    fn stripes_of(&self, all: usize) -> RangeInclusive<usize>;
}

impl Look for Section<'_> {
    fn stripes_of(&self, all: usize) -> RangeInclusive<usize> {
        0..=all - 1
    }
}

impl Look for StripeGuard<'_> {
    fn stripes_of(&self, _all: usize) -> RangeInclusive<usize> {
        self.stripes()
    }
}

impl StripeGuard<'_> {
    /// The stripes that are locked.
    pub(crate) fn stripes(&self) -> RangeInclusive<usize> {
        self.first..=self.last
    }
}

/// Prepared changes, one per stripe. What is not committed takes itself back when dropped.
pub(crate) type Changes<M> = Few<Change<M>>;

/// A change of one stripe; once prepared, nothing can fail any more.
pub(crate) struct Change<M: Machine> {
    stripe: usize,
    edit: Edit<Area<M>>,
}

impl<M: Machine> Index<M> {
    /// No areas.
    pub(crate) fn new() -> Self {
        let stripe = |_| Stripe { tree: Tree::new(), lock: RawLock::new() };
        Self { stripes: (0..M::Format::STRIPES).map(stripe).collect() }
    }

    /// Bytes per stripe.
    fn width() -> u64 {
        table::user_end::<M::Format>() / M::Format::STRIPES as u64
    }

    /// The stripe of an address, or the last one for addresses beyond user space.
    #[inline]
    pub(crate) fn stripe_of(address: u64) -> usize {
        ((address / Self::width()) as usize).min(M::Format::STRIPES - 1)
    }

    /// First address of a stripe and one past its last.
    pub(crate) fn bounds(stripe: usize) -> (u64, u64) {
        (Self::width() * stripe as u64, Self::width() * (stripe as u64 + 1))
    }

    /// Root slots that a stripe covers.
    pub(crate) fn slots(stripe: usize) -> core::ops::Range<usize> {
        let per_stripe = M::Format::USER_SLOTS / M::Format::STRIPES;
        stripe * per_stripe..(stripe + 1) * per_stripe
    }

    /// The area that covers `address`, in a stripe that the reader may look at.
    #[inline]
    pub(crate) fn find<'r>(&'r self, address: VirtAddr, reader: &'r impl Look) -> Option<&'r Area<M>> {
        if address.as_u64() >= table::user_end::<M::Format>() {
            return None;
        }
        let stripe = Self::stripe_of(address.as_u64());
        debug_assert!(reader.stripes_of(self.stripes.len()).contains(&stripe), "the lock of another stripe");
        self.stripes[stripe].tree.find(address.as_u64(), reader)
    }

    /// The first area that ends above `address`, in the stripes that the reader may look at.
    pub(crate) fn next<'r>(&'r self, address: u64, reader: &'r impl Look) -> Option<&'r Area<M>> {
        let seen = reader.stripes_of(self.stripes.len());
        let first = Self::stripe_of(address).max(*seen.start());
        (first..=*seen.end()).find_map(|stripe| self.stripes[stripe].tree.next(address, reader))
    }

    /// The last area that starts below `address`, in the stripes that are locked.
    pub(crate) fn previous<'r>(&'r self, address: u64, guard: &'r StripeGuard<'_>) -> Option<&'r Area<M>> {
        let seen = guard.stripes();
        let last = Self::stripe_of(address).min(*seen.end());
        (*seen.start()..=last).rev().find_map(|stripe| self.stripes[stripe].tree.previous(address, guard))
    }

    /// The place of `address` in its stripe, which is locked.
    pub(crate) fn place<'r>(&'r self, address: u64, guard: &'r StripeGuard<'_>) -> Place<'r, M> {
        let stripe = Self::stripe_of(address);
        debug_assert!(guard.stripes().contains(&stripe), "the lock of another stripe");
        self.stripes[stripe].tree.spot(address, guard)
    }

    /// Has the stripe no areas? Exact under its lock.
    pub(crate) fn is_empty(&self, stripe: usize) -> bool {
        self.stripes[stripe].tree.is_empty()
    }

    /// Locks the stripes that `low..high` meets, in ascending order.
    #[inline]
    pub(crate) fn lock<'a>(&'a self, held: &'a Held, low: u64, high: u64, relax: impl Fn() + Copy) -> StripeGuard<'a> {
        let (first, last) = (Self::stripe_of(low), Self::stripe_of(high.max(low + 1) - 1));
        let lowest = self.stripes[first].lock.lock(Rank::Stripe, held, relax);
        let others = if first == last { Vec::new() } else { self.lock_others(held, first + 1, last, relax) };
        StripeGuard { first, last, _lowest: lowest, _others: others }
    }

    #[cold]
    fn lock_others<'a>(
        &'a self,
        held: &'a Held,
        first: usize,
        last: usize,
        relax: impl Fn() + Copy,
    ) -> Vec<RawGuard<'a>> {
        (first..=last).map(|stripe| self.stripes[stripe].lock.lock(Rank::Stripe, held, relax)).collect()
    }

    /// Locks everything.
    pub(crate) fn lock_all<'a>(&'a self, held: &'a Held, relax: impl Fn() + Copy) -> StripeGuard<'a> {
        self.lock(held, 0, table::user_end::<M::Format>(), relax)
    }

    /// The highest free range of `len` bytes in `low..high` within one stripe.
    pub(crate) fn highest_gap_in(
        &self,
        stripe: usize,
        low: u64,
        high: u64,
        len: u64,
        guard: &StripeGuard<'_>,
    ) -> Option<u64> {
        let (start, end) = Self::bounds(stripe);
        let (low, high) = (low.max(start), high.min(end));
        self.stripes[stripe].tree.highest_gap(low, high, len, guard)
    }

    /// Calls `visit` with each area of `low..high`, ascending, until it returns `false`.
    pub(crate) fn each<'r>(
        &'r self,
        low: u64,
        high: u64,
        reader: &'r impl Look,
        visit: &mut impl FnMut(&'r Area<M>) -> bool,
    ) {
        let mut at = low;
        while at < high {
            let Some(area) = self.next(at, reader) else {
                return;
            };
            if area.range.start().as_u64() >= high || !visit(area) {
                return;
            }
            at = area.range.end().as_u64();
        }
    }

    /// Appends a change of one stripe, of which nothing is known yet but that it begins at `address`.
    #[inline]
    pub(crate) fn change(changes: &mut Changes<M>, address: u64) -> Result<&mut Change<M>, NoMemory> {
        changes.push(Change { stripe: Self::stripe_of(address), edit: Edit::new() })
    }

    /// Publishes a prepared change, then marks the replaced areas dead (R3).
    #[inline(always)]
    pub(crate) fn commit(&self, ctx: Ctx<'_, M>, change: &mut Change<M>, guard: &StripeGuard<'_>) {
        self.stripes[change.stripe].tree.publish(&mut change.edit, guard, |node| ctx.retire(Retired::Heap(node)));
        change.edit.replaced(guard).for_each(Area::kill);
    }

    /// Fills the index of a child that nobody knows yet with what `inherit` makes of the areas of `parent`, which keep
    /// their ranges.
    pub(crate) fn clone_from(
        &mut self,
        parent: &Self,
        guard: &StripeGuard<'_>,
        mut inherit: impl FnMut(&Area<M>) -> Result<Option<Attributes<M>>, NoMemory>,
    ) -> Result<(), NoMemory> {
        for (stripe, from) in self.stripes.iter_mut().zip(&parent.stripes) {
            if from.tree.is_empty() {
                continue;
            }
            let mut items = NewItems::new();
            let complete = from.tree.each(guard, &mut |area| match inherit(area) {
                Ok(Some(attributes)) => items.push(Area::new(attributes)).is_ok(),
                Ok(None) => true,
                Err(NoMemory) => false,
            });
            if !complete {
                return Err(NoMemory);
            }
            stripe.tree.fill(items)?;
        }
        Ok(())
    }

    /// Empties the index of a space that is going away: kills and retires every area.
    pub(crate) fn clear(&self, ctx: Ctx<'_, M>, guard: &StripeGuard<'_>) {
        for stripe in guard.stripes() {
            self.stripes[stripe].tree.clear(
                |node| ctx.retire(Retired::Heap(node)),
                |area, garbage| {
                    area.kill();
                    area.note_object(-1);
                    ctx.retire(Retired::Heap(garbage));
                },
            );
        }
    }
}

impl<M: Machine> Change<M> {
    /// Adds an area to put in, behind the ones before.
    #[inline]
    pub(crate) fn insert(&mut self, attributes: Attributes<M>) -> Result<(), NoMemory> {
        self.edit.insert(Area::new(attributes))
    }

    /// Adds the part of `area` between two addresses, which lie inside.
    #[inline]
    pub(crate) fn insert_part(&mut self, area: &Area<M>, from: VirtAddr, to: VirtAddr) -> Result<(), NoMemory> {
        PageRange::new(from, to).map_or(Ok(()), |range| self.insert(area.part(range)))
    }

    /// Prepares the replacement of what meets `low..high` by what was inserted. The place is near `low`, best at it.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, place: &Place<'_, M>, low: u64, high: u64) -> Result<(), NoMemory> {
        debug_assert_eq!(Index::<M>::stripe_of(high - 1), self.stripe, "areas do not cross stripes");
        self.edit.prepare(place, low, high)
    }

    /// The areas that the change puts in, before it is committed.
    pub(crate) fn inserted<'r>(&'r self, guard: &'r StripeGuard<'_>) -> impl Iterator<Item = &'r Area<M>> {
        self.edit.inserted(guard)
    }

    /// The areas that the prepared change takes out.
    pub(crate) fn replaced<'r>(&'r self, guard: &'r StripeGuard<'_>) -> impl Iterator<Item = &'r Area<M>> {
        self.edit.replaced(guard)
    }

    /// Retires the areas that a committed change replaced.
    #[inline(always)]
    pub(crate) fn retire_replaced(&mut self, ctx: Ctx<'_, M>) {
        self.edit.retire_replaced(|area| ctx.retire(Retired::Heap(area)));
    }
}
