//! What brokers keep on disk: journals, logs with their indexes, and a whole data folder.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_broker::inspect::StoppedBroker;
use holdfast_core::record_batch::{Compression, RecordBatch};
use holdfast_core::replication::{Checkpoint, DurableState, EpochIndex, FoundLog, Position, StoredReplica};
use holdfast_core::{LeaderEpoch, Offset, Term};
use holdfast_log::inspect::{Checks, walk};
use holdfast_log::{
    ByteSize, Codec, CodecError, CompactionPlan, Damage, Fs, Journal, LogConfig, LogError, MemFs, Opened,
    PartitionLog, ReplicaLogError, checkpoint_replica, journal, open_replica, trim_replica,
};
use holdfast_proto::compression::{compress as compress_section, decompress};

use super::batches::build;
use crate::corpus::Input;
use crate::mend;
use crate::target::{FOLDER, Memory, Target, in_memory, input_of};

pub(super) fn targets() -> Vec<Target> {
    // Files are read in windows of 1 MiB, and the file system in memory has every file twice.
    let memory = Memory { fixed: 8 << 20, per_byte: 64 };
    vec![
        Target {
            name: "journal",
            about: "a journal's frames",
            memory,
            written: || vec![Input::of("a.journal", mend::journal_of(&[b"one".to_vec(), vec![7; 300]]))],
            run: run_journal,
        },
        Target {
            name: "log-folder",
            about: "a partition's folder: segments, indexes, checkpoints, where the log starts, and what was compacted",
            memory,
            written: || {
                vec![
                    log_folder(&config(), 12, 0),
                    log_folder(&dense(), 90, 0),
                    log_folder(&config(), 12, 7),
                    compacted_folder(),
                ]
            },
            run: run_log,
        },
        Target {
            name: "broker-folder",
            about: "a broker's data folder, as `holdfast log` looks at it: identity, run, promises, map, logs",
            memory,
            written: Vec::new,
            run: run_broker,
        },
    ]
}

fn run_journal(input: &Input) -> bool {
    let fs = in_memory(input);
    let Some(name) = input.files.keys().next() else { return false };
    let path = Path::new(FOLDER).join(name);
    let mut found = Vec::new();
    let mut keep = |payload: &[u8]| {
        found.push(payload.to_vec());
        Ok(())
    };
    let read = journal::read(&fs, &path, &mut keep);
    let mut opened = Vec::new();
    let mut keep_opened = |payload: &[u8]| {
        opened.push(payload.to_vec());
        Ok(())
    };
    let journal = Journal::open(Arc::new(fs.clone()), &path, &mut keep_opened);
    assert_eq!(read.is_ok(), journal.is_ok(), "looking and opening agree");
    let Ok(mut journal) = journal else { return false };
    assert_eq!(found, opened);
    journal.append(&[b"next"]).expect("a journal that was opened can be appended to");
    drop(journal);
    let mut again = 0;
    let reread = journal::read(&fs, &path, &mut |_| {
        again += 1;
        Ok(())
    });
    assert!(matches!(reread, Ok(0)) && again == found.len() + 1, "what was opened is whole");
    true
}

fn config() -> LogConfig {
    LogConfig { segment_size: ByteSize(1500), index_interval: ByteSize(256), ..LogConfig::default() }
}

/// So many entries that the index of the segment that is appended to has blocks on file.
fn dense() -> LogConfig {
    LogConfig { segment_size: ByteSize(1 << 20), index_interval: ByteSize(1), ..LogConfig::default() }
}

/// What a journal may hold of the log: all below `end` is acknowledged and flushed.
fn stored(end: u64) -> StoredReplica {
    let promise = LeaderEpoch { term: Term::MAX, run: u8::MAX };
    let checkpoint = Checkpoint { high_watermark: Offset(end), durable_end: Offset(end) };
    let state = DurableState { promise, assignment: None, nonvoter: false, recovered: None };
    StoredReplica { checkpoint, ..StoredReplica::new(state) }
}

fn open(
    fs: &MemFs,
    config: &LogConfig,
    stored: Option<&StoredReplica>,
    clean: bool,
) -> Result<(PartitionLog, FoundLog, Opened), ReplicaLogError> {
    open_replica(Arc::new(fs.clone()), Path::new(FOLDER), config.clone(), stored, clean)
}

fn flush(log: &mut PartitionLog) {
    if let Some(ticket) = log.take_flush() {
        ticket.run().expect("memory does not fail");
    }
}

/// A log of some segments and epochs, flushed, with indexes and checkpoints beside them; the first few batches are trimmed.
fn log_folder(config: &LogConfig, batches: u64, trimmed: u64) -> Input {
    let fs = MemFs::new();
    let opened = open(&fs, config, None, false);
    let (mut log, FoundLog { mut producers, .. }, _) = opened.expect("a new log in memory");
    for number in 0..batches {
        let codec = if number % 3 == 2 { Compression::Lz4 } else { Compression::None };
        let batch = build(3 * number, 1 + number as u32 / 5, codec);
        producers.append(batch.header());
        log.append(&[batch]).expect("memory has room for a batch");
        if number % 4 == 1 && number + 12 > batches {
            checkpoint_replica(&mut log, &producers).expect("memory does not fail");
            flush(&mut log);
        }
    }
    flush(&mut log);
    if trimmed > 0 {
        let start = found_at(&log, Offset(3 * trimmed));
        producers.settle(log.log_end_offset());
        let ticket = trim_replica(&mut log, start, &producers.below(start.end)).expect("it is in the log");
        ticket.expect("it is above the start").run().expect("memory does not fail");
    }
    drop(log);
    input_of(&fs, Path::new(FOLDER))
}

/// A log whose batches have the same keys, compacted once, and then gone on with.
fn compacted_folder() -> Input {
    let input = log_folder(&config(), 30, 0);
    let fs = in_memory(&input);
    let (mut log, ..) = open(&fs, &config(), Some(&stored(90)), false).expect("a log that was written");
    compact(&log);
    let end = log.log_end_offset();
    log.append(&[build(end.0, 9, Compression::None).stamped(end, LeaderEpoch::first(Term(9)))])
        .expect("memory has room for a batch");
    flush(&mut log);
    drop(log);
    input_of(&fs, Path::new(FOLDER))
}

/// A pass over all that is sealed. What it cannot read it leaves alone.
fn compact(log: &PartitionLog) {
    let plan = CompactionPlan {
        below: log.log_end_offset(),
        now_ms: 1_700_000_000_000,
        tombstone_delay_ms: 1000,
        map_bytes: 1 << 16,
        max_section_bytes: 1 << 16,
    };
    let end = log.log_end_offset();
    // An error says that there is damage.
    let _ = log.reader().compact(&plan, &Sections, &mut |_| ControlFlow::Continue(()));
    assert_eq!(log.log_end_offset(), end, "offsets stay");
}

/// The codecs of batches.
struct Sections;

impl Codec for Sections {
    fn decompress(&self, codec: Compression, section: Bytes, max: usize) -> Result<Bytes, CodecError> {
        Ok(decompress(codec, section, max)?)
    }

    fn compress(&self, codec: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(compress_section(codec, section)?)
    }
}

/// The position of what lies below `offset`, a batch boundary.
fn found_at(log: &PartitionLog, offset: Offset) -> Position {
    EpochIndex::new(Position::default(), log.epochs(), log.log_end_offset()).position_at(offset)
}

/// Accepted if nothing had to be cut where nothing was trusted.
fn run_log(input: &Input) -> bool {
    look_through(&in_memory(input), Path::new(FOLDER));
    let mut whole = true;
    for (end, clean) in [(0, false), (0, true), (18, false), (30, false), (30, true)] {
        let fs = in_memory(input);
        match open(&fs, &config(), Some(&stored(end)), clean) {
            Ok((log, _, opened)) => {
                whole &= clean || end > 0 || (opened.cut_bytes == 0 && log.log_end_offset() > Offset::ZERO);
                use_log(&fs, log);
            }
            // Without these nobody knows what the log is.
            Err(ReplicaLogError::Damaged(LogError::Corrupt {
                source: Damage::LogStart | Damage::Compaction,
                ..
            })) => whole = false,
            // Of a log that was closed in order everything is trusted.
            Err(error) if error.is_damage() && (end > 0 || clean) => {}
            Err(error) => panic!("a log of which nothing is trusted is cut, not refused: {error:?}"),
        }
    }
    whole
}

/// Does everything with a log that was opened, and opens it again.
fn use_log(fs: &MemFs, mut log: PartitionLog) {
    let end = log.log_end_offset();
    let reader = log.reader();
    let mut from = log.log_start_offset();
    // Damage that opening need not look for is an error here, and ends the reading.
    while from < end
        && let Ok(bytes) = reader.read(from, end, 700)
        && let Ok(batches) = RecordBatch::split(bytes)
        && let Some(last) = batches.last()
    {
        assert!(last.header().next_offset() > from, "a read goes forward");
        from = last.header().next_offset();
    }
    for timestamp in [i64::MIN, -1, 1_700_000_000_003, i64::MAX] {
        let _ = reader.offset_for_timestamp(timestamp, end);
    }
    compact(&log);
    // Errors say that there is damage where something was to be done.
    let epoch = log.last_epoch().unwrap_or_default();
    let _ = log.append(&[build(end.0, 1, Compression::None).stamped(end, epoch)]);
    let _ = reader.read(end, Offset(end.0.saturating_add(3)), 1);
    let _ = log.checkpoint(b"snapshot");
    let _ = log.truncate_to(Offset(end.0 / 2));
    flush(&mut log);
    drop(log);
    let again = open(fs, &config(), None, false);
    assert!(again.is_ok(), "a log of which nothing is trusted opens: {again:?}");
}

fn look_through(fs: &dyn Fs, dir: &Path) {
    for checks in [Checks::Headers, Checks::Checksums] {
        for from in [0, 20, u64::MAX] {
            let walked =
                walk::<LogError>(fs, dir, Offset(from), checks, &mut |_| Ok(ControlFlow::Continue(())));
            assert!(walked.is_ok(), "damage is told, and does not end a walk: {walked:?}");
        }
    }
}

fn run_broker(input: &Input) -> bool {
    let fs = Arc::new(in_memory(input));
    let Ok(broker) = StoppedBroker::on(fs.clone(), Path::new(FOLDER)) else { return false };
    let Ok(logs) = broker.logs() else { return false };
    let (mut promised, mut named) = (0, 0);
    for log in &logs {
        look_through(&*fs, &log.path);
        promised += usize::from(broker.expected(log).is_some());
        named += usize::from(broker.topic_name(log.partition).is_some());
        let _ = (broker.torn_from(log), log.to_string());
    }
    named == logs.len() && broker.journal_error().is_none() && promised == logs.len() && promised > 0
}
