//! One address space: one file per operation, and the fault.
//!
//! Called by `engine`, which owns the loops that wait for others. An operation holds the locks of the stripes it
//! touches from its first look at the index until its last flush; a fault holds none. Here, and only here, what
//! `table` removed meets the receipts of `tlb`.
//!
//! | holding | areas stay | areas change | entries |
//! |---|---|---|---|
//! | a section | allocated | yes | commit by exact compare-exchange |
//! | a stripe's lock | as they are, in that stripe | by us | sweep |
//! | all stripes' locks | as they are | by us | fork |

mod access;
mod advise;
mod brk;
mod clean;
mod clear;
mod collapse;
mod exit;
mod extent;
mod fault;
mod footprint;
mod fork;
mod grow;
mod hidden;
mod huge;
mod hugetlb;
mod large_fault;
mod map;
mod nonlinear;
mod pages;
mod pin;
mod protect;
mod query;
mod raw;
mod registry;
mod remap;
mod settle;
mod single;
mod steal;
mod tell;
mod truncate;
mod unmap;
mod usage;
mod watch;

pub use access::AccessError;
pub use advise::{AdviseError, Populate, PopulateError};
pub use clear::{ClearRefs, ClearRefsError};
pub use collapse::CollapseError;
pub use extent::{Extent, Limits};
pub use fault::{FaultError, Resolved};
pub use footprint::Footprint;
pub use fork::ForkError;
pub use huge::HugePages;
pub use map::{Backing, MapError, MapRequest, Placement};
pub use nonlinear::NonlinearError;
pub use pages::{PageInfo, PageKind};
pub use pin::{PinError, Pinned};
pub use protect::ProtectError;
pub use query::AreaInfo;
pub use raw::{InsertError, Page};
pub(crate) use registry::Registry;
pub use remap::{Destination, RemapError, RemapRequest};
pub(crate) use truncate::Zap;
pub use unmap::UnmapError;
pub use usage::Usage;
pub use watch::{Fill, WatchError};

use crate::addr::{FrameId, VirtAddr};
use crate::area::{Index, StripeGuard};
use crate::frame::{Ctx, Memory};
use crate::machine::{Format, Machine};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::table::user_end;
use crate::tlb::Mask;
use alloc::sync::Arc;
use core::fmt;
use extent::Account;
use usage::Counters;

/// Where things go in a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Lowest address that may be mapped.
    pub lowest: VirtAddr,
    /// One past the highest.
    pub highest: VirtAddr,
    /// Mappings without an address go below this, highest first.
    pub mmap_top: VirtAddr,
    /// Most bytes that an area which grows downwards may have.
    pub stack_limit: u64,
}

impl Layout {
    /// Linux's on x86-64 with 4 levels, without randomisation: 64 KiB to 128 TiB less a page, 8 MiB of stack.
    #[must_use]
    pub const fn linux() -> Self {
        Self {
            lowest: VirtAddr::new(0x1_0000),
            highest: VirtAddr::new(0x7fff_ffff_f000),
            mmap_top: VirtAddr::new(0x7fff_f7ff_f000),
            stack_limit: 8 << 20,
        }
    }

    /// Are the addresses in order, of whole pages, and inside user space?
    pub(crate) fn fits<F: Format>(&self) -> bool {
        let ends = [self.lowest, self.mmap_top, self.highest, VirtAddr::new(user_end::<F>())];
        ends.is_sorted() && ends.iter().all(|end| end.is_aligned()) && self.lowest < self.mmap_top
    }
}

/// One address space.
///
/// Share it with an `Arc`; every method takes `&self` and the token of the CPU it runs on. Call [`Space::exit`] when
/// no CPU runs it any more; a space that is dropped without it is taken down by its drop, more slowly.
pub struct Space<M: Machine> {
    pub(crate) core: Arc<Core<M>>,
    pub(crate) registry: Arc<Registry<M>>,
}

/// The space itself.
///
/// Letters: (I) fixed, (A) atomic alone, (S) written under a stripe's lock, (P) each CPU writes its own part.
pub(crate) struct Core<M: Machine> {
    /// Ascending over the life of the `Vm`; the low 31 bits name the space in section words.
    pub(crate) id: u64, // (I)
    pub(crate) root: FrameId,        // (I)
    pub(crate) layout: Layout,       // (I)
    pub(crate) mask: Mask,           // (A)
    pub(crate) index: Index<M>,      // (S)
    pub(crate) counters: Counters,   // (P)
    pub(crate) account: Account,     // (P)
    pub(crate) brk_start: AtomicU64, // (S) the stripe that holds it
    pub(crate) brk: AtomicU64,       // (S) the stripe of `brk_start`
    /// Most bytes of a growing stack; starts as the layout says.
    pub(crate) stack_limit: AtomicU64, // (A)
    /// Stripes whose root slots may name tables, one bit each.
    pub(crate) touched: AtomicU64, // (A)
    /// Has a fork ever made tables shared with another space?
    pub(crate) has_shared: AtomicBool, // (S) once true, for ever
    /// May a table lie where no area is (PL-05)?
    pub(crate) strays: AtomicBool, // (A) once true, for ever
    /// Has any range ever been watched?
    pub(crate) watched: AtomicBool, // (S) once true, for ever
    /// No large page is made on a store (PR_SET_THP_DISABLE).
    pub(crate) no_huge: AtomicBool, // (A)
    pub(crate) exited: AtomicBool,   // (S) all stripes; once true, for ever
    /// Has all that it mapped been released, after `exited`?
    pub(crate) down: AtomicBool, // (A) once true, for ever
    pub(crate) memory: Arc<Memory<M>>, // (I)
}

impl<M: Machine> Core<M> {
    /// An empty space around a fresh root table.
    pub(crate) fn new(memory: Arc<Memory<M>>, id: u64, root: FrameId, layout: Layout) -> Self {
        let cpus = memory.sections().cpus();
        Self {
            id,
            root,
            layout,
            mask: Mask::new(cpus),
            index: Index::new(),
            counters: Counters::new(cpus),
            account: Account::new(cpus),
            brk_start: AtomicU64::new(0),
            brk: AtomicU64::new(0),
            stack_limit: AtomicU64::new(layout.stack_limit),
            touched: AtomicU64::new(0),
            has_shared: AtomicBool::new(false),
            strays: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            no_huge: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            down: AtomicBool::new(false),
            memory,
        }
    }

    /// The name of the space in section words. Two spaces may share one after 2^31 forks: that only costs waiting.
    #[inline]
    pub(crate) fn section_name(&self) -> u32 {
        (self.id & 0x7fff_ffff) as u32
    }

    /// Locks the stripes that `low..high` meets.
    #[inline]
    pub(crate) fn lock<'a>(&'a self, ctx: Ctx<'a, M>, low: u64, high: u64) -> StripeGuard<'a> {
        self.index.lock(ctx.cpu.held(), low, high, move || ctx.relax())
    }

    /// Notes that a fault linked a table on the way to `address`.
    pub(crate) fn touch(&self, address: VirtAddr) {
        let bit = 1 << Index::<M>::stripe_of(address.as_u64());
        // Relaxed: read by a fork after its grace period, which orders it.
        if self.touched.load(Ordering::Relaxed) & bit == 0 {
            self.touched.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Notes that a table may lie where no area is.
    pub(crate) fn note_strays(&self) {
        // Relaxed: read by sweeps, which see the end of the section in which a fault noted it.
        if !self.strays.load(Ordering::Relaxed) {
            self.strays.store(true, Ordering::Relaxed);
        }
    }

    /// May the root slots of this stripe name tables, or gain one under a live area?
    pub(crate) fn is_used(&self, stripe: usize) -> bool {
        self.touched.load(Ordering::Relaxed) >> stripe & 1 == 1 || !self.index.is_empty(stripe)
    }

    /// Has the space been taken down? Exact under any stripe's lock; in a section, one that exit does not wait for sees
    /// it.
    pub(crate) fn has_exited(&self) -> bool {
        // Relaxed: the stripe locks order it, and so do the barriers of sections.
        self.exited.load(Ordering::Relaxed)
    }
}

impl<M: Machine> fmt::Debug for Space<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("id", &self.core.id).field("root", &self.core.root).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
