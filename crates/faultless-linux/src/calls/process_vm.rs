//! `process_vm_readv` and `process_vm_writev`: how they move bytes of the other process' memory. The vectors are the caller's
//! to walk.
//!
//! Unlike a processor, the calls want the very right, and let no stack grow.

use faultless::{Access, Cpu, Machine, PAGE_SIZE, PageRange, Rights, Space, VirtAddr};

/// Reads memory of another process, from `address` on, and returns how many bytes that were: fewer than there is room for
/// where the next page cannot be read.
///
/// The pages are pinned as Linux pins them, so that a page that the process shares with a relative becomes its own.
pub fn read_remote<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, address: VirtAddr, into: &mut [u8]) -> usize {
    each_page(address, into.len(), |at, done, part| {
        let start = at.as_u64() & !(PAGE_SIZE - 1);
        let page = PageRange::with_len(VirtAddr::new(start), PAGE_SIZE).ok()?;
        let pinned = may(space, cpu, at, Rights::READ).then(|| space.pin(cpu, page, Access::Read).ok())??;
        let (frame, offset) = (*pinned.frames().first()?, (at.as_u64() - start) as usize);
        cpu.vm().machine().read(frame, offset, &mut into[done..done + part]);
        Some(())
    })
}

/// Writes to the memory of another process, from `address` on, and returns how many bytes that were.
pub fn write_remote<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, address: VirtAddr, from: &[u8]) -> usize {
    each_page(address, from.len(), |at, done, part| {
        may(space, cpu, at, Rights::WRITE).then(|| space.write(cpu, at, &from[done..done + part]).ok())?
    })
}

/// Has the address a mapping with this right?
fn may<M: Machine>(space: &Space<M>, cpu: &mut Cpu<M>, at: VirtAddr, right: Rights) -> bool {
    space.area_at(cpu, at).is_some_and(|area| area.rights.contains(right))
}

/// Calls `step` with the address of each page's part, what was done before it, and its length, until one fails. Returns how
/// many bytes were passed.
fn each_page(address: VirtAddr, len: usize, mut step: impl FnMut(VirtAddr, usize, usize) -> Option<()>) -> usize {
    let mut done = 0;
    // Ends: each round passes what is left of a page.
    while done < len {
        let Some(at) = address.checked_add(done as u64) else { return done };
        let part = ((PAGE_SIZE - at.as_u64() % PAGE_SIZE) as usize).min(len - done);
        if step(at, done, part).is_none() {
            return done;
        }
        done += part;
    }
    done
}
