//! `faultless run`: one program in one guest, from command line to report.
//!
//! Called by the binary. The order matters to users: everything that can be wrong with the program or the machine is
//! found before QEMU starts, and the report comes after the last byte of the program's output.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::args::{Accel, MachineKind, RunArgs};
use crate::error::Error;
use crate::guest::prepare::{Prepared, Request, Source, prepare};
use crate::guest::root::Root;
use crate::report::document::Document;
use crate::report::events::{Exit, Log, describe_fault};
use crate::report::table;
use crate::units::Size;
use crate::vm::ending::{GuestError, judge};
use crate::vm::image;
use crate::vm::qemu::{Accelerator, Board, Clock, Files, Machine};
use crate::vm::session::{self, Events, Finished, Launch};
use crate::vm::terminal::Terminal;
use crate::vm::tether;

/// Where programs are looked up in a guest.
const GUEST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program and returns the exit code for this process: the program's own, or that of the failure, which is
/// then on standard error.
pub fn run(args: &RunArgs) -> u8 {
    let mut document = Document::new(&command_line(args));
    let result = attempt(args, &mut document);
    let code = match &result {
        Ok(exit) => exit.code(),
        Err(error) => {
            document.error(error);
            error.exit_code()
        }
    };
    if let Err(error) = tell(args, &result, &document) {
        // Nothing is left to tell it to if standard error is gone as well.
        let _ = writeln!(io::stderr(), "faultless: {error}");
        return error.exit_code().max(code);
    }
    code
}

fn command_line(args: &RunArgs) -> Vec<String> {
    let words = args.command.iter();
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

fn attempt(args: &RunArgs, document: &mut Document) -> Result<Exit, Error> {
    let machine = machine(args);
    document.machine(&machine);
    let here = std::env::current_dir().map_err(Error::host("asking for the current directory"))?;
    let own = std::env::current_exe().unwrap_or_default();
    let terminal = Terminal::of(io::stdin()).map_err(Error::host("reading the terminal's settings"))?;
    let no_input = has_no_input().map_err(Error::host("looking at standard input"))?;
    let prepared = prepare(&Request { no_input, ..request(args, &here, terminal.is_some()) })?;
    document.notices(&prepared.notices);
    for notice in prepared.notices.iter().filter(|_| !args.json) {
        // If standard error is gone, the run is still worth making.
        let _ = writeln!(io::stderr(), "faultless: note: {notice}");
    }
    let kernel = image::find(args.kernel.as_deref(), &own, &[&here, image::source()])?;
    image::check(&kernel)?;
    args.report.as_deref().map_or(Ok(()), can_write).map_err(Error::host("opening the report file"))?;
    let finished = boot(args, &machine, &kernel, &prepared, terminal, no_input)?;
    document.log(&finished.log);
    if !args.json {
        tell_faults(&finished.log);
    }
    let exit = judge(&finished)?.clone();
    if exit.signal == Some(SIGKILL) && !args.json {
        let _ = writeln!(io::stderr(), "faultless: {}", kill_hint(args));
    }
    document.exit(&exit);
    Ok(exit)
}

/// Can the file be written? Asked before the run, which may take long; what is in it stays until the new report is there.
fn can_write(file: &Path) -> io::Result<()> {
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).open(file);
    opened.map(drop).map_err(|error| named(file, error))
}

/// The error with the name of the file.
fn named(file: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

fn boot(
    args: &RunArgs,
    machine: &Machine,
    kernel: &Path,
    prepared: &Prepared,
    terminal: Option<Terminal>,
    no_input: bool,
) -> Result<Finished, Error> {
    // Without a name: it is gone with the last process that has it open, however that ends.
    let mut file = tempfile::tempfile().map_err(Error::host("making a temporary file"))?;
    let archive = tether::hand_on(&file).map_err(Error::host("making a temporary file"))?;
    let size = prepared.write(&mut file)?;
    let kernel_size = fs::metadata(kernel).map_err(Error::host("reading the kernel image"))?.len();
    machine.check(Size::from_bytes(size + kernel_size))?;
    let events = Events::new().map_err(Error::host("making the event pipe"))?;
    let files = Files { kernel, archive: &archive, events: events.path() };
    let command = machine.command(&args.qemu, &files);
    let launch = Launch { command, events, limit: args.timeout, terminal, no_input };
    let input = duplicate(io::stdin()).map_err(Error::host("opening standard input"))?;
    let output = duplicate(io::stdout()).map_err(Error::host("opening standard output"))?;
    session::run(launch, fs::File::from(input), fs::File::from(output))
}

/// Is standard input `/dev/null`?
fn has_no_input() -> io::Result<bool> {
    let input = rustix::fs::fstat(io::stdin())?;
    let is_device = rustix::fs::FileType::from_raw_mode(input.st_mode) == rustix::fs::FileType::CharacterDevice;
    let number = (rustix::fs::major(input.st_rdev), rustix::fs::minor(input.st_rdev));
    Ok(is_device && number == (1, 3))
}

/// A stream without the standard library's buffer and lock: bytes pass at once.
fn duplicate(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

fn machine(args: &RunArgs) -> Machine {
    let clock = if args.icount { Clock::Instructions } else { Clock::Host };
    Machine {
        accelerator: match args.accel {
            Accel::Tcg => Accelerator::Tcg(clock),
            Accel::Kvm => Accelerator::Kvm,
        },
        board: match args.machine {
            MachineKind::Q35 => Board::Q35,
            MachineKind::Microvm => Board::Microvm,
        },
        cpus: args.cpus,
        memory: args.memory,
    }
}

fn request(args: &RunArgs, here: &Path, tty: bool) -> Request {
    let environment = environment(args, tty);
    let source = match (&args.root, &args.initrd) {
        (Some(dir), _) => Source::Whole(Root::at(here.join(dir))),
        (None, Some(file)) => Source::Archive(here.join(file)),
        (None, None) => Source::Needed(Root::host()),
    };
    let path = match source {
        Source::Needed(_) => std::env::var_os("PATH").unwrap_or_default(),
        _ => GUEST_PATH.into(),
    };
    Request {
        program: args.program(),
        arguments: args.arguments().to_vec(),
        source,
        extra: args.files.clone(),
        environment,
        here: here.to_owned(),
        cwd: args.cwd.as_ref().map(|dir| Path::new("/").join(dir)),
        search: std::env::split_paths(&path).collect::<Vec<PathBuf>>(),
        report: !args.no_report,
        tty,
        no_input: false,
    }
}

/// A small fixed environment, so that runs on different hosts are alike, and what the user sets.
fn environment(args: &RunArgs, tty: bool) -> Vec<OsString> {
    let mut settings: Vec<OsString> = vec![format!("PATH={GUEST_PATH}").into(), "HOME=/".into()];
    if tty {
        settings.push(setting("TERM", &std::env::var_os("TERM").unwrap_or("vt100".into())));
    }
    for given in &args.env {
        let name = given.split('=').next().unwrap_or_default();
        let value = match given.split_once('=') {
            Some((_, value)) => Some(value.into()),
            None => std::env::var_os(name),
        };
        let prefix = format!("{name}=");
        settings.retain(|old| !old.as_encoded_bytes().starts_with(prefix.as_bytes()));
        settings.extend(value.map(|value: OsString| setting(name, &value)));
    }
    settings
}

fn setting(name: &str, value: &OsString) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

/// The signal with which the kernel ends a process when memory runs out.
const SIGKILL: u8 = 9;

/// The kernel does not say why it sent the signal, so this says only what may be.
fn kill_hint(args: &RunArgs) -> String {
    let (program, memory) = (args.program(), args.memory);
    format!(
        "{program} was ended by signal 9: if nothing in the guest sent it, {memory} of memory ran out: \
         use a larger --memory"
    )
}

/// How many faults are told; all that are kept are in the document.
const MAX_TOLD: usize = 4;

/// Says which processes ended by a fault, as a kernel's log would.
fn tell_faults(log: &Log) {
    let more = log.faults.len().saturating_sub(MAX_TOLD);
    let told = log.faults.iter().take(MAX_TOLD).map(describe_fault);
    for line in told.chain((more > 0).then(|| format!("{more} more processes were ended by faults"))) {
        // The run is over and its status counts, whoever reads this.
        let _ = writeln!(io::stderr(), "faultless: {line}");
    }
}

/// Writes report and failure to where the user wants them.
fn tell(args: &RunArgs, result: &Result<Exit, Error>, document: &Document) -> Result<(), Error> {
    if let Some(file) = &args.report {
        let written = fs::write(file, format!("{document}\n")).map_err(|error| named(file, error));
        written.map_err(Error::host("writing the report file"))?;
    }
    let text = match result {
        _ if args.json => format!("{document}\n"),
        Ok(exit) if !args.no_report => report(&args.program(), exit),
        Ok(_) => String::new(),
        Err(error) => failure(error),
    };
    io::stderr().write_all(text.as_bytes()).map_err(Error::host("writing to standard error"))
}

/// The memory report for people; nothing if the kernel made none.
fn report(program: &str, exit: &Exit) -> String {
    match exit.report.as_ref().map(table::render) {
        Some(table) if !table.is_empty() => format!("\nmemory report of {program}\n{table}"),
        _ => String::new(),
    }
}

fn failure(error: &Error) -> String {
    if matches!(error, Error::Guest(GuestError::OutputClosed)) {
        // As when `head` has seen enough: the user knows.
        return String::new();
    }
    let help = error.help().map(|help| format!("  help: {help}\n"));
    format!("faultless: {error}\n{}", help.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn settings(line: &str, tty: bool) -> Vec<String> {
        let Command::Run(args) = Cli::parse_from(line.split(' ')).command else {
            panic!("not what was typed");
        };
        let text = |setting: OsString| setting.into_string().expect("text");
        environment(&args, tty).into_iter().map(text).collect()
    }

    #[test]
    fn the_environment_is_small_and_what_the_user_sets() {
        let path = format!("PATH={GUEST_PATH}");
        assert_eq!(settings("faultless run prog", false), [path.as_str(), "HOME=/"]);
        let set = settings("faultless run --env HOME=/h --env A=b=c --env A=d prog", false);
        assert_eq!(set, [path.as_str(), "HOME=/h", "A=d"]);
        assert!(settings("faultless run prog", true)[2].starts_with("TERM="));
    }

    #[test]
    fn a_name_alone_passes_the_hosts_value_on() {
        let host = std::env::var("PATH").expect("a path");
        let set = settings("faultless run --env PATH --env NO_SUCH_NAME prog", false);
        assert_eq!(set, ["HOME=/".to_owned(), format!("PATH={host}")]);
    }
}
