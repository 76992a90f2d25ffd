//! The line discipline, terminal settings and the framing of console input.

use faultless_kernel_hosted::discipline::{Discipline, Signal};
use faultless_kernel_hosted::framing::{Frame, Framing};
use faultless_kernel_hosted::termios::{SIZE, SIZE2, Termios};
use linux_raw_sys::general as linux;

/// Types `keys` and returns what appears on the screen.
fn type_in(tty: &mut Discipline, keys: &str) -> String {
    let mut echo = Vec::new();
    for key in keys.bytes() {
        tty.input(key, &mut echo);
    }
    String::from_utf8_lossy(&echo).into_owned()
}

/// What one read of up to 100 bytes gets.
fn read(tty: &mut Discipline) -> String {
    let mut buffer = [0; 100];
    let count = tty.read(&mut buffer);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn with(change: impl FnOnce(&mut Termios)) -> Discipline {
    let mut tty = Discipline::new();
    let mut termios = *tty.termios();
    change(&mut termios);
    tty.set_termios(termios);
    tty
}

#[test]
fn a_line_is_readable_when_it_is_complete() {
    let mut tty = Discipline::new();
    assert_eq!(type_in(&mut tty, "ab"), "ab");
    assert!(!tty.is_ready(1));
    assert_eq!(type_in(&mut tty, "c\rsecond\n"), "c\nsecond\n");
    assert_eq!(tty.readable(), 11);
    assert_eq!(read(&mut tty), "abc\n");
    assert_eq!(read(&mut tty), "second\n");
    assert!(!tty.is_ready(1));
}

#[test]
fn a_short_read_leaves_the_rest_of_the_line() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "abcdef\n");
    let mut two = [0; 2];
    assert_eq!((tty.read(&mut two), two), (2, *b"ab"));
    assert_eq!(read(&mut tty), "cdef\n");
}

#[test]
fn editing_keys_change_line_and_screen() {
    for (keys, line, screen) in [
        ("abx\x7fc\n", "abc\n", "abx\x08 \x08c\n"),
        ("\x7f\x7fa\n", "a\n", "a\n"),
        ("one two\x17x\n", "one x\n", "one two\x08 \x08\x08 \x08\x08 \x08x\n"),
        ("junk\x15ok\n", "ok\n", "junk\x08 \x08\x08 \x08\x08 \x08\x08 \x08ok\n"),
        ("a\tb\x7f\x7fc\n", "ac\n", "a\tb\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08c\n"),
        ("\x16\x03x\n", "\x03x\n", "^\x08^Cx\n"),
        ("\u{e9}\x7f!\n", "!\n", "\u{e9}\x08 \x08!\n"),
    ] {
        let mut tty = Discipline::new();
        assert_eq!(type_in(&mut tty, keys), screen, "{keys:?}");
        assert_eq!(read(&mut tty), line, "{keys:?}");
    }
}

#[test]
fn end_of_file_ends_a_line_without_a_byte() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "\x04");
    assert!(tty.is_ready(1));
    assert_eq!(read(&mut tty), "");
    assert!(!tty.is_ready(1));
    type_in(&mut tty, "part\x04\x04");
    assert_eq!(read(&mut tty), "part");
    assert!(tty.is_ready(1));
    assert_eq!(read(&mut tty), "");
}

#[test]
fn a_line_read_to_its_last_byte_is_not_followed_by_an_end_of_file() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "abc\x04");
    let mut three = [0; 3];
    assert_eq!(tty.read(&mut three), 3);
    assert!(!tty.is_ready(1));
}

#[test]
fn signals_flush_what_was_typed() {
    let mut tty = Discipline::new();
    let mut echo = Vec::new();
    type_in(&mut tty, "half");
    assert_eq!(tty.input(0x03, &mut echo), Some(Signal::Interrupt));
    assert_eq!(tty.input(0x1c, &mut echo), Some(Signal::Quit));
    assert_eq!(tty.input(0x1a, &mut echo), Some(Signal::Suspend));
    assert_eq!(echo, b"^C^\\^Z");
    type_in(&mut tty, "new\n");
    assert_eq!(read(&mut tty), "new\n");
    let mut quiet = with(|t| t.local &= !linux::ISIG);
    assert_eq!(quiet.input(0x03, &mut echo), None);
}

#[test]
fn raw_mode_hands_bytes_over_at_once() {
    let mut tty = with(|t| t.local &= !(linux::ICANON | linux::ECHO));
    assert_eq!(type_in(&mut tty, "a\x7f\x04"), "");
    assert_eq!(read(&mut tty), "a\x7f\x04");
    let mut three = with(|t| {
        t.local &= !linux::ICANON;
        t.characters[linux::VMIN as usize] = 3;
    });
    type_in(&mut three, "ab");
    assert!(!three.is_ready(10) && three.is_ready(2));
    type_in(&mut three, "c");
    assert!(three.is_ready(10));
}

#[test]
fn type_ahead_carried_through_canonical_mode_is_no_end_of_input() {
    let mut tty = with(|t| t.local &= !linux::ICANON);
    let raw = *tty.termios();
    let canonical = Termios { local: raw.local | linux::ICANON, ..raw };
    type_in(&mut tty, "one\ntwo\n");
    let mut line = [0; 4];
    assert_eq!(tty.read(&mut line), 4);
    tty.set_termios(canonical);
    tty.set_termios(raw);
    assert_eq!(read(&mut tty), "two\n");
    assert!(!tty.is_ready(1), "a read would find no byte");
}

#[test]
fn switching_modes_keeps_what_was_typed() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "abc");
    let canonical = *tty.termios();
    let raw = Termios { local: canonical.local & !linux::ICANON, ..canonical };
    tty.set_termios(raw);
    assert_eq!(read(&mut tty), "abc");
    type_in(&mut tty, "xyz");
    tty.set_termios(canonical);
    assert_eq!(read(&mut tty), "xyz");
}

#[test]
fn the_end_of_input_makes_an_unfinished_line_readable() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "no newline");
    tty.hang_up();
    assert_eq!(read(&mut tty), "no newline");
}

#[test]
fn output_processing_follows_the_flags() {
    let out = |tty: &mut Discipline, text: &str| {
        let mut to = Vec::new();
        text.bytes().for_each(|byte| tty.output(byte, &mut to));
        String::from_utf8_lossy(&to).into_owned()
    };
    assert_eq!(out(&mut Discipline::new(), "a\nb"), "a\nb");
    assert_eq!(out(&mut with(|t| t.output |= linux::ONLCR), "a\nb"), "a\r\nb");
    assert_eq!(out(&mut with(|t| t.output |= linux::XTABS), "ab\tc"), "ab      c");
    assert_eq!(out(&mut with(|t| t.output = linux::ONLCR), "a\n"), "a\n");
}

#[test]
fn flow_control_stops_and_starts_output() {
    let mut tty = Discipline::new();
    type_in(&mut tty, "\x13");
    assert!(tty.is_stopped());
    type_in(&mut tty, "\x11");
    assert!(!tty.is_stopped());
    let mut off = with(|t| t.input &= !linux::IXON);
    type_in(&mut off, "\x13");
    assert!(!off.is_stopped());
}

#[test]
fn typed_bytes_beyond_the_limit_are_lost_but_the_line_can_end() {
    let mut tty = Discipline::new();
    type_in(&mut tty, &"x".repeat(10_000));
    type_in(&mut tty, "\n");
    let mut buffer = [0; 10_000];
    assert_eq!(tty.read(&mut buffer), 4096);
}

#[test]
fn settings_survive_the_way_through_user_memory() {
    let fresh = Termios::fresh();
    let bytes = fresh.to_bytes();
    let mut copy = Termios { local: 0, characters: [9; 19], speeds: (1, 2), ..fresh };
    copy.update(&bytes[..SIZE]);
    assert_eq!(copy, Termios { speeds: (1, 2), ..fresh });
    copy.update(&bytes[..SIZE2]);
    assert_eq!(copy, fresh);
}

#[test]
fn framing_separates_words_to_the_kernel_from_input() {
    let mut framing = Framing::new();
    let frames: Vec<Frame> = b"a\x10\x10b\x10C\x10?\x10E".iter().filter_map(|&byte| framing.take(byte)).collect();
    assert_eq!(frames, [Frame::Byte(b'a'), Frame::Byte(0x10), Frame::Byte(b'b'), Frame::Interrupt, Frame::End]);
}
