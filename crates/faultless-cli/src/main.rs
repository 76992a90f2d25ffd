//! The `faultless` binary: reads the command line and hands over to the library.

use std::process::ExitCode;

use clap::Parser;
use faultless_cli::args::{Cli, Command};
use faultless_cli::commands;

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => commands::run::run(&args),
        Command::Check(args) => commands::check::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
    };
    ExitCode::from(code)
}
