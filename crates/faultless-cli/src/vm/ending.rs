//! What a finished run means: the program's own end, or what went wrong with the guest.
//!
//! Called by `commands`. QEMU's exit code only says whether the kernel ended in order; how the program ended is in the
//! kernel's last event.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{EXIT_OWN_FAILURE, Error, quoted};
use crate::report::events::{Exit, Log};
use crate::vm::error::MachineError;
use crate::vm::qemu::ORDERLY_END;
use crate::vm::session::{Finished, Stop};
use crate::vm::tether;

/// A guest that ended otherwise than by its program's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestError {
    /// The kernel panicked with this message.
    Panic(String),
    /// The guest reset itself: a triple fault, since the kernel never reboots.
    Reset(Progress),
    /// The guest ended without saying how its program ended.
    Abnormal {
        /// How QEMU ended.
        ended: String,
        /// What it printed.
        stderr: String,
    },
    /// The time limit was reached.
    Timeout(Duration, Progress),
    /// A signal asked this command to end.
    Interrupted(i32),
    /// Nobody reads the output any more.
    OutputClosed,
    /// The program's output could not be written; the host's error number if it has one.
    OutputFailed(Option<i32>),
    /// A signal ended QEMU, and it was not this command that sent it.
    EmulatorKilled {
        /// The signal.
        signal: i32,
        /// What QEMU printed.
        stderr: String,
    },
    /// The host's hypervisor gave up; what QEMU printed.
    Hypervisor(String),
}

/// How far a guest came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The kernel did not report that it is up.
    NotBooted,
    /// The program was running.
    Running,
}

const SIGPIPE: u8 = 13;
const SIGKILL: i32 = 9;

/// QEMU's place was taken by nobody.
const NOT_STARTED: i32 = tether::NOT_STARTED as i32;

/// Judges a finished run: the program's end, or why there is none.
///
/// # Errors
///
/// [`GuestError`], or [`MachineError::QemuFailed`] if QEMU never started the guest.
pub fn judge(finished: &Finished) -> Result<&Exit, Error> {
    let log = &finished.log;
    let progress = if log.boot.is_some() { Progress::Running } else { Progress::NotBooted };
    let status = match finished.stop {
        Stop::Ended(status) => status,
        Stop::TimedOut(limit) => return Err(GuestError::Timeout(limit, progress).into()),
        Stop::Signal(signal) => return Err(GuestError::Interrupted(signal).into()),
        Stop::OutputClosed => return Err(GuestError::OutputClosed.into()),
        Stop::OutputFailed(number) => return Err(GuestError::OutputFailed(number).into()),
        Stop::Stuck => return Err(GuestError::Hypervisor(finished.stderr.clone()).into()),
    };
    if let Some(signal) = status.signal() {
        return Err(GuestError::EmulatorKilled { signal, stderr: finished.stderr.clone() }.into());
    }
    if let Some(message) = &log.panic {
        return Err(GuestError::Panic(message.clone()).into());
    }
    match (&log.exit, status.code()) {
        (Some(exit), Some(ORDERLY_END)) => Ok(exit),
        (None, Some(0)) => Err(GuestError::Reset(progress).into()),
        (None, Some(1 | NOT_STARTED)) if untouched(log) => {
            Err(MachineError::QemuFailed { ended: describe(status), stderr: finished.stderr.clone() }.into())
        }
        _ => Err(GuestError::Abnormal { ended: describe(status), stderr: finished.stderr.clone() }.into()),
    }
}

/// Whether the guest gave no sign of life.
fn untouched(log: &Log) -> bool {
    log.boot.is_none() && log.noise.is_empty()
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(ORDERLY_END) => "an orderly end without its report".into(),
        Some(code) if code > 1 && code & 1 == 1 => {
            format!("the kernel stopped with code {:#x}", code >> 1)
        }
        _ => format!("QEMU: {status}"),
    }
}

impl GuestError {
    /// 124 at the time limit as timeout(1), 128 plus the signal that ended it.
    pub fn exit_code(&self) -> u8 {
        match self {
            GuestError::Timeout(..) => 124,
            GuestError::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            GuestError::OutputClosed => 128 + SIGPIPE,
            GuestError::Panic(_)
            | GuestError::Reset(_)
            | GuestError::Abnormal { .. }
            | GuestError::EmulatorKilled { .. }
            | GuestError::OutputFailed(_)
            | GuestError::Hypervisor(_) => EXIT_OWN_FAILURE,
        }
    }

    /// A short fixed name, for JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            GuestError::Panic(_) => "panic",
            GuestError::Reset(_) => "reset",
            GuestError::Abnormal { .. } => "abnormal_end",
            GuestError::Timeout(..) => "timeout",
            GuestError::Interrupted(_) => "interrupted",
            GuestError::OutputClosed => "output_closed",
            GuestError::OutputFailed(_) => "output_failed",
            GuestError::EmulatorKilled { .. } => "emulator_killed",
            GuestError::Hypervisor(_) => "hypervisor",
        }
    }

    /// What the user can do about it, if anything is known.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            GuestError::Reset(Progress::NotBooted) => {
                "this kernel image does not boot here: build it again with `cargo xtask kernel`, or try another --machine"
            }
            GuestError::Panic(_) | GuestError::Reset(_) | GuestError::Abnormal { .. } => {
                "this is a defect of the kernel: please report it with the command line"
            }
            GuestError::Timeout(_, Progress::NotBooted) => {
                "the guest never came up: try a longer --timeout, or another --machine"
            }
            GuestError::Timeout(_, Progress::Running) => {
                "the program had not ended: try a longer --timeout, or see whether it waits for something that never comes"
            }
            GuestError::EmulatorKilled { signal: SIGKILL, .. } => {
                "somebody killed it, or the host ran out of memory (dmesg says so): then try a smaller --memory"
            }
            GuestError::EmulatorKilled { .. } => "if nobody sent this signal, QEMU crashed: try another version of it",
            GuestError::OutputFailed(_) => "make room or choose another place for the output",
            GuestError::Hypervisor(_) => "this host's KVM cannot run the kernel: use --accel tcg (the default)",
            GuestError::Interrupted(_) | GuestError::OutputClosed => return None,
        };
        Some(text.into())
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestError::Panic(message) => write!(f, "the guest kernel panicked: {message}"),
            GuestError::Reset(Progress::NotBooted) => {
                f.write_str("the guest reset itself (triple fault) before it had booted")
            }
            GuestError::Reset(Progress::Running) => {
                f.write_str("the guest reset itself (triple fault) while the program was running")
            }
            GuestError::Abnormal { ended, stderr } => {
                let words = quoted(stderr);
                write!(f, "the guest ended without reporting how its program ended ({ended}){words}")
            }
            GuestError::Timeout(limit, _) => {
                write!(f, "not finished after {}", humantime::format_duration(*limit))
            }
            GuestError::Interrupted(signal) => write!(f, "ended by signal {signal}"),
            GuestError::OutputClosed => f.write_str("the output was closed by its reader"),
            GuestError::OutputFailed(number) => {
                let error = number.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                write!(f, "the program's output cannot be written: {error}")
            }
            GuestError::EmulatorKilled { signal, stderr } => {
                write!(f, "QEMU was ended by signal {signal}{}", quoted(stderr))
            }
            GuestError::Hypervisor(stderr) => write!(f, "the host's hypervisor gave up{}", quoted(stderr)),
        }
    }
}

impl std::error::Error for GuestError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(code: i32, events: &[&str]) -> Finished {
        let mut log = Log::default();
        for line in events {
            log.record(line);
        }
        Finished { stop: Stop::Ended(ExitStatus::from_raw(code << 8)), log, stderr: "words".into() }
    }

    fn kind(finished: &Finished) -> &'static str {
        judge(finished).expect_err("a failure").kind()
    }

    const BOOT: &str = r#"{"event":"boot"}"#;
    const EXIT: &str = r#"{"event":"exit","status":3,"signal":null}"#;

    #[test]
    fn only_an_orderly_end_with_an_exit_event_is_an_end() {
        assert_eq!(judge(&finished(33, &[BOOT, EXIT])).expect("an end").code(), 3);
        assert_eq!(kind(&finished(33, &[BOOT])), "abnormal_end");
        assert_eq!(kind(&finished(35, &[BOOT, EXIT])), "abnormal_end");
        assert_eq!(kind(&finished(0, &[BOOT])), "reset");
        assert_eq!(kind(&finished(0, &[])), "reset");
        assert_eq!(kind(&finished(1, &[])), "qemu_failed");
    }

    #[test]
    fn a_panic_is_told_with_its_message() {
        let panic = r#"{"event":"panic","message":"frame 7 is free twice"}"#;
        let finished = finished(35, &[BOOT, panic]);
        let error = judge(&finished).expect_err("a panic");
        assert_eq!(error.to_string(), "the guest kernel panicked: frame 7 is free twice");
        assert_eq!(error.exit_code(), 125);
    }

    #[test]
    fn what_stopped_the_run_comes_before_how_qemu_ended() {
        let mut run = finished(33, &[BOOT]);
        run.stop = Stop::TimedOut(Duration::from_secs(90));
        let error = judge(&run).expect_err("a timeout");
        assert_eq!(error.to_string(), "not finished after 1m 30s");
        assert_eq!(error.exit_code(), 124);
        run.stop = Stop::Signal(2);
        assert_eq!(judge(&run).expect_err("a signal").exit_code(), 130);
        run.stop = Stop::Stuck;
        assert_eq!(kind(&run), "hypervisor");
        run.stop = Stop::OutputClosed;
        assert_eq!(judge(&run).expect_err("a closed output").exit_code(), 141);
        run.stop = Stop::OutputFailed(Some(28));
        let error = judge(&run).expect_err("a full disk");
        assert_eq!(error.to_string(), "the program's output cannot be written: No space left on device (os error 28)");
        assert_eq!(error.exit_code(), 125);
        run.stop = Stop::Ended(ExitStatus::from_raw(SIGKILL));
        assert_eq!(kind(&run), "emulator_killed");
        assert!(!judge(&run).expect_err("killed").help().expect("help").contains("defect"));
    }
}
