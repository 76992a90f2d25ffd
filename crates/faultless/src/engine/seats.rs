//! The tokens of the CPUs: each is out once at a time.

use super::CpuError;
use crate::addr::CpuId;
use crate::sync::{Held, Lock, Rank};
use alloc::vec;
use alloc::vec::Vec;

/// A CPU's token while it is not out.
#[derive(Clone, Copy)]
struct Seat {
    taken: bool,
    /// Stamps given out by earlier holders: a stamp is never given twice (P1).
    stamps: u64,
}

/// All tokens.
pub(super) struct Seats(Lock<Vec<Seat>>);

impl Seats {
    /// For a machine of `cpus` CPUs.
    pub(super) fn new(cpus: usize) -> Self {
        Self(Lock::new(Rank::Object, vec![Seat { taken: false, stamps: 0 }; cpus]))
    }

    /// Claims a CPU's token; returns where its stamps go on.
    pub(super) fn claim(&self, id: CpuId) -> Result<u64, CpuError> {
        let held = Held::default();
        let mut seats = self.0.lock(&held, core::hint::spin_loop);
        let seat = seats.get_mut(id.as_usize()).ok_or(CpuError::NoSuchCpu)?;
        if core::mem::replace(&mut seat.taken, true) {
            return Err(CpuError::Taken);
        }
        Ok(seat.stamps)
    }

    /// Tokens that are out.
    pub(super) fn taken(&self) -> usize {
        let held = Held::default();
        self.0.lock(&held, core::hint::spin_loop).iter().filter(|seat| seat.taken).count()
    }

    /// Takes a CPU's token back.
    pub(super) fn give_back(&self, id: CpuId, stamps: u64) {
        let held = Held::default();
        self.0.lock(&held, core::hint::spin_loop)[id.as_usize()] = Seat { taken: false, stamps };
    }
}
