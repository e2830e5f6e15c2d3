//! The command line of Holdfast, and the cluster in one process that the demo and the integration tests run on.
//!
//! Data goes to stdout, everything else to stderr. Every error says what failed, why, and what to do next, and ends in
//! one of the documented exit codes (`exit`).

pub mod args;
mod commands;
pub mod config;
pub mod demo;
pub mod exit;
mod logging;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Arguments, Command};
use exit::CliError;

/// Parses the arguments, runs the command, and says how it went.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    holdfast_proto::transport::install_crypto_provider();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing is left to be done where even this cannot be printed.
            let _ = error.print();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(exit::USAGE) };
        }
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit)
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, CliError> {
    let Arguments { global, command } = arguments;
    logging::install(&global, &command)?;
    match command {
        Command::Controller(args) => commands::controller::run(&args),
        Command::Broker(args) => commands::broker::run(&args),
        Command::Demo(args) => commands::demo::run(&global, &args),
        Command::Topic(args) => commands::with_runtime(commands::topic::run(&global, args.command)),
        Command::Produce(args) => commands::with_runtime(commands::produce::run(&global, args)),
        Command::Consume(args) => commands::with_runtime(commands::consume::run(&global, args)),
        Command::Cluster(args) => commands::with_runtime(commands::cluster::run(&global, args.command)),
        Command::Zone(args) => commands::with_runtime(commands::zone::run(&global, args.command)),
        Command::Bench(args) => commands::with_runtime(commands::bench::run(&global, args.command)),
        Command::Health(args) => commands::with_runtime(commands::health::run(&global, args)),
        Command::Version => commands::version::run(&global),
    }
}
