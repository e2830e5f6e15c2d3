//! Partition replicas: the loop that feeds the rules, and what other parts of the broker see of them.
//!
//! ```text
//!  services, peers, flusher, state store ── Command (bounded) ──► shard ──► driver ──► Replica (rules)
//!                                                                 thread     │  │
//!                     readers ◄── PartitionHandle (status, LogReader) ◄──────┘  └──► log, flusher, peers, replies
//! ```

mod compacting;
mod driver;
mod newest;
mod open;
mod paused;
mod reading;
mod registry;
mod shard;
#[cfg(test)]
mod tests;
mod trimming;

use std::sync::Arc;

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Assignment, Event, ProduceError};
use holdfast_core::retention::Retention;
use holdfast_core::{BrokerId, PartitionId, Term, TopicId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::flusher::Flushed;
use crate::repair::Repaired;

pub(crate) use compacting::PassBounds;
pub(crate) use driver::READ_ROOM;
pub(crate) use newest::Newest;
pub(crate) use registry::{PartitionHandle, Partitions};
pub(crate) use shard::{Shard, ShardContext};
pub(crate) use trimming::REMOVALS;

/// Commands that may wait for a shard.
const SHARD_QUEUE: usize = 4096;

pub(crate) type ShardSender = mpsc::Sender<Command>;
pub(crate) type ProduceReply = oneshot::Sender<Result<Acknowledged, ProduceError>>;

/// What a shard is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something happened to a partition; ignored where the partition is not here (R46).
    Event(PartitionId, Event),
    /// The same of something large: a message of another broker, a read for one. Its room is given back once it is dealt
    /// with.
    Charged { partition: PartitionId, event: Event, _room: OwnedSemaphorePermit },
    /// A client's batch. Its room is held while it waits here, also when the client does not wait any more.
    Produce {
        partition: PartitionId,
        batch: RecordBatch,
        reply: ProduceReply,
        _room: Arc<OwnedSemaphorePermit>,
    },
    /// A flush ended.
    Flushed(PartitionId, Box<Flushed>),
    /// The register names this broker; the replica is created where it is not there yet.
    Assign { partition: PartitionId, durability: Durability, assignment: Assignment },
    /// So much of the topic's partitions is kept from now on.
    Retain(TopicId, Retention),
    /// A pass of compaction is to begin over the partition's log: how far may it go? The answer is `None` where there is to be
    /// none.
    BeginPass { partition: PartitionId, compaction: Compaction, reply: oneshot::Sender<Option<PassBounds>> },
    /// It has ended.
    PassEnded(PartitionId),
    /// The segment that is appended to is to be sealed: something in it has to be written anew. Answered when that is done, or
    /// cannot be.
    Seal { partition: PartitionId, reply: oneshot::Sender<()> },
    /// The register of that term names other replicas only: this one and its data go (R46).
    DeleteReplica(PartitionId, Term),
    /// The log of that replica failed so many times, and the disk takes writes again: it begins anew.
    Rebuild { partition: PartitionId, failure: u32 },
    /// The topic is deleted: its replicas and their data go. These folders were found of it, opened or not.
    DeleteTopic { topic: TopicId, folders: Vec<PartitionId> },
    /// Those folders of deleted replicas are removed, and the others could not be.
    FoldersRemoved { removed: Vec<PartitionId>, left: Vec<PartitionId> },
    /// The repair of a log that could not be opened has ended. The number is that of the repair.
    Repaired { partition: PartitionId, number: u64, repaired: Repaired },
    /// The stream to a broker was opened.
    PeerConnected(BrokerId),
    /// End in order: flush everything, note watermarks, answer, stop.
    Close(oneshot::Sender<()>),
}

/// A queue to a shard, and the end that the shard reads.
pub(crate) fn shard_queue() -> (ShardSender, mpsc::Receiver<Command>) {
    mpsc::channel(SHARD_QUEUE)
}

/// Senders of all shards; a partition always belongs to the same one.
#[derive(Debug, Clone)]
pub(crate) struct ShardSenders {
    senders: Arc<[ShardSender]>,
}

impl ShardSenders {
    pub(crate) fn new(senders: Vec<ShardSender>) -> ShardSenders {
        ShardSenders { senders: senders.into() }
    }

    /// The shard of a partition.
    pub(crate) fn of(&self, partition: PartitionId) -> &ShardSender {
        &self.senders[self.number_of(partition)]
    }

    /// Its place among [all](Self::all).
    pub(crate) fn number_of(&self, partition: PartitionId) -> usize {
        // Topic ids are random, so neighbouring partitions of one topic are what has to be spread.
        let number = (partition.topic.0 as usize).wrapping_add(partition.index as usize);
        number % self.senders.len()
    }

    /// Ends all shards in order. Whether everything that was written is flushed.
    pub(crate) async fn close(&self) -> bool {
        let mut flushed = true;
        for shard in self.all() {
            let (done, closed) = oneshot::channel();
            flushed &= shard.send(Command::Close(done)).await.is_ok() && closed.await.is_ok();
        }
        flushed
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &ShardSender> {
        self.senders.iter()
    }
}
