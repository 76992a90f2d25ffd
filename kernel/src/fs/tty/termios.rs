//! Terminal settings in the layouts that `TCGETS` and `TCGETS2` have.
//!
//! Called by `discipline` and the terminal's ioctls. Pure.

use linux_raw_sys::general as linux;

/// Control characters in the kernel's `struct termios`.
pub const CONTROL_COUNT: usize = linux::NCCS as usize;

/// Settings of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termios {
    /// `c_iflag`.
    pub input: u32,
    /// `c_oflag`.
    pub output: u32,
    /// `c_cflag`.
    pub control: u32,
    /// `c_lflag`.
    pub local: u32,
    /// `c_line`; always `N_TTY`.
    pub line: u8,
    /// `c_cc`, indexed by `VINTR` and so on.
    pub characters: [u8; CONTROL_COUNT],
    /// `c_ispeed` and `c_ospeed`.
    pub speeds: (u32, u32),
}

/// Bytes of `struct termios`.
pub const SIZE: usize = 4 * 4 + 1 + CONTROL_COUNT;
/// Bytes of `struct termios2`.
pub const SIZE2: usize = SIZE + 8;

/// Marks a control character as switched off.
const DISABLED: u8 = 0;

impl Termios {
    /// What a fresh terminal has: canonical mode with echo.
    ///
    /// Different from Linux in one thing: `ONLCR` is off, because the console carries raw bytes and
    /// the terminal behind it adds what it needs.
    pub const fn fresh() -> Termios {
        let mut characters = [DISABLED; CONTROL_COUNT];
        characters[linux::VINTR as usize] = 0x03;
        characters[linux::VQUIT as usize] = 0x1c;
        characters[linux::VERASE as usize] = 0x7f;
        characters[linux::VKILL as usize] = 0x15;
        characters[linux::VEOF as usize] = 0x04;
        characters[linux::VMIN as usize] = 1;
        characters[linux::VSTART as usize] = 0x11;
        characters[linux::VSTOP as usize] = 0x13;
        characters[linux::VSUSP as usize] = 0x1a;
        characters[linux::VREPRINT as usize] = 0x12;
        characters[linux::VDISCARD as usize] = 0x0f;
        characters[linux::VWERASE as usize] = 0x17;
        characters[linux::VLNEXT as usize] = 0x16;
        let local = linux::ISIG
            | linux::ICANON
            | linux::ECHO
            | linux::ECHOE
            | linux::ECHOK
            | linux::ECHOCTL
            | linux::ECHOKE
            | linux::IEXTEN;
        Termios {
            input: linux::ICRNL | linux::IXON | linux::IUTF8,
            output: linux::OPOST,
            control: linux::B38400 | linux::CS8 | linux::CREAD | linux::HUPCL,
            local,
            line: 0,
            characters,
            speeds: (38400, 38400),
        }
    }

    /// The layout of `struct termios2`, whose beginning is `struct termios`.
    pub fn to_bytes(self) -> [u8; SIZE2] {
        let mut bytes = [0; SIZE2];
        let words = [self.input, self.output, self.control, self.local];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[16] = self.line;
        bytes[17..SIZE].copy_from_slice(&self.characters);
        bytes[SIZE..SIZE + 4].copy_from_slice(&self.speeds.0.to_le_bytes());
        bytes[SIZE + 4..].copy_from_slice(&self.speeds.1.to_le_bytes());
        bytes
    }

    /// From `struct termios` (the speeds stay) or `struct termios2`.
    pub fn update(&mut self, bytes: &[u8]) {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        self.input = word(0);
        self.output = word(4);
        self.control = word(8);
        self.local = word(12);
        self.characters.copy_from_slice(&bytes[17..SIZE]);
        if bytes.len() >= SIZE2 {
            self.speeds = (word(SIZE), word(SIZE + 4));
        }
    }

    /// Whether `c_lflag` has `flag`.
    pub fn has_local(&self, flag: u32) -> bool {
        self.local & flag != 0
    }

    /// Whether `c_iflag` has `flag`.
    pub fn has_input(&self, flag: u32) -> bool {
        self.input & flag != 0
    }

    /// Whether `c_oflag` has `flag`, and output is processed at all.
    pub fn has_output(&self, flag: u32) -> bool {
        self.output & linux::OPOST != 0 && self.output & flag != 0
    }

    /// Whether `byte` is the control character `index` and that is not switched off.
    pub fn is_control(&self, byte: u8, index: u32) -> bool {
        byte != DISABLED && self.characters[index as usize] == byte
    }

    /// Lines, or raw bytes?
    pub fn is_canonical(&self) -> bool {
        self.has_local(linux::ICANON)
    }
}
