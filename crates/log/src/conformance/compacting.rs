//! Compaction: what stays is the last of its key, where and what it was; nobody sees more of it than that.

mod crashing;
mod damaged;
mod meeting;
mod model;
mod passes;
mod repaired;
mod straddling;
mod tombstones;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_core::record_batch::{Compression, ProducerRef, Record, RecordIter};
use holdfast_core::replication::{KnownProducer, ProducerTable};
use holdfast_core::{BrokerId, ProducerId};

use super::*;
use crate::{Codec, CodecError, CompactionOutcome, CompactionPlan, LogReader, PassEnd};

/// Turns every byte around, and says so in front.
struct Turned;

impl Codec for Turned {
    fn decompress(&self, codec: Compression, section: Bytes, max: usize) -> Result<Bytes, CodecError> {
        if section.len() > max {
            return Err("too large".into());
        }
        match codec {
            Compression::None => Ok(section),
            _ => {
                let turned = section.strip_prefix(b"turned").ok_or("not turned")?;
                Ok(turned.iter().map(|byte| !byte).collect())
            }
        }
    }

    fn compress(&self, _codec: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(turned(section))
    }
}

fn turned(section: &[u8]) -> Vec<u8> {
    b"turned".iter().copied().chain(section.iter().map(|byte| !byte)).collect()
}

/// What is written to a log: each batch as it was appended.
#[derive(Debug, Clone, Default)]
struct Written {
    batches: Vec<RecordBatch>,
    /// Batches of each producer.
    sequences: BTreeMap<ProducerId, i32>,
    /// Whether it was cut, as in an unclean term: what was superseded by what is gone is gone, too.
    cut: bool,
}

/// A key, and a value or none.
type Entry<'a> = (&'a str, Option<&'a str>);

impl Written {
    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(0), |batch| batch.header().next_offset())
    }

    /// Records with times that rise with their offsets.
    fn add(&mut self, term: u32, entries: &[Entry<'_>], producer: Option<i64>, compression: Compression) {
        let mut builder = RecordBatchBuilder::new();
        for (number, (key, value)) in (0..).zip(entries) {
            let value = value.map(str::as_bytes);
            builder.push(1000 + self.end().0 as i64 + number, Some(key.as_bytes()), value, &[]).unwrap();
        }
        let producer = producer.map(|id| {
            let next = self.sequences.entry(ProducerId(id)).or_default();
            let base_sequence = std::mem::replace(next, *next + entries.len() as i32);
            ProducerRef { id: ProducerId(id), epoch: 0, base_sequence }
        });
        let compress = |section: &[u8]| Ok::<_, holdfast_core::record_batch::BatchError>(turned(section));
        let batch = builder.finish_with(producer, compression, compress).unwrap();
        self.batches.push(batch.stamped(self.end(), epoch(term)));
    }

    fn marker(&mut self, term: u32) {
        self.batches.push(RecordBatch::marker(self.end(), epoch(term), BrokerId(1)));
    }

    /// `count` batches of two records, of `keys` keys in turn, in epochs of five batches, of two producers and none.
    fn usual(count: usize, keys: usize) -> Written {
        let mut written = Written::default();
        written.go_on(count, keys);
        written
    }

    fn go_on(&mut self, count: usize, keys: usize) {
        let from = self.batches.len();
        for number in from..from + count {
            let term = 1 + number as u32 / 5;
            if number % 5 == 0 {
                self.marker(term);
                continue;
            }
            let key = |step: usize| format!("key {}", (number * 2 + step) * 7 % keys);
            let value = format!("value {number} {}", "x".repeat(number % 60));
            let (first, second) = (key(0), key(1));
            let entries = [(&first[..], Some(&value[..])), (&second[..], Some("other"))];
            let producer = [None, Some(7), Some(8)][number % 3];
            let compression = if number % 4 == 1 { Compression::Lz4 } else { Compression::None };
            self.add(term, &entries, producer, compression);
        }
    }

    /// All records, by offset.
    fn records(&self) -> BTreeMap<u64, Record> {
        records_of(&self.batches)
    }
}

fn records_of(batches: &[RecordBatch]) -> BTreeMap<u64, Record> {
    let mut records = BTreeMap::new();
    for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
        let section = Turned.decompress(batch.header().compression(), batch.section(), usize::MAX).unwrap();
        for record in RecordIter::new(*batch.header(), section) {
            let record = record.unwrap();
            let offset = batch.header().base_offset.0 + u64::from(record.offset_delta);
            records.insert(offset, Record { offset_delta: 0, ..record });
        }
    }
    records
}

/// What a replica would know of the producers of these batches.
fn producers_of(batches: &[RecordBatch]) -> Vec<KnownProducer> {
    let mut table = ProducerTable::default();
    batches.iter().for_each(|batch| table.append(batch.header()));
    table.settle(Offset(u64::MAX));
    table.known().collect()
}

/// A plan for everything that is sealed.
fn plan(log: &LogReader) -> CompactionPlan {
    CompactionPlan {
        below: log.log_end_offset(),
        now_ms: 0,
        tombstone_delay_ms: 1000,
        map_bytes: 1 << 16,
        max_section_bytes: 1 << 16,
    }
}

fn compact(log: &PartitionLog) -> CompactionOutcome {
    let reader = log.reader();
    compact_with(&reader, &plan(&reader))
}

fn compact_with(reader: &LogReader, plan: &CompactionPlan) -> CompactionOutcome {
    reader.compact(plan, &Turned, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The log holds what compaction may leave of `written`, from its start on, and says so in every way. What is gone is
/// superseded below `below`, or a tombstone below what is noted. Returns what it holds.
fn check(log: &PartitionLog, written: &Written, below: Offset, context: &str) -> Vec<RecordBatch> {
    let found = content(log);
    let start = log.log_start_offset();
    assert_eq!(log.log_end_offset(), written.end(), "{context}");
    let original: BTreeMap<u64, &RecordBatch> =
        written.batches.iter().map(|batch| (batch.header().base_offset.0, batch)).collect();
    for batch in &found {
        let header = batch.header();
        if header.is_filler() {
            let (mut at, end) = (header.base_offset.max(start), header.next_offset());
            while at < end {
                let (_, whole) = original.range(..=at.0).next_back().unwrap();
                assert_eq!(whole.header().epoch, header.epoch, "{context}: {at}");
                assert!(!whole.header().is_control(), "{context}: a marker went at {at}");
                at = whole.header().next_offset();
            }
            continue;
        }
        let whole = original.get(&header.base_offset.0).unwrap_or_else(|| panic!("{context}: {header:?}"));
        let told =
            |header: &BatchHeader| (header.next_offset(), header.epoch, header.producer, header.is_control());
        assert_eq!(told(header), told(whole.header()), "{context}");
        assert!(!header.is_control() || batch == *whole, "{context}");
    }
    check_records(log, written, &found, below, context);
    let kept: Vec<RecordBatch> =
        written.batches.iter().filter(|batch| batch.header().next_offset() > start).cloned().collect();
    if start == Offset(0) && !written.cut {
        assert_eq!(producers_of(&found), producers_of(&written.batches), "{context}");
    }
    let mut epochs = epochs_of(&kept);
    if let Some((_, first)) = epochs.first_mut() {
        *first = start.max(*first);
    }
    assert_eq!(log.epochs(), epochs, "{context}");
    let whole: Vec<RecordBatch> =
        found.iter().filter(|batch| batch.header().base_offset >= start).cloned().collect();
    check_lookups(log, &whole);
    found
}

fn check_records(log: &PartitionLog, written: &Written, found: &[RecordBatch], below: Offset, context: &str) {
    let (all, left, start) = (written.records(), records_of(found), log.log_start_offset());
    let compacted = log.compacted();
    for (offset, record) in &left {
        assert_eq!(all.get(offset), Some(record), "{context}: offset {offset}");
    }
    let mut last: BTreeMap<&Bytes, u64> = BTreeMap::new();
    for (offset, record) in all.iter().filter(|(offset, _)| **offset < below.0) {
        last.extend(record.key.iter().map(|key| (key, *offset)));
    }
    for (offset, record) in all.iter().filter(|(offset, _)| **offset >= start.0 && !left.contains_key(offset))
    {
        let key = record.key.as_ref().unwrap_or_else(|| panic!("{context}: {offset} has no key"));
        let superseded = last.get(key).is_some_and(|last| last > offset);
        let gone = record.value.is_none() && *offset < compacted.tombstones_gone_below.0;
        assert!(superseded || gone || written.cut, "{context}: {record:?} at {offset} is missing");
    }
    let mut seen = BTreeMap::new();
    for (offset, record) in
        left.iter().filter(|(offset, _)| **offset < compacted.cleaned_end.0 && **offset >= start.0)
    {
        let Some(key) = &record.key else { continue };
        let before = seen.insert(key, offset);
        assert_eq!(before, None, "{context}: {key:?} at {offset}, and everything is clean");
    }
}

/// Everything opens, in every way, to the same.
fn check_opens(place: &Place, written: &Written, below: Offset, context: &str) {
    let end = written.end();
    for clean in [false, true] {
        let recovery = Recovery { trusted_end: end, flushed_end: end, clean };
        let mut visited = Recorder::default();
        let opened = PartitionLog::open_derived(
            place.fs.clone(),
            &place.dir,
            place.config.clone(),
            recovery,
            &mut visited,
        );
        let (mut log, opened) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert_eq!(opened.cut_bytes, 0, "{context}");
        let found = check(&log, written, below, context);
        let mut seen: Vec<Seen> = found.iter().map(|batch| seen(batch.header())).collect();
        seen.retain(|(base, ..)| *base >= log.log_start_offset().0);
        assert!(visited.seen.ends_with(&seen) || visited.restored > 0, "{context}");
        flush(&mut log);
        let names = place.fs.list(&place.dir).unwrap();
        let strays = names.iter().filter(|name| name.to_str().unwrap().ends_with(".cleaned")).count();
        assert_eq!(strays, 0, "{context}");
    }
}

/// A log that holds what was written, flushed.
fn log_of(place: &Place, written: &Written) -> PartitionLog {
    filled(place, &written.batches)
}
