//! Words, bytes and tables reach the same memory, and nothing reaches beyond.

use super::*;
use core::sync::atomic::Ordering;

fn arena() -> Arena {
    Arena::new(4, Populate::Lazily).expect("four frames")
}

#[test]
fn words_and_bytes_are_little_endian_views_of_the_same_memory() {
    let (arena, frame) = (arena(), FrameId::new(2));
    arena.store(frame, 8, 0x1122_3344_5566_7788u64);
    assert_eq!(arena.table(frame)[1].load(Ordering::Relaxed), 0x1122_3344_5566_7788);
    assert_eq!(arena.load::<u8>(frame, 15), 0x11);
    assert_eq!(arena.load::<u16>(frame, 9), 0x6677);
    assert_eq!(arena.load::<u32>(frame, 12), 0x1122_3344);
    arena.store(frame, 10, 0xaau8);
    arena.store(frame, 11, 0xbbccu16);
    arena.store(frame, 13, 0xddu8);
    let mut bytes = [0; 8];
    arena.read(frame, 8, &mut bytes);
    assert_eq!(bytes, [0x88, 0x77, 0xaa, 0xcc, 0xbb, 0xdd, 0x22, 0x11]);
    arena.store(frame, 4092, u32::MAX);
    assert_eq!(arena.load::<u64>(frame, 4088), 0xffff_ffff_0000_0000);
}

#[test]
fn frames_are_apart() {
    let arena = arena();
    arena.write(FrameId::new(1), 0, &[7; 4096]);
    assert_eq!(arena.load::<u64>(FrameId::new(0), 4088), 0);
    assert_eq!(arena.load::<u64>(FrameId::new(2), 0), 0);
    arena.copy(FrameId::new(1), FrameId::new(3));
    arena.zero(FrameId::new(1));
    assert!(arena.table(FrameId::new(1)).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    assert_eq!(arena.load::<u64>(FrameId::new(3), 4088), 0x0707_0707_0707_0707);
}

#[test]
fn conversions_keep_the_word() {
    assert_eq!(u16::from_bytes(0xabcdu16.to_bytes()), 0xabcd);
    assert_eq!(u8::from_bytes([5, 1, 1, 1, 1, 1, 1, 1]), 5);
}

#[test]
#[should_panic(expected = "not in the arena")]
fn frames_beyond_the_end_do_not_exist() {
    let _ = arena().table(FrameId::new(4));
}

#[test]
#[should_panic(expected = "past the end of a frame")]
fn accesses_stay_in_their_frame() {
    let _ = arena().load::<u64>(FrameId::new(0), 4089);
}

#[test]
fn an_arena_needs_frames() {
    assert_eq!(Arena::new(0, Populate::Now).err(), Some(Errno::INVAL));
    assert!(Arena::new(u64::MAX, Populate::Lazily).is_err());
}
