//! Sets of signals and the facts about each signal number.

use linux_raw_sys::general as linux;

/// A set of signals 1..=64 in the layout of the kernel's `sigset_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SigSet(u64);

/// The signals of the manual, as the `i32` that system calls pass.
#[allow(missing_docs, dead_code)] // a complete list is easier to keep than a used one
pub mod number {
    use super::linux;

    macro_rules! signals {
        ($($name:ident)*) => { $(pub const $name: i32 = linux::$name as i32;)* };
    }
    signals! {
        SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV
        SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN
        SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
    }
}

use number::*;

/// What happens to a signal without a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// Nothing.
    Ignore,
    /// The process stops until SIGCONT.
    Stop,
    /// A stopped process goes on.
    Continue,
}

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);

    /// From the layout that user memory has.
    pub const fn from_bits(bits: u64) -> SigSet {
        SigSet(bits)
    }

    /// To the layout that user memory has.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of one signal.
    ///
    /// # Panics
    ///
    /// If `signal` is not in 1..=64.
    pub const fn of(signal: i32) -> SigSet {
        assert!(is_signal(signal));
        SigSet(1 << (signal - 1))
    }

    /// Whether the set has `signal`.
    pub const fn contains(self, signal: i32) -> bool {
        is_signal(signal) && self.0 & (1 << (signal - 1)) != 0
    }

    /// Without SIGKILL and SIGSTOP, which nobody can block.
    pub const fn blockable(self) -> SigSet {
        self.without(SigSet::of(SIGKILL)).without(SigSet::of(SIGSTOP))
    }

    /// What is in either.
    pub const fn with(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// What is in this one but not in `other`.
    pub const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// What is in both.
    pub const fn and(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signal to deliver first: synchronous faults, then the lowest number.
    pub fn first(self) -> Option<i32> {
        let urgent = self.and(SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        (!from.is_empty()).then(|| from.0.trailing_zeros().cast_signed() + 1)
    }
}

/// Signals that the running instruction itself causes.
const SYNCHRONOUS: SigSet = SigSet::of(SIGSEGV)
    .with(SigSet::of(SIGBUS))
    .with(SigSet::of(SIGILL))
    .with(SigSet::of(SIGTRAP))
    .with(SigSet::of(SIGFPE))
    .with(SigSet::of(SIGSYS));

/// Whether `signal` is a signal number.
pub const fn is_signal(signal: i32) -> bool {
    signal >= 1 && signal <= 64
}

/// What `signal` does without a handler.
pub fn default_of(signal: i32) -> DefaultAction {
    match signal {
        SIGCHLD | SIGURG | SIGWINCH => DefaultAction::Ignore,
        SIGCONT => DefaultAction::Continue,
        SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}
