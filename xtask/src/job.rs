//! One external command: how it is run, shown and judged.
//!
//! Called by every task. Output passes through as it comes; the counts of cargo's test harness are picked up from it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::step::{Failure, Tally};
use crate::workspace;

/// A command line to run and to print.
#[derive(Debug, Clone)]
pub struct Job {
    program: OsString,
    shown: String,
    arguments: Vec<OsString>,
    dir: PathBuf,
    variables: Vec<(String, String)>,
}

/// What a caller's environment must not change: flags that would reach kernel and models, and what `cargo run` sets
/// for this binary.
const UNSET: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
];

impl Job {
    /// `cargo` with a subcommand, in a directory of the source tree.
    pub fn cargo(dir: &str, arguments: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        Job {
            program: cargo,
            shown: "cargo".into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            dir: workspace::at(dir),
            variables: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The command as a user types it in the root of the source tree.
    pub fn line(&self) -> String {
        let mut words = Vec::new();
        let dir = workspace::shown(&self.dir);
        if !dir.is_empty() {
            words.push(format!("cd {} &&", quote(&dir)));
        }
        words.extend(self.variables.iter().map(|(name, value)| format!("{name}={}", quote(value))));
        words.push(self.shown.clone());
        words.extend(self.arguments.iter().map(|word| quote(&word.to_string_lossy())));
        let line = words.join(" ");
        if dir.is_empty() { line } else { format!("({line})") }
    }

    /// Runs it, forwarding its output, and counts the tests that it reports.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be started or does not end with 0.
    pub fn run(&self) -> Result<Tally, Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir);
        UNSET.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let failed = |what: String| Failure { what, repeat: self.line() };
        let mut child =
            command.spawn().map_err(|error| failed(format!("{} cannot be started: {error}", self.shown)))?;
        let watchdog = Watchdog::start(child.id());
        let tally = child.stdout.take().map(forward).unwrap_or_default();
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if watchdog.stop() {
            return Err(failed(format!("not finished after {} minutes", LIMIT.as_secs() / 60)));
        }
        if status.success() { Ok(tally) } else { Err(failed(format!("{} ended with {status}", self.shown))) }
    }
}

/// After how long a command counts as hanging: the whole gate has half an hour.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Ends a command that hangs, with everything that it started.
struct Watchdog {
    done: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    fn start(process: u32) -> Self {
        let (done, waiting) = mpsc::channel();
        let thread = thread::spawn(move || {
            let late = waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if late {
                kill_tree(process);
            }
            late
        });
        Watchdog { done, thread }
    }

    /// Calls it off; says whether it had to act.
    fn stop(self) -> bool {
        // It does not listen any more if it acted.
        let _ = self.done.send(());
        self.thread.join().unwrap_or(false)
    }
}

/// Ends a process and its descendants. The children are listed before their parent dies, because then they lose it.
fn kill_tree(process: u32) {
    let children = children_of(process);
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(process, Signal::KILL);
    }
    children.into_iter().for_each(kill_tree);
}

fn children_of(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Passes lines on to standard output and adds up the closing lines of test binaries.
fn forward(stream: impl std::io::Read) -> Tally {
    let mut tally = Tally::default();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        tally.add(&closing_line(&line).unwrap_or_default());
        // Whoever closed our output does not want to see the rest.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    tally
}

/// `test result: ok. 12 passed; 1 failed; 3 ignored; ...`
fn closing_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (number, what) = part.split_once(' ')?;
        match what {
            "passed" => tally.passed = number.parse().ok()?,
            "failed" => tally.failed = number.parse().ok()?,
            "ignored" => tally.ignored = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// Quotes a word for a POSIX shell if it needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 9 filtered out; finished in 0.00s";
        assert_eq!(closing_line(line), Some(Tally { passed: 12, failed: 1, ignored: 3 }));
        assert_eq!(closing_line("test a ... ok"), None);
    }

    #[test]
    fn a_tree_of_processes_is_ended_as_a_whole() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "(sleep 600; true) & echo started; wait"]).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("a shell");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut String::new()).expect("a line");
        kill_tree(child.id());
        child.wait().expect("ended");
        // The pipe is closed when the last of them is gone.
        assert_eq!(output.read_line(&mut String::new()).expect("the end"), 0);
    }

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let job = Job::cargo("kernel", &["test", "--test", "loom_*"]).env("RUSTFLAGS", "--cfg loom");
        assert_eq!(job.line(), "(cd kernel && RUSTFLAGS='--cfg loom' cargo test --test 'loom_*')");
        assert_eq!(Job::cargo("", &["fmt"]).line(), "cargo fmt");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
