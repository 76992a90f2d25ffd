//! The entry codec: which bits of a 64-bit entry mean what. x86-64 with 4 or 5 levels.
//!
//! Called by `table` and `space`, which see entries only through [`Format`]. Protocols P1, P2, P3, P6 use the software
//! bits. Absent on purpose: policy; a codec never decides.
//!
//! # Leaf entries
//!
//! | kind | bit 0 | bits 1-3 | payload |
//! |---|---|---|---|
//! | PAGE | 1 | W, U | frame 12-51; EXCLUSIVE 9, PENDING 10, SPECIAL 11; generation 52-56; SOFT 57; MARKED 58; NX 63 |
//! | EMPTY | 0 | 0 | stamp: 4-50 and 57-62; generation 52-56; bit 51 set unless the stamp is 0; MARKED 63 |
//! | POISON | 0 | 1 | none: the table is leaving, start over |
//! | NONE | 0 | 3 | a page without rights (PROT_NONE): frame inverted in 12-50, bit 51 set; flags as PAGE |
//! | LOST | 0 | 5 | no page, and an access ends in SIGBUS (UFFDIO_POISON); generation 52-56 |
//! | OFFSET | 0 | 4 | no page, but which page of the object belongs here (NL-01): its index where a stamp is; generation 52-56 |
//!
//! # Table entries
//!
//! | kind | bit 0 | payload |
//! |---|---|---|
//! | TABLE | 1 | frame 12-51; W, U, A always set; SHARED 9 (then W is clear), FROZEN 10 |
//! | HUGE | 1 | as PAGE, with bit 7 set: stands for a whole leaf table of PAGEs of frames in a row; no generation |
//! | HUGE without rights | 0 | as NONE, with bit 7 set |
//! | EMPTY | 0 | stamp as above, no generation |
//! | POISON, FROZEN | 0 | none |
//!
//! Bit 51 of a non-present entry keeps the address bits above any installed memory (L1TF). SOFT (soft-dirty, P14) is set
//! in every PAGE that has W. A MARKED EMPTY is an EMPTY like any other, but for who watches (P13).

use crate::addr::FrameId;

/// The value of an entry.
pub type Raw = u64;

/// The software-visible bits of a leaf that maps a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageBits {
    /// The MMU permits stores.
    pub write: bool,
    /// The MMU permits instruction fetches.
    pub execute: bool,
    /// Anonymous and mapped by this entry alone: a write needs no copy.
    pub exclusive: bool,
    /// A fresh copy whose predecessor may still be cached by some CPU's TLB: not writable before a flush.
    pub pending: bool,
    /// Not counted: the zero frame, or memory without a record.
    pub special: bool,
    /// The MMU has stored through it.
    pub dirty: bool,
    /// A watcher wants to hear of the next store (userfaultfd). Without meaning where nobody watches.
    pub marked: bool,
}

/// What a leaf entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// Nothing is mapped.
    Empty,
    /// The table is being taken away; look again from the root.
    Poison,
    /// A page the MMU can use.
    Page(FrameId, PageBits),
    /// A page whose area grants no rights; the MMU faults.
    None(FrameId, PageBits),
    /// Nothing is mapped; the page of this index of the area's object belongs here, not the one whose turn it is.
    Offset(u64),
    /// Nothing is mapped, and nothing will be: an access ends in SIGBUS.
    Lost,
}

/// What an upper entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upper {
    /// No table.
    Empty,
    /// The table above is being taken away; look again from the root.
    Poison,
    /// No table, and a fork forbids to add one for the moment.
    Frozen,
    /// A table.
    Table {
        /// Its frame.
        frame: FrameId,
        /// Another space (or a shared parent) may name the same table: read-only below.
        shared: bool,
        /// A fork is under way: wait.
        frozen: bool,
    },
    /// No table, but what a leaf table would say of frames in a row; [`Format::leaf`] tells of which and how.
    Huge,
}

/// An architecture's entry format. All functions are pure bit arithmetic.
pub trait Format: Send + Sync + Sized + 'static {
    /// Levels of tables, the leaf level included.
    const LEVELS: usize;
    /// Binary logarithm of the entries of a table.
    const INDEX_BITS: u32;
    /// Slots of the root that belong to user space, from 0.
    const USER_SLOTS: usize;
    /// Bits of the generation.
    const GENERATION_BITS: u32;
    /// Stripes of the address space that range operations lock apart; divides `USER_SLOTS`.
    const STRIPES: usize;
    /// Bits of the page index that an OFFSET entry can hold.
    const OFFSET_BITS: u32;

    /// An empty entry with a stamp that no earlier value of the entry carried, and a generation.
    fn empty(stamp: u64, generation: u64) -> Raw;
    /// The end of an entry's life.
    fn poison() -> Raw;
    /// A leaf that maps `frame`; soft-dirty if it may be written.
    fn page(frame: FrameId, bits: PageBits, generation: u64) -> Raw;
    /// A leaf that maps nothing, but says which page of the object belongs here; `index` has `OFFSET_BITS`.
    fn offset(index: u64, generation: u64) -> Raw;
    /// A leaf of which every access ends in SIGBUS.
    fn lost(generation: u64) -> Raw;
    /// The same PAGE, NONE or EMPTY marked or not; a marked PAGE loses its write permission.
    fn with_mark(entry: Raw, marked: bool) -> Raw;
    /// Is it an EMPTY that is marked: the page that comes here is to be?
    fn is_marked_empty(entry: Raw) -> bool;
    /// Decodes a leaf. Total: every value means something.
    fn leaf(entry: Raw) -> Leaf;
    /// The generation of any leaf value.
    fn generation(entry: Raw) -> u64;
    /// A PAGE turned into NONE with the generation given.
    fn page_to_none(entry: Raw, generation: u64) -> Raw;
    /// A NONE turned into a PAGE without write permission; keeps the generation.
    fn none_to_page(entry: Raw) -> Raw;
    /// The same PAGE with other rights; keeps everything else.
    fn with_rights(entry: Raw, write: bool, execute: bool) -> Raw;
    /// The same PAGE made writable, exclusive as told, accessed, dirty and soft-dirty, no longer PENDING or marked.
    fn made_writable(entry: Raw, exclusive: bool) -> Raw;
    /// The same PAGE or NONE without EXCLUSIVE and, if it had EXCLUSIVE, without write permission.
    fn without_exclusive(entry: Raw) -> Raw;
    /// Has the MMU used this PAGE or NONE?
    fn is_accessed(entry: Raw) -> bool;
    /// The same PAGE or NONE without its accessed and dirty bits.
    fn cleaned(entry: Raw) -> Raw;
    /// The same PAGE or NONE without its dirty bit and, if a PAGE, write permission.
    fn without_stores(entry: Raw) -> Raw;
    /// The same PAGE or NONE without its accessed bit.
    fn unused(entry: Raw) -> Raw;
    /// Is this PAGE or NONE soft-dirty: stored to, or permitted to be, since that was last cleared? A value apart from the
    /// other bits, for ordinary faults do not ask.
    fn is_soft(entry: Raw) -> bool;
    /// The same PAGE or NONE, soft-dirty.
    fn with_soft(entry: Raw) -> Raw;
    /// The same PAGE or NONE, neither soft-dirty nor writable.
    fn without_soft(entry: Raw) -> Raw;
    /// The same leaf with another generation.
    fn with_generation(entry: Raw, generation: u64) -> Raw;
    /// Do two leaf values differ only in what the MMU sets (accessed, dirty)?
    fn same_but_touched(a: Raw, b: Raw) -> bool;
    /// A PAGE with its accessed bit and, for a store, its dirty bit set, as the MMU does.
    fn touched(entry: Raw, store: bool) -> Raw;

    /// An upper entry that names a table.
    fn table(frame: FrameId, shared: bool, frozen: bool) -> Raw;
    /// What stands at level 1 for a leaf table that maps frames in a row, from `frame` on, which is a multiple of their
    /// number.
    fn huge(frame: FrameId, bits: PageBits) -> Raw;
    /// The leaf entry that `index` of the table would be that a HUGE value stands for.
    fn part_of_huge(entry: Raw, index: usize) -> Raw;
    /// An empty upper entry that a fork has frozen.
    fn frozen_empty() -> Raw;
    /// The table that an upper entry names and whether it is shared, unless there is none or a fork is under way: what
    /// [`Format::upper`] says, by one test.
    fn open_table(entry: Raw) -> Option<(FrameId, bool)>;
    /// Decodes an upper entry. Total.
    fn upper(entry: Raw) -> Upper;
    /// Are all values EMPTY (as leaves, and as upper entries) whose bitwise or this is?
    fn all_empty(ored: Raw) -> bool;
}

const PRESENT: Raw = 1;
const WRITE: Raw = 1 << 1;
const USER: Raw = 1 << 2;
const ACCESSED: Raw = 1 << 5;
const DIRTY: Raw = 1 << 6;
/// A large page, in an entry of level 1.
const LARGE: Raw = 1 << 7;
const EXCLUSIVE: Raw = 1 << 9;
const SHARED: Raw = 1 << 9;
const PENDING: Raw = 1 << 10;
const FROZEN: Raw = 1 << 10;
const SPECIAL: Raw = 1 << 11;
const FRAME: Raw = ((1 << 52) - 1) & !0xfff;
const GENERATION_SHIFT: u32 = 52;
const GENERATION: Raw = 0x1f << GENERATION_SHIFT;
const SOFT: Raw = 1 << 57;
const MARKED: Raw = 1 << 58;
/// Of an EMPTY.
const EMPTY_MARKED: Raw = 1 << 63;
const NO_EXECUTE: Raw = 1 << 63;

const KIND: Raw = 0b1111;
const KIND_EMPTY: Raw = 0;
const KIND_POISON: Raw = 1 << 1;
const KIND_FROZEN: Raw = 2 << 1;
const KIND_NONE: Raw = 3 << 1;
const KIND_OFFSET: Raw = 4 << 1;
const KIND_LOST: Raw = 5 << 1;

/// Keeps the address bits of a non-present entry above installed memory.
const ABOVE_MEMORY: Raw = 1 << 51;
const STAMP_LOW_BITS: u32 = 47;
const STAMP_LOW_SHIFT: u32 = 4;
const STAMP_HIGH_SHIFT: u32 = 57;
/// Bits of a stamp.
pub const STAMP_BITS: u32 = 53;
/// Frame bits of a NONE entry, stored inverted.
const NONE_FRAME: Raw = ((1 << 51) - 1) & !0xfff;
const NONE_KEEPS: Raw = ACCESSED | DIRTY | LARGE | EXCLUSIVE | PENDING | SPECIAL | SOFT | MARKED | NO_EXECUTE;

/// x86-64 paging with `LEVELS` levels of `2^INDEX_BITS` entries and generations of `GENERATION_BITS`.
///
/// [`X86_64`] and [`X86_64La57`] are the ones that hardware walks; smaller ones exist for model checking.
#[derive(Clone, Copy, Debug)]
pub struct X86<const LEVELS: usize, const INDEX_BITS: u32, const GENERATION_BITS: u32>;

/// x86-64 with 4 levels: 128 TiB of user space.
pub type X86_64 = X86<4, 9, 5>;
/// x86-64 with 5 levels: 64 PiB of user space.
pub type X86_64La57 = X86<5, 9, 5>;

const fn stamp_bits(stamp: u64) -> Raw {
    if stamp == 0 {
        return 0;
    }
    spread(stamp) | ABOVE_MEMORY
}

/// A number of `STAMP_BITS` in the bits of a non-present entry that are free for one.
const fn spread(number: u64) -> Raw {
    let low = number & ((1 << STAMP_LOW_BITS) - 1);
    let high = (number >> STAMP_LOW_BITS) & ((1 << (STAMP_BITS - STAMP_LOW_BITS)) - 1);
    low << STAMP_LOW_SHIFT | high << STAMP_HIGH_SHIFT
}

/// The number that [`spread`] put into an entry.
const fn gathered(entry: Raw) -> u64 {
    let low = entry >> STAMP_LOW_SHIFT & ((1 << STAMP_LOW_BITS) - 1);
    low | (entry & !EMPTY_MARKED) >> STAMP_HIGH_SHIFT << STAMP_LOW_BITS
}

const fn flag(set: bool, bit: Raw) -> Raw {
    if set { bit } else { 0 }
}

const fn page_bits(entry: Raw) -> PageBits {
    PageBits {
        write: entry & WRITE != 0,
        execute: entry & NO_EXECUTE == 0,
        exclusive: entry & EXCLUSIVE != 0,
        pending: entry & PENDING != 0,
        special: entry & SPECIAL != 0,
        dirty: entry & DIRTY != 0,
        marked: entry & MARKED != 0,
    }
}

impl<const LEVELS: usize, const INDEX_BITS: u32, const GENERATION_BITS: u32> X86<LEVELS, INDEX_BITS, GENERATION_BITS> {
    const CHECKED: () = {
        assert!(LEVELS >= 2 && LEVELS <= 5);
        assert!(INDEX_BITS >= 1 && INDEX_BITS <= 9);
        assert!(GENERATION_BITS >= 1 && GENERATION_BITS <= 5);
    };

    const fn wrap(generation: u64) -> Raw {
        let () = Self::CHECKED;
        (generation & ((1 << GENERATION_BITS) - 1)) << GENERATION_SHIFT
    }
}

impl<const LEVELS: usize, const INDEX_BITS: u32, const GENERATION_BITS: u32> Format
    for X86<LEVELS, INDEX_BITS, GENERATION_BITS>
{
    const LEVELS: usize = LEVELS;
    const INDEX_BITS: u32 = INDEX_BITS;
    const USER_SLOTS: usize = if INDEX_BITS > 2 { 1 << (INDEX_BITS - 1) } else { 1 << INDEX_BITS };
    const GENERATION_BITS: u32 = GENERATION_BITS;
    const STRIPES: usize = if Self::USER_SLOTS > 64 { 64 } else { 1 };
    const OFFSET_BITS: u32 = STAMP_BITS;

    #[inline]
    fn empty(stamp: u64, generation: u64) -> Raw {
        stamp_bits(stamp) | Self::wrap(generation)
    }

    #[inline]
    fn poison() -> Raw {
        KIND_POISON
    }

    #[inline]
    fn page(frame: FrameId, bits: PageBits, generation: u64) -> Raw {
        debug_assert!(frame.as_u64() < 1 << 39, "frame number does not fit an entry");
        PRESENT
            | USER
            | ACCESSED
            | frame.as_u64() << 12
            | flag(bits.write, WRITE | SOFT)
            | flag(!bits.execute, NO_EXECUTE)
            | flag(bits.exclusive, EXCLUSIVE)
            | flag(bits.pending, PENDING)
            | flag(bits.special, SPECIAL)
            | flag(bits.dirty, DIRTY)
            | flag(bits.marked, MARKED)
            | Self::wrap(generation)
    }

    fn offset(index: u64, generation: u64) -> Raw {
        debug_assert!(index >> STAMP_BITS == 0, "page index does not fit an entry");
        KIND_OFFSET | ABOVE_MEMORY | spread(index) | Self::wrap(generation)
    }

    fn lost(generation: u64) -> Raw {
        KIND_LOST | ABOVE_MEMORY | Self::wrap(generation)
    }

    fn is_marked_empty(entry: Raw) -> bool {
        entry & (KIND | EMPTY_MARKED) == EMPTY_MARKED
    }

    fn with_mark(entry: Raw, marked: bool) -> Raw {
        if entry & KIND == KIND_EMPTY {
            return entry & !EMPTY_MARKED | flag(marked, EMPTY_MARKED);
        }
        if !marked {
            return entry & !MARKED;
        }
        // Bit 1 of a NONE entry belongs to its kind.
        entry & !flag(entry & PRESENT != 0, WRITE) | MARKED
    }

    #[inline]
    fn leaf(entry: Raw) -> Leaf {
        if entry & PRESENT != 0 {
            return Leaf::Page(FrameId::new((entry & FRAME) >> 12), page_bits(entry));
        }
        match entry & KIND {
            KIND_EMPTY => Leaf::Empty,
            KIND_NONE => {
                let bits = PageBits { write: false, ..page_bits(entry) };
                Leaf::None(FrameId::new((!entry & NONE_FRAME) >> 12), bits)
            }
            KIND_OFFSET => Leaf::Offset(gathered(entry)),
            KIND_LOST => Leaf::Lost,
            _ => Leaf::Poison,
        }
    }

    #[inline]
    fn generation(entry: Raw) -> u64 {
        (entry & GENERATION) >> GENERATION_SHIFT
    }

    #[inline]
    fn page_to_none(entry: Raw, generation: u64) -> Raw {
        KIND_NONE | entry & NONE_KEEPS | !entry & NONE_FRAME | ABOVE_MEMORY | Self::wrap(generation)
    }

    #[inline]
    fn none_to_page(entry: Raw) -> Raw {
        PRESENT | USER | entry & (NONE_KEEPS | GENERATION) | !entry & NONE_FRAME
    }

    #[inline]
    fn with_rights(entry: Raw, write: bool, execute: bool) -> Raw {
        debug_assert!(!write || entry & SOFT != 0, "writable, but not soft-dirty");
        entry & !(WRITE | NO_EXECUTE) | flag(write, WRITE) | flag(!execute, NO_EXECUTE)
    }

    #[inline]
    fn made_writable(entry: Raw, exclusive: bool) -> Raw {
        entry & !(PENDING | MARKED) | WRITE | ACCESSED | DIRTY | SOFT | flag(exclusive, EXCLUSIVE)
    }

    #[inline]
    fn without_exclusive(entry: Raw) -> Raw {
        if entry & EXCLUSIVE == 0 {
            return entry;
        }
        // Bit 1 of a NONE entry belongs to its kind.
        entry & !(EXCLUSIVE | flag(entry & PRESENT != 0, WRITE))
    }

    #[inline]
    fn is_accessed(entry: Raw) -> bool {
        entry & ACCESSED != 0
    }

    #[inline]
    fn cleaned(entry: Raw) -> Raw {
        entry & !(ACCESSED | DIRTY)
    }

    #[inline]
    fn without_stores(entry: Raw) -> Raw {
        // Bit 1 of a NONE entry belongs to its kind.
        entry & !(DIRTY | flag(entry & PRESENT != 0, WRITE))
    }

    #[inline]
    fn unused(entry: Raw) -> Raw {
        entry & !ACCESSED
    }

    #[inline]
    fn is_soft(entry: Raw) -> bool {
        entry & SOFT != 0
    }

    #[inline]
    fn with_soft(entry: Raw) -> Raw {
        entry | SOFT
    }

    #[inline]
    fn without_soft(entry: Raw) -> Raw {
        // Bit 1 of a NONE entry belongs to its kind.
        entry & !(SOFT | flag(entry & PRESENT != 0, WRITE))
    }

    #[inline]
    fn with_generation(entry: Raw, generation: u64) -> Raw {
        entry & !GENERATION | Self::wrap(generation)
    }

    #[inline]
    fn same_but_touched(a: Raw, b: Raw) -> bool {
        (a ^ b) & !(ACCESSED | DIRTY) == 0 && a & PRESENT != 0
    }

    #[inline]
    fn touched(entry: Raw, store: bool) -> Raw {
        entry | ACCESSED | flag(store, DIRTY)
    }

    #[inline]
    fn table(frame: FrameId, shared: bool, frozen: bool) -> Raw {
        debug_assert!(frame.as_u64() < 1 << 39, "frame number does not fit an entry");
        // ACCESSED is set beforehand: hardware would set it, and an exact compare-exchange would fail.
        PRESENT
            | USER
            | ACCESSED
            | frame.as_u64() << 12
            | flag(!shared, WRITE)
            | flag(shared, SHARED)
            | flag(frozen, FROZEN)
    }

    #[inline]
    fn huge(frame: FrameId, bits: PageBits) -> Raw {
        debug_assert!(frame.as_u64().is_multiple_of(1 << INDEX_BITS), "a large page is aligned to its size");
        // Soft-dirty: it is made for a store, or of pages of which some may be that.
        Self::page(frame, bits, 0) | LARGE | SOFT
    }

    #[inline]
    fn part_of_huge(entry: Raw, index: usize) -> Raw {
        let offset = (index as u64) << 12;
        let small = entry & !LARGE;
        // Of an aligned frame the low bits are clear, or set where the number is stored inverted.
        if entry & PRESENT != 0 { small | offset } else { small & !offset }
    }

    #[inline]
    fn frozen_empty() -> Raw {
        KIND_FROZEN
    }

    #[inline]
    fn open_table(entry: Raw) -> Option<(FrameId, bool)> {
        let is_open = entry & (PRESENT | LARGE | FROZEN) == PRESENT;
        is_open.then(|| (FrameId::new((entry & FRAME) >> 12), entry & SHARED != 0))
    }

    #[inline]
    fn upper(entry: Raw) -> Upper {
        if entry & (PRESENT | LARGE) == PRESENT {
            let frame = FrameId::new((entry & FRAME) >> 12);
            return Upper::Table { frame, shared: entry & SHARED != 0, frozen: entry & FROZEN != 0 };
        }
        if entry & PRESENT != 0 {
            return Upper::Huge;
        }
        match entry & KIND {
            KIND_EMPTY => Upper::Empty,
            KIND_FROZEN => Upper::Frozen,
            KIND_NONE => Upper::Huge,
            _ => Upper::Poison,
        }
    }

    #[inline]
    fn all_empty(ored: Raw) -> bool {
        // The lowest bit of KIND is PRESENT, and no kind but EMPTY is zero.
        ored & KIND == 0
    }
}

#[cfg(test)]
mod tests;
