//! The page fault. Protocols P1 (first touch), P2 (generations), P3 (copy-on-write).
//!
//! [`decide`] says what to do, as a pure function; [`commit`] does it by one exact compare-exchange on one entry, or
//! says retry. This file is the loop around them: each attempt is one section; what an attempt needs from outside
//! (a flush, a page from a pager, frames, a grown stack) is done between attempts.
//!
//! A fault on a private path takes no lock of the space and none of a table, and writes no line that all CPUs of a
//! space share.

mod commit;
mod decide;
mod permit;
mod touch;
mod watched;

use super::Core;
use crate::addr::{Access, FrameId, VirtAddr};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::machine::format::Raw;
use crate::object::{Object, ObjectError};
use crate::sync::{Event, Section};
use crate::table::{Delta, Removed};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem;
use permit::Permit;
use watched::Asked;

/// A fault that was resolved: the instruction may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// Without I/O, or somebody else did it.
    Minor,
    /// A page was read from a pager for this fault.
    Major,
}

/// A fault that cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped at the address (SIGSEGV, SEGV_MAPERR).
    Unmapped,
    /// The area does not permit the access (SIGSEGV, SEGV_ACCERR).
    Denied,
    /// The page lies beyond the end of the object, or the pager failed (SIGBUS, BUS_ADRERR).
    Bus,
    /// No frame. Nothing visible has changed.
    OutOfMemory,
    /// It was reported to a [`Watcher`](crate::Watcher), and this thread cannot wait here: repeat the access when the
    /// ticket is woken.
    Watched,
}

/// What an attempt could not do inside its section.
pub(super) enum Need<M: Machine> {
    /// Start over: somebody else's change won.
    Retry,
    /// Start over after a moment: a fork or a replacement of the mapping is under way.
    Wait,
    /// Settle what was removed (that flushes), then start over.
    Flush,
    /// Frames.
    Frames,
    /// A page of an object.
    Page(Arc<Object<M>>, u64),
    /// A large page of the pool, which is empty.
    Pool,
    /// A large page of the pool is mapped, but not as it is needed.
    Large,
    /// Nothing is mapped here; perhaps a stack may grow.
    Area,
    /// An answer of whoever watches the area.
    Watcher(Box<Asked>),
    /// A pager's permission to make a page writable.
    Permission(Box<Permit<M>>),
    /// The end.
    Fail(FaultError),
}

/// A PENDING entry that this fault will make writable after a flush, and the reference that keeps the page's identity
/// meanwhile (C5). Or, in place of the entry, what a pager's permission to store to the page depends on (P17).
pub(super) struct Carried {
    entry: Raw,
    frame: FrameId,
}

/// What one fault carries from attempt to attempt.
pub(super) struct Work {
    pub(super) removed: Removed,
    pub(super) delta: Delta,
    carried: Option<Carried>,
    major: bool,
}

impl<M: Machine> Core<M> {
    /// Resolves a fault at `address`.
    #[inline]
    pub(crate) fn fault(&self, ctx: Ctx<'_, M>, address: VirtAddr, access: Access) -> Result<Resolved, FaultError> {
        self.fault_as::<false>(ctx, address, access)
    }

    /// Makes a private page this space's own, as a store would, whatever the area's rights but none at all; they stay
    /// what they are.
    pub(super) fn make_own(&self, ctx: Ctx<'_, M>, address: VirtAddr) -> Result<Resolved, FaultError> {
        self.fault_as::<true>(ctx, address, Access::Write)
    }

    /// `FORCED`: see [`decide::Facts::forced`]. A type parameter, so that ordinary faults do not pay for it.
    fn fault_as<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
    ) -> Result<Resolved, FaultError> {
        let section = ctx.enter(self.section_name());
        let seen = if FORCED { None } else { self.glance(ctx, address, access, &section) };
        if let Some(seen) = &seen
            && self.first_touch(ctx, address, access, seen)
        {
            return Ok(Resolved::Minor);
        }
        let outside = ctx.cpu.held().set_in_fault(true);
        let mut work = Work { removed: Removed::new(), delta: Delta::default(), carried: None, major: false };
        let first = match seen {
            Some(seen) => self.attempt_on::<FORCED>(ctx, address, access, &seen, None, &mut work),
            None => self.attempt_inside::<FORCED>(ctx, address, access, None, &mut work, &section),
        };
        let result = match self.end_attempt(ctx, address, section, None, &mut work, first) {
            Ok(()) => Ok(()),
            Err(need) => self.resolve::<FORCED>(ctx, address, access, &mut work, need),
        };
        if let Some(carried) = work.carried.take() {
            ctx.put(carried.frame, 1, 0);
        }
        ctx.cpu.held().set_in_fault(outside);
        if let (space_locks, table_locks) = ctx.cpu.held().taken_in_faults()
            && space_locks + table_locks != 0
        {
            ctx.add(Event::FaultSpaceLocks, space_locks);
            ctx.add(Event::FaultTableLocks, table_locks);
        }
        match result {
            Ok(()) => {
                ctx.count(Event::Faults);
                self.counters.count_fault(ctx, work.major);
                Ok(if work.major { Resolved::Major } else { Resolved::Minor })
            }
            Err(error) => {
                ctx.count(Event::FaultError);
                Err(error)
            }
        }
    }

    /// Meets needs and attempts again until an attempt succeeds. Ends: an attempt is repeated only after another operation's success, a wait for
    /// one, or a need that was met; needs for memory and growth are met at most once each (F-16).
    #[inline(never)]
    fn resolve<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        work: &mut Work,
        mut need: Need<M>,
    ) -> Result<(), FaultError> {
        let (mut grown, mut collected) = (false, false);
        loop {
            match need {
                Need::Retry => ctx.count(Event::Retries),
                Need::Flush => {}
                Need::Wait => {
                    ctx.count(Event::Waits);
                    ctx.relax();
                    crate::sync::spin_hint();
                }
                Need::Frames if !mem::replace(&mut collected, true) => {
                    ctx.collect();
                }
                Need::Frames => return Err(FaultError::OutOfMemory),
                Need::Page(object, index) => self.bring_in(ctx, &object, index, &mut collected, work)?,
                Need::Pool if !mem::replace(&mut collected, true) => {
                    ctx.collect();
                }
                Need::Pool => return Err(FaultError::Bus),
                Need::Large if self.fix_large(ctx, address, access, FORCED)? => return Ok(()),
                Need::Large => {}
                Need::Area if !mem::replace(&mut grown, true) && self.grow_stack(ctx, address) => {}
                Need::Area => return Err(FaultError::Unmapped),
                Need::Watcher(asked) => {
                    if self.ask::<FORCED>(ctx, address, access, &asked, work)? {
                        return Ok(());
                    }
                }
                Need::Permission(permit) => self.ask_pager(ctx, *permit, work)?,
                Need::Fail(error) => return Err(error),
            }
            match self.attempt::<FORCED>(ctx, address, access, work) {
                Ok(()) => return Ok(()),
                Err(next) => need = next,
            }
        }
    }

    /// One attempt: one section, then the settlement of what it removed.
    fn attempt<const FORCED: bool>(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        access: Access,
        work: &mut Work,
    ) -> Result<(), Need<M>> {
        let flushed = work.carried.take();
        let section = ctx.enter(self.section_name());
        let result = self.attempt_inside::<FORCED>(ctx, address, access, flushed.as_ref(), work, &section);
        self.end_attempt(ctx, address, section, flushed, work, result)
    }

    /// Ends the section of an attempt and settles what that removed.
    #[inline(always)]
    fn end_attempt(
        &self,
        ctx: Ctx<'_, M>,
        address: VirtAddr,
        section: Section<'_>,
        flushed: Option<Carried>,
        work: &mut Work,
        result: Result<(), Need<M>>,
    ) -> Result<(), Need<M>> {
        if work.delta.tables != 0 {
            self.touch(address);
        }
        // Inside the section: a fork that waits for it finds the counters exact.
        self.counters.post(ctx, &mem::take(&mut work.delta));
        drop(section);
        self.settle(ctx, &mut work.removed);
        if let Some(flushed) = flushed {
            ctx.put(flushed.frame, 1, 0);
        }
        result
    }

    fn bring_in(
        &self,
        ctx: Ctx<'_, M>,
        object: &Object<M>,
        index: u64,
        collected: &mut bool,
        work: &mut Work,
    ) -> Result<(), FaultError> {
        match object.bring_in(ctx, index) {
            Ok(read) => {
                if read && !mem::replace(&mut work.major, true) {
                    ctx.count(Event::FaultMajor);
                }
                Ok(())
            }
            Err(ObjectError::OutOfMemory) if !mem::replace(collected, true) => {
                ctx.collect();
                Ok(())
            }
            Err(ObjectError::OutOfMemory) => Err(FaultError::OutOfMemory),
            Err(_) => Err(FaultError::Bus),
        }
    }
}
