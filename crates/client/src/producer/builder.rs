//! Options of a producer, and how it comes to be.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use holdfast_core::record_batch::Compression;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lane::{Lane, Pace};
use super::session::Session;
use super::stats::{AckHook, Ledger};
use super::{Inner, Producer};
use crate::error::BuildError;
use crate::{Client, ProducerConfig};

/// Options of a [`Producer`].
#[must_use]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    config: ProducerConfig,
    on_ack: Option<AckHook>,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        ProducerBuilder { client, topic: topic.to_owned(), config: ProducerConfig::default(), on_ack: None }
    }

    /// All options at once; for example [`ProducerConfig::cross_zone`].
    pub fn config(mut self, config: ProducerConfig) -> Self {
        self.config = config;
        self
    }

    /// See [`ProducerConfig::batch_size`].
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.config.batch_size = bytes;
        self
    }

    /// See [`ProducerConfig::linger`].
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// See [`ProducerConfig::compression`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// See [`ProducerConfig::delivery_timeout`].
    pub fn delivery_timeout(mut self, limit: Duration) -> Self {
        self.config.delivery_timeout = limit;
        self
    }

    /// See [`ProducerConfig::request_timeout`].
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.config.request_timeout = limit;
        self
    }

    /// See [`ProducerConfig::buffer_memory`].
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// Called for every acknowledged batch, for example to record its latency. It must not block.
    pub fn on_ack(mut self, hook: AckHook) -> Self {
        self.on_ack = Some(hook);
        self
    }

    /// Checks the options, finds the topic and gets a producer id. The producer's tasks run on the runtime that this
    /// is awaited on.
    ///
    /// # Errors
    /// Where the options contradict each other, the topic does not exist, or no broker gives out an id in time.
    pub async fn build(self) -> Result<Producer, BuildError> {
        self.config.validate()?;
        let (topic_id, partitions) = self.client.resolve(&self.topic).await?;
        let identity = self.client.init_producer().await?;
        let config = self.config;
        let ledger = Arc::new(Ledger::new(config.buffer_memory, self.on_ack));
        let pace = Pace {
            batch_size: config.batch_size,
            linger: config.linger,
            delivery_timeout: config.delivery_timeout,
        };
        let lanes =
            (0..partitions).map(|partition| Arc::new(Lane::new(partition, pace, ledger.clone()))).collect();
        let session = Session {
            client: self.client,
            topic: self.topic,
            topic_id,
            config,
            identity,
            ledger,
            cancel: CancellationToken::new(),
        };
        Ok(Producer {
            inner: Arc::new(Inner {
                session: Arc::new(session),
                lanes,
                sticky: AtomicUsize::new(0),
                senders: TaskTracker::new(),
                runtime: Handle::current(),
            }),
        })
    }
}
