//! The tests every [`PartitionLog`] passes, in memory and on real files.

mod append_and_read;
mod crash;
mod flushing;
mod interleaving;
mod model;
mod opening;
mod truncation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::record_batch::{BatchHeader, RecordBatch, RecordBatchBuilder};
use holdfast_core::{LeaderEpoch, Offset, Term};

use crate::{ByteSize, Fs, LogConfig, LogError, MemFs, Opened, PartitionLog, RealFs, Recovery};

/// Runs a test on every implementation of [`Fs`].
fn on_every_fs(test: impl Fn(&Place)) {
    test(&Place { fs: Arc::new(MemFs::new()), dir: PathBuf::from("/data/topic-0"), config: small() });
    let folder = tempfile::tempdir().unwrap();
    test(&Place { fs: Arc::new(RealFs), dir: folder.path().join("data/topic-0"), config: small() });
}

/// Small enough that a few batches fill a segment, so that segments matter in every test.
fn small() -> LogConfig {
    LogConfig { segment_size: ByteSize(2048), index_interval: ByteSize(256) }
}

/// Where a test's log is.
#[derive(Debug, Clone)]
struct Place {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: LogConfig,
}

impl Place {
    fn try_open(&self, recovery: Recovery) -> Result<(PartitionLog, Opened, Vec<BatchHeader>), LogError> {
        let mut visited = Vec::new();
        let mut visit = |header: &BatchHeader| visited.push(*header);
        let opened =
            PartitionLog::open(self.fs.clone(), &self.dir, self.config.clone(), recovery, &mut visit);
        opened.map(|(log, opened)| (log, opened, visited))
    }

    fn open(&self) -> PartitionLog {
        self.try_open(Recovery::default()).unwrap().0
    }

    /// The log's files with their content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let names = self.fs.list(&self.dir).unwrap();
        let read = |name| {
            let path = self.dir.join(name);
            let file = self.fs.open(&path, crate::OpenMode::Existing).unwrap();
            let content = file.read_bytes(0, file.len().unwrap() as usize).unwrap();
            (path, content.to_vec())
        };
        names.iter().map(read).collect()
    }

    fn overwrite(&self, path: &Path, content: &[u8]) {
        let file = self.fs.open(path, crate::OpenMode::Truncate).unwrap();
        file.write_all_at(&[content], 0).unwrap();
    }
}

fn epoch(term: u32) -> LeaderEpoch {
    LeaderEpoch::first(Term(term))
}

/// A batch of `records` records at `base` with one timestamp, of which the first has a value of `size` bytes.
fn batch(base: u64, records: u64, term: u32, timestamp: i64, size: usize) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    let value = vec![(base as u8) ^ (term as u8) ^ 0x5a; size];
    builder.push(timestamp, Some(b"key"), Some(&value), &[]).unwrap();
    for _ in 1..records {
        builder.push(timestamp, None, None, &[]).unwrap();
    }
    builder.build(None).unwrap().stamped(Offset(base), epoch(term))
}

/// `count` batches from `base` on, of three records and about 200 bytes each, one term per four batches from
/// `term` on, with timestamps that mostly rise.
fn batches(base: u64, count: u64, term: u32) -> Vec<RecordBatch> {
    let make = |number: u64| {
        let timestamp = if number % 5 == 3 { 0 } else { 1000 + number as i64 * 10 };
        batch(base + number * 3, 3, term + (number / 4) as u32, timestamp, 100 + (number as usize % 3) * 10)
    };
    (0..count).map(make).collect()
}

/// All batches of a log, checked.
fn content(log: &PartitionLog) -> Vec<RecordBatch> {
    let reader = log.reader();
    let mut from = log.log_start_offset();
    let mut found: Vec<RecordBatch> = Vec::new();
    while from < log.log_end_offset() {
        let read = RecordBatch::split(reader.read(from, log.log_end_offset(), 700).unwrap()).unwrap();
        from = read.last().expect("a read below the end is not empty").header().next_offset();
        found.extend(read);
    }
    found
}

/// A log that holds `batches`, flushed.
fn filled(place: &Place, batches: &[RecordBatch]) -> PartitionLog {
    let mut log = place.open();
    for batch in batches {
        log.append(std::slice::from_ref(batch)).unwrap();
    }
    if let Some(ticket) = log.take_flush() {
        ticket.run().unwrap();
    }
    log
}
