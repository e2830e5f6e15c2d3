//! `holdfast version`.

use std::process::ExitCode;

use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::CliError;
use crate::output::{print_json, print_line};

pub(crate) fn run(global: &Global) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    match global.format {
        Format::Text => print_line(&format!("holdfast {version}"))?,
        Format::Json => print_json(&json!({ "v": 1, "version": version }))?,
    }
    Ok(ExitCode::SUCCESS)
}
