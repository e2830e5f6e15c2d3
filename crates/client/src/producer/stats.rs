//! What a producer counts, and the handle by which a batch gives back its room and its outcome.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::completion::{Ack, BatchOutcome, Completion};
use crate::error::{Outcome, SendError};

/// Counters of a producer since it was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records taken into the buffer.
    pub accepted: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records certainly not stored.
    pub failed: u64,
    /// Records of unknown outcome.
    pub unknown: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Bytes of acknowledged batches as sent.
    pub bytes: u64,
    /// Batches sent once more.
    pub resends: u64,
    /// Acknowledgements that said the batch was there already.
    pub duplicates: u64,
    /// Streams to leaders opened, the first of each partition included.
    pub streams: u64,
}

impl ProducerStats {
    /// Records whose outcome is not known yet.
    pub fn unfinished(&self) -> u64 {
        self.accepted.saturating_sub(self.acked + self.failed + self.unknown)
    }
}

/// A batch that was acknowledged, for measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedBatch {
    /// Its partition.
    pub partition: u32,
    /// How many records.
    pub records: u32,
    /// Bytes as sent.
    pub bytes: usize,
    /// From the batch's first record to its acknowledgement, linger included.
    pub latency: Duration,
}

/// Called for every acknowledged batch, on the partition's task: it must not block.
pub type AckHook = Arc<dyn Fn(&AckedBatch) + Send + Sync>;

/// What all partitions of a producer share: room and counters.
pub(super) struct Ledger {
    /// Bytes that are free.
    pub(super) room: Semaphore,
    pub(super) on_ack: Option<AckHook>,
    pub(super) accepted: AtomicU64,
    pub(super) resends: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) streams: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("room", &self.room)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Ledger {
    pub(super) fn new(room: usize, on_ack: Option<AckHook>) -> Ledger {
        Ledger {
            room: Semaphore::new(room),
            on_ack,
            accepted: AtomicU64::default(),
            resends: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            streams: AtomicU64::default(),
            acked: AtomicU64::default(),
            failed: AtomicU64::default(),
            unknown: AtomicU64::default(),
            batches: AtomicU64::default(),
            bytes: AtomicU64::default(),
        }
    }

    pub(super) fn stats(&self) -> ProducerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProducerStats {
            accepted: read(&self.accepted),
            acked: read(&self.acked),
            failed: read(&self.failed),
            unknown: read(&self.unknown),
            batches: read(&self.batches),
            bytes: read(&self.bytes),
            resends: read(&self.resends),
            duplicates: read(&self.duplicates),
            streams: read(&self.streams),
        }
    }

    fn count_outcome(&self, outcome: &BatchOutcome, records: u32) {
        let counter = match outcome {
            Ok(_) => &self.acked,
            Err(SendError { outcome: Outcome::Failed, .. }) => &self.failed,
            Err(SendError { outcome: Outcome::Unknown, .. }) => &self.unknown,
        };
        counter.fetch_add(u64::from(records), Ordering::Relaxed);
    }
}

/// One to the counter.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A batch's claim on room, and its duty to tell an outcome: dropped without one, it is unknown.
#[derive(Debug)]
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    completion: Arc<Completion>,
    pub(super) partition: u32,
    pub(super) opened: Instant,
    records: u32,
    /// Bytes taken from the ledger's room.
    charged: usize,
}

impl Ticket {
    pub(super) fn new(ledger: Arc<Ledger>, partition: u32) -> Ticket {
        let (completion, opened) = (Arc::default(), Instant::now());
        Ticket { ledger, completion, partition, opened, records: 0, charged: 0 }
    }

    pub(super) fn completion(&self) -> &Arc<Completion> {
        &self.completion
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Adds a record for which `charge` bytes of room were taken; gives its number in the batch.
    pub(super) fn add(&mut self, charge: usize) -> u32 {
        let index = self.records;
        self.records += 1;
        self.charged += charge;
        count(&self.ledger.accepted);
        index
    }

    /// Whether an outcome was told already.
    pub(super) fn is_told(&self) -> bool {
        self.completion.is_done()
    }

    pub(super) fn acked(&self, ack: Ack, bytes: usize) {
        if !self.tell(Ok(ack)) {
            return; // told as unknown before; now it is known, but nobody listens any more
        }
        count(&self.ledger.batches);
        self.ledger.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(on_ack) = &self.ledger.on_ack {
            let (partition, records) = (self.partition, self.records);
            on_ack(&AckedBatch { partition, records, bytes, latency: self.opened.elapsed() });
        }
    }

    pub(super) fn lost(&self, error: SendError) {
        self.tell(Err(error));
    }

    fn tell(&self, outcome: BatchOutcome) -> bool {
        if self.is_told() {
            return false;
        }
        // Counted first: who awaits the outcome finds it in the counters.
        self.ledger.count_outcome(&outcome, self.records);
        self.completion.complete(outcome)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let dropped =
            || ApiError::new(ErrorCode::Unavailable, "the producer ended before the outcome was known");
        if !self.is_told() {
            self.lost(SendError::unknown(dropped()));
        }
        self.ledger.room.add_permits(self.charged);
    }
}
