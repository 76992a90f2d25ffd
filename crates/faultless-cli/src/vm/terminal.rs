//! The user's terminal: every key goes to the guest, whose own terminal echoes and edits.
//!
//! Called by `session`. Output processing stays on, since the guest's bytes carry bare newlines. The settings are put
//! back when the run ends, however it ends, but for a kill that nobody can catch.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{self, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// A terminal and how it was found.
#[derive(Debug)]
pub struct Terminal {
    fd: OwnedFd,
    found: Termios,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AsFound,
    Raw,
    /// Put back for good: a late request for raw mode does nothing.
    Closed,
}

impl Terminal {
    /// The terminal behind `fd`, or `None` if it is no terminal.
    ///
    /// # Errors
    ///
    /// What the host says when its settings cannot be read.
    pub fn of(fd: impl AsFd) -> io::Result<Option<Self>> {
        if !termios::isatty(&fd) {
            return Ok(None);
        }
        Ok(Some(Terminal {
            found: termios::tcgetattr(&fd)?,
            fd: fd.as_fd().try_clone_to_owned()?,
            state: Mutex::new(State::AsFound),
        }))
    }

    /// Switches to raw input, unless the terminal was put back already.
    ///
    /// # Errors
    ///
    /// What the host says when the settings cannot be changed.
    pub fn make_raw(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::AsFound {
            return Ok(());
        }
        let mut raw = self.found.clone();
        raw.input_modes -= InputModes::BRKINT
            | InputModes::ICRNL
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ISTRIP
            | InputModes::IXON;
        raw.local_modes -=
            LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(&self.fd, OptionalActions::Now, &raw)?;
        *state = State::Raw;
        Ok(())
    }

    /// Puts the settings back and keeps them so.
    pub fn restore(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Raw {
            // A terminal that is gone cannot be put back, and nobody is left to tell.
            let _ = termios::tcsetattr(&self.fd, OptionalActions::Drain, &self.found);
        }
        *state = State::Closed;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}
