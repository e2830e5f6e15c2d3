//! Sends records: batched per partition, idempotent, in order, with one of three outcomes each.
//!
//! ```text
//!  send ─► room (bytes) ─► partitioner ─► lane: open batch ─► sender task: window ─► link: AppendStream ─► leader
//!    └ Pending ◄────────────────── one completion cell per batch ◄──────────┘ acknowledged
//! ```
//! One task per partition that was ever sent to, started by its first record.

mod answers;
mod builder;
mod completion;
mod lane;
mod link;
mod record;
mod sender;
mod session;
mod stats;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use holdfast_core::{ErrorCode, PartitionId};
use holdfast_proto::ApiError;
use tokio::runtime::Handle;
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub use builder::ProducerBuilder;
pub use completion::{Ack, Pending};
pub use record::Record;
pub use stats::{AckHook, AckedBatch, ProducerStats};

use crate::config::MAX_RECORD_SIZE;
use crate::error::{SendError, TrySendError};
use crate::partitioner::partition_of;
use crate::routing::leader_of;
use lane::{Appended, Lane, charge_of};
use sender::Sender;
use session::Session;

/// Sends records to one topic. Cloning is cheap; clones share buffer, batches and producer id.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Arc<Session>,
    /// By partition number.
    lanes: Vec<Arc<Lane>>,
    /// The partition that records without a key go to until its batch is closed.
    sticky: AtomicUsize,
    senders: TaskTracker,
    runtime: Handle,
}

/// What became of a producer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReport {
    /// Acknowledged.
    pub acked: u64,
    /// Certainly not stored.
    pub failed: u64,
    /// May be stored.
    pub unknown: u64,
}

impl Producer {
    /// Puts a record into its partition's batch, waiting for room in the buffer. The [`Pending`] gives the outcome;
    /// a producer that need not know can drop it and look at [`stats`](Self::stats).
    ///
    /// # Errors
    /// Where the record is too large or malformed, lacks a key that its topic asks for, its partition does not exist or is
    /// given up, or the producer is closed. The record is then certainly not stored.
    pub async fn send(&self, record: Record) -> Result<Pending, SendError> {
        let charge = self.inner.admit(&record)?;
        let room = &self.inner.session.ledger.room;
        let permit = match room.try_acquire_many(charge) {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(SendError::closed()),
            Err(TryAcquireError::NoPermits) => {
                // Batches that wait for more records would wait in vain.
                self.inner.lanes.iter().for_each(|lane| lane.hurry(Instant::now()));
                room.acquire_many(charge).await.map_err(|_| SendError::closed())?
            }
        };
        let pending = self.inner.place(&record, charge as usize)?;
        permit.forget(); // the batch gives it back
        Ok(pending)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// As [`send`](Self::send), and where the buffer is full: the record then comes back.
    pub fn try_send(&self, record: Record) -> Result<Pending, TrySendError> {
        let charge = self.inner.admit(&record).map_err(TrySendError::Refused)?;
        let permit = match self.inner.session.ledger.room.try_acquire_many(charge) {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(TrySendError::Refused(SendError::closed())),
            Err(TryAcquireError::NoPermits) => return Err(TrySendError::Full(record)),
        };
        let pending = self.inner.place(&record, charge as usize).map_err(TrySendError::Refused)?;
        permit.forget();
        Ok(pending)
    }

    /// Sends what waits, without regard to linger, and waits for the outcome of every record accepted before.
    pub async fn flush(&self) {
        let now = Instant::now();
        let unfinished: Vec<_> = self.inner.lanes.iter().flat_map(|lane| lane.flush(now)).collect();
        for completion in unfinished {
            // Each record's outcome goes to its Pending and to the counters.
            let _ = completion.wait().await;
        }
    }

    /// Refuses new records, waits up to `limit` for the outcome of all others, and ends the producer's tasks. What
    /// has no outcome by then is failed if it was never sent, and unknown otherwise. Counts are of the whole life of
    /// the producer and its clones.
    pub async fn close(&self, limit: Duration) -> CloseReport {
        let session = &self.inner.session;
        session.ledger.room.close();
        self.inner.lanes.iter().for_each(|lane| lane.end(SendError::closed()));
        if timeout(limit, self.flush()).await.is_err() {
            let unfinished = self.stats().unfinished();
            tracing::warn!(topic = %session.topic, unfinished, "producer closed before every outcome was known");
        }
        session.cancel.cancel();
        self.inner.senders.close();
        self.inner.senders.wait().await;
        let stats = self.stats();
        CloseReport { acked: stats.acked, failed: stats.failed, unknown: stats.unknown }
    }

    /// Counters since the producer was built.
    pub fn stats(&self) -> ProducerStats {
        self.inner.session.ledger.stats()
    }

    /// Number of partitions of the topic.
    pub fn partitions(&self) -> u32 {
        self.inner.lanes.len() as u32
    }
}

impl Inner {
    /// The room that a record takes, if it may be sent at all.
    fn admit(&self, record: &Record) -> Result<u32, SendError> {
        let charge = charge_of(record);
        let limit = MAX_RECORD_SIZE.min(self.session.config.buffer_memory);
        if charge > limit {
            let message = format!("record of {charge} bytes exceeds the limit of {limit}");
            return Err(SendError::failed(ApiError::new(ErrorCode::BatchTooLarge, message)));
        }
        if record.timestamp().is_some_and(|timestamp| timestamp < 0) {
            let message = "the record's timestamp is negative";
            return Err(SendError::failed(ApiError::new(ErrorCode::InvalidRequest, message)));
        }
        if record.key().is_none() && self.is_compacted() {
            // Here only this record is refused; a broker would refuse the batch that it is in.
            let message = format!(
                "the record has no key: topic {:?} is compacted, so every record needs one",
                self.session.topic
            );
            return Err(SendError::failed(ApiError::new(ErrorCode::InvalidRecord, message)));
        }
        Ok(charge as u32)
    }

    fn is_compacted(&self) -> bool {
        let map = self.session.client.map();
        map.topic(self.session.topic_id).is_some_and(|topic| topic.spec.compaction.is_some())
    }

    fn place(&self, record: &Record, charge: usize) -> Result<Pending, SendError> {
        let timestamp = record.timestamp().unwrap_or_else(now_ms);
        let lane = match (record.partition(), record.key()) {
            (Some(partition), _) => self.lane(partition)?,
            (None, Some(key)) => self.lane(partition_of(key, self.lanes.len() as u32))?,
            (None, None) => return self.place_anywhere(record, timestamp, charge),
        };
        self.finish(lane, lane.append(record, timestamp, charge, true)?)
    }

    /// Fills one partition's batch, then turns to another partition.
    fn place_anywhere(&self, record: &Record, timestamp: i64, charge: usize) -> Result<Pending, SendError> {
        let current = self.sticky.load(Ordering::Relaxed);
        if let Some(lane) = self.lanes.get(current)
            && let Ok(appended @ Appended::In { .. }) = lane.append(record, timestamp, charge, false)
        {
            return self.finish(lane, appended);
        }
        let next = self.next_sticky(current);
        self.sticky.store(next, Ordering::Relaxed);
        let lane = self.lane(next as u32)?;
        self.finish(lane, lane.append(record, timestamp, charge, true)?)
    }

    fn finish(&self, lane: &Arc<Lane>, appended: Appended) -> Result<Pending, SendError> {
        let Appended::In { pending, start } = appended else { return Err(SendError::closed()) };
        if start {
            let sender = Sender::new(self.session.clone(), lane.clone());
            self.senders.spawn_on(sender.run(), &self.runtime);
        }
        Ok(pending)
    }

    /// A random partition other than `current` that takes records now; failing that, any other that may again.
    fn next_sticky(&self, current: usize) -> usize {
        let count = self.lanes.len().max(1);
        let start = rand::random_range(0..count);
        let map = self.session.client.map();
        let others = || (0..count).map(|step| (start + step) % count).filter(|next| *next != current);
        let takes = |next: &usize| {
            let Some(lane) = self.lanes.get(*next) else { return false };
            let id = PartitionId { topic: self.session.topic_id, index: lane.partition };
            !lane.stalled.load(Ordering::Relaxed) && !lane.has_ended() && leader_of(&map, id).is_some()
        };
        let may = |next: &usize| self.lanes.get(*next).is_some_and(|lane| !lane.has_ended());
        others()
            .find(takes)
            .or_else(|| Some(current).filter(takes))
            .or_else(|| others().find(may))
            .unwrap_or(current)
    }

    fn lane(&self, partition: u32) -> Result<&Arc<Lane>, SendError> {
        self.lanes.get(partition as usize).ok_or_else(|| {
            let message = format!("topic {:?} has {} partitions", self.session.topic, self.lanes.len());
            let error = ApiError::new(ErrorCode::UnknownPartition, message).with("partition", partition);
            SendError::failed(error)
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.session.cancel.cancel();
        let unfinished = self.session.ledger.stats().unfinished();
        if unfinished > 0 {
            tracing::warn!(topic = %self.session.topic, unfinished, "producer dropped without close");
        }
    }
}

/// Milliseconds since 1970; 0 on a clock before that.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
