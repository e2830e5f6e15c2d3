//! `holdfast log verify`.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use holdfast_broker::inspect::{Expected, LogFolder};
use holdfast_core::Offset;
use holdfast_core::record_batch::{HEADER_LEN, RecordIter};
use holdfast_log::LogError;
use holdfast_log::inspect::{Checks, FoundBatch, Step, log_start, walk};
use holdfast_proto::compression::decompress;
use serde_json::json;

use super::problem::Problem;
use super::{Folder, Stopped, Told, ended};
use crate::args::{Format, Global};
use crate::commands::human::{bytes, count};
use crate::config::chain;
use crate::exit::CliError;

/// The records of a batch that is larger are not looked at: no broker takes one above 16 MiB.
pub(super) const MAX_BATCH: u32 = 64 << 20;
/// The records of a batch that expands beyond this are not looked at.
pub(super) const MAX_RECORDS: usize = 256 << 20;

pub(super) fn run(global: &Global, folder: &Folder) -> Result<ExitCode, CliError> {
    let output = BufWriter::new(io::stdout());
    ended(Verifier { folder, format: global.format, output, sums: Sums::default() }.run())
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
struct Sums {
    logs: usize,
    bytes: u64,
    batches: u64,
    records: u64,
    damages: usize,
    torn: usize,
    /// Folders that were put aside and not asked for.
    put_aside: usize,
}

struct Verifier<'a, W: Write> {
    folder: &'a Folder,
    format: Format,
    output: W,
    sums: Sums,
}

impl<W: Write> Verifier<'_, W> {
    /// Whether nothing is damaged.
    fn run(mut self) -> io::Result<bool> {
        self.journal()?;
        for log in &self.folder.logs {
            // Known to be damaged. Judged when it is asked for.
            if log.quarantine.is_some() && !self.folder.single {
                self.sums.put_aside += 1;
                continue;
            }
            self.log(log)?;
            self.output.flush()?;
        }
        self.summary()?;
        Ok(self.sums.damages == 0)
    }

    /// Without the journal of promises nobody knows what the logs have to bear out.
    fn journal(&mut self) -> io::Result<()> {
        let Some(error) = self.folder.broker.journal_error() else { return Ok(()) };
        self.sums.damages += 1;
        let why = chain(error);
        match self.format {
            Format::Text => writeln!(self.output, "DAMAGED promises: {why}"),
            Format::Json => {
                let problem =
                    json!({ "v": 1, "type": "problem", "kind": "journal", "damage": true, "why": why });
                writeln!(self.output, "{problem}")
            }
        }
    }

    fn log(&mut self, log: &LogFolder) -> io::Result<()> {
        let expected = self.folder.broker.expected(log);
        let torn_from = self.folder.broker.torn_from(log);
        self.sums.logs += 1;
        let fs = self.folder.broker.fs();
        let mut end = match log_start(&*fs, &log.path) {
            Ok(start) => start,
            Err(error) => return self.tell(log, &Problem::unreadable(log, Offset::ZERO, &error)),
        };
        let walked = walk(&*fs, &log.path, Offset::ZERO, Checks::Checksums, &mut |step| match step {
            Step::Segment { len, .. } => {
                self.sums.bytes += len;
                Ok(ControlFlow::Continue(()))
            }
            Step::Damage(damage) => self.told(log, &Problem::found(&damage, torn_from)),
            Step::Batch(batch) => {
                end = batch.header.next_offset();
                self.sums.batches += 1;
                self.batch(log, &batch, expected)
            }
        });
        match walked {
            Ok(()) => self.end(log, end, expected),
            Err(Stopped::Log(error)) => self.tell(log, &Problem::unreadable(log, end, &error)),
            Err(Stopped::Write(error)) => Err(error),
        }
    }

    fn batch(&mut self, log: &LogFolder, batch: &FoundBatch<'_>, expected: Option<Expected>) -> Told {
        if batch.damaged {
            return Ok(ControlFlow::Continue(()));
        }
        let problem = |kind, why| Problem {
            path: batch.segment.display().to_string(),
            position: batch.position,
            why,
            ..Problem::of_log(kind, log, batch.header.base_offset)
        };
        // R8: a promise is durable before anything of its epoch. An epoch is not under the checksum.
        if let (Some(expected), Some(epoch)) = (expected, batch.header.epoch)
            && epoch > expected.promise
        {
            let why = format!("epoch {epoch}, and no more than {} was promised", expected.promise);
            self.tell(log, &problem("promise", why))?;
        }
        match records(batch)? {
            Ok(()) => self.sums.records += u64::from(batch.header.records),
            Err(why) => self.tell(log, &problem("records", why))?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What only shows once all of the log was seen.
    fn end(&mut self, log: &LogFolder, end: Offset, expected: Option<Expected>) -> io::Result<()> {
        if let Some(missing) = Problem::missing(log, end, expected) {
            self.tell(log, &missing)?;
        }
        let known =
            expected.is_some() || log.quarantine.is_some() || self.folder.broker.journal_error().is_some();
        if !known && end > Offset::ZERO {
            let why = "nothing is on record of what was promised for it".to_owned();
            self.tell(log, &Problem { why, ..Problem::of_log("unpromised", log, end) })?;
        }
        Ok(())
    }

    /// Behind a torn tail everything is cut.
    fn told(&mut self, log: &LogFolder, problem: &Problem) -> Told {
        self.tell(log, problem)?;
        Ok(if problem.torn { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn tell(&mut self, log: &LogFolder, problem: &Problem) -> io::Result<()> {
        *(if problem.torn { &mut self.sums.torn } else { &mut self.sums.damages }) += 1;
        let name = self.folder.name(log);
        match self.format {
            Format::Text => writeln!(self.output, "{}", problem.line(&name)),
            Format::Json => writeln!(self.output, "{}", problem.json(&name, log)),
        }
    }

    fn summary(&mut self) -> io::Result<()> {
        let Sums { logs, bytes: size, batches, records, damages, torn, put_aside } = self.sums;
        match self.format {
            Format::Text => {
                let damage =
                    if damages == 0 { "no damage".to_owned() } else { count(damages, "damaged place") };
                let mut line = format!(
                    "{damage} in {}, {}, {batches} batches, {records} records",
                    count(logs, "log"),
                    bytes(size)
                );
                if torn > 0 {
                    line.push_str(&format!(
                        "; {}, to be cut when the broker starts",
                        count(torn, "torn tail")
                    ));
                }
                if put_aside > 0 {
                    line.push_str(&format!("; {} put aside and not checked", count(put_aside, "log")));
                }
                writeln!(self.output, "{line}")?;
            }
            Format::Json => {
                let summary = json!({
                    "v": 1,
                    "type": "summary",
                    "damages": damages,
                    "torn_tails": torn,
                    "logs": logs,
                    "bytes": size,
                    "batches": batches,
                    "records": records,
                    "put_aside": put_aside,
                });
                writeln!(self.output, "{summary}")?;
            }
        }
        self.output.flush()
    }
}

/// Reads all records of a batch. The inner error says why they are none.
fn records(batch: &FoundBatch<'_>) -> Result<Result<(), String>, LogError> {
    let section = match section(batch)? {
        Ok(section) => section,
        Err(why) => return Ok(Err(why)),
    };
    let bad = RecordIter::new(batch.header, section).find_map(Result::err);
    Ok(bad.map_or(Ok(()), |error| Err(error.to_string())))
}

/// The records of a batch, decompressed. The inner error says why they cannot be had.
pub(super) fn section(batch: &FoundBatch<'_>) -> Result<Result<bytes::Bytes, String>, LogError> {
    let header = batch.header;
    if header.length > MAX_BATCH {
        return Ok(Err(format!(
            "a batch of {} is larger than any broker takes",
            bytes(header.length.into())
        )));
    }
    let compressed = batch.bytes()?.slice(HEADER_LEN..);
    Ok(decompress(header.compression(), compressed, MAX_RECORDS).map_err(|error| chain(&error)))
}
