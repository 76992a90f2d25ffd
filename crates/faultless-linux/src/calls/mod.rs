//! The calls: what Linux checks, in Linux's order, before and after the core is asked. One file per call.
//!
//! | file | calls |
//! |---|---|
//! | `mmap` | `mmap` |
//! | `munmap` | `munmap` |
//! | `mprotect` | `mprotect` |
//! | `brk` | `brk` |
//! | `fallocate` | `fallocate`, as far as it needs no file |
//! | `madvise` | `madvise` |
//! | `mincore` | `mincore` |
//! | `mremap` | `mremap` |
//! | `msync` | `msync` |
//! | `remap_file_pages` | `remap_file_pages` |
//! | [`userfaultfd`] | the requests of a `userfaultfd` |
//! | `mlock` | `mlock`, `mlock2`, `mlockall`, `munlock`, `munlockall` |
//!
//! | `mseal` | `mseal` |
//! | `process_vm` | how `process_vm_readv` and `process_vm_writev` move bytes |
//! | `pkeys` | `pkey_alloc`, `pkey_free`, `pkey_mprotect`, as on a CPU without protection keys |

mod brk;
mod fallocate;
mod madvise;
mod mincore;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod mseal;
mod msync;
mod munmap;
mod pkeys;
mod process_vm;
mod remap_file_pages;
pub mod userfaultfd;

pub use brk::brk;
pub use fallocate::{Allocation, allocation, check_fallocate};
pub use madvise::madvise;
pub use mincore::{MINCORE_PART, mincore};
pub use mlock::{mlock, mlock2, mlockall, munlock, munlockall};
pub use mmap::{FileRights, MapFile, MapTarget, MmapArgs, NoFile, mmap};
pub use mprotect::mprotect;
pub use mremap::{MremapArgs, mremap};
pub use mseal::mseal;
pub use msync::msync;
pub use munmap::munmap;
pub use pkeys::{pkey_alloc, pkey_free, pkey_mprotect};
pub use process_vm::{read_remote, write_remote};
pub use remap_file_pages::{RemapFilePagesArgs, remap_file_pages};
