//! Names of things, as types that cannot be mixed up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A broker: unique in the cluster, set in its configuration.
    BrokerId(u32)
);
number_id!(
    /// A controller: unique in the quorum, never reused after its disk was lost.
    ControllerId(u64)
);
number_id!(
    /// A data directory: random, made when the directory is formatted. Same broker with a new disk = other replica.
    DirId(u64)
);
number_id!(
    /// One run of a broker process: random, made at process start.
    Incarnation(u64)
);
number_id!(
    /// An idempotent producer: given out by the controller, unique in the cluster.
    ProducerId(i64)
);

/// A failure domain. No two replicas of a partition share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneId(Arc<str>);

impl ZoneId {
    /// The zone called `name`.
    pub fn new(name: &str) -> Self {
        ZoneId(Arc::from(name))
    }

    /// Its name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A topic's identity: random, never reused. A re-created name is another topic and never sees old data (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub u128);

impl TopicId {
    /// The sixteen bytes that stand for it on the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the sixteen bytes of the wire; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(TopicId(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// One ordered log of a topic. Displayed as `<topic id>-<index>`, which is also its folder's name on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic it belongs to.
    pub topic: TopicId,
    /// Its number in the topic, from 0.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// The text is not of the form `<32 hex digits>-<number>`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a partition's folder name (<topic id in 32 hex digits>-<partition number>)")]
pub struct ParsePartitionIdError(String);

impl FromStr for PartitionId {
    type Err = ParsePartitionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (topic, index) = text.split_once('-')?;
            let id = PartitionId {
                topic: TopicId(u128::from_str_radix(topic, 16).ok()?),
                index: index.parse().ok()?,
            };
            // Only the canonical spelling, so that one partition never has two folders.
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| ParsePartitionIdError(text.to_owned()))
    }
}

/// One copy of a partition: a broker and the data directory that holds it (docs/protocol.md §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The broker that stores it.
    pub broker: BrokerId,
    /// The data directory: a broker that lost its disk comes back as another replica.
    pub dir: DirId,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.broker, self.dir.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_id_reads_back_what_it_displays() {
        let id = PartitionId { topic: TopicId(0xfeed), index: 12 };
        assert_eq!(id.to_string().parse::<PartitionId>().unwrap(), id);
    }

    #[test]
    fn partition_id_refuses_other_spellings() {
        for text in ["", "12", "feed-1", "0000000000000000000000000000feed-01", "x-1"] {
            assert!(text.parse::<PartitionId>().is_err(), "{text:?} was accepted");
        }
    }
}
