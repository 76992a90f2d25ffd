//! The oracle for concurrent runs: was this result possible, given when each operation began and ended?
//!
//! Each operation takes effect at one instant between its beginning and its end, unknown to the observer. So a value
//! that somebody wrote is *stale* for a read if another write lies wholly after it and wholly before the read; and a
//! value is *early* if its write begins after the read has ended. What is neither is possible. That judgement never
//! blames a correct run, and it catches lost stores, stale translations and mixed views (REQUIREMENTS CW-04, I-LOST).
//!
//! A read that only one write can explain is a witness: that write had happened when the read ended, whatever it
//! believed itself.
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

/// The number of an operation, chosen by the caller; one operation may write many places.
pub type OperationId = usize;

/// Something that was written.
#[derive(Clone, Copy, Debug)]
struct Write<V> {
    by: Option<OperationId>,
    span: Span,
    value: V,
    /// False if the operation may have written another place instead: then it replaces nothing for sure.
    certain: bool,
}

/// A place whose value operations replace.
#[derive(Clone, Debug)]
pub struct Register<V> {
    writes: Vec<Write<V>>,
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
        Self::born(Span { start: 0, end: 0 }, vec![value])
    }

    /// A place that comes into being during `span` with one of `values`.
    #[must_use]
    pub fn born(span: Span, values: Vec<V>) -> Self {
        let write = |value| Write { by: None, span, value, certain: true };
        Self { writes: values.into_iter().map(write).collect() }
    }

    /// An operation stored `value`.
    pub fn write(&mut self, by: OperationId, span: Span, value: V) {
        self.writes.push(Write { by: Some(by), span, value, certain: true });
    }

    /// An operation stored `value` here or somewhere else.
    pub fn may_write(&mut self, by: OperationId, span: Span, value: V) {
        self.writes.push(Write { by: Some(by), span, value, certain: false });
    }

    /// The operation had happened by `end`. True if that is news.
    pub fn had_happened(&mut self, by: OperationId, end: u64) -> bool {
        let mut news = false;
        for write in self.writes.iter_mut().filter(|write| write.by == Some(by) && write.span.end > end) {
            write.span.end = end;
            news = true;
        }
        news
    }

    fn visible(&self, span: Span) -> impl Iterator<Item = &Write<V>> {
        self.writes.iter().filter(move |write| {
            let replaces =
                |other: &&Write<V>| other.certain && write.span.end < other.span.start && other.span.end < span.start;
            write.span.start <= span.end && !self.writes.iter().any(|other| replaces(&other))
        })
    }

    /// The values that a read during `span` may see.
    #[must_use]
    pub fn possible(&self, span: Span) -> Vec<V> {
        self.visible(span).map(|write| write.value).collect()
    }

    /// The one operation that can explain a read of `value`, if there is only one explanation.
    #[must_use]
    pub fn explanation(&self, span: Span, value: V) -> Option<OperationId> {
        let mut writes = self.visible(span).filter(|write| write.value == value);
        match (writes.next(), writes.next()) {
            (Some(write), None) => write.by,
            _ => None,
        }
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
        place.write(1, span(10, 20), 1);
        assert_eq!(place.possible(span(5, 9)), [0]);
        assert_eq!(place.possible(span(12, 30)), [0, 1]);
        assert_eq!(place.possible(span(21, 30)), [1]);
        assert!(place.judge(span(21, 30), 0).is_err());
    }

    #[test]
    fn overlapping_writes_leave_both_possible() {
        let mut place = Register::new(0);
        place.write(1, span(10, 20), 1);
        place.write(2, span(15, 25), 2);
        assert_eq!(place.possible(span(30, 31)), [1, 2]);
        assert_eq!(place.explanation(span(15, 16), 2), Some(2));
        assert!(place.had_happened(2, 16));
        assert_eq!(place.possible(span(17, 18)), [1, 2]);
        assert_eq!(place.possible(span(16, 18)), [0, 1, 2]);
    }

    #[test]
    fn a_witness_makes_later_reads_of_older_values_impossible() {
        let mut place = Register::new(0);
        place.write(1, span(10, 100), 1);
        assert_eq!(place.explanation(span(20, 30), 1), Some(1));
        assert!(place.had_happened(1, 30) && !place.had_happened(1, 30));
        assert!(place.judge(span(31, 40), 0).is_err(), "a mixed view: one CPU saw the new value, another the old");
        assert!(place.judge(span(29, 40), 0).is_ok());
    }

    #[test]
    fn a_write_that_may_have_gone_elsewhere_replaces_nothing() {
        let mut place = Register::new(0);
        place.may_write(1, span(10, 20), 1);
        assert_eq!(place.possible(span(30, 40)), [0, 1]);
    }

    #[test]
    fn equal_values_explain_only_if_one_of_them_is_visible() {
        let mut place = Register::new(0);
        place.write(1, span(1, 2), 5);
        place.write(2, span(10, 50), 0);
        assert_eq!(place.explanation(span(12, 13), 0), Some(2), "the first 0 was replaced for sure");
        assert_eq!(place.explanation(span(1, 1), 0), None, "from the beginning");
    }
}
