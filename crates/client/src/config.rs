//! The options of client, producer and consumer, with their defaults and what they may be.

use std::time::Duration;

use holdfast_core::record_batch::Compression;
use holdfast_proto::transport::{MAX_CLIENT_MESSAGE, Tls};

/// Options that contradict each other or are out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    /// Every problem found, each with what is allowed.
    pub problems: Vec<String>,
}

/// How a client finds and speaks to the cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of brokers to begin with; they stay in the rotation for good.
    pub bootstrap: Vec<String>,
    /// The zone the client runs in: brokers there are preferred. Default: none.
    pub zone: Option<String>,
    /// Certificates; none means plain text.
    pub tls: Option<Tls>,
    /// How long `connect` waits for a first complete map. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long a call other than produce and fetch may take, retries included. Default: 10 s.
    pub request_timeout: Duration,
    /// A metadata stream that says nothing for this long is replaced by one to another broker. Default: 30 s.
    pub metadata_max_age: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            bootstrap: Vec::new(),
            zone: None,
            tls: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            metadata_max_age: Duration::from_secs(30),
        }
    }
}

/// How a producer batches and how long it tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// A batch is sent once it has this many bytes before compression. A larger record travels alone.
    /// Default: 128 KiB. 1 KiB to 8 MiB.
    pub batch_size: usize,
    /// How long a batch waits for more records before it is sent. Default: 5 ms.
    pub linger: Duration,
    /// Codec of the batches. Default: none.
    pub compression: Compression,
    /// Batches of a partition on their way at once; brokers remember the last five. Default: 5. 1 to 5.
    pub max_in_flight: usize,
    /// From the first record of a batch on: the outcome is known or reported as unknown by then. Default: 120 s.
    pub delivery_timeout: Duration,
    /// A leader that answers nothing for this long counts as lost. Default: 10 s. At most 60 s.
    pub request_timeout: Duration,
    /// Records that wait or are on their way, in bytes before compression. `send` waits for room. Default: 32 MiB.
    pub buffer_memory: usize,
}

/// Largest record: with its batch header it must pass a broker's limit.
pub(crate) const MAX_RECORD_SIZE: usize = 8 << 20;
/// Batches per producer and partition that brokers can recognise as duplicates.
const MAX_IN_FLIGHT: usize = 5;
/// Brokers wait no longer than this for an acknowledgement.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            batch_size: 128 << 10,
            linger: Duration::from_millis(5),
            compression: Compression::None,
            max_in_flight: MAX_IN_FLIGHT,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(10),
            buffer_memory: 32 << 20,
        }
    }
}

impl ProducerConfig {
    /// Fewer and smaller bytes where every one crosses zones: linger 15 ms, zstd.
    #[must_use]
    pub fn cross_zone() -> Self {
        ProducerConfig {
            linger: Duration::from_millis(15),
            compression: Compression::Zstd,
            ..ProducerConfig::default()
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// Names every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        let range = 1 << 10..=MAX_RECORD_SIZE;
        problems.unless(range.contains(&self.batch_size), || {
            format!("batch_size is {} bytes, allowed are 1 KiB to 8 MiB", self.batch_size)
        });
        problems.unless((1..=MAX_IN_FLIGHT).contains(&self.max_in_flight), || {
            format!("max_in_flight is {}, allowed are 1 to {MAX_IN_FLIGHT}", self.max_in_flight)
        });
        let timeouts = Duration::from_millis(1)..=MAX_REQUEST_TIMEOUT;
        problems.unless(timeouts.contains(&self.request_timeout), || {
            format!("request_timeout is {:?}, allowed are 1 ms to 60 s", self.request_timeout)
        });
        let least = self.linger.saturating_add(self.request_timeout);
        problems.unless(self.delivery_timeout >= least, || {
            format!(
                "delivery_timeout of {:?} is shorter than linger and request_timeout together, {least:?}",
                self.delivery_timeout
            )
        });
        // A semaphore counts the bytes: its largest request is a u32.
        let buffer = self.batch_size..=u32::MAX as usize >> 1;
        problems.unless(buffer.contains(&self.buffer_memory), || {
            format!(
                "buffer_memory is {} bytes, allowed are batch_size ({}) to 2 GiB",
                self.buffer_memory, self.batch_size
            )
        });
        problems.into_result()
    }
}

/// How a consumer fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// How long a broker waits for a first record. Default: 500 ms. At most 30 s.
    pub max_wait: Duration,
    /// Size at which a broker ends an answer; one batch always comes whole. Default: 1 MiB. 1 KiB to 16 MiB.
    pub max_bytes: u32,
    /// Decoded bytes that wait for the application, over all partitions; beyond them every partition may hold the
    /// one answer that it is about to decode. Default: 32 MiB.
    pub prefetch: usize,
    /// Largest size of a batch after decompression. Default: 32 MiB.
    pub max_batch_size: usize,
    /// Beyond `max_wait`: a broker that answers nothing for this long counts as lost. Default: 10 s.
    pub request_timeout: Duration,
    /// Read from the replica in the client's own zone where there is one. Default: true.
    pub allow_follower: bool,
    /// What to do where the records at the position were let go by the topic's retention. Default: `Fail`.
    pub when_trimmed: WhenTrimmed,
}

/// What a consumer does where the records that it would read next are kept no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenTrimmed {
    /// The partition ends with [`ConsumeError::OutOfRange`](crate::ConsumeError::OutOfRange), which says where its log starts.
    #[default]
    Fail,
    /// Reading goes on at the first record kept; a warning is logged.
    Skip,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            max_wait: Duration::from_millis(500),
            max_bytes: 1 << 20,
            prefetch: 32 << 20,
            max_batch_size: 32 << 20,
            request_timeout: Duration::from_secs(10),
            allow_follower: true,
            when_trimmed: WhenTrimmed::default(),
        }
    }
}

impl ConsumerConfig {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// Names every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        problems.unless(self.max_wait <= Duration::from_secs(30), || {
            format!("max_wait is {:?}, allowed is up to 30 s", self.max_wait)
        });
        problems.unless((1 << 10..=16 << 20).contains(&self.max_bytes), || {
            format!("max_bytes is {}, allowed are 1 KiB to 16 MiB", self.max_bytes)
        });
        problems.unless((1 << 10..=u32::MAX as usize >> 1).contains(&self.prefetch), || {
            format!("prefetch is {} bytes, allowed are 1 KiB to 2 GiB", self.prefetch)
        });
        problems.unless((1 << 10..=MAX_CLIENT_MESSAGE * 50).contains(&self.max_batch_size), || {
            format!("max_batch_size is {} bytes, allowed are 1 KiB to 1000 MiB", self.max_batch_size)
        });
        problems.unless(!self.request_timeout.is_zero(), || "request_timeout is zero".to_owned());
        problems.into_result()
    }
}

/// Collects problems, so that all are reported at once.
#[derive(Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    pub(crate) fn unless(&mut self, right: bool, problem: impl FnOnce() -> String) {
        if !right {
            self.0.push(problem());
        }
    }

    pub(crate) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.0 }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_profiles_are_valid() {
        ProducerConfig::default().validate().unwrap();
        ProducerConfig::cross_zone().validate().unwrap();
        ConsumerConfig::default().validate().unwrap();
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let config = ProducerConfig {
            max_in_flight: 6,
            delivery_timeout: Duration::from_secs(10),
            buffer_memory: 10,
            ..ProducerConfig::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.problems.len(), 3, "{error}");
        assert!(error.to_string().contains("delivery_timeout of 10s is shorter than linger"), "{error}");
    }
}
