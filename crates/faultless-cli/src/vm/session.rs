//! One run of the QEMU process: its streams, its events, the limits on it.
//!
//! Called by `commands::run`. The calling thread waits for the first of: the guest's output ends, a signal comes, the
//! time is over, the user wants out. Helper threads move bytes and tell it. Whatever happens, the process group of
//! QEMU is ended before this returns, and no other process is.
//!
//! The reports travel through a pipe and not a file: input is held back until the kernel says that it is up, because a
//! serial port that was not set up yet loses what arrives.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::report::events::Log;
use crate::vm::console::{self, Impatience};
use crate::vm::error::MachineError;
use crate::vm::terminal::Terminal;
use crate::vm::tether;

/// What is to be run.
#[derive(Debug)]
pub struct Launch {
    /// The command, without its standard streams.
    pub command: Command,
    /// The pipe for the reports.
    pub events: Events,
    /// After how long it is ended.
    pub limit: Option<Duration>,
    /// The terminal that standard input is, if it is one.
    pub terminal: Option<Terminal>,
    /// Whether the guest knows that no input will come.
    pub no_input: bool,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// QEMU ended by itself.
    Ended(ExitStatus),
    /// The limit was reached.
    TimedOut(Duration),
    /// A signal asked for it.
    Signal(i32),
    /// Nobody reads the output any more.
    OutputClosed,
    /// The output could not be written; the host's error number if it has one.
    OutputFailed(Option<i32>),
    /// The host's hypervisor gave up, after which QEMU would stand still for ever.
    Stuck,
}

/// What is left of a run.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub stop: Stop,
    /// What the guest reported.
    pub log: Log,
    /// What QEMU printed.
    pub stderr: String,
}

/// What the helpers tell the waiting thread.
enum Notice {
    OutputEnded,
    OutputClosed,
    OutputFailed(Option<i32>),
    Signal(i32),
    Stuck,
}

/// Ends the reader of the pipe. No report can contain it: JSON escapes control characters.
const END_OF_EVENTS: &str = "\u{4}";

/// The pipe through which QEMU's debug console sends the reports.
#[derive(Debug)]
pub struct Events {
    reader: PipeReader,
    /// Kept open here too, so that it is this command that ends its reader.
    writer: PipeWriter,
    path: PathBuf,
}

impl Events {
    /// A new pipe, which processes started from now on can open for writing.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let path = tether::hand_on(&writer)?;
        Ok(Events { reader, writer, path })
    }

    /// What QEMU opens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Runs it to its end, with `input` going to the guest and the guest's output to `output`.
///
/// A thread that waits for input outlives the run: a read from a terminal or pipe cannot be taken back.
///
/// # Errors
///
/// [`MachineError`] if QEMU cannot be started, [`Error::Host`] if the host refuses a signal or thread.
pub fn run<I, O>(launch: Launch, input: I, output: O) -> Result<Finished, Error>
where
    I: Read + Send + 'static,
    O: Write + Send + 'static,
{
    let deadline = launch.limit.map(|limit| (limit, Instant::now() + limit));
    let (notices, inbox) = mpsc::channel();
    let Events { reader, mut writer, .. } = launch.events;
    let signals = watch_signals(notices.clone())?;
    let mut process = Process::start(&launch.command)?;

    let (up, booted) = mpsc::channel();
    let log = thread::spawn(move || read_events(reader, &up));
    let errors = collect(process.child.stderr.take(), notices.clone());
    let moved = move_output(process.child.stdout.take(), output, notices.clone());
    let terminal = launch.terminal.map(Arc::new);
    if launch.no_input {
        // QEMU would take a closed pipe for the end of the serial line's other side.
        std::mem::forget(process.child.stdin.take());
    } else {
        send_input(&mut process, input, terminal.clone(), booted, notices);
    }

    let verdict = wait(&inbox, deadline);
    let stop = match verdict {
        Some(stop) => {
            process.kill();
            stop
        }
        None => Stop::Ended(process.child.wait().map_err(Error::host("waiting for QEMU"))?),
    };
    process.kill();
    join(moved);
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    signals.close();
    writeln!(writer, "{END_OF_EVENTS}").map_err(Error::host("closing the event pipe"))?;
    Ok(Finished { stop, log: log.join().unwrap_or_default(), stderr: errors.join().unwrap_or_default() })
}

/// Waits for what ends the run; `None` means that QEMU closed its output, so it ends or has ended.
fn wait(inbox: &Receiver<Notice>, deadline: Option<(Duration, Instant)>) -> Option<Stop> {
    let notice = match deadline {
        None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some((_, at)) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
    };
    match (notice, deadline) {
        (Ok(Notice::Signal(signal)), _) => Some(Stop::Signal(signal)),
        (Ok(Notice::OutputClosed), _) => Some(Stop::OutputClosed),
        (Ok(Notice::OutputFailed(number)), _) => Some(Stop::OutputFailed(number)),
        (Ok(Notice::Stuck), _) => Some(Stop::Stuck),
        (Err(RecvTimeoutError::Timeout), Some((limit, _))) => Some(Stop::TimedOut(limit)),
        _ => None,
    }
}

/// The QEMU process in a group of its own, so that a terminal's signals reach it only through this command and
/// everything it started can be ended with it.
struct Process {
    child: Child,
}

impl Process {
    fn start(command: &Command) -> Result<Self, MachineError> {
        let mut tethered = tether::tethered(command)?;
        tethered.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tethered.process_group(0);
        let unusable = |error| MachineError::QemuUnusable(command.get_program().into(), error);
        Ok(Process { child: tethered.spawn().map_err(unusable)? })
    }

    /// Ends the group and collects the child. Done twice it does nothing the second time.
    fn kill(&mut self) {
        // A collected child's number may belong to somebody else by now.
        if let Ok(None) = self.child.try_wait() {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                // Fails only if the group is gone already.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Turns the signals that ask for an end into notices.
struct Watch {
    handle: signal_hook::iterator::Handle,
    thread: JoinHandle<()>,
}

fn watch_signals(notices: Sender<Notice>) -> Result<Watch, Error> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
    let mut signals = signals.map_err(Error::host("watching for signals"))?;
    let handle = signals.handle();
    let thread = thread::spawn(move || {
        for signal in signals.forever() {
            // Nobody listens any more: the run is over.
            let _ = notices.send(Notice::Signal(signal));
        }
    });
    Ok(Watch { handle, thread })
}

impl Watch {
    fn close(self) {
        self.handle.close();
        join(self.thread);
    }
}

fn read_events(events: PipeReader, up: &Sender<()>) -> Log {
    let mut log = Log::default();
    for line in BufReader::new(events).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if line == END_OF_EVENTS {
            break;
        }
        log.record(&line);
        if log.boot.is_some() {
            // The input thread may have ended before.
            let _ = up.send(());
        }
    }
    log
}

/// How QEMU says on standard error that the hypervisor gave up. It prints registers after this line.
const STUCK: &str = "KVM internal error";

/// Gathers what QEMU prints, as far as it is text worth showing.
fn collect(stream: Option<impl Read + Send + 'static>, notices: Sender<Notice>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        let lines = stream.into_iter().flat_map(|stream| BufReader::new(stream).split(b'\n').map_while(Result::ok));
        for line in lines {
            let line = String::from_utf8_lossy(&line);
            if line.starts_with(STUCK) {
                // Nobody listens any more: the run is over.
                let _ = notices.send(Notice::Stuck);
            }
            if text.len() < MAX_STDERR {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    })
}

/// How much of QEMU's words is kept.
const MAX_STDERR: usize = 1 << 16;

fn move_output(
    stream: Option<impl Read + Send + 'static>,
    mut output: impl Write + Send + 'static,
    notices: Sender<Notice>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut stream = stream.into_iter();
        let notice = stream.next().map_or(Notice::OutputEnded, |mut stream| {
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return Notice::OutputEnded,
                    Ok(length) => {
                        if let Err(error) = output.write_all(&buffer[..length]).and_then(|()| output.flush()) {
                            return match error.kind() {
                                io::ErrorKind::BrokenPipe => Notice::OutputClosed,
                                _ => Notice::OutputFailed(error.raw_os_error()),
                            };
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Notice::OutputEnded,
                }
            }
        });
        let _ = notices.send(notice);
    })
}

/// Forwards input from the moment the kernel is up. The terminal stays as it is until then, so that Ctrl-C still ends
/// a guest that does not come up.
fn send_input(
    process: &mut Process,
    mut input: impl Read + Send + 'static,
    terminal: Option<Arc<Terminal>>,
    booted: Receiver<()>,
    notices: Sender<Notice>,
) {
    let Some(mut guest) = process.child.stdin.take() else {
        return;
    };
    thread::spawn(move || {
        if booted.recv().is_err() {
            return;
        }
        let raw = terminal.is_some_and(|terminal| terminal.make_raw().is_ok());
        let mut user = Impatience::default();
        let look = |piece: &[u8]| {
            if raw && user.sees(piece, Instant::now()) {
                let _ = notices.send(Notice::Signal(SIGINT));
            }
        };
        // An error means that one side is gone. If it is the guest, the run ends anyway; if it is the input, there is
        // nothing more to send.
        let _ = console::forward(&mut input, &mut guest, look);
        // QEMU would take a closed pipe for the end of the serial line's other side.
        std::mem::forget(guest);
    });
}

fn join(thread: JoinHandle<()>) {
    // The helpers do not panic; if one did, its message is on standard error already.
    let _ = thread.join();
}
