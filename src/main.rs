//! The `ring3` command.
//!
//! Exit statuses are documented in `exit.rs`, where `--help` takes them from.

mod cli;
mod ctl;
mod exit;
mod guests;
mod host;
mod output;
mod run;
mod signals;
mod terminal;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Clap itself ends usage errors with status 2 and --help with 0.
    let result = match cli::Cli::parse().command {
        cli::Command::Run(options) => run::run(&options),
        cli::Command::Guests(command) => guests::run(command),
        cli::Command::Ctl(options) => ctl::run(&options),
        cli::Command::Host => host::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Whoever closed stderr, or filled its disk, still gets the status.
            let _ = writeln!(std::io::stderr(), "ring3: {error:#}");
            ExitCode::from(exit::ERROR)
        }
    }
}
