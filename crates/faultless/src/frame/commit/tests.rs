//! The promises of several CPUs.

use super::{Commit, CommitPolicy};

#[test]
fn what_cpus_counted_apart_is_one_sum() {
    let commit = Commit::new(100, 2);
    let mapped = || 0;
    commit.promise(Some(0), 30, mapped).unwrap();
    commit.promise(Some(1), 30, mapped).unwrap();
    // Given back elsewhere than it was taken.
    commit.adjust(Some(1), -40);
    assert_eq!(commit.pages(), 20);
    commit.set_policy(CommitPolicy::Strict { limit: 25, reserve: 0 });
    assert!(commit.promise(Some(0), 5, mapped).is_err(), "the sum counts");
    assert_eq!(commit.pages(), 20);
    commit.promise(Some(1), 4, mapped).unwrap();
    assert!(commit.promise(None, 1, mapped).is_err());
    commit.adjust(Some(0), -4);
    commit.set_policy(CommitPolicy::Always);
    commit.promise(Some(0), 1000, mapped).unwrap();
    commit.adjust(None, -1020);
    assert_eq!(commit.pages(), 0);
}
