//! The calls: what Linux checks, in Linux's order, before and after the core is asked. One file per call.
//!
//! | file | calls |
//! |---|---|
//! | `mmap` | `mmap` |
//! | `munmap` | `munmap` |
//! | `mprotect` | `mprotect` |
//! | `brk` | `brk` |
//! | `madvise` | `madvise` |
//! | `mincore` | `mincore` |
//! | `mremap` | `mremap` |
//! | `msync` | `msync` |
//! | `remap_file_pages` | `remap_file_pages` |
//! | [`userfaultfd`] | the requests of a `userfaultfd` |
//! | `mlock` | `mlock`, `mlock2`, `mlockall`, `munlock`, `munlockall` |
//!
//! Absent on purpose, and therefore for the embedder to answer with `ENOSYS`: `mseal`, protection
//! keys, `process_madvise`. The core does not offer what they need.

mod brk;
mod madvise;
mod mincore;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod msync;
mod munmap;
mod remap_file_pages;
pub mod userfaultfd;

pub use brk::brk;
pub use madvise::madvise;
pub use mincore::{MINCORE_PART, mincore};
pub use mlock::{mlock, mlock2, mlockall, munlock, munlockall};
pub use mmap::{FileRights, MapFile, MapTarget, MmapArgs, NoFile, mmap};
pub use mprotect::mprotect;
pub use mremap::{MremapArgs, mremap};
pub use msync::msync;
pub use munmap::munmap;
pub use remap_file_pages::{RemapFilePagesArgs, remap_file_pages};
