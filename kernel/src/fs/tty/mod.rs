//! The console: a terminal with a line discipline, or a plain stream, on the serial line.
//!
//! Called by devices, by the run loop when bytes come in, and by ioctls. There is one console. It
//! is the controlling terminal of the session of the first process; another session can take it when
//! it is free (`TIOCSCTTY`).
//!
//! Input that nobody reads stays in the serial port: the sender is held up, nothing is lost.
//!
//! Absent on purpose: pseudo terminals and more than one line.

mod discipline;
mod framing;
mod ioctl;
mod jobs;
mod termios;

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::poll::Readiness;
use super::ring::Ring;
use crate::arch::{CpuLocal, serial};
use crate::clock;
use crate::errno::Errno;
use crate::sched::{Restart, Thread, WaitQueue};
use crate::signal::{self, SigInfo, number};
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};
use discipline::{Discipline, Signal};
use framing::{Frame, Framing};

/// The console.
pub struct Tty {
    state: Lock<State>,
    /// Held while bytes are taken from the port and sorted, so that they stay in order.
    intake: Lock<()>,
    readable: WaitQueue,
    writable: WaitQueue,
}

struct State {
    discipline: Discipline,
    framing: Framing,
    /// Input in stream mode.
    stream: Ring,
    /// Whether input goes to `stream` instead of the discipline.
    is_stream: bool,
    /// No more input will come.
    ended: bool,
    /// The session whose terminal it is; 0 if none.
    session: i32,
    /// The group that may read and gets the signals.
    foreground: i32,
    /// Rows, columns, and two numbers that nobody uses.
    window: [u16; 4],
    /// When the last byte came in (`VTIME`).
    last_input: u64,
}

/// Bytes of output processed at a time.
const CHUNK: usize = 1024;
/// Input that the stream holds before the sender is held up.
const STREAM_CAPACITY: usize = 64 << 10;
/// `VTIME` counts tenths of a second.
const TENTH: u64 = clock::SECOND / 10;

static CONSOLE: Tty = Tty {
    state: Lock::new(State {
        discipline: Discipline::new(),
        framing: Framing::new(),
        stream: Ring::new(STREAM_CAPACITY),
        is_stream: true,
        ended: false,
        session: 1,
        foreground: 1,
        window: [24, 80, 0, 0],
        last_input: 0,
    }),
    intake: Lock::new(()),
    readable: WaitQueue::new(),
    writable: WaitQueue::new(),
};

/// The console.
pub fn console() -> &'static Tty {
    &CONSOLE
}

impl Tty {
    /// Decides whether programs see a terminal.
    pub fn set_terminal(&self) {
        self.state.lock().is_stream = false;
    }

    /// No input will come.
    pub fn end_input(&self) {
        self.state.lock().end();
    }

    /// Takes what the serial port has, as far as there is room for it.
    pub fn take_input(&self) {
        let _intake = self.intake.lock();
        let mut buffer = [0; 64];
        // Ends: the port has a finite queue, and the sender is slower than this loop.
        while self.has_room(buffer.len()) {
            let count = serial::take_input(&mut buffer);
            if count == 0 {
                return;
            }
            self.input(&buffer[..count]);
        }
    }

    /// A terminal throws away what does not fit, a stream does not take it.
    fn has_room(&self, bytes: usize) -> bool {
        let state = self.state.lock();
        !state.is_stream || state.stream.room() >= bytes
    }

    /// Sorts bytes of the serial line, framing included.
    pub fn input(&self, bytes: &[u8]) {
        let mut echo = Vec::new();
        let mut signals = Vec::new();
        let foreground = {
            let mut state = self.state.lock();
            state.last_input = clock::monotonic();
            for &byte in bytes {
                state.take(byte, &mut echo, &mut signals);
            }
            state.foreground
        };
        serial::write(&echo);
        for signal in signals {
            signal::send_group(foreground, SigInfo::kernel(signal));
        }
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// Reads from the terminal.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `EFAULT`, `EIO` (a background process that cannot be stopped), `EINTR` (one that
    /// is about to be).
    pub fn read(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        self.check_read(cpu)?;
        self.take_input();
        let mut buffer = [0; CHUNK];
        let wanted = to.room().min(CHUNK);
        if wanted == 0 {
            return Ok(0);
        }
        let count = {
            let mut state = self.state.lock();
            if !state.discipline.is_ready(wanted) && !state.ended {
                return Err(Errno::EAGAIN);
            }
            state.discipline.read(&mut buffer[..wanted])
        };
        if to.put(cpu, &buffer[..count]) < count {
            return Err(Errno::EFAULT);
        }
        Ok(count)
    }

    /// Reads what there is in raw mode, ready or not: the time of `VTIME` is up.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn read_now(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        let mut buffer = [0; CHUNK];
        let wanted = to.room().min(CHUNK);
        let count = self.state.lock().discipline.read(&mut buffer[..wanted]);
        if to.put(cpu, &buffer[..count]) < count {
            return Err(Errno::EFAULT);
        }
        Ok(count)
    }

    /// Until when a read that is not ready waits, if not for ever. Sets the deadline of the call.
    /// Says whether it is over.
    pub fn is_patience_over(&self, restart: &mut Restart) -> bool {
        let state = self.state.lock();
        let termios = state.discipline.termios();
        let characters = &termios.characters;
        let limit = u64::from(characters[linux::VTIME as usize]) * TENTH;
        if termios.is_canonical() || limit == 0 {
            return false;
        }
        let now = clock::monotonic();
        if characters[linux::VMIN as usize] == 0 {
            let deadline = *restart.deadline.get_or_insert(now + limit);
            return now >= deadline;
        }
        // Between bytes: the clock runs from the last one, once there is one.
        if !state.discipline.has_bytes() {
            return false;
        }
        let deadline = state.last_input + limit;
        restart.deadline = Some(deadline);
        now >= deadline
    }

    /// Reads from the stream.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `EFAULT`.
    pub fn read_stream(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        self.take_input();
        if to.room() == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.stream.is_empty() {
            return if state.ended { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let (head, _) = state.stream.peek();
        let run = &head[..head.len().min(to.room())];
        let put = to.put(cpu, run);
        state.stream.consume(put);
        if put == 0 { Err(Errno::EFAULT) } else { Ok(put) }
    }

    /// Writes to the terminal.
    ///
    /// # Errors
    ///
    /// `EAGAIN` while output is stopped, `EFAULT`, `EIO`, `EINTR` (as for reads).
    pub fn write(&self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        self.check_write(cpu)?;
        self.emit(cpu, from, |text| {
            let mut state = self.state.lock();
            if state.discipline.is_stopped() {
                return None;
            }
            let mut processed = Vec::with_capacity(text.len() * 2);
            for &byte in text {
                state.discipline.output(byte, &mut processed);
            }
            Some(processed)
        })
    }

    /// Writes to the stream.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn write_stream(&self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        self.emit(cpu, from, |text| Some(text.to_vec()))
    }

    /// Sends chunks through `process` to the serial port.
    fn emit(
        &self,
        cpu: &mut CpuLocal,
        from: &mut dyn Source,
        process: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<usize, Errno> {
        let mut done = 0;
        let mut chunk = [0; CHUNK];
        // Ends: each round takes part of `from` or leaves.
        while from.left() > 0 {
            if process(&[]).is_none() {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) };
            }
            let part = CHUNK.min(from.left());
            let taken = from.take(cpu, &mut chunk[..part]);
            if let Some(processed) = process(&chunk[..taken]) {
                serial::write(&processed);
            }
            done += taken;
            if taken < part {
                return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
            }
        }
        Ok(done)
    }

    /// What `poll` says of the terminal.
    pub fn readiness(&self) -> Readiness {
        self.take_input();
        let state = self.state.lock();
        let readable = state.discipline.is_ready(1) || state.ended;
        let writable = !state.discipline.is_stopped();
        Readiness::NONE.with(if readable { Readiness::IN } else { Readiness::NONE }).with(if writable {
            Readiness::OUT
        } else {
            Readiness::NONE
        })
    }

    /// What `poll` says of the stream.
    pub fn stream_readiness(&self) -> Readiness {
        self.take_input();
        let state = self.state.lock();
        let readable = !state.stream.is_empty();
        Readiness::OUT.with(if readable { Readiness::IN } else { Readiness::NONE }).with(if state.ended {
            Readiness::HUP
        } else {
            Readiness::NONE
        })
    }

    /// Bytes that a read of the stream would find.
    pub fn stream_length(&self) -> usize {
        self.take_input();
        self.state.lock().stream.len()
    }

    /// Registers `thread` for input, and for output that was stopped.
    pub fn register(&self, thread: &Arc<Thread>) {
        self.readable.register(thread);
        self.writable.register(thread);
    }
}

impl State {
    fn end(&mut self) {
        self.ended = true;
        self.discipline.hang_up();
    }

    /// Takes a byte of the line.
    fn take(&mut self, byte: u8, echo: &mut Vec<u8>, signals: &mut Vec<i32>) {
        match self.framing.take(byte) {
            None => {}
            Some(Frame::Interrupt) => signals.push(number::SIGINT),
            Some(Frame::End) => self.end(),
            Some(Frame::Byte(byte)) if self.is_stream => {
                // `take_input` has made sure that there is room.
                if let Ok([place, ..]) = self.stream.spare(1) {
                    *place = byte;
                    self.stream.commit(1);
                }
            }
            Some(Frame::Byte(byte)) => {
                signals.extend(self.discipline.input(byte, echo).map(number_of));
            }
        }
    }
}

fn number_of(signal: Signal) -> i32 {
    match signal {
        Signal::Interrupt => number::SIGINT,
        Signal::Quit => number::SIGQUIT,
        Signal::Suspend => number::SIGTSTP,
    }
}
