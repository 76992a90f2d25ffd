//! Sets of signals.

use faultless_kernel_hosted::set::number::{SIGCHLD, SIGINT, SIGKILL, SIGSEGV, SIGSTOP, SIGUSR1};
use faultless_kernel_hosted::set::{DefaultAction, SigSet, default_of, is_signal};

#[test]
fn faults_come_first_then_the_lowest() {
    let set = SigSet::of(SIGUSR1).with(SigSet::of(SIGSEGV)).with(SigSet::of(SIGINT));
    assert_eq!(set.first(), Some(SIGSEGV));
    assert_eq!(set.without(SigSet::of(SIGSEGV)).first(), Some(SIGINT));
    assert_eq!(SigSet::EMPTY.first(), None);
    assert_eq!(SigSet::of(64).first(), Some(64));
}

#[test]
fn two_cannot_be_blocked() {
    let all = SigSet::from_bits(u64::MAX).blockable();
    assert!((1..=64).all(|s| all.contains(s) == !matches!(s, SIGKILL | SIGSTOP)));
}

#[test]
fn numbers_outside_are_no_members() {
    assert!(!SigSet::from_bits(u64::MAX).contains(0));
    assert!(!SigSet::from_bits(u64::MAX).contains(65));
    assert!(!is_signal(0) && is_signal(1) && is_signal(64) && !is_signal(65));
}

#[test]
fn defaults_are_those_of_the_manual() {
    assert_eq!(default_of(SIGCHLD), DefaultAction::Ignore);
    assert_eq!(default_of(SIGSTOP), DefaultAction::Stop);
    assert_eq!(default_of(SIGINT), DefaultAction::Terminate);
}
