//! Which pages are mapped, and how: for mincore, pagemap, smaps. A look, page by page, that changes nothing (GU-02).

use super::{Core, access::mark};
use crate::addr::{Access, FrameId, PageRange, VirtAddr};
use crate::frame::{Ctx, Kind};
use crate::machine::format::Leaf;
use crate::machine::{AtomicEntry, Format, Machine};
use crate::sync::spin_hint;
use crate::table::{Look, look, scan_to};
use alloc::vec::Vec;

/// What kind of page it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// The shared page of zeroes, which counts for nobody.
    Zero,
    /// Anonymous memory.
    Anon,
    /// A page of a file.
    File,
    /// A page of a memory object.
    Shmem,
    /// Memory without a record of its own.
    Raw,
}

/// A mapped page, as it was when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageInfo {
    /// Where it is mapped.
    pub addr: VirtAddr,
    /// The frame.
    pub frame: FrameId,
    /// What kind.
    pub kind: PageKind,
    /// May it be stored to without a fault, as far as its entry says?
    pub writable: bool,
    /// Anonymous, and known to be this space's alone.
    pub exclusive: bool,
    /// Has it been used since it was last looked at for that?
    pub accessed: bool,
    /// Has it been stored to, through this entry, or by whom the page of an object remembers?
    pub dirty: bool,
    /// Has it been stored to, as far as its entry says, since that was last cleared? Its area may be soft-dirty as a
    /// whole besides ([`AreaFlags::SOFT_DIRTY`](crate::AreaFlags)).
    pub soft_dirty: bool,
    /// Anonymous, and free to be taken when memory runs short until it is stored to (MADV_FREE).
    pub lazily_free: bool,
    /// Entries that map the frame, of all spaces.
    pub mappings: u32,
    /// In how many ways the tables that lead here are shared: 1 if they belong to this space alone. The space's part
    /// of the page is one in `mappings * path_shares`; over all spaces these parts sum up to the page.
    pub path_shares: u64,
    /// Is it part of a large page?
    pub large: bool,
    /// Is that one of the pool (hugetlb)? Then it is no resident memory.
    pub pooled: bool,
}

impl PageInfo {
    /// Does any other entry, or any other space, map the frame too?
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.parts() > 1
    }

    /// This space's part of `whole`, rounded down; nothing of a page that counts for nobody.
    #[must_use]
    pub fn share(&self, whole: u64) -> u64 {
        whole.checked_div(self.parts()).unwrap_or(0)
    }

    fn parts(&self) -> u64 {
        self.path_shares.saturating_mul(u64::from(self.mappings))
    }
}

impl<M: Machine> Core<M> {
    /// The mapped pages of `range`, ascending. The section is left before the caller sees any of a table's pages.
    pub(crate) fn pages(&self, ctx: Ctx<'_, M>, range: PageRange, mut visit: impl FnMut(PageInfo)) {
        let end = range.end().min(self.layout.highest).as_u64();
        let mut at = range.start().as_u64();
        let mut seen: Vec<PageInfo> = Vec::new();
        // Ends: each round passes a table, or follows another CPU's change of the way to it, or waits for a fork.
        while at < end {
            let section = ctx.enter(self.section_name());
            if self.has_exited() {
                return;
            }
            let next = scan_to(ctx, self.root, at, end, &mut |page| seen.extend(self.info(ctx, page)));
            if next.is_some_and(|(end, last)| !self.reaches(ctx, end - 1, last)) {
                // What a table says that the space has left meanwhile is not about this space. Or a fork is under way.
                drop(section);
                seen.clear();
                ctx.relax();
                spin_hint();
                continue;
            }
            drop(section);
            at = next.map_or(end, |(next, _)| next);
            seen.drain(..).for_each(&mut visit);
        }
    }

    /// Does a walk to `at` come to this entry? In the section in which it was found.
    fn reaches(&self, ctx: Ctx<'_, M>, at: u64, entry: &AtomicEntry) -> bool {
        look(ctx, self.root, VirtAddr::new(at)).is_some_and(|now| core::ptr::eq(now.slot, entry))
    }

    fn info(&self, ctx: Ctx<'_, M>, seen: crate::table::Seen) -> Option<PageInfo> {
        let (Leaf::Page(frame, bits) | Leaf::None(frame, bits)) = M::Format::leaf(seen.entry) else {
            return None;
        };
        let holder = if seen.large { ctx.memory.holder(frame) } else { frame };
        let record = (!bits.special).then(|| ctx.record(holder));
        let kind = record.map(crate::frame::Record::kind);
        let pooled = kind == Some(Kind::Huge);
        let kind = match kind {
            Some(Kind::Huge) if !ctx.memory.is_anon(holder) => PageKind::Shmem,
            Some(Kind::File) => PageKind::File,
            Some(Kind::Memory) => PageKind::Shmem,
            Some(_) => PageKind::Anon,
            None if frame == ctx.memory.zero_frame() => PageKind::Zero,
            None => PageKind::Raw,
        };
        Some(PageInfo {
            addr: VirtAddr::new(seen.address),
            frame,
            kind,
            writable: bits.write && seen.shares == 1,
            exclusive: bits.exclusive && seen.shares == 1,
            accessed: M::Format::is_accessed(seen.entry),
            dirty: bits.dirty || record.is_some_and(crate::frame::Record::is_dirty),
            soft_dirty: M::Format::is_soft(seen.entry),
            lazily_free: kind == PageKind::Anon && !pooled && !bits.dirty && !bits.pending,
            mappings: record.map_or(0, |record| record.counts().1),
            path_shares: seen.shares,
            large: seen.large,
            pooled,
        })
    }

    /// Does the entry of `address` permit the access as it is? Then a store is noted there as if it had been made: memory
    /// that is brought in to be stored to is not free to be taken any more (MADV_FREE).
    pub(super) fn is_adequate(&self, ctx: Ctx<'_, M>, address: VirtAddr, access: Access) -> bool {
        let _section = ctx.enter(self.section_name());
        if self.has_exited() {
            return false;
        }
        let Some(Look { slot, entry, leaf, shared, .. }) = look(ctx, self.root, address) else {
            return false;
        };
        match M::Format::leaf(leaf) {
            Leaf::Page(_, bits) => match access {
                Access::Read => true,
                Access::Execute => bits.execute,
                Access::Write => bits.write && !shared && mark::<M>(slot, entry, access),
            },
            _ => false,
        }
    }
}
