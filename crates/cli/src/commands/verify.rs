//! `holdfast verify`.

use std::process::ExitCode;

use holdfast_checker::{FileError, Report, Verdict, judge_file};

use crate::args::{Format, Global, VerifyArgs};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(crate) fn run(global: &Global, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let report = judge_file(&args.history).map_err(|error| refused(args, &error))?;
    match global.format {
        Format::Text => print_line(&report.to_string())?,
        Format::Json => print_json(&report)?,
    }
    Ok(ExitCode::from(code_of(&report)))
}

fn code_of(report: &Report) -> u8 {
    match report.verdict {
        Verdict::Valid => exit::OK,
        Verdict::Invalid => exit::WARNING,
        Verdict::Incomplete => exit::UNKNOWN,
    }
}

fn refused(args: &VerifyArgs, error: &FileError) -> CliError {
    let what = format!("judging {}", args.history.display());
    let (exit, next) = match error {
        FileError::Open(_) => (exit::CANNOT_CREATE, "name a file that holds a history"),
        FileError::Read(_) => (exit::DATA, "give a history as `holdfast demo --history FILE` writes it"),
        FileError::Malformed(_) => {
            (exit::DATA, "correct the program that recorded it: it says nothing of the cluster")
        }
    };
    CliError::new(exit, what, error.to_string(), next)
}
