//! The n-th allocation fails, for every n: a clean error, exact counts, and the repeat succeeds (F-12, FK-05).

use super::{Bench, at, range};
use crate::sync::plain::Ordering::Relaxed;
use crate::{
    Access, Destination, FaultError, ForkError, MapRequest, PAGE_SIZE, RemapError, RemapRequest, Rights, Space,
    UnmapError,
};

/// Runs `operation` with the first, second, ... allocation failing until it succeeds; counts how often it failed.
fn sweep(
    setup: impl Fn() -> (Bench, std::vec::Vec<Space<super::TestMachine>>),
    operation: impl Fn(&mut Bench) -> bool,
) -> u64 {
    for nth in 1..100 {
        let (mut b, others) = setup();
        let before = b.space.usage();
        b.vm.machine().fail_after.store(nth, Relaxed);
        let succeeded = operation(&mut b);
        b.vm.machine().fail_after.store(0, Relaxed);
        let refs: std::vec::Vec<_> = others.iter().collect();
        if succeeded {
            b.finish(&refs);
            return nth - 1;
        }
        assert_eq!(b.space.usage().resident(), before.resident(), "a failure changed what is resident");
        let spaces: std::vec::Vec<_> = std::iter::once(&b.space).chain(refs.iter().copied()).collect();
        b.vm.audit(&mut b.cpu, &spaces, &[]).unwrap_or_else(|error| panic!("allocation {nth}: {error}"));
        assert!(operation(&mut b), "the repeat after failure {nth} fails too");
        b.finish(&refs);
    }
    panic!("the operation never succeeded");
}

fn touched(pages: u64) -> Bench {
    let mut b = Bench::new(8192);
    b.map(0, pages);
    (0..pages).for_each(|page| b.touch(page));
    b
}

#[test]
fn a_move_of_tables_without_pages() {
    // One on each side of a table border at the new place, the second behind a gap and empty.
    let setup = || {
        let mut b = Bench::new(64);
        b.map(512, 2048);
        [512, 2048].into_iter().for_each(|page| b.touch(page));
        b.space.discard(&mut b.cpu, range(2048, 512), false).unwrap();
        (b, std::vec![])
    };
    let request = RemapRequest {
        addr: at(512),
        old_len: 2048 * PAGE_SIZE,
        new_len: 2048 * PAGE_SIZE,
        destination: Destination::Fixed(at((1 << 18) - 512)),
        keep: false,
    };
    let failures = sweep(setup, |b| {
        let moved = b.space.remap(&mut b.cpu, request);
        assert!(moved.is_ok() || moved == Err(RemapError::NoMemory), "{moved:?}");
        moved.is_ok()
    });
    assert_eq!(failures, 1, "the upper table of the second");
}

fn forked(pages: u64) -> (Bench, std::vec::Vec<Space<super::TestMachine>>) {
    let mut b = touched(pages);
    let child = b.space.fork(&mut b.cpu).unwrap();
    (b, std::vec![child])
}

#[test]
fn first_touch() {
    let setup = || {
        let mut b = Bench::new(64);
        b.map(0, 4);
        (b, std::vec![])
    };
    let failures = sweep(setup, |b| match b.space.fault(&mut b.cpu, at(1), Access::Write) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, FaultError::OutOfMemory);
            false
        }
    });
    assert_eq!(failures, 4, "three tables and the page");
}

#[test]
fn the_first_write_after_a_fork() {
    let failures = sweep(
        || forked(4),
        |b| match b.space.fault(&mut b.cpu, at(1), Access::Write) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, FaultError::OutOfMemory);
                false
            }
        },
    );
    assert_eq!(failures, 4, "three tables and the copy");
}

#[test]
fn fork() {
    let failures = sweep(
        || (touched(4), std::vec![]),
        |b| match b.space.fork(&mut b.cpu) {
            Ok(child) => {
                child.exit(&mut b.cpu);
                true
            }
            Err(error) => {
                assert_eq!(error, ForkError::NoMemory);
                false
            }
        },
    );
    assert_eq!(failures, 1, "the root");
}

#[test]
fn unmap_of_a_part_of_a_shared_table() {
    let failures = sweep(
        || forked(1000),
        |b| match b.space.unmap(&mut b.cpu, range(100, 600)) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error, UnmapError::NoMemory);
                assert!(b.space.area_at(&mut b.cpu, at(300)).is_some(), "a failed unmap unmapped");
                false
            }
        },
    );
    assert!(failures >= 3, "the tables on the way to both ends");
}

#[test]
fn protect_of_a_shared_range() {
    sweep(|| forked(1000), |b| b.space.protect(&mut b.cpu, range(100, 600), Rights::READ).is_ok());
}

#[test]
fn a_mapping_over_a_shared_range() {
    let replace = || MapRequest::anonymous(600 * PAGE_SIZE).fixed(at(100));
    sweep(|| forked(1000), |b| b.space.map(&mut b.cpu, replace()).is_ok());
}

#[test]
fn no_memory_at_all() {
    // Everything is in use: faults fail, what is mapped stays readable, and unmapping makes room again.
    let mut b = Bench::new(48);
    b.map(0, 100);
    let touched =
        (0..100).take_while(|page| b.space.fault(&mut b.cpu, at(*page), Access::Write).is_ok()).count() as u64;
    assert!((30..48).contains(&touched), "{touched} pages fitted");
    assert_eq!(b.space.fault(&mut b.cpu, at(99), Access::Write), Err(FaultError::OutOfMemory));
    assert_eq!(b.space.fork(&mut b.cpu).map(drop), Err(ForkError::NoMemory));
    assert_eq!(b.byte(0), 0);
    b.space.unmap(&mut b.cpu, range(0, 10)).unwrap();
    b.space.fault(&mut b.cpu, at(99), Access::Write).unwrap();
    b.finish(&[]);
}
