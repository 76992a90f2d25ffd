//! What the pages of a range are, summed (smaps, smaps_rollup). A look that changes nothing (GU-02).

use super::{Core, PageInfo, PageKind};
use crate::addr::{PAGE_SIZE, PageRange};
use crate::frame::Ctx;
use crate::machine::Machine;
use core::ops::AddAssign;

/// The pages of a range by what they are. Plain sums are in pages. A share of a page is in bytes with
/// [`Footprint::FRACTION_BITS`] binary digits behind the point: a page divided by how many spaces show it, such that over
/// all spaces the shares sum up to the page, but for what the division cuts off.
///
/// Pages that count for nobody are left out: the page of zeroes, and memory without records.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Mapped pages (Rss).
    pub resident: u64,
    /// Shares of anonymous pages (Pss_Anon).
    pub anon_share: u64,
    /// Shares of pages of files (Pss_File).
    pub file_share: u64,
    /// Shares of pages of memory objects (Pss_Shmem).
    pub shmem_share: u64,
    /// Shares of dirty pages (Pss_Dirty).
    pub dirty_share: u64,
    /// Mapped elsewhere too, and not dirty (Shared_Clean).
    pub shared_clean: u64,
    /// Mapped elsewhere too, and dirty (Shared_Dirty).
    pub shared_dirty: u64,
    /// Mapped here only, and not dirty (Private_Clean).
    pub private_clean: u64,
    /// Mapped here only, and dirty (Private_Dirty).
    pub private_dirty: u64,
    /// Used since that was last cleared (Referenced).
    pub referenced: u64,
    /// Anonymous (Anonymous).
    pub anonymous: u64,
    /// Free to be taken when memory runs short (LazyFree).
    pub lazy_free: u64,
    /// Of `anonymous`, those in large pages (AnonHugePages).
    pub anon_huge: u64,
    /// In large pages of the pool that are mapped elsewhere too (Shared_Hugetlb). Not part of the other sums.
    pub shared_hugetlb: u64,
    /// In large pages of the pool that are mapped here only (Private_Hugetlb). Not part of the other sums.
    pub private_hugetlb: u64,
}

impl Footprint {
    /// Binary digits behind the point of a share.
    pub const FRACTION_BITS: u32 = 12;

    /// The shares of pages of all kinds (Pss).
    #[must_use]
    pub fn share(&self) -> u64 {
        self.anon_share + self.file_share + self.shmem_share
    }

    fn add_page(&mut self, page: &PageInfo) {
        if page.pooled {
            let is_shared = page.is_shared();
            *(if is_shared { &mut self.shared_hugetlb } else { &mut self.private_hugetlb }) += 1;
            return;
        }
        let share = page.share(PAGE_SIZE << Self::FRACTION_BITS);
        match page.kind {
            PageKind::Zero | PageKind::Raw => return,
            PageKind::Anon => self.anon_share += share,
            PageKind::File => self.file_share += share,
            PageKind::Shmem => self.shmem_share += share,
        }
        self.resident += 1;
        self.anonymous += u64::from(page.kind == PageKind::Anon);
        self.anon_huge += u64::from(page.large);
        self.referenced += u64::from(page.accessed);
        self.lazy_free += u64::from(page.lazily_free);
        self.dirty_share += if page.dirty { share } else { 0 };
        *match (page.is_shared(), page.dirty) {
            (true, false) => &mut self.shared_clean,
            (true, true) => &mut self.shared_dirty,
            (false, false) => &mut self.private_clean,
            (false, true) => &mut self.private_dirty,
        } += 1;
    }
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Self) {
        self.resident += other.resident;
        self.anon_share += other.anon_share;
        self.file_share += other.file_share;
        self.shmem_share += other.shmem_share;
        self.dirty_share += other.dirty_share;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.lazy_free += other.lazy_free;
        self.anon_huge += other.anon_huge;
        self.shared_hugetlb += other.shared_hugetlb;
        self.private_hugetlb += other.private_hugetlb;
    }
}

impl<M: Machine> Core<M> {
    /// The sums over the pages of `range`.
    pub(crate) fn footprint(&self, ctx: Ctx<'_, M>, range: PageRange) -> Footprint {
        let mut sums = Footprint::default();
        self.pages(ctx, range, |page| sums.add_page(&page));
        sums
    }
}
