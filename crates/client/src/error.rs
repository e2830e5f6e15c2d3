//! Errors that callers of the client meet.

use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;

use crate::producer::Record;

/// What is known of a record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Certainly not stored, and never will be.
    Failed,
    /// It may be stored, or may yet be, once.
    Unknown,
}

/// A record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {}", match outcome { Outcome::Failed => "not stored", Outcome::Unknown => "of unknown outcome" })]
pub struct SendError {
    /// Whether it may be stored all the same.
    pub outcome: Outcome,
    /// Why: the last error met.
    #[source]
    pub source: ApiError,
}

impl SendError {
    pub(crate) fn failed(source: ApiError) -> Self {
        SendError { outcome: Outcome::Failed, source }
    }

    pub(crate) fn unknown(source: ApiError) -> Self {
        SendError { outcome: Outcome::Unknown, source }
    }

    pub(crate) fn closed() -> Self {
        SendError::failed(ApiError::new(ErrorCode::Unavailable, "the producer is closed"))
    }
}

/// A record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// The buffer has no room; the record comes back.
    #[error("the producer's buffer is full")]
    Full(Record),
    /// The record or the producer's state does not allow it.
    #[error("record refused")]
    Refused(#[source] SendError),
}

/// The cluster cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options make no sense.
    #[error("client options: {0}")]
    Config(#[from] crate::ConfigError),
    /// No broker gave a complete metadata map in time.
    #[error("no broker gave a complete metadata map in time; last tried {endpoint}: {source}")]
    Unreachable {
        /// The address tried last.
        endpoint: String,
        /// What it, or the transport, said.
        #[source]
        source: ApiError,
    },
}

/// A producer or consumer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The options make no sense.
    #[error("options: {0}")]
    Config(#[from] crate::ConfigError),
    /// The cluster refuses, or does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
}
