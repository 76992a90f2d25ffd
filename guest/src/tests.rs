//! Tests of the helpers; the programs test themselves by passing on Linux.

use crate::arena::{Arena, digest, word};
use crate::child::{self, Note, die_of};
use crate::object::{Object, bytes};
use crate::probe::{self, accerr, adrerr, maperr};
use crate::rng::Rng;
use crate::sys::{End, Errno, PAGE, RO, RW};

#[test]
fn patterns_depend_on_key_and_place() {
    assert_eq!(word(0, 7), 0);
    assert_ne!(word(5, 7), word(5, 8));
    assert_ne!(word(5, 7), word(6, 7));
    assert_ne!(digest(5), digest(6));
    assert_eq!(bytes(9)[8..16], word(9, 1).to_le_bytes());
}

#[test]
fn streams_repeat_and_lanes_differ() {
    let take = |mut rng: Rng| [rng.next(), rng.next(), rng.next()];
    assert_eq!(take(Rng::lane(1, 2)), take(Rng::lane(1, 2)));
    assert_ne!(take(Rng::lane(1, 2)), take(Rng::lane(1, 3)));
    let mut rng = Rng::new(3);
    for _ in 0..1000 {
        let (first, count) = rng.range(10, 4);
        assert!((1..=4).contains(&count) && first + count <= 10);
    }
}

#[test]
fn faults_come_back_as_values() {
    probe::catch();
    let arena = Arena::new(60, 4);
    assert_eq!(arena.try_load(5), Err(maperr(arena.addr(5))));
    arena.map(0, 1, RW).expect("mmap");
    arena.map(1, 1, RO).expect("mmap");
    assert_eq!(arena.try_store(16, 9), Ok(()));
    assert_eq!(arena.try_load(16), Ok(9));
    assert_eq!(arena.try_store(PAGE + 3, 9), Err(accerr(arena.addr(PAGE + 3))));
    assert_eq!(arena.hammer(8, 100, 5), (105, Ok(())));
    assert_eq!(arena.load(8), 104);
    assert_eq!(arena.hammer(PAGE, 100, 5).0, 100);
    let object = Object::new(0).expect("object");
    arena.map_as(2, 1, RW, libc::MAP_SHARED, object.fd, 0).expect("mmap");
    assert_eq!(arena.try_load(2 * PAGE), Err(adrerr(arena.addr(2 * PAGE))));
    arena.unmap(0, 4).expect("munmap");
}

#[test]
fn verification_finds_the_wrong_word() {
    let arena = Arena::new(61, 1);
    arena.map(0, 1, RW).expect("mmap");
    arena.fill(0, 77);
    assert_eq!(arena.verify(0, 77), Ok(()));
    arena.store_byte(801, arena.load_byte(801) ^ 1);
    assert_eq!(arena.verify(0, 77).map_err(|wrong| wrong.addr), Err(arena.addr(800)));
}

#[test]
fn children_tell_how_they_ended() {
    assert_eq!(child::run(|| 7), End::Exit(7));
    let note = Note::new();
    let arena = Arena::new(62, 1);
    let death = die_of(&note, || {
        arena.store(24, 1);
        0
    });
    assert_eq!(death.end, End::Signal(libc::SIGSEGV));
    assert_eq!(death.trap, Some(maperr(arena.addr(24))));
    assert_eq!(format!("{}", Errno(libc::ENOMEM)), "ENOMEM");
}
