//! Compaction (R45): one task for the whole broker, one partition at a time, off the threads that lead partitions.
//!
//! ```text
//!  choice: the dirtiest ──► shard: how far, and which tombstones ──► pass, on a thread that may wait for the disk
//!     ▲                            (noted before the pass begins)        │ so many bytes a second
//!     └───────────── shard: how far it is cleaned now ◄──────────────────┘ damage: to the repair
//! ```
//! What may go is for the rules and the log to say; here is only whose turn it is, and how fast.
//!
//! Invariants: one pass at a time, so one map of keys is in memory. No pass begins while the disk is short of room, and one that
//! is under way ends then.

mod choice;
mod codec;
mod pass;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::ClusterMap;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::PassEnd;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::data_dir::DataDir;
use crate::disk_space::DiskSpace;
use crate::fatal::Fatal;
use crate::pace::Pace;
use crate::partition::{Command, Partitions, PassBounds, ShardSenders};
use crate::repair::{Outcome, Repairs};
use choice::Choice;
use pass::Passed;

pub(crate) use stats::CompactionStats;

/// How long a repair of what stood in the way of a pass is waited for.
const REPAIR_PATIENCE: Duration = Duration::from_secs(30);
/// A partition of which a pass came to nothing is passed over for so many looks.
const REST_LOOKS: u32 = 4;

/// What compaction needs of the broker.
pub(crate) struct CompactorContext {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    pub(crate) partitions: Partitions,
    pub(crate) shards: ShardSenders,
    pub(crate) repairs: Repairs,
    pub(crate) space: DiskSpace,
    pub(crate) stats: CompactionStats,
    pub(crate) fatal: Fatal,
    /// Ends it in order.
    pub(crate) ending: CancellationToken,
    /// Bytes a second, read and written.
    pub(crate) rate: u64,
    /// Bytes of memory for keys.
    pub(crate) map_bytes: usize,
    /// Between two looks where nothing was to be done.
    pub(crate) interval: Duration,
}

/// Compacts what is dirtiest, again and again; ends with the runtime, or when it is told to.
pub(crate) async fn compact(context: CompactorContext) {
    let _watched = context.fatal.watch_thread();
    let ending = context.ending.clone();
    let pace = Pace::new(context.rate);
    Compactor { context, pace, resting: BTreeMap::new() }.run(&ending).await;
}

struct Compactor {
    context: CompactorContext,
    pace: Pace,
    /// Partitions that are passed over, and until when.
    resting: BTreeMap<PartitionId, Instant>,
}

impl Compactor {
    async fn run(&mut self, ending: &CancellationToken) {
        while !ending.is_cancelled() {
            match self.next_choice() {
                Some(choice) => self.take_turn(choice).await,
                None => tokio::select! {
                    () = tokio::time::sleep(self.context.interval) => {}
                    () = ending.cancelled() => {}
                },
            }
        }
    }

    fn next_choice(&mut self) -> Option<Choice> {
        if self.context.space.room().is_short() {
            return None;
        }
        let now = Instant::now();
        self.resting.retain(|_, until| *until > now);
        let map = Arc::clone(&self.context.map.borrow());
        choice::next(&map, &self.context.partitions, |partition| self.resting.contains_key(&partition))
    }

    async fn take_turn(&mut self, choice: Choice) {
        let partition = choice.partition;
        let went_well = match self.begin(partition, choice.compaction).await {
            Some(bounds) => self.pass(&choice, bounds).await,
            None => false,
        };
        if !went_well {
            self.resting.insert(partition, Instant::now() + self.context.interval * REST_LOOKS);
        }
    }

    /// Has the shard say how far a pass may go. `None` where there is to be none.
    async fn begin(&self, partition: PartitionId, compaction: Compaction) -> Option<PassBounds> {
        let (reply, bounds) = oneshot::channel();
        let command = Command::BeginPass { partition, compaction, reply };
        self.context.shards.of(partition).send(command).await.ok()?;
        // Without an answer the partition is gone.
        bounds.await.ok().flatten()
    }

    /// Whether the pass brought something, so that there may be another one soon.
    async fn pass(&mut self, choice: &Choice, bounds: PassBounds) -> bool {
        let partition = choice.partition;
        let before = bounds.cleaned_end;
        let Some(Passed { outcome, pace, took }) =
            pass::run(&self.context, self.pace.clone(), choice, bounds).await
        else {
            return false;
        };
        self.pace = pace;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%partition, error, "compacting the log failed: it is as it was, and is tried again later");
                return false;
            }
        };
        self.context.stats.tell(partition, &outcome, took);
        // An error says that the shard is gone.
        let _ = self.context.shards.of(partition).send(Command::PassEnded(partition)).await;
        match outcome.ended {
            PassEnd::Complete | PassEnd::MapFull => outcome.cleaned_end > before,
            PassEnd::Stopped | PassEnd::Changed => false,
            PassEnd::Damaged(range) => self.is_repaired(partition, range.from).await,
        }
    }

    /// Has what is damaged there repaired, and waits for that a while.
    async fn is_repaired(&self, partition: PartitionId, from: Offset) -> bool {
        let deadline = Instant::now() + REPAIR_PATIENCE;
        tokio::select! {
            outcome = self.context.repairs.repair(partition, from, deadline) => outcome == Outcome::Whole,
            // The repair ends with the runtime, not with the one who waits for it.
            () = self.context.ending.cancelled() => false,
        }
    }
}
