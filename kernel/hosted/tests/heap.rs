//! The kernel heap's parts, on memory of the host.

use std::alloc::Layout;
use std::collections::BTreeMap;

use faultless_kernel_hosted::classes::{CLASS_COUNT, class_of, class_size};
use faultless_kernel_hosted::runs::Runs;
use faultless_kernel_hosted::slabs::{Partial, SLAB, Table};

const PAGE: usize = 4096;

#[test]
fn classes_fit_and_align() {
    for size in 0..9000 {
        for align in [1, 8, 16, 32, 64, 256, 1024, 4096, 8192] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let Some(class) = class_of(layout) else {
                assert!(size.max(align) > 4096, "{layout:?} is small");
                continue;
            };
            assert!(class_size(class) >= size);
            // Blocks lie at multiples of their size in a slab, which is aligned to itself.
            assert!(align <= 16 || class_size(class).is_multiple_of(align), "{layout:?} in {}", class_size(class));
        }
    }
}

/// A region of memory that is aligned to a slab.
struct Region {
    memory: Vec<u64>,
    bytes: usize,
}

impl Region {
    fn new(bytes: usize) -> Region {
        Region { memory: vec![0; (bytes + SLAB) / 8], bytes }
    }

    fn start(&self) -> usize {
        (self.memory.as_ptr() as usize).next_multiple_of(SLAB)
    }
}

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn runs_never_overlap_and_merge_again() {
    let region = Region::new(1 << 20);
    let mut runs = Runs::new();
    runs.init(region.start(), region.bytes);
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    let mut seed = 1;
    for _ in 0..20_000 {
        if random(&mut seed).is_multiple_of(2) {
            let bytes = 1 + random(&mut seed) % (9 * PAGE);
            let align = PAGE << (random(&mut seed) % 4);
            let run = runs.take(bytes, align) as usize;
            if run != 0 {
                assert!(run.is_multiple_of(align));
                assert!(run >= region.start() && run + bytes <= region.start() + region.bytes);
                let before = taken.range(..=run).next_back();
                assert!(before.is_none_or(|(&start, &length)| start + length.next_multiple_of(PAGE) <= run));
                let after = taken.range(run..).next();
                assert!(after.is_none_or(|(&start, _)| run + bytes <= start));
                taken.insert(run, bytes);
            }
        } else if let Some((&run, &bytes)) = taken.iter().nth(random(&mut seed) % taken.len().max(1)) {
            taken.remove(&run);
            runs.give(run, bytes);
        }
    }
    for (run, bytes) in taken {
        runs.give(run, bytes);
    }
    assert_eq!(runs.free(), runs.total());
    assert!(!runs.take(region.bytes, PAGE).is_null(), "everything is one run again");
}

#[test]
fn slabs_hand_out_each_block_once_and_go_back_when_free() {
    let region = Region::new(16 * SLAB);
    for class in 0..CLASS_COUNT {
        // SAFETY: the region is ours alone and aligned.
        let (table, _) = unsafe { Table::make(region.start(), region.bytes) };
        let mut partial = Partial::new();
        let slabs: Vec<usize> = (1..5).map(|n| region.start() + n * SLAB).collect();
        for &slab in &slabs {
            // SAFETY: a part of the region that nobody uses.
            unsafe { partial.add(&table, class, slab) };
        }
        let mut blocks = Vec::new();
        loop {
            let block = partial.take(&table);
            if block.is_null() {
                break;
            }
            blocks.push(block);
        }
        assert!(partial.is_empty());
        assert_eq!(blocks.len(), 4 * (SLAB / class_size(class)));
        let mut addresses: Vec<usize> = blocks.iter().map(|&b| b as usize).collect();
        addresses.sort_unstable();
        assert!(addresses.windows(2).all(|w| w[0] + class_size(class) <= w[1]));
        assert!(addresses.iter().all(|a| slabs.contains(&(a & !(SLAB - 1)))));
        let returned: Vec<usize> = blocks.iter().filter_map(|&b| partial.give(&table, class, b)).collect();
        assert_eq!(returned.len(), 3, "all but the last slab go back");
        assert!(returned.iter().all(|r| slabs.contains(r)));
        assert!(!partial.take(&table).is_null());
    }
}
