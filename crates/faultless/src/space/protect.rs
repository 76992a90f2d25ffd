//! mprotect: area by area, in address order, as Linux does.

use super::Core;
use crate::addr::{PageRange, Rights, VirtAddr};
use crate::area::{Area, AreaFlags, Attributes, Changes, Index, Place, StripeGuard};
use crate::frame::Ctx;
use crate::machine::Machine;
use crate::table::Rewrite;

/// Why rights were not changed. Areas before the address given have been changed, as on Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectError {
    /// Nothing is mapped at this address of the range (ENOMEM).
    Unmapped(VirtAddr),
    /// The area at this address may not have these rights (EACCES).
    Denied(VirtAddr),
    /// No memory for the parts of a split area, or for the copy of a shared table; or too much would be data or promised
    /// (ENOMEM).
    NoMemory(VirtAddr),
    /// The area at this address is sealed (EPERM).
    Sealed(VirtAddr),
    /// A large page of the pool at this address would be cut (EINVAL).
    Unaligned(VirtAddr),
}

impl<M: Machine> Core<M> {
    /// Gives `range` other rights.
    pub(crate) fn protect(&self, ctx: Ctx<'_, M>, range: PageRange, rights: Rights) -> Result<(), ProtectError> {
        if range.end() > self.layout.highest {
            return Err(ProtectError::Unmapped(range.start()));
        }
        let guard = self.lock(ctx, range.start().as_u64(), range.end().as_u64());
        let mut at = range.start();
        // Ends: each round passes one area.
        while at < range.end() {
            let place = self.index.place(at.as_u64(), &guard);
            let area = place.first().filter(|area| area.range.start() <= at).ok_or(ProtectError::Unmapped(at))?;
            let part = PageRange::new(at, range.end().min(area.range.end())).map_err(|_| ProtectError::Unmapped(at))?;
            if !area.max_rights.contains(rights) {
                return Err(ProtectError::Denied(at));
            }
            if self.has_sealed() && area.flags.contains(AreaFlags::SEALED) {
                return Err(ProtectError::Sealed(at));
            }
            if area.rights != rights {
                if self.cuts_large(part.start().as_u64(), part.end().as_u64(), &guard) {
                    return Err(ProtectError::Unaligned(at));
                }
                self.protect_part(ctx, &place, area, part, rights, &guard)?;
            }
            at = part.end();
        }
        Ok(())
    }

    fn protect_part(
        &self,
        ctx: Ctx<'_, M>,
        place: &Place<'_, M>,
        area: &Area<M>,
        part: PageRange,
        rights: Rights,
        guard: &StripeGuard<'_>,
    ) -> Result<(), ProtectError> {
        debug_assert_eq!(
            Index::<M>::stripe_of(part.start().as_u64()),
            Index::<M>::stripe_of(part.end().as_u64() - 1),
            "areas do not cross stripes"
        );
        let (low, high) = (part.start().as_u64(), part.end().as_u64());
        let rewrite = Rewrite::Protect {
            rights,
            narrows: !rights.contains(area.rights),
            unwatched: area.is_unwatched(),
            soft: area.flags.contains(AreaFlags::SOFT_DIRTY),
        };
        let no_memory = ProtectError::NoMemory(part.start());
        if part == area.range
            && let Some(protected) = self.protect_single(ctx, place, area, rights, rewrite, guard)
        {
            return protected.map_err(|_| no_memory);
        }
        let middle = Attributes { rights, flags: area.flags_with(rights), ..area.part(part) };
        let mut changes = Changes::new();
        self.prepare_replace(&mut changes, place, part, Some(middle)).map_err(|_| no_memory)?;
        self.prepare_tables(ctx, low, high, rewrite).map_err(|_| no_memory)?;
        self.commit_all(ctx, &mut changes, guard, || {
            let done = self.sweep(ctx, low, high, rewrite);
            debug_assert!(done.is_ok(), "the tables were prepared");
        })
        .map_err(|_| no_memory)
    }
}
