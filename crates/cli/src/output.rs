//! Printing results.

use std::io::Write as _;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::exit::{self, CliError};

/// One JSON value on one line of stdout.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| write_failed(&error))?;
    print_line(&text)
}

/// One line on stdout. Whoever reads it may have left with what it wanted: that is no error.
pub(crate) fn print_line(text: &str) -> Result<(), CliError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(write_failed(&error)),
        _ => Ok(()),
    }
}

/// A table without lines, as people and `awk` like it.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

/// Prints a table without the blanks around its lines.
pub(crate) fn print_table(table: &Table) -> Result<(), CliError> {
    for line in table.to_string().lines() {
        print_line(line.strip_prefix(' ').unwrap_or(line).trim_end())?;
    }
    Ok(())
}

pub(crate) fn write_failed(error: &dyn std::error::Error) -> CliError {
    CliError::new(exit::CANNOT_CREATE, "writing the result", error.to_string(), "check where stdout goes")
}
