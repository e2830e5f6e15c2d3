//! The one committed sequence: who extends it, who has to hold it (REP-1, REP-2, REP-7, REP-8).

use holdfast_core::metadata::{Durability, majority};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::Position;
use holdfast_core::{LeaderEpoch, Offset, ReplicaId, Term};

use super::view::Written;
use super::{Oracle, Site, Violation, ensure};
use crate::coverage::Sight;

/// One batch of the committed sequence.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) next: Offset,
    pub(super) chain: u64,
    /// Epoch of the leader that committed it.
    pub(super) epoch: LeaderEpoch,
    /// Whether a leader also said that a majority has it on disk: then not even an unclean recovery may lose it (R37).
    pub(super) durable: bool,
    batch: RecordBatch,
}

/// A leader, as a commit is judged: its number, the epoch it leads, the set that it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leading<'a> {
    pub(super) node: usize,
    pub(super) epoch: LeaderEpoch,
    pub(super) set: &'a [ReplicaId],
    /// Whether all that it commits is written; its marker may be missing otherwise.
    pub(super) whole: bool,
}

/// A majority that an operator gave up for lost (R37).
#[derive(Debug, Clone)]
pub(super) struct GivenUp {
    /// The term of the order.
    pub(super) since: Term,
    /// Who is left, and is asked until something is committed.
    pub(super) left: Vec<usize>,
}

impl Oracle {
    /// REP-1: a leader holds all that leaders of earlier epochs committed.
    pub(super) fn check_leader_holds_committed(
        &self,
        node: usize,
        epoch: LeaderEpoch,
    ) -> Result<(), Violation> {
        let Some(last) = self.committed.iter().rposition(|entry| entry.epoch < epoch) else { return Ok(()) };
        let entry = &self.committed[last];
        ensure(self.views[node].holds(last, entry.chain), "REP-1", || {
            let name = self.name(node);
            format!("{name} leads {epoch} without offset {} committed in {}", entry.next, entry.epoch)
        })
    }

    /// R37: an unclean leader may lack what was never on the disks of a majority. That is gone then, for all.
    pub(super) fn forget_what_an_unclean_leader_lacks(&mut self, node: usize) -> Result<(), Violation> {
        let view = &self.views[node];
        let holds = |(index, entry): (usize, &Committed)| view.holds(index, entry.chain);
        let kept = self.committed.iter().enumerate().take_while(|&entry| holds(entry)).count();
        let lost = self.committed[kept..].iter().rfind(|entry| entry.durable).map(|entry| entry.next);
        ensure(lost.is_none() || !self.disks_last, "REP-1", || {
            let (name, lost) = (self.name(node), lost.unwrap_or_default());
            format!("{name} leads an unclean term without offset {lost}, which a majority had on disk")
        })?;
        let Some(first) = self.committed.get(kept) else { return Ok(()) };
        if let Some(GivenUp { left, .. }) = &self.given_up {
            // All are asked where a majority of them is all.
            let asked = left.iter().filter(|_| left.len() <= 2);
            let keeper = asked.copied().find(|&other| self.views[other].holds(kept, first.chain));
            ensure(keeper.is_none(), "REP-1", || {
                let (name, offset) = (self.name(node), first.next);
                format!("{name} leads without offset {offset}, which node {keeper:?} was left with")
            })?;
        }
        self.coverage.see(Sight::UncleanLoss);
        let boundary = kept.checked_sub(1).map_or(Offset::ZERO, |last| self.committed[last].next);
        for view in self.views.iter_mut().filter(|view| view.end() > boundary) {
            view.doubtful = true;
        }
        self.keys.give_up(boundary);
        for entry in self.committed.drain(kept..) {
            let header = entry.batch.header();
            if let Some(producer) = header.producer {
                self.places.remove(&(producer.id, producer.base_sequence));
                let next = self.next_sequence.entry(producer.id).or_insert(0);
                *next = (*next).min(producer.base_sequence);
            }
        }
        Ok(())
    }

    /// REP-2: all below the watermark is the committed sequence. A leader's watermark may extend it.
    pub(super) fn check_prefix(
        &mut self,
        node: usize,
        watermark: Offset,
        leading: Option<Leading<'_>>,
        sites: &[Site<'_>],
    ) -> Result<(), Violation> {
        let name = self.name(node);
        let view = &self.views[node];
        let count = view.count(watermark);
        let written = count.checked_sub(1).map_or(Offset::ZERO, |last| view.log[last].next);
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
        let leading = leading.ok_or_else(|| Violation {
            id: "REP-7",
            detail: format!("{name} follows, and its high watermark {watermark} is above all committed"),
        })?;
        let newest = view.log[count - 1].batch.header().epoch.unwrap_or_default();
        ensure(newest == leading.epoch || !leading.whole, "REP-7", || {
            format!("{name} commits in {} without its marker: the last batch is of {newest}", leading.epoch)
        })?;
        for index in shared..count {
            self.commit(leading, index, sites)?;
        }
        for (other, view) in self.views.iter().enumerate() {
            if let Some(later) = view.active.filter(|&later| later > leading.epoch) {
                self.check_leader_holds_committed(other, later)?;
            }
        }
        Ok(())
    }

    /// Number of the committed batch that ends there, in that epoch.
    pub(super) fn committed_at(&self, position: Position) -> Option<usize> {
        let last = self.committed.partition_point(|entry| entry.next <= position.end).checked_sub(1)?;
        let entry = &self.committed[last];
        let same = entry.next == position.end && entry.batch.header().epoch == Some(position.epoch);
        same.then_some(last)
    }

    /// The log of a node as it was written, with what was trimmed and what compaction took out of it.
    pub(crate) fn whole(&self, node: usize) -> Vec<RecordBatch> {
        self.views[node].log.iter().map(|written| written.batch.clone()).collect()
    }

    /// The committed batches up to that one, as they stand in a log.
    pub(super) fn written_up_to(&self, last: usize) -> Vec<Written> {
        let written =
            |entry: &Committed| Written { next: entry.next, chain: entry.chain, batch: entry.batch.clone() };
        self.committed[..=last].iter().map(written).collect()
    }

    /// Notes what a leader says to be on the disks of a majority (R27).
    pub(super) fn note_durable(&mut self, durable: Offset) {
        let upto = self.committed.partition_point(|entry| entry.next <= durable);
        for entry in self.committed[..upto].iter_mut().rev().take_while(|entry| !entry.durable) {
            entry.durable = true;
        }
    }

    fn commit(&mut self, leading: Leading<'_>, index: usize, sites: &[Site<'_>]) -> Result<(), Violation> {
        let (name, epoch) = (self.name(leading.node), leading.epoch);
        self.given_up.take_if(|given_up| epoch.term >= given_up.since);
        let written = self.views[leading.node].log[index].clone();
        let header = written.batch.header();
        let held = |other: usize, site: &Site<'_>| {
            let reached =
                if self.durability == Durability::Disk { site.disk.flushed() } else { site.disk.end() };
            let counts = leading.set.contains(&site.id) && reached >= written.next;
            counts && self.views[other].holds(index, written.chain)
        };
        let copies = sites.iter().enumerate().filter(|&(other, site)| held(other, site)).count();
        ensure(!self.strict || copies >= majority(leading.set.len()), "REP-7", || {
            format!("{name} commits offset {} in {epoch} with {copies} copies", header.base_offset)
        })?;
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
        let durable = self.durability == Durability::Disk;
        let batch = written.batch.clone();
        self.keys.commit(&batch);
        self.committed.push(Committed { next: written.next, chain: written.chain, epoch, durable, batch });
        Ok(())
    }
}
