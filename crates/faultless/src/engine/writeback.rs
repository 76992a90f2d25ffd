//! Writing back what was stored to files: fsync, msync, and what reclaim will ask for. Protocol P17.
//!
//! A pass over a part of an object claims its dirty pages, has them write-protected in all spaces, and hands them to the
//! pager: here, where waiting is allowed, and with no lock held over the pager's work. Whoever finds a dirty page inside a
//! section says so as a need, and calls [`write_pages`] when it has left.

use super::Cpu;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, VirtAddr};
use crate::area::{AreaFlags, Sharing};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::object::{Object, ObjectError, WriteErrors};
use crate::space::{Registry, Space, Zap};
use crate::sync::mutant;
use alloc::sync::Arc;

/// Pages of a mapping could not be written, now or by somebody else earlier (EIO).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncError {
    /// Where the part of the mapping begins that shows the file. What lies before it was written.
    pub at: VirtAddr,
}

/// Writes what was stored to pages of `range` before the call, and waits for who else writes some. Failures are noted in
/// the object.
pub(crate) fn write_pages<M: Machine>(
    ctx: Ctx<'_, M>,
    registry: &Registry<M>,
    object: &Arc<Object<M>>,
    range: (u64, u64),
) {
    if !object.writes_back() {
        return;
    }
    let (mut at, end) = (range.0, range.1.min(object.size().div_ceil(PAGE_SIZE)));
    let mut again = true;
    // Ends: each part of the range is passed at most twice.
    while at < end {
        let late = mutant::is(mutant::Mutant::ClaimAfterClean);
        let early = if late { None } else { Some(object.claim(ctx, (at, end))) };
        let stop = early.as_ref().map_or(end, |claims| claims.end);
        let found = clean(ctx, registry, object, (at, stop));
        let claims = early.unwrap_or_else(|| object.claim(ctx, (at, end)));
        let busy = claims.busy;
        object.write_claimed(ctx, claims);
        object.await_writes(ctx, (at, stop));
        // Again for pages that only their entries knew to be dirty, for a claim comes before the cleaning, and for those
        // that were stored to while somebody wrote them. Who claims one of these first writes what was stored before.
        let repeats = (found != 0 || busy) && again;
        again = !repeats;
        at = if repeats { at } else { stop };
    }
}

/// Write-protects the pages in all spaces, and flushes. Returns how many were dirty by their entries alone, and are noted
/// as dirty now.
fn clean<M: Machine>(ctx: Ctx<'_, M>, registry: &Registry<M>, object: &Arc<Object<M>>, pages: (u64, u64)) -> u64 {
    object.start_round();
    let zap = Zap { object, pages, copies: false };
    let mut found = 0;
    let all: Result<(), core::convert::Infallible> = registry.each(ctx, |core| {
        found += core.clean(ctx, &zap);
        Ok(())
    });
    let Ok(()) = all;
    found
}

impl<M: Machine> Object<M> {
    /// Writes what was stored to `len` bytes from `offset` before the call, through mappings or by calls, and waits until
    /// the pager has it (fsync, sync_file_range). Nothing if the pager does not want it. `known` is what the caller's handle
    /// has heard of failures: from [`Object::write_errors`] when the handle was made, and kept with it.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Io`] if a page could not be written, now or since `known` was told last, whoever tried. The page
    /// stays dirty, and the next call tries again.
    ///
    /// # Panics
    ///
    /// If the token belongs to another [`Vm`](crate::Vm).
    pub fn sync(
        self: &Arc<Self>,
        cpu: &mut Cpu<M>,
        offset: u64,
        len: u64,
        known: &mut WriteErrors,
    ) -> Result<(), ObjectError> {
        let pages = (offset >> PAGE_SHIFT, offset.saturating_add(len).div_ceil(PAGE_SIZE));
        write_pages(cpu.ctx_in(self.memory()), &cpu.vm.registry, self, pages);
        if self.tell(known) { Err(ObjectError::Io) } else { Ok(()) }
    }
}

impl<M: Machine> Space<M> {
    /// Writes what was stored to the files that shared mappings show in `range`, and waits for it (msync with MS_SYNC).
    /// Parts that are not mapped are passed over.
    ///
    /// # Errors
    ///
    /// [`SyncError`] for the first mapping whose file could not be written. A failure is told once to all who synchronise
    /// mappings of the file.
    pub fn sync(&self, cpu: &mut Cpu<M>, range: PageRange) -> Result<(), SyncError> {
        let ctx = cpu.ctx_in(&self.core.memory);
        let mut result = Ok(());
        let (low, high) = (range.start().as_u64(), range.end().as_u64());
        self.core.areas_between(ctx, low, high, |area| {
            let Some((object, offset)) = &area.object else { return };
            let Some(part) = area.range.intersect(range).filter(|_| area.sharing == Sharing::Shared) else { return };
            if result.is_err() || !object.writes_back() {
                return;
            }
            let first = (offset + (part.start().as_u64() - area.range.start().as_u64())) >> PAGE_SHIFT;
            // Any page may be anywhere in a nonlinear mapping.
            let is_linear = !area.flags.contains(AreaFlags::NONLINEAR);
            let pages = if is_linear { (first, first + part.pages()) } else { (0, u64::MAX) };
            write_pages(ctx, &self.registry, object, pages);
            if object.tell_mappings() {
                result = Err(SyncError { at: part.start() });
            }
        });
        result
    }
}
