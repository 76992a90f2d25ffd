//! The command line of `faultless`.
//!
//! Called by the binary and by `commands`. Options of `run` come before the program; everything after it is the
//! program's own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::guest::prepare::ExtraFile;
use crate::units::Size;
use crate::vm::tether;

/// Run unmodified Linux programs on the faultless memory subsystem.
#[derive(Debug, Parser)]
#[command(name = "faultless", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot the kernel in QEMU with one program and report what its memory did
    Run(Box<RunArgs>),
    /// Let Linux judge: random system calls on this kernel and on faultless, compared after each step
    Check(CheckArgs),
    /// Execute a scenario file on this kernel and on faultless, and compare
    Replay(ReplayArgs),
    /// Ask to end with the parent, then become the emulator; `run` starts itself with this
    #[command(name = tether::SUBCOMMAND, hide = true)]
    BecomeEmulator(EmulatorArgs),
}

/// Who judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The kernel that this command runs on
    Linux,
}

/// The hosted machine that faultless runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostedKind {
    /// As an embedder would use it
    Fast,
    /// TLBs that forget nothing, late interrupts, walks to where nobody asked
    Hostile,
}

/// How scenarios are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct MannerArgs {
    /// Look at the memory of all processes after every N steps
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,

    /// Look at their smaps and status as well after every N steps
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub details: u32,

    /// The machine that faultless runs on
    #[arg(long, value_enum, default_value_t = HostedKind::Fast)]
    pub machine: HostedKind,

    /// Write the result to standard output as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `faultless check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Who judges
    #[arg(long, value_enum, default_value_t = Against::Linux)]
    pub against: Against,

    /// The seed of the first scenario [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// System calls and accesses to execute in all
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: u64,

    /// System calls and accesses of one scenario
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub steps: u32,

    /// Most processes of one scenario
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub processes: u32,

    /// Where to write a scenario that does not agree, shortened, for `faultless replay`
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// How to compare.
    #[command(flatten)]
    pub manner: MannerArgs,
}

/// Options of `faultless replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The scenario
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// How to compare.
    #[command(flatten)]
    pub manner: MannerArgs,
}

/// What one process of this command tells the next.
#[derive(Debug, Args)]
pub struct EmulatorArgs {
    /// The process that started this one.
    pub parent: i32,
    /// The emulator and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// QEMU's translator; runs everywhere
    Tcg,
    /// The host's hardware; needs /dev/kvm
    Kvm,
}

/// The board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MachineKind {
    /// A PC with PCI Express
    Q35,
    /// A small board that boots faster
    Microvm,
}

/// Examples that the long help ends with.
const EXAMPLES: &str = "\
Examples:
  faultless run /bin/ls -l /
  faultless run --cpus 4 --memory 1G ./stress --threads 8
  faultless run --file $(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__))') \\
      /usr/bin/python3 -c 'print(sum(range(10)))'
  faultless run --file script.sh --file /usr/bin/awk busybox sh script.sh
  faultless run --root ./alpine /bin/sh
  faultless run --json --report run.json ./program

Without --root and --initrd the guest holds the program, its dynamic linker and its
libraries, at the paths they have here, and nothing else: a program that opens more
(a language's standard library, data, plug-ins) needs it named with --file.

Exit status: that of the program, 128+N if signal N ended it; 124 at the time limit,
125 if this command, QEMU or the kernel failed, 126 if the program cannot be executed,
127 if it or its libraries are missing.

In a terminal, Ctrl-C goes to the program; twice within a second it ends the guest.";

/// The most CPUs that the kernel uses (`MAX_CPUS`); it would leave the others of a larger machine alone.
const MOST_CPUS: u32 = 64;

fn parse_cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(cpus @ 1..=MOST_CPUS) => Ok(cpus),
        Ok(0) => Err("a machine has at least one CPU".to_owned()),
        Ok(_) => Err(format!("the kernel uses at most {MOST_CPUS} CPUs; ask for {MOST_CPUS} or fewer")),
        Err(_) => Err(format!("not a number from 1 to {MOST_CPUS}")),
    }
}

/// Options of `faultless run`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, override_usage = "faultless run [OPTIONS] PROGRAM [ARGS]...")]
pub struct RunArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_cpus)]
    pub cpus: u32,

    /// Size of the guest's memory, for example 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = Size::parse)]
    pub memory: Size,

    /// Give the guest this directory as its root; PROGRAM is looked up inside
    #[arg(long, value_name = "DIR", conflicts_with = "initrd")]
    pub root: Option<PathBuf>,

    /// Give the guest the files of this newc cpio archive
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Add a file or directory to the guest, at the same path or at GUEST; may be repeated
    #[arg(long = "file", value_name = "HOST[:GUEST]", value_parser = parse_file)]
    pub files: Vec<ExtraFile>,

    /// Set an environment variable, or pass one on by its name; may be repeated
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Start in this directory of the guest [default: the current one, or / with --root and --initrd]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Count instructions instead of time: with one CPU and </dev/null each run is exactly the same, and begins on 1 January 2026
    #[arg(long)]
    pub icount: bool,

    /// What executes the guest
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    pub accel: Accel,

    /// The board that QEMU makes
    #[arg(long, value_enum, default_value_t = MachineKind::Q35)]
    pub machine: MachineKind,

    /// End the guest after this time, for example 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// Write the report to standard error as one JSON document instead of a table
    #[arg(long)]
    pub json: bool,

    /// Write the report to this file as one JSON document
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Make no memory report
    #[arg(long, conflicts_with_all = ["json", "report"])]
    pub no_report: bool,

    /// The kernel image [default: beside this binary, or built by `cargo xtask kernel`]
    #[arg(long, value_name = "FILE", env = "FAULTLESS_KERNEL")]
    pub kernel: Option<PathBuf>,

    /// The QEMU binary
    #[arg(long, value_name = "PATH", env = "FAULTLESS_QEMU", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,

    /// The program, by path or by name, and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// The program as given.
    pub fn program(&self) -> String {
        let program = self.command.first();
        program.map_or_else(String::new, |word| word.to_string_lossy().into_owned())
    }

    /// The program's arguments.
    pub fn arguments(&self) -> &[OsString] {
        self.command.get(1..).unwrap_or_default()
    }
}

fn parse_file(text: &str) -> Result<ExtraFile, String> {
    match text {
        "" => Err("an empty path names nothing".into()),
        text => Ok(ExtraFile::parse(text)),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("no program ends in no time".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; for example 90s, 5m or 1h 30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(line: &str) -> Result<RunArgs, clap::Error> {
        let words = std::iter::once("faultless").chain(line.split(' '));
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Run(args) => *args,
            other => panic!("not run: {other:?}"),
        })
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_after_the_program_are_the_programs() {
        let args = run("run --cpus 4 prog --cpus 9 -- -x").expect("parsed");
        assert_eq!((args.cpus, args.program()), (4, "prog".to_owned()));
        assert_eq!(args.arguments(), ["--cpus", "9", "--", "-x"]);
    }

    #[test]
    fn an_option_that_does_not_exist_is_no_program() {
        let told = |line: &str| run(line).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told("run --ram 1G prog").contains("unexpected argument '--ram'"), "{}", told("run --ram 1G prog"));
        assert!(told("run --cpu 4 prog").contains("--cpus"), "{}", told("run --cpu 4 prog"));
        assert!(run("run -v prog").is_err());
        assert_eq!(run("run -- -prog -v").map(|args| args.program()).ok(), Some("-prog".to_owned()));
    }

    #[test]
    fn a_check_needs_no_options() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let Ok(Cli { command: Command::Check(args) }) = parse("faultless check") else { panic!("not parsed") };
        assert_eq!((args.against, args.seed, args.processes, args.manner.every), (Against::Linux, None, 6, 1));
        for wrong in
            ["check --processes 9", "check --every 0", "check --operations 0", "check --against mach", "replay"]
        {
            assert!(parse(&format!("faultless {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_checked_before_anything_starts() {
        assert!(run("run --cpus 0 prog").is_err());
        assert!(run("run --cpus many prog").is_err());
        assert_eq!(run("run --cpus 64 prog").map(|args| args.cpus).ok(), Some(64));
        let too_many = run("run --cpus 65 prog").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(too_many.contains("at most 64 CPUs; ask for 64 or fewer"), "{too_many}");
        assert!(run("run --memory lots prog").is_err());
        assert!(run("run --timeout 0s prog").is_err());
        assert!(run("run --timeout 5 prog").is_err());
        assert!(run("run --root a --initrd b prog").is_err());
        assert!(run("run --no-report --json prog").is_err());
        assert!(run("run").is_err());
    }
}
