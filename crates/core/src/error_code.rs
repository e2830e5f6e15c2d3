//! The stable codes that clients branch on: may the same request be sent again, and may it have happened anyway?

use serde::{Deserialize, Serialize};

/// What went wrong, as every interface names it. The wire name is the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A request field is missing or out of range.
    InvalidRequest,
    /// No topic of that name or id.
    UnknownTopic,
    /// The topic has no partition of that number.
    UnknownPartition,
    /// A topic of that name exists.
    TopicExists,
    /// Somebody else changed the thing first, or is at it.
    ConflictingChange,
    /// The zones that are up cannot hold the replicas asked for.
    PlacementImpossible,
    /// This broker does not lead the partition.
    NotLeader,
    /// No broker leads the partition at the moment.
    LeaderUnavailable,
    /// Fewer zones are reachable than an acknowledgement needs; refused before anything was appended.
    NotEnoughReplicas,
    /// Appended, and then fewer zones were reachable than an acknowledgement needs: the record may appear, once.
    NotEnoughReplicasAfterAppend,
    /// Below the log start offset or above the log end offset.
    OffsetOutOfRange,
    /// Bad checksum, bad length, bad framing.
    CorruptBatch,
    /// A record batch above the limit.
    BatchTooLarge,
    /// A record that its topic does not take: one without a key, in a topic that is compacted.
    InvalidRecord,
    /// A sequence number that does not follow the producer's last one.
    OutOfOrderSequence,
    /// The producer's first sequence number here is not 0 and nothing is known of it.
    UnknownProducer,
    /// An older instance of the producer.
    FencedProducer,
    /// A queue is full; come back after the delay given.
    Overloaded,
    /// The partition's storage failed on this broker.
    StorageFailed,
    /// The leader's disk is as good as full; refused before anything was appended.
    DiskFull,
    /// The leader changed after the append: the record may appear, once.
    LeaderLost,
    /// Time was up before the outcome was known: the record may appear, once.
    DeadlineExceeded,
    /// No controller quorum can be reached.
    ControllerUnavailable,
    /// A process of another cluster.
    WrongCluster,
    /// The broker does not (yet) hold a complete metadata map and routes nothing by a partial one.
    MetadataIncomplete,
    /// The process is shutting down or not reachable.
    Unavailable,
    /// A defect of ours.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [ErrorCode; 27] = [
        ErrorCode::InvalidRequest,
        ErrorCode::UnknownTopic,
        ErrorCode::UnknownPartition,
        ErrorCode::TopicExists,
        ErrorCode::ConflictingChange,
        ErrorCode::PlacementImpossible,
        ErrorCode::NotLeader,
        ErrorCode::LeaderUnavailable,
        ErrorCode::NotEnoughReplicas,
        ErrorCode::NotEnoughReplicasAfterAppend,
        ErrorCode::OffsetOutOfRange,
        ErrorCode::CorruptBatch,
        ErrorCode::BatchTooLarge,
        ErrorCode::InvalidRecord,
        ErrorCode::OutOfOrderSequence,
        ErrorCode::UnknownProducer,
        ErrorCode::FencedProducer,
        ErrorCode::Overloaded,
        ErrorCode::StorageFailed,
        ErrorCode::DiskFull,
        ErrorCode::LeaderLost,
        ErrorCode::DeadlineExceeded,
        ErrorCode::ControllerUnavailable,
        ErrorCode::WrongCluster,
        ErrorCode::MetadataIncomplete,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ];

    /// The name on the wire; never changes.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "INVALID_REQUEST",
            ErrorCode::UnknownTopic => "UNKNOWN_TOPIC",
            ErrorCode::UnknownPartition => "UNKNOWN_PARTITION",
            ErrorCode::TopicExists => "TOPIC_EXISTS",
            ErrorCode::ConflictingChange => "CONFLICTING_CHANGE",
            ErrorCode::PlacementImpossible => "PLACEMENT_IMPOSSIBLE",
            ErrorCode::NotLeader => "NOT_LEADER",
            ErrorCode::LeaderUnavailable => "LEADER_UNAVAILABLE",
            ErrorCode::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS",
            ErrorCode::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            ErrorCode::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            ErrorCode::CorruptBatch => "CORRUPT_BATCH",
            ErrorCode::BatchTooLarge => "BATCH_TOO_LARGE",
            ErrorCode::InvalidRecord => "INVALID_RECORD",
            ErrorCode::OutOfOrderSequence => "OUT_OF_ORDER_SEQUENCE",
            ErrorCode::UnknownProducer => "UNKNOWN_PRODUCER",
            ErrorCode::FencedProducer => "FENCED_PRODUCER",
            ErrorCode::Overloaded => "OVERLOADED",
            ErrorCode::StorageFailed => "STORAGE_FAILED",
            ErrorCode::DiskFull => "DISK_FULL",
            ErrorCode::LeaderLost => "LEADER_LOST",
            ErrorCode::DeadlineExceeded => "DEADLINE_EXCEEDED",
            ErrorCode::ControllerUnavailable => "CONTROLLER_UNAVAILABLE",
            ErrorCode::WrongCluster => "WRONG_CLUSTER",
            ErrorCode::MetadataIncomplete => "METADATA_INCOMPLETE",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::Internal => "INTERNAL",
        }
    }

    /// The code of that wire name, if this version knows it.
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Whether the same request may succeed later, or at another broker.
    pub fn is_retriable(self) -> bool {
        matches!(
            self,
            ErrorCode::NotLeader
                | ErrorCode::LeaderUnavailable
                | ErrorCode::NotEnoughReplicas
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::Overloaded
                | ErrorCode::StorageFailed
                | ErrorCode::DiskFull
                | ErrorCode::LeaderLost
                | ErrorCode::DeadlineExceeded
                | ErrorCode::ControllerUnavailable
                | ErrorCode::MetadataIncomplete
                | ErrorCode::Unavailable
        )
    }

    /// Whether the request may have taken effect, or may yet. Every other code is definite: it never happens.
    /// A code moves from here to definite only with a test that proves it.
    pub fn is_indefinite(self) -> bool {
        matches!(
            self,
            ErrorCode::LeaderLost
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::DeadlineExceeded
                | ErrorCode::StorageFailed
                | ErrorCode::Unavailable
                | ErrorCode::Internal
        )
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_is_unique() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
        }
    }
}
