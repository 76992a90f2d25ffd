//! The recount of the allocator: each frame is on one free list, in the cache of one CPU, or in use (OT-02).
//!
//! Called by `engine` at quiescence, after `table` has counted what is in use. It trusts neither the lists' count nor
//! the kinds in the records.

use super::{CpuLocal, Ctx, Kind};
use crate::machine::Machine;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Counts what is free. `caches` are of the CPUs whose tokens the caller has; up to `elsewhere` frames more may be in
/// those of others. Returns what is wrong, in words.
pub(crate) fn recount_free<M: Machine>(ctx: Ctx<'_, M>, caches: &[&CpuLocal], elsewhere: usize) -> Vec<String> {
    let mut errors = Vec::new();
    let mut free = Vec::new();
    {
        let zone = ctx.memory.zone.lock(ctx.cpu.held(), || ctx.relax());
        zone.each(&ctx.memory.records, &mut |first, count| free.push((first.as_u64(), count)));
        let sum: u64 = free.iter().map(|(_, count)| count).sum();
        if sum != zone.free_frames() {
            errors.push(format!("the free lists hold {sum} frames, and count {}", zone.free_frames()));
        }
    }
    for cache in caches {
        cache.each_cached(&mut |frame| free.push((frame.as_u64(), 1)));
    }
    free.sort_unstable();
    for pair in free.windows(2).filter(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        errors.push(format!("free twice: frames {:?} and {:?}", pair[0], pair[1]));
    }
    let (mut blocks, mut missing) = (free.iter().peekable(), 0);
    // Ascending, as the blocks are.
    ctx.memory.each_frame(|frame, record| {
        while blocks.next_if(|(first, count)| first + count <= frame.as_u64()).is_some() {}
        let is_listed = blocks.peek().is_some_and(|(first, _)| *first <= frame.as_u64());
        match record.kind() {
            Kind::Free | Kind::Cached if is_listed => {}
            Kind::Cached => missing += 1,
            kind if is_listed => errors.push(format!("{frame:?} is free, and of kind {kind:?}")),
            Kind::Free => errors.push(format!("{frame:?} is free, and on no list")),
            Kind::Anon | Kind::File | Kind::Memory | Kind::Table if record.counts() == (0, 0) => {
                errors.push(format!("{frame:?} ({:?}) is nobody's", record.kind()));
            }
            _ => {}
        }
    });
    ctx.recount_pool(&mut errors);
    if missing > elsewhere * CpuLocal::MOST_CACHED {
        errors.push(format!("{missing} frames are in no CPU's cache, on no list and not in use"));
    }
    errors
}
