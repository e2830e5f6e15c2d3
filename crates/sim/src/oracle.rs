//! Judges a run: what must hold between replicas after every step (REP-1 to REP-7, REP-9, REP-10), and for
//! producers (REP-8).
//!
//! It sees everything at once, so it needs no protocol: it keeps the one committed sequence, who was active in which
//! epoch, and what each epoch put at each offset. A log is known by its chain: one digest per batch over the batch and
//! all before it, so that equal digests mean equal prefixes.

mod commits;
mod compaction;
mod trims;
mod view;

use std::collections::BTreeMap;

use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Envelope, FetchKind, Loaded, Message, Replica};
use holdfast_core::{Incarnation, LeaderEpoch, Offset, ProducerId, ReplicaId, Term};

use crate::coverage::{Coverage, Sight};
use crate::disk::{Disk, Found};
use commits::{Committed, GivenUp, Leading};
use compaction::{Keys, Origin};
use view::View;

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

/// Where a replica of the partition may be: one for each node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// The identity that the node's data directory gives its replicas.
    pub(crate) id: ReplicaId,
    /// Its disk.
    pub(crate) disk: &'a Disk,
}

/// Knows all that happened in one partition.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    partition: usize,
    durability: Durability,
    /// Whether a commit must be found on a majority of the disks at once: not where acknowledged data may vanish.
    strict: bool,
    /// Whether what is flushed stays: then not even an unclean recovery loses what a majority has on disk (R37).
    disks_last: bool,
    /// What an operator gave up, until something is committed again.
    given_up: Option<GivenUp>,
    views: Vec<View>,
    committed: Vec<Committed>,
    leaders: BTreeMap<LeaderEpoch, (usize, Incarnation)>,
    /// What each epoch put at each offset, with its chain.
    written: BTreeMap<(LeaderEpoch, Offset), (u64, RecordBatch)>,
    keys: Keys,
    next_sequence: BTreeMap<ProducerId, i32>,
    /// By producer and sequence: where it is committed.
    places: BTreeMap<(ProducerId, i32), Offset>,
    acknowledged: u64,
    /// What it came across.
    pub(crate) coverage: Coverage,
}

impl Oracle {
    /// The oracle of a new partition in a cluster of so many nodes.
    pub(crate) fn new(partition: usize, durability: Durability, strict: bool, nodes: usize) -> Oracle {
        Oracle {
            partition,
            durability,
            strict,
            disks_last: true,
            given_up: None,
            views: vec![View::default(); nodes],
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            written: BTreeMap::new(),
            keys: Keys::default(),
            next_sequence: BTreeMap::new(),
            places: BTreeMap::new(),
            acknowledged: 0,
            coverage: Coverage::default(),
        }
    }

    /// Disks may fail as well, so that more may be lost by an unclean recovery.
    pub(crate) fn on_failing_disks(self) -> Oracle {
        Oracle { disks_last: false, ..self }
    }

    /// Number of batches acknowledged to producers.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// An operator's order gave up a majority of a set, whose disks are lost, and left these nodes (R37). From that term on
    /// leaders may lack what only the lost ones held.
    pub(crate) fn give_up(&mut self, term: Term, left: Vec<usize>) {
        let since = self.given_up.as_ref().map_or(term, |known| known.since);
        self.given_up = Some(GivenUp { since, left });
    }

    fn name(&self, node: usize) -> String {
        format!("partition {} node {node}", self.partition)
    }

    /// The process died.
    pub(crate) fn stopped(&mut self, node: usize) {
        self.views[node].stop();
    }

    /// The data directory is another one: the replica that was here is gone for good.
    pub(crate) fn wiped(&mut self, node: usize) {
        self.views[node] = View::default();
    }

    /// A process starts: what its files hold now. What was flushed below `kept` has to be there, unless the replica says
    /// itself that it may have forgotten (R35).
    pub(crate) fn reloaded(
        &mut self,
        node: usize,
        kept: Offset,
        trimmed: Offset,
        found: &Found,
    ) -> Result<(), Violation> {
        let name = self.name(node);
        let Loaded { state, epochs, damaged, .. } = &found.loaded;
        let origins = found.batches.as_ref().map(|batches| self.origins(node, batches)).transpose()?;
        let view = &mut self.views[node];
        view.stop();
        let before = view.end();
        let flushed = view.chain_below(kept);
        let start = epochs.base().end;
        ensure(*damaged || (start >= trimmed && view.chain_below(start).is_some()), "REP-9", || {
            format!("{name} had trimmed its log at {trimmed}, and finds one that starts at {start}")
        })?;
        if let Some(origins) = &origins {
            view.reload(start, origins);
        } else {
            view.cut(epochs.end());
            view.start = start;
        }
        self.coverage.count(Sight::TornTail, found.torn_bytes > 0);
        self.coverage.count(Sight::NotedLog, found.resumed);
        self.coverage.count(Sight::TailLost, view.end() < before);
        self.coverage.count(Sight::Quarantined, *damaged);
        self.coverage.count(Sight::CleanStart, found.clean && before > Offset::ZERO);
        ensure(state.nonvoter || *damaged || view.chain_below(kept) == flushed, "LOG-1", || {
            format!("{name} had flushed up to {kept}, and finds a log that ends at {}", view.end())
        })?;
        let promise = state.promise;
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
            let promise = durable_promise(disk);
            ensure(promise >= epoch, "REP-6", || {
                format!("{name} appends in {epoch} with durable promise {promise}")
            })?;
            let view = &mut self.views[node];
            let end = view.end();
            ensure(header.base_offset == end, "REP-3", || {
                format!("{name} appends {} at log end {end}", header.base_offset)
            })?;
            view.obeyed = view.obeyed.max(epoch);
            let Origin { batches, missing } = self.origin(node, batch)?;
            let view = &mut self.views[node];
            view.missing.extend(&missing);
            for batch in batches {
                let chain = view.extend(&batch);
                let at = batch.header().base_offset;
                let (known, _) = self.written.entry((epoch, at)).or_insert((chain, batch));
                ensure(*known == chain, "REP-3", || {
                    format!("{name}: another batch or prefix at epoch {epoch} offset {at}")
                })?;
            }
            self.coverage.count(Sight::CompactedCopied, !missing.is_empty());
            if !missing.is_empty() {
                self.check_missing(node)?;
            }
        }
        Ok(())
    }

    fn origins(&self, node: usize, batches: &[RecordBatch]) -> Result<Vec<Origin>, Violation> {
        batches.iter().map(|batch| self.origin(node, batch)).collect()
    }

    /// The log is about to be cut. It may be cut below the watermark where it ends before the last unclean term did
    /// (R37).
    pub(crate) fn truncating(
        &mut self,
        node: usize,
        end: Offset,
        unclean_term: Option<Term>,
    ) -> Result<(), Violation> {
        let name = self.name(node);
        let view = &mut self.views[node];
        let given_up = unclean_term.is_some_and(|term| view.last_epoch().term <= term);
        ensure(given_up || end >= view.watermark, "REP-5", || {
            format!("{name} truncates to {end} below its high watermark {}", view.watermark)
        })?;
        view.cut(end);
        view.watermark = view.watermark.min(end);
        self.coverage.see(Sight::DivergedCut);
        Ok(())
    }

    /// A message is about to be sent.
    pub(crate) fn sending(&mut self, node: usize, disk: &Disk, envelope: &Envelope) -> Result<(), Violation> {
        let name = self.name(node);
        let epoch = envelope.epoch;
        let promise = durable_promise(disk);
        ensure(promise >= epoch, "REP-6", || {
            format!("{name} speaks in {epoch} with durable promise {promise}: {:?}", envelope.message)
        })?;
        self.views[node].obeyed = self.views[node].obeyed.max(epoch);
        let (written, flushed) = match &envelope.message {
            Message::FenceOk { position, voter } => {
                self.coverage.count(Sight::NonVoterAsked, !voter);
                (position.end, position.end)
            }
            Message::Fetch { position, durable_end, kind, .. } => {
                self.coverage.count(Sight::ForeignCopy, *kind == FetchKind::Recover);
                (position.end, *durable_end)
            }
            Message::Data { durable_high_watermark, .. } => {
                if self.views[node].active == Some(epoch) {
                    self.note_durable(*durable_high_watermark);
                }
                return Ok(());
            }
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
        sites: &[Site<'_>],
    ) -> Result<(), Violation> {
        let status = replica.status();
        let (set, unclean) = replica.assignment().map_or((&[][..], false), |known| {
            (&known.set[..], known.is_unclean() && known.term == status.epoch.term)
        });
        // What a replica does in an epoch does not count until its promise is durable; it is mute until then.
        let mute = durable_promise(sites[node].disk) < status.epoch;
        // One that leads alone may have been appointed anew before it was heard: what it committed stays committed.
        let alone = set.len() == 1;
        if mute && !alone {
            return Ok(());
        }
        let leads = (status.active && !mute).then_some(status.epoch);
        self.check_role(node, incarnation, leads, unclean)?;
        self.note_vote(node, replica.is_voter());
        if self.doubts(node) {
            return Ok(());
        }
        let known = self.views[node].watermark;
        // It says so before its log begins anew, and votes no more.
        let begins_anew = replica.epochs().end() == Offset::ZERO && !replica.is_voter();
        ensure(unclean || begins_anew || status.high_watermark >= known, "REP-7", || {
            format!("{}: high watermark fell from {known} to {}", self.name(node), status.high_watermark)
        })?;
        // Until it is written nobody can read it.
        let watermark = status.high_watermark.min(sites[node].disk.end());
        if watermark > known {
            self.views[node].watermark = watermark;
            let commits = status.active || alone;
            let whole = watermark == status.high_watermark && !alone;
            let leading = commits.then_some(Leading { node, epoch: status.epoch, set, whole });
            self.check_prefix(node, watermark, leading, sites)?;
        }
        Ok(())
    }

    /// Whether a replica still shows what an unclean recovery gave up. Not for longer than its log holds it.
    fn doubts(&mut self, node: usize) -> bool {
        if self.views[node].doubtful {
            let view = &self.views[node];
            let shared = view.log.len().min(self.committed.len());
            let agrees =
                shared.checked_sub(1).is_none_or(|last| view.holds(last, self.committed[last].chain));
            let followed = view.active.is_some() || view.log.len() <= self.committed.len();
            self.views[node].doubtful = !(agrees && followed);
        }
        if self.views[node].doubtful {
            self.views[node].watermark = Offset::ZERO;
        }
        self.views[node].doubtful
    }

    fn check_role(
        &mut self,
        node: usize,
        incarnation: Incarnation,
        active: Option<LeaderEpoch>,
        unclean: bool,
    ) -> Result<(), Violation> {
        let before = std::mem::replace(&mut self.views[node].active, active);
        let Some(epoch) = active.filter(|_| before != active) else { return Ok(()) };
        // Only the first recovery of an unclean term may lose anything.
        let led_before = self.leaders.range(LeaderEpoch::first(epoch.term)..epoch).next().is_some();
        let unclean = unclean && !led_before;
        let first = *self.leaders.entry(epoch).or_insert((node, incarnation));
        ensure(first == (node, incarnation) && before.is_none_or(|before| before < epoch), "REP-4", || {
            format!("{} is active in {epoch}, which node {} led", self.name(node), first.0)
        })?;
        let others = self.views.iter().filter(|view| view.active.is_some()).count();
        self.coverage.count(Sight::TwoActives, others > 1);
        self.coverage.count(Sight::LaterRun, epoch.run > 0);
        if unclean || self.given_up.as_ref().is_some_and(|given_up| epoch.term >= given_up.since) {
            self.forget_what_an_unclean_leader_lacks(node)?;
        }
        self.check_leader_holds_committed(node, epoch)
    }

    fn note_vote(&mut self, node: usize, voter: bool) {
        let before = self.views[node].voter.replace(voter);
        self.coverage.count(Sight::Rejoined, before == Some(false) && voter);
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
        self.coverage.count(Sight::DuplicateAcknowledged, acknowledged.duplicate);
        let place = self.places.get(&(producer, sequence)).copied();
        ensure(place == Some(acknowledged.base_offset), "REP-8", || {
            let (name, offset) = (self.name(node), acknowledged.base_offset);
            format!(
                "{name} acknowledges sequence {sequence} of {producer} at {offset}; committed at {place:?}"
            )
        })
    }

    /// At the end: producers wrote so many records, and all members hold the same log, byte for byte but for what compaction
    /// took out of it.
    pub(crate) fn finish(
        &self,
        written: &BTreeMap<ProducerId, i32>,
        logs: &[(usize, Offset, Vec<RecordBatch>)],
    ) -> Result<(), Violation> {
        // An unclean recovery may have taken what was acknowledged.
        let whole = self.coverage.of(Sight::UncleanLoss) == 0;
        for (producer, &records) in written.iter().filter(|_| whole) {
            let committed = self.next_sequence.get(producer).copied().unwrap_or(0);
            ensure(committed == records, "REP-8", || {
                format!("producer {producer} wrote {records} records, and {committed} are committed")
            })?;
        }
        for (node, start, batches) in logs {
            let mut view = self.views[*node].clone();
            view.reload(*start, &self.origins(*node, batches)?);
            self.check_values(*node, *start, &view.missing)?;
            let committed = self.committed.last().map(|last| (last.next, last.chain));
            let held = view.log.last().map(|last| (last.next, last.chain));
            ensure(held == committed, "REP-2", || {
                format!("{} has in its files another log than was committed", self.name(*node))
            })?;
        }
        Ok(())
    }
}

fn durable_promise(disk: &Disk) -> LeaderEpoch {
    disk.state().map_or(LeaderEpoch::ZERO, |state| state.promise)
}
