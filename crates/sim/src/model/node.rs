//! One node of the model: the production replica on its disk, and what can be told of it.

use std::hash::{Hash, Hasher};

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::Replica;
use holdfast_core::{Incarnation, LeaderEpoch, Offset, Timestamp};

use super::disk::Disk;
use super::step::letter;
use crate::digest::Digest;

/// Time stands still: every timer is always due, and fires when the search says so.
pub(super) const NOW: Timestamp = Timestamp(1);

/// A batch of a log. `chain` stands for it and all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) next: Offset,
    pub(super) epoch: LeaderEpoch,
    pub(super) chain: u64,
    pub(super) record: Option<u8>,
}

/// What has to be judged against the other nodes and the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A batch was appended.
    Wrote(Entry),
    /// It became leader, of this epoch, in this run of its process, with this log.
    Leads { epoch: LeaderEpoch, run: u8, log: Vec<Entry> },
    /// Its high watermark rose: what lies below, the epoch it leads if any, and the end of what it has flushed.
    Shows { log: Vec<Entry>, active: Option<LeaderEpoch>, flushed: Offset },
    /// The leader of a term said that its change of the set is complete (R3).
    Completed { term: u32 },
    /// The record was acknowledged at this offset.
    Acknowledged { record: u8, offset: Offset },
}

/// A node. Whatever is in here tells states apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) run: u8,
    /// The last term that it heard of from the controller.
    pub(super) told: u8,
    pub(super) replica: Option<Replica>,
    pub(super) disk: Disk,
    /// Of this run.
    pub(super) watermark: Offset,
    /// What it leads.
    pub(super) active: Option<LeaderEpoch>,
    /// The highest epoch that it ever spoke or wrote in.
    pub(super) obeyed: LeaderEpoch,
}

/// The batches of a log as entries.
pub(super) fn entries(batches: &[RecordBatch]) -> Vec<Entry> {
    let mut chain = 0_u64;
    let entry = |batch: &RecordBatch| {
        let mut digest = Digest::default();
        chain.hash(&mut digest);
        digest.write(batch.bytes());
        chain = digest.finish();
        let header = batch.header();
        let record = header.producer.and_then(|producer| u8::try_from(producer.id.0).ok());
        Entry { next: header.next_offset(), epoch: header.epoch.unwrap_or_default(), chain, record }
    };
    batches.iter().map(entry).collect()
}

impl Node {
    /// A node that has heard nothing yet.
    pub(super) fn new(index: usize) -> Node {
        Node {
            index,
            run: 1,
            told: 0,
            replica: None,
            disk: Disk::default(),
            watermark: Offset::ZERO,
            active: None,
            obeyed: LeaderEpoch::ZERO,
        }
    }

    /// Lowest epoch that it obeys.
    pub(super) fn promise(&self) -> LeaderEpoch {
        self.replica.as_ref().map_or(LeaderEpoch::ZERO, |replica| replica.status().epoch)
    }

    /// Whether its timer is due.
    pub(super) fn is_due(&self) -> bool {
        self.replica.as_ref().and_then(Replica::next_deadline).is_some_and(|deadline| deadline <= NOW)
    }

    pub(super) fn durable_promise(&self) -> LeaderEpoch {
        self.disk.state().map_or(LeaderEpoch::ZERO, |state| state.promise)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.index as u64 * 100 + u64::from(self.run))
    }

    pub(super) fn name(&self) -> char {
        letter(self.index)
    }
}
