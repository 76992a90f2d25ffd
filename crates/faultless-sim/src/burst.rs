//! Which steps several threads may make at the same time, so that the result does not depend on who is first.
//!
//! Called by `judge`. Each thread has chunks of the arena to itself ([`arena::owner_of`]). What several threads reach
//! through mappings of the same file is only read: who would change it, or ask what the page cache holds, is left out.
//! Absent on purpose: areas that grow, and locks. A fault of one thread would map what another unmaps, and who is last may
//! lock too much; with such areas about, the steps are made one after the other.

use std::collections::HashMap;

use crate::arena::{self, PAGE};
use crate::scenario::Op;
use crate::view::{Source, View};
use linux_raw_sys::general as linux;

/// A step of a burst: the thread, and what it does.
pub type Task = (usize, Op);

/// What a page may show besides memory of its own, one bit for each file or shared memory.
#[derive(Clone, Copy, Default)]
struct Shown {
    any: u64,
    /// So that stores are seen by others.
    shared: u64,
}

/// What the pages show, and which threads reach what.
struct Reach {
    pages: HashMap<u64, Shown>,
    /// Threads by bit, for each file or shared memory.
    threads: [u8; 64],
}

/// The steps that may be made, by their place in `tasks`.
#[must_use]
pub fn permitted(view: &View, tasks: &[Task]) -> Vec<usize> {
    let mut reach = Reach { pages: HashMap::new(), threads: [0; 64] };
    view.mappings.iter().for_each(|mapping| {
        let bit = match mapping.source {
            Source::Anonymous => return,
            Source::File(number) => 1 << number,
            Source::Shared(name) => 1 << (8 + name % 56),
        };
        reach.show(mapping.start, mapping.end, bit, mapping.shared);
    });
    let kept: Vec<usize> = (0..tasks.len()).filter(|index| is_own(tasks, *index)).collect();
    // In order: what a thread maps, it may reach later. What is mapped is never forgotten.
    let touched: Vec<Shown> = kept.iter().map(|index| reach.note(tasks[*index].0, &tasks[*index].1)).collect();
    let contested =
        (0..64).filter(|bit| reach.threads[*bit].count_ones() > 1).fold(0, |contested, bit| contested | 1 << bit);
    let harmless = |(index, touched): (&usize, &Shown)| changes(&tasks[*index].1, *touched) & contested == 0;
    kept.iter().zip(&touched).filter(|pair| harmless(*pair)).map(|(index, _)| *index).collect()
}

/// Is the step one that threads make, in one of its thread's chunks?
fn is_own(tasks: &[Task], index: usize) -> bool {
    let (thread, op) = tasks[index];
    let own = |at: u64, len: u64| arena::owner_of(at, len.next_multiple_of(PAGE)) == Some(thread);
    match op {
        Op::Map { at, len, flags, .. } => {
            let fixed = flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0;
            fixed && flags & (linux::MAP_GROWSDOWN | linux::MAP_LOCKED) == 0 && own(at, len)
        }
        Op::Load { at, width } | Op::Store { at, width, .. } => arena::owner_of(at, width.into()) == Some(thread),
        Op::Unmap { at, len }
        | Op::Protect { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Sync { at, len, .. }
        | Op::Resident { at, len } => len <= arena::SIZE && own(at, len),
        Op::Remap { at, old, new, flags, to } => {
            let stays = flags & linux::MREMAP_MAYMOVE == 0;
            let fixed = flags & linux::MREMAP_FIXED != 0;
            old.max(new) <= arena::SIZE
                && own(at, old)
                && own(at, new)
                && (stays || fixed && own(to, new))
                && is_first(tasks, index, at, to)
        }
        Op::Truncate { .. } | Op::Read { .. } | Op::Write { .. } | Op::Allocate { .. } => true,
        _ => false,
    }
}

/// Has the thread only accessed the two chunks before? Then the mappings there are as they were when the burst began,
/// and the tester knows whether the host keeps areas apart (`area-merge`).
fn is_first(tasks: &[Task], index: usize, at: u64, to: u64) -> bool {
    let chunk = |at: u64| (at - arena::START) / (arena::CHUNK * PAGE);
    tasks[..index].iter().filter(|task| task.0 == tasks[index].0).all(|(_, op)| match range_of(op) {
        Some((start, _)) if arena::page_of(start).is_some() => {
            matches!(op, Op::Load { .. } | Op::Store { .. }) || ![at, to].map(chunk).contains(&chunk(start))
        }
        _ => true,
    })
}

/// The addresses that a step is about.
#[must_use]
pub fn range_of(op: &Op) -> Option<(u64, u64)> {
    match *op {
        Op::Load { at, width } | Op::Store { at, width, .. } => Some((at, at + u64::from(width))),
        Op::Map { at, len, .. }
        | Op::Unmap { at, len }
        | Op::Protect { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Sync { at, len, .. }
        | Op::Resident { at, len }
        | Op::Remap { at, old: len, .. } => Some((at, at.saturating_add(len))),
        _ => None,
    }
}

/// What others could tell from the step: bits of what it changes, or asks about.
fn changes(op: &Op, touched: Shown) -> u64 {
    match op {
        Op::Store { .. } | Op::Advise { advice: linux::MADV_REMOVE, .. } => touched.shared,
        Op::Truncate { .. } | Op::Write { .. } | Op::Allocate { .. } | Op::Resident { .. } => touched.any,
        _ => 0,
    }
}

impl Reach {
    fn show(&mut self, start: u64, end: u64, bit: u64, shared: bool) {
        for page in (start..end).step_by(PAGE as usize) {
            let shown = self.pages.entry(page).or_default();
            shown.any |= bit;
            shown.shared |= if shared { bit } else { 0 };
        }
    }

    fn shown(&self, start: u64, end: u64) -> Shown {
        let pages = (start & !(PAGE - 1)..end).step_by(PAGE as usize).filter_map(|page| self.pages.get(&page));
        pages.fold(Shown::default(), |sum, page| Shown { any: sum.any | page.any, shared: sum.shared | page.shared })
    }

    /// Notes what the thread reaches; returns it.
    fn note(&mut self, thread: usize, op: &Op) -> Shown {
        if let Op::Map { at, len, flags, file: Some(file), .. } = *op {
            self.show(at, at + len, 1 << file.number, flags & linux::MAP_TYPE != linux::MAP_PRIVATE);
        }
        let touched = match *op {
            Op::Truncate { file, .. } | Op::Read { file, .. } | Op::Write { file, .. } | Op::Allocate { file, .. } => {
                Shown { any: 1 << file, shared: 1 << file }
            }
            _ => range_of(op).map_or(Shown::default(), |(start, end)| self.shown(start, end)),
        };
        if let Op::Remap { at, old, new, to, .. } = *op {
            let source = self.shown(at, at + old.max(PAGE));
            for start in [at, to] {
                for page in (start..start.saturating_add(new)).step_by(PAGE as usize) {
                    let shown = self.pages.entry(page & !(PAGE - 1)).or_default();
                    (shown.any, shown.shared) = (shown.any | source.any, shown.shared | source.shared);
                }
            }
        }
        for (bit, threads) in self.threads.iter_mut().enumerate() {
            *threads |= if touched.any >> bit & 1 != 0 { 1 << thread } else { 0 };
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Mapping;

    const FILE: u64 = arena::START;
    const CHUNK: u64 = arena::CHUNK * PAGE;

    fn view() -> View {
        let whole =
            Mapping { start: FILE, end: FILE + 4 * CHUNK, prot: 3, shared: true, source: Source::File(0), offset: 0 };
        View { mappings: vec![whole], ..View::default() }
    }

    #[test]
    fn only_chunks_of_the_thread_are_its_own() {
        let load = |thread, at| (thread, Op::Load { at, width: 8 });
        let tasks = [load(1, FILE), load(2, FILE), load(2, FILE + CHUNK), load(2, FILE + 2 * CHUNK - 4)];
        assert_eq!(permitted(&view(), &tasks), [0, 2]);
        let tasks = [(1, Op::Unmap { at: FILE, len: CHUNK }), (1, Op::Unmap { at: FILE, len: CHUNK + 1 })];
        assert_eq!(permitted(&view(), &tasks), [0]);
    }

    #[test]
    fn what_several_threads_reach_is_not_changed() {
        let store = |thread, at| (thread, Op::Store { at, width: 8, value: 1 });
        let load = |thread, at| (thread, Op::Load { at, width: 8 });
        assert_eq!(permitted(&view(), &[store(1, FILE), load(2, FILE + CHUNK)]), [1]);
        assert_eq!(permitted(&view(), &[store(1, FILE), load(1, FILE + 8)]), [0, 1]);
        let resize = (2, Op::Truncate { file: 0, size: 0 });
        assert_eq!(permitted(&view(), &[load(1, FILE), resize]), [0]);
        assert_eq!(permitted(&view(), &[resize, store(1, FILE + 4 * CHUNK)]), [0, 1]);
    }
}
