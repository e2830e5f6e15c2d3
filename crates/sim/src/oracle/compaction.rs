//! What compaction may take out of a log (REP-10).
//!
//! In a view a log is what was written: compacted batches stand there as the batches that they were, and beside them is noted
//! which records are missing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::record_batch::{Record, RecordBatch};

use super::{Oracle, Violation, ensure};
use crate::coverage::Sight;

/// A batch as it is found in a log, and what it was.
pub(super) struct Origin {
    /// The batch, or those in whose place a filler stands.
    pub(super) batches: Vec<RecordBatch>,
    /// Offsets of records that are not there any more.
    pub(super) missing: Vec<Offset>,
}

/// A committed record.
#[derive(Debug, Clone)]
struct Entry {
    key: Option<Bytes>,
    tombstone: bool,
}

/// The committed records with their keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    records: BTreeMap<Offset, Entry>,
    by_key: BTreeMap<Bytes, BTreeSet<Offset>>,
    /// Where a key was written to last, also if that was given up (R37).
    ever: BTreeMap<Bytes, Offset>,
}

impl Keys {
    pub(super) fn commit(&mut self, batch: &RecordBatch) {
        for (offset, record) in records_of(batch) {
            let tombstone = record.value.is_none();
            if let Some(key) = &record.key {
                self.by_key.entry(key.clone()).or_default().insert(offset);
                let last = self.ever.entry(key.clone()).or_default();
                *last = offset.max(*last);
            }
            self.records.insert(offset, Entry { key: record.key, tombstone });
        }
    }

    /// What lies from there on was given up.
    pub(super) fn give_up(&mut self, from: Offset) {
        self.records.split_off(&from);
        self.by_key.values_mut().for_each(|offsets| drop(offsets.split_off(&from)));
    }

    /// The last record of each key that is there, of the records that are not `missing`: its offset, unless it is a tombstone.
    fn values(&self, start: Offset, missing: &BTreeSet<Offset>) -> BTreeMap<&Bytes, Offset> {
        let last = |offsets: &BTreeSet<Offset>| {
            offsets.range(start..).rev().find(|&offset| !missing.contains(offset)).copied()
        };
        let is_value = |offset: &Offset| self.records.get(offset).is_some_and(|entry| !entry.tombstone);
        let of = |(key, offsets)| Some((key, last(offsets).filter(is_value)?));
        self.by_key.iter().filter_map(of).collect()
    }
}

/// Records of clients with their offsets. Nothing is compressed in the simulation.
fn records_of(batch: &RecordBatch) -> Vec<(Offset, Record)> {
    let base = batch.header().base_offset;
    let written = Some(batch).filter(|batch| !batch.header().is_control());
    let records = written.and_then(|batch| batch.records().ok()).into_iter().flatten();
    records.flatten().map(|record| (base + u64::from(record.offset_delta), record)).collect()
}

impl Oracle {
    /// What a batch in a log of that node was when it was written.
    pub(super) fn origin(&self, node: usize, batch: &RecordBatch) -> Result<Origin, Violation> {
        let header = batch.header();
        let epoch = header.epoch.unwrap_or_default();
        let known = self.written.get(&(epoch, header.base_offset));
        let as_written = known.map_or(header.is_dense(), |(_, written)| written.bytes() == batch.bytes());
        if as_written {
            return Ok(Origin { batches: vec![batch.clone()], missing: Vec::new() });
        }
        let (mut at, mut batches) = (header.base_offset, Vec::new());
        while at < header.next_offset() {
            let Some((_, written)) = self.written.get(&(epoch, at)) else { break };
            at = written.header().next_offset();
            batches.push(written.clone());
        }
        let name = self.name(node);
        ensure(at == header.next_offset(), "REP-3", || {
            format!("{name} holds a batch from {} on that is no part of what was written", header.base_offset)
        })?;
        let missing = self.missing_of(node, batch, &batches)?;
        Ok(Origin { batches, missing })
    }

    /// What is left is what was written, markers are whole, and whose a batch was is still known.
    fn missing_of(
        &self,
        node: usize,
        batch: &RecordBatch,
        written: &[RecordBatch],
    ) -> Result<Vec<Offset>, Violation> {
        let name = self.name(node);
        let left: BTreeMap<Offset, Record> = records_of(batch).into_iter().collect();
        let before: BTreeMap<Offset, Record> = written.iter().flat_map(records_of).collect();
        for (offset, record) in &left {
            let same = before.get(offset).is_some_and(|old| {
                (&old.key, &old.value, old.timestamp) == (&record.key, &record.value, record.timestamp)
            });
            ensure(same, "REP-10", || format!("{name} holds another record at {offset} than was written"))?;
        }
        let alike = |old: &RecordBatch| {
            let (old, new) = (old.header(), batch.header());
            new.is_filler() || (old.producer, old.attributes) == (new.producer, new.attributes)
        };
        let kept = written.iter().all(|old| !old.header().is_control() && alike(old));
        ensure(kept, "REP-10", || {
            format!("{name} has compacted more than records at {}", batch.header().base_offset)
        })?;
        Ok(before.into_keys().filter(|offset| !left.contains_key(offset)).collect())
    }

    /// A pass has ended: what the files hold now.
    pub(crate) fn compacted(&mut self, node: usize, found: &[RecordBatch]) -> Result<(), Violation> {
        let before = self.views[node].missing.len();
        let mut missing = BTreeSet::new();
        let mut end = found.first().map(|first| first.header().base_offset);
        for batch in found {
            ensure(Some(batch.header().base_offset) == end, "REP-3", || {
                format!("{} has a gap in its compacted log at {end:?}", self.name(node))
            })?;
            end = Some(batch.header().next_offset());
            missing.extend(self.origin(node, batch)?.missing);
        }
        let name = self.name(node);
        let view = &mut self.views[node];
        ensure(end.is_none_or(|end| end == view.end()), "REP-3", || {
            format!("{name} compacted a log that ended at {}, and it ends at {end:?}", view.end())
        })?;
        view.missing = missing;
        self.coverage.count(Sight::Compacted, self.views[node].missing.len() > before);
        self.check_missing(node)
    }

    /// Whether an unclean recovery lost what was on disks that are gone: with it may have gone what that superseded (R37).
    fn lost_disks_count(&self) -> bool {
        !self.disks_last && self.coverage.of(Sight::UncleanLoss) > 0
    }

    /// REP-10: what is missing below the watermark is superseded by a later committed record of its key, or it is a tombstone
    /// and nothing older of its key is left.
    pub(super) fn check_missing(&mut self, node: usize) -> Result<(), Violation> {
        let view = &self.views[node];
        if view.doubtful {
            return Ok(());
        }
        let (name, mut tombstones) = (self.name(node), 0);
        for &offset in view.missing.range(view.start..) {
            let entry = self.keys.records.get(&offset);
            let gone = || format!("{name} has dropped the record at {offset}");
            let Some(Entry { key: Some(key), tombstone }) = entry else {
                let why = if entry.is_some() { "which has no key" } else { "which is not committed" };
                return Err(Violation { id: "REP-10", detail: format!("{}, {why}", gone()) });
            };
            let of_key = &self.keys.by_key[key];
            let ever = self.keys.ever.get(key).filter(|_| self.lost_disks_count());
            if of_key.last().max(ever).is_some_and(|&last| last > offset) {
                continue;
            }
            ensure(*tombstone, "REP-10", || format!("{}, the last of its key", gone()))?;
            tombstones += 1;
            let older = of_key.range(view.start..offset).find(|&older| !view.missing.contains(older));
            ensure(older.is_none(), "REP-10", || {
                format!("{}, a tombstone, and holds an older record of its key at {older:?}", gone())
            })?;
        }
        self.coverage.count(Sight::TombstoneDropped, tombstones > 0);
        Ok(())
    }

    /// REP-10, as who reads the whole log sees it: every key has the value that was committed last.
    pub(super) fn check_values(
        &self,
        node: usize,
        start: Offset,
        missing: &BTreeSet<Offset>,
    ) -> Result<(), Violation> {
        let shown = self.keys.values(start, missing);
        let committed = self.keys.values(start, &BTreeSet::new());
        ensure(shown == committed || self.lost_disks_count(), "REP-10", || {
            format!(
                "{} shows the values at {shown:?} of its keys; committed are {committed:?}",
                self.name(node)
            )
        })
    }
}
