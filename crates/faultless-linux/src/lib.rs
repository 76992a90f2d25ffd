//! Linux's words for [`faultless`]: what its memory calls check, in which order, and what they answer.
//!
//! The kernel, the differential tester and embedders who offer Linux's system calls share this crate, so that they
//! answer alike. A [`Memory`] is one process's memory; a [`Caller`] is the process that makes a call; [`calls`] has
//! one file per call; [`text`] writes the memory files of /proc.
//!
//! ```
//! use faultless::{CpuId, Layout, Vm};
//! use faultless_hosted::{Fast, FastConfig};
//! use faultless_linux::calls::{MmapArgs, NoFile, mmap, munmap};
//! use faultless_linux::{Caller, Errno, Limits, Memory};
//! use linux_raw_sys::general::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ};
//!
//! let vm = Vm::new(Fast::new(FastConfig::new(256, 1)).unwrap()).unwrap();
//! let mut cpu = vm.cpu(CpuId::new(0)).unwrap();
//! let memory = Memory::new(vm.new_space(&mut cpu, Layout::linux()).unwrap());
//! let mut caller = Caller { memory: &memory, cpu: &mut cpu, limits: Limits::NONE };
//!
//! let args = MmapArgs { length: 100, protection: PROT_READ, flags: MAP_PRIVATE | MAP_ANONYMOUS, ..MmapArgs::default() };
//! let at = mmap(&mut caller, args, None::<&NoFile>).unwrap();
//! assert_eq!(munmap(&mut caller, at + 1, 4096), Err(Errno::EINVAL));
//! assert_eq!(munmap(&mut caller, at, 4096), Ok(()));
//! memory.space.exit(&mut cpu);
//! ```
//!
//! # Rooms, lowest first
//!
//! | room | what lives there |
//! |---|---|
//! | `errno`, `flags` | numbers and bits as the manual names them |
//! | `memory` | who calls, with which memory and limits |
//! | [`calls`] | one file per call |
//! | [`pagemap`] | /proc: pagemap, clear_refs |
//! | [`text`] | /proc: maps, smaps, statm, the memory lines of status |
//!
//! Absent on purpose: descriptors, user pointers, signals. What the core does not do is refused here, never accepted
//! and ignored; hints are the exception, and each says so.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod calls;
mod errno;
pub mod flags;
mod memory;
pub mod pagemap;
pub mod text;

pub use errno::Errno;
pub use memory::{Caller, Limits, Memory};
