//! Judges a run: what must hold between replicas after every step (REP-1 to REP-7), and for producers (REP-8).
//!
//! It sees everything at once, so it needs no protocol: it keeps the one committed sequence, who was active in which
//! epoch, and what each epoch put at each offset. A log is known by its chain: one digest per batch over the batch and
//! all before it, so that equal digests mean equal prefixes.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use holdfast_core::metadata::{Durability, majority};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Envelope, Message, Replica};
use holdfast_core::{Incarnation, LeaderEpoch, Offset, ProducerId};

use crate::digest::Digest;
use crate::disk::Disk;

/// A promise that was broken, with its id in docs/invariants.md.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} {detail}")]
pub struct Violation {
    /// Which.
    pub id: &'static str,
    /// Where and how.
    pub detail: String,
}

/// Fails with the invariant's id unless the condition holds.
pub(crate) fn ensure(
    holds: bool,
    id: &'static str,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { id, detail: detail() }) }
}

/// One batch of the committed sequence.
#[derive(Debug, Clone, Copy)]
struct Committed {
    next: Offset,
    chain: u64,
    /// Epoch of the leader that committed it.
    epoch: LeaderEpoch,
}

/// What is known of one replica's disk and process.
#[derive(Debug, Clone, Default)]
struct View {
    /// End offset and chain digest of every batch written.
    chain: Vec<(Offset, u64)>,
    /// Of this run of the process.
    watermark: Offset,
    active: Option<LeaderEpoch>,
    /// The highest epoch that the replica ever spoke or wrote in.
    obeyed: LeaderEpoch,
}

impl View {
    fn extend(&mut self, batch: &RecordBatch) -> u64 {
        let mut digest = Digest::default();
        self.chain.last().map_or(0, |&(_, chain)| chain).hash(&mut digest);
        digest.write(batch.bytes());
        self.chain.push((batch.header().next_offset(), digest.finish()));
        digest.finish()
    }

    /// Number of batches below `offset`.
    fn count(&self, offset: Offset) -> usize {
        self.chain.partition_point(|&(next, _)| next <= offset)
    }

    fn holds(&self, index: usize, chain: u64) -> bool {
        self.chain.get(index).is_some_and(|&(_, own)| own == chain)
    }
}

/// Knows all that happened in one partition.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    partition: usize,
    durability: Durability,
    /// Whether a commit must be found on a majority of the disks at once: not where acknowledged data may vanish.
    strict: bool,
    views: Vec<View>,
    committed: Vec<Committed>,
    leaders: BTreeMap<LeaderEpoch, (usize, Incarnation)>,
    written: BTreeMap<(LeaderEpoch, Offset), u64>,
    next_sequence: BTreeMap<ProducerId, i32>,
    /// By producer and sequence: where it is committed.
    places: BTreeMap<(ProducerId, i32), Offset>,
    acknowledged: u64,
}

impl Oracle {
    /// The oracle of a new partition with `replicas` replicas, on the first nodes.
    pub(crate) fn new(partition: usize, durability: Durability, strict: bool, replicas: usize) -> Oracle {
        Oracle {
            partition,
            durability,
            strict,
            views: vec![View::default(); replicas],
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            written: BTreeMap::new(),
            next_sequence: BTreeMap::new(),
            places: BTreeMap::new(),
            acknowledged: 0,
        }
    }

    /// Number of batches acknowledged to producers.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn name(&self, node: usize) -> String {
        format!("partition {} node {node}", self.partition)
    }

    /// The process died, or starts: what its disk holds now.
    pub(crate) fn reloaded(&mut self, node: usize, disk: &Disk) -> Result<(), Violation> {
        let name = self.name(node);
        let view = &mut self.views[node];
        view.chain.clear();
        for batch in disk.batches() {
            view.extend(batch);
        }
        view.watermark = Offset::ZERO;
        view.active = None;
        let promise = disk.state().map_or(LeaderEpoch::ZERO, |state| state.promise);
        ensure(promise >= view.obeyed, "REP-6", || {
            format!("{name} obeyed {} and finds promise {promise} on its disk", view.obeyed)
        })
    }

    /// Batches are about to be written.
    pub(crate) fn appending(
        &mut self,
        node: usize,
        disk: &Disk,
        batches: &[RecordBatch],
    ) -> Result<(), Violation> {
        let name = self.name(node);
        for batch in batches {
            let header = batch.header();
            let epoch = header.epoch.unwrap_or_default();
            let promise = disk.state().map_or(LeaderEpoch::ZERO, |state| state.promise);
            ensure(promise >= epoch, "REP-6", || {
                format!("{name} appends in {epoch} with durable promise {promise}")
            })?;
            let view = &mut self.views[node];
            let end = view.chain.last().map_or(Offset::ZERO, |&(next, _)| next);
            ensure(header.base_offset == end, "REP-3", || {
                format!("{name} appends {} at log end {end}", header.base_offset)
            })?;
            view.obeyed = view.obeyed.max(epoch);
            let chain = view.extend(batch);
            let known = *self.written.entry((epoch, header.base_offset)).or_insert(chain);
            ensure(known == chain, "REP-3", || {
                format!("{name}: another batch or prefix at epoch {epoch} offset {}", header.base_offset)
            })?;
        }
        Ok(())
    }

    /// The log is about to be cut.
    pub(crate) fn truncating(&mut self, node: usize, end: Offset) -> Result<(), Violation> {
        let name = self.name(node);
        let view = &mut self.views[node];
        ensure(end >= view.watermark, "REP-5", || {
            format!("{name} truncates to {end} below its high watermark {}", view.watermark)
        })?;
        let kept = view.count(end);
        view.chain.truncate(kept);
        Ok(())
    }

    /// A message is about to be sent.
    pub(crate) fn sending(&mut self, node: usize, disk: &Disk, envelope: &Envelope) -> Result<(), Violation> {
        let name = self.name(node);
        let epoch = envelope.epoch;
        let promise = disk.state().map_or(LeaderEpoch::ZERO, |state| state.promise);
        ensure(promise >= epoch, "REP-6", || {
            format!("{name} speaks in {epoch} with durable promise {promise}: {:?}", envelope.message)
        })?;
        self.views[node].obeyed = self.views[node].obeyed.max(epoch);
        let (written, flushed) = match &envelope.message {
            Message::FenceOk { position, .. } => (position.end, position.end),
            Message::Fetch { position, durable_end, .. } => (position.end, *durable_end),
            _ => return Ok(()),
        };
        ensure(written <= disk.end() && flushed <= disk.flushed(), "REP-6", || {
            let (end, on_disk) = (disk.end(), disk.flushed());
            format!("{name} claims {written} written, {flushed} flushed; has {end}, {on_disk}")
        })
    }

    /// Before a replica says something, and after each step: its watermark and role. What it holds counts once it is
    /// written.
    pub(crate) fn observe(
        &mut self,
        node: usize,
        incarnation: Incarnation,
        replica: &Replica,
        disks: &[&Disk],
    ) -> Result<(), Violation> {
        let status = replica.status();
        // What a replica does in an epoch does not count until its promise is durable; it is mute until then.
        let promise = disks[node].state().map_or(LeaderEpoch::ZERO, |state| state.promise);
        // One that leads alone may have been appointed anew before it was heard: what it committed stays committed.
        let (alone, mute) = (disks.len() == 1, promise < status.epoch);
        if mute && !alone {
            return Ok(());
        }
        let active = (status.active || alone).then_some(status.epoch);
        self.check_role(node, incarnation, active.filter(|_| status.active && !mute))?;
        let known = self.views[node].watermark;
        let watermark = status.high_watermark.min(disks[node].end());
        ensure(status.high_watermark >= known, "REP-7", || {
            format!("{}: high watermark fell from {known} to {watermark}", self.name(node))
        })?;
        if watermark > known {
            self.views[node].watermark = watermark;
            self.check_prefix(node, watermark, active, disks)?;
        }
        Ok(())
    }

    fn check_role(
        &mut self,
        node: usize,
        incarnation: Incarnation,
        active: Option<LeaderEpoch>,
    ) -> Result<(), Violation> {
        let before = std::mem::replace(&mut self.views[node].active, active);
        let Some(epoch) = active.filter(|_| before != active) else { return Ok(()) };
        let first = *self.leaders.entry(epoch).or_insert((node, incarnation));
        ensure(first == (node, incarnation) && before.is_none_or(|before| before < epoch), "REP-4", || {
            format!("{} is active in {epoch}, which node {} led", self.name(node), first.0)
        })?;
        self.check_leader_holds_committed(node, epoch)
    }

    /// REP-1: a leader holds all that leaders of earlier epochs committed.
    fn check_leader_holds_committed(&self, node: usize, epoch: LeaderEpoch) -> Result<(), Violation> {
        let Some(last) = self.committed.iter().rposition(|entry| entry.epoch < epoch) else { return Ok(()) };
        let entry = self.committed[last];
        ensure(self.views[node].holds(last, entry.chain), "REP-1", || {
            let name = self.name(node);
            format!("{name} leads {epoch} without offset {} committed in {}", entry.next, entry.epoch)
        })
    }

    /// REP-2: all below the watermark is the committed sequence. A leader's watermark may extend it.
    fn check_prefix(
        &mut self,
        node: usize,
        watermark: Offset,
        active: Option<LeaderEpoch>,
        disks: &[&Disk],
    ) -> Result<(), Violation> {
        let name = self.name(node);
        let view = &self.views[node];
        let count = view.count(watermark);
        let written = count.checked_sub(1).map_or(Offset::ZERO, |last| view.chain[last].0);
        ensure(written == watermark, "REP-7", || {
            format!("{name}: high watermark {watermark}, but batches end at {written}")
        })?;
        let shared = count.min(self.committed.len());
        if let Some(last) = shared.checked_sub(1) {
            ensure(view.holds(last, self.committed[last].chain), "REP-2", || {
                format!("{name} shows another record than was committed below {}", self.committed[last].next)
            })?;
        }
        if count == shared {
            return Ok(());
        }
        let epoch = active.ok_or_else(|| Violation {
            id: "REP-7",
            detail: format!("{name} follows, and its high watermark {watermark} is above all committed"),
        })?;
        let batches = disks[node].batches()[shared..count].to_vec();
        for batch in &batches {
            self.commit(node, epoch, batch, disks)?;
        }
        for (other, view) in self.views.iter().enumerate() {
            if let Some(later) = view.active.filter(|&later| later > epoch) {
                self.check_leader_holds_committed(other, later)?;
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        node: usize,
        epoch: LeaderEpoch,
        batch: &RecordBatch,
        disks: &[&Disk],
    ) -> Result<(), Violation> {
        let (index, name) = (self.committed.len(), self.name(node));
        let header = batch.header();
        let (next, chain) = self.views[node].chain[index];
        let held = |other: usize, disk: &Disk| {
            let reached = if self.durability == Durability::Disk { disk.flushed() } else { disk.end() };
            reached >= next && self.views[other].holds(index, chain)
        };
        let copies = disks.iter().enumerate().filter(|&(other, disk)| held(other, disk)).count();
        ensure(!self.strict || copies >= majority(disks.len()), "REP-7", || {
            format!("{name} commits offset {} in {epoch} with {copies} copies", header.base_offset)
        })?;
        self.committed.push(Committed { next, chain, epoch });
        if let (Some(producer), Some(last)) = (header.producer, header.last_sequence()) {
            let expected = self.next_sequence.entry(producer.id).or_insert(0);
            ensure(producer.base_sequence == *expected, "REP-8", || {
                format!(
                    "{name} commits sequence {} of producer {} where {expected} follows, at offset {}",
                    producer.base_sequence, producer.id, header.base_offset
                )
            })?;
            *expected = last + 1;
            self.places.insert((producer.id, producer.base_sequence), header.base_offset);
        }
        Ok(())
    }

    /// A batch is acknowledged to its producer.
    pub(crate) fn acknowledging(
        &mut self,
        node: usize,
        producer: ProducerId,
        sequence: i32,
        acknowledged: &Acknowledged,
    ) -> Result<(), Violation> {
        self.acknowledged += 1;
        let place = self.places.get(&(producer, sequence)).copied();
        ensure(place == Some(acknowledged.base_offset), "REP-8", || {
            let (name, offset) = (self.name(node), acknowledged.base_offset);
            format!(
                "{name} acknowledges sequence {sequence} of {producer} at {offset}; committed at {place:?}"
            )
        })
    }

    /// At the end: producers wrote so many records, and all replicas hold the same log.
    pub(crate) fn finish(&self, written: &BTreeMap<ProducerId, i32>) -> Result<(), Violation> {
        for (producer, &records) in written {
            let committed = self.next_sequence.get(producer).copied().unwrap_or(0);
            ensure(committed == records, "REP-8", || {
                format!("producer {producer} wrote {records} records, and {committed} are committed")
            })?;
        }
        for (node, view) in self.views.iter().enumerate() {
            let same = view.chain.last() == self.views[0].chain.last();
            ensure(same, "REP-2", || format!("{} ends with another log than node 0", self.name(node)))?;
        }
        Ok(())
    }
}
