//! Reads records: one fetch loop per partition, merged into one stream of decoded batches. No group, no commits.
//!
//! ```text
//!  partition 0: fetch ─► decode ─┐
//!  partition 1: fetch ─► decode ─┼─► channel, bounded by bytes ─► next_batch
//!  partition 2: fetch ─► decode ─┘
//! ```

mod decode;
mod fetch;
mod recover;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use holdfast_core::{ErrorCode, LeaderEpoch, Offset, PartitionId};
use holdfast_proto::ApiError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use decode::{ConsumedRecord, DecodeError};

use crate::error::BuildError;
use crate::{Client, ConsumerConfig, ListOffsetAt};
use fetch::{Fetcher, Item};

/// Batches that wait for the application, beside the limit in bytes.
const QUEUE: usize = 256;
/// Offsets looked up at once while a consumer is built.
const LOOKUPS: usize = 16;

/// Why a partition is not read any further. Other partitions go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The broker refuses, for example because the topic was deleted.
    #[error("partition {partition} cannot be read")]
    Refused {
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// There is nothing at the position, and there will not be: records were deleted, or lost.
    #[error(
        "partition {partition}: offset {position} is out of range (from {} to {})",
        shown(*log_start_offset), shown(*high_watermark)
    )]
    OutOfRange {
        /// The partition.
        partition: u32,
        /// The consumer's position.
        position: Offset,
        /// First offset that is still kept, where the broker said so.
        log_start_offset: Option<Offset>,
        /// End of what can be read (exclusive), where the broker said so.
        high_watermark: Option<Offset>,
    },
    /// What came is not the continuation of the log.
    #[error("partition {partition} gave bad data")]
    Decode {
        /// The partition.
        partition: u32,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

fn shown(offset: Option<Offset>) -> String {
    offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string())
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartAt {
    /// The first record kept.
    Beginning,
    /// The first record committed after the consumer was built.
    #[default]
    End,
    /// This offset.
    Offset(Offset),
    /// The first offset from which on a record of this time or later is found; milliseconds since 1970.
    Timestamp(i64),
}

/// Where reading stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Until {
    /// Never.
    #[default]
    Never,
    /// When all was read that was committed when the consumer was built.
    HighWatermarkAtStart,
    /// After so many records, over all partitions.
    Count(u64),
}

/// Options of a [`Consumer`].
#[derive(Debug)]
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    topic: String,
    config: ConsumerConfig,
    partitions: Option<Vec<u32>>,
    start: StartAt,
    until: Until,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        ConsumerBuilder {
            client,
            topic: topic.to_owned(),
            config: ConsumerConfig::default(),
            partitions: None,
            start: StartAt::default(),
            until: Until::default(),
        }
    }

    /// Reads only these partitions. Default: all.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Where to start. Default: [`StartAt::End`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Where to stop. Default: [`Until::Never`].
    pub fn stop(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    /// See [`ConsumerConfig::max_wait`].
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// All options of fetching at once.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Checks the options and finds topic, start and stop. The fetch loops run on the runtime that this is awaited on.
    ///
    /// # Errors
    /// Where the options make no sense, topic or partition do not exist, or no broker tells the offsets in time.
    pub async fn build(self) -> Result<Consumer, BuildError> {
        self.config.validate()?;
        let (topic, count) = self.client.resolve(&self.topic).await?;
        let mut partitions = self.partitions.clone().unwrap_or_else(|| (0..count).collect());
        partitions.sort_unstable();
        partitions.dedup();
        if let Some(unknown) = partitions.iter().find(|partition| **partition >= count) {
            let message =
                format!("topic {:?} has {count} partitions, not one numbered {unknown}", self.topic);
            return Err(ApiError::new(ErrorCode::UnknownPartition, message).into());
        }
        let ranges = stream::iter(partitions.clone().into_iter().map(|partition| self.range(partition)))
            .buffered(LOOKUPS)
            .try_collect::<Vec<_>>()
            .await?;
        let (output, items) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(self.config.prefetch));
        let cancel = CancellationToken::new();
        for (partition, (start, end)) in partitions.into_iter().zip(ranges) {
            let mut fetcher = Fetcher::new(
                self.client.clone(),
                self.config.clone(),
                self.topic.clone(),
                PartitionId { topic, index: partition },
                start,
                end,
                output.clone(),
                room.clone(),
            );
            fetcher.beginning = (self.start == StartAt::Beginning).then_some(start);
            tokio::spawn(cancel.clone().run_until_cancelled_owned(fetcher.run()));
        }
        let left = match self.until {
            Until::Count(count) => Some(count),
            Until::Never | Until::HighWatermarkAtStart => None,
        };
        Ok(Consumer { items, left, _fetchers: cancel.drop_guard() })
    }

    /// Where to start and, if anywhere, to stop in a partition.
    async fn range(&self, partition: u32) -> Result<(Offset, Option<Offset>), ApiError> {
        let at = |at| self.client.list_offset(&self.topic, partition, at);
        let start = match self.start {
            StartAt::Beginning => at(ListOffsetAt::Earliest).await?,
            StartAt::End => at(ListOffsetAt::Latest).await?,
            StartAt::Timestamp(ms) => at(ListOffsetAt::Timestamp(ms)).await?,
            StartAt::Offset(offset) => offset,
        };
        let end = match self.until {
            Until::HighWatermarkAtStart => Some(at(ListOffsetAt::Latest).await?),
            Until::Never | Until::Count(_) => None,
        };
        Ok((start, end))
    }
}

/// Records of one partition, in order, with all that there are behind those of its last batch: an offset that is missing was
/// compacted, or is none of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedBatch {
    /// The partition.
    pub partition: u32,
    /// End of what could be read when this was fetched (exclusive). Never goes back for one consumer.
    pub high_watermark: Offset,
    /// Epoch in which it was appended.
    pub epoch: Option<LeaderEpoch>,
    /// Where a consumer that has processed this goes on.
    pub next_offset: Offset,
    /// At least one.
    pub records: Vec<ConsumedRecord>,
}

/// Reads a topic. Its fetch loops end when it is dropped.
#[derive(Debug)]
pub struct Consumer {
    items: mpsc::Receiver<Result<Item, ConsumeError>>,
    /// Records still wanted, where a count was given.
    left: Option<u64>,
    _fetchers: DropGuard,
}

impl Consumer {
    /// The next records, of whichever partition has some; `None` once everything asked for was read. After an error
    /// its partition is not read any further, the others are. Dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Option<Result<FetchedBatch, ConsumeError>> {
        if self.left == Some(0) {
            return None;
        }
        let mut batch = match self.items.recv().await? {
            Ok(item) => item.batch,
            Err(error) => return Some(Err(error)),
        };
        if let Some(left) = &mut self.left {
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
            if batch.records.len() > wanted {
                batch.next_offset = batch.records[wanted].offset;
                batch.records.truncate(wanted);
            }
            *left -= batch.records.len() as u64;
        }
        Some(Ok(batch))
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.batch.fmt(f)
    }
}
