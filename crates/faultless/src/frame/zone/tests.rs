//! Random takes and gives against a set of frames; everything merges back (PF-10, OT-02).

use super::*;
use std::collections::BTreeSet;
use std::vec::Vec;

fn range(start: u64, end: u64) -> FrameRange {
    FrameRange { start: FrameId::new(start), end: FrameId::new(end) }
}

#[test]
fn blocks_never_overlap_and_merge_back() {
    let ranges = [range(3, 700), range(1000, 5000), range(40_000, 41_000)];
    let records = Records::new(&ranges).unwrap();
    let mut zone = Zone::new();
    ranges.iter().for_each(|range| zone.donate(&records, *range));
    let total = zone.free_frames();
    assert_eq!(total, 697 + 4000 + 1000);
    let mut taken: Vec<(FrameId, usize)> = Vec::new();
    let mut used = BTreeSet::new();
    let mut seed = 12345u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let order = (seed >> 33) as usize % 4;
        if seed >> 60 == 15 {
            zone.take_batch(&records, |frame| {
                assert!(used.insert(frame.as_u64()), "a frame was handed out twice");
                taken.push((frame, 0));
            });
        } else if seed >> 60 < 9 {
            let Some(block) = zone.take(&records, order) else {
                continue;
            };
            assert_eq!(block.as_u64() % (1 << order), 0, "blocks are aligned to their size");
            for frame in block.as_u64()..block.as_u64() + (1 << order) {
                assert!(used.insert(frame), "a frame was handed out twice");
                assert!(ranges.iter().any(|r| r.start.as_u64() <= frame && frame < r.end.as_u64()));
            }
            taken.push((block, order));
        } else if !taken.is_empty() {
            let (block, order) = taken.swap_remove(seed as usize % taken.len());
            (block.as_u64()..block.as_u64() + (1 << order)).for_each(|frame| assert!(used.remove(&frame)));
            if order == 0 && seed & 1 == 0 {
                zone.give_loose(&records, block);
            } else {
                zone.give(&records, block, order);
            }
        }
        assert_eq!(zone.free_frames() + used.len() as u64, total);
    }
    for (block, order) in taken {
        if order == 0 {
            zone.give_loose(&records, block);
        } else {
            zone.give(&records, block, order);
        }
    }
    assert_eq!(zone.free_frames(), total);
    assert!(zone.take(&records, 10).is_some(), "the largest blocks have merged again");
}

#[test]
fn overlapping_or_reversed_ranges_are_refused() {
    assert!(Records::new(&[range(0, 10), range(9, 20)]).is_none());
    assert!(Records::new(&[range(10, 10)]).is_none());
    assert!(Records::new(&[]).is_some_and(|records| records.find(0).is_none()));
}

#[test]
fn each_free_frame_is_listed_once() {
    let records = Records::new(&[range(3, 700)]).unwrap();
    let mut zone = Zone::new();
    zone.donate(&records, range(3, 700));
    let mut taken = Vec::new();
    zone.take_batch(&records, |frame| taken.push(frame));
    taken.drain(5..).for_each(|frame| zone.give_loose(&records, frame));
    let mut seen = BTreeSet::new();
    zone.each(&records, &mut |first, count| {
        for frame in first.as_u64()..first.as_u64() + count {
            assert!(seen.insert(frame), "listed twice");
        }
    });
    assert_eq!(seen.len() as u64, zone.free_frames());
    assert!(taken.iter().all(|frame| !seen.contains(&frame.as_u64())) && taken.len() == 5);
}
