//! The oracle for concurrent runs: was this result possible, given when each operation began and ended?
//!
//! Each operation takes effect at one instant between its beginning and its end, unknown to the observer. So a value
//! that somebody wrote is *stale* for a read if another write lies wholly after it and wholly before the read; and a
//! value is *early* if its write begins after the read has ended. What is neither is possible. That judgement never
//! blames a correct run, and it catches lost stores, stale translations and mixed views (REQUIREMENTS CW-04, I-LOST).
//!
//! Called by the tests of the hosted machine. Time is any counter that all CPUs agree on.

use std::fmt;

/// From the beginning of an operation to its end, both inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Nothing of the operation happened before.
    pub start: u64,
    /// Everything of it has happened.
    pub end: u64,
}

/// A place whose value operations replace.
#[derive(Clone, Debug)]
pub struct Register<V> {
    writes: Vec<(Span, V)>,
}

/// A result that no order of the operations explains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Impossible<V> {
    /// What was seen.
    pub seen: V,
    /// When.
    pub span: Span,
    /// What could have been seen.
    pub possible: Vec<V>,
}

impl<V: fmt::Debug> fmt::Display for Impossible<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, span, possible } = self;
        write!(f, "saw {seen:?} in {}..{}, possible were {possible:?}", span.start, span.end)
    }
}

impl<V: Copy + PartialEq> Register<V> {
    /// A place that holds `value` from the beginning.
    #[must_use]
    pub fn new(value: V) -> Self {
        Self { writes: vec![(Span { start: 0, end: 0 }, value)] }
    }

    /// A place that comes into being during `span` with one of `values`.
    #[must_use]
    pub fn born(span: Span, values: Vec<V>) -> Self {
        Self { writes: values.into_iter().map(|value| (span, value)).collect() }
    }

    /// Somebody stored `value`.
    pub fn write(&mut self, span: Span, value: V) {
        self.writes.push((span, value));
    }

    /// Somebody saw `value`: if only one write can have stored it, that write had happened by the end of the read.
    pub fn witness(&mut self, span: Span, value: V) {
        let mut writes = self.writes.iter_mut().filter(|(_, written)| *written == value);
        if let (Some((write, _)), None) = (writes.next(), writes.next()) {
            write.end = write.end.min(span.end);
        }
    }

    /// The values that a read during `span` may see.
    #[must_use]
    pub fn possible(&self, span: Span) -> Vec<V> {
        let may_see = |write: &Span| {
            let replaced = |other: &Span| write.end < other.start && other.end < span.start;
            write.start <= span.end && !self.writes.iter().any(|(other, _)| replaced(other))
        };
        self.writes.iter().filter(|(write, _)| may_see(write)).map(|(_, value)| *value).collect()
    }

    /// Judges a read.
    ///
    /// # Errors
    ///
    /// [`Impossible`] if no order of the operations lets it see `value`.
    pub fn judge(&self, span: Span, value: V) -> Result<(), Impossible<V>> {
        let possible = self.possible(span);
        if possible.contains(&value) { Ok(()) } else { Err(Impossible { seen: value, span, possible }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn a_value_that_was_surely_replaced_is_impossible() {
        let mut place = Register::new(0);
        place.write(span(10, 20), 1);
        assert_eq!(place.possible(span(5, 9)), [0]);
        assert_eq!(place.possible(span(12, 30)), [0, 1]);
        assert_eq!(place.possible(span(21, 30)), [1]);
        assert!(place.judge(span(21, 30), 0).is_err());
    }

    #[test]
    fn overlapping_writes_leave_both_possible() {
        let mut place = Register::new(0);
        place.write(span(10, 20), 1);
        place.write(span(15, 25), 2);
        assert_eq!(place.possible(span(30, 31)), [1, 2]);
        // Somebody saw 2 already at 16, so 1 may still be the later one, but 0 is gone.
        place.witness(span(15, 16), 2);
        assert_eq!(place.possible(span(17, 18)), [1, 2]);
        assert_eq!(place.possible(span(16, 18)), [0, 1, 2]);
    }

    #[test]
    fn a_witness_makes_later_reads_of_older_values_impossible() {
        let mut place = Register::new(0);
        place.write(span(10, 100), 1);
        place.witness(span(20, 30), 1);
        assert!(place.judge(span(31, 40), 0).is_err(), "a mixed view: one CPU saw the new value, another the old");
        assert!(place.judge(span(29, 40), 0).is_ok());
    }
}
