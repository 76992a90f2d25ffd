//! The line discipline: what typed bytes become, and what is echoed.
//!
//! Called by the terminal and by the host's tests. Pure: bytes in; readable bytes, echo and
//! [`Signal`]s out.
//!
//! Absent on purpose: parity and breaks (the line has none), `XCASE`, and delays.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::termios::Termios;

/// What a typed byte does besides being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `VINTR`.
    Interrupt,
    /// `VQUIT`.
    Quit,
    /// `VSUSP`.
    Suspend,
}

/// A readable byte, or the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Byte(u8),
    /// The last byte of a line.
    End(u8),
    /// `VEOF`: ends a line without a byte.
    Eof,
}

/// Typed bytes on their way to readers.
pub struct Discipline {
    /// The settings; use [`Discipline::set_termios`] to change them.
    termios: Termios,
    /// The line being edited.
    line: Vec<u8>,
    /// What readers may have.
    ready: VecDeque<Cell>,
    /// Complete lines in `ready`.
    lines: usize,
    /// The next byte is taken literally (`VLNEXT`).
    literal: bool,
    /// Output is held back (`VSTOP`).
    stopped: bool,
    /// Where the cursor is, and where it was when the line began.
    column: usize,
    line_column: usize,
}

/// As much as Linux buffers: what is typed beyond that is lost.
const LIMIT: usize = 4095;
const TAB: usize = 8;

impl Discipline {
    /// A terminal in its fresh state.
    pub const fn new() -> Discipline {
        Discipline {
            termios: Termios::fresh(),
            line: Vec::new(),
            ready: VecDeque::new(),
            lines: 0,
            literal: false,
            stopped: false,
            column: 0,
            line_column: 0,
        }
    }

    /// The settings.
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Changes the settings. What was typed so far is readable in the new mode, too.
    pub fn set_termios(&mut self, termios: Termios) {
        let was_canonical = self.termios.is_canonical();
        self.termios = termios;
        if was_canonical && !termios.is_canonical() {
            // Ends of lines mean nothing in raw mode: a cell without a byte would read as the end of input.
            self.ready.retain(|&cell| cell != Cell::Eof);
            self.lines = self.ready.iter().filter(|cell| matches!(cell, Cell::End(_))).count();
            self.ready.extend(self.line.drain(..).map(Cell::Byte));
        } else if !was_canonical && termios.is_canonical() && !self.ready.is_empty() {
            self.ready.push_back(Cell::Eof);
            self.lines += 1;
        }
        if !termios.has_input(linux::IXON) {
            self.stopped = false;
        }
    }

    /// Whether output is held back.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Holds output back, or lets it go.
    pub fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Throws typed bytes away.
    pub fn flush_input(&mut self) {
        self.line.clear();
        self.ready.clear();
        self.lines = 0;
        self.literal = false;
    }

    /// The line stays open, but nobody types any more: what is there can be read.
    pub fn hang_up(&mut self) {
        if self.termios.is_canonical() && !self.line.is_empty() {
            self.end_line(Cell::Eof);
        }
    }

    /// Bytes that a read would find (`FIONREAD`).
    pub fn readable(&self) -> usize {
        if self.termios.is_canonical() && self.lines == 0 {
            return 0;
        }
        self.ready.iter().filter(|&&c| c != Cell::Eof).count()
    }

    /// Whether a read of `wanted` bytes can be answered now, times of `VTIME` aside.
    pub fn is_ready(&self, wanted: usize) -> bool {
        if self.termios.is_canonical() {
            return self.lines > 0;
        }
        let minimum = usize::from(self.termios.characters[linux::VMIN as usize]);
        self.ready.len() >= minimum.min(wanted.max(1))
    }

    /// Whether anything at all is there in raw mode.
    pub fn has_bytes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes up to `into.len()` bytes, not past the end of a line in canonical mode.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let canonical = self.termios.is_canonical();
        if canonical && self.lines == 0 {
            return 0;
        }
        let mut count = 0;
        while count < into.len() {
            let Some(cell) = self.ready.pop_front() else { break };
            let (byte, ends) = match cell {
                Cell::Byte(byte) => (Some(byte), false),
                Cell::End(byte) => (Some(byte), true),
                Cell::Eof => (None, true),
            };
            if let Some(byte) = byte {
                into[count] = byte;
                count += 1;
            }
            if ends {
                self.lines -= 1;
                if canonical {
                    return count;
                }
            }
        }
        // A line that was read to its last byte leaves no end-of-file behind.
        if canonical && count > 0 && self.ready.front() == Some(&Cell::Eof) {
            self.ready.pop_front();
            self.lines -= 1;
        }
        count
    }

    /// Takes a typed byte; what is to be shown is appended to `echo`.
    pub fn input(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Signal> {
        let byte = if self.termios.has_input(linux::ISTRIP) { byte & 0x7f } else { byte };
        if core::mem::take(&mut self.literal) {
            self.put(byte, echo);
            return None;
        }
        if self.flow_control(byte) {
            return None;
        }
        if let Some(signal) = self.signal(byte) {
            if !self.termios.has_local(linux::NOFLSH) {
                self.flush_input();
            }
            self.echo(byte, echo);
            return Some(signal);
        }
        let byte = match byte {
            b'\r' if self.termios.has_input(linux::IGNCR) => return None,
            b'\r' if self.termios.has_input(linux::ICRNL) => b'\n',
            b'\n' if self.termios.has_input(linux::INLCR) => b'\r',
            byte => byte,
        };
        if self.termios.is_canonical() {
            self.edit(byte, echo)
        } else {
            self.put(byte, echo)
        }
        None
    }

    /// `VSTOP` and `VSTART`. Says whether the byte was one of them.
    fn flow_control(&mut self, byte: u8) -> bool {
        if !self.termios.has_input(linux::IXON) {
            return false;
        }
        let start = self.termios.is_control(byte, linux::VSTART);
        let stop = self.termios.is_control(byte, linux::VSTOP);
        if start || stop {
            self.stopped = stop && !(start && self.stopped);
        } else if self.stopped && self.termios.has_input(linux::IXANY) {
            self.stopped = false;
        }
        start || stop
    }

    fn signal(&self, byte: u8) -> Option<Signal> {
        if !self.termios.has_local(linux::ISIG) {
            return None;
        }
        [(linux::VINTR, Signal::Interrupt), (linux::VQUIT, Signal::Quit), (linux::VSUSP, Signal::Suspend)]
            .into_iter()
            .find_map(|(index, signal)| self.termios.is_control(byte, index).then_some(signal))
    }

    /// A byte in canonical mode: an editing key, the end of the line, or part of it.
    fn edit(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let extended = self.termios.has_local(linux::IEXTEN);
        let is = |index| self.termios.is_control(byte, index);
        if is(linux::VERASE) {
            self.erase_one(echo);
        } else if is(linux::VKILL) {
            self.kill(byte, echo);
        } else if extended && is(linux::VWERASE) {
            self.erase_word(echo);
        } else if extended && is(linux::VLNEXT) {
            self.literal = true;
            if self.shows() && self.termios.has_local(linux::ECHOCTL) {
                echo.extend_from_slice(b"^\x08");
            }
        } else if extended && is(linux::VREPRINT) && self.shows() {
            self.reprint(byte, echo);
        } else if is(linux::VEOF) {
            self.end_line(Cell::Eof);
        } else if byte == b'\n' {
            if self.shows() || self.termios.has_local(linux::ECHONL) {
                self.show(b"\n", echo);
            }
            self.end_line(Cell::End(byte));
        } else if is(linux::VEOL) || (extended && is(linux::VEOL2)) {
            self.echo(byte, echo);
            self.end_line(Cell::End(byte));
        } else {
            self.put(byte, echo);
        }
    }

    /// A byte that is read as it is.
    fn put(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let canonical = self.termios.is_canonical();
        if self.line.len() + self.ready.len() >= LIMIT {
            return;
        }
        if canonical && self.line.is_empty() {
            self.line_column = self.column;
        }
        if canonical {
            self.line.push(byte)
        } else {
            self.ready.push_back(Cell::Byte(byte))
        }
        self.echo(byte, echo);
    }

    fn end_line(&mut self, end: Cell) {
        self.ready.extend(self.line.drain(..).map(Cell::Byte));
        self.ready.push_back(end);
        self.lines += 1;
    }

    fn shows(&self) -> bool {
        self.termios.has_local(linux::ECHO)
    }

    fn echo(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.shows() {
            return;
        }
        let text = self.picture(byte);
        self.show(text.as_slice(), echo);
    }

    /// What a byte looks like: itself, or `^X`.
    fn picture(&self, byte: u8) -> Picture {
        let plain = !byte.is_ascii_control() || byte == b'\t' || byte == b'\n';
        if plain || !self.termios.has_local(linux::ECHOCTL) {
            Picture([byte, 0], 1)
        } else {
            Picture([b'^', byte ^ 0x40], 2)
        }
    }

    /// Sends text through output processing.
    fn show(&mut self, text: &[u8], echo: &mut Vec<u8>) {
        for &byte in text {
            self.output(byte, echo);
        }
    }

    /// Output processing of one byte, appended to `to`.
    pub fn output(&mut self, byte: u8, to: &mut Vec<u8>) {
        match byte {
            b'\n' if self.termios.has_output(linux::ONLCR) => {
                self.column = 0;
                to.extend_from_slice(b"\r\n");
                return;
            }
            b'\r' if self.termios.has_output(linux::ONOCR) && self.column == 0 => return,
            b'\r' if self.termios.has_output(linux::OCRNL) => {
                self.column = 0;
                to.push(b'\n');
                return;
            }
            b'\n' | b'\r' => self.column = 0,
            b'\t' if self.termios.has_output(linux::XTABS) => {
                let width = TAB - self.column % TAB;
                self.column += width;
                to.extend(core::iter::repeat_n(b' ', width));
                return;
            }
            b'\t' => self.column += TAB - self.column % TAB,
            0x08 => self.column = self.column.saturating_sub(1),
            byte if byte.is_ascii_control() || is_continuation(byte) => {}
            _ => self.column += 1,
        }
        to.push(byte);
    }

    fn erase_one(&mut self, echo: &mut Vec<u8>) {
        let utf8 = self.termios.has_input(linux::IUTF8);
        let before = self.width();
        // Ends: the line gets shorter each time.
        while let Some(byte) = self.line.pop() {
            if !(utf8 && is_continuation(byte)) {
                break;
            }
        }
        self.wipe(before, echo);
    }

    fn erase_word(&mut self, echo: &mut Vec<u8>) {
        let before = self.width();
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        while self.line.last().is_some_and(|b| !is_word(b)) {
            self.line.pop();
        }
        while self.line.last().is_some_and(is_word) {
            self.line.pop();
        }
        self.wipe(before, echo);
    }

    fn kill(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let before = self.width();
        self.line.clear();
        let local = |flag| self.termios.has_local(flag);
        if local(linux::ECHOK) && local(linux::ECHOKE) && local(linux::ECHOE) {
            self.wipe(before, echo);
            return;
        }
        self.echo(byte, echo);
        if self.shows() && self.termios.has_local(linux::ECHOK) {
            self.show(b"\n", echo);
        }
    }

    /// Shows the shorter line after it took `before` columns.
    fn wipe(&mut self, before: usize, echo: &mut Vec<u8>) {
        if !self.shows() {
            return;
        }
        if !self.termios.has_local(linux::ECHOE) {
            let erase = self.termios.characters[linux::VERASE as usize];
            self.echo(erase, echo);
            return;
        }
        for _ in self.width()..before {
            self.show(b"\x08 \x08", echo);
        }
    }

    fn reprint(&mut self, byte: u8, echo: &mut Vec<u8>) {
        self.echo(byte, echo);
        self.show(b"\n", echo);
        self.line_column = self.column;
        for byte in self.line.clone() {
            self.echo(byte, echo);
        }
    }

    /// Columns that the line takes on the screen.
    fn width(&self) -> usize {
        let start = self.line_column;
        let end = self.line.iter().fold(start, |column, &byte| match byte {
            b'\t' => column + TAB - column % TAB,
            byte if byte.is_ascii_control() => column + self.picture(byte).1,
            byte if is_continuation(byte) && self.termios.has_input(linux::IUTF8) => column,
            _ => column + 1,
        });
        end - start
    }
}

impl Default for Discipline {
    fn default() -> Discipline {
        Discipline::new()
    }
}

/// One or two bytes.
struct Picture([u8; 2], usize);

impl Picture {
    fn as_slice(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Whether `byte` is inside a character of UTF-8.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}
