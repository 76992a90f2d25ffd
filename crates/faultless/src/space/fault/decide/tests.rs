//! The decision as a table: every combination of entry, area, object and access (F-03, F-09, AN-01, CW-05, FL-02).

use super::*;
use crate::addr::FrameId;
use crate::machine::format::PageBits;
use std::vec::Vec;

const PAGES: [Page; 6] = [Page::NoObject, Page::Memory, Page::Resident, Page::MustRead, Page::MustMake, Page::PastEnd];
const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];

fn leaves() -> Vec<Leaf> {
    let frame = FrameId::new(7);
    let pages = (0..32u32).map(|n| PageBits {
        write: n & 1 != 0,
        execute: n & 2 != 0,
        exclusive: n & 4 != 0,
        pending: n & 8 != 0,
        special: n & 16 != 0,
        dirty: false,
        marked: false,
    });
    let mut all: Vec<_> = pages.clone().map(|bits| Leaf::Page(frame, bits)).collect();
    all.extend(pages.map(|bits| Leaf::None(frame, bits)));
    all.extend([Leaf::Empty, Leaf::Poison, Leaf::Offset(9), Leaf::Lost]);
    all
}

fn all_facts() -> impl Iterator<Item = Facts> {
    leaves().into_iter().flat_map(|leaf| {
        PAGES.into_iter().flat_map(move |page| {
            ACCESSES.into_iter().flat_map(move |access| {
                (0..64).map(move |n| Facts {
                    rights: if n & 16 == 0 { Rights::ALL } else { Rights::READ | Rights::EXECUTE },
                    sharing: if n & 1 == 0 { Sharing::Private } else { Sharing::Shared },
                    access,
                    leaf,
                    page,
                    alone: n & 2 != 0,
                    flushed: n & 4 != 0,
                    forced: n & 8 != 0,
                    soft: n & 32 != 0,
                })
            })
        })
    })
}

#[test]
fn nothing_is_done_for_an_adequate_entry() {
    for facts in all_facts() {
        let Leaf::Page(_, bits) = facts.leaf else {
            continue;
        };
        let adequate = match facts.access {
            Access::Read => true,
            Access::Write => bits.write || facts.forced && bits.exclusive && !bits.pending && facts.soft,
            Access::Execute => bits.execute,
        };
        assert_eq!(decide(&facts) == Plan::Nothing, adequate, "{facts:?}");
    }
}

#[test]
fn a_private_store_never_reaches_what_others_see() {
    for facts in all_facts() {
        let Leaf::Page(_, bits) = facts.leaf else {
            continue;
        };
        if facts.access != Access::Write || facts.sharing != Sharing::Private || bits.write {
            continue;
        }
        let plan = decide(&facts);
        if facts.forced && plan == Plan::Nothing {
            assert!(bits.exclusive && !bits.pending && facts.soft, "{facts:?}");
            continue;
        }
        assert!(matches!(plan, Plan::Flush | Plan::Reuse | Plan::Copy), "{facts:?}: {plan:?}");
        if plan == Plan::Reuse {
            assert!(bits.exclusive || facts.alone, "reuse needs proof (CW-05): {facts:?}");
            assert!(!bits.pending || facts.flushed, "a copy becomes writable only after a flush (CW-04): {facts:?}");
        }
    }
}

#[test]
fn an_empty_entry_gets_what_the_area_says() {
    for facts in all_facts().filter(|facts| matches!(facts.leaf, Leaf::Empty | Leaf::Offset(_))) {
        let write = facts.access == Access::Write;
        let expected = match (facts.page, write, facts.sharing) {
            (Page::NoObject, true, _) => Plan::MapAnon,
            (Page::NoObject, false, _) => Plan::MapZero,
            (Page::PastEnd, ..) => Plan::Bus,
            (Page::MustRead, ..) => Plan::ReadObject,
            (Page::MustMake, ..) => Plan::FillObject,
            (Page::Resident | Page::Memory, true, Sharing::Private) => Plan::CopyObject,
            (Page::Resident | Page::Memory, true, _) => Plan::MapObject(Stores::Done),
            (Page::Memory, false, Sharing::Shared) if facts.rights.contains(Rights::WRITE) => {
                Plan::MapObject(Stores::Free)
            }
            (Page::Resident | Page::Memory, false, _) => Plan::MapObject(Stores::Trapped),
        };
        assert_eq!(decide(&facts), expected, "{facts:?}");
    }
}

#[test]
fn a_store_to_a_shared_mapping_never_copies() {
    // A shared mapping is never forced.
    for facts in all_facts().filter(|facts| facts.sharing == Sharing::Shared && !facts.forced) {
        assert!(!matches!(decide(&facts), Plan::Copy | Plan::CopyObject | Plan::Reuse), "{facts:?}");
    }
}
