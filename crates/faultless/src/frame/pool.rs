//! The pool of large pages that are asked for by name (hugetlb): which are free, and to whom some are promised.
//!
//! Called by `space` and `object` for pages, by `engine` for the size. Terms and figures are Linux's (hugetlbpage
//! documentation): of `total` pages some are `free`; of those `reserved` are promised; `surplus` of the total go back to
//! the zone as soon as they are free and promised to nobody, because the pool was made smaller than what is in use.
//!
//! A page counts as a whole: the record of its first frame has all references and mappings, those of the others have none
//! ([`Memory::holder`]). Its words: of a free one, the next in the list; else the number of the object it belongs to, or 0
//! if it is private memory.
//!
//! A promise names an owner (a space, for private memory; an object, for shared memory; both have numbers of one series)
//! and an index (of large pages from address 0, or from the object's start). Whoever makes the page of an index marks the
//! index as busy first, so that two who race for one page do not need two.

use super::record::Kind;
use super::{Ctx, Memory};
use crate::addr::FrameId;
use crate::machine::{Format, Machine};
use crate::sync::plain::Ordering::Relaxed;
use crate::sync::{Held, NoMemory, mutant};
use alloc::vec::Vec;

/// An owner and an index.
pub(crate) type Key = (u64, u64);

/// How many large pages the pool has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HugePool {
    /// All (HugePages_Total).
    pub total: u64,
    /// In use by nobody (HugePages_Free).
    pub free: u64,
    /// Of those that are free, the ones that were promised (HugePages_Rsvd).
    pub reserved: u64,
    /// Of all, the ones that go when they are free (HugePages_Surp).
    pub surplus: u64,
}

/// The lists, behind the lock of rank Pool.
pub(crate) struct Pool {
    /// First frame of the first free page, plus 1.
    head: u64,
    total: u64,
    free: u64,
    surplus: u64,
    /// Promised pages, ascending. Has room for as many as there are pages.
    promises: Vec<Key>,
    /// Promised to mappings that are being made.
    held: u64,
    /// Indices whose page is being made.
    busy: Vec<Busy>,
}

/// An index whose page is being made.
struct Busy {
    key: Key,
    /// What the index was promised was forgotten since: a page that is not used has no promise to go back to.
    forgotten: bool,
}

/// A page taken out of the pool that nobody else knows. Publish it or give it back.
#[must_use = "a page that is neither published nor given back is lost"]
#[derive(Debug)]
pub(crate) struct Large {
    first: FrameId,
    key: Option<Key>,
    promised: bool,
}

/// Why there is no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoLarge {
    /// Somebody else is about to make the page of this index: look again.
    Busy,
    /// The pool has none, or none that is not promised to others.
    Empty,
}

impl Large {
    /// Was it promised to who took it?
    pub(crate) fn promised(&self) -> bool {
        self.promised
    }

    /// The frames, for filling them.
    pub(crate) fn frames<M: Machine>(&self) -> impl Iterator<Item = FrameId> + use<M> {
        (self.first.as_u64()..self.first.as_u64() + (1 << M::Format::INDEX_BITS)).map(FrameId::new)
    }
}

impl Pool {
    /// Empty, on a machine with `cpus` CPUs.
    pub(super) fn new(cpus: usize) -> Self {
        // A CPU makes one page at a time.
        let busy = Vec::with_capacity(cpus);
        Self { head: 0, total: 0, free: 0, surplus: 0, promises: Vec::new(), held: 0, busy }
    }

    fn counts(&self) -> HugePool {
        HugePool { total: self.total, free: self.free, reserved: self.reserved(), surplus: self.surplus }
    }

    fn reserved(&self) -> u64 {
        self.promises.len() as u64 + self.held
    }

    /// Free pages that nobody was promised.
    fn spare(&self) -> u64 {
        self.free - self.reserved()
    }

    /// Where the promises of `low..high` are.
    fn find(&self, owner: u64, (low, high): (u64, u64)) -> core::ops::Range<usize> {
        let first = self.promises.partition_point(|key| *key < (owner, low));
        first..first + self.promises[first..].partition_point(|key| *key < (owner, high))
    }

    /// Adds promises for which there is room. None of them is there.
    fn add(&mut self, keys: impl Iterator<Item = Key>) {
        self.promises.extend(keys);
        self.promises.sort_unstable();
        debug_assert!(self.reserved() <= self.free, "promised more than there is");
    }

    /// Takes a free page.
    fn pop<M: Machine>(&mut self, memory: &Memory<M>) -> Option<FrameId> {
        let first = FrameId::new(self.head.checked_sub(1)?);
        self.head = memory.record(first).words().0;
        memory.record(first).set_words(0, 0);
        self.free -= 1;
        Some(first)
    }

    fn push<M: Machine>(&mut self, memory: &Memory<M>, first: FrameId) {
        memory.record(first).set_words(self.head, 0);
        self.head = first.as_u64() + 1;
        self.free += 1;
    }

    fn is_busy(&self, key: Key) -> bool {
        self.busy.iter().any(|busy| busy.key == key)
    }

    /// The index is busy no more. Says whether its promise was forgotten meanwhile.
    fn end(&mut self, key: Option<Key>) -> bool {
        let mut forgotten = false;
        self.busy.retain(|busy| {
            let is_it = Some(busy.key) == key;
            forgotten |= is_it && busy.forgotten;
            !is_it
        });
        forgotten
    }

    /// Whoever is making one of these pages gets no promise back for it.
    fn forget_busy(&mut self, is_forgotten: impl Fn(&Key) -> bool) {
        self.busy.iter_mut().for_each(|busy| busy.forgotten |= is_forgotten(&busy.key));
    }
}

/// The pool, as an operation sees it that may have no CPU at hand.
impl<M: Machine> Memory<M> {
    /// The record that counts for a frame: its own, or that of the pool's page it is part of. Asked with a reference, or
    /// by who looks afterwards whether the frame is still where its number was read.
    pub(crate) fn holder(&self, frame: FrameId) -> FrameId {
        let is_pooled = self.record(frame).kind() == Kind::Huge;
        if is_pooled { FrameId::new(frame.as_u64() & !((1 << M::Format::INDEX_BITS) - 1)) } else { frame }
    }

    /// Is it a private page: a small one, or one of the pool? The caller has a reference.
    pub(crate) fn is_anon(&self, holder: FrameId) -> bool {
        let record = self.record(holder);
        match record.kind() {
            Kind::Anon => true,
            Kind::Huge => record.words().0 == 0,
            _ => false,
        }
    }

    /// What the pool has.
    pub(crate) fn pool_counts(&self) -> HugePool {
        self.pool.lock(&Held::default(), core::hint::spin_loop).counts()
    }

    /// Was anything of the pool ever mapped? Range operations need not ask for its areas before.
    pub(crate) fn uses_pool(&self) -> bool {
        // Relaxed: set before the first such area is made; the stripe locks order it.
        self.pooled.load(Relaxed)
    }

    /// Takes a page back whose last reference is gone.
    #[cold]
    pub(super) fn put_large(&self, first: FrameId, held: &Held, relax: impl Fn()) {
        let mut pool = self.pool.lock(held, &relax);
        if pool.surplus == 0 {
            return pool.push(self, first);
        }
        (pool.surplus, pool.total) = (pool.surplus - 1, pool.total - 1);
        drop(pool);
        self.release_large(first, held, &relax);
    }

    fn release_large(&self, first: FrameId, held: &Held, relax: impl Fn()) {
        let order = M::Format::INDEX_BITS as usize;
        let frames = first.as_u64()..first.as_u64() + (1 << order);
        frames.for_each(|frame| self.record(FrameId::new(frame)).set_kind(Kind::Cached));
        self.record(first).set_words(0, 0);
        self.zone.lock(held, relax).give(&self.records, first, order);
    }

    /// Forgets what `owner` was promised in `low..high`; says how many pages that were.
    pub(crate) fn forget_promises(&self, held: &Held, relax: impl Fn(), owner: u64, range: (u64, u64)) -> u64 {
        if !self.uses_pool() {
            return 0;
        }
        let mut pool = self.pool.lock(held, &relax);
        let found = pool.find(owner, range);
        let forgotten = pool.promises.drain(found).count() as u64;
        pool.forget_busy(|key| key.0 == owner && (range.0..range.1).contains(&key.1));
        self.shed_surplus(&mut pool, held, relax);
        forgotten
    }

    /// After promises have gone: what is surplus, free, and promised to nobody goes back to the zone.
    fn shed_surplus(&self, pool: &mut Pool, held: &Held, relax: impl Fn()) {
        while pool.surplus != 0
            && pool.spare() != 0
            && let Some(first) = pool.pop(self)
        {
            (pool.surplus, pool.total) = (pool.surplus - 1, pool.total - 1);
            self.release_large(first, held, &relax);
        }
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// Makes the pool as large as `target`, or as near to that as memory and what is in use allow.
    pub(crate) fn resize_pool(self, target: u64) -> HugePool {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let taken_back = pool.surplus.min(target.saturating_sub(pool.total - pool.surplus));
        pool.surplus -= taken_back;
        while pool.total - pool.surplus < target {
            let room = (pool.total as usize + 1).saturating_sub(pool.promises.len());
            if pool.promises.try_reserve(room).is_err() {
                break;
            }
            let Some(block) = self.alloc_block(Kind::Huge) else { break };
            pool.total += 1;
            pool.push(self.memory, block.first);
        }
        let least = target.max(pool.reserved() + pool.total - pool.free);
        while pool.total - pool.surplus > least
            && let Some(first) = pool.pop(self.memory)
        {
            pool.total -= 1;
            self.memory.release_large(first, self.cpu.held(), || self.relax());
        }
        pool.surplus += (pool.total - pool.surplus).saturating_sub(target);
        pool.counts()
    }

    /// Frees what this CPU retired, if the pool is in use: an object whose last area is retired keeps its pages until then.
    /// Holds no lock and stands in no section.
    pub(crate) fn collect_large(self) {
        if self.memory.uses_pool() {
            self.collect();
        }
    }

    /// Takes a page, promised or not, for `key`, which is busy until the page is given back or [`Ctx::end_large`]; or
    /// one that was promised to nobody.
    pub(crate) fn take_large(self, key: Option<Key>) -> Result<Large, NoLarge> {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        if key.is_some_and(|key| pool.is_busy(key)) && !mutant::is(mutant::Mutant::NotBusy) {
            return Err(NoLarge::Busy);
        }
        let promise = key.and_then(|key| pool.promises.binary_search(&key).ok());
        match promise {
            Some(place) => drop(pool.promises.remove(place)),
            None if pool.spare() == 0 => return Err(NoLarge::Empty),
            None => {}
        }
        let first = pool.pop(self.memory).ok_or(NoLarge::Empty)?;
        pool.busy.extend(key.map(|key| Busy { key, forgotten: false }));
        Ok(Large { first, key, promised: promise.is_some() })
    }

    /// Gives back a page that was not published, and the promise that it was taken for, unless that was forgotten.
    pub(crate) fn give_large(self, large: Large) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let forgotten = pool.end(large.key);
        if !large.promised || forgotten {
            drop(pool);
            return self.memory.put_large(large.first, self.cpu.held(), || self.relax());
        }
        pool.push(self.memory, large.first);
        pool.add(large.key.into_iter());
    }

    /// Lets others know a page, with its first reference (and as many mappings), as a page of `object` or, if that is 0,
    /// as private memory. Its index is busy still.
    pub(crate) fn publish_large(self, large: Large, object: u64, mappings: u32) -> FrameId {
        let record = self.record(large.first);
        record.set_words(object, 0);
        record.init_counts(1, mappings);
        large.first
    }

    /// A private page that was published did not come to be mapped: drops its reference and its mapping, and restores the
    /// promise, unless that was forgotten. If somebody who looked for another page by the frame's number has it for a
    /// moment, the promise needs another free page.
    pub(crate) fn withdraw_large(self, first: FrameId, key: Key, promised: bool) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let promised = !pool.end(Some(key)) && promised;
        let is_last = self.record(first).drop_counts(1, 1);
        if is_last && promised {
            pool.push(self.memory, first);
        }
        if promised && pool.spare() != 0 {
            pool.add(core::iter::once(key));
        }
        drop(pool);
        if is_last && !promised {
            self.memory.put_large(first, self.cpu.held(), || self.relax());
        }
    }

    /// The page of `key` is where others look for it, or was given up. A promise that was made meanwhile is void.
    pub(crate) fn end_large(self, key: Key) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        pool.end(Some(key));
        if let Ok(place) = pool.promises.binary_search(&key) {
            pool.promises.remove(place);
            self.memory.shed_surplus(&mut pool, self.cpu.held(), || self.relax());
        }
    }

    /// Promises `pages` to a mapping that is being made.
    pub(crate) fn hold_promises(self, pages: u64) -> Result<(), NoMemory> {
        self.memory.pooled.store(true, Relaxed);
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        if pool.spare() < pages {
            return Err(NoMemory);
        }
        pool.held += pages;
        Ok(())
    }

    /// The mapping was not made.
    pub(crate) fn release_promises(self, pages: u64) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        pool.held -= pages;
        self.memory.shed_surplus(&mut pool, self.cpu.held(), || self.relax());
    }

    /// The mapping was made: what was held for it is promised to `owner`, page by page. None of it was before.
    pub(crate) fn settle_promises(self, owner: u64, (low, high): (u64, u64)) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        pool.held -= high - low;
        pool.add((low..high).map(|index| (owner, index)));
    }

    /// Promises `owner` what of `low..high` it was not promised and `has` not, or nothing. Says what was added.
    pub(crate) fn promise_missing(
        self,
        owner: u64,
        (low, high): (u64, u64),
        has: impl Fn(u64) -> bool,
    ) -> Result<Vec<Key>, NoMemory> {
        self.memory.pooled.store(true, Relaxed);
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let mut added = Vec::new();
        for key in (low..high).map(|index| (owner, index)) {
            if has(key.1) || pool.promises.binary_search(&key).is_ok() {
                continue;
            }
            if added.len() as u64 == pool.spare() || added.try_reserve(1).is_err() {
                return Err(NoMemory);
            }
            added.push(key);
        }
        pool.add(added.iter().copied());
        Ok(added)
    }

    /// Promises private memory again what it gave back, as far as nobody else was promised it.
    pub(crate) fn promise_again(self, owner: u64, (low, high): (u64, u64)) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        for key in (low..high).map(|index| (owner, index)) {
            let is_promised = pool.promises.binary_search(&key).is_ok();
            if pool.surplus == 0 && pool.spare() != 0 && !is_promised && !pool.is_busy(key) {
                pool.add(core::iter::once(key));
            }
        }
    }

    /// Takes back what [`Ctx::promise_missing`] added, as far as it was not used.
    pub(crate) fn take_back_promises(self, added: &[Key]) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        pool.promises.retain(|key| !added.contains(key));
        pool.forget_busy(|key| added.contains(key));
        self.memory.shed_surplus(&mut pool, self.cpu.held(), || self.relax());
    }

    /// The promises of `low..high` move `by` pages (modulo 2^64).
    pub(crate) fn move_promises(self, owner: u64, range: (u64, u64), by: u64) {
        let mut pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let found = pool.find(owner, range);
        pool.promises[found].iter_mut().for_each(|(_, index)| *index = index.wrapping_add(by));
        pool.promises.sort_unstable();
    }

    /// What is wrong with the pool, in words, at quiescence.
    pub(super) fn recount_pool(self, errors: &mut Vec<alloc::string::String>) {
        let pool = self.memory.pool.lock(self.cpu.held(), || self.relax());
        let (mut listed, mut next) = (0, pool.head);
        while let Some(first) = next.checked_sub(1).map(FrameId::new)
            && listed <= pool.free
        {
            let record = self.record(first);
            if record.kind() != Kind::Huge || record.counts() != (0, 0) {
                errors.push(alloc::format!("{first:?} is in the pool, and {:?} {:?}", record.kind(), record.counts()));
            }
            (listed, next) = (listed + 1, record.words().0);
        }
        let size = 1 << M::Format::INDEX_BITS;
        let (mut frames, mut used) = (0, 0);
        self.memory.each_frame(|frame, record| {
            let is_pooled = record.kind() == Kind::Huge;
            frames += u64::from(is_pooled);
            used += u64::from(is_pooled && record.counts() != (0, 0));
            if is_pooled && !frame.as_u64().is_multiple_of(size) && record.counts() != (0, 0) {
                errors.push(alloc::format!("{frame:?} is no first frame, and has references"));
            }
        });
        let counts = pool.counts();
        if listed != counts.free || used + listed != counts.total || frames != counts.total * size {
            errors.push(alloc::format!("the pool says {counts:?}: {listed} listed, {used} in use, {frames} frames"));
        }
        if pool.held != 0 || !pool.busy.is_empty() || counts.reserved > counts.free {
            errors.push(alloc::format!("the pool says {counts:?}, {} held, {} busy", pool.held, pool.busy.len()));
        } else if pool.surplus != 0 && pool.spare() != 0 {
            errors.push(alloc::format!("the pool says {counts:?}, and kept what is surplus"));
        }
    }
}
