//! Follows the records sent until their outcomes are known.
//!
//! Holds at most twice as many records as the producer has unfinished ones: what is done is sorted out at the front as
//! it comes, and everywhere as soon as the list has doubled. A partition that stands still keeps nothing else here.

use std::collections::VecDeque;
use std::io::{BufWriter, Stdout, Write as _};

use futures::FutureExt as _;
use holdfast_client::{Ack, Outcome, Pending, SendError};

use super::summary::Problem;
use crate::args::Format;
use crate::exit::CliError;
use crate::output::write_failed;

/// The list is not sorted out below this length.
const LEAST: usize = 4096;

/// The records whose outcome is not known yet, in the order in which they were sent.
pub(super) struct Outcomes {
    pending: VecDeque<Pending>,
    /// Length at which the list is sorted out.
    limit: usize,
    first_error: Option<SendError>,
    report: Option<Report>,
}

impl Outcomes {
    pub(super) fn new(report: Option<Report>) -> Outcomes {
        Outcomes { pending: VecDeque::new(), limit: LEAST, first_error: None, report }
    }

    /// Follows one more record.
    pub(super) fn push(&mut self, pending: Pending) -> Result<(), CliError> {
        self.pending.push_back(pending);
        if self.pending.len() >= self.limit {
            self.collect_front()?;
            self.sort_out()?;
            self.limit = (self.pending.len() * 2).max(LEAST);
        }
        Ok(())
    }

    /// Remembers an error, if it is the first; one of unknown outcome outranks one that certainly failed.
    pub(super) fn note(&mut self, error: SendError) {
        let unknown = |error: &SendError| error.outcome == Outcome::Unknown;
        let outranks = |known: &SendError| unknown(&error) && !unknown(known);
        if self.first_error.as_ref().is_none_or(outranks) {
            self.first_error = Some(error);
        }
    }

    pub(super) fn take_first_error(&mut self) -> Option<Problem> {
        self.first_error.take().map(Problem::Send)
    }

    /// Waits until the oldest record's outcome is known; forever where there is none.
    pub(super) async fn oldest(&mut self) {
        match self.pending.front_mut() {
            // The outcome itself is taken by `collect`.
            Some(pending) => drop(pending.await),
            None => std::future::pending().await,
        }
    }

    /// Takes the outcomes that are known and shows them.
    pub(super) fn collect(&mut self) -> Result<(), CliError> {
        self.collect_front()?;
        self.report.as_mut().map_or(Ok(()), Report::flush)
    }

    /// The same, also where older records have no outcome yet.
    pub(super) fn collect_all(&mut self) -> Result<(), CliError> {
        self.sort_out()?;
        self.report.as_mut().map_or(Ok(()), Report::flush)
    }

    fn collect_front(&mut self) -> Result<(), CliError> {
        while self.pending.front().is_some_and(Pending::is_done)
            && let Some(pending) = self.pending.pop_front()
        {
            self.settle(pending)?;
        }
        Ok(())
    }

    /// Takes every outcome that is known. Judged from the newest record to the oldest: where the outcome of a record is
    /// known, so is by then that of every earlier one of its partition, and their order stays.
    fn sort_out(&mut self) -> Result<(), CliError> {
        let mut done: Vec<bool> = self.pending.iter().rev().map(Pending::is_done).collect();
        for pending in std::mem::take(&mut self.pending) {
            if done.pop().unwrap_or_default() {
                self.settle(pending)?;
            } else {
                self.pending.push_back(pending);
            }
        }
        Ok(())
    }

    fn settle(&mut self, pending: Pending) -> Result<(), CliError> {
        match pending.now_or_never() {
            Some(Ok(ack)) => self.report.as_mut().map_or(Ok(()), |report| report.show(&ack)),
            Some(Err(error)) => {
                self.note(error);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Shows where records went.
pub(super) struct Report {
    format: Format,
    output: BufWriter<Stdout>,
}

impl Report {
    pub(super) fn new(format: Format) -> Report {
        Report { format, output: BufWriter::with_capacity(64 << 10, std::io::stdout()) }
    }

    fn show(&mut self, ack: &Ack) -> Result<(), CliError> {
        let (partition, offset) = (ack.partition, ack.offset);
        let written = match self.format {
            Format::Text => writeln!(self.output, "{partition} {offset}"),
            Format::Json => writeln!(self.output, "{{\"partition\":{partition},\"offset\":{offset}}}"),
        };
        written.map_err(|error| write_failed(&error))
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.output.flush().map_err(|error| write_failed(&error))
    }
}
