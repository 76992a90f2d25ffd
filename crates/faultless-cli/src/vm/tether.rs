//! Ties QEMU's life to that of this command, so that even a kill that nobody can catch leaves nothing behind: no
//! process, and no file, since QEMU gets its files as open descriptors without a name.
//!
//! Called by `session`, which starts QEMU through [`tethered`], and by the binary's hidden subcommand, which is the
//! other half. The kernel sends the signal only to a process that asked for it itself, and between fork and exec
//! there is no safe code: so this binary is started, asks, and becomes QEMU.
//!
//! The signal comes when the *thread* that started the process ends: `session::run` starts QEMU from the thread that
//! also waits for it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::Access;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use crate::vm::error::MachineError;

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "become-emulator";

/// How the other half ends if it cannot become QEMU; its standard error says why. Even, so no code of the guest's.
pub const NOT_STARTED: u8 = 126;

/// This binary itself, even if it was replaced or removed meanwhile.
const OWN_BINARY: &str = "/proc/self/exe";

/// Lets processes that are started from now on inherit a descriptor, and returns the path under which they open it.
///
/// # Errors
///
/// What the host says.
pub fn hand_on(file: impl AsFd) -> io::Result<PathBuf> {
    rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
    Ok(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into())
}

/// A command that does the same and ends when the calling thread ends.
///
/// # Errors
///
/// [`MachineError`] if its program is not there or cannot be executed.
pub fn tethered(command: &Command) -> Result<Command, MachineError> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let program = locate(Path::new(command.get_program()), std::env::split_paths(&search))?;
    let mut tethered = Command::new(OWN_BINARY);
    tethered.arg(SUBCOMMAND).arg(getpid().as_raw_pid().to_string()).arg(program).args(command.get_args());
    Ok(tethered)
}

/// Finds a program as a shell does, to say what is wrong before anything is started.
fn locate(program: &Path, search: impl Iterator<Item = PathBuf>) -> Result<PathBuf, MachineError> {
    let given = program.as_os_str().as_encoded_bytes().contains(&b'/');
    let places = if given { vec![program.to_owned()] } else { search.map(|dir| dir.join(program)).collect() };
    let found = places.into_iter().find(|path| path.is_file()).ok_or(MachineError::NoQemu(program.to_owned()))?;
    match rustix::fs::access(&found, Access::EXEC_OK) {
        Ok(()) => Ok(found),
        Err(error) => Err(MachineError::QemuUnusable(found, error.into())),
    }
}

/// The other half: becomes the program in `words`, whose `parent` started it. Returns only if it could not, with the
/// exit code.
pub fn become_emulator(parent: i32, words: &[OsString]) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        return NOT_STARTED;
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("this command's end cannot be watched: {error}");
        return NOT_STARTED;
    }
    // The parent may have died before the request: then nobody sends the signal.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return NOT_STARTED;
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{} cannot be started: {error}", program.display());
    NOT_STARTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("tool"), b"").expect("write");
        let search = || [PathBuf::from("/none"), dir.path().to_owned()].into_iter();
        assert!(matches!(locate(Path::new("other"), search()), Err(MachineError::NoQemu(_))));
        assert!(matches!(locate(Path::new("./tool"), search()), Err(MachineError::NoQemu(_))));
        assert!(matches!(locate(Path::new("tool"), search()), Err(MachineError::QemuUnusable(..))));
        let shell = locate(Path::new("sh"), [PathBuf::from("/none"), "/bin".into()].into_iter());
        assert_eq!(shell.expect("a shell"), Path::new("/bin/sh"));
    }

    #[test]
    fn nothing_is_started_for_a_parent_that_is_gone() {
        // No process is its own parent.
        let gone = getpid().as_raw_pid();
        assert_eq!(become_emulator(gone, &["/bin/true".into()]), NOT_STARTED);
    }
}
