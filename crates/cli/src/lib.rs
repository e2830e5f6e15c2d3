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

// Whoever may leave out rules on purpose is no product: that feature is for `make mutants` alone (docs/testing.md).
const _: () = assert!(
    !holdfast_core::mutants::CAN_BREAK,
    "holdfast-core has its feature `mutants`, which is for holdfast-sim only: build holdfast without it"
);

/// Parses the arguments, runs the command, and says how it went.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    holdfast_proto::transport::install_crypto_provider();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return refused(&error),
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit)
        }
    }
}

/// Help and version were asked for; everything else is a mistake, told in three lines like any other.
fn refused(error: &clap::Error) -> ExitCode {
    // Nothing is left to be done where help cannot be printed.
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(exit::USAGE)
        }
        _ => {
            eprintln!("{}", usage(&error.to_string()));
            ExitCode::from(exit::USAGE)
        }
    }
}

/// `text` is paragraphs: what is wrong, perhaps tips, perhaps the usage, and where help is.
fn usage(text: &str) -> CliError {
    let mut paragraphs = text.trim().split("\n\n").map(|lines| lines.trim().replace('\n', " "));
    let why = paragraphs.next().unwrap_or_default();
    let mut next: Vec<String> = paragraphs.filter(|line| !line.starts_with("For more information")).collect();
    next.push("see --help".to_owned());
    let why = why.strip_prefix("error: ").unwrap_or(&why);
    CliError::new(exit::USAGE, "reading the command line", why, next.join("; "))
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, CliError> {
    let Arguments { global, command } = arguments;
    logging::install(&global, &command)?;
    match command {
        Command::Controller(args) => commands::controller::run(&args),
        Command::Broker(args) => commands::broker::run(&args),
        Command::Demo(args) => commands::demo::run(&global, &args),
        Command::Topic(args) => commands::with_runtime(commands::topic::run(&global, args.command)),
        Command::Partition(args) => commands::with_runtime(commands::partition::run(&global, args.command)),
        Command::Produce(args) => commands::with_runtime(commands::produce::run(&global, args)),
        Command::Consume(args) => commands::with_runtime(commands::consume::run(&global, args)),
        Command::Cluster(args) => commands::with_runtime(commands::cluster::run(&global, args.command)),
        Command::Zone(args) => commands::with_runtime(commands::zone::run(&global, args.command)),
        Command::Bench(args) => commands::with_runtime(commands::bench::run(&global, args.command)),
        Command::Verify(args) => commands::verify::run(&global, &args),
        Command::Log(args) => commands::log::run(&global, &args.command),
        Command::Health(args) => commands::with_runtime(commands::health::run(&global, args)),
        Command::Version => commands::version::run(&global),
    }
}
