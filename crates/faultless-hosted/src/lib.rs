//! Machines in user space for [`faultless`]: memory that is a memfd, CPUs that are threads, MMUs in software.
//!
//! A CPU ([`HostedCpu`]) runs a space and loads, stores and fetches through its TLB, then a page walk that sets accessed
//! and dirty bits as hardware does, then a fault. There are two machines:
//!
//! - [`Fast`]: for embedding, emulators and benchmarks;
//! - [`Hostile`]: everything that the processor's manual allows and nobody hopes for, replayed exactly from a seed.
//!
//! ```
//! use faultless::{CpuId, Layout, MapRequest, VirtAddr, Vm};
//! use faultless_hosted::{Fast, FastConfig, HostedCpu};
//! use std::sync::Arc;
//!
//! let vm = Vm::new(Fast::new(FastConfig::new(256, 1))?).unwrap();
//! let mut cpu = HostedCpu::new(&vm, CpuId::new(0)).unwrap();
//! let space = Arc::new(vm.new_space(cpu.token(), Layout::linux()).unwrap());
//! cpu.run(&space);
//!
//! let at = space.map(cpu.token(), MapRequest::anonymous(0x4000)).unwrap();
//! cpu.store(at, 42u64).unwrap(); // misses the TLB, finds no page, faults, stores
//! assert_eq!(cpu.load::<u32>(at).unwrap(), 42);
//! assert!(cpu.load::<u8>(VirtAddr::new(0x1000)).is_err());
//!
//! cpu.stop();
//! space.exit(cpu.token());
//! # Ok::<(), rustix::io::Errno>(())
//! ```
//!
//! # Rooms, lowest first
//!
//! | room | what lives there | unsafe |
//! |---|---|---|
//! | [`arena`] | the frames | yes |
//! | `barrier`, `entry`, `walk`, `rng` | membarrier; the manual's entry bits; the page walk; seeded choices | no |
//! | `mmu`, `cpu` | what both faces have in common | no |
//! | `fast`, `hostile` | the machines (the promise to `faultless` is an `unsafe impl`) | impl |

#![warn(missing_docs)]

pub mod arena;
mod barrier;
pub mod conformance;
mod cpu;
mod entry;
mod fast;
mod hostile;
mod mmu;
pub mod rng;
mod walk;

pub use arena::{Arena, Populate, Word};
pub use cpu::HostedCpu;
pub use fast::{Barriers, Fast, FastConfig};
pub use hostile::{Body, Failing, Hostile, HostileConfig, Schedule};
pub use mmu::Mmu;
pub use rng::Rng;
pub use rustix::io::Errno;
pub use walk::PageFault;
