//! Between generated messages and `holdfast_core`. What comes from the wire is refused where a field is missing or out
//! of range; nothing here panics on it.

pub mod metadata;
pub mod replication;

use holdfast_core::{BrokerId, DirId, LeaderEpoch, ReplicaId, TopicId};

use crate::v1;

/// A message that does not make sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} of {message}: {problem}")]
pub struct ConvertError {
    /// The message's name.
    pub message: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

pub(crate) fn bad(message: &'static str, field: &'static str, problem: &'static str) -> ConvertError {
    ConvertError { message, field, problem }
}

pub(crate) fn topic_id(message: &'static str, bytes: &[u8]) -> Result<TopicId, ConvertError> {
    TopicId::from_bytes(bytes).ok_or(bad(message, "topic_id", "not 16 bytes"))
}

pub(crate) fn epoch(message: &'static str, wire: i32) -> Result<LeaderEpoch, ConvertError> {
    LeaderEpoch::from_wire(wire).ok_or(bad(message, "epoch", "negative"))
}

pub(crate) fn replica_to_wire(replica: ReplicaId) -> v1::Replica {
    v1::Replica { broker_id: replica.broker.0, dir: replica.dir.0 }
}

pub(crate) fn replica_from_wire(replica: v1::Replica) -> ReplicaId {
    ReplicaId { broker: BrokerId(replica.broker_id), dir: DirId(replica.dir) }
}

pub(crate) fn replica(
    message: &'static str,
    field: &'static str,
    replica: Option<v1::Replica>,
) -> Result<ReplicaId, ConvertError> {
    replica.map(replica_from_wire).ok_or(bad(message, field, "missing"))
}
