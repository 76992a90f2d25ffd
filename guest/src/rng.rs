//! A small seeded generator: every decision of a program comes from its `--seed`.
//!
//! Called by all programs. Absent on purpose: cryptographic quality.

/// Turns any 64-bit value into a well mixed one (the finaliser of SplitMix64).
#[inline]
#[must_use]
pub const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A stream of numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for part `lane` of the work (a thread, a round).
    #[must_use]
    pub const fn lane(seed: u64, lane: u64) -> Self {
        Self(mix(seed ^ mix(lane.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    ///
    /// If `bound` is 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True `part` times out of `whole`.
    pub const fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole) < part
    }

    /// A non-empty range `(first, count)` inside `0..total`, at most `longest` long.
    ///
    /// # Panics
    ///
    /// If `total` or `longest` is 0.
    pub fn range(&mut self, total: usize, longest: usize) -> (usize, usize) {
        let first = self.below(total);
        let count = 1 + self.below(longest.min(total - first));
        (first, count)
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If `choices` is empty.
    pub fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[self.below(choices.len())]
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
