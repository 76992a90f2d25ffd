//! What a step answered and which faults it took: compared, but for what is accepted.
//!
//! Called by `judge`.

use super::tame::{allocates, may_fault_around};
use super::{Failure, Trial, whose};
use crate::arena;
use crate::scenario::Op;
use crate::view::{Answer, Burst, Outcome, Source};
use faultless::Sharing;
use faultless_hosted::Mmu;
use linux_raw_sys::general as linux;

impl<M: Mmu> Trial<M> {
    pub(super) fn compare_outcome(
        &mut self,
        process: usize,
        op: &Op,
        host: &Outcome,
        ours: &Outcome,
    ) -> Result<(), Failure> {
        if host.answer != ours.answer {
            let texts = (format!("{:?}", host.answer), format!("{:?}", ours.answer));
            return Err(self.differs(process, "the answer", texts.0, texts.1));
        }
        let same = (host.minor, host.major) == (ours.minor, ours.major);
        if !same && self.explain_faults(process, op, host, ours).is_none() {
            let text = |outcome: &Outcome| format!("{} minor, {} major", outcome.minor, outcome.major);
            return Err(self.differs(process, "faults", text(host), text(ours)));
        }
        Ok(())
    }

    /// The accepted difference that explains why fault counts differ.
    fn explain_faults(&mut self, process: usize, op: &Op, host: &Outcome, ours: &Outcome) -> Option<&'static str> {
        if host.major != ours.major {
            return None;
        }
        if host.minor < ours.minor && may_fault_around(op) {
            return Some("fault-around");
        }
        if let Some((process, at, len)) = stores(process, op) {
            let shared = |sharing| sharing == Sharing::Shared;
            let pages = self.ours.shows_disk(process, at, len, shared);
            if host.minor > ours.minor && host.minor - ours.minor <= pages {
                return Some("disk-notify");
            }
        }
        let process = whose(process, op);
        let more = matches!(op, Op::Load { .. } | Op::Store { .. } | Op::Peek { .. } | Op::Poke { .. })
            && host.minor < ours.minor;
        let fewer = match *op {
            Op::Store { at, width, .. } if host.minor > ours.minor => {
                let mut sharings =
                    [at, at + u64::from(width) - 1].map(|at| self.ours.sharing_at(process, at)).into_iter();
                sharings.any(|sharing| sharing == Some(Sharing::Private))
            }
            // The stores of a call; by pages, they are both kinds.
            Op::Advise { advice: linux::MADV_POPULATE_WRITE, .. }
            | Op::Peek { .. }
            | Op::Poke { .. }
            | Op::Lock { .. }
            | Op::LockAll { .. }
            | Op::Protect { .. } => host.minor > ours.minor,
            _ => false,
        };
        (self.lives.has_forked(process) && (more || fewer)).then_some("fork-shared-tables")
    }

    /// The sum of faults: with files about, those that fault-around saved Linux; after a fork, either side may take more.
    /// Some step of the burst may have mapped files that are mapped no more: `around`.
    pub(super) fn compare_burst_faults(
        &mut self,
        process: usize,
        host: &Burst,
        ours: &Burst,
        around: bool,
    ) -> Result<(), Failure> {
        let files =
            around || self.ours.view(process).mappings.iter().any(|mapping| mapping.source != Source::Anonymous);
        let same = (host.minor, host.major) == (ours.minor, ours.major);
        let explained =
            host.major == ours.major && (host.minor < ours.minor && files || self.lives.has_forked(process));
        if same || explained {
            return Ok(());
        }
        let text = |burst: &Burst| format!("{} minor, {} major", burst.minor, burst.major);
        Err(self.differs(process, "faults of a burst", text(host), text(ours)))
    }

    /// What is not foreseeable of files on a disk (`disk-cache`), and of allocated pages (`fallocate-mincore`).
    pub(super) fn overlook(&mut self, process: usize, op: &Op, host: &mut Outcome, ours: &mut Outcome) {
        if self.has_disk {
            for outcome in [&mut *host, &mut *ours] {
                outcome.minor += std::mem::take(&mut outcome.major);
            }
        }
        self.has_allocated |= allocates(op);
        let (Op::Resident { at, .. }, Answer::Bytes(host), Answer::Bytes(ours)) =
            (*op, &mut host.answer, &mut ours.answer)
        else {
            return;
        };
        for (page, (host, ours)) in (0..).zip(host.iter_mut().zip(ours.iter_mut())) {
            let cached = *host > *ours && self.has_disk;
            let mut on_disk = || self.ours.shows_disk(process, at + page * arena::PAGE, 1, |_| true) != 0;
            if cached && on_disk() {
                *host = *ours;
            }
            if *host < *ours && self.has_allocated {
                *ours = *host;
            }
        }
    }
}

/// The range that a step stores to, and whose.
fn stores(process: usize, op: &Op) -> Option<(usize, u64, u64)> {
    match *op {
        Op::Store { at, width, .. } => Some((process, at, width.into())),
        Op::Poke { other, at, len, .. } => Some((other, at, len as u64)),
        Op::Advise { at, len, advice: linux::MADV_POPULATE_WRITE } => Some((process, at, len)),
        _ => None,
    }
}
