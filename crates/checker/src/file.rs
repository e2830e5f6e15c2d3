//! Judges a history in a file, line by line: a second reading finds the lines that an anomaly is about.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::check::{Checker, Malformed};
use crate::history::{ReadError, Reader};
use crate::report::Report;

/// A file cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("opening the history: {0}")]
    Open(#[source] std::io::Error),
    /// It is no history.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It contradicts itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Judges the history in a file.
///
/// # Errors
/// There is no such file, it is no history, or one that contradicts itself.
pub fn judge_file(path: &Path) -> Result<Report, FileError> {
    let mut checker = Checker::new();
    for next in open(path)? {
        let (line, event) = next?;
        checker.observe(line, &event)?;
    }
    let mut report = checker.finish();
    locate_in_file(&mut report, path)?;
    Ok(report)
}

/// Finds the lines of a file that the examples of a report are about; reads it only where there are some.
///
/// # Errors
/// The file cannot be read.
pub fn locate_in_file(report: &mut Report, path: &Path) -> Result<(), FileError> {
    if report.anomalies.is_empty() {
        return Ok(());
    }
    for next in open(path)? {
        let (line, event) = next?;
        report.locate_in(line, &event);
    }
    Ok(())
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, FileError> {
    let file = File::open(path).map_err(FileError::Open)?;
    Ok(Reader::new(BufReader::with_capacity(1 << 20, file)))
}
