//! The recount: what the records say against what the tables hold (REQUIREMENTS section 0, I-REF, I-MAP, I-RSS, I-PT).
//!
//! Called by `engine` at quiescence. It trusts nothing but the tables: references, mappings, table shares and rss are
//! counted anew from the roots.

use super::Delta;
use super::walk::load;
use crate::addr::FrameId;
use crate::frame::{Ctx, Kind};
use crate::machine::format::{Leaf, Upper};
use crate::machine::{Format, Machine};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the tables of a set of spaces hold.
#[derive(Default)]
pub(crate) struct Recount {
    /// References and mappings of pages.
    pages: BTreeMap<FrameId, (u32, u32)>,
    /// Parent entries (and roots) that name a table.
    tables: BTreeMap<FrameId, u32>,
    /// Entries that map a large page.
    huge: u64,
    /// Per root: what its space counts for.
    pub(crate) weights: Vec<Delta>,
    /// What is wrong, in words.
    pub(crate) errors: Vec<String>,
}

/// Counts everything that `roots` reach.
pub(crate) fn recount<M: Machine>(ctx: Ctx<'_, M>, roots: &[FrameId]) -> Recount {
    let mut count = Recount::default();
    for root in roots {
        count.visit(ctx, *root, M::Format::LEVELS - 1);
        let mut weight = Delta::default();
        for slot in &ctx.entries(*root)[..M::Format::USER_SLOTS] {
            if let Upper::Table { frame, .. } = M::Format::upper(load(slot)) {
                super::share::weigh(ctx, frame, M::Format::LEVELS - 2, &mut weight, 1);
            }
        }
        count.weights.push(weight);
    }
    count
}

impl Recount {
    /// Adds a reference without a mapping (the page cache's).
    pub(crate) fn add_reference(&mut self, frame: FrameId) {
        self.pages.entry(frame).or_default().0 += 1;
    }

    fn add_mapping(&mut self, frame: FrameId) {
        let counts = self.pages.entry(frame).or_default();
        *counts = (counts.0 + 1, counts.1 + 1);
    }

    fn visit<M: Machine>(&mut self, ctx: Ctx<'_, M>, table: FrameId, level: usize) {
        let shares = self.tables.entry(table).or_default();
        *shares += 1;
        if *shares > 1 {
            return; // what a shared table holds is held once
        }
        let user = if level == M::Format::LEVELS - 1 { M::Format::USER_SLOTS } else { usize::MAX };
        for (index, slot) in ctx.entries(table).iter().take(user).enumerate() {
            let entry = load(slot);
            if level > 0 {
                let is_noted = ctx.record(table).parts() & super::part_of::<M::Format>(index) != 0;
                match M::Format::upper(entry) {
                    Upper::Table { frozen: true, .. } | Upper::Frozen => {
                        self.errors.push(format!("{table:?}: a slot is frozen though no fork runs"));
                    }
                    Upper::Table { frame, .. } => {
                        if !is_noted && user == usize::MAX {
                            self.errors.push(format!("{table:?}: a sweep would not find {frame:?}"));
                        }
                        self.visit(ctx, frame, level - 1);
                    }
                    Upper::Huge => {
                        if !is_noted {
                            self.errors.push(format!("{table:?}: a sweep would not find a large page"));
                        }
                        self.huge += 1;
                        super::huge::each_counted(ctx, entry, |frame| self.add_mapping(frame));
                    }
                    Upper::Empty | Upper::Poison => {}
                }
            } else if let Leaf::Page(frame, bits) | Leaf::None(frame, bits) = M::Format::leaf(entry) {
                // By its number: a frame of a driver's may have no record.
                if bits.write && frame == ctx.memory.zero_frame() {
                    self.errors.push(String::from("a writable entry refers to the zero frame (AN-01)"));
                }
                if !bits.special {
                    self.add_mapping(frame);
                }
            }
        }
    }

    /// Compares with the records of all frames.
    pub(crate) fn compare<M: Machine>(&mut self, ctx: Ctx<'_, M>) {
        let mut errors = Vec::new();
        if self.huge != ctx.memory.huge_entries() {
            errors.push(format!("{} large pages noted, recount {}", ctx.memory.huge_entries(), self.huge));
        }
        ctx.memory.each_frame(|frame, record| match record.kind() {
            Kind::Anon | Kind::File | Kind::Memory | Kind::Huge => {
                let expected = self.pages.get(&frame).copied().unwrap_or((0, 0));
                if expected != record.counts() {
                    let (kind, counts) = (record.kind(), record.counts());
                    errors.push(format!("{frame:?} ({kind:?}): counts {counts:?}, recount {expected:?}"));
                }
            }
            Kind::Table => {
                let expected = self.tables.get(&frame).copied().unwrap_or(0);
                if expected != record.shares() {
                    errors.push(format!("{frame:?} (table): named {} times, recount {expected}", record.shares()));
                }
            }
            Kind::Free | Kind::Cached => {
                if self.pages.contains_key(&frame) || self.tables.contains_key(&frame) {
                    errors.push(format!("{frame:?} is free but in use"));
                }
            }
            Kind::Zero | Kind::Absent => {}
        });
        self.errors.append(&mut errors);
    }
}
