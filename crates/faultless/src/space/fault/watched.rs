//! Faults of watched areas: what is reported, and how a fault waits. Protocol P13.
//!
//! Called by `commit` and by the loop in `fault`; areas that nobody watches never come here.

use super::{Carried, FaultError, Need, Work};
use crate::addr::{Access, VirtAddr};
use crate::area::{Area, Report, Waiting, Watch, Watched};
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw};
use crate::machine::{Format, Machine};
use crate::space::Core;
use crate::space::watch::{Empty, Fill, Stuck};
use crate::sync::{Event, mutant};
use alloc::boxed::Box;
use alloc::sync::Arc;

/// What a fault asks, and whom.
pub(crate) struct Asked {
    watch: Arc<Watch>,
    report: Report,
}

impl<M: Machine> Core<M> {
    /// An attempt under an area that is closed for the moment, or watched.
    #[cold]
    pub(super) fn attempt_with_care<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        area: &Area<M>,
        flushed: Option<&Carried>,
        work: &mut Work,
    ) -> Result<(), Need<M>> {
        if area.is_pending() {
            return Err(Need::Wait);
        }
        self.attempt_in::<FORCED, true>(ctx, address, access, area, flushed, work)
    }

    /// Must the fault be reported, given the entry that was loaded? The area was alive after that.
    #[cold]
    pub(super) fn report(&self, address: VirtAddr, access: Access, area: &Area<M>, entry: Raw) -> Result<(), Need<M>> {
        let Some(watch) = area.watch.as_ref().filter(|watch| !watch.watcher.is_closed()) else {
            return Ok(());
        };
        let why = match M::Format::leaf(entry) {
            Leaf::Page(_, bits) if bits.marked && access == Access::Write => Watched::Store,
            Leaf::Empty => match &area.object {
                None => Watched::Missing,
                Some(object) if object.has_page(area.page_index(address)) => Watched::Minor,
                Some(object) if object.is_past_end(area.page_index(address)) => return Ok(()),
                Some(_) => Watched::Missing,
            },
            _ => return Ok(()),
        };
        let modes = watch.modes;
        let wanted = match why {
            Watched::Missing => modes.missing,
            Watched::Minor => modes.minor,
            Watched::Store => modes.stores,
        };
        if !wanted {
            return Ok(());
        }
        if watch.watcher.refuses() {
            return Err(Need::Fail(FaultError::Bus));
        }
        let report = Report { addr: address, access, why };
        Err(Need::Watcher(Box::new(Asked { watch: Arc::clone(watch), report })))
    }

    /// At an EMPTY entry of which nobody has to be told: if it is marked, the page comes in marked, and a store to it is
    /// reported in the next attempt. True if that was all.
    #[cold]
    pub(super) fn keep_mark(
        &self,
        ctx: Ctx<'_, M>,
        (address, access): (VirtAddr, Access),
        place: &Empty<'_, M>,
        work: &mut Work,
    ) -> Result<bool, Need<M>> {
        let area = place.area;
        let is_marked = M::Format::is_marked_empty(place.entry);
        if !is_marked || !area.live_watch().is_some_and(|watch| watch.modes.stores) {
            return Ok(false);
        }
        let index = area.page_index(address);
        let done = match &area.object {
            // A copy begins when the store is answered.
            None if access == Access::Write => place.fill_own(ctx, Fill::Bytes(&[]), true, &mut work.delta),
            None => place.fill_own(ctx, Fill::Zeroes, true, &mut work.delta),
            Some(object) if object.is_past_end(index) => return Ok(false),
            Some(object) if !object.has_page(index) => return Err(Need::Page(Arc::clone(object), index)),
            Some(object) => place.map_cached(ctx, object, index, true, &mut work.delta),
        };
        match done {
            Ok(()) if access == Access::Write => Err(Need::Retry),
            Ok(()) => {
                ctx.count(Event::FaultObject);
                Ok(true)
            }
            Err(Stuck::Memory) => Err(Need::Frames),
            Err(_) => Err(Need::Retry),
        }
    }

    /// Announces the report, looks once more, and waits if it is still so. True if the look resolved the fault.
    ///
    /// The announcement comes first: whoever installs the page, unmaps the range or ends the watch changes something that
    /// the look sees, and then wakes; so either the look sees the change, or the ticket is there to be woken.
    #[cold]
    pub(super) fn ask<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        asked: &Asked,
        work: &mut Work,
    ) -> Result<bool, FaultError> {
        ctx.count(Event::FaultsReported);
        let watcher = &asked.watch.watcher;
        let ticket = watcher.announce(&asked.report);
        if !mutant::is(mutant::Mutant::WaitWithoutLook) {
            let again = self.attempt::<FORCED>(ctx, address, access, work);
            let same = matches!(&again, Err(Need::Watcher(now)) if now.is_same(asked));
            if !same {
                watcher.withdraw(ticket);
                return match again {
                    Ok(()) => Ok(true),
                    Err(Need::Fail(error)) => Err(error),
                    Err(Need::Permission(permit)) => self.ask_pager(ctx, *permit, work).map(|()| false),
                    Err(_) => Ok(false), // met by the loop, if it is still so
                };
            }
        }
        match watcher.wait(ticket) {
            Waiting::Over => Ok(false),
            Waiting::Elsewhere => Err(FaultError::Watched),
        }
    }
}

impl Asked {
    fn is_same(&self, other: &Self) -> bool {
        self.report == other.report && self.watch.is_by(&other.watch.watcher)
    }
}
