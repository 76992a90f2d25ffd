//! **faultless**: the virtual-memory subsystem you embed.
//!
//! Linux's memory semantics (mmap, fork, copy-on-write, page cache) on page tables that you own: page faults that take
//! no address-space lock and no page-table lock, and a fork that shares page tables and still counts every page exactly.
//!
//! Implement [`Machine`] (RAM, CPUs, TLB), build a [`Vm`], make a [`Space`], and call [`Space::map`],
//! [`Space::fault`] and [`Space::fork`]. `examples/embed.rs` is the smallest complete embedding; in `examples/driver.rs` a
//! driver maps frames of its own. What an embedder may implement besides: a [`Pager`] (where a file's pages come from, and
//! where they go) and a [`Watcher`] (who is told of faults, as by userfaultfd).
//!
//! # Rooms
//!
//! The modules are rooms, lowest first; a room calls lower rooms only, never sideways, never up.
//!
//! | room | what lives there |
//! |---|---|
//! | [`addr`] | addresses, page ranges, rights: values only |
//! | `sync` | the only place that names atomics: sections, ranked locks, tallies |
//! | [`machine`] | the contract an embedder implements; the entry codec per architecture |
//! | `frame` | one record per frame, typed handles, the allocator with its per-CPU caches |
//! | `table` | page tables: entry state machine, lock-free walk, sweeps, sharing |
//! | `tlb` | which CPUs run a space, shootdown, receipts |
//! | [`object`] | what stands behind a page: memory objects and files through a [`Pager`] |
//! | `area` | attributes of a mapped range and the index that finds them without a lock |
//! | [`space`] | one address space, one file per operation |
//! | [`engine`] | [`Vm`] and [`Cpu`], the public API, the only loops that wait |
//!
//! # Absent on purpose
//!
//! No statics that hold state, no thread-locals: two [`Vm`]s live in one process. Nothing here does I/O except through
//! a [`Pager`], and nothing below [`engine`] waits.
#![no_std]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(any(loom, shuttle, test))]
extern crate std;

pub mod addr;
mod area;
pub mod engine;
mod frame;
pub mod machine;
pub mod object;
pub mod space;
mod sync;
mod table;
mod tlb;

#[cfg(any(loom, shuttle, feature = "mutants"))]
#[doc(hidden)]
pub use sync::mutant;

pub use addr::{Access, CpuId, CpuSet, FrameId, FrameRange, PAGE_SHIFT, PAGE_SIZE, PageRange, Rights, VirtAddr};
pub use area::{AreaFlags, RangeEvent, Report, STACK_GUARD, Sharing, Ticket, Waiting, WatchModes, Watched, Watcher};
pub use engine::{Census, Cpu, CpuError, OutOfMemory, SetupError, Stats, SyncError, Vm};

pub use frame::{CommitPolicy, HugePool};
pub use machine::{AtomicEntry, Flush, Machine, RawFrames, Scope};
pub use object::{HasWriters, Object, ObjectError, PageReader, PageWriter, Pager, PagerError, Standing, WriteErrors};
pub use space::{
    AccessError, AdviseError, AreaInfo, Backing, ClearRefs, ClearRefsError, CollapseError, Destination, Extent,
    FaultError, Fill, Footprint, ForkError, HugePages, InsertError, Layout, Limits, MapError, MapRequest,
    NonlinearError, Page, PageInfo, PageKind, PinError, Pinned, Placement, Populate, PopulateError, ProtectError,
    RemapError, RemapRequest, Resolved, Space, UnmapError, Usage, WatchError,
};
