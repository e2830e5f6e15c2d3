//! The client of Holdfast.
//!
//! ```text
//!  Client ── metadata ──► one broker: WatchMetadata, complete or refused; another broker when it ends or falls silent
//!    │        routing ──► one channel per broker, opened when first used
//!    ├─ admin             topics, state, offsets: a deadline and retries over brokers
//!    ├─ Producer          records ─► one open batch per partition ─► AppendStream to the leader, resent in order
//!    └─ Consumer          one fetch loop per partition ─► decoded batches, no offset skipped
//! ```
//!
//! Everything runs as tasks on the caller's tokio runtime and ends when the last handle is dropped. `retry` alone
//! decides what may be tried again, and reads nothing of an error but its code.
//!
//! Invariants:  CLI-1  a record is acknowledged, failed (certainly not stored) or unknown; never two of them
//!              CLI-2  the batches of a partition are sent and resent in order under the same sequence numbers
//!              CLI-3  a consumer hands out every record from its start on once and in order, or an error
//!              CLI-4  memory is bounded: by the producer's buffer, the consumer's prefetch, and the size of the map

mod admin;
mod client;
pub mod config;
pub mod consumer;
mod error;
mod metadata;
mod partition;
pub mod partitioner;
pub mod producer;
pub mod retry;
mod routing;
mod sync;

#[cfg(test)]
mod mock;

pub use admin::ListOffsetAt;
pub use client::{Client, ClientBuilder};
pub use config::{ClientConfig, ConfigError, ConsumerConfig, ProducerConfig, WhenTrimmed};
pub use consumer::{ConsumeError, ConsumedRecord, Consumer, ConsumerBuilder, FetchedBatch, StartAt, Until};
pub use error::{BuildError, ConnectError, Outcome, SendError, TrySendError};
pub use producer::{
    Ack, AckHook, AckedBatch, CloseReport, Pending, Producer, ProducerBuilder, ProducerStats, Record,
};

pub use holdfast_core::record_batch::{Compression, Header};
pub use holdfast_core::{ErrorCode, LeaderEpoch, Offset};
pub use holdfast_proto::ApiError;
pub use holdfast_proto::transport::Tls;
