//! Counts of pages and shares of tables (I-REF, SH-07, CW-02).

use super::*;

#[test]
fn a_table_gives_no_references() {
    // A remote access or a page-cache look-up holds the number of a page that became a table meanwhile. With a
    // reference to it, the table's owner and the look-up would both free the frame.
    let record = Record::absent();
    record.init_share();
    assert!(!record.try_get(0) && !record.try_get(1));
    assert_eq!(record.shares(), 1);
    assert!(record.drop_share());
    assert_eq!(record.counts(), (0, 0));
}

#[test]
fn the_last_share_says_so() {
    let record = Record::absent();
    record.init_share();
    record.add_share();
    record.add_share();
    assert_eq!((record.drop_share(), record.drop_share(), record.drop_share()), (false, false, true));
}

#[test]
fn a_page_gives_references_until_the_last_is_dropped() {
    let record = Record::absent();
    assert!(!record.try_get(0));
    record.init_counts(1, 1);
    assert!(record.try_get(1));
    assert_eq!(record.counts(), (2, 2));
    assert!(!record.drop_counts(1, 1));
    assert!(record.drop_counts(1, 1));
    assert!(!record.try_get(0));
}
