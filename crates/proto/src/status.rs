//! One error for every interface: a gRPC status with `google.rpc.ErrorInfo` and `RetryInfo`, or `v1.Error` in streams.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use holdfast_core::ErrorCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1;

/// The `domain` of our `ErrorInfo`.
const DOMAIN: &str = "holdfast";
/// Metadata key that says whether the request may have taken effect.
const OUTCOME: &str = "outcome";

/// An error as callers meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The stable code.
    pub code: ErrorCode,
    /// What failed, why, and what to do next.
    pub message: String,
    /// Details by name, such as `leader_endpoint`.
    pub metadata: BTreeMap<String, String>,
    /// When to try again, where that helps.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), metadata: BTreeMap::new(), retry_after: None }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// A detail.
    pub fn detail(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// As gRPC status.
    pub fn into_status(self) -> Status {
        let mut metadata: HashMap<String, String> = self.metadata.into_iter().collect();
        metadata.insert(OUTCOME.to_owned(), outcome(self.code).to_owned());
        let mut details = ErrorDetails::with_error_info(self.code.name(), DOMAIN, metadata);
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(grpc_code(self.code), self.message, details)
    }

    /// Reads a gRPC status. One without our details was made by the transport or by something in between: its outcome
    /// is unknown unless gRPC itself says otherwise.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let named =
            info.filter(|info| info.domain == DOMAIN).and_then(|info| ErrorCode::from_name(&info.reason));
        let code = named.unwrap_or_else(|| code_of_foreign(status.code()));
        let metadata = info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default();
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        ApiError { code, message: status.message().to_owned(), metadata, retry_after }
    }

    /// As it stands inside a stream.
    pub fn into_message(self) -> v1::Error {
        v1::Error {
            reason: self.code.name().to_owned(),
            message: self.message,
            indefinite: self.code.is_indefinite(),
            retry_after_ms: self
                .retry_after
                .map_or(0, |delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX).max(1)),
            metadata: self.metadata.into_iter().collect(),
        }
    }

    /// Reads one from a stream. A reason this version does not know keeps its outcome class.
    pub fn from_message(error: v1::Error) -> Self {
        let foreign = if error.indefinite { ErrorCode::Internal } else { ErrorCode::InvalidRequest };
        ApiError {
            code: ErrorCode::from_name(&error.reason).unwrap_or(foreign),
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
            retry_after: (error.retry_after_ms > 0)
                .then(|| Duration::from_millis(u64::from(error.retry_after_ms))),
        }
    }
}

/// Whether the connection that a call needed was never made: then nothing left this process.
pub fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        error.into_status()
    }
}

fn outcome(code: ErrorCode) -> &'static str {
    if code.is_indefinite() { "indefinite" } else { "definite" }
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::CorruptBatch
        | ErrorCode::BatchTooLarge
        | ErrorCode::InvalidRecord => Code::InvalidArgument,
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => Code::NotFound,
        ErrorCode::TopicExists => Code::AlreadyExists,
        ErrorCode::ConflictingChange => Code::Aborted,
        ErrorCode::PlacementImpossible
        | ErrorCode::NotLeader
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::UnknownProducer => Code::FailedPrecondition,
        ErrorCode::OffsetOutOfRange => Code::OutOfRange,
        ErrorCode::FencedProducer | ErrorCode::LeaderLost | ErrorCode::NotEnoughReplicasAfterAppend => {
            Code::Aborted
        }
        ErrorCode::Overloaded | ErrorCode::DiskFull => Code::ResourceExhausted,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::WrongCluster => Code::PermissionDenied,
        ErrorCode::LeaderUnavailable
        | ErrorCode::ControllerUnavailable
        | ErrorCode::MetadataIncomplete
        | ErrorCode::Unavailable => Code::Unavailable,
        // `Internal` and `StorageFailed`, and whatever code is added without a thought for its gRPC code.
        _ => Code::Internal,
    }
}

fn code_of_foreign(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange => ErrorCode::InvalidRequest,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::Unavailable | Code::Cancelled | Code::Unknown => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_status_and_stream() {
        for code in ErrorCode::ALL {
            let error = ApiError::new(code, "why").with("leader_endpoint", "b:7070");
            let error = error.retry_after(Duration::from_millis(50));
            assert_eq!(ApiError::from_message(error.clone().into_message()), error);
            let status = error.clone().into_status();
            let mut read = ApiError::from_status(&status);
            assert_eq!(read.metadata.remove(OUTCOME).as_deref(), Some(outcome(code)));
            assert_eq!(read, error);
        }
    }

    #[test]
    fn a_cut_connection_is_indefinite() {
        for code in
            [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::DeadlineExceeded, Code::Internal]
        {
            assert!(ApiError::from_status(&Status::new(code, "cut")).code.is_indefinite(), "{code:?}");
        }
    }
}
