//! Stores to shared pages whose pager is asked first: the "becomes writable" callback (CW-08). Protocol P17.
//!
//! Called by `commit` and by the loop in `fault`. Areas of other objects never come here. The pager is asked outside the
//! section, with no lock held; the object and the page are kept by references, the area by nothing: the next attempt
//! looks it up anew, and all the rest, and makes the page writable only if nothing has changed.

use super::{Carried, FaultError, Need, Work};
use crate::addr::FrameId;
use crate::area::Area;
use crate::frame::Ctx;
use crate::machine::format::{Leaf, Raw};
use crate::machine::{AtomicEntry, Format, Machine};
use crate::object::Object;
use crate::space::Core;
use crate::sync::mutant;
use crate::table::load;
use alloc::sync::Arc;

/// What the pager is asked.
pub(crate) struct Permit<M: Machine> {
    object: Arc<Object<M>>,
    index: u64,
    /// The page, with a reference.
    frame: FrameId,
    /// Cleans of the object before the question.
    rounds: u64,
}

/// How a store goes on.
pub(super) enum Step {
    /// No permission is needed for what is to be done.
    Go,
    /// Nothing is mapped: the page is mapped for reading first, for a permission is for a page.
    MapFirst,
    /// The pager permits stores to this page.
    Store(FrameId),
}

/// What a permission depends on, in the place of an entry: no value of a present one.
fn void_after(rounds: u64) -> Raw {
    rounds << 1
}

/// What a store to the entry that was loaded needs. Inside the section; the area was alive after the load.
#[cold]
pub(super) fn next_step<M: Machine>(
    ctx: Ctx<'_, M>,
    area: &Area<M>,
    slot: &AtomicEntry,
    entry: Raw,
    permitted: Option<&Carried>,
) -> Result<Step, Need<M>> {
    let frame = match M::Format::leaf(entry) {
        Leaf::Page(frame, bits) if !bits.write && !bits.special => frame,
        Leaf::Empty | Leaf::Offset(_) => return Ok(Step::MapFirst),
        _ => return Ok(Step::Go),
    };
    let object = area.object.as_ref().ok_or(Need::Retry)?;
    // In this order: if the answer is that of a clean that has begun, so is its claim seen (P17).
    let rounds = object.rounds();
    if ctx.record(frame).is_writing() && !mutant::is(mutant::Mutant::AskWhileWritten) {
        return Err(Need::Wait);
    }
    let is_good = |permit: &Carried| {
        let same = permit.frame == frame || mutant::is(mutant::Mutant::PermitOtherPage);
        same && (permit.entry == void_after(rounds) || mutant::is(mutant::Mutant::OldPermission))
    };
    if permitted.is_some_and(is_good) {
        return Ok(Step::Store(frame));
    }
    let record = ctx.record(frame);
    if !record.try_get(0) {
        return Err(Need::Retry);
    }
    // With the reference: is it still the page that is mapped here?
    if load(slot) != entry {
        ctx.put(frame, 1, 0);
        return Err(Need::Retry);
    }
    let index = record.words().1;
    Err(Need::Permission(alloc::boxed::Box::new(Permit { object: Arc::clone(object), index, frame, rounds })))
}

/// Notes that a page has become writable: from now on it counts as stored to.
pub(super) fn note_store<M: Machine>(ctx: Ctx<'_, M>, frame: FrameId) {
    if !mutant::is(mutant::Mutant::NoDirtyMark) {
        ctx.record(frame).mark_dirty();
    }
}

impl<M: Machine> Core<M> {
    /// Asks the pager; the next attempt has the answer with it.
    #[cold]
    pub(super) fn ask_pager(&self, ctx: Ctx<'_, M>, permit: Permit<M>, work: &mut Work) -> Result<(), FaultError> {
        let Permit { object, index, frame, rounds } = permit;
        if !object.may_store(index) {
            ctx.put(frame, 1, 0);
            return Err(FaultError::Bus);
        }
        debug_assert!(work.carried.is_none(), "nothing is carried through a private page's flush here");
        work.carried = Some(Carried { entry: void_after(rounds), frame });
        Ok(())
    }
}
