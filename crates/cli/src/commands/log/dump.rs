//! `holdfast log dump`.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use holdfast_broker::inspect::LogFolder;
use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, Record, RecordIter};
use holdfast_log::inspect::{Checks, FoundBatch, Step, walk};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::problem::Problem;
use super::text::{codec, quoted, size, time};
use super::verify::section;
use super::{Folder, Stopped, Told, ended};
use crate::args::{Format, Global, LogDumpArgs};
use crate::commands::consume::print::{Headers, entry};
use crate::exit::CliError;

/// Written at once.
const BUFFER: usize = 256 << 10;

pub(super) fn run(global: &Global, folder: &Folder, args: &LogDumpArgs) -> Result<ExitCode, CliError> {
    let output = BufWriter::with_capacity(BUFFER, io::stdout());
    let dumper = Dumper {
        folder,
        format: global.format,
        from: Offset(args.from),
        left: args.max_records,
        values: args.values,
        damaged: false,
        output,
    };
    ended(dumper.run())
}

struct Dumper<'a, W: Write> {
    folder: &'a Folder,
    format: Format,
    from: Offset,
    /// Records that may still be printed; `None` for all.
    left: Option<u64>,
    values: bool,
    damaged: bool,
    output: W,
}

impl<W: Write> Dumper<'_, W> {
    /// Whether nothing that was looked at is damaged.
    fn run(mut self) -> io::Result<bool> {
        for log in &self.folder.logs {
            if self.left == Some(0) {
                break;
            }
            // What was put aside is shown when it is asked for.
            if log.quarantine.is_none() || self.folder.single {
                self.log(log)?;
            }
        }
        self.output.flush()?;
        Ok(!self.damaged)
    }

    fn log(&mut self, log: &LogFolder) -> io::Result<()> {
        let name = self.folder.name(log);
        let torn_from = self.folder.broker.torn_from(log);
        if self.format == Format::Text {
            writeln!(self.output, "log {name}  {}", log.path.display())?;
        }
        let mut end = Offset::ZERO;
        let fs = self.folder.broker.fs();
        let walked = walk(&*fs, &log.path, self.from, Checks::Checksums, &mut |step| match step {
            Step::Segment { .. } => Ok(ControlFlow::Continue(())),
            Step::Damage(damage) => {
                self.problem(log, &name, &Problem::found(&damage, torn_from))?;
                Ok(ControlFlow::Continue(()))
            }
            Step::Batch(batch) => {
                end = batch.header.next_offset();
                if end <= self.from { Ok(ControlFlow::Continue(())) } else { self.batch(log, &name, &batch) }
            }
        });
        match walked {
            Ok(()) => Ok(()),
            Err(Stopped::Log(error)) => self.problem(log, &name, &Problem::unreadable(log, end, &error)),
            Err(Stopped::Write(error)) => Err(error),
        }
    }

    fn problem(&mut self, log: &LogFolder, name: &str, problem: &Problem) -> io::Result<()> {
        self.damaged |= !problem.torn;
        match self.format {
            Format::Text => writeln!(self.output, "{}", problem.line(name)),
            Format::Json => writeln!(self.output, "{}", problem.json(name, log)),
        }
    }

    fn batch(&mut self, log: &LogFolder, name: &str, batch: &FoundBatch<'_>) -> Told {
        match self.format {
            Format::Text => writeln!(self.output, "{}", batch_line(batch))?,
            Format::Json => writeln!(self.output, "{}", batch_json(log, batch))?,
        }
        if !batch.damaged {
            self.records(log, name, batch)?;
        }
        Ok(if self.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn records(&mut self, log: &LogFolder, name: &str, batch: &FoundBatch<'_>) -> Result<(), Stopped> {
        let header = batch.header;
        let bad = |why| Problem {
            path: batch.segment.display().to_string(),
            position: batch.position,
            why,
            ..Problem::of_log("records", log, header.base_offset)
        };
        let section = match section(batch)? {
            Ok(section) => section,
            Err(why) => return Ok(self.problem(log, name, &bad(why))?),
        };
        for record in RecordIter::new(header, section) {
            match record {
                Ok(record) => self.record(log, &header, &record)?,
                Err(error) => self.problem(log, name, &bad(error.to_string()))?,
            }
            if self.left == Some(0) {
                break;
            }
        }
        Ok(())
    }

    fn record(&mut self, log: &LogFolder, header: &BatchHeader, record: &Record) -> io::Result<()> {
        let offset = header.base_offset + u64::from(record.offset_delta);
        if offset < self.from {
            return Ok(());
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        match self.format {
            Format::Text => writeln!(self.output, "  {}", record_line(offset, record, self.values)),
            Format::Json => {
                serde_json::to_writer(&mut self.output, &Line { log, offset, record, values: self.values })?;
                writeln!(self.output)
            }
        }
    }
}

fn batch_line(batch: &FoundBatch<'_>) -> String {
    let header = &batch.header;
    let mut line = format!(
        "batch {}-{}  epoch {}  byte {}  {} B  {}  crc {:#010x}",
        header.base_offset,
        header.last_offset(),
        header.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string()),
        batch.position,
        header.length,
        codec(header.compression()),
        header.crc,
    );
    if !header.is_dense() {
        line.push_str(&format!("  {} of {} records", header.records, header.offsets()));
    }
    if let Some(producer) = header.producer {
        let (id, epoch, sequence) = (producer.id, producer.epoch, producer.base_sequence);
        line.push_str(&format!("  producer {id} epoch {epoch} sequence {sequence}"));
    }
    for (is, word) in [
        (header.is_filler(), "filler"),
        (header.is_control(), "control"),
        (header.is_transactional(), "transactional"),
        (header.is_append_time(), "append-time"),
        (batch.damaged, "DAMAGED"),
    ] {
        if is {
            line.push_str("  ");
            line.push_str(word);
        }
    }
    line
}

fn batch_json(log: &LogFolder, batch: &FoundBatch<'_>) -> Value {
    let header = &batch.header;
    json!({
        "v": 1,
        "type": "batch",
        "topic_id": log.partition.topic.to_string(),
        "partition": log.partition.index,
        "quarantine": log.quarantine,
        "path": batch.segment.display().to_string(),
        "position": batch.position,
        "length": header.length,
        "base_offset": header.base_offset.0,
        "last_offset": header.last_offset().0,
        "epoch": header.epoch.map(|epoch| epoch.to_string()),
        "records": header.records,
        "removed_records": removed(header),
        "filler": header.is_filler(),
        "compression": codec(header.compression()),
        "crc": header.crc,
        "base_timestamp": (header.base_timestamp >= 0).then_some(header.base_timestamp),
        "max_timestamp": (header.max_timestamp >= 0).then_some(header.max_timestamp),
        "producer_id": header.producer.map(|producer| producer.id),
        "producer_epoch": header.producer.map(|producer| producer.epoch),
        "base_sequence": header.producer.map(|producer| producer.base_sequence),
        "control": header.is_control(),
        "transactional": header.is_transactional(),
        "append_time": header.is_append_time(),
        "damaged": batch.damaged,
    })
}

/// Records that compaction took out of a batch.
pub(super) fn removed(header: &BatchHeader) -> u64 {
    u64::from(header.offsets()).saturating_sub(header.records.into())
}

fn record_line(offset: Offset, record: &Record, values: bool) -> String {
    let show = |bytes: Option<&bytes::Bytes>| {
        let bytes = bytes.map(|bytes| &bytes[..]);
        if values { quoted(bytes) } else { size(bytes) }
    };
    let (key, value) = (show(record.key.as_ref()), show(record.value.as_ref()));
    let mut line = format!("{offset}  {}  key {key}  value {value}", time(record.timestamp));
    for header in &record.headers {
        let (key, value) = (show(Some(&header.key)), show(header.value.as_ref()));
        line.push_str(&format!("  header {key} {value}"));
    }
    line
}

/// A record, for programs.
struct Line<'a> {
    log: &'a LogFolder,
    offset: Offset,
    record: &'a Record,
    values: bool,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &1)?;
        map.serialize_entry("type", "record")?;
        map.serialize_entry("topic_id", &self.log.partition.topic.to_string())?;
        map.serialize_entry("partition", &self.log.partition.index)?;
        map.serialize_entry("offset", &self.offset.0)?;
        map.serialize_entry("timestamp", &(record.timestamp >= 0).then_some(record.timestamp))?;
        if self.values {
            entry(&mut map, ["key", "key_base64"], record.key.as_ref())?;
            entry(&mut map, ["value", "value_base64"], record.value.as_ref())?;
            map.serialize_entry("headers", &Headers(&record.headers))?;
        } else {
            map.serialize_entry("key_bytes", &record.key.as_ref().map(bytes::Bytes::len))?;
            map.serialize_entry("value_bytes", &record.value.as_ref().map(bytes::Bytes::len))?;
            map.serialize_entry("headers", &record.headers.len())?;
        }
        map.end()
    }
}
