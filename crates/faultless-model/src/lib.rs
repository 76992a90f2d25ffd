//! The naive sequential oracle: what Linux's memory operations mean, written so plainly that it can be believed.
//!
//! A space is a list of areas and a map from page number to contents; fork is clone; a fault is a look at both. Called
//! by the tests of everything that implements memory. [`history`] is the second oracle, for runs in which several CPUs
//! work at once: it knows when each operation began and ended and judges whether a result was possible.
//!
//! Absent on purpose: any dependency on what it judges, page tables, sharing, generations, speed.
//!
//! ```
//! use faultless_model::{Limits, Request, Rights, World};
//!
//! let mut world = World::new(Limits::linux());
//! let parent = world.new_space();
//! let at = world.map(parent, &Request::anonymous(0x4000)).unwrap();
//! world.write(parent, at, b"parent").unwrap();
//! let child = world.fork(parent);
//! world.write(child, at, b"child!").unwrap();
//!
//! let mut seen = [0; 6];
//! world.read(parent, at, &mut seen).unwrap();
//! assert_eq!(&seen, b"parent");
//! assert_eq!(world.resident(child).anon, 1);
//! # assert_eq!(Rights::READ_WRITE.letters(), "rw-");
//! ```

#![forbid(unsafe_code)]

mod advise;
mod area;
pub mod history;
mod object;
mod space;
mod touch;
mod world;

pub use advise::{Move, MoveRefusal, Populate, Target};
pub use area::{AreaView, Attributes, Rights};
pub use object::{ObjectId, Source};
pub use space::Resident;
pub use touch::{Cut, Touch, Verdict};
pub use world::{Limits, MapRefusal, Place, ProtectRefusal, Request, Shows, SpaceId, World};

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// The contents of a page.
pub(crate) type Contents = std::sync::Arc<[u8; PAGE as usize]>;

/// A page of zeroes.
pub(crate) fn zeroes() -> Contents {
    std::sync::Arc::new([0; PAGE as usize])
}

/// `address` rounded up to a page boundary.
pub(crate) fn page_up(address: u64) -> u64 {
    address.div_ceil(PAGE) * PAGE
}
