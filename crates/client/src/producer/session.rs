//! What a producer and the senders of its partitions share.

use std::sync::Arc;

use holdfast_core::TopicId;
use holdfast_core::record_batch::ProducerRef;
use tokio_util::sync::CancellationToken;

use super::stats::Ledger;
use crate::{Client, ProducerConfig};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) config: ProducerConfig,
    /// The producer id that every partition starts with.
    pub(super) identity: ProducerRef,
    pub(super) ledger: Arc<Ledger>,
    /// Ends every sender.
    pub(super) cancel: CancellationToken,
}
