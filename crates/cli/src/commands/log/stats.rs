//! `holdfast log stats`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;

use holdfast_broker::inspect::{Expected, LogFolder};
use holdfast_core::record_batch::{BatchHeader, Compression};
use holdfast_core::replication::Compacted;
use holdfast_core::{LeaderEpoch, Offset};
use holdfast_log::inspect::{Checks, Step, compacted, log_start, walk};
use serde_json::{Value, json};

use super::dump::removed;
use super::problem::Problem;
use super::text::{codec, time};
use super::{Folder, Stopped};
use crate::args::{Format, Global};
use crate::commands::human::{bytes, count};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line, print_table, table};

pub(super) fn run(global: &Global, folder: &Folder) -> Result<ExitCode, CliError> {
    let stats: Vec<Stats<'_>> = folder.logs.iter().map(|log| Stats::of(folder, log)).collect();
    match global.format {
        Format::Text => print(folder, &stats)?,
        Format::Json => print_json(&to_json(folder, &stats))?,
    }
    let damaged = stats.iter().any(Stats::is_damaged);
    Ok(ExitCode::from(if damaged { exit::WARNING } else { exit::OK }))
}

/// What a log consists of.
struct Stats<'a> {
    log: &'a LogFolder,
    expected: Option<Expected>,
    segments: u64,
    bytes: u64,
    start: Option<Offset>,
    end: Offset,
    records: u64,
    batches: u64,
    compaction: Compaction,
    epochs: Option<Epochs>,
    /// Of the records that have a time, milliseconds since 1970.
    times: Option<(i64, i64)>,
    compression: BTreeMap<Compression, u64>,
    /// Records above what is known to be flushed.
    unflushed: u64,
    /// The first that is wrong; what is behind it is not counted.
    problem: Option<Problem>,
}

/// What compaction has left of a log, and has to look at yet.
#[derive(Debug, Default)]
struct Compaction {
    noted: Compacted,
    /// Records that are gone of batches that are there.
    removed: u64,
    /// Batches that stand for others of which nothing is left.
    fillers: u64,
    /// Bytes of the segments that are not appended to, below what was cleaned and above.
    sealed: Share,
    /// Of the last segment so far.
    last: Share,
}

/// Bytes of batches.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    clean: u64,
    dirty: u64,
}

impl Compaction {
    /// The next segment begins: the one before is appended to no more.
    fn segment(&mut self) {
        let Share { clean, dirty } = std::mem::take(&mut self.last);
        self.sealed.clean += clean;
        self.sealed.dirty += dirty;
    }

    fn add(&mut self, header: &BatchHeader) {
        let clean = header.next_offset() <= self.noted.cleaned_end;
        *(if clean { &mut self.last.clean } else { &mut self.last.dirty }) += u64::from(header.length);
        self.removed += removed(header);
        self.fillers += u64::from(header.is_filler());
    }

    fn note(&self) -> Option<String> {
        let Share { clean, dirty } = self.sealed;
        let percent = dirty.saturating_mul(100).checked_div(clean + dirty).unwrap_or(0);
        let Compacted { cleaned_end, .. } = self.noted;
        let was = cleaned_end > Offset::ZERO || self.removed > 0;
        was.then(|| {
            format!("cleaned below {cleaned_end}, {percent} % dirty, {} records removed", self.removed)
        })
    }
}

/// The epochs of a log.
struct Epochs {
    count: u64,
    first: LeaderEpoch,
    last: LeaderEpoch,
}

impl<'a> Stats<'a> {
    fn of(folder: &Folder, log: &'a LogFolder) -> Stats<'a> {
        let broker = &folder.broker;
        // A walk says it where that cannot be read.
        let start = log_start(&*broker.fs(), &log.path).unwrap_or_default();
        let mut stats = Stats {
            log,
            expected: broker.expected(log),
            segments: 0,
            bytes: 0,
            start: (start > Offset::ZERO).then_some(start),
            end: start,
            records: 0,
            batches: 0,
            // As for the start.
            compaction: Compaction {
                noted: compacted(&*broker.fs(), &log.path).unwrap_or_default(),
                ..Compaction::default()
            },
            epochs: None,
            times: None,
            compression: BTreeMap::new(),
            unflushed: 0,
            problem: None,
        };
        let torn_from = broker.torn_from(log);
        let walked = walk::<Stopped>(&*broker.fs(), &log.path, Offset::ZERO, Checks::Headers, &mut |step| {
            match step {
                Step::Segment { len, .. } => {
                    stats.segments += 1;
                    stats.compaction.segment();
                    stats.bytes += len;
                }
                Step::Batch(batch) if batch.header.base_offset < start => {} // trimmed
                Step::Batch(batch) if stats.problem.is_none() => stats.add(&batch.header),
                Step::Damage(damage) if stats.problem.is_none() => {
                    stats.problem = Some(Problem::found(&damage, torn_from));
                }
                // The files behind are still counted.
                Step::Batch(_) | Step::Damage(_) => {}
            }
            Ok(ControlFlow::Continue(()))
        });
        if let Err(Stopped::Log(error)) = walked {
            stats.problem = Some(Problem::unreadable(log, stats.end, &error));
        }
        stats.problem = stats.problem.or_else(|| Problem::missing(log, stats.end, stats.expected));
        if !broker.was_clean() {
            let flushed = stats.expected.map_or(Offset::ZERO, |expected| expected.flushed_end);
            stats.unflushed = stats.end - flushed;
        }
        stats
    }

    fn add(&mut self, header: &BatchHeader) {
        self.start = self.start.or(Some(header.base_offset));
        self.end = header.next_offset();
        self.batches += 1;
        self.records += u64::from(header.records);
        self.compaction.add(header);
        *self.compression.entry(header.compression()).or_default() += 1;
        if let Some(epoch) = header.epoch {
            let epochs = self.epochs.get_or_insert(Epochs { count: 1, first: epoch, last: epoch });
            epochs.count += u64::from(epoch != epochs.last);
            epochs.last = epoch;
        }
        for timestamp in [header.base_timestamp, header.max_timestamp].into_iter().filter(|&time| time >= 0) {
            let (first, last) = self.times.unwrap_or((timestamp, timestamp));
            self.times = Some((first.min(timestamp), last.max(timestamp)));
        }
    }

    fn is_damaged(&self) -> bool {
        self.log.quarantine.is_none() && self.problem.as_ref().is_some_and(|problem| !problem.torn)
    }

    /// Each codec with how many batches have it.
    fn codecs(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.compression.iter().map(|(&compression, &batches)| (codec(compression), batches))
    }

    fn note(&self) -> String {
        let mut notes = Vec::new();
        if self.expected.is_some_and(|expected| expected.nonvoter) {
            notes.push("non-voter".to_owned());
        }
        notes.extend(self.compaction.note());
        if let Some(problem) = &self.problem {
            let what = if problem.torn { "torn tail" } else { "DAMAGED" };
            notes.push(format!("{what} at offset {}", problem.offset));
        }
        notes.join(", ")
    }

    fn row(&self, folder: &Folder) -> Vec<String> {
        let (first, last) = self.times.unwrap_or((-1, -1));
        let codecs: Vec<String> = self.codecs().map(|(name, batches)| format!("{name} {batches}")).collect();
        vec![
            folder.name(self.log),
            self.segments.to_string(),
            bytes(self.bytes),
            self.start.unwrap_or(self.end).to_string(),
            self.end.to_string(),
            self.records.to_string(),
            self.batches.to_string(),
            self.epochs.as_ref().map_or_else(
                || "-".to_owned(),
                |epochs| format!("{} ({} to {})", epochs.count, epochs.first, epochs.last),
            ),
            time(first),
            time(last),
            if codecs.is_empty() { "-".to_owned() } else { codecs.join(", ") },
            self.unflushed.to_string(),
            self.note(),
        ]
    }

    fn json(&self, folder: &Folder) -> Value {
        let epochs = self.epochs.as_ref().map(|epochs| {
            json!({ "count": epochs.count, "first": epochs.first.to_string(), "last": epochs.last.to_string() })
        });
        let compression: serde_json::Map<String, Value> =
            self.codecs().map(|(name, batches)| (name.to_owned(), batches.into())).collect();
        json!({
            "topic": folder.broker.topic_name(self.log.partition),
            "topic_id": self.log.partition.topic.to_string(),
            "partition": self.log.partition.index,
            "quarantine": self.log.quarantine,
            "path": self.log.path.display().to_string(),
            "segments": self.segments,
            "bytes": self.bytes,
            "start_offset": self.start.unwrap_or(self.end).0,
            "end_offset": self.end.0,
            "records": self.records,
            "batches": self.batches,
            "removed_records": self.compaction.removed,
            "fillers": self.compaction.fillers,
            "cleaned_end": self.compaction.noted.cleaned_end.0,
            "tombstones_gone_below": self.compaction.noted.tombstones_gone_below.0,
            "clean_bytes": self.compaction.sealed.clean,
            "dirty_bytes": self.compaction.sealed.dirty,
            "epochs": epochs,
            "first_timestamp": self.times.map(|(first, _)| first),
            "last_timestamp": self.times.map(|(_, last)| last),
            "compression": compression,
            "unflushed_records": self.unflushed,
            "promise": self.expected.map(|expected| expected.promise.to_string()),
            "nonvoter": self.expected.map(|expected| expected.nonvoter),
            "problem": self.problem.as_ref().map(|problem| problem.json(&folder.name(self.log), self.log)),
        })
    }
}

/// Of all logs that are in use.
#[derive(Debug, Default)]
struct Sums {
    logs: usize,
    segments: u64,
    bytes: u64,
    records: u64,
    batches: u64,
    unflushed: u64,
    damaged: usize,
    put_aside: usize,
    put_aside_bytes: u64,
}

impl Sums {
    fn of(stats: &[Stats<'_>]) -> Sums {
        let mut sums = Sums::default();
        for stats in stats {
            if stats.log.quarantine.is_some() {
                sums.put_aside += 1;
                sums.put_aside_bytes += stats.bytes;
                continue;
            }
            sums.logs += 1;
            sums.segments += stats.segments;
            sums.bytes += stats.bytes;
            sums.records += stats.records;
            sums.batches += stats.batches;
            sums.unflushed += stats.unflushed;
            sums.damaged += usize::from(stats.is_damaged());
        }
        sums
    }
}

fn print(folder: &Folder, stats: &[Stats<'_>]) -> Result<(), CliError> {
    let broker = &folder.broker;
    let ended = if broker.was_clean() { "stopped in order" } else { "did not stop in order" };
    print_line(&format!("broker {} of cluster {}, {ended}", broker.broker(), broker.cluster()))?;
    let mut rows = table(&[
        "LOG",
        "SEGMENTS",
        "SIZE",
        "START",
        "END",
        "RECORDS",
        "BATCHES",
        "EPOCHS",
        "FIRST-TIME",
        "LAST-TIME",
        "COMPRESSION",
        "UNFLUSHED",
        "NOTE",
    ]);
    for stats in stats {
        rows.add_row(stats.row(folder));
    }
    print_table(&rows)?;
    let sums = Sums::of(stats);
    print_line(&format!(
        "{}: {}, {}, {} batches, {} records, {} of them not known to be flushed",
        count(sums.logs, "log"),
        count(usize::try_from(sums.segments).unwrap_or(usize::MAX), "segment"),
        bytes(sums.bytes),
        sums.batches,
        sums.records,
        sums.unflushed,
    ))?;
    if sums.put_aside > 0 {
        let logs = count(sums.put_aside, "log");
        print_line(&format!("{logs} put aside as damaged: {}", bytes(sums.put_aside_bytes)))?;
    }
    if sums.damaged > 0 {
        print_line(&format!("{} DAMAGED: see `holdfast log verify`", count(sums.damaged, "log")))?;
    }
    Ok(())
}

fn to_json(folder: &Folder, stats: &[Stats<'_>]) -> Value {
    let broker = &folder.broker;
    let sums = Sums::of(stats);
    json!({
        "v": 1,
        "cluster": broker.cluster(),
        "broker": broker.broker(),
        "clean_stop": broker.was_clean(),
        "logs": stats.iter().map(|stats| stats.json(folder)).collect::<Vec<_>>(),
        "sums": {
            "logs": sums.logs,
            "segments": sums.segments,
            "bytes": sums.bytes,
            "records": sums.records,
            "batches": sums.batches,
            "unflushed_records": sums.unflushed,
            "damaged": sums.damaged,
            "put_aside": sums.put_aside,
            "put_aside_bytes": sums.put_aside_bytes,
        },
    })
}
