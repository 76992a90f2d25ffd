//! The record of one frame: who uses it for what, and how often it is referenced.
//!
//! Called by `frame` and, through `Ctx::record`, by the rooms above. 32 bytes per frame in shipping builds.

use crate::sync::plain::{AtomicU32 as PlainU32, AtomicU64 as PlainU64, Ordering::Relaxed};
use crate::sync::{AtomicU8, AtomicU64, Ordering, RawLock, mutant};

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Kind {
    /// No memory here: a hole between RAM ranges.
    Absent = 0,
    /// On a free list of the zone.
    Free = 1,
    /// In some CPU's cache, or being freed.
    Cached = 2,
    /// The shared frame of zeroes; never counted.
    Zero = 3,
    /// Anonymous memory.
    Anon = 4,
    /// A page of a file.
    File = 5,
    /// A page of a memory object (shared anonymous memory, tmpfs).
    Memory = 6,
    /// A page table.
    Table = 7,
    /// Part of a large page of the pool, in use or not; the record of its first frame counts for all.
    Huge = 8,
}

const MAPPING: u64 = 1 << 32;
/// One pin, in the word of the kind.
const PIN: u32 = 1 << 8;

/// Stored to since its backing store last had it.
const DIRTY: u8 = 1;
/// In the cache of an object whose pager is handed what was stored to.
const OWED: u8 = 2;
/// Being handed to the pager.
const WRITING: u8 = 4;

/// One frame's record.
///
/// Letters: (A) atomic alone; (O) written by the owner before publication or after the last reference, read by
/// anybody who holds a reference; (Z) zone lock.
pub(crate) struct Record {
    /// Pages: references in the low half, mappings in the high half (I-REF, I-MAP). Tables: nothing in the low half, so
    /// that a stale page number gets no reference ([`Record::try_get`]), and in the high half the shares: parent
    /// entries that name this table (`sc` in PROTOCOL).
    counts: AtomicU64, // (A)
    /// The [`Kind`] in the low byte (O); above it the pins of an anonymous page (A), none when a frame changes its kind.
    kind: PlainU32,
    /// `L`: structural changes of a table.
    pub(crate) lock: RawLock, // (A)
    /// Object page: `DIRTY`, `OWED`, `WRITING` (A), set anew when it enters a cache (O). Else without meaning. Not in the
    /// word of the kind, which the model checker does not see: these bits order stores and what reads them (P17).
    state: AtomicU8,
    /// Free: next in the list. Object page: the object's number. Table: its level.
    word0: PlainU64, // (O) (Z)
    /// Free: previous in the list and the order. Object page: index in the object. Table above the leaves: which parts of
    /// it ever named tables, one bit each, set before the entry is by whoever sets it (A).
    word1: PlainU64, // (O) (Z)
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(core::mem::size_of::<Record>() <= 32, "records cost 32 bytes per frame");

impl Record {
    /// A record of a frame that does not exist (yet).
    pub(crate) fn absent() -> Self {
        Self {
            counts: AtomicU64::new(0),
            kind: PlainU32::new(Kind::Absent as u32),
            lock: RawLock::new(),
            state: AtomicU8::new(0),
            word0: PlainU64::new(0),
            word1: PlainU64::new(0),
        }
    }

    /// What the frame is used for.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.kind.load(Relaxed) % PIN {
            1 => Kind::Free,
            2 => Kind::Cached,
            3 => Kind::Zero,
            4 => Kind::Anon,
            5 => Kind::File,
            6 => Kind::Memory,
            7 => Kind::Table,
            8 => Kind::Huge,
            _ => Kind::Absent,
        }
    }

    /// Changes the use; only the sole owner may.
    #[inline]
    pub(crate) fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u32, Relaxed);
    }

    /// The two words whose meaning depends on the kind.
    #[inline]
    pub(crate) fn words(&self) -> (u64, u64) {
        (self.word0.load(Relaxed), self.word1.load(Relaxed))
    }

    /// Writes both words; only the sole owner (or the zone, under its lock) may.
    #[inline]
    pub(crate) fn set_words(&self, word0: u64, word1: u64) {
        self.word0.store(word0, Relaxed);
        self.word1.store(word1, Relaxed);
    }

    /// Notes a pin of an anonymous page to which the caller holds a reference.
    pub(crate) fn add_pin(&self) {
        // Relaxed: a fork reads it after its grace period, which orders it.
        self.kind.fetch_add(PIN, Relaxed);
    }

    /// Takes a pin back; before the reference is dropped.
    pub(crate) fn drop_pin(&self) {
        let old = self.kind.fetch_sub(PIN, Relaxed);
        debug_assert!(old >= PIN, "pin underflow");
    }

    /// Is it an anonymous page that is pinned?
    #[inline]
    pub(crate) fn is_pinned(&self) -> bool {
        self.kind.load(Relaxed) >= PIN
    }

    /// May somebody besides the entries that map this anonymous page store to it? Whoever pins or reaches into one holds
    /// a reference for that.
    pub(crate) fn is_held(&self) -> bool {
        // Acquire (in `counts`) pairs with the AcqRel of the reference's drop: if nobody holds it any more, the stores
        // that were done through it are visible (P14).
        let (references, mappings) = self.counts();
        references > mappings && (self.kind() == Kind::Anon || self.kind() == Kind::Huge && self.is_pinned())
    }

    /// Is it a page of an object, counted by itself?
    #[inline]
    pub(crate) fn is_of_object(&self) -> bool {
        matches!(self.kind(), Kind::File | Kind::Memory)
    }

    /// Begins the life of an object's page, before it is published. `owed`: its pager is handed what was stored to.
    pub(crate) fn init_state(&self, owed: bool, dirty: bool) {
        // Relaxed: the publication carries it.
        self.state.store(if owed { OWED } else { 0 } | if dirty { DIRTY } else { 0 }, Ordering::Relaxed);
    }

    /// Notes that an object's page was stored to. After the store, and with a reference.
    pub(crate) fn mark_dirty(&self) {
        // Release pairs with `start_write`: who finds the page dirty writes what was stored. An RMW also where the bit is
        // set, for whoever is about to clear it must see our store.
        self.state.fetch_or(DIRTY, Ordering::Release);
    }

    /// Was this page of an object stored to since its backing store last had it, as far as that is noted here?
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_of_object() && self.state.load(Ordering::Relaxed) & DIRTY != 0
    }

    /// Is it being handed to the pager?
    pub(crate) fn is_writing(&self) -> bool {
        // Acquire pairs with `end_write`: the pager is through with it.
        self.state.load(Ordering::Acquire) & WRITING != 0
    }

    /// Does its pager have to be handed it some time?
    pub(crate) fn is_owed(&self) -> bool {
        self.is_of_object() && self.state.load(Ordering::Relaxed) & (OWED | DIRTY) == OWED | DIRTY
    }

    /// Claims a dirty page to hand it to the pager: clean from now on. False if there is nothing to do, or somebody else
    /// does it.
    pub(crate) fn start_write(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        // Ends: each round but the last follows another CPU's change, after which little is left to change.
        while state == DIRTY | OWED {
            // Acquire pairs with `mark_dirty`.
            match self.state.compare_exchange(state, OWED | WRITING, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Gives the claim back; a page that was not written is as dirty as before.
    pub(crate) fn end_write(&self, written: bool) {
        if !written {
            self.mark_dirty();
        }
        // Release pairs with `is_writing`.
        self.state.fetch_and(!WRITING, Ordering::Release);
    }

    /// Ends what its pager is owed: it has left the cache.
    pub(crate) fn leave_cache(&self) {
        self.state.fetch_and(!OWED, Ordering::Relaxed);
    }

    /// Notes that the parts of an upper table whose bits are set are about to name tables.
    #[inline]
    pub(crate) fn note_parts(&self, parts: u64) {
        // Relaxed: the entry's release, or the publication of its table, carries it.
        if self.word1.load(Relaxed) & parts != parts {
            self.word1.fetch_or(parts, Relaxed);
        }
    }

    /// The parts of an upper table that ever named tables: all those whose entries the caller can see.
    #[inline]
    pub(crate) fn parts(&self) -> u64 {
        self.word1.load(Relaxed)
    }

    /// Sets the counts of a frame that nobody else knows.
    #[inline]
    pub(crate) fn init_counts(&self, references: u32, mappings: u32) {
        debug_assert_eq!(self.counts.load(Ordering::Relaxed), 0, "a new frame has references");
        // Release pairs with the Acquire in `try_get`: who gets a reference to the frame's new life by the number of
        // its old one sees, when it looks again, that the frame left the place where it read the number.
        self.counts.store(u64::from(references) | (u64::from(mappings) * MAPPING), Ordering::Release);
    }

    /// References and mappings.
    #[inline]
    pub(crate) fn counts(&self) -> (u32, u32) {
        // Acquire pairs with the AcqRel in `drop_counts`: who sees itself alone sees all that the others did.
        let counts = self.counts.load(Ordering::Acquire);
        (counts as u32, (counts / MAPPING) as u32)
    }

    /// Adds references and mappings to a frame that the caller knows to be referenced.
    #[inline]
    pub(crate) fn add_counts(&self, references: u32, mappings: u32) {
        let old = self.counts.fetch_add(u64::from(references) | (u64::from(mappings) * MAPPING), Ordering::Relaxed);
        debug_assert!(old as u32 > 0, "reference to a free frame");
    }

    /// Takes a reference and `mappings` mappings if the frame has any reference. The caller re-checks what it read the
    /// frame number from: the frame may have been freed and used anew in between, as another page. Never as a table:
    /// those have shares, not references, because their owners free them without asking for stray references.
    #[inline]
    pub(crate) fn try_get(&self, mappings: u32) -> bool {
        let mut old = self.counts.load(Ordering::Relaxed);
        loop {
            if old as u32 == 0 {
                return false;
            }
            let new = old + 1 + u64::from(mappings) * MAPPING;
            // Acquire pairs with the Release in `init_counts`; additions in between keep its release sequence.
            match self.counts.compare_exchange_weak(old, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
    }

    /// Drops references and mappings; true if the last reference went.
    #[inline]
    pub(crate) fn drop_counts(&self, references: u32, mappings: u32) -> bool {
        let sub = u64::from(references) | (u64::from(mappings) * MAPPING);
        // AcqRel: the last one to drop sees what all others did before they dropped.
        let old = self.counts.fetch_sub(sub, mutant::weaken(mutant::Mutant::RelaxedDrop, Ordering::AcqRel));
        debug_assert!(old as u32 >= references && old / MAPPING >= u64::from(mappings), "count underflow: {old:#x}");
        if old as u32 == references {
            debug_assert_eq!(old / MAPPING, u64::from(mappings), "the last reference left mappings behind");
            return true;
        }
        false
    }

    /// Gives a table that nobody else knows the share of its parent entry to be.
    #[inline]
    pub(crate) fn init_share(&self) {
        self.init_counts(0, 1);
    }

    /// Parent entries that name this table.
    #[inline]
    pub(crate) fn shares(&self) -> u32 {
        self.counts().1
    }

    /// Adds the share of another parent entry; the caller has one.
    #[inline]
    pub(crate) fn add_share(&self) {
        let old = self.counts.fetch_add(MAPPING, Ordering::Relaxed);
        debug_assert!(old >= MAPPING, "share of a free table");
    }

    /// Drops a share; true if it was the last.
    #[inline]
    pub(crate) fn drop_share(&self) -> bool {
        // AcqRel: as `drop_counts`.
        let old = self.counts.fetch_sub(MAPPING, Ordering::AcqRel);
        debug_assert!(old >= MAPPING && old as u32 == 0, "share underflow: {old:#x}");
        old == MAPPING
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
