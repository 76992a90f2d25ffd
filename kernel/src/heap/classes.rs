//! Size classes of small allocations: powers of two and one step between, from 16 bytes to 8 KiB.
//!
//! Sizes are multiples of 16. A power of two is aligned to itself, because runs are page aligned
//! and cut without a remainder; the sizes between are aligned to a third of themselves, which is
//! why [`class_of`] rounds a request with a larger alignment up to a power of two.

use core::alloc::Layout;

/// Number of classes.
pub const CLASS_COUNT: usize = SIZES.len();

const SIZES: [usize; 18] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192];
const LARGEST: usize = SIZES[CLASS_COUNT - 1];
const GRAIN: usize = 16;
/// Up to here a table finds the class; above, the few classes are searched.
const TABLE_MAX: usize = 1024;

static TABLE: [u8; TABLE_MAX / GRAIN + 1] = table();

const fn table() -> [u8; TABLE_MAX / GRAIN + 1] {
    let mut table = [0; TABLE_MAX / GRAIN + 1];
    let mut class = 0;
    let mut n = 0;
    while n < table.len() {
        while SIZES[class] < n * GRAIN {
            class += 1;
        }
        table[n] = class as u8;
        n += 1;
    }
    table
}

/// The class that serves `layout`; none if it is for page runs.
#[inline]
pub fn class_of(layout: Layout) -> Option<usize> {
    let mut size = layout.size();
    if layout.align() > GRAIN {
        size = size.max(layout.align()).next_power_of_two();
    }
    if size <= TABLE_MAX {
        return Some(usize::from(TABLE[size.div_ceil(GRAIN)]));
    }
    (size <= LARGEST).then(|| {
        let first = usize::from(TABLE[TABLE_MAX / GRAIN]);
        (first..CLASS_COUNT).find(|&c| SIZES[c] >= size).unwrap_or(CLASS_COUNT - 1)
    })
}

/// Bytes of a block of `class`.
#[inline]
pub fn class_size(class: usize) -> usize {
    SIZES[class]
}
