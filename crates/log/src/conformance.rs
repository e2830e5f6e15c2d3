//! The tests every [`PartitionLog`] passes, in memory and on real files.

mod append_and_read;
mod checkpoints;
mod compacting;
mod crash;
mod flushing;
mod full;
mod indexing;
mod interleaving;
mod model;
mod opening;
mod repairing;
mod repairing_closed;
mod rolling;
mod trimming;
mod truncation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::record_batch::{BatchHeader, RecordBatch, RecordBatchBuilder};
use holdfast_core::{LeaderEpoch, Offset, Term};

use crate::{
    ByteSize, CachedFs, Derived, Fs, LogConfig, LogError, MemFs, Opened, PartitionLog, RealFs, Recovery,
};

/// Runs a test on every implementation of [`Fs`].
fn on_every_fs(test: impl Fn(&Place)) {
    // So few that files are closed and opened again all the time.
    let cached = CachedFs::new(Arc::new(MemFs::new()), 2);
    test(&Place { fs: Arc::new(cached), dir: PathBuf::from("/data/topic-0"), config: small() });
    test(&Place { fs: Arc::new(MemFs::new()), dir: PathBuf::from("/data/topic-0"), config: small() });
    let folder = tempfile::tempdir().unwrap();
    test(&Place { fs: Arc::new(RealFs), dir: folder.path().join("data/topic-0"), config: small() });
}

/// Small enough that a few batches fill a segment, so that segments matter in every test.
fn small() -> LogConfig {
    LogConfig { segment_size: ByteSize(2048), index_interval: ByteSize(256), ..LogConfig::default() }
}

/// Where a test's log is.
#[derive(Debug, Clone)]
struct Place {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: LogConfig,
}

/// Derives a list of all batches: base offset, length and checksum of each.
#[derive(Debug, Default)]
struct Recorder {
    seen: Vec<Seen>,
    /// How many of them came from a snapshot.
    restored: usize,
}

type Seen = (u64, u32, u32);

fn seen(header: &BatchHeader) -> Seen {
    (header.base_offset.0, header.length, header.crc)
}

impl Derived for Recorder {
    fn restore(&mut self, snapshot: &[u8]) -> bool {
        let (batches, rest) = snapshot.as_chunks::<16>();
        assert!(rest.is_empty());
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let read = |bytes: &[u8; 16]| {
            (number(&bytes[..8]), number(&bytes[8..12]) as u32, number(&bytes[12..]) as u32)
        };
        self.seen = batches.iter().map(read).collect();
        self.restored = self.seen.len();
        true
    }

    fn visit(&mut self, header: &BatchHeader) {
        self.seen.push(seen(header));
    }
}

/// What a [`Recorder`] says of a log of which nothing was trimmed.
fn snapshot(log: &PartitionLog) -> Vec<u8> {
    snapshot_of(&content(log))
}

/// What a [`Recorder`] says of a log of these batches.
fn snapshot_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for batch in batches {
        let (base, length, crc) = seen(batch.header());
        bytes.extend_from_slice(&base.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&crc.to_be_bytes());
    }
    bytes
}

impl Place {
    /// Opens the log from a checkpoint, if there is one. What was derived has to be what the log holds.
    fn try_resume(&self, recovery: Recovery) -> Result<(PartitionLog, Opened, Recorder), LogError> {
        let mut recorder = Recorder::default();
        let opened = PartitionLog::open_derived(
            self.fs.clone(),
            &self.dir,
            self.config.clone(),
            recovery,
            &mut recorder,
        );
        opened.map(|(log, opened)| (log, opened, recorder))
    }

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

    /// The segments with their content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.files_of(".log")
    }

    /// The files of that kind with their content.
    fn files_of(&self, suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut names = self.fs.list(&self.dir).unwrap();
        names.retain(|name| name.to_str().unwrap().ends_with(suffix));
        let read = |name| {
            let path = self.dir.join(name);
            let file = self.fs.open(&path, crate::OpenMode::Existing).unwrap();
            let content = file.read_bytes(0, file.len().unwrap() as usize).unwrap();
            (path, content.to_vec())
        };
        names.iter().map(read).collect()
    }

    /// Changes one byte of a file.
    fn change(&self, path: &Path, at: usize, change: impl Fn(u8) -> u8) {
        let file = self.fs.open(path, crate::OpenMode::Existing).unwrap();
        let byte = file.read_bytes(at as u64, 1).unwrap()[0];
        file.write_all_at(&[&[change(byte)]], at as u64).unwrap();
    }

    fn overwrite(&self, path: &Path, content: &[u8]) {
        let file = self.fs.open(path, crate::OpenMode::Truncate).unwrap();
        file.write_all_at(&[content], 0).unwrap();
    }
}

/// Everything below is known to be flushed.
fn recovery(flushed_end: u64, clean: bool) -> Recovery {
    Recovery { trusted_end: Offset(flushed_end), flushed_end: Offset(flushed_end), clean }
}

/// Power fails: an arbitrary part of what was not flushed is left, with seed 0 nothing.
fn crash(fs: &MemFs, seed: u64) {
    if seed == 0 { fs.crash() } else { fs.crash_keeping(seed) }
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

/// Flushes, notes what is known of the log, and makes that durable.
fn checkpoint(log: &mut PartitionLog) {
    flush(log);
    let snapshot = snapshot(log);
    log.checkpoint(&snapshot).unwrap();
    flush(log);
}

fn flush(log: &mut PartitionLog) {
    if let Some(ticket) = log.take_flush() {
        ticket.run().unwrap();
    }
}

/// The epochs of a log that has these batches.
fn epochs_of(batches: &[RecordBatch]) -> Vec<(LeaderEpoch, Offset)> {
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for header in batches.iter().map(RecordBatch::header) {
        let epoch = header.epoch.unwrap();
        if epochs.last().is_none_or(|(last, _)| *last != epoch) {
            epochs.push((epoch, header.base_offset));
        }
    }
    epochs
}

/// Every offset and every time is found where the batches say.
fn check_lookups(log: &PartitionLog, batches: &[RecordBatch]) {
    let (reader, end) = (log.reader(), log.log_end_offset());
    for (number, batch) in batches.iter().enumerate() {
        let header = batch.header();
        assert_eq!(reader.read(header.last_offset(), end, 1).unwrap(), batch.bytes());
        // Looking through a long list for each of its times takes long.
        if number > 40 && number % 31 != 0 {
            continue;
        }
        let timestamp = header.max_timestamp;
        let first = batches.iter().find(|batch| batch.header().max_timestamp >= timestamp).unwrap().header();
        let expected = Some((first.base_offset, first.max_timestamp));
        assert_eq!(reader.offset_for_timestamp(timestamp, end).unwrap(), expected);
    }
    let latest = batches.iter().map(|batch| batch.header().max_timestamp).max().unwrap_or(0);
    assert_eq!(reader.offset_for_timestamp(latest + 1, end).unwrap(), None);
}

/// A log that holds `batches`, flushed.
fn filled(place: &Place, batches: &[RecordBatch]) -> PartitionLog {
    let mut log = place.open();
    for batch in batches {
        log.append(std::slice::from_ref(batch)).unwrap();
    }
    flush(&mut log);
    log
}
